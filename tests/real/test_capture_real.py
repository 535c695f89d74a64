"""Templates captured from VMs on a real libvirtd: whole, listed, killed at each call, and the VM's disk untouched."""

from __future__ import annotations

import hashlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

import libvirt
import pytest

from host import jobs
from host.connection import Host
from host.images import inspect
from host.job_model import Job, JobState
from host.journal import Journal
from host.plan import Plan
from host.units import MIB
from tests.real.conftest import wait_for
from tests.support.private_libvirtd import PrivateLibvirtd
from tests.support.running import done_while_the_daemon_dies
from tests.support.templates import made_pool
from vm import inventory, steps
from vm.library import find, read
from vm.library_index import INDEX_NAME
from vm.template_capture import CaptureRequest, Identity, plan_capture
from vm.template_model import ImageRole

assert steps  # registers the verbs
DEADLY = Path(__file__).parents[1] / "support/killing"
KEPT = CaptureRequest("golden", identity=Identity.KEPT)
XML = """
<domain type='qemu'><name>model</name><memory unit='MiB'>64</memory>
<os firmware='efi'><type arch='x86_64' machine='q35'>hvm</type></os><features><acpi/></features>
<devices><disk type='file' device='disk'><driver name='qemu' type='qcow2'/><source file='{disk}'/>
<target dev='sda' bus='sata'/></disk><interface type='user'><model type='e1000e'/></interface></devices></domain>
"""


@pytest.fixture
def library(real_host: Host, tmp_path: Path) -> Iterator[Path]:
    with made_pool(real_host, "library", tmp_path / "library") as directory:
        yield directory


@pytest.fixture
def disk(real_host: Host, private_daemon: PrivateLibvirtd) -> Path:
    """The disk of the VM `model`: an overlay, with a megabyte of its own on a base with another."""
    base, overlay = (private_daemon.images / name for name in ("base.qcow2", "model.qcow2"))
    for command in (
        ["qemu-img", "create", "-q", "-f", "qcow2", base, "32M"],
        ["qemu-io", "-f", "qcow2", "-c", "write -P 1 0 1M", base],
        ["qemu-img", "create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", base, overlay],
        ["qemu-io", "-f", "qcow2", "-c", "write -P 2 2M 1M", overlay],
    ):
        subprocess.run(list(map(str, command)), check=True, capture_output=True)
    with real_host.calls("define") as connection:
        connection.storagePoolLookupByName("default").refresh()
        connection.defineXML(XML.format(disk=overlay))
    return overlay


def planned(host: Host, request: CaptureRequest = KEPT) -> Plan:
    plan = plan_capture(host, inventory.find(host, "model"), request)
    plan.raise_if_blocked()
    return plan


def test_a_vm_s_disk_becomes_a_whole_template(real_host: Host, journal: Journal, library: Path, disk: Path) -> None:
    before = hashlib.sha256(disk.read_bytes()).hexdigest()
    job = jobs.submit(planned(real_host), real_host, journal)
    assert job.state is JobState.DONE, job.error
    _, template = find(real_host, "golden")
    assert (template.firmware, template.disk_bus, template.nic_model) == ("uefi", "sata", "e1000e")
    assert "with its identity" in template.origin
    image = template.image(ImageRole.DISK)
    assert image is not None
    stored = library / image.volume
    assert hashlib.sha256(stored.read_bytes()).hexdigest() == image.sha256
    assert (inspect(stored).backing, image.virtual_size_bytes) == ((), 32 * MIB)
    compare = ["qemu-img", "compare", "-f", "qcow2", "-F", "qcow2", "--", str(disk), str(stored)]
    assert subprocess.run(compare, capture_output=True, check=False).returncode == 0
    assert hashlib.sha256(disk.read_bytes()).hexdigest() == before
    undone = jobs.submit(jobs.plan_undo(job, real_host), real_host, journal)
    assert undone.state is JobState.DONE, undone.error
    assert {path.name for path in library.iterdir()} <= {INDEX_NAME}


