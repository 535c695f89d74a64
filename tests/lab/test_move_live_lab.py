"""Live moves between two lab hosts: the guest lives on, on one host, with its disks whole; cancelled, limited."""

from __future__ import annotations

import os
import signal
import time

import libvirt
import pytest

from host import jobs
from host.job_model import JobState
from tests.support import lab_guest
from tests.support.lab import Lab
from tests.support.lab_host import LabHost
from tests.support.lab_saved import RunningGuest, SavedGuests
from tests.support.live_moves import (
    PATIENCE,
    SLOW,
    Pair,
    UnderWay,
    figures,
    runs_at_the_source_alone,
    runs_at_the_target_alone,
    states,
    volumes,
)
from tests.support.waiting import wait_for
from vm.move_model import MoveKind, Stuck


def test_a_guest_on_shared_storage_lives_on_at_the_target(pair: Pair, guests: SavedGuests):
    guest = guests.start(pair.here)
    before = lab_guest.counted(guest.domain)
    guest.domain.setAutostart(1)

    plan = pair.plan("count")
    job = pair.run(plan)

    assert job.state is JobState.DONE, job.error
    runs_at_the_target_alone(pair, guest)
    assert guest.counted_on(pair.there).count >= before.count
    assert guest.on(pair.there).autostart()
    assert any(note.startswith("predicted") for note in plan.notes)
    told = figures(job)
    assert told["handed_over"] is True
    assert told["boot_id"] == guest.boot_id
    assert told["total_s"] > 0 and told["downtime_s"] < told["total_s"] and told["bytes"] > 10 << 20


def test_it_comes_back_as_it_went(lab: Lab, pair: Pair, guests: SavedGuests):
    guest = guests.start(pair.here)
    assert pair.run(pair.plan("count")).state is JobState.DONE
    home = Pair(lab, "lab2", "lab1")

    job = home.run(home.plan("count"))

    assert job.state is JobState.DONE, job.error
    runs_at_the_target_alone(home, guest)
    home.close()


def test_without_a_way_between_the_hosts_hvtui_drives_the_move(pair: Pair, guests: SavedGuests):
    guest = guests.start(pair.here)
    plan = pair.plan("count", direct=True)

    job = pair.run(plan)

    assert job.state is JobState.DONE, job.error
    runs_at_the_target_alone(pair, guest)
    assert any("hvtui itself drives" in warning for warning in plan.warnings)


def test_a_paused_guest_arrives_paused(pair: Pair, guests: SavedGuests):
    guest = guests.start(pair.here)
    guest.domain.suspend()

    job = pair.run(pair.plan("count"))

    assert job.state is JobState.DONE, job.error
    assert states(pair, "count") == ("gone", "paused")
    guest.on(pair.there).resume()
    runs_at_the_target_alone(pair, guest)


def test_its_disks_go_along_where_they_are_not_shared(pair: Pair, guests: SavedGuests):
    guest = guests.start(pair.here, pool="default")

    plan = pair.plan("count")
    job = pair.run(plan)

    assert job.state is JobState.DONE, job.error
    assert "(live-storage)" in plan.title
    assert any(note.startswith("live cannot be: lab2 does not see its disk vda") for note in plan.notes)
    runs_at_the_target_alone(pair, guest)
    assert lab_guest.checksum_inside(guest.on(pair.there)) == guest.disk.checksum
    assert volumes(pair.here) == set()
    (copy,) = volumes(pair.there)
    definition = guest.on(pair.there).XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE)
    assert copy in definition and "type='qcow2'" in definition


def test_the_disks_stay_at_the_source_when_asked_to(pair: Pair, guests: SavedGuests):
    guest = guests.start(pair.here, pool="default")

    job = pair.run(pair.plan("count", keep_source_disks=True))

    assert job.state is JobState.DONE, job.error
    runs_at_the_target_alone(pair, guest)
    assert volumes(pair.here) == {"count.qcow2"}


@pytest.mark.parametrize("pool", ["shared", "default"])
def test_a_cancelled_move_leaves_everything_as_it_was(pair: Pair, guests: SavedGuests, pool: str):
    guest = guests.start(pair.here, pool=pool)
    moving = pair.begin(pair.plan("count", bandwidth_bytes_s=SLOW))

    jobs.cancel(moving.id, pair.journal)

    assert moving.ended().state is JobState.CANCELLED, moving.job.error
    runs_at_the_source_alone(pair, guest)
    assert volumes(pair.there) == set()
    assert lab_guest.checksum_inside(guest.domain) == guest.disk.checksum


