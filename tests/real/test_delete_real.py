"""Deletions against a real libvirtd with real images: what must stay, stays, and everything that goes is gone."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import libvirt
import pytest

from host import jobs
from host.connection import Host
from host.errors import Blocked, Conflict, NotFound
from host.job_model import JobState
from tests.real.conftest import wait_for
from tests.support.private_libvirtd import PrivateLibvirtd
from tests.support.running import do, done, submit, vm_named
from vm import inventory, lifecycle
from vm.delete import DiskUse, disk_uses, plan_delete

UEFI = "<os firmware='efi'><type arch='x86_64' machine='q35'>hvm</type></os>"
BIOS = "<os><type arch='x86_64' machine='q35'>hvm</type></os>"
TPM = "<tpm model='tpm-crb'><backend type='emulator' version='2.0'/></tpm>"


def image(path: Path, *, backing: Path | None = None, size: str = "4M") -> Path:
    base = ["-b", str(backing), "-F", "qcow2"] if backing else []
    command = ["qemu-img", "create", "-q", "-f", "qcow2", *base, "--", str(path), *([] if backing else [size])]
    subprocess.run(command, check=True)
    return path


def disk(path: Path, target: str = "vda", more: str = "") -> str:
    return (
        f"<disk type='file' device='disk'><driver name='qemu' type='qcow2'/><source file='{path}'/>"
        f"<target dev='{target}' bus='virtio'/>{more}</disk>"
    )


def define(host: Host, name: str, devices: str = "", *, firmware: str = BIOS) -> libvirt.virDomain:
    """A VM with 32 MiB, no operating system and those devices."""
    xml = (
        f"<domain type='qemu'><name>{name}</name><memory unit='MiB'>32</memory>{firmware}"
        f"<features><acpi/></features><devices>{devices}</devices></domain>"
    )
    with host.calls("define") as connection:
        return connection.defineXML(xml)


def uses(host: Host, name: str) -> dict[str, DiskUse]:
    return {use.target: use for use in disk_uses(host, inventory.find(host, name))}


@pytest.fixture
def images(private_daemon: PrivateLibvirtd) -> Path:
    return private_daemon.images


def test_a_disk_that_nothing_else_uses_goes_with_its_vm(real_host: Host, images: Path) -> None:
    path = image(images / "own.qcow2")
    define(real_host, "own", disk(path))
    use = uses(real_host, "own")["vda"]
    assert (use.removable, use.pool) == (True, "default"), use.keep_reason
    plan = plan_delete(real_host, inventory.find(real_host, "own"), remove_disks=["vda"])
    assert "used by nothing else" in plan.losses[-1]
    done(plan, real_host)
    assert not path.exists()
    with pytest.raises(NotFound):
        inventory.find(real_host, "own")


def test_a_disk_that_is_not_asked_for_stays(real_host: Host, images: Path) -> None:
    path = image(images / "kept.qcow2")
    define(real_host, "kept", disk(path))
    job = done(plan_delete(real_host, inventory.find(real_host, "kept")), real_host)
    assert path.exists()
    done(jobs.plan_undo(job, real_host), real_host)
    assert uses(real_host, "kept")["vda"].path == str(path)


def same(images: Path, path: Path) -> Path:
    return path


def symbolic_link(images: Path, path: Path) -> Path:
    link = images / "link.qcow2"
    link.symlink_to(path)
    return link


def hard_link(images: Path, path: Path) -> Path:
    link = images / "hard.qcow2"
    os.link(path, link)
    return link


@pytest.mark.parametrize("way", [same, symbolic_link, hard_link])
def test_a_shared_disk_stays_whatever_name_the_other_vm_uses(
    real_host: Host, images: Path, way: Callable[[Path, Path], Path]
) -> None:
    path = image(images / "common.qcow2")
    define(real_host, "left", disk(path))
    define(real_host, "right", disk(way(images, path)))
    assert uses(real_host, "left")["vda"].used_by == ("right",)
    plan = plan_delete(real_host, inventory.find(real_host, "left"), remove_disks=["vda"])
    with pytest.raises(Blocked, match="right uses it too"):
        plan.raise_if_blocked()
    with pytest.raises(Conflict, match="right uses it too"):  # the step itself refuses as well
        do(real_host, plan.steps[-1])
    assert path.exists()


@pytest.mark.parametrize("way", [symbolic_link, hard_link])
def test_a_disk_with_another_name_stays(real_host: Host, images: Path, way: Callable[[Path, Path], Path]) -> None:
    define(real_host, "linked", disk(way(images, image(images / "real.qcow2"))))
    assert "another name" in uses(real_host, "linked")["vda"].keep_reason


def test_a_backing_file_stays_and_its_overlay_goes(real_host: Host, images: Path) -> None:
    base = image(images / "base.qcow2")
    middle = image(images / "middle.qcow2", backing=base)
    top = image(images / "top.qcow2", backing=middle)
    define(real_host, "golden", disk(base))
    define(real_host, "clone", disk(top))
    assert set(uses(real_host, "golden")["vda"].built_on_by) == {str(middle), str(top)}
    plan = plan_delete(real_host, inventory.find(real_host, "golden"), remove_disks=["vda"])
    with pytest.raises(Blocked, match="build on it"):
        plan.raise_if_blocked()
    done(plan_delete(real_host, inventory.find(real_host, "clone"), remove_disks=["vda"]), real_host)
    assert (base.exists(), middle.exists(), top.exists()) == (True, True, False)


def test_an_overlay_outside_of_every_pool_is_seen(real_host: Host, images: Path, tmp_path: Path) -> None:
    base = image(images / "base.qcow2")
    overlay = image(tmp_path / "overlay.qcow2", backing=base)
    define(real_host, "golden", disk(base))
    define(real_host, "clone", disk(overlay))
    assert uses(real_host, "golden")["vda"].built_on_by == (str(overlay),)
    assert "no active storage pool" in uses(real_host, "clone")["vda"].keep_reason


def test_an_image_that_cannot_be_read_keeps_every_disk(real_host: Host, images: Path, tmp_path: Path) -> None:
    define(real_host, "golden", disk(image(images / "base.qcow2")))
    damaged = tmp_path / "damaged.qcow2"
    damaged.write_bytes(b"QFI\xfb\0\0\0\3" + b"\xff" * 200)
    define(real_host, "odd", disk(damaged))
    assert "cannot be looked at" in uses(real_host, "golden")["vda"].keep_reason


def test_an_overlay_made_after_the_plan_keeps_the_disk_and_the_vm(real_host: Host, images: Path) -> None:
    base = image(images / "base.qcow2")
    define(real_host, "golden", disk(base))
    plan = plan_delete(real_host, inventory.find(real_host, "golden"), remove_disks=["vda"])
    assert not plan.blockers
    image(images / "late.qcow2", backing=base)
    job = submit(plan, real_host)
    assert job.state is JobState.FAILED
    assert "late.qcow2 builds on it" in job.error
    assert base.exists()
    assert inventory.find(real_host, "golden")


def test_special_disks_stay(real_host: Host, images: Path) -> None:
    shared = disk(image(images / "shared.qcow2"), "vda", "<shareable/>").replace("type='qcow2'", "type='raw'")
    reading = disk(image(images / "read.qcow2"), "vdb", "<readonly/>")
    block = "<disk type='block' device='disk'><source dev='/dev/loop0'/><target dev='vdc'/></disk>"
    iso = images / "x.iso"
    iso.write_bytes(b"\0" * 32769 + b"CD001" + b"\0" * 4096)
    as_disk = f"<disk type='file'><source file='{iso}'/><target dev='vdd'/></disk>"
    cd = f"<disk type='file' device='cdrom'><source file='{iso}'/><target dev='sda' bus='sata'/></disk>"
    define(real_host, "odd", shared + reading + block + as_disk + cd)
    reasons = {target: use.keep_reason for target, use in uses(real_host, "odd").items()}
    assert all(reasons.values()), reasons
    assert "ISO" in reasons["vdd"]


def test_uefi_variables_and_tpm_state_are_named_and_go(real_host: Host, private_daemon: PrivateLibvirtd) -> None:
    domain = define(real_host, "uefi", TPM, firmware=UEFI)
    uuid = domain.UUIDString()
    done(lifecycle.plan_start(real_host, inventory.find(real_host, "uefi")), real_host)
    lib = private_daemon.directory / "lib"
    wait_for(lambda: list(lib.rglob("uefi_VARS.fd")), "the UEFI variables")
    done(lifecycle.plan_off(real_host, inventory.find(real_host, "uefi")), real_host)
    assert [path for path in lib.rglob("*") if uuid in str(path)], "the TPM has state"
    plan = plan_delete(real_host, inventory.find(real_host, "uefi"))
    assert any("UEFI variables" in loss for loss in plan.losses)
    assert any("TPM" in loss for loss in plan.losses)
    assert "--nvram --tpm" in plan.steps[-1].commands[0]
    job = done(plan, real_host)
    assert not list(lib.rglob("uefi_VARS.fd"))
    assert not [path for path in lib.rglob("*") if uuid in str(path)]
    assert "UEFI" in jobs.plan_undo(job, real_host).blockers[0].reason


def test_saved_state_checkpoints_and_backup_marks_are_named_and_go(real_host: Host, images: Path) -> None:
    domain = define(real_host, "past", disk(image(images / "past.qcow2")))
    domain.snapshotCreateXML("<domainsnapshot><name>before</name></domainsnapshot>")
    plan = plan_delete(real_host, inventory.find(real_host, "past"))
    assert any("1 checkpoint (before)" in loss for loss in plan.losses)
    for snapshot in domain.listAllSnapshots():
        snapshot.delete()
    domain.create()
    domain.checkpointCreateXML("<domaincheckpoint><name>mark</name></domaincheckpoint>")
    domain.managedSave()
    plan = plan_delete(real_host, inventory.find(real_host, "past"))
    assert any("1 backup mark (mark)" in loss for loss in plan.losses)
    assert any("saved state" in loss for loss in plan.losses)
    done(plan, real_host)
    with pytest.raises(NotFound):
        inventory.find(real_host, "past")


def test_a_running_vm_is_turned_off_first_when_that_was_asked_for(real_host: Host, images: Path) -> None:
    path = image(images / "busy.qcow2")
    define(real_host, "busy", disk(path)).create()
    vm = vm_named(real_host, "busy")
    assert plan_delete(real_host, vm).blockers
    done(plan_delete(real_host, vm, off=True, remove_disks=["vda"]), real_host)
    assert not path.exists()
