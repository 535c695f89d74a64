"""VMs exported and imported on a real libvirtd: with the same contents, firmware variables and TPM; and what can go
wrong on the way, which leaves nothing behind."""

from __future__ import annotations

import contextlib
import json
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import libvirt
import pytest

from host import pool_room
from host.connection import Host, open_host
from host.job_model import JobState
from host.journal import Journal
from host.units import MIB
from tests.real.conftest import wait_for
from tests.support import bundles, guest
from tests.support.bundles import (
    NAME,
    delete,
    disk_of,
    linked,
    plain_vm,
    pools_of_hvtui,
    same_disk,
    small_disk,
    state_files,
    traces,
    whole_vm,
)
from tests.support.private_libvirtd import PrivateLibvirtd
from tests.support.running import done, submit, vm_named
from vm import bundle
from vm.create import plan_create, tiny_request
from vm.delete import plan_delete
from vm.export import plan_export
from vm.import_bundle import ImportRequest, compare, plan_import
from vm.import_report import FindingKind
from vm.tiny import TinyGuest


@pytest.fixture
def contents(tmp_path: Path) -> Path:
    return bundles.bootable(tmp_path / "contents.raw")


@pytest.fixture
def exported(real_host: Host, private_daemon: PrivateLibvirtd, contents: Path, tmp_path: Path) -> Path:
    """The bundle of a whole VM, which is deleted."""
    whole_vm(real_host, private_daemon, contents)
    done(plan_export(real_host, vm_named(real_host, NAME), tmp_path / "bundle"), real_host)
    delete(real_host)
    return tmp_path / "bundle"


# There and back


def test_a_restored_vm_has_its_contents_its_identity_its_firmware_variables_and_its_tpm(
    real_host: Host, private_daemon: PrivateLibvirtd, contents: Path, tmp_path: Path
) -> None:
    whole_vm(real_host, private_daemon, contents)
    before, states = vm_named(real_host, NAME), set(state_files(private_daemon).values())
    assert len(states) == 2
    done(plan_export(real_host, before, tmp_path / "bundle"), real_host)
    assert set(state_files(private_daemon).values()) == states
    delete(real_host)
    done(plan_import(real_host, ImportRequest(tmp_path / "bundle", restore=True)), real_host)
    after = vm_named(real_host, NAME)
    assert after.uuid == before.uuid
    assert same_disk(disk_of(private_daemon), contents)
    assert set(state_files(private_daemon).values()) == states
    with real_host.calls("start") as connection:
        connection.lookupByName(NAME).create()
        assert connection.lookupByName(NAME).isActive()


def test_a_copy_has_its_contents_and_firmware_variables_and_a_new_identity_and_tpm(
    real_host: Host, private_daemon: PrivateLibvirtd, contents: Path, tmp_path: Path
) -> None:
    whole_vm(real_host, private_daemon, contents)
    states = state_files(private_daemon)
    original = vm_named(real_host, NAME)
    done(plan_export(real_host, original, tmp_path / "bundle"), real_host)
    done(plan_import(real_host, ImportRequest(tmp_path / "bundle", name="copy")), real_host)
    copy = vm_named(real_host, "copy")
    assert copy.uuid != original.uuid
    assert same_disk(disk_of(private_daemon, "copy"), contents)
    now = state_files(private_daemon)
    new = {path: digest for path, digest in now.items() if path not in states}
    assert [path.rpartition("-")[0] for path in new] == ["qemu/nvram/copy"]
    assert set(new.values()) <= set(states.values())
    with real_host.calls("start") as connection:
        connection.lookupByName("copy").create()
    assert len([path for path in state_files(private_daemon) if path.startswith("swtpm/")]) == 2


def test_a_tiny_guest_runs_again_after_its_kernel_was_deleted(
    real_host: Host, private_daemon: PrivateLibvirtd, tiny_guest: TinyGuest, tmp_path: Path
) -> None:
    request = replace(tiny_request("booted"), network="none", start=False, wait_ready=False)
    done(plan_create(real_host, request), real_host)
    done(plan_export(real_host, vm_named(real_host, "booted"), tmp_path / "bundle"), real_host)
    done(plan_delete(real_host, vm_named(real_host, "booted")), real_host)
    for path in private_daemon.images.glob("hvtui-tiny-*"):
        path.unlink()
    done(plan_import(real_host, ImportRequest(tmp_path / "bundle", start=True)), real_host)
    domain = real_host.connection().lookupByName("booted")
    wait_for(lambda: guest.answers(domain), "the imported guest's agent", timeout_s=120)