def test_progress_says_how_much_is_left(pair: Pair, guests: SavedGuests):
    guests.start(pair.here)
    moving = pair.begin(pair.plan("count", bandwidth_bytes_s=SLOW))

    wait_for(lambda: "left" in (moving.job.current_step.note if moving.job.current_step else ""), what="a figure")
    step = moving.job.current_step
    assert step is not None and step.fraction is not None and 0 < step.fraction < 1

    jobs.cancel(moving.id, pair.journal)
    moving.ended()


def test_a_move_that_does_not_converge_is_given_up_by_policy(pair: Pair, guests: SavedGuests):
    guest = guests.start(pair.here)

    job = pair.run(pair.plan("count", bandwidth_bytes_s=SLOW, stuck=Stuck.CANCEL, patience_s=1.0))

    assert job.state is JobState.FAILED
    assert "given up after 1 s" in job.error and "it runs on lab1" in job.error
    runs_at_the_source_alone(pair, guest)


def test_a_move_that_does_not_converge_becomes_a_quick_one_by_policy(pair: Pair, guests: SavedGuests):
    guest = guests.start(pair.here)

    job = pair.run(pair.plan("count", bandwidth_bytes_s=SLOW, stuck=Stuck.QUICK, patience_s=1.0))

    assert job.state is JobState.DONE, job.error
    assert figures(job)["handed_over"] is False
    runs_at_the_target_alone(pair, guest)


def test_a_quick_move_is_taken_instead_when_that_is_wished(pair: Pair, guests: SavedGuests):
    guest = guests.start(pair.here)
    moving = pair.begin(pair.plan("count", bandwidth_bytes_s=SLOW))

    jobs.wish(moving.id, pair.journal, quick="yes")

    assert moving.ended().state is JobState.DONE, moving.job.error
    runs_at_the_target_alone(pair, guest)


def reason(host: LabHost, name: str) -> int | None:
    """Why the VM is in its state there, as libvirt tells; None where it is not."""
    connection = host.connect()
    found = next((each for each in connection.listAllDomains() if each.name() == name), None)
    return None if found is None else int(found.state()[1])


def in_postcopy(pair: Pair, bandwidth_bytes_s: int = SLOW) -> UnderWay:
    """A move whose guest runs at the target already, while most of its memory is still at the source."""
    moving = pair.begin(pair.plan("count", bandwidth_bytes_s=bandwidth_bytes_s, postcopy=True))
    jobs.wish(moving.id, pair.journal, postcopy="yes")
    wait_for(lambda: reason(pair.there, "count") == libvirt.VIR_DOMAIN_RUNNING_POSTCOPY, what="it to run there")
    assert reason(pair.here, "count") == libvirt.VIR_DOMAIN_PAUSED_POSTCOPY
    return moving


def ends_in_postcopy(pair: Pair, moving: UnderWay, guest: RunningGuest) -> None:
    jobs.wish(moving.id, pair.journal, postcopy="yes", bandwidth="1000M")
    job = moving.ended()
    if job.state is not JobState.DONE:
        job = jobs.restart(job.id, pair.source, pair.journal, patience=PATIENCE)
    assert job.state is JobState.DONE, job.error
    assert figures(job)["postcopy"] is True
    runs_at_the_target_alone(pair, guest)
    assert lab_guest.checksum_inside(guest.on(pair.there)) == guest.disk.checksum


def test_post_copy_ends_a_move_that_would_take_long_also_after_its_connections_were_lost(
    pair: Pair, guests: SavedGuests
):
    guest = guests.start(pair.here)
    moving = in_postcopy(pair)

    pair.there.cut_network()
    time.sleep(1.0)
    pair.there.heal_network()
    pair.there.run(["ss", "--kill", "--tcp", "sport = 22"])
    wait_for(lambda: reason(pair.here, "count") != libvirt.VIR_DOMAIN_PAUSED_POSTCOPY, what="libvirt to see it")

    ends_in_postcopy(pair, moving, guest)


