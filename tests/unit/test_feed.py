"""The live picture of a host on libvirt's test driver. What happens when libvirtd goes away: test_feed_faults.py."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import libvirt
import pytest

from host import connection as connection_module
from host.connection import Host, Link, LinkStatus, open_host
from host.errors import HvtuiError
from host.events import Event, EventKind
from host.statistics import Sample, VmRates
from tests.support import simulated_world
from tests.support.simulated_world import domain, uuid_of, world
from tests.support.waiting import wait_for
from vm import feed as feed_module
from vm import inventory, picture
from vm.feed import Feed
from vm.model import Snapshot, Vm, VmState


class Screen:
    """Keeps what a feed publishes."""

    def __init__(self, host: Host, **options: Any) -> None:
        self.snapshots: list[Snapshot] = []
        self.events: list[Event] = []
        self.feed = Feed(host, self.snapshots.append, self.events.append, **options)

    def vm(self, name: str) -> Vm | None:
        vms = self.snapshots[-1].vms if self.snapshots else ()
        return next((vm for vm in vms if vm.name == name), None)

    def state(self, name: str) -> VmState | None:
        vm = self.vm(name)
        return vm.state if vm is not None else None

    def is_complete(self) -> bool:
        last = self.snapshots[-1] if self.snapshots else None
        return last is not None and last.facts is not None and all(vm.config is not None for vm in last.vms)


@pytest.fixture
def start() -> Iterator[Callable[..., Screen]]:
    screens: list[Screen] = []

    def started(host: Host, *, wait: bool = True, polling: bool = False, **options: Any) -> Screen:
        screen = Screen(host, **options)
        screens.append(screen)
        screen.feed.set_polling(polling)
        screen.feed.start()
        if wait:
            wait_for(screen.is_complete, what="the whole picture")
        return screen

    yield started
    for screen in screens:
        screen.feed.stop()


def quiet(screen: Screen) -> int:
    """The number of snapshots once none came for a while."""
    seen = -1
    while seen != len(screen.snapshots):
        seen = len(screen.snapshots)
        time.sleep(0.4)
    return seen


# What is shown


def test_the_list_comes_first_and_its_configuration_after_it(simulated: Host, start: Callable[..., Screen]) -> None:
    screen = start(simulated)
    first, last = screen.snapshots[0], screen.snapshots[-1]

    assert len(first.vms) == len(last.vms) == len(simulated_world.VARIED)
    assert all(vm.config is None for vm in first.vms)
    assert last.link.is_up
    assert last.uri == simulated.uri
    assert last.host_name == "lab1"
    assert last.facts is not None
    web = screen.vm("web-01")
    assert web is not None
    assert web.config is not None
    assert web.config.tags == ("web", "prod")
    assert web.memory_bytes == 2 * 1024**3


def test_a_large_list_is_shown_before_all_its_xml_was_read(
    open_world: Callable[[str], Host], start: Callable[..., Screen], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed_module, "CONFIG_SLICE_S", 0.0005)
    monkeypatch.setattr(feed_module, "CONFIG_PUBLISH_S", 0.0)
    screen = start(open_world(simulated_world.many(100)))

    known = [sum(vm.config is not None for vm in snapshot.vms) for snapshot in screen.snapshots]
    assert known[0] == 0
    assert known[-1] == 100
    assert known == sorted(known)
    assert any(0 < each < 100 for each in known)


def test_nothing_is_published_while_nothing_changes(simulated: Host, start: Callable[..., Screen]) -> None:
    screen = start(simulated)
    seen = quiet(screen)

    screen.feed.refresh()
    assert quiet(screen) == seen, "a refresh that finds nothing new publishes nothing"


# Events


def test_an_event_changes_one_vm_and_keeps_the_others_the_same_objects(
    simulated: Host, start: Callable[..., Screen]
) -> None:
    screen = start(simulated)
    before = {vm.name: vm for vm in screen.snapshots[-1].vms}
    simulated.connection().lookupByName("web-01").suspend()
    wait_for(lambda: screen.state("web-01") is VmState.PAUSED)

    after = {vm.name: vm for vm in screen.snapshots[-1].vms}
    assert [name for name in after if after[name] is not before[name]] == ["web-01"]
    assert after["web-01"].state_reason == "by user"
    assert [(event.kind, event.vm_name) for event in screen.events] == [(EventKind.PAUSED, "web-01")]


def test_vms_that_come_go_and_are_renamed_are_followed(simulated: Host, start: Callable[..., Screen]) -> None:
    screen = start(simulated)
    connection = simulated.connection()

    connection.defineXML(domain("new", tags=["fresh"]))
    wait_for(lambda: (vm := screen.vm("new")) is not None and vm.config is not None)
    assert screen.vm("new").config.tags == ("fresh",)  # type: ignore[union-attr]

    connection.lookupByName("new").rename("newer", 0)
    wait_for(lambda: screen.vm("newer") is not None and screen.vm("new") is None)
    names = [vm.name for vm in screen.snapshots[-1].vms]
    assert names == sorted(names)

    connection.lookupByName("newer").undefine()
    wait_for(lambda: screen.vm("newer") is None)
    assert len(screen.snapshots[-1].vms) == len(simulated_world.VARIED)


def test_changed_metadata_is_read_again(simulated: Host, start: Callable[..., Screen]) -> None:
    screen = start(simulated)
    simulated.connection().lookupByName("web-02").setMetadata(libvirt.VIR_DOMAIN_METADATA_TITLE, "Second", None, None)

    wait_for(lambda: (vm := screen.vm("web-02")) is not None and vm.config and vm.config.title == "Second")


def test_a_vm_that_was_restarted_keeps_its_configuration_and_loses_its_rates(
    simulated: Host, start: Callable[..., Screen]
) -> None:
    screen = start(simulated)
    handle = simulated.connection().lookupByName("web-01")
    handle.destroy()
    wait_for(lambda: screen.state("web-01") is VmState.OFF)
    began = datetime.now(UTC)
    handle.create()
    wait_for(lambda: screen.state("web-01") is VmState.RUNNING)

    web = screen.vm("web-01")
    assert web is not None
    assert web.config is not None
    assert web.config.tags == ("web", "prod")
    assert web.started_at is not None
    assert web.started_at >= began


def test_a_storm_of_events_is_read_in_few_bulk_calls(
    open_world: Callable[[str], Host], start: Callable[..., Screen], monkeypatch: pytest.MonkeyPatch
) -> None:
    host = open_world(simulated_world.many(60))
    screen = start(host)
    readings: list[int] = []
    read_some = inventory.read_some

    def counted(host: Host, uuids: Any, **options: Any) -> tuple[Vm, ...]:
        readings.append(len(uuids))
        return read_some(host, uuids, **options)

    monkeypatch.setattr(feed_module.inventory, "read_some", counted)
    for index in range(1, 60, 3):
        host.connection().lookupByName(f"vm-{index:04}").create()
    wait_for(lambda: sum(vm.is_active for vm in screen.snapshots[-1].vms) == 40)

    assert sum(readings) >= 20
    assert len(readings) <= 10, f"20 events were read in {len(readings)} calls"


# Rates


def samples_at(*moments: dict[str, Sample]) -> Callable[[Any], dict[str, Sample]]:
    """A reader that gives each of these once, and the last one for ever."""
    left = list(moments)

    def read(_connection: Any) -> dict[str, Sample]:
        return left.pop(0) if len(left) > 1 else left[0]

    return read


def test_rates_come_from_two_samples_and_history_grows(simulated: Host, start: Callable[..., Screen]) -> None:
    web = uuid_of("web-01")
    instants = [
        {web: Sample(at_s=float(second), vcpus=1, cpu_time_ns=second * 500_000_000, memory_used_bytes=7)}
        for second in range(1, 60)
    ]
    screen = start(simulated, polling=True, interval_s=0.02, read_samples=samples_at(*instants))
    wait_for(lambda: (vm := screen.vm("web-01")) is not None and len(vm.cpu_history) == picture.HISTORY_POINTS)

    vm = screen.vm("web-01")
    assert vm is not None
    assert set(vm.cpu_history) == {50.0}
    assert vm.memory_used_bytes == 7
    other = screen.vm("web-02")
    assert other is not None
    assert other.rates == VmRates()


def test_rates_are_read_only_while_polling_is_on(simulated: Host, start: Callable[..., Screen]) -> None:
    calls: list[float] = []

    def read(_connection: Any) -> dict[str, Sample]:
        calls.append(time.monotonic())
        return {}

    screen = start(simulated, interval_s=0.05, read_samples=read)
    quiet(screen)
    assert calls == []

    screen.feed.set_polling(True)
    wait_for(lambda: len(calls) >= 3)
    screen.feed.set_polling(False)
    quiet(screen)
    seen = len(calls)
    quiet(screen)
    assert len(calls) == seen


def test_ticks_keep_a_fixed_beat_and_leave_missed_ones_out(simulated: Host) -> None:
    feed = Feed(simulated, lambda _snapshot: None, interval_s=2.0)

    feed._samples = {"x": Sample(at_s=0.0)}
    feed._next_tick_s = 10.0
    assert feed._tick_after(10.3) == 12.0
    assert feed._tick_after(11.9) == 12.0
    assert feed._tick_after(17.0) == 19.0


def test_a_state_that_no_event_told_is_seen_by_the_next_tick(
    simulated: Host, start: Callable[..., Screen], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed_module, "subscribe", lambda _connection, _subscriber: None)
    screen = start(simulated, polling=True, interval_s=0.05)
    simulated.connection().lookupByName("web-01").suspend()
    wait_for(lambda: screen.state("web-01") is VmState.PAUSED)
    simulated.connection().lookupByName("build-07").create()
    wait_for(lambda: screen.state("build-07") is VmState.RUNNING)
    simulated.connection().lookupByName("web-02").destroy()
    wait_for(lambda: screen.state("web-02") is VmState.OFF)

    assert screen.events == []


# Addresses


def test_addresses_are_shown_while_somebody_looks_and_end_with_the_run(
    simulated: Host, start: Callable[..., Screen]
) -> None:
    screen = start(simulated, polling=True, interval_s=0.05)
    wait_for(lambda: (vm := screen.vm("web-01")) is not None and vm.addresses)
    assert screen.vm("web-01").addresses[0].startswith("192.0.2.")  # type: ignore[union-attr]
    assert screen.vm("web-02").addresses == ()  # type: ignore[union-attr]

    handle = simulated.connection().lookupByName("web-01")
    handle.destroy()
    wait_for(lambda: screen.state("web-01") is VmState.OFF)
    assert screen.vm("web-01").addresses == ()  # type: ignore[union-attr]
    handle.create()
    wait_for(lambda: (vm := screen.vm("web-01")) is not None and vm.addresses, what="the addresses of the new run")


# The link


def test_a_host_that_cannot_be_reached_is_published_as_lost(
    start: Callable[..., Screen], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection_module, "RETRY_FIRST_S", 0.05)
    host = open_host("qemu+unix:///system?socket=/nowhere/sock")
    screen = start(host, wait=False)
    wait_for(lambda: screen.snapshots)

    assert screen.snapshots[-1].link.status is LinkStatus.LOST
    assert "/nowhere/sock" in screen.snapshots[-1].link.error
    assert screen.snapshots[-1].vms == ()
    host.close()
    wait_for(lambda: screen.snapshots[-1].link.status is LinkStatus.CLOSED)


def test_a_reading_that_fails_is_tried_again(
    simulated: Host, start: Callable[..., Screen], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed_module, "RETRY_S", 0.05)
    read_all, failures = inventory.read_all, iter([HvtuiError("first"), HvtuiError("second")])

    def failing(host: Host) -> Any:
        for error in failures:
            raise error
        return read_all(host)

    monkeypatch.setattr(feed_module.inventory, "read_all", failing)
    screen = start(simulated)
    assert len(screen.snapshots[-1].vms) == len(simulated_world.VARIED)

    read_some = inventory.read_some
    more_failures = iter([HvtuiError("third")])

    def failing_some(host: Host, uuids: Any, **options: Any) -> Any:
        for error in more_failures:
            raise error
        return read_some(host, uuids, **options)

    monkeypatch.setattr(feed_module.inventory, "read_some", failing_some)
    simulated.connection().lookupByName("web-01").suspend()
    wait_for(lambda: screen.state("web-01") is VmState.PAUSED, what="the event whose first reading failed")


def test_facts_that_cannot_be_read_are_asked_for_again(
    simulated: Host, start: Callable[..., Screen], monkeypatch: pytest.MonkeyPatch
) -> None:
    read_facts, failures = feed_module.read_facts, iter([HvtuiError("not now")])

    def failing(host: Host) -> Any:
        for error in failures:
            raise error
        return read_facts(host)

    monkeypatch.setattr(feed_module, "read_facts", failing)
    screen = start(simulated, wait=False, polling=True, interval_s=0.05)
    wait_for(screen.is_complete)


def test_a_call_without_an_answer_is_told_while_it_lasts(
    simulated: Host, start: Callable[..., Screen], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed_module, "SILENT_S", 0.05)
    monkeypatch.setattr(feed_module, "RETRY_S", 0.05)
    answer = threading.Event()
    screen = start(simulated)
    read_all = inventory.read_all

    def slow(host: Host) -> Any:
        answer.wait(30)
        return read_all(host)

    monkeypatch.setattr(feed_module.inventory, "read_all", slow)
    vms = screen.snapshots[-1].vms
    screen.feed.refresh()
    wait_for(lambda: not screen.snapshots[-1].link.is_up, what="the silence")
    assert screen.snapshots[-1].vms is vms
    assert "does not answer" in screen.snapshots[-1].link.error

    answer.set()
    wait_for(lambda: screen.snapshots[-1].link.is_up, what="the answer")


# Stopping


def test_a_stopped_feed_tells_nothing_more(simulated: Host, start: Callable[..., Screen]) -> None:
    screen = start(simulated)
    screen.feed.stop()
    seen = len(screen.snapshots), len(screen.events)
    simulated.connection().lookupByName("web-01").suspend()
    screen.feed._heard(Event(EventKind.PAUSED, "x", "x", "", datetime.now(UTC)))
    screen.feed._publish(Link(LinkStatus.LOST, 0.0, "late"))

    assert (len(screen.snapshots), len(screen.events)) == seen
    screen.feed.stop()


def test_a_feed_can_be_stopped_by_its_own_callback(simulated: Host) -> None:
    stopped = threading.Event()

    def stop(_snapshot: Snapshot) -> None:
        feed.stop()
        stopped.set()

    feed = Feed(simulated, stop)
    feed.start()
    assert stopped.wait(10)


def test_a_feed_without_a_listener_for_events_follows_them(simulated: Host) -> None:
    snapshots: list[Snapshot] = []
    feed = Feed(simulated, snapshots.append)
    feed.start()
    wait_for(lambda: snapshots)
    simulated.connection().lookupByName("web-01").suspend()
    wait_for(lambda: any(vm.name == "web-01" and vm.state is VmState.PAUSED for vm in snapshots[-1].vms))
    feed.stop()


def test_an_empty_host_has_an_empty_list(open_world: Callable[[str], Host], start: Callable[..., Screen]) -> None:
    screen = start(open_world(world([])))

    assert screen.snapshots[-1].vms == ()
    assert screen.snapshots[-1].read_at_s > 0
