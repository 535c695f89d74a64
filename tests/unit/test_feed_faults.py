"""A libvirtd that is killed, restarted or frozen while a feed shows its list."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from host import connection
from host.connection import Host, LinkStatus, open_host
from host.events import Event
from tests.support import simulated_world
from tests.support.private_libvirtd import PrivateLibvirtd
from tests.support.waiting import wait_for
from vm import feed as feed_module
from vm.feed import Feed
from vm.model import Snapshot


class Screen:
    """What a front end would have seen of one feed."""

    def __init__(self, host: Host) -> None:
        self.snapshots: list[Snapshot] = []
        self.events: list[Event] = []
        self.feed = Feed(host, self.snapshots.append, self.events.append, interval_s=0.2)
        self.feed.start()

    @property
    def last(self) -> Snapshot:
        return self.snapshots[-1]

    def names(self) -> list[str]:
        return [vm.name for vm in self.last.vms]

    def is_complete(self) -> bool:
        return bool(self.snapshots) and self.last.link.is_up and all(vm.config for vm in self.last.vms)

    def is_stale(self) -> bool:
        return not self.last.link.is_up


@pytest.fixture(scope="module")
def daemon() -> Iterator[PrivateLibvirtd]:
    with PrivateLibvirtd() as running:
        yield running


@pytest.fixture
def host(daemon: PrivateLibvirtd, monkeypatch: pytest.MonkeyPatch) -> Iterator[Host]:
    monkeypatch.setattr(connection, "KEEPALIVE_INTERVAL_S", 1)
    monkeypatch.setattr(connection, "KEEPALIVE_COUNT", 2)
    monkeypatch.setattr(feed_module, "SILENT_S", 1.0)
    opened = open_host(daemon.uri, name="lab1")
    for name in ("web-01", "web-02"):
        opened.connection().defineXML(simulated_world.domain(name, tags=["web"]).replace("type='test'", "type='qemu'"))
    yield opened
    opened.close()


@pytest.fixture
def screen(host: Host) -> Iterator[Screen]:
    seen = Screen(host)
    wait_for(seen.is_complete, what="the first list")
    yield seen
    seen.feed.stop()


def test_a_killed_libvirtd_leaves_the_list_on_the_screen_as_stale(screen: Screen, daemon: PrivateLibvirtd) -> None:
    vms, read_at_s = screen.last.vms, screen.last.read_at_s
    daemon.kill()
    try:
        wait_for(screen.is_stale, what="the loss of the link")

        assert screen.last.vms == vms
        assert screen.last.link.status is LinkStatus.LOST
        assert screen.last.link.error
        assert screen.last.read_at_s >= read_at_s
    finally:
        daemon.start()


def test_a_restarted_libvirtd_is_found_again_and_its_events_too(
    screen: Screen, host: Host, daemon: PrivateLibvirtd
) -> None:
    daemon.restart()
    wait_for(screen.is_stale, what="the loss of the link")
    wait_for(screen.is_complete, what="the link's return")
    assert screen.names() == ["web-01", "web-02"]

    host.connection().lookupByName("web-02").undefine()
    wait_for(lambda: screen.names() == ["web-01"], what="the event on the new connection")
    assert [event.vm_name for event in screen.events].count("web-02") == 1, "told twice: subscribed twice"


def test_what_changed_while_the_link_was_down_is_shown_after_it(
    screen: Screen, host: Host, daemon: PrivateLibvirtd
) -> None:
    daemon.kill()
    wait_for(screen.is_stale, what="the loss of the link")
    Path(daemon.directory / "etc/qemu/web-02.xml").unlink()
    daemon.start()

    wait_for(lambda: screen.is_complete() and screen.names() == ["web-01"], what="the true list")


def test_a_frozen_libvirtd_makes_the_list_stale_and_thaws_without_loss(
    screen: Screen, host: Host, daemon: PrivateLibvirtd
) -> None:
    vms = screen.last.vms
    daemon.freeze()
    try:
        wait_for(screen.is_stale, what="the frozen daemon to be noticed")
        assert screen.last.vms == vms
    finally:
        daemon.thaw()
    wait_for(screen.is_complete, what="the link's return")
    assert screen.last.vms == vms

    host.connection().lookupByName("web-02").undefine()
    wait_for(lambda: screen.names() == ["web-01"], what="an event after the thaw")
    time.sleep(0.3)
    assert len(screen.events) == 1, "heard on the connection that was given up, too"


def test_keepalive_gives_a_frozen_link_up_and_the_feed_comes_back_after_the_thaw(
    screen: Screen, host: Host, daemon: PrivateLibvirtd
) -> None:
    daemon.freeze()
    try:
        wait_for(lambda: host.link.status is LinkStatus.LOST, what="keepalive")
    finally:
        daemon.thaw()
    wait_for(screen.is_complete, what="the link's return")

    host.connection().lookupByName("web-02").undefine()
    wait_for(lambda: screen.names() == ["web-01"], what="an event after the thaw")


def test_stopping_a_feed_and_closing_its_host_do_not_wait_for_a_frozen_libvirtd(
    screen: Screen, host: Host, daemon: PrivateLibvirtd
) -> None:
    daemon.freeze()
    try:
        wait_for(lambda: screen.feed._busy_since_s is not None, what="a call that hangs")
        done = threading.Event()

        def leave() -> None:
            screen.feed.stop()
            host.close()
            done.set()

        threading.Thread(target=leave, daemon=True).start()
        assert done.wait(5), "leaving waited for the daemon"
        seen = len(screen.snapshots)
    finally:
        daemon.thaw()
    time.sleep(0.5)
    assert len(screen.snapshots) == seen, "a stopped feed still published"


def test_lost_connections_are_closed(screen: Screen, daemon: PrivateLibvirtd) -> None:
    def cycle() -> None:
        daemon.restart()
        wait_for(screen.is_stale, what="the loss of the link")
        wait_for(screen.is_complete, what="the link's return")

    cycle()
    before, cycles = _open_files(), 6
    for _ in range(cycles):
        cycle()
    # A spare connection or two may be open at either count; one that leaks at each loss would make it six more.
    wait_for(lambda: _open_files() < before + cycles - 2, what="the dead connections' files to be closed")


def _open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))
