"""hvtui killed (-9) at every step of a live move: a restart completes it, a rollback takes back what it still can."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from host.job_model import Job, JobState
from tests.support import lab_guest
from tests.support.lab import Lab
from tests.support.lab_saved import SavedGuests
from tests.support.live_moves import (
    DEADLY,
    Pair,
    configured,
    hvtui,
    runs_at_the_source_alone,
    runs_at_the_target_alone,
    volumes,
)

BEFORE = ("move.check", "move.share", "move.define")
AFTER = ("move.live", "move.finish")
MID_MOVE = "move.live:60"  # calls: libvirt sends the memory by then


@pytest.fixture
def pair(lab: Lab, config_file: Path) -> Iterator[Pair]:
    configured(lab, config_file)
    both = Pair(lab)
    yield both
    both.close()


def killed(pair: Pair, *options: str, **environment: str) -> Job:
    """A job of `vm migrate` whose process died at the place that `environment` says."""
    done = hvtui(
        "vm", "migrate", "count", "--to", "lab2", "--host", "lab1", *options, PYTHONPATH=str(DEADLY), **environment
    )
    assert done.returncode != 0, done.stdout
    pair.journal.recover()
    job = pair.journal.jobs(limit=1)[0]
    assert job.state is JobState.INTERRUPTED, done.stderr
    return job


def restarted(pair: Pair, job: Job) -> None:
    done = hvtui("job", "restart", str(job.id))
    assert done.returncode == 0, done.stderr
    assert pair.journal.job(job.id).state is JobState.DONE


def test_each_step_of_a_live_move_is_tried_here(pair: Pair, guests: SavedGuests):
    guests.start(pair.here)

    verbs = [step.verb for step in pair.plan("count").steps]

    assert [verb for verb in verbs if verb in {*BEFORE, *AFTER}] == [*BEFORE, *AFTER]


@pytest.mark.parametrize("verb", [*BEFORE, *AFTER])
def test_a_move_killed_after_any_step_is_completed_by_a_restart(pair: Pair, guests: SavedGuests, verb: str):
    guest = guests.start(pair.here)
    job = killed(pair, HVTUI_TEST_KILL_AFTER=verb)

    restarted(pair, job)

    runs_at_the_target_alone(pair, guest)


@pytest.mark.parametrize("verb", ["move.make-disks", "move.define", "move.live", "move.forget-disks"])
def test_a_move_with_disks_killed_after_any_step_is_completed_by_a_restart(pair: Pair, guests: SavedGuests, verb: str):
    guest = guests.start(pair.here, pool="default")
    job = killed(pair, HVTUI_TEST_KILL_AFTER=verb)

    restarted(pair, job)

    runs_at_the_target_alone(pair, guest)
    assert lab_guest.checksum_inside(guest.on(pair.there)) == guest.disk.checksum
    assert volumes(pair.here) == set() and len(volumes(pair.there)) == 1


@pytest.mark.parametrize("verb", [*BEFORE[1:], "move.make-disks"])
def test_a_move_killed_before_its_hand_over_is_rolled_back(pair: Pair, guests: SavedGuests, verb: str):
    guest = guests.start(pair.here, pool="default" if verb == "move.make-disks" else "shared")
    job = killed(pair, HVTUI_TEST_KILL_AFTER=verb)

    done = hvtui("job", "rollback", str(job.id), "--yes")

    assert done.returncode == 0, done.stderr
    runs_at_the_source_alone(pair, guest)
    assert volumes(pair.there) == set()


def test_a_restart_follows_the_migration_that_goes_on_without_hvtui(pair: Pair, guests: SavedGuests):
    guest = guests.start(pair.here)
    job = killed(pair, "--bandwidth", "8M", HVTUI_TEST_KILL_AT=MID_MOVE)

    restarted(pair, job)

    runs_at_the_target_alone(pair, guest)


def test_a_rollback_ends_the_migration_that_goes_on_without_hvtui(pair: Pair, guests: SavedGuests):
    guest = guests.start(pair.here)
    job = killed(pair, "--bandwidth", "1M", HVTUI_TEST_KILL_AT=MID_MOVE)

    done = hvtui("job", "rollback", str(job.id), "--yes")

    assert done.returncode == 0, done.stderr
    runs_at_the_source_alone(pair, guest)


def test_what_has_changed_hosts_is_not_rolled_back(pair: Pair, guests: SavedGuests):
    guest = guests.start(pair.here)
    job = killed(pair, HVTUI_TEST_KILL_AFTER="move.live")

    done = hvtui("job", "rollback", str(job.id), "--yes")

    assert done.returncode != 0
    assert "it has been moved" in done.stderr
    restarted(pair, job)
    runs_at_the_target_alone(pair, guest)