def test_the_bundle_is_for_its_owner_alone_and_holds_the_secrets_that_the_journal_does_not(
    real_host: Host, journal: Journal, private_daemon: PrivateLibvirtd, contents: Path, tmp_path: Path
) -> None:
    disk = bundles.image(contents, private_daemon.images / "secret.qcow2", "qcow2")
    plain_vm(real_host, str(disk), "qcow2", extra="<graphics type='vnc' passwd='hunter22'/>")
    done(plan_export(real_host, vm_named(real_host, NAME), tmp_path / "bundle"), real_host)
    assert stat.S_IMODE((tmp_path / "bundle").stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "bundle").iterdir()} == {0o600}
    assert "hunter22" in (tmp_path / "bundle/domain.xml").read_text()
    plan = plan_import(real_host, ImportRequest(tmp_path / "bundle", name="copy"))
    assert "hunter22" not in str(plan)
    done(plan, real_host)
    with real_host.calls("look") as connection:
        assert "hunter22" in connection.lookupByName("copy").XMLDesc(libvirt.VIR_DOMAIN_XML_SECURE)
    assert b"hunter22" not in journal.path.read_bytes()


def test_a_disk_that_builds_on_another_is_whole_in_the_bundle_and_its_host_as_before(
    real_host: Host, private_daemon: PrivateLibvirtd, contents: Path, tmp_path: Path
) -> None:
    overlay = linked(private_daemon, real_host, contents)
    plain_vm(real_host, str(overlay), "qcow2")
    before = traces(private_daemon, real_host)
    plan = plan_export(real_host, vm_named(real_host, NAME), tmp_path / "bundle")
    assert any("made whole first" in step.title for step in plan.steps)
    done(plan, real_host)
    found = bundle.read(tmp_path / "bundle")
    assert same_disk(found.path(found.of(bundle.Role.DISK)[0]), contents)
    assert traces(private_daemon, real_host) == before


def test_a_disk_outside_of_every_pool_is_exported_and_its_directory_left_as_it_was(
    real_host: Host, private_daemon: PrivateLibvirtd, contents: Path, tmp_path: Path
) -> None:
    place = tmp_path / "elsewhere"
    place.mkdir(mode=0o750)
    subprocess.run(["cp", "--sparse=always", "--", contents, place / "data.raw"], check=True)
    plain_vm(real_host, str(place / "data.raw"), "raw")
    done(plan_export(real_host, vm_named(real_host, NAME), tmp_path / "bundle"), real_host)
    assert (tmp_path / "bundle/vda.raw").read_bytes() == contents.read_bytes()
    assert (tmp_path / "bundle/vda.raw").stat().st_blocks * 512 < 16 * MIB  # its holes are holes
    assert stat.S_IMODE(place.stat().st_mode) == 0o750
    assert not pools_of_hvtui(real_host)


def test_a_directory_that_a_pool_has_is_reached_through_that_pool(
    real_host: Host, private_daemon: PrivateLibvirtd, contents: Path, tmp_path: Path
) -> None:
    whole_vm(real_host, private_daemon, contents)
    xml = "<pool type='dir'><name>nvram</name><target><path>/var/lib/libvirt/qemu/nvram</path></target></pool>"
    with real_host.calls("make a pool") as connection:
        pool = connection.storagePoolDefineXML(xml)
        pool.create()
    try:
        done(plan_export(real_host, vm_named(real_host, NAME), tmp_path / "bundle"), real_host)
        assert (tmp_path / "bundle/nvram.fd").is_file()
        with real_host.calls("look") as connection:
            assert connection.storagePoolLookupByName("nvram").isActive()
            connection.storagePoolLookupByName("nvram").destroy()
        job = submit(plan_export(real_host, vm_named(real_host, NAME), tmp_path / "other"), real_host)
        assert (job.state, job.exit_code) == (JobState.FAILED, 4)
        assert "nvram" in job.error
        assert not list(tmp_path.glob("other*"))
    finally:
        with real_host.calls("remove a pool") as connection:
            pool = connection.storagePoolLookupByName("nvram")
            if pool.isActive():
                pool.destroy()
            pool.undefine()


