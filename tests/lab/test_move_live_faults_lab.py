"""What goes wrong in a live move: daemons, hosts, networks, disks, guests. The VM is on exactly one host at the end."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from host import jobs
from host.job_model import Job, JobState
from tests.support import guest as guests_inside
from tests.support import lab_guest
from tests.support.lab_saved import SavedGuests
from tests.support.live_moves import (
    PATIENCE,
    SLOW,
    Pair,
    runs_at_the_source_alone,
    runs_at_the_target_alone,
    state,
    states,
    volumes,
)
from tests.support.waiting import wait_for


def settled(pair: Pair, job: Job) -> Job:
    """The job brought to its end: restarted, as a person would, when it was interrupted or has failed."""
    return job if job.state is JobState.DONE else jobs.restart(job.id, pair.source, pair.journal, patience=PATIENCE)


FAULTS: dict[str, Callable[[Pair], object]] = {
    "the target's libvirtd is killed": lambda pair: pair.there.kill_libvirtd(),
    "the source's libvirtd is restarted": lambda pair: pair.here.restart_libvirtd(),
    "the source's libvirtd is killed": lambda pair: pair.here.kill_libvirtd(),
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("pool", ["shared", "default"])
def test_a_daemon_that_goes_in_mid_move_costs_no_guest(pair: Pair, guests: SavedGuests, fault: str, pool: str):
    guest = guests.start(pair.here, pool=pool)
    moving = pair.begin(pair.plan("count", bandwidth_bytes_s=8 * SLOW))

    FAULTS[fault](pair)
    job = moving.ended()

    if job.state is not JobState.DONE:
        assert job.error
        assert "running" in states(pair, "count")
        job = settled(pair, job)
    assert job.state is JobState.DONE, job.error
    runs_at_the_target_alone(pair, guest)
    assert lab_guest.checksum_inside(guest.on(pair.there)) == guest.disk.checksum


def test_a_target_without_power_leaves_the_guest_where_it_was(pair: Pair, guests: SavedGuests):
    guest = guests.start(pair.here)
    moving = pair.begin(pair.plan("count", bandwidth_bytes_s=SLOW))

    pair.there.kill_host()
    job = moving.ended()

    assert job.state in {JobState.INTERRUPTED, JobState.FAILED}
    assert "runs on lab1" in job.error, job.error
    assert state(pair.here, "count") == "running"
    guest.counted_on(pair.here)
    pair.there.start()
    job = jobs.rollback(job.id, pair.source, pair.journal, patience=PATIENCE)
    assert job.state is JobState.ROLLED_BACK, job.error
    runs_at_the_source_alone(pair, guest)


def test_a_cut_network_ends_the_move_and_not_the_guest(pair: Pair, guests: SavedGuests):
    guest = guests.start(pair.here)
    moving = pair.begin(pair.plan("count", bandwidth_bytes_s=SLOW))

    pair.there.cut_network()
    try:
        job = moving.ended()
    finally:
        pair.there.heal_network()

    assert job.state is JobState.FAILED, job.error
    assert "runs on lab1" in job.error
    runs_at_the_source_alone(pair, guest)


def test_a_guest_that_powers_off_in_mid_move_is_off_at_its_source(pair: Pair, guests: SavedGuests):
    guest = guests.start(pair.here)
    moving = pair.begin(pair.plan("count", bandwidth_bytes_s=SLOW))

    guests_inside.agent(guest.domain, "guest-exec", path="/bin/busybox", arg=["poweroff", "-f"])
    job = moving.ended()

    assert job.state is JobState.FAILED
    assert "shut down while it was moved" in job.error
    assert states(pair, "count") == ("off", "gone")
    assert lab_guest.disk_checksum(pair.here, guest.disk.path) == guest.disk.checksum


def test_a_full_disk_at_the_target_leaves_the_guest_and_its_disk_where_they_were(pair: Pair, guests: SavedGuests):
    guest = guests.start(pair.here, pool="default")
    plan = pair.plan("count")
    pair.there.fill_disk("/var/lib/libvirt/images")

    job = pair.run(plan)

    assert job.state is JobState.FAILED
    assert job.error
    pair.there.empty_disks()
    runs_at_the_source_alone(pair, guest)
    assert lab_guest.checksum_inside(guest.domain) == guest.disk.checksum
    assert volumes(pair.there) == set()


def test_a_name_that_is_taken_in_the_meantime_stops_the_move_before_it_begins(pair: Pair, guests: SavedGuests):
    guest = guests.start(pair.here)
    plan = pair.plan("count")
    other = pair.there.connect().defineXML(lab_guest.definition("count"))

    job = pair.run(plan)

    assert job.state is JobState.FAILED
    assert "another VM of that name" in job.error
    assert states(pair, "count") == ("running", "off")
    other.undefine()
    runs_at_the_source_alone(pair, guest)


def test_a_directory_that_is_not_shared_after_all_stops_the_move(pair: Pair, guests: SavedGuests):
    guest = guests.start(pair.here)
    plan = pair.plan("count")
    pair.there.fill_disk("/srv/shared/images", free_bytes=4 << 20)

    job = pair.run(plan)

    pair.there.empty_disks()
    assert job.state is JobState.FAILED
    assert "/srv/shared/images is not the same directory" in job.error
    runs_at_the_source_alone(pair, guest)


def test_what_was_half_done_is_seen_while_it_is_half_done(pair: Pair, guests: SavedGuests):
    guests.start(pair.here)
    moving = pair.begin(pair.plan("count", bandwidth_bytes_s=SLOW))

    wait_for(lambda: state(pair.there, "count") == "half")
    assert state(pair.here, "count") == "running"

    jobs.cancel(moving.id, pair.journal)
    moving.ended()
    assert states(pair, "count") == ("running", "gone")
