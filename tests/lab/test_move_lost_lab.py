"""What is lost at the worst moment of a move, when the VM changes hands: it is whole on one host, or its job says so.

Its memory is never used twice, and what it has at the target is not taken back once the source has no definition of it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import libvirt
import pytest

from host import jobs
from host.errors import ConnectionLost
from host.job_model import Job, JobState
from host.job_rules import holds
from host.job_schema import ClaimLost, JournalFailed
from tests.lab.test_move_live_killed_lab import killed
from tests.support import lab_guest
from tests.support.lab import Lab
from tests.support.lab_host import LabHost
from tests.support.lab_saved import RunningGuest, SavedGuests
from tests.support.live_moves import (
    PATIENCE,
    Pair,
    assert_no_leftovers,
    configured,
    hvtui,
    runs_at_the_source_alone,
    runs_at_the_target_alone,
    states,
    volumes,
)
from tests.support.waiting import wait_for
from vm import move_live_steps, move_memory, move_quick_steps
from vm.domain_xml import read_config
from vm.move_model import MoveKind


@pytest.fixture
def pair(lab: Lab, config_file: Any) -> Iterator[Pair]:
    configured(lab, config_file)
    both = Pair(lab)
    yield both
    both.close()


def before(monkeypatch: pytest.MonkeyPatch, module: Any, name: str, event: Callable[[], object]) -> None:
    """Let something happen once, right before a function of the program."""
    real = getattr(module, name)
    left = [event]

    def struck(*arguments: Any, **options: Any) -> Any:
        if left:
            left.pop()()
        return real(*arguments, **options)

    monkeypatch.setattr(module, name, struck)


def run(pair: Pair, kind: MoveKind) -> Job:
    job = jobs.create(pair.plan("count", kind), pair.journal)
    return jobs.run(job.id, pair.source, pair.journal, patience=replace(PATIENCE, reconnect_s=1.0))


def completed(pair: Pair, job: Job) -> Job:
    job = jobs.restart(job.id, pair.source, pair.journal, patience=PATIENCE)
    assert job.state is JobState.DONE, job.error
    return job


def is_off_at(pair: Pair, host: LabHost, guest: RunningGuest) -> None:
    """Off there, gone from the other, its disk whole, nothing left of the move."""
    assert states(pair, "count") == (("off", "gone") if host is pair.here else ("gone", "off"))
    text = guest.on(host).XMLDesc(2)
    assert "hvtui.org/xmlns/move" not in text
    (path,) = (disk.source for disk in read_config(text).disks)
    assert lab_guest.disk_checksum(host, path) == guest.disk.checksum
    other = pair.there if host is pair.here else pair.here
    assert volumes(other) == set()
    assert_no_leftovers(pair)
    assert not any(holds(job) for job in pair.journal.jobs())


@pytest.mark.parametrize("kind", [MoveKind.LIVE, MoveKind.LIVE_STORAGE])
def test_a_target_that_dies_right_after_the_hand_over_keeps_the_vm_and_its_disk(
    pair: Pair, guests: SavedGuests, monkeypatch: pytest.MonkeyPatch, kind: MoveKind
):
    guest = guests.start(pair.here, pool="shared" if kind is MoveKind.LIVE else "default")
    before(monkeypatch, move_live_steps, "actual_figures", pair.there.kill_host)
    job = run(pair, kind)
    assert job.state is JobState.INTERRUPTED
    pair.there.start()

    refused = jobs.rollback(job.id, pair.source, pair.journal, patience=PATIENCE)
    assert refused.state is JobState.INTERRUPTED
    assert "it has been moved" in refused.error

    job = completed(pair, job)
    assert "its guest ended on lab2" in job.warnings[0]
    is_off_at(pair, pair.there, guest)


def test_a_guest_that_goes_off_right_after_the_hand_over_is_at_the_target(
    pair: Pair, guests: SavedGuests, monkeypatch: pytest.MonkeyPatch
):
    guest = guests.start(pair.here, pool="default")
    before(monkeypatch, move_live_steps, "_quiet", lambda: guest.on(pair.there).destroy())

    job = run(pair, MoveKind.LIVE_STORAGE)

    assert job.state is JobState.DONE, job.error
    is_off_at(pair, pair.there, guest)


@pytest.mark.parametrize("pool", ["shared", "default"])
def test_a_target_that_dies_after_it_restored_the_guest_does_not_get_its_old_memory_again(
    pair: Pair, guests: SavedGuests, monkeypatch: pytest.MonkeyPatch, pool: str
):
    """Its disk has left that memory behind."""
    guest = guests.start(pair.here, pool=pool)
    before(monkeypatch, move_quick_steps, "_arrived", lambda: loses_the_target(pair))
    job = run(pair, MoveKind.QUICK)
    assert job.state is JobState.INTERRUPTED, job
    pair.there.start()

    refused = jobs.rollback(job.id, pair.source, pair.journal, patience=PATIENCE)
    assert refused.state is JobState.INTERRUPTED
    assert "at lab2 already" in refused.error

    job = completed(pair, job)
    assert "its guest ended on lab2" in job.warnings[0]
    is_off_at(pair, pair.there, guest)


def loses_the_target(pair: Pair) -> None:
    pair.there.kill_host()
    raise ConnectionLost("no answer", about="count")


@pytest.mark.parametrize("way", ["restart", "rollback"])
def test_a_guest_that_was_only_loaded_when_the_target_died_goes_on_where_the_job_ends(
    pair: Pair, guests: SavedGuests, monkeypatch: pytest.MonkeyPatch, way: str
):
    guest = guests.start(pair.here)
    before(monkeypatch, move_memory, "note_life", lambda: loses_the_target(pair))
    job = run(pair, MoveKind.QUICK)
    assert job.state is JobState.INTERRUPTED, job
    pair.there.start()

    job = getattr(jobs, way)(job.id, pair.source, pair.journal, patience=PATIENCE)

    assert job.state is (JobState.DONE if way == "restart" else JobState.ROLLED_BACK), job.error
    (runs_at_the_target_alone if way == "restart" else runs_at_the_source_alone)(pair, guest)


def test_a_libvirtd_that_dies_while_it_restores_the_guest_costs_no_life(
    pair: Pair, guests: SavedGuests, monkeypatch: pytest.MonkeyPatch
):
    guest = guests.start(pair.here)
    plan, real = pair.plan("count", MoveKind.QUICK), move_quick_steps._restore_and_go_on

    def struck(connection: Any, args: Any, xml: Any) -> None:
        killer = threading.Thread(target=lambda: (wait_for(lambda: pair.there.qemu_pids()), pair.there.kill_libvirtd()))
        killer.start()
        try:
            real(connection, args, xml)
        finally:
            killer.join()

    monkeypatch.setattr(move_quick_steps, "_restore_and_go_on", struck)
    job = pair.run(plan)
    monkeypatch.undo()
    if job.state is not JobState.DONE:
        job = completed(pair, job)

    runs_at_the_target_alone(pair, guest)


def test_a_process_killed_between_load_and_life_leaves_a_guest_that_a_restart_lets_go_on(
    pair: Pair, guests: SavedGuests, monkeypatch: pytest.MonkeyPatch
):
    guest = guests.start(pair.here)
    monkeypatch.setattr(move_quick_steps, "_restore_and_go_on", only_load)
    before(monkeypatch, move_quick_steps, "_goes_on", dies)
    with pytest.raises(JournalFailed):
        run(pair, MoveKind.QUICK)
    monkeypatch.undo()
    (job,) = pair.journal.jobs()
    assert states(pair, "count") == ("off", "half")

    completed(pair, job)

    runs_at_the_target_alone(pair, guest)


def only_load(connection: Any, args: Any, xml: str | None) -> None:
    connection.restoreFlags(args["target_path"], xml, libvirt.VIR_DOMAIN_SAVE_PAUSED)


def dies() -> None:
    raise ClaimLost("as good as dead")


CALLS_OF_FINISH = range(0, 16, 3)


@pytest.mark.parametrize("calls", CALLS_OF_FINISH)
def test_an_offline_move_killed_in_its_last_step_is_taken_back_or_refuses_to_be(
    pair: Pair, guests: SavedGuests, calls: int
):
    guest = guests.start(pair.here, pool="default")
    guest.domain.setAutostart(1)
    guest.domain.destroy()
    job = killed(pair, HVTUI_TEST_KILL_AT=f"move.finish:{calls}")

    hvtui("job", "rollback", str(job.id), "--yes")
    job = pair.journal.job(job.id)
    if job.state is JobState.ROLLED_BACK:
        is_off_at(pair, pair.here, guest)
        assert guest.on(pair.here).autostart()
        return
    assert "it has been moved" in job.error or "is at lab2 already" in job.error
    completed(pair, job)
    is_off_at(pair, pair.there, guest)
    assert guest.on(pair.there).autostart()


def test_an_offline_move_whose_source_is_gone_keeps_the_copied_disks(pair: Pair, guests: SavedGuests):
    guest = guests.start(pair.here, pool="default")
    guest.domain.destroy()
    job = killed(pair, HVTUI_TEST_KILL_AFTER="move.finish")

    done = hvtui("job", "rollback", str(job.id), "--yes")

    assert done.returncode != 0
    assert "it has been moved" in done.stderr
    completed(pair, job)
    is_off_at(pair, pair.there, guest)
