"""What goes wrong in quick and offline moves: daemons, hosts, cables, disks, guests. Hvtui itself carries the bytes."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from host import jobs
from host.job_model import Job, JobState
from host.job_rules import holds
from tests.support import guest as inside
from tests.support import lab_guest
from tests.support.lab_host import LabHost
from tests.support.lab_saved import RunningGuest, SavedGuests
from tests.support.live_moves import (
    PATIENCE,
    Pair,
    assert_no_leftovers,
    runs_at_the_source_alone,
    runs_at_the_target_alone,
    states,
    volumes,
)
from tests.support.waiting import wait_for
from vm import move_disk_steps, move_quick_steps
from vm.domain_xml import read_config
from vm.move_model import MoveKind


def made(pair: Pair, guests: SavedGuests, kind: MoveKind) -> RunningGuest:
    guest = guests.start(pair.here, pool="default")
    if kind is MoveKind.OFFLINE:
        guest.domain.destroy()
    return guest


def in_mid_copy(monkeypatch: pytest.MonkeyPatch, event: Callable[[], object]) -> None:
    """Let something happen when the guest stands still and its disk is about to be read back at the target."""
    real, left = move_disk_steps.volume_copy.verify, [event]

    def struck(*arguments: Any, **options: Any) -> Any:
        if left:
            left.pop()()
        return real(*arguments, **options)

    monkeypatch.setattr(move_disk_steps.volume_copy, "verify", struck)


def run(pair: Pair, kind: MoveKind) -> Job:
    job = jobs.create(pair.plan("count", kind), pair.journal)
    return jobs.run(job.id, pair.source, pair.journal, patience=replace(PATIENCE, reconnect_s=20.0))


def is_whole(pair: Pair, guest: RunningGuest, kind: MoveKind, host: LabHost) -> None:
    """There, alive where it was, its disk equal, and nothing anywhere else."""
    other = pair.there if host is pair.here else pair.here
    if kind is MoveKind.QUICK:
        (runs_at_the_target_alone if host is pair.there else runs_at_the_source_alone)(pair, guest)
    else:
        assert states(pair, "count") == (("off", "gone") if host is pair.here else ("gone", "off"))
        assert_no_leftovers(pair)
    (disk,) = read_config(guest.on(host).XMLDesc(2)).disks
    assert lab_guest.disk_checksum(host, disk.source) == guest.disk.checksum
    assert volumes(other) == set()
    assert len(volumes(host)) == 1
    assert not any(holds(job) for job in pair.journal.jobs())


FAULTS: dict[str, Callable[[Pair], object]] = {
    "the target's libvirtd is killed": lambda pair: pair.there.kill_libvirtd(),
    "the source's libvirtd is restarted": lambda pair: pair.here.restart_libvirtd(),
    "the source's libvirtd is killed": lambda pair: pair.here.kill_libvirtd(),
}


@pytest.mark.parametrize(
    ("kind", "fault"), [(MoveKind.QUICK, fault) for fault in FAULTS] + [(MoveKind.OFFLINE, next(iter(FAULTS)))]
)
def test_a_daemon_that_goes_in_mid_copy_costs_nothing(
    pair: Pair, guests: SavedGuests, monkeypatch: pytest.MonkeyPatch, fault: str, kind: MoveKind
):
    guest = made(pair, guests, kind)
    in_mid_copy(monkeypatch, lambda: FAULTS[fault](pair))

    job = run(pair, kind)

    if job.state is not JobState.DONE:
        assert job.error
        job = jobs.restart(job.id, pair.source, pair.journal, patience=PATIENCE)
    assert job.state is JobState.DONE, job.error
    is_whole(pair, guest, kind, pair.there)


@pytest.mark.parametrize(("kind", "way"), [(MoveKind.QUICK, "restart"), (MoveKind.OFFLINE, "rollback")])
def test_a_target_that_loses_its_power_in_mid_copy_costs_nothing(
    pair: Pair, guests: SavedGuests, monkeypatch: pytest.MonkeyPatch, kind: MoveKind, way: str
):
    guest = made(pair, guests, kind)
    monkeypatch.setattr(move_quick_steps, "_TARGET_BACK_S", 1.0)
    in_mid_copy(monkeypatch, pair.there.kill_host)
    job = jobs.create(pair.plan("count", kind), pair.journal)
    job = jobs.run(job.id, pair.source, pair.journal, patience=replace(PATIENCE, reconnect_s=1.0))
    assert job.state is JobState.INTERRUPTED
    assert job.error
    pair.there.start()

    job = getattr(jobs, way)(job.id, pair.source, pair.journal, patience=PATIENCE)

    assert job.state is (JobState.DONE if way == "restart" else JobState.ROLLED_BACK), job.error
    is_whole(pair, guest, kind, pair.there if way == "restart" else pair.here)


@pytest.mark.parametrize("kind", [MoveKind.QUICK, MoveKind.OFFLINE])
def test_a_disk_that_is_full_in_mid_copy_leaves_the_vm_where_it_was(pair: Pair, guests: SavedGuests, kind: MoveKind):
    guest = made(pair, guests, kind)
    plan = pair.plan("count", kind)
    pair.there.fill_disk("/var/lib/libvirt/images", free_bytes=2 * 1024**2)

    job = pair.run(plan)

    pair.there.empty_disks()
    assert job.state is JobState.FAILED
    assert "No space left" in job.error
    is_whole(pair, guest, kind, pair.here)


def test_a_cable_that_is_cut_and_healed_between_the_hosts_does_not_matter_to_what_hvtui_carries(
    pair: Pair, guests: SavedGuests, monkeypatch: pytest.MonkeyPatch
):
    guest = made(pair, guests, MoveKind.QUICK)
    in_mid_copy(monkeypatch, pair.there.cut_network)
    try:
        job = run(pair, MoveKind.QUICK)
    finally:
        pair.there.heal_network()

    assert job.state is JobState.DONE, job.error
    is_whole(pair, guest, MoveKind.QUICK, pair.there)


def test_a_guest_that_powers_off_while_it_is_saved_ends_on_one_host_and_off(
    pair: Pair, guests: SavedGuests, monkeypatch: pytest.MonkeyPatch
):
    guest = made(pair, guests, MoveKind.QUICK)
    real = move_quick_steps.move_memory.note_stop

    def struck(*arguments: Any, **options: Any) -> None:
        real(*arguments, **options)
        guest.on(pair.here).destroy()

    monkeypatch.setattr(move_quick_steps.move_memory, "note_stop", struck)
    job = run(pair, MoveKind.QUICK)

    assert job.state is JobState.FAILED
    assert job.error and job.remedy, job
    is_whole(pair, guest, MoveKind.OFFLINE, pair.here)


def test_a_vm_that_is_started_in_mid_copy_stays_where_it_was(
    pair: Pair, guests: SavedGuests, monkeypatch: pytest.MonkeyPatch
):
    guest = made(pair, guests, MoveKind.OFFLINE)
    in_mid_copy(monkeypatch, lambda: guest.on(pair.here).create())

    job = run(pair, MoveKind.OFFLINE)

    assert job.state is JobState.FAILED
    assert "started in the meantime" in job.error
    assert states(pair, "count") == ("running", "gone")
    assert volumes(pair.there) == set()


def test_a_cable_that_is_cut_and_healed_soon_lets_a_live_move_go_on_or_back(pair: Pair, guests: SavedGuests):
    guest = guests.start(pair.here, pool="default")
    moving = pair.begin(pair.plan("count", bandwidth_bytes_s=16 * 1024**2))
    pair.there.cut_network()
    threading.Timer(2.0, pair.there.heal_network).start()

    job = moving.ended()

    if job.state is JobState.DONE:
        runs_at_the_target_alone(pair, guest)
    else:
        assert "it runs on lab1" in job.error
        runs_at_the_source_alone(pair, guest)
    host = pair.there if job.state is JobState.DONE else pair.here
    wait_for(lambda: inside.answers(guest.on(host)))
    assert lab_guest.checksum_inside(guest.on(host)) == guest.disk.checksum
