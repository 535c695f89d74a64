"""Quick moves between two real libvirtds: shared and copied disks, the standstill, cancel, kills, lost hosts."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import libvirt
import pytest

from host import job_engine, jobs
from host.connection import Host
from host.job_model import Job, JobState
from host.journal import Journal
from host.steps import Args, Result, StepContext
from tests.real.conftest import BOOTED, SavedGuest, wait_for
from tests.support import guest
from tests.support.moves import disks_of, draft, files, plan, qemu_img
from tests.support.private_libvirtd import PrivateLibvirtd
from vm import move_quick_steps, steps
from vm.move_disk_steps import copy_images
from vm.move_model import MoveDisk, MoveDraft, MoveKind, MoveOptions, MoveRequest
from vm.move_quick import instead_steps, quick_steps

assert steps  # registers the verbs
DEADLY = Path(__file__).parents[1] / "support/killing"


def the_disks(host: Host, target: PrivateLibvirtd, *, shared: bool) -> tuple[MoveDisk, ...]:
    return tuple(
        MoveDisk(
            name,
            "disk",
            path,
            "qcow2",
            64 << 20,
            is_shared=shared,
            target_pool="default",
            target_pool_path=str(target.images),
        )
        for name, path in disks_of(host, BOOTED).items()
    )


def drafted(
    source: Host, target: Host, here: PrivateLibvirtd, there: PrivateLibvirtd, *, shared: bool, **options: Any
) -> MoveDraft:
    """A quick move with all disks shared (each private libvirtd sees the other's images), or none."""
    request = MoveRequest(MoveKind.QUICK, options=MoveOptions(**options))
    made = draft(source, target, BOOTED, MoveKind.QUICK, *the_disks(source, there, shared=shared), request=request)
    return replace(made, shared=(str(here.images),) if shared else ())


def state(host: Host) -> str:
    with host.calls("look") as connection:
        try:
            domain = connection.lookupByName(BOOTED)
        except libvirt.libvirtError:
            return "gone"
        return {libvirt.VIR_DOMAIN_RUNNING: "running", libvirt.VIR_DOMAIN_SHUTOFF: "off"}.get(
            domain.state()[0], "other"
        )


def pools_of(host: Host) -> set[str]:
    with host.calls("look") as connection:
        return {pool.name() for pool in connection.listAllStoragePools()}


def boot_id(host: Host) -> str:
    with host.calls("look") as connection:
        domain = connection.lookupByName(BOOTED)
        wait_for(lambda: guest.answers(domain), "the guest's agent")
        return guest.boot_id(domain)


DISK = """<disk type='file' device='disk'><driver name='qemu' type='qcow2' cache='none'/><source file='{path}'/>
<target dev='vda' bus='virtio'/></disk>"""


@pytest.fixture
def both(
    real_host: Host, second_host: Host, booted: libvirt.virDomain, private_daemon: PrivateLibvirtd
) -> tuple[Host, Host]:
    """The two hosts; on the first a guest runs that has written to its disk."""
    path = private_daemon.images / "booted.qcow2"
    if not disks_of(real_host, BOOTED):
        qemu_img("create", "-q", "-f", "qcow2", path, "64M")
        flags = libvirt.VIR_DOMAIN_AFFECT_LIVE | libvirt.VIR_DOMAIN_AFFECT_CONFIG
        booted.attachDeviceFlags(DISK.format(path=path), flags)
        wait_for(lambda: "vda" in guest.run(booted, "ls /dev"), "the disk in the guest")
        guest.run(booted, "head -c 1M /dev/urandom > /dev/vda; sync")
        booted.connect().storagePoolLookupByName("default").refresh()
    return real_host, second_host


def checksum(host: Host) -> str:
    """Of what the guest reads of its disk."""
    with host.calls("look") as connection:
        return guest.run(
            connection.lookupByName(BOOTED), "sync; echo 3 > /proc/sys/vm/drop_caches; head -c 1M /dev/vda | md5sum"
        )


@pytest.mark.parametrize("shared", [True, False])
def test_a_quick_move_brings_the_running_guest_to_the_other_host(
    both: tuple[Host, Host], private_daemon: PrivateLibvirtd, second_daemon: PrivateLibvirtd, journal: Journal,
    saved_guest: SavedGuest, shared: bool,
) -> None:  # fmt: skip
    source, target = both
    with source.calls("set") as connection:
        connection.lookupByName(BOOTED).setAutostart(1)
    before, disks_before, sum_before = boot_id(source), disks_of(source, BOOTED), checksum(source)
    here_before = files(private_daemon.images)
    made = drafted(source, target, private_daemon, second_daemon, shared=shared)
    job = jobs.submit(plan(made, quick_steps(made)), source, journal)
    assert job.state is JobState.DONE, job.error
    assert (state(source), state(target)) == ("gone", "running")
    assert boot_id(target) == before
    assert checksum(target) == sum_before
    with target.calls("look") as connection:
        domain = connection.lookupByName(BOOTED)
        assert domain.isPersistent()
        assert domain.autostart()
        assert made.mark not in domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE).replace(f"moved-{made.mark}", "")
    after = disks_of(target, BOOTED, live=True)
    assert after == disks_of(target, BOOTED)
    if shared:
        assert after == disks_before
        assert files(private_daemon.images) == here_before
    else:
        assert all(path.startswith(str(second_daemon.images)) for path in after.values())
        assert files(private_daemon.images) == {name for name in here_before if not name.endswith(".qcow2")}
    assert not [name for name in files(second_daemon.images) if ".save" in name]
    (restored,) = [step for step in job.steps if step.title.startswith("Restore")]
    assert restored.result is not None
    assert 0 < float(str(restored.result["downtime_s"])) < 60
    assert pools_of(source) == pools_of(target) == {"default"}