def test_a_bundle_registered_in_place_is_used_where_it_lies(
    real_host: Host, private_daemon: PrivateLibvirtd, exported: Path
) -> None:
    done(plan_import(real_host, ImportRequest(exported, register=True)), real_host)
    disks = vm_named(real_host, NAME).config.disks  # type: ignore[union-attr]
    assert [disk.source for disk in disks] == [str(exported / "vda.qcow2")]
    assert not list(private_daemon.images.glob(f"{NAME}*"))
    again = plan_import(real_host, ImportRequest(exported, name="second", register=True))
    assert any("uses this disk image" in blocker.reason for blocker in again.blockers)


# What is refused


def test_a_running_vm_is_not_exported(
    real_host: Host, private_daemon: PrivateLibvirtd, contents: Path, tmp_path: Path
) -> None:
    whole_vm(real_host, private_daemon, contents)
    plan = plan_export(real_host, vm_named(real_host, NAME), tmp_path / "bundle")
    with real_host.calls("start") as connection:
        connection.lookupByName(NAME).create()
    assert [blocker.exit_code for blocker in plan_export(real_host, vm_named(real_host, NAME), tmp_path / "b").blockers]
    job = submit(plan, real_host)
    assert (job.state, job.exit_code) == (JobState.FAILED, 4)
    assert not list(tmp_path.glob("bundle*"))


def damage(path: Path, at: int = -100) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("name", ["vda.qcow2", "nvram.fd", "tpm2-00.permall"])
def test_a_flipped_bit_rolls_the_import_back(
    real_host: Host, private_daemon: PrivateLibvirtd, exported: Path, name: str
) -> None:
    before = traces(private_daemon, real_host)
    damage(exported / name)
    job = submit(plan_import(real_host, ImportRequest(exported, restore=True)), real_host)
    assert job.state is JobState.FAILED
    assert name in job.error
    assert "SHA-256" in job.error
    assert traces(private_daemon, real_host) == before


def test_a_truncated_bundle_is_refused_before_anything_is_made(real_host: Host, exported: Path) -> None:
    with (exported / "vda.qcow2").open("r+b") as file:
        file.truncate(1000)
    (exported / "nvram.fd").unlink()
    told = [finding.text for finding in compare(real_host, ImportRequest(exported)).of(FindingKind.BLOCKER)]
    assert any("vda.qcow2 has 1000 bytes" in text for text in told)
    assert "nvram.fd is missing" in told


def test_a_disk_that_builds_on_a_file_of_the_host_is_refused(real_host: Host, exported: Path, tmp_path: Path) -> None:
    evil = tmp_path / "evil.qcow2"
    subprocess.run(
        ["qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", "/etc/hostname", str(evil), "64M"], check=True
    )
    put(exported, evil)
    told = [finding.text for finding in compare(real_host, ImportRequest(exported)).of(FindingKind.BLOCKER)]
    assert any("/etc/hostname" in text for text in told)


