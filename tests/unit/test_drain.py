"""Draining: every VM's fate, the notes that the steps keep, the way home, and how long it takes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import vm.steps  # noqa: F401 - registers the verbs
from host import job_sets, jobs, maintenance
from host.connection import Host, open_host
from host.host_list import HostEntry
from host.job_model import JobState
from host.journal import Journal
from host.plan import PlanSet
from tests.support import simulated_world
from vm import inventory
from vm.drain import DrainOptions, Place, plan_drain, plan_homecoming, request_to
from vm.drain_model import DrainPlan, Fate, WithoutTarget, total_s
from vm.placement_reading import read_pictures


@pytest.fixture
def journal() -> Iterator[Journal]:
    with Journal() as opened:
        yield opened


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    """lab1 with two VMs that run, one that is paused, one off and one saved; there is no other host."""
    domain = simulated_world.domain
    vms = [
        domain("a", state="running"),
        domain("b", state="running"),
        domain("still", state="paused"),
        domain("off"),
        domain("saved", saved=True),
    ]
    world = tmp_path / "lab1.xml"
    world.write_text(simulated_world.world(vms), encoding="utf-8")
    host = open_host(f"test://{world}", name="lab1")
    yield Place(HostEntry("lab1", host.uri), host)
    host.close()


def planned(place: Place, **options: object) -> DrainPlan:
    return plan_drain(place, [], read_pictures([place.host], settle_s=0), DrainOptions(**options))  # type: ignore[arg-type]


def carry_out(plan_set: PlanSet, place: Place, journal: Journal) -> set[JobState]:
    created = job_sets.create(plan_set, journal)
    return {job.state for job in job_sets.run_set(created[0].id, place.host, journal)}


def states(host: Host) -> dict[str, str]:
    return {vm.name: vm.state.value for vm in inventory.read(host)}


def fates(found: DrainPlan) -> dict[str, str]:
    return {fate.vm: fate.fate for fate in found.fates}


def test_without_another_host_running_vms_are_saved_and_others_stay(place: Place) -> None:
    found = planned(place)
    assert fates(found) == {"a": "save", "b": "save", "still": "save", "off": "stay", "saved": "stay"}
    why = {fate.vm: fate.why for fate in found.fates}
    assert (why["a"], why["off"], why["saved"]) == (
        "there is no other host",
        "it is off",
        "its state is saved already",
    )
    assert found.staying == ()


def test_they_can_be_shut_down_or_left_instead(place: Place) -> None:
    found = planned(place, without_target=WithoutTarget.SHUTDOWN)
    assert fates(found)["a"] == "shut down"
    found = planned(place, without_target=WithoutTarget.STAY)
    assert set(fates(found).values()) == {"stay"}
    assert [fate.vm for fate in found.staying] == ["a", "b", "still"]
    assert found.plan_set.warnings[0] == "a stays and runs on: there is no other host"


def test_what_was_saved_goes_on_when_the_host_is_back(place: Place, journal: Journal) -> None:
    before = states(place.host)
    assert carry_out(planned(place).plan_set, place, journal) == {JobState.DONE}
    assert set(states(place.host).values()) == {"saved", "off"}
    notes = maintenance.of_host(place.host.uri)
    assert notes is not None
    assert {(guest.name, guest.fate) for guest in notes.guests} == {("a", "saved"), ("b", "saved"), ("still", "saved")}
    assert maintenance.drained_keys() == {place.host.uri}
    assert carry_out(plan_homecoming(place, notes, []), place, journal) == {JobState.DONE}
    after = states(place.host)
    assert {name: state for name, state in after.items() if name != "still"} == {
        name: state for name, state in before.items() if name != "still"
    }
    assert after["still"] in {"paused", "running"}  # the test driver forgets that it was paused
    assert maintenance.read() == ()


def test_a_host_that_is_named_by_another_uri_is_the_same_one(
    place: Place, journal: Journal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = open_host(f"test://{tmp_path}/./lab1.xml", name="as-well")
    for host in (place.host, other):
        monkeypatch.setitem(vars(host), "identity", "9e647c8c@lab1")
    again = Place(HostEntry("as-well", other.uri), other)
    pictures = read_pictures([place.host, other], settle_s=0)
    found = plan_drain(place, [again], pictures)
    assert fates(found)["a"] == "save"  # it is no other host
    assert carry_out(found.plan_set, place, journal) == {JobState.DONE}
    (picture,) = read_pictures([other], drained=maintenance.drained_keys(), settle_s=0)
    assert picture.is_drained
    notes = maintenance.note_of(other)
    assert notes is not None
    assert len(notes.guests) == 3
    home = plan_homecoming(again, replace(notes, guests=()), [place])
    assert carry_out(home, again, journal) == {JobState.DONE}
    assert maintenance.drained_keys() == frozenset()
    other.close()


def test_a_second_drain_does_what_is_left_and_forgets_nothing(place: Place, journal: Journal) -> None:
    first = planned(place)
    only_a = replace(first.plan_set, plans=tuple(plan for plan in first.plan_set.plans if plan.vm_name == "a"))
    carry_out(only_a, place, journal)
    again = planned(place)
    assert fates(again)["a"] == "stay"
    assert fates(again)["b"] == "save"
    carry_out(again.plan_set, place, journal)
    notes = maintenance.of_host(place.host.uri)
    assert notes is not None
    assert {guest.name for guest in notes.guests} == {"a", "b", "still"}
    assert {guest.was for guest in notes.guests} == {"running", "paused"}


def test_a_host_without_vms_is_drained_all_the_same(tmp_path: Path, journal: Journal) -> None:
    world = tmp_path / "empty.xml"
    world.write_text(simulated_world.world([]), encoding="utf-8")
    host = open_host(f"test://{world}", name="empty")
    empty = Place(HostEntry("empty", host.uri), host)
    assert carry_out(planned(empty).plan_set, empty, journal) == {JobState.DONE}
    notes = maintenance.of_host(host.uri)
    assert notes is not None
    assert carry_out(plan_homecoming(empty, notes, []), empty, journal) == {JobState.DONE}
    assert maintenance.read() == ()
    host.close()


def test_undoing_takes_the_notes_back_as_well(place: Place, journal: Journal) -> None:
    plan_set = planned(place).plan_set
    created = job_sets.create(plan_set, journal)
    ended = job_sets.run_set(created[0].id, place.host, journal)
    job = next(job for job in ended if job.vm_name == "a")
    undo = jobs.plan_undo(job, place.host, journal)
    assert not undo.blockers
    assert jobs.submit(undo, place.host, journal).state is JobState.DONE
    notes = maintenance.of_host(place.host.uri)
    assert notes is not None
    assert {guest.name for guest in notes.guests} == {"b", "still"}
    marking = jobs.plan_undo(ended[0], place.host, journal)
    assert jobs.submit(marking, place.host, journal).state is JobState.DONE
    assert maintenance.drained_keys() == frozenset()


def test_a_vm_that_is_nowhere_any_more_is_told(place: Place, journal: Journal) -> None:
    carry_out(planned(place).plan_set, place, journal)
    notes = maintenance.of_host(place.host.uri)
    assert notes is not None
    gone = replace(notes.guests[0], uuid="00000000-0000-0000-0000-000000000001", name="gone")
    elsewhere = replace(notes.guests[0], fate="moved", uri="qemu+ssh://lab9/system", host="lab9", name="lost")
    found = plan_homecoming(place, replace(notes, guests=(gone, elsewhere)), [])
    assert found.warnings == (
        "gone stays where it is: gone: it is neither here nor on lab1. Look for it with 'hvtui vm list --all-hosts', "
        "or give --forget gone",
        "lost stays where it is: lost: lab9 is not in the list of hosts. Add it: hvtui host add",
    )


def test_a_vm_that_is_gone_for_good_can_be_forgotten(place: Place, journal: Journal) -> None:
    carry_out(planned(place).plan_set, place, journal)
    maintenance.put_guest(place.host.uri, maintenance.Guest("u", "gone", "moved", "running", "x", "lab9"))
    notes = maintenance.of_host(place.host.uri)
    assert notes is not None
    found = plan_homecoming(place, notes, [], DrainOptions(forgotten=frozenset({"gone"})))
    assert not found.warnings
    assert carry_out(found, place, journal) == {JobState.DONE}
    assert maintenance.read() == ()


def test_a_move_that_nobody_watches_takes_the_quick_way_out() -> None:
    request = request_to(HostEntry("lab2", "qemu+ssh://lab2/system", migration_address="2001:db8::2"))
    assert request.options.stuck == "quick"
    assert request.options.migrate_uri == "tcp://[2001:db8::2]"
    assert request.peer_uri == "qemu+ssh://lab2/system"


def fate(number: int, seconds: float, host: str) -> Fate:
    return Fate(f"vm{number}", f"{number}", "live" if host else "save", "", host=host, predicted_s=seconds)


def test_the_time_of_all_regards_how_many_run_at_once() -> None:
    those = [fate(number, 10.0, "lab2") for number in range(4)]
    assert total_s(those, {"lab1": 2, "lab2": 2}, source="lab1") == 20.0
    assert total_s(those, {"lab1": 4, "lab2": 1}, source="lab1") == 40.0
    assert total_s([*those, fate(9, 3.0, "")], {"lab1": 4, "lab2": 4}, source="lab1") == 10.0
    assert total_s([], {}, source="lab1") == 0.0


@given(
    those=st.lists(st.tuples(st.floats(0, 100), st.sampled_from(["lab2", "lab3"])), max_size=12),
    limit=st.integers(1, 4),
)
def test_the_time_of_all_lies_between_the_longest_and_the_sum(those: list[tuple[float, str]], limit: int) -> None:
    found = [fate(number, seconds, host) for number, (seconds, host) in enumerate(those)]
    total = total_s(found, {"lab1": limit, "lab2": limit, "lab3": limit}, source="lab1")
    work = sum(each.predicted_s for each in found)
    assert total <= work + 1e-6
    assert total + 1e-6 >= max((each.predicted_s for each in found), default=0.0)
    assert total + 1e-6 >= work / limit
