"""`vm watch` and `host events` of two libvirtds: one that is killed or frozen is a line, and comes back by itself."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import libvirt
import pytest

from host.connection import Host
from tests.support.private_libvirtd import PrivateLibvirtd

DEAF = """<domain type='qemu'><name>{name}</name><memory unit='MiB'>32</memory>
<os><type arch='x86_64' machine='pc'>hvm</type></os></domain>"""

Line = dict[str, Any]


class Stream:
    """A command whose lines are read as they come."""

    def __init__(self, *words: str) -> None:
        command = [sys.executable, "-m", "hvtui", "--headless", *words]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        assert self.process.stdout is not None
        self._lines = (json.loads(line) for line in self.process.stdout)

    def until(self, **wanted: object) -> Line:
        """The next line with these values; those before it are passed over."""
        return next(line for line in self._lines if all(line.get(key) == value for key, value in wanted.items()))


@pytest.fixture
def stream(
    real_host: Host,
    second_host: Host,
    private_daemon: PrivateLibvirtd,
    second_daemon: PrivateLibvirtd,
    config_file: Path,
) -> Iterator[Callable[..., Stream]]:
    """Starts a command of the two hosts lab1 and lab2, each with a VM that is off: on-lab1 and on-lab2."""
    for name, host, daemon in (("lab1", real_host, private_daemon), ("lab2", second_host, second_daemon)):
        with config_file.open("a", encoding="utf-8") as file:
            file.write(f'[[host]]\nname = "{name}"\nuri = "{daemon.uri}"\n')
        host.connection().defineXML(DEAF.format(name=f"on-{name}"))
    started: list[Stream] = []

    def start(*words: str) -> Stream:
        started.append(Stream(*words))
        return started[-1]

    yield start
    for each in started:
        each.process.kill()
        each.process.communicate()


def switch_on(daemon: PrivateLibvirtd, name: str) -> None:
    connection = libvirt.open(daemon.uri)
    connection.lookupByName(name).create()
    connection.close()


def test_a_host_whose_libvirtd_dies_is_a_line_and_comes_back_by_itself(
    stream: Callable[..., Stream], private_daemon: PrivateLibvirtd, second_daemon: PrivateLibvirtd
) -> None:
    watch = stream("vm", "watch", "--no-rates", "--all-hosts")
    first = {(line["kind"], line["host"], line["vm"]) for line in (watch.until(), watch.until())}
    assert first == {("state", "lab1", "on-lab1"), ("state", "lab2", "on-lab2")}
    second_daemon.kill()
    assert watch.until(kind="link")["host"] == "lab2"
    switch_on(private_daemon, "on-lab1")
    assert watch.until(host="lab1")["state"] == "running"
    second_daemon.start()
    assert watch.until(kind="link", host="lab2")["status"] == "connected"
    switch_on(second_daemon, "on-lab2")
    assert watch.until(host="lab2", vm="on-lab2", state="running")
    watch.process.send_signal(signal.SIGINT)
    assert watch.process.wait(60) == 130


def test_events_go_on_beside_a_host_that_is_dead_from_the_beginning(
    stream: Callable[..., Stream], private_daemon: PrivateLibvirtd, second_daemon: PrivateLibvirtd
) -> None:
    second_daemon.kill()
    events = stream("host", "events", "--all-hosts")
    assert events.until(kind="link", host="lab2")["status"] == "lost"
    switch_on(private_daemon, "on-lab1")
    assert events.until(kind="started", host="lab1")["vm"] == "on-lab1"
    second_daemon.start()
    assert events.until(kind="link", host="lab2")["status"] == "connected"
    switch_on(second_daemon, "on-lab2")
    assert events.until(kind="started", host="lab2")["vm"] == "on-lab2"


def test_a_frozen_host_is_told_as_silent_and_delays_no_line_of_the_other(
    stream: Callable[..., Stream], private_daemon: PrivateLibvirtd, second_daemon: PrivateLibvirtd
) -> None:
    watch = stream("vm", "watch", "--all-hosts", "--interval", "0.5")
    watch.until(kind="state", host="lab2")
    second_daemon.freeze()
    try:
        switch_on(private_daemon, "on-lab1")
        assert watch.until(kind="rates", host="lab1")
        assert watch.until(kind="link", host="lab2")["error"] == "the host does not answer"
    finally:
        second_daemon.thaw()
    assert watch.until(kind="link", host="lab2")["status"] == "connected"
