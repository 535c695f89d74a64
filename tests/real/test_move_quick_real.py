"""Quick moves between two real libvirtds: shared and copied disks, the standstill, cancel, kills, lost hosts."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import libvirt
import pytest

from host import jobs
from host.connection import Host
from host.job_model import JobState
from host.journal import Journal
from tests.real.conftest import BOOTED, SavedGuest, wait_for
from tests.support import guest
from tests.support.moves import disks_of, draft, files, plan, qemu_img
from tests.support.private_libvirtd import PrivateLibvirtd
from vm import steps
from vm.move_model import MoveDisk, MoveDraft, MoveKind, MoveOptions, MoveRequest
from vm.move_quick import quick_steps

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


def moves_of(host: Host) -> set[str]:
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
        guest.run(booted, "head -c 2M /dev/urandom > /dev/vda; sync")
        booted.connect().storagePoolLookupByName("default").refresh()
    return real_host, second_host


def checksum(host: Host) -> str:
    """Of what the guest reads of its disk."""
    with host.calls("look") as connection:
        return guest.run(connection.lookupByName(BOOTED), "sha256sum /dev/vda; sync; echo 3 > /proc/sys/vm/drop_caches")


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
    assert 0 < float(str(restored.result["stood_still_s"])) < 60
    assert moves_of(source) == moves_of(target) == {"default"}
