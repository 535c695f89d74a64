"""Moves of a VM that is off between two real libvirtds: disks and their chain, checkpoints, firmware, TPM, kills."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import libvirt
import pytest

from host import jobs
from host.connection import Host
from host.images import inspect
from host.job_model import Job, JobState
from host.journal import Journal
from tests.support.moves import disks_of, draft, files, holds, plan, qemu_img, write_pattern
from tests.support.private_libvirtd import PrivateLibvirtd
from vm import steps
from vm.inventory import find
from vm.move import plan_move
from vm.move_model import MoveDisk, MoveDraft, MoveKind, MoveOptions, MoveRequest
from vm.move_offline import definition_steps, offline_steps

assert steps  # registers the verbs
DEADLY = Path(__file__).parents[1] / "support/killing"
UUID = "11111111-2222-4333-8444-555555555555"
VM = """
<domain type='qemu'><name>web</name><uuid>{uuid}</uuid><title>the web</title><memory unit='MiB'>64</memory>
<os firmware='efi'><type arch='x86_64' machine='q35'>hvm</type></os><features><acpi/></features>
<devices>
  <disk type='file' device='disk'><driver name='qemu' type='qcow2'/><source file='{images}/web.qcow2'/>
    <target dev='vda' bus='virtio'/></disk>
  <graphics type='vnc' passwd='secret'/>
  <tpm model='tpm-crb'><backend type='emulator' version='2.0'/></tpm>
</devices></domain>
"""


@pytest.fixture
def web(real_host: Host, second_host: Host, private_daemon: PrivateLibvirtd, second_daemon: PrivateLibvirtd) -> str:
    """A VM that is off, with a disk on a base, two checkpoints in it, UEFI variables, and a TPM's state."""
    images, lib = private_daemon.images, private_daemon.directory / "lib"
    qemu_img("create", "-q", "-f", "qcow2", images / "base.qcow2", "64M")
    write_pattern(images / "base.qcow2", "qcow2", 0x11, "8M")
    qemu_img("create", "-q", "-f", "qcow2", "-b", images / "base.qcow2", "-F", "qcow2", images / "web.qcow2")
    write_pattern(images / "web.qcow2", "qcow2", 0x22, "16M")
    with real_host.calls("define") as connection:
        connection.storagePoolLookupByName("default").refresh()
        domain = connection.defineXML(VM.format(images=images, uuid=UUID))
        domain.setAutostart(1)
        redefine = libvirt.VIR_DOMAIN_SNAPSHOT_CREATE_REDEFINE
        for name in ("one", "two"):
            qemu_img("snapshot", "-c", name, images / "web.qcow2")
            xml = (
                f"<domainsnapshot><name>{name}</name><state>shutoff</state><creationTime>1</creationTime>{PARENT[name]}"
                f"{domain.XMLDesc()}</domainsnapshot>"
            )
            domain.snapshotCreateXML(xml, redefine | libvirt.VIR_DOMAIN_SNAPSHOT_CREATE_CURRENT)
    for path, content in ((lib / "qemu/nvram/web_VARS.fd", b"variables" * 1000),
                          (lib / f"swtpm/{UUID}/tpm2/tpm2-00.permall", b"permanent" * 100)):  # fmt: skip
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return "web"


PARENT = {"one": "", "two": "<parent><name>one</name></parent>"}


def state_files(daemon: PrivateLibvirtd) -> dict[str, bytes]:
    lib = daemon.directory / "lib"
    found = [path for name in ("qemu/nvram", "swtpm") for path in (lib / name).rglob("*") if path.is_file()]
    return {str(path.relative_to(lib)): path.read_bytes() for path in found}


@pytest.fixture(autouse=True)
def no_state(private_daemon: PrivateLibvirtd, second_daemon: PrivateLibvirtd) -> None:
    for daemon in (private_daemon, second_daemon):
        for name in state_files(daemon):
            (daemon.directory / "lib" / name).unlink()


def drafted(source: Host, target: Host, here: PrivateLibvirtd, there: PrivateLibvirtd, **options: bool) -> MoveDraft:
    disk = MoveDisk(
        "vda", "disk", f"{here.images}/web.qcow2", "qcow2", 64 << 20, backing=(f"{here.images}/base.qcow2",),
        target_pool="default", target_pool_path=str(there.images),
    )  # fmt: skip
    request = MoveRequest(MoveKind.OFFLINE, options=replace(MoveOptions(), **options))  # type: ignore[arg-type]
    return draft(source, target, "web", MoveKind.OFFLINE, disk, checkpoints=("one", "two"), request=request)


