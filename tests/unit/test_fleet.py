"""Many hosts at once, on real libvirtds: one that is frozen, dead or new changes nothing for the others."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from host.connection import Host, open_host
from host.errors import HvtuiError, TimedOut
from host.host_list import HostEntry
from host.many_hosts import ask_all
from tests.support import simulated_world
from tests.support.private_libvirtd import PrivateLibvirtd
from tests.support.waiting import wait_for
from vm.fleet import Fleet, read_all
from vm.model import Snapshot


@pytest.fixture(scope="module")
def daemons() -> Iterator[tuple[PrivateLibvirtd, PrivateLibvirtd]]:
    with PrivateLibvirtd() as first, PrivateLibvirtd() as second:
        yield first, second


@pytest.fixture
def entries(daemons: tuple[PrivateLibvirtd, PrivateLibvirtd], tmp_path: Path) -> Iterator[dict[str, HostEntry]]:
    """steady is on one libvirtd, moody on another that tests freeze; dead is on none."""
    made = {"dead": HostEntry("dead", "test+unix:///default?socket=/nowhere/at/all.sock")}
    for daemon, name in zip(daemons, ("steady", "moody"), strict=True):
        world = daemon.directory / f"{tmp_path.name}-{name}.xml"
        domains = [simulated_world.domain(f"{name}-{each}", state="running") for each in range(3)]
        world.write_text(simulated_world.world(domains), encoding="utf-8")
        made[name] = HostEntry(name, daemon.test_uri(world))
    yield made
    for daemon in daemons:
        daemon.thaw()


def opened(entry: HostEntry) -> Host:
    return open_host(entry.uri, name=entry.name)


class Seen:
    """What a fleet told so far."""

    def __init__(self) -> None:
        self.snapshots: list[Snapshot] = []
        self.events: list[tuple[str, str]] = []


@pytest.fixture
def seen() -> Seen:
    return Seen()


@pytest.fixture
def fleet(entries: dict[str, HostEntry], seen: Seen) -> Iterator[Fleet]:
    made = Fleet(
        entries.values(),
        opened,
        seen.snapshots.append,
        lambda name, event: seen.events.append((name, event.vm_name)),
        interval_s=0.2,
    )
    made.start()
    yield made
    made.stop()


def names(snapshot: Snapshot | None) -> set[str]:
    return {vm.name for vm in snapshot.vms} if snapshot is not None else set()


def test_each_host_has_its_own_snapshot_and_a_dead_one_says_why(fleet: Fleet, seen: Seen) -> None:
    wait_for(lambda: fleet.snapshots.keys() == {"dead", "steady", "moody"})
    wait_for(lambda: len(names(fleet.snapshots["moody"])) == len(names(fleet.snapshots["steady"])) == 3)
    steady = fleet.snapshots["steady"]
    assert {vm.key for vm in steady.vms} == {("steady", vm.uuid) for vm in steady.vms}
    assert not fleet.snapshots["dead"].link.is_up
    assert "/nowhere/at/all.sock" in fleet.snapshots["dead"].link.error


def test_a_frozen_host_changes_nothing_for_the_others(
    fleet: Fleet, seen: Seen, daemons: tuple[PrivateLibvirtd, PrivateLibvirtd]
) -> None:
    wait_for(lambda: len(names(fleet.snapshots.get("moody"))) == len(names(fleet.snapshots.get("steady"))) == 3)
    daemons[1].freeze()
    for name in ("steady-1", "steady-0"):
        fleet.refresh()  # asks the frozen one, too, and does not wait for it
        with fleet.host("steady").calls("stop one") as connection:
            connection.lookupByName(name).destroy()
        wait_for(lambda name=name: ("steady", name) in seen.events)
        wait_for(lambda name=name: any(vm.name == name and not vm.is_active for vm in fleet.snapshots["steady"].vms))
    assert len(names(fleet.snapshots["moody"])) == 3, "its last picture stays"
    wait_for(lambda: not fleet.snapshots["moody"].link.is_up)
    daemons[1].thaw()
    wait_for(lambda: fleet.snapshots["moody"].link.is_up)


def test_hosts_come_and_go_while_it_runs(fleet: Fleet, seen: Seen, entries: dict[str, HostEntry]) -> None:
    wait_for(lambda: len(names(fleet.snapshots.get("steady"))) == 3)
    steady = fleet.host("steady")
    fleet.set_entries([entries["steady"], HostEntry("twin", entries["steady"].uri)])
    assert fleet.host("steady") is steady, "what stays goes on undisturbed"
    assert [entry.name for entry in fleet.entries] == ["steady", "twin"]
    wait_for(lambda: len(names(fleet.snapshots.get("twin"))) == 3)
    assert fleet.snapshots.keys() == {"steady", "twin"}
    fleet.add(HostEntry("twin", entries["moody"].uri))
    wait_for(lambda: "moody-1" in names(fleet.snapshots.get("twin")))
    fleet.remove("twin")
    assert fleet.snapshots.keys() == {"steady"}
    assert fleet.host("twin") is None


def test_a_stopped_fleet_is_silent_and_its_hosts_are_closed(fleet: Fleet, seen: Seen) -> None:
    wait_for(lambda: len(names(fleet.snapshots.get("steady"))) == 3)
    steady = fleet.host("steady")
    fleet.stop()
    told = len(seen.snapshots)
    with pytest.raises(HvtuiError):
        steady.connection()
    threading.Event().wait(0.5)
    assert len(seen.snapshots) == told


def test_a_fleet_that_does_not_poll_follows_events_only(fleet: Fleet, seen: Seen) -> None:
    fleet.set_polling(False)
    wait_for(lambda: len(names(fleet.snapshots.get("steady"))) == 3)
    with fleet.host("steady").calls("stop one") as connection:
        connection.lookupByName("steady-2").destroy()
    wait_for(lambda: any(vm.name == "steady-2" and not vm.is_active for vm in fleet.snapshots["steady"].vms))


def test_lists_of_all_hosts_leave_a_frozen_one_behind(
    entries: dict[str, HostEntry], daemons: tuple[PrivateLibvirtd, PrivateLibvirtd]
) -> None:
    hosts = [opened(entry) for entry in entries.values()]
    daemons[1].freeze()
    readings = {each.host.name: each for each in read_all(hosts, 2.0)}
    assert list(readings) == list(entries)
    assert isinstance(readings["moody"].error, TimedOut)
    assert readings["dead"].error is not None
    assert readings["dead"].error.exit_code == 6
    assert (readings["steady"].error, len(readings["steady"].vms)) == (None, 3)
    for host in hosts:
        host.close()


def test_an_error_inside_one_question_is_the_answer_of_that_host_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[object] = []
    monkeypatch.setattr(threading, "excepthook", told.append)
    hosts = [open_host("test:///default", name=name) for name in ("good", "bad")]

    def question(host: Host) -> int:
        return {"good": 1}[host.name]

    good, bad = ask_all(hosts, question, timeout_s=30)
    assert (good.value, good.error) == (1, None)
    assert bad.value is None
    assert "internal error" in str(bad.error)
    wait_for(lambda: told)
