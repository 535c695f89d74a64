"""Quick and offline moves between two lab hosts: the same boot of the guest goes on, on one host, its disks whole."""

from __future__ import annotations

import libvirt
import pytest

from host import jobs
from host.job_model import JobState
from host.steps import Args, Result, StepContext
from tests.support import lab_guest
from tests.support.lab_saved import SavedGuests
from tests.support.live_moves import Pair, runs_at_the_source_alone, runs_at_the_target_alone, states, volumes
from tests.support.moves import disks_of
from vm import inventory
from vm.move_disk_steps import copy_images
from vm.move_model import MoveKind
from vm.storage_move import plan_storage_move


@pytest.mark.parametrize("pool", ["shared", "default"])
def test_the_guest_goes_on_at_the_target_and_it_is_told_how_long_it_stood_still(
    pair: Pair, guests: SavedGuests, pool: str
) -> None:
    guest = guests.start(pair.here, pool=pool)
    guest.domain.setAutostart(1)
    before = lab_guest.counted(guest.domain)

    job = pair.run(pair.plan("count", MoveKind.QUICK))

    assert job.state is JobState.DONE, job.error
    runs_at_the_target_alone(pair, guest)
    assert guest.counted_on(pair.there).count >= before.count
    assert guest.on(pair.there).autostart()
    assert lab_guest.checksum_inside(guest.on(pair.there)) == guest.disk.checksum
    results = {step.verb: step.result or {} for step in job.steps}
    assert 0 < float(str(results["move.restore"]["downtime_s"])) < 60
    assert results["move.finish"]["boot_id"] == guest.boot_id
    assert not [name for host in (pair.here, pair.there) for name in volumes(host) if ".save" in name]
    if pool == "default":
        assert volumes(pair.here) == set()


def test_a_paused_guest_arrives_paused(pair: Pair, guests: SavedGuests) -> None:
    guest = guests.start(pair.here)
    guest.domain.suspend()

    job = pair.run(pair.plan("count", MoveKind.QUICK))

    assert job.state is JobState.DONE, job.error
    assert guest.on(pair.there).state()[0] == libvirt.VIR_DOMAIN_PAUSED
    assert states(pair, "count")[0] == "gone"
    guest.on(pair.there).resume()
    runs_at_the_target_alone(pair, guest)


def test_a_target_that_loses_its_power_while_the_guest_stands_still_gives_it_back(
    pair: Pair, guests: SavedGuests, monkeypatch: pytest.MonkeyPatch
) -> None:
    guest = guests.start(pair.here, pool="default")
    monkeypatch.setattr("vm.move_quick_steps._TARGET_BACK_S", 2.0)

    def fails(ctx: StepContext, args: Args) -> Result:
        if pair.there.is_running():
            pair.there.kill_host()
        return copy_images(ctx, args)

    monkeypatch.setattr("vm.move_quick_steps.copy_images", fails)
    job = pair.run(pair.plan("count", MoveKind.QUICK))

    assert job.state is JobState.INTERRUPTED
    assert "lab2 does not answer any more" in job.error
    guest.counted_on(pair.here)
    pair.there.start()
    assert jobs.rollback(job.id, pair.source, pair.journal).state is JobState.ROLLED_BACK
    runs_at_the_source_alone(pair, guest)
    assert volumes(pair.there) == set()


@pytest.mark.parametrize("pool", ["shared", "default"])
def test_a_vm_that_is_off_starts_at_the_target_with_its_disk(pair: Pair, guests: SavedGuests, pool: str) -> None:
    guest = guests.start(pair.here, pool=pool)
    guest.domain.destroy()

    plan = pair.plan("count")
    job = pair.run(plan)

    assert job.state is JobState.DONE, job.error
    assert "(offline)" in plan.title
    assert states(pair, "count") == ("gone", "off")
    domain = guest.on(pair.there)
    path = disks_of(pair.target, "count")["vda"]
    assert lab_guest.disk_checksum(pair.there, path) == guest.disk.checksum
    domain.create()
    assert domain.isActive()


def test_a_copied_definition_leaves_the_vm_where_it_is(pair: Pair, guests: SavedGuests) -> None:
    guest = guests.start(pair.here)
    guest.domain.setAutostart(1)

    plan = pair.plan("count", MoveKind.DEFINITION)
    job = pair.run(plan)

    assert job.state is JobState.DONE, job.error
    assert any("never run both" in warning for warning in plan.warnings)
    assert states(pair, "count") == ("running", "off")
    assert not guest.on(pair.there).autostart()
    guest.counted_on(pair.here)


def test_a_disk_goes_to_another_pool_while_its_guest_counts(pair: Pair, guests: SavedGuests) -> None:
    guest = guests.start(pair.here, pool="default")
    vm = inventory.find(pair.source, "count")

    job = pair.run(plan_storage_move(pair.source, vm, "shared"))

    assert job.state is JobState.DONE, job.error
    guest.counted_on(pair.here)
    assert lab_guest.checksum_inside(guest.domain) == guest.disk.checksum
    for flags in (0, libvirt.VIR_DOMAIN_XML_INACTIVE):
        assert "/srv/shared/" in guest.domain.XMLDesc(flags)
    assert volumes(pair.here) == set()