def is_there(host: Host) -> bool:
    with host.calls("look") as connection:
        return "web" in [domain.name() for domain in connection.listAllDomains()]


def test_everything_of_a_vm_that_is_off_goes_along(
    web: str, real_host: Host, second_host: Host, private_daemon: PrivateLibvirtd, second_daemon: PrivateLibvirtd,
    journal: Journal,
) -> None:  # fmt: skip
    state = state_files(private_daemon)
    assert len(state) == 2
    made = drafted(real_host, second_host, private_daemon, second_daemon)
    job = jobs.submit(plan(made, offline_steps(made)), real_host, journal)
    assert job.state is JobState.DONE, job.error
    assert (is_there(real_host), is_there(second_host)) == (False, True)
    assert state_files(second_daemon) == state
    assert files(private_daemon.images) == {"base.qcow2"}
    disk = disks_of(second_host, web)["vda"]
    assert [path.parent for path in inspect(Path(disk)).backing] == [second_daemon.images]
    assert holds(disk, "qcow2", 0x11, "8M")
    assert holds(disk, "qcow2", 0x22, "16M")
    with second_host.calls("look") as connection:
        domain = connection.lookupByName(web)
        assert domain.autostart()
        text = domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE | libvirt.VIR_DOMAIN_XML_SECURE)
        assert "passwd='secret'" in text
        assert "hvtui.org/xmlns/move" not in text
        assert sorted(domain.snapshotListNames()) == ["one", "two"]
        assert domain.snapshotCurrent().getName() == "two"
        assert domain.snapshotCurrent().getParent().getName() == "one"
        assert str(private_daemon.images) not in domain.snapshotCurrent().getXMLDesc()
        domain.revertToSnapshot(domain.snapshotLookupByName("one"))
    assert "secret" not in journal.path.read_bytes().decode("latin-1").replace("secrets", "")


def test_it_comes_back_the_same_way_and_disks_can_be_kept(
    web: str, real_host: Host, second_host: Host, private_daemon: PrivateLibvirtd, second_daemon: PrivateLibvirtd,
    journal: Journal,
) -> None:  # fmt: skip
    made = drafted(real_host, second_host, private_daemon, second_daemon, keep_source_disks=True)
    assert jobs.submit(plan(made, offline_steps(made)), real_host, journal).state is JobState.DONE
    assert files(private_daemon.images) == {"base.qcow2", "web.qcow2"}
    path = disks_of(second_host, web)["vda"]
    disk = MoveDisk("vda", "disk", path, "qcow2", 64 << 20, backing=tuple(map(str, inspect(Path(path)).backing)),
                    target_pool="default", target_pool_path=str(private_daemon.images))  # fmt: skip
    back = draft(second_host, real_host, web, MoveKind.OFFLINE, disk, checkpoints=("one", "two"))
    job = jobs.submit(plan(replace(back, mark="aaaabbbb"), offline_steps(replace(back))), second_host, journal)
    assert job.state is JobState.DONE, job.error
    assert (is_there(real_host), is_there(second_host)) == (True, False)
    assert state_files(second_daemon) == {}
    assert len(state_files(private_daemon)) == 2
    assert holds(disks_of(real_host, web)["vda"], "qcow2", 0x22, "16M")


PLACES = [
    "move.define", "move.hold", "move.checkpoints", "move.copy-disks", "move.nvram", "move.tpm",
]  # fmt: skip


