"""Draining a lab host and bringing its guests home: each lives on, on one host, counted by the guests themselves."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

import vm.steps  # noqa: F401 - registers the verbs
from host import job_sets, maintenance
from host.connection import open_host
from host.host_list import HostEntry
from host.job_model import Job, JobState
from host.journal import Journal
from host.plan import PlanSet
from tests.support.lab import Lab
from tests.support.lab_saved import RunningGuest, SavedGuests
from tests.support.live_moves import configured, hvtui
from tests.support.terminal import HVTUI, Terminal
from tests.support.waiting import wait_for
from vm import inventory
from vm.drain import DrainOptions, Place, plan_drain, plan_homecoming
from vm.drain_model import DrainPlan, WithoutTarget
from vm.placement_reading import read_pictures
from vm.whatif import n_minus_1

NAMES = ("lab1", "lab2", "lab3")


class Hosts:
    """The lab's hosts as the commands see them, and a journal."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.journal = Journal()
        self.places = {name: self._place(name) for name in NAMES}

    def _place(self, name: str) -> Place:
        host = self.lab[name]
        return self.place_at(host.uri, name)

    def place_at(self, uri: str, name: str) -> Place:
        """The host of that name, as it is reached by this URI."""
        entry = HostEntry(name, uri, peer_uri=self.lab[name].peer_uri)
        return Place(entry, open_host(uri, name=name))

    def others(self, name: str) -> list[Place]:
        return [place for place in self.places.values() if place.entry.name != name]

    def pictures(self):
        places = list(self.places.values())
        drained = maintenance.drained_keys()
        entries = [place.entry for place in places]
        return read_pictures([place.host for place in places], entries=entries, drained=drained, timeout_s=60)

    def drain(self, name: str, **options: object) -> DrainPlan:
        given = DrainOptions(**options)  # type: ignore[arg-type]
        return plan_drain(self.places[name], self.others(name), self.pictures(), given)

    def home(self, name: str) -> PlanSet:
        notes = maintenance.note_of(self.places[name].host)
        assert notes is not None
        return plan_homecoming(self.places[name], notes, self.others(name))

    def carry_out(self, plan_set: PlanSet, name: str) -> tuple[Job, ...]:
        created = job_sets.create(plan_set, self.journal)
        return job_sets.run_set(created[0].id, self.places[name].host, self.journal)

    def running(self) -> dict[str, list[str]]:
        return {
            name: sorted(vm.name for vm in inventory.read(place.host) if vm.is_active)
            for name, place in self.places.items()
        }

    def close(self) -> None:
        for place in self.places.values():
            place.host.close()
        self.journal.close()


@pytest.fixture
def hosts(lab: Lab) -> Iterator[Hosts]:
    opened = Hosts(lab)
    yield opened
    opened.close()


def done(jobs: tuple[Job, ...]) -> bool:
    return {job.state for job in jobs} == {JobState.DONE}


def where(hosts: Hosts, name: str) -> list[str]:
    return [host for host, vms in hosts.running().items() if name in vms]


def lives(lab: Lab, hosts: Hosts, guest: RunningGuest, name: str, *, on: str | None = None) -> None:
    (host,) = where(hosts, name)
    assert on in {None, host}
    guest.counted_on(lab[host])


def test_a_drained_host_can_be_rebooted_and_gets_its_guests_back(
    lab: Lab, hosts: Hosts, guests: SavedGuests, tmp_path: Path
) -> None:
    """Also by another URI than that by which it was drained."""
    those = {name: guests.start(lab["lab1"], name) for name in ("one", "two", "three")}
    planned = hosts.drain("lab1")
    assert {fate.fate for fate in planned.fates} == {"live"}
    assert {fate.host for fate in planned.fates} == {"lab2", "lab3"}
    assert 0 < planned.predicted_s < 60
    ended = hosts.carry_out(planned.plan_set, "lab1")
    assert done(ended), [job.error for job in ended]
    assert hosts.running()["lab1"] == []
    for name, guest in those.items():
        lives(lab, hosts, guest, name)
    drained = next(picture for picture in hosts.pictures() if picture.name == "lab1")
    assert drained.is_drained

    lab["lab1"].reboot()
    hosts.places["lab1"].host.close()
    (tmp_path / "lab1").symlink_to(lab["lab1"].uri.partition("socket=")[2])
    hosts.places["lab1"] = hosts.place_at(f"qemu+unix:///system?socket={tmp_path / 'lab1'}", "lab1")
    ended = hosts.carry_out(hosts.home("lab1"), "lab1")

    assert done(ended), [job.error for job in ended]
    assert hosts.running() == {"lab1": ["one", "three", "two"], "lab2": [], "lab3": []}
    for name, guest in those.items():
        lives(lab, hosts, guest, name, on="lab1")
    assert maintenance.read() == ()


def test_moves_wait_for_their_turn_at_the_limit_of_a_host(lab: Lab, hosts: Hosts, guests: SavedGuests) -> None:
    for name in ("one", "two", "three"):
        guests.start(lab["lab1"], name)
    planned = hosts.drain("lab1", per_host=1, per_link=1)
    ended = hosts.carry_out(planned.plan_set, "lab1")
    assert done(ended), [job.error for job in ended]
    times = sorted((job.started_at, job.finished_at) for job in ended if not job.is_preparation)
    assert all(times[index][1] <= times[index + 1][0] for index in range(2))