def put(directory: Path, image: Path) -> None:
    """Make `image` the bundle's disk, its manifest in order."""
    import hashlib

    data = image.read_bytes()
    (directory / "vda.qcow2").write_bytes(data)
    manifest = json.loads((directory / bundle.MANIFEST).read_text())
    for file in manifest["files"]:
        if file["name"] == "vda.qcow2":
            file |= {"size_bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    (directory / bundle.MANIFEST).write_text(json.dumps(manifest))


def test_a_tpm_of_the_same_identity_is_not_overwritten(
    real_host: Host, private_daemon: PrivateLibvirtd, exported: Path
) -> None:
    uuid = bundle.read(exported).vm_uuid
    kept = private_daemon.directory / "lib/swtpm" / uuid / "tpm2/tpm2-00.permall"
    kept.parent.mkdir(parents=True)
    kept.write_text("somebody's")
    try:
        before = traces(private_daemon, real_host)
        job = submit(plan_import(real_host, ImportRequest(exported, restore=True)), real_host)
        assert (job.state, job.exit_code) == (JobState.FAILED, 4)
        assert kept.read_text() == "somebody's"
        assert traces(private_daemon, real_host) == before
    finally:
        shutil.rmtree(kept.parents[1])


def test_a_full_disk_here_rolls_an_export_back(
    real_host: Host, private_daemon: PrivateLibvirtd, contents: Path, tmp_path: Path
) -> None:
    whole_vm(real_host, private_daemon, contents)
    with small_disk(tmp_path / "small", 8 * MIB) as small:
        plan = plan_export(real_host, vm_named(real_host, NAME), small / "bundle")
        assert not plan.blockers
        (small / "filler").write_bytes(bytes(6 * MIB))
        assert plan_export(real_host, vm_named(real_host, NAME), small / "bundle").blockers
        job = submit(plan, real_host)
        assert job.state is JobState.FAILED
        assert [path.name for path in small.iterdir()] == ["filler"]


def test_a_full_pool_rolls_an_import_back(
    real_host: Host, private_daemon: PrivateLibvirtd, exported: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with tight_pool(private_daemon, real_host, 3 * MIB):
        before = traces(private_daemon, real_host)
        # Somebody else fills it after the plan.
        monkeypatch.setattr(pool_room, "free_bytes", lambda *_: 10**12)
        job = submit(plan_import(real_host, ImportRequest(exported, pool="tight")), real_host)
        assert job.state is JobState.FAILED
        assert "space" in job.error
        assert traces(private_daemon, real_host) == before


@contextlib.contextmanager
def tight_pool(daemon: PrivateLibvirtd, host: Host, size_bytes: int) -> Iterator[None]:
    """A pool `tight` on a small file system, which only the daemon's namespace has."""
    inside = ["nsenter", "--mount", "--pid", "-t", str(daemon.libvirtd_pids()[0])]
    subprocess.run([*inside, "mkdir", "-p", "/run/lock/tight"], check=True)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size_bytes}", "tmpfs", "/run/lock/tight"]
    subprocess.run([*inside, *mount], check=True)
    xml = "<pool type='dir'><name>tight</name><target><path>/run/lock/tight</path></target></pool>"
    with host.calls("make a pool") as connection:
        connection.storagePoolDefineXML(xml).create()
    try:
        yield
    finally:
        with host.calls("remove a pool") as connection:
            pool = connection.storagePoolLookupByName("tight")
            pool.destroy()
            pool.undefine()
        subprocess.run([*inside, "umount", "-l", "/run/lock/tight"], check=True)


def test_a_disk_larger_than_allowed_is_refused(real_host: Host, exported: Path) -> None:
    report = compare(real_host, ImportRequest(exported, limit_bytes=32 * MIB))
    assert any("larger than 32M" in blocker.reason for blocker in report.blockers)


BRIDGE = """import os, socket, sys, threading
server = socket.socket(socket.AF_UNIX)
server.connect({path!r})
def answer():
    while data := server.recv(65536):
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
    os._exit(0)
threading.Thread(target=answer, daemon=True).start()
while data := os.read(0, 65536):
    server.sendall(data)
"""


def test_a_vm_on_another_host_is_exported_and_imported_through_the_connection_alone(
    real_host: Host, private_daemon: PrivateLibvirtd, contents: Path, tmp_path: Path
) -> None:
    """What qemu+ssh does, with a program of the test's in place of ssh."""
    whole_vm(real_host, private_daemon, contents)
    states = state_files(private_daemon)
    script = tmp_path / "bridge"
    script.write_text(f"#!{sys.executable}\n{BRIDGE.format(path=str(private_daemon.socket))}")
    script.chmod(0o755)
    far = open_host(f"qemu+ext:///system?command={script}", name="far")
    try:
        assert not far.is_local
        done(plan_export(far, vm_named(far, NAME), tmp_path / "bundle"), far)
        delete(real_host)
        plan = plan_import(far, ImportRequest(tmp_path / "bundle", register=True))
        assert any("another one" in blocker.reason for blocker in plan.blockers)
        done(plan_import(far, ImportRequest(tmp_path / "bundle", restore=True)), far)
    finally:
        far.close()
    assert same_disk(disk_of(private_daemon), contents)
    assert set(state_files(private_daemon).values()) == set(states.values())
