"""VMs with known contents, for tests of export and import, and jobs that die at a given place."""

from __future__ import annotations

import contextlib
import hashlib
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from host import jobs
from host.connection import Host
from host.errors import HvtuiError
from host.job_model import Job, JobState
from host.journal import Journal
from host.plan import Plan
from host.units import MIB
from tests.support.private_libvirtd import PrivateLibvirtd
from tests.support.running import done, vm_named
from vm.create import plan_create
from vm.create_request import CreateRequest, Firmware, SourceKind
from vm.delete import plan_delete
from vm.host_files import PREFIX

DEADLY = Path(__file__).parent / "killing"
NAME = "boxed"
DISK_BYTES = 64 * MIB
# Writes BOOTS to the first serial line for ever: what a BIOS starts from a disk's first sector.
BOOTS = b"HVTUI-BOOTS"
_BOOT_CODE = bytes.fromhex("31c08ed8be157cbaf803ac84c074f1eeebf8f4ebfd") + BOOTS + b"\r\n\0"
_WHOLE = CreateRequest(
    NAME,
    source=SourceKind.EMPTY,
    disk_bytes=DISK_BYTES,
    firmware=Firmware.UEFI,
    tpm=True,
    memory_bytes=64 * MIB,
    vcpus=1,
    network="none",
)


def bootable(path: Path, *, noise_bytes: int = 4 * MIB) -> Path:
    """A raw disk of DISK_BYTES that a BIOS boots, with some noise in it and holes."""
    partition = bytes.fromhex("80010100830fffff00080000") + (100_000).to_bytes(4, "little")
    with path.open("wb") as file:
        file.write(_BOOT_CODE.ljust(446, b"\0") + partition.ljust(64, b"\0") + b"\x55\xaa")
        file.seek(16 * MIB)
        file.write(os.urandom(noise_bytes))
        file.truncate(DISK_BYTES)
    return path


def image(raw: Path, path: Path, image_format: str) -> Path:
    """The disk in another format."""
    subprocess.run(["qemu-img", "convert", "-f", "raw", "-O", image_format, "--", raw, path], check=True)
    return path


def same_disk(first: Path, second: Path) -> bool:
    """True when a guest would see the same on both."""
    return subprocess.run(["qemu-img", "compare", "-q", "--", first, second], check=False).returncode == 0


def whole_vm(host: Host, daemon: PrivateLibvirtd, contents: Path) -> Path:
    """The VM `boxed`: a disk with `contents`, UEFI variables, a TPM that has been used. Returns the disk's path."""
    done(plan_create(host, _WHOLE), host)
    with host.calls("turn off", NAME) as connection:
        connection.lookupByName(NAME).destroy()
    (disk,) = daemon.images.glob(f"{NAME}-*.qcow2")
    image(contents, disk, "qcow2")
    return disk


def plain_vm(host: Host, path: str, image_format: str, *, name: str = NAME, extra: str = "") -> None:
    """A VM that is off, with that disk and nothing else."""
    xml = f"""<domain type='qemu'><name>{name}</name><memory unit='MiB'>64</memory><vcpu>1</vcpu>
      <os><type arch='x86_64' machine='q35'>hvm</type></os><features><acpi/></features>
      <devices><disk type='file' device='disk'><driver name='qemu' type='{image_format}'/><source file='{path}'/>
      <target dev='vda' bus='virtio'/></disk>{extra}</devices></domain>"""
    with host.calls("define", name) as connection:
        connection.defineXML(xml)


def state_files(daemon: PrivateLibvirtd) -> dict[str, str]:
    """The hashes of firmware variables and TPM states on the private libvirtd, by their paths."""
    lib = daemon.directory / "lib"
    paths = [*(lib / "qemu/nvram").glob("*"), *(each for each in (lib / "swtpm").rglob("*.permall"))]
    return {str(path.relative_to(lib)): hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


def traces(daemon: PrivateLibvirtd, host: Host) -> set[str]:
    """Everything that an export or an import can leave on a host: files, directories of TPMs, definitions, pools."""
    roots = [daemon.directory / name for name in ("images", "lib", "etc")]
    found = {str(path) for root in roots for path in root.rglob("*") if not path.is_dir() or "swtpm" in str(path)}
    with host.calls("look") as connection:
        found |= {f"vm {domain.name()}" for domain in connection.listAllDomains()}
        found |= {f"pool {pool.name()}" for pool in connection.listAllStoragePools()}
    return {each for each in found if not each.endswith(("/.lock", "/lib/swtpm")) and "/qemu/capabilities" not in each}


def killed(plan: Plan, host: Host, journal: Journal, place: str) -> Job | None:
    """The job of a plan whose process died at "VERB:CALL"; None when it was done before it came there."""
    with pytest.MonkeyPatch.context() as patch, contextlib.suppress(HvtuiError):  # dead before it was seen to begin
        patch.setenv("PYTHONPATH", str(DEADLY))
        patch.setenv("HVTUI_TEST_KILL_AT", place)
        jobs.start_detached(plan, host, journal)
    until_s = time.monotonic() + 60
    while not _is_over(journal):
        assert time.monotonic() < until_s, "the killed job was not noticed"
        time.sleep(0.05)
    job = journal.jobs(limit=1)[0]
    if job.state is JobState.DONE:
        return None
    assert job.state is JobState.INTERRUPTED, job.error
    return job


def _is_over(journal: Journal) -> bool:
    journal.recover()
    return journal.jobs(limit=1)[0].state.is_over


def delete(host: Host, name: str = NAME) -> None:
    done(plan_delete(host, vm_named(host, name), all_disks=True), host)


def disk_of(daemon: PrivateLibvirtd, name: str = NAME) -> Path:
    (path,) = daemon.images.glob(f"{name}-*-vda.qcow2")
    return path


def linked(daemon: PrivateLibvirtd, host: Host, contents: Path) -> Path:
    """An overlay on an image with those contents."""
    base = image(contents, daemon.images / "base.qcow2", "qcow2")
    overlay = daemon.images / "overlay.qcow2"
    command = ["qemu-img", "create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", str(base), "--", str(overlay)]
    subprocess.run(command, check=True)
    with host.calls("refresh") as connection:
        connection.storagePoolLookupByName("default").refresh()
    return overlay


def pools_of_hvtui(host: Host) -> list[str]:
    with host.calls("look") as connection:
        return [pool.name() for pool in connection.listAllStoragePools() if pool.name().startswith(PREFIX)]


@contextlib.contextmanager
def small_disk(path: Path, size_bytes: int) -> Iterator[Path]:
    """A file system of that size at `path` while the context lasts."""
    path.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size_bytes}", "tmpfs", str(path)], check=True)
    try:
        yield path
    finally:
        subprocess.run(["umount", "-l", str(path)], check=True)