def test_a_dead_host_gets_nothing_and_the_others_all(lab: Lab, hosts: Hosts, guests: SavedGuests) -> None:
    guest = guests.start(lab["lab1"], "one")
    lab["lab2"].kill_libvirtd(stays_dead=True)
    planned = hosts.drain("lab1")
    assert [(fate.vm, fate.host) for fate in planned.fates] == [("one", "lab3")]
    assert done(hosts.carry_out(planned.plan_set, "lab1"))
    lab["lab2"].start_libvirtd()
    lives(lab, hosts, guest, "one", on="lab3")


def test_a_guest_that_nobody_can_take_is_saved_and_goes_on_at_home(lab: Lab, hosts: Hosts, guests: SavedGuests) -> None:
    guest = guests.start(lab["lab1"], "one")
    for name in ("lab2", "lab3"):
        maintenance.begin(lab[name].uri, name)
    planned = hosts.drain("lab1", without_target=WithoutTarget.SAVE)
    (fate,) = planned.fates
    assert fate.fate == "save"
    assert fate.why == "lab2: it is drained for maintenance; lab3: it is drained for maintenance"
    assert done(hosts.carry_out(planned.plan_set, "lab1"))
    assert hosts.running()["lab1"] == []
    assert done(hosts.carry_out(hosts.home("lab1"), "lab1"))
    lives(lab, hosts, guest, "one", on="lab1")


def test_a_drain_goes_on_without_its_terminal_and_after_its_process_was_killed_by_job_restart(
    lab: Lab, hosts: Hosts, guests: SavedGuests, config_file: Path
) -> None:
    configured(lab, config_file)
    config_file.write_text(f"{config_file.read_text()}[moves]\nper_host = 1\nper_link = 1\n", encoding="utf-8")
    those = {name: guests.start(lab["lab1"], name) for name in ("one", "two", "three")}
    journal = hosts.journal
    terminal = Terminal(*HVTUI, "host", "drain", "lab1", "--yes")
    wait_for(lambda: [job for job in journal.jobs(states=[JobState.RUNNING]) if job.vm_name])
    terminal.hang_up()
    assert terminal.process.wait(60) == -signal.SIGHUP
    (set_id,) = {job.set_id for job in journal.jobs()}
    wait_for(lambda: [job for job in journal.members(set_id) if job.vm_name and job.state is JobState.DONE])
    wait_for(lambda: journal.jobs(states=[JobState.RUNNING]))
    running = journal.jobs(states=[JobState.RUNNING])
    os.kill(int(journal._claim_of(running[0].id).split(" ")[1]), signal.SIGKILL)
    wait_for(lambda: journal.recover() or all(job.state.is_over for job in journal.members(set_id)))
    for name in those:
        wait_for(lambda name=name: len(where(hosts, name)) == 1)

    again = hvtui("job", "restart", str(set_id), "--yes")

    assert again.returncode == 0, again.stderr
    ended = journal.members(set_id)
    assert done(ended), [(job.state, job.error) for job in ended]
    assert hosts.running()["lab1"] == []
    for name, guest in those.items():
        lives(lab, hosts, guest, name)
    notes = maintenance.note_of(hosts.places["lab1"].host)
    assert notes is not None
    assert {guest.name for guest in notes.guests} == set(those)


def test_one_failure_stops_only_itself_and_a_second_drain_does_the_rest(
    lab: Lab, hosts: Hosts, guests: SavedGuests
) -> None:
    those = {name: guests.start(lab["lab1"], name) for name in ("one", "two")}
    planned = hosts.drain("lab1")
    plans = tuple(
        replace(plan, steps=(plan.steps[0], replace(plan.steps[1], verb="no.such-step"), *plan.steps[2:]))
        if plan.vm_name == "one"
        else plan
        for plan in planned.plan_set.plans
    )
    ended = hosts.carry_out(replace(planned.plan_set, plans=plans), "lab1")
    assert {job.vm_name: job.state for job in ended} == {
        None: JobState.DONE,
        "one": JobState.FAILED,
        "two": JobState.DONE,
    }
    assert hosts.running()["lab1"] == ["one"]
    assert done(hosts.carry_out(hosts.drain("lab1").plan_set, "lab1"))
    for name, guest in those.items():
        lives(lab, hosts, guest, name)
    assert hosts.running()["lab1"] == []


def test_the_loss_of_a_host_is_bearable_only_for_guests_on_shared_storage(
    lab: Lab, hosts: Hosts, guests: SavedGuests
) -> None:
    guests.start(lab["lab1"], "shared-one")
    assert n_minus_1(hosts.pictures()).is_ok
    guests.start(lab["lab2"], "local-one", pool="default")
    found = n_minus_1(hosts.pictures())
    assert found.text == "N-1: without lab2 1 VM has no place"
    assert "does not see the disk" in found.losses[0].unplaced["local-one"]