# Killed, cancelled, lost


def deadly(kind: str, place: str) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(DEADLY), f"HVTUI_TEST_KILL_{kind}": place}


def run_until_killed(source: Host, journal: Journal, made: MoveDraft, kind: str, place: str) -> Job:
    """The job in a process that kills itself there."""
    job = jobs.create(plan(made, quick_steps(made)), journal)
    command = [sys.executable, "-m", "hvtui", "--headless", "job", "run", str(job.id)]
    done = subprocess.run(command, env=deadly(kind, place), capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == -9, done.stdout + done.stderr
    journal.recover()
    found = journal.job(job.id)
    assert found.state is JobState.INTERRUPTED, found.state
    return found


PLACES = [
    ("AFTER", "move.define"),
    ("AT", "move.save:3"),
    ("AT", "move.save:12"),
    ("AFTER", "move.save"),
    ("AT", "move.carry:6"),
    ("AFTER", "move.carry"),
]
AT_HAND_OVER = [
    ("AT", "move.restore:0"),
    ("AFTER", "move.restore"),
    ("AFTER", "move.drop-save"),
    ("AFTER", "move.finish"),
]


@pytest.mark.parametrize(("kind", "place"), PLACES)
def test_killed_before_the_hand_over_it_is_rolled_back_to_the_source(
    both: tuple[Host, Host], private_daemon: PrivateLibvirtd, second_daemon: PrivateLibvirtd, journal: Journal,
    kind: str, place: str,
) -> None:  # fmt: skip
    source, target = both
    before, sum_before, here_before = boot_id(source), checksum(source), files(private_daemon.images)
    made = drafted(source, target, private_daemon, second_daemon, shared=False)
    job = run_until_killed(source, journal, made, kind, place)
    done = jobs.rollback(job.id, source, journal)
    assert done.state is JobState.ROLLED_BACK, done.error
    assert (state(source), state(target)) == ("running", "gone")
    assert (boot_id(source), checksum(source)) == (before, sum_before)
    assert files(private_daemon.images) == here_before
    assert files(second_daemon.images) == set()
    assert pools_of(source) == pools_of(target) == {"default"}


@pytest.mark.parametrize(("kind", "place"), [*PLACES, *AT_HAND_OVER])
def test_killed_anywhere_it_is_completed_by_a_restart(
    both: tuple[Host, Host], private_daemon: PrivateLibvirtd, second_daemon: PrivateLibvirtd, journal: Journal,
    kind: str, place: str,
) -> None:  # fmt: skip
    source, target = both
    before, sum_before = boot_id(source), checksum(source)
    made = drafted(source, target, private_daemon, second_daemon, shared=False)
    job = run_until_killed(source, journal, made, kind, place)
    done = jobs.restart(job.id, source, journal)
    assert done.state is JobState.DONE, done.error
    assert (state(source), state(target)) == ("gone", "running")
    assert (boot_id(target), checksum(target)) == (before, sum_before)
    assert not [name for name in files(private_daemon.images) if "qcow2" in name or ".save" in name]
    assert not [name for name in files(second_daemon.images) if ".save" in name]
    assert pools_of(source) == pools_of(target) == {"default"}


def test_after_the_hand_over_nothing_is_rolled_back(
    both: tuple[Host, Host], private_daemon: PrivateLibvirtd, second_daemon: PrivateLibvirtd, journal: Journal
) -> None:
    source, target = both
    before = boot_id(source)
    made = drafted(source, target, private_daemon, second_daemon, shared=False)
    job = run_until_killed(source, journal, made, "AFTER", "move.restore")
    stopped = jobs.rollback(job.id, source, journal)
    assert stopped.state is JobState.INTERRUPTED
    assert "must not run twice" in stopped.error
    assert "Restart the job" in stopped.remedy
    assert (state(source), state(target)) == ("off", "running")
    assert jobs.restart(job.id, source, journal).state is JobState.DONE
    assert (state(source), boot_id(target)) == ("gone", before)


def test_a_target_that_cannot_be_asked_after_the_hand_over_keeps_the_source_off(
    both: tuple[Host, Host], private_daemon: PrivateLibvirtd, second_daemon: PrivateLibvirtd, journal: Journal,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    source, target = both
    before = boot_id(source)
    made = drafted(source, target, private_daemon, second_daemon, shared=False)
    job = run_until_killed(source, journal, made, "AFTER", "move.restore")
    second_daemon.kill()
    for call in (jobs.rollback, jobs.restart):
        stopped = call(job.id, source, journal, patience=replace(job_engine.PATIENCE, reconnect_s=1.0))
        assert stopped.state is JobState.INTERRUPTED
        assert "second" in stopped.error
        assert state(source) == "off"
    second_daemon.start()
    done = jobs.restart(job.id, source, journal)
    assert done.state is JobState.DONE, done.error
    assert (state(source), boot_id(target)) == ("gone", before)


def test_a_target_that_dies_while_the_memory_is_carried_gives_the_guest_back(
    both: tuple[Host, Host], private_daemon: PrivateLibvirtd, second_daemon: PrivateLibvirtd, journal: Journal,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    source, _target = both
    before = boot_id(source)
    made = drafted(source, both[1], private_daemon, second_daemon, shared=False)
    monkeypatch.setattr(move_quick_steps, "_TARGET_BACK_S", 1.0)

    def die(ctx: StepContext, args: Args) -> Result:
        second_daemon.kill()
        return copy_images(ctx, args)

    monkeypatch.setattr("vm.move_quick_steps.copy_images", die)
    job = jobs.submit(plan(made, quick_steps(made)), source, journal)
    assert job.state is JobState.INTERRUPTED
    assert "does not answer any more" in job.error
    assert (state(source), boot_id(source)) == ("running", before)
    second_daemon.start()
    assert jobs.rollback(job.id, source, journal).state is JobState.ROLLED_BACK
    assert files(second_daemon.images) == set()
    assert (state(source), state(both[1])) == ("running", "gone")


def test_a_quick_move_that_is_cancelled_leaves_the_guest_running_where_it_was(
    both: tuple[Host, Host], private_daemon: PrivateLibvirtd, second_daemon: PrivateLibvirtd, journal: Journal
) -> None:
    source, target = both
    before, here_before = boot_id(source), files(private_daemon.images)
    made = drafted(source, target, private_daemon, second_daemon, shared=False)

    def cancel(job: Job) -> None:
        if any(step.state.value == "running" and step.title.startswith("Save") for step in job.steps):
            jobs.cancel(job.id, journal)

    job = jobs.submit(plan(made, quick_steps(made)), source, journal, cancel)
    assert job.state is JobState.CANCELLED, job.error
    assert (state(source), state(target), boot_id(source)) == ("running", "gone", before)
    assert files(private_daemon.images) == here_before
    assert files(second_daemon.images) == set()


def test_a_restore_that_fails_brings_the_guest_back(
    both: tuple[Host, Host], private_daemon: PrivateLibvirtd, second_daemon: PrivateLibvirtd, journal: Journal
) -> None:
    source, target = both
    before = boot_id(source)
    # Each private libvirtd has a directory /var/lib/libvirt of its own: the other one does not find this disk.
    qemu_img("create", "-q", "-f", "qcow2", private_daemon.directory / "lib/images/only-here.qcow2", "8M")
    with source.calls("attach") as connection:
        disk = DISK.format(path="/var/lib/libvirt/images/only-here.qcow2").replace("vda", "vdb")
        connection.lookupByName(BOOTED).attachDevice(disk)
    made = drafted(source, target, private_daemon, second_daemon, shared=True)
    job = jobs.submit(plan(made, quick_steps(made)), source, journal)
    assert job.state is JobState.FAILED, job.error
    assert "only-here" in job.error
    assert (state(source), state(target), boot_id(source)) == ("running", "gone", before)
    assert not [name for name in files(private_daemon.images) if ".save" in name]


def test_a_guest_that_is_at_the_target_already_is_left_alone_by_what_a_live_move_adds(
    both: tuple[Host, Host], private_daemon: PrivateLibvirtd, second_daemon: PrivateLibvirtd, journal: Journal
) -> None:
    source, target = both
    made = drafted(source, target, private_daemon, second_daemon, shared=True)
    job = jobs.submit(plan(made, quick_steps(made)), source, journal)
    assert job.state is JobState.DONE, job.error
    before = boot_id(target)
    again = jobs.submit(plan(made, instead_steps(made)), source, journal)
    assert again.state is JobState.DONE, again.error
    assert (state(source), state(target), boot_id(target)) == ("gone", "running", before)