def test_what_virt_sysprep_gets_is_the_copy_and_the_sha256_is_of_what_it_made(
    real_host: Host, journal: Journal, library: Path, disk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = hashlib.sha256(disk.read_bytes()).hexdigest()
    tool = tmp_path / "virt-sysprep"
    tool.write_text('#!/bin/sh\nfor last; do :; done\nexec qemu-io -f qcow2 -c "write -P 9 4M 64k" "$last"\n')
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    job = jobs.submit(planned(real_host, CaptureRequest("golden")), real_host, journal)
    assert job.state is JobState.DONE, job.error
    image = find(real_host, "golden")[1].images[0]
    stored = library / image.volume
    assert hashlib.sha256(stored.read_bytes()).hexdigest() == image.sha256
    read_back = ["qemu-io", "-r", "-f", "qcow2", "-c", "read -P 9 4M 64k", str(stored)]
    assert "failed" not in subprocess.run(read_back, capture_output=True, check=True, text=True).stdout
    assert hashlib.sha256(disk.read_bytes()).hexdigest() == before


def test_a_generalisation_that_fails_leaves_nothing(
    real_host: Host, journal: Journal, library: Path, disk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tool = tmp_path / "virt-sysprep"
    tool.write_text("#!/bin/sh\necho 'virt-sysprep: error: no operating systems found' >&2\nexit 1\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    job = jobs.submit(planned(real_host, CaptureRequest("golden")), real_host, journal)
    assert job.state is JobState.FAILED
    assert "no operating systems" in job.error
    assert {path.name for path in library.iterdir()} <= {INDEX_NAME}


def killed(host: Host, journal: Journal, place: str) -> Job | None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(DEADLY))
        patch.setenv("HVTUI_TEST_KILL_AT", place)
        started = jobs.start_detached(planned(host), host, journal)
    ended = jobs.wait(started.id, journal, 90)
    assert ended.state in {JobState.DONE, JobState.INTERRUPTED}, ended.error
    return None if ended.state is JobState.DONE else ended


@pytest.mark.parametrize("verb", ["capture.copy", "capture.seal", "template.store"])
@pytest.mark.timeout(400)
def test_a_capture_killed_at_any_call_is_taken_back_or_completed(
    real_host: Host, journal: Journal, library: Path, disk: Path, verb: str
) -> None:
    for call in range(2, 40, 7):
        job = killed(real_host, journal, f"{verb}:{call}")
        if job is None:
            break
        if call % 2:
            job = jobs.restart(job.id, real_host, journal)
            assert job.state is JobState.DONE, (call, job.error)
            assert [each.name for each in read(real_host).templates] == ["golden"]
            undone = jobs.submit(jobs.plan_undo(job, real_host), real_host, journal)
            assert undone.state is JobState.DONE, undone.error
        else:
            rolled = jobs.rollback(job.id, real_host, journal)
            assert rolled.state is JobState.ROLLED_BACK, (call, rolled.error)
        left = {path.name for path in library.iterdir()}
        assert left <= {INDEX_NAME}, f"killed after call {call} of {verb}"
    assert call > 2, "it was killed in the middle"


def test_virt_sysprep_ends_with_a_killed_job_which_a_restart_completes(
    real_host: Host, journal: Journal, library: Path, disk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tool, pid = tmp_path / "virt-sysprep", tmp_path / "pid"
    tool.write_text(
        f"#!/bin/sh\nfor last; do :; done\n"
        f"if ! test -e {pid}; then echo $$ > {pid}; kill -9 $PPID; exec sleep 600; fi\n"
        'exec qemu-io -f qcow2 -c "write -P 9 4M 64k" "$last"\n'
    )
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    started = jobs.start_detached(planned(real_host, CaptureRequest("golden")), real_host, journal)
    assert jobs.wait(started.id, journal, 90).state is JobState.INTERRUPTED
    wait_for(lambda: not Path(f"/proc/{int(pid.read_text())}").exists(), "virt-sysprep to end")
    job = jobs.restart(started.id, real_host, journal)
    assert job.state is JobState.DONE, job.error
    image = find(real_host, "golden")[1].images[0]
    assert hashlib.sha256((library / image.volume).read_bytes()).hexdigest() == image.sha256


def test_a_libvirtd_that_dies_in_each_step_of_a_capture_is_waited_for(
    real_host: Host, private_daemon: PrivateLibvirtd, library: Path, disk: Path
) -> None:
    before = hashlib.sha256(disk.read_bytes()).hexdigest()
    done_while_the_daemon_dies(planned(real_host), real_host, private_daemon)
    assert [each.name for each in read(real_host).templates] == ["golden"]
    assert read(real_host).others == ()
    assert hashlib.sha256(disk.read_bytes()).hexdigest() == before


def test_a_vm_that_was_started_in_the_meantime_is_not_captured(
    real_host: Host, journal: Journal, library: Path, disk: Path
) -> None:
    plan = planned(real_host)
    with real_host.calls("start") as connection:
        connection.lookupByName("model").createWithFlags(libvirt.VIR_DOMAIN_START_PAUSED)
    job = jobs.submit(plan, real_host, journal)
    assert job.state is JobState.FAILED
    assert "not off any more" in job.error
    assert {path.name for path in library.iterdir()} <= {INDEX_NAME}