def killed(source: Host, journal: Journal, made: MoveDraft, verb: str) -> Job:
    job = jobs.create(plan(made, offline_steps(made)), journal)
    environment = {**os.environ, "PYTHONPATH": str(DEADLY), "HVTUI_TEST_KILL_AFTER": verb}
    command = [sys.executable, "-m", "hvtui", "--headless", "job", "run", str(job.id)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == -9, done.stdout + done.stderr
    journal.recover()
    return journal.job(job.id)


@pytest.mark.parametrize("verb", PLACES)
def test_killed_before_the_end_it_is_taken_back(
    web: str, real_host: Host, second_host: Host, private_daemon: PrivateLibvirtd, second_daemon: PrivateLibvirtd,
    journal: Journal, verb: str,
) -> None:  # fmt: skip
    state, here = state_files(private_daemon), files(private_daemon.images)
    job = killed(real_host, journal, drafted(real_host, second_host, private_daemon, second_daemon), verb)
    done = jobs.rollback(job.id, real_host, journal)
    assert done.state is JobState.ROLLED_BACK, done.error
    assert (is_there(real_host), is_there(second_host)) == (True, False)
    assert (state_files(private_daemon), state_files(second_daemon)) == (state, {})
    assert (files(private_daemon.images), files(second_daemon.images)) == (here, set())
    with real_host.calls("look") as connection:
        assert connection.lookupByName(web).autostart()


@pytest.mark.parametrize("verb", [*PLACES, "move.finish", "move.forget-disks"])
def test_killed_anywhere_a_restart_completes_it(
    web: str, real_host: Host, second_host: Host, private_daemon: PrivateLibvirtd, second_daemon: PrivateLibvirtd,
    journal: Journal, verb: str,
) -> None:  # fmt: skip
    state = state_files(private_daemon)
    job = killed(real_host, journal, drafted(real_host, second_host, private_daemon, second_daemon), verb)
    done = jobs.restart(job.id, real_host, journal)
    assert done.state is JobState.DONE, done.error
    assert (is_there(real_host), is_there(second_host)) == (False, True)
    assert (state_files(private_daemon), state_files(second_daemon)) == ({}, state)
    assert files(private_daemon.images) == {"base.qcow2"}
    assert holds(disks_of(second_host, web)["vda"], "qcow2", 0x22, "16M")


def test_state_of_the_same_identity_at_the_target_is_not_overwritten(
    web: str, real_host: Host, second_host: Host, private_daemon: PrivateLibvirtd, second_daemon: PrivateLibvirtd,
    journal: Journal,
) -> None:  # fmt: skip
    foreign = second_daemon.directory / "lib/qemu/nvram/web_VARS.fd"
    foreign.parent.mkdir(parents=True, exist_ok=True)
    foreign.write_bytes(b"somebody's")
    made = drafted(real_host, second_host, private_daemon, second_daemon)
    job = jobs.submit(plan(made, offline_steps(made)), real_host, journal)
    assert job.state is JobState.FAILED
    assert "keeps firmware variables of this identity" in job.error
    assert foreign.read_bytes() == b"somebody's"
    assert (is_there(real_host), is_there(second_host)) == (True, False)


def test_a_copied_definition_is_its_host_s_own_and_the_vm_stays(
    web: str, real_host: Host, second_host: Host, private_daemon: PrivateLibvirtd, second_daemon: PrivateLibvirtd,
    journal: Journal,
) -> None:  # fmt: skip
    made = replace(drafted(real_host, second_host, private_daemon, second_daemon), kind=MoveKind.DEFINITION, copies=())
    here = files(private_daemon.images)
    job = jobs.submit(plan(made, definition_steps(made)), real_host, journal)
    assert job.state is JobState.DONE, job.error
    assert (is_there(real_host), is_there(second_host)) == (True, True)
    assert (files(private_daemon.images), files(second_daemon.images)) == (here, set())
    with second_host.calls("look") as connection:
        domain = connection.lookupByName(web)
        assert not domain.autostart()
        assert "hvtui.org/xmlns/move" not in domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE)
    with real_host.calls("look") as connection:
        assert connection.lookupByName(web).autostart()


def test_a_shared_disk_that_libvirt_has_not_looked_for_yet_is_not_copied(
    real_host: Host, second_host: Host, tmp_path: Path
) -> None:
    pool = f"<pool type='dir'><name>common</name><target><path>{tmp_path}</path></target></pool>"
    for host in (real_host, second_host):
        host.connection().storagePoolCreateXML(pool)
    qemu_img("create", "-q", "-f", "qcow2", tmp_path / "late.qcow2", "16M")
    disk = f"<disk type='file'><source file='{tmp_path}/late.qcow2'/><target dev='vda' bus='virtio'/></disk>"
    real_host.connection().defineXML(
        f"<domain type='qemu'><name>late</name><memory unit='MiB'>32</memory><os><type arch='x86_64'>hvm</type></os>"
        f"<devices>{disk}</devices></domain>"
    )
    try:
        planned = plan_move(real_host, second_host, find(real_host, "late"), MoveRequest(MoveKind.OFFLINE))
        assert not planned.blockers
        assert "move.copy-disks" not in {step.verb for step in planned.steps}
    finally:
        for host in (real_host, second_host):
            host.connection().storagePoolLookupByName("common").destroy()