def test_a_job_whose_post_copy_was_cut_off_for_good_says_so_and_starts_it_on_no_host(
    pair: Pair, guests: SavedGuests, monkeypatch: pytest.MonkeyPatch
):
    """Its QEMU at the target may wait for a page of the guest, and take no word from libvirt until it comes."""
    guest = guests.start(pair.here)
    for name in ("_HANGS_S", "_STILL_S", "_JOIN_S"):
        monkeypatch.setattr(f"vm.move_live_steps.{name}", 1.0)
    moving = in_postcopy(pair)

    pair.there.cut_network()
    for host, port in ((pair.here, "dport"), (pair.there, "sport")):
        host.run(["ss", "--kill", "--tcp", f"{port} >= 49152"])
    job = moving.ended()

    assert job.state is JobState.FAILED and job.kept, job.error
    assert "its memory is in part on lab1, in part on lab2" in job.error
    refused = jobs.rollback(job.id, pair.source, pair.journal, patience=PATIENCE)
    assert refused.state is not JobState.ROLLED_BACK
    assert states(pair, "count") == ("paused", "running")
    assert lab_guest.disk_checksum(pair.here, guest.disk.path) == guest.disk.checksum
    for pid in (*pair.here.qemu_pids(), *pair.there.qemu_pids()):
        os.kill(pid, signal.SIGKILL)
    for host in (pair.here, pair.there):
        host.kill_libvirtd()  # it would wait for that migration for ever


def test_post_copy_ends_without_the_daemons_that_began_it(pair: Pair, guests: SavedGuests):
    guest = guests.start(pair.here)
    moving = in_postcopy(pair, 8 * SLOW)

    pair.there.kill_libvirtd()
    pair.here.restart_libvirtd()

    ends_in_postcopy(pair, moving, guest)


CD = "<disk type='file' device='cdrom'><source file='{}'/><target dev='hda' bus='ide'/><readonly/></disk>"


def test_a_cd_that_the_target_has_not_is_ejected_when_asked_and_is_back_after_a_cancel(pair: Pair):
    iso = "/var/lib/libvirt/images/a.iso"
    pair.here.run(["truncate", "-s", "1M", iso])
    pair.here.connect().storagePoolLookupByName("default").refresh()
    disk = lab_guest.make_disk(pair.here, "count")
    domain = lab_guest.start(pair.here, lab_guest.definition("count", disk=disk.path, more=CD.format(iso)))
    before = lab_guest.counted(domain)

    blocked = pair.plan("count", MoveKind.LIVE)
    assert [blocker.reason.startswith("a CD is in its drive hda") for blocker in blocked.blockers] == [True]
    moving = pair.begin(pair.plan("count", eject=True, bandwidth_bytes_s=SLOW))
    jobs.cancel(moving.id, pair.journal)
    assert moving.ended().state is JobState.CANCELLED
    assert iso in domain.XMLDesc() and iso in domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE)

    job = pair.run(pair.plan("count", eject=True))

    assert job.state is JobState.DONE, job.error
    assert states(pair, "count") == ("gone", "running")
    moved = pair.there.connect().lookupByName("count")
    assert iso not in moved.XMLDesc() and iso not in moved.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE)
    assert figures(job)["boot_id"] == before.boot_id


def test_a_move_of_no_kind_but_the_wanted_one_is_planned(pair: Pair, guests: SavedGuests):
    guests.start(pair.here, pool="default")

    plan = pair.plan("count", MoveKind.LIVE)

    assert [blocker.reason for blocker in plan.blockers] == [
        "lab2 does not see its disk vda (/var/lib/libvirt/images/count.qcow2)"
    ]
    assert "live-storage" in plan.blockers[0].remedy


UEFI = ("<os firmware='efi'>", "machine='q35'")


def test_firmware_variables_and_the_tpm_go_along_and_leave_nothing(pair: Pair):
    tpm = "<tpm model='tpm-crb'><backend type='emulator' version='2.0'/></tpm>"
    disk = lab_guest.make_disk(pair.here, "count")
    xml = lab_guest.definition("count", disk=disk.path, more=tpm)
    domain = pair.here.connect().defineXML(xml.replace("<os>", UEFI[0]).replace("machine='pc'", UEFI[1]))
    domain.create()

    job = pair.run(pair.plan("count"))

    assert job.state is JobState.DONE, job.error
    assert states(pair, "count") == ("gone", "running")
    for host, left in ((pair.here, []), (pair.there, ["count_VARS.fd", domain.UUIDString()])):
        files = host.run(["ls", "/var/lib/libvirt/qemu/nvram/", "/var/lib/libvirt/swtpm/"]).stdout.split()
        assert [name for name in files if not name.endswith(":")] == left
