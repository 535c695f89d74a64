"""The serial console of a real guest on a real pseudo-terminal."""

from __future__ import annotations

import os
import pty
import select
import signal
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import libvirt
import pytest

from host.connection import Host, open_host
from host.errors import Busy, Unsupported, WrongState
from tests.real.conftest import BOOTED
from vm import console, inventory
from vm.model import Vm

ATTACH = """
import sys
from host.connection import open_host
from vm import console, inventory
host = open_host(sys.argv[1])
print(console.attach(host, inventory.find(host, sys.argv[2]), stdin_fd=0, stdout_fd=1))
"""


class Screen:
    """The outer side of a pseudo-terminal: what a person types and sees."""

    def __init__(self) -> None:
        self.outer, self.inner = pty.openpty()
        self.seen = b""

    def type(self, text: str) -> None:
        os.write(self.outer, text.encode())

    def wait_for(self, text: str, *, timeout_s: float = 90.0) -> None:
        deadline = time.monotonic() + timeout_s
        while text.encode() not in self.seen:
            assert time.monotonic() < deadline, f"waited for {text!r}, saw {self.seen!r}"
            self.read()

    def read(self) -> None:
        if select.select([self.outer], [], [], 0.2)[0]:
            self.seen += os.read(self.outer, 65536)

    def close(self) -> None:
        for fd in (self.outer, self.inner):
            os.close(fd)


@pytest.fixture
def screen() -> Iterator[Screen]:
    made = Screen()
    yield made
    made.close()


@pytest.fixture
def guest(booted: libvirt.virDomain, real_host: Host) -> Vm:
    """A running tiny guest."""
    return inventory.find(real_host, BOOTED)


def attach_in_thread(host: Host, vm: Vm, screen: Screen, **options: bool) -> tuple[threading.Thread, list[str]]:
    result: list[str] = []
    screen.seen = b""

    def work() -> None:
        result.append(console.attach(host, vm, stdin_fd=screen.inner, stdout_fd=screen.inner, **options))

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    screen.wait_for("Leave it with Ctrl+]")
    return thread, result


def ended(thread: threading.Thread, result: list[str], screen: Screen) -> str:
    deadline = time.monotonic() + 90
    while thread.is_alive() and time.monotonic() < deadline:
        screen.read()
    assert result, "the console did not end"
    return result[0]


def test_a_command_is_typed_its_answer_read_and_the_terminal_is_as_before(real_host, guest, screen):
    before = termios.tcgetattr(screen.inner)
    thread, result = attach_in_thread(real_host, guest, screen)
    screen.type("\r")
    screen.wait_for(f"{BOOTED}:")
    assert termios.tcgetattr(screen.inner) != before
    screen.type("echo $((6*7))-$(hostname)\r")
    screen.wait_for(f"42-{BOOTED}")
    screen.type("\x1d")
    assert ended(thread, result, screen) == "left with Ctrl+]"
    assert termios.tcgetattr(screen.inner) == before

    # A second visitor is refused, until it takes the console over.
    thread, result = attach_in_thread(real_host, guest, screen)
    other = Screen()
    with pytest.raises(Busy, match="somebody else has its console open"):
        console.attach(real_host, guest, stdin_fd=other.inner, stdout_fd=other.inner)
    taker, taken = attach_in_thread(real_host, guest, other, force=True)
    assert "took it over" in ended(thread, result, screen)
    assert termios.tcgetattr(screen.inner) == before
    other.type("\x1d")
    assert ended(taker, taken, other) == "left with Ctrl+]"
    other.close()

    # More than the terminal's buffer in both directions.
    thread, result = attach_in_thread(real_host, guest, screen)
    screen.type("seq 1 3000; echo all-of-it\r")
    screen.wait_for("3000\r\nall-of-it\r\n")
    screen.seen = b""
    screen.type("poweroff\r")
    assert ended(thread, result, screen) == "the VM stopped"
    assert termios.tcgetattr(screen.inner) == before
    with pytest.raises(WrongState, match="does not run"):
        console.attach(real_host, guest, stdin_fd=screen.inner, stdout_fd=screen.inner)


def test_a_terminated_process_leaves_the_terminal_as_it_was(real_host, guest, screen):
    before = termios.tcgetattr(screen.inner)
    command = [sys.executable, "-c", ATTACH, real_host.uri, guest.name]
    for number in (signal.SIGTERM, signal.SIGHUP):
        screen.seen = b""
        process = subprocess.Popen(
            command, stdin=screen.inner, stdout=screen.inner, stderr=screen.inner, cwd=Path(__file__).parents[2]
        )
        screen.wait_for("Leave it with Ctrl+]")
        process.send_signal(number)
        assert process.wait(60) == -number
        assert termios.tcgetattr(screen.inner) == before


def test_the_console_ends_when_libvirtd_dies(private_daemon, guest, screen):
    host = open_host(private_daemon.uri, name="short")
    before = termios.tcgetattr(screen.inner)
    thread, result = attach_in_thread(host, guest, screen)
    private_daemon.kill()
    reason = ended(thread, result, screen)
    private_daemon.start()
    assert "the connection broke" in reason
    assert termios.tcgetattr(screen.inner) == before
    host.close()


def test_a_vm_without_a_serial_console_says_so(real_host, screen):
    xml = (
        "<domain type='qemu'><name>mute</name><memory>65536</memory>"
        "<os><type arch='x86_64' machine='q35'>hvm</type></os></domain>"
    )
    with real_host.calls("define") as connection:
        connection.createXML(xml, 0)
    with pytest.raises(Unsupported, match="no serial console"):
        console.attach(real_host, inventory.find(real_host, "mute"), stdin_fd=screen.inner, stdout_fd=screen.inner)


def test_input_that_ends_ends_the_session(real_host, guest):
    reader, writer = os.pipe()
    os.write(writer, b"echo typed-by-a-pipe\r")
    os.close(writer)
    with Path(os.devnull).open("w") as nowhere:
        reason = console.attach(real_host, guest, stdin_fd=reader, stdout_fd=nowhere.fileno())
    os.close(reader)
    assert reason == "the input ended"
