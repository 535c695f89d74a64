"""VMs made on a real libvirtd: they boot and answer, and a kill -9 at any step leaves nothing half-made."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import libvirt
import pytest

from host import jobs
from host.connection import Host, open_host
from host.job_model import Job, JobState, StepState
from host.journal import Journal
from host.plan import Plan
from tests.real.conftest import wait_for
from tests.support.private_libvirtd import PrivateLibvirtd
from vm import inventory, tiny_sources
from vm.create import plan_create, tiny_request
from vm.create_request import CreateRequest, Firmware, SourceKind
from vm.domain_xml import parse
from vm.model import VmState

ROOT = Path(__file__).parents[2]
MIB = 1024**2
RUNNER = """
import os, sys
from pathlib import Path
from host.runner import run_job
import vm.steps
Path(sys.argv[1]).write_text(str(os.getpid()))
run_job(int(sys.argv[2]))
"""


def traces(host: Host, daemon: PrivateLibvirtd) -> dict[str, object]:
    """Everything that making a VM can leave on a host."""
    with host.calls("look") as connection:
        pools = {pool.name(): pool for pool in connection.listAllStoragePools(0)}
        for pool in pools.values():
            if pool.isActive():
                pool.refresh(0)
        return {
            "vms": sorted(domain.name() for domain in connection.listAllDomains(0)),
            "pools": sorted(pools),
            "volumes": sorted(v for pool in pools.values() if pool.isActive() for v in pool.listVolumes()),
            "files": sorted(path.name for path in daemon.images.iterdir()),
            "nvram": sorted(path.name for path in (daemon.directory / "lib/qemu/nvram").glob("*")),
            "swtpm": sorted(path.name for path in (daemon.directory / "lib/swtpm").glob("*")),
        }


def start_runner(plan: Plan, host: Host, journal: Journal, pid_file: Path) -> tuple[Job, int]:
    """The job, run by a process of its own, and that process's id."""
    pid_file.unlink(missing_ok=True)
    command = [sys.executable, "-c", RUNNER, str(pid_file)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(ROOT))
        job = jobs.start_detached(plan, host, journal, program=command)
    wait_for(lambda: pid_file.exists() and pid_file.read_text(), "the runner")
    return job, int(pid_file.read_text())


def kill_in(verb: str, journal: Journal, job_id: int, pid: int, *, delay_s: float = 0.0) -> None:
    """SIGKILL the runner `delay_s` after the journal says that the step `verb` runs."""
    while True:
        job = journal.job(job_id)
        current = job.current_step
        has_passed = any(step.verb == verb and step.state is StepState.DONE for step in job.steps)
        if job.state.is_over or has_passed or (current is not None and current.verb == verb):
            break
    time.sleep(delay_s)
    with contextlib.suppress(ProcessLookupError):  # it was faster
        os.kill(pid, signal.SIGKILL)
    wait_for(lambda: is_noticed(journal, job_id), "the killed job to be noticed")


def is_noticed(journal: Journal, job_id: int) -> bool:
    journal.recover()
    return journal.job(job_id).state.is_over


def done(job: Job) -> Job:
    assert job.state is JobState.DONE, f"{job.state}: {job.error}"
    return job


def test_a_tiny_vm_is_made_boots_answers_and_is_taken_back(real_host, private_daemon, journal):
    before = traces(real_host, private_daemon)
    request = replace(
        tiny_request("first"), network="user", tags=("web", "prod"), owner="alice", title="A first one", autostart=True
    )
    plan = plan_create(real_host, request)
    assert not plan.blockers
    assert plan.long
    job = done(jobs.submit(plan, real_host, journal))
    assert job.steps[-1].result == {"ready": True}
    (vm,) = inventory.read_configs(real_host, [inventory.find(real_host, "first")])
    assert (vm.state, vm.autostart) == (VmState.RUNNING, True)
    assert vm.config.agent_connected
    assert (vm.config.tags, vm.config.owner, vm.config.title) == (("web", "prod"), "alice", "A first one")
    with real_host.calls("ask") as connection:
        domain = connection.lookupByName("first")
        assert domain.hostname(libvirt.VIR_DOMAIN_GET_HOSTNAME_AGENT) == "first"
        assert free_root_ports(domain.XMLDesc(0)) >= 4
        with suppress(libvirt.libvirtError):  # a guest that goes down fast kills the program that its agent waits for
            domain.shutdownFlags(libvirt.VIR_DOMAIN_SHUTDOWN_GUEST_AGENT)
        wait_for(lambda: not domain.isActive(), "the guest to obey its agent")
        domain.create()
        wait_for(lambda: inventory.find(real_host, "first").state is VmState.RUNNING, "the second start")

    undo = jobs.plan_undo(job, real_host)
    assert "the VM first with its firmware variables, saved state and checkpoints" in undo.losses
    done(jobs.submit(undo, real_host, journal))
    assert traces(real_host, private_daemon) == before


def free_root_ports(xml: str) -> int:
    root = parse(xml)
    ports = {port.get("index") for port in root.findall("devices/controller[@model='pcie-root-port']")}
    taken = {str(int(each.get("bus", "0"), 16)) for each in root.findall("devices/*/address[@type='pci']")}
    return len(ports - taken)


def test_the_power_button_stops_a_tiny_guest_built_without_an_agent(real_host, journal, tmp_path, monkeypatch):
    monkeypatch.setattr(tiny_sources, "find_agent", no_agent)
    cache = tmp_path / "cache-without-agent"
    monkeypatch.setenv("HVTUI_CACHE_DIR", str(cache))
    request = replace(tiny_request("mute"), network="none")
    job = done(jobs.submit(plan_create(real_host, request), real_host, journal))
    assert "built without the guest agent: not to be had" in job.steps[0].result["note"]
    assert job.steps[-1].result == {"ready": True}, "the marker on the serial console counts"
    with real_host.calls("ask") as connection:
        domain = connection.lookupByName("mute")
        domain.shutdownFlags(libvirt.VIR_DOMAIN_SHUTDOWN_ACPI_POWER_BTN)
        wait_for(lambda: not domain.isActive(), "the guest to obey the power button")


def no_agent(_packages: object) -> tiny_sources.Agent:
    raise tiny_sources.NotFound("not to be had")


DISK_REQUEST = CreateRequest(
    "doomed",
    source=SourceKind.EMPTY,
    memory_bytes=64 * MIB,
    vcpus=1,
    disk_bytes=64 * MIB,
    firmware=Firmware.UEFI,
    tpm=True,
    network="user",
)
TINY_REQUEST = replace(tiny_request("doomed"), network="none", wait_ready=False)


@pytest.mark.parametrize(
    ("request_", "verb"),
    [
        (DISK_REQUEST, "create.volume"),
        (DISK_REQUEST, "create.define"),
        (DISK_REQUEST, "create.start"),
        (TINY_REQUEST, "create.tiny"),
    ],
    ids=lambda value: value if isinstance(value, str) else value.source.value,
)
def test_a_kill_at_a_step_is_rolled_back_or_completed(
    request_, verb, real_host, private_daemon, journal, tmp_path, tiny_guest
):
    before = traces(real_host, private_daemon)
    for delay_s in (0.0, 0.05, 0.4):
        job, pid = start_runner(plan_create(real_host, request_), real_host, journal, tmp_path / "pid")
        kill_in(verb, journal, job.id, pid, delay_s=delay_s)
        ended = journal.job(job.id)
        if ended.state is JobState.INTERRUPTED:
            undone = jobs.rollback(job.id, real_host, journal)
            assert undone.state is JobState.ROLLED_BACK, undone.error
        else:
            done(jobs.submit(jobs.plan_undo(done(ended), real_host), real_host, journal))
        assert traces(real_host, private_daemon) == before, f"killed {delay_s} s into {verb}"

    job, pid = start_runner(plan_create(real_host, request_), real_host, journal, tmp_path / "pid")
    kill_in(verb, journal, job.id, pid)
    if journal.job(job.id).state is JobState.INTERRUPTED:
        jobs.restart(job.id, real_host, journal)
    completed = done(journal.job(job.id))
    assert inventory.find(real_host, "doomed").state is VmState.RUNNING
    done(jobs.submit(jobs.plan_undo(completed, real_host), real_host, journal))
    assert traces(real_host, private_daemon) == before


def test_a_kill_while_it_waits_for_the_guest_is_completed_by_a_restart(real_host, journal, tmp_path):
    request = replace(tiny_request("patient"), network="none")
    job, pid = start_runner(plan_create(real_host, request), real_host, journal, tmp_path / "pid")
    kill_in("create.wait", journal, job.id, pid, delay_s=0.5)
    assert journal.job(job.id).state is JobState.INTERRUPTED
    assert done(jobs.restart(job.id, real_host, journal)).steps[-1].result == {"ready": True}


@pytest.fixture
def no_pools(real_host: Host) -> Iterator[None]:
    """The host without any storage pool; the pool of the other tests comes back."""
    with real_host.calls("look") as connection:
        kept = [(pool, pool.XMLDesc(0)) for pool in connection.listAllStoragePools(0)]
        for pool, _ in kept:
            pool.destroy()
            pool.undefine()
    yield
    with real_host.calls("look") as connection:
        for pool in connection.listAllStoragePools(0):
            if pool.isActive():
                pool.destroy()
            pool.undefine()
        for _, xml in kept:
            connection.storagePoolDefineXML(xml, 0).create(0)


def test_a_host_without_a_pool_gets_one_and_a_kill_leaves_none(real_host, private_daemon, journal, tmp_path, no_pools):
    request = replace(DISK_REQUEST, start=False, firmware=Firmware.BIOS, tpm=False)
    plan = plan_create(real_host, request)
    assert [step.verb for step in plan.steps] == ["create.pool", "create.volume", "create.define"]
    assert not plan.blockers
    before = traces(real_host, private_daemon)
    for delay_s in (0.0, 0.02, 0.1):
        job, pid = start_runner(plan_create(real_host, request), real_host, journal, tmp_path / "pid")
        kill_in("create.pool", journal, job.id, pid, delay_s=delay_s)
        ended = journal.job(job.id)
        if ended.state is JobState.INTERRUPTED:
            undone = jobs.rollback(job.id, real_host, journal)
            assert undone.state is JobState.ROLLED_BACK, undone.error
        else:
            done(jobs.submit(jobs.plan_undo(done(ended), real_host), real_host, journal))
        assert traces(real_host, private_daemon) == before

    with real_host.calls("look") as connection:
        done(jobs.submit(plan, real_host, journal))
        pool = connection.storagePoolLookupByName("default")
        assert (pool.isActive(), pool.autostart()) == (1, 1)
        for volume in pool.listAllVolumes(0):
            volume.delete(0)
        pool.destroy()
    again = plan_create(real_host, replace(request, name="second"))
    assert again.steps[0].title == "Start the storage pool default"
    job = done(jobs.submit(again, real_host, journal))
    done(jobs.submit(jobs.plan_undo(job, real_host), real_host, journal))
    assert traces(real_host, private_daemon)["pools"] == ["default"], "a pool that was there before stays"


def test_an_image_is_used_in_place_and_no_second_vm_may_have_it(real_host, journal, private_daemon):
    image = private_daemon.images / "existing.qcow2"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", str(image), "64M"], check=True)
    request = CreateRequest(
        "imaged",
        source=SourceKind.IMAGE,
        image=str(image),
        memory_bytes=64 * MIB,
        network="none",
        wait_ready=True,
        ready_timeout_s=1,
    )
    plan = plan_create(real_host, request)
    assert not plan.blockers
    assert str(image) in plan.keeps[0]
    job = done(jobs.submit(plan, real_host, journal))
    assert "its guest has not answered" in job.steps[-1].result["warning"]
    second = plan_create(real_host, replace(request, name="other"))
    assert [blocker.reason for blocker in second.blockers] == ["the VM imaged uses this disk image"]
    done(jobs.submit(jobs.plan_undo(job, real_host), real_host, journal))
    assert image.exists()


def test_an_iso_gets_a_disk_a_drive_and_uefi(real_host, journal, private_daemon, tmp_path):
    iso = private_daemon.images / "install.iso"
    iso.write_bytes(b"\0" * 32768 + b"\x01CD001\x01\x00" + b"\0" * 4096)
    request = CreateRequest("fresh", source=SourceKind.ISO, iso=str(iso), network="none", start=False)
    plan = plan_create(real_host, request)
    assert not plan.blockers
    job = done(jobs.submit(plan, real_host, journal))
    (vm,) = inventory.read_configs(real_host, [inventory.find(real_host, "fresh")])
    assert [(disk.target, disk.device) for disk in vm.config.disks] == [("vda", "disk"), ("sda", "cdrom")]
    assert vm.config.firmware == "uefi"
    done(jobs.submit(jobs.plan_undo(job, real_host), real_host, journal))


def test_a_kernel_of_the_users_own_boots(real_host, journal, tiny_guest):
    request = CreateRequest(
        "kernel",
        source=SourceKind.KERNEL,
        kernel=str(tiny_guest.kernel),
        initrd=str(tiny_guest.initrd),
        kernel_arguments="console=ttyS0",
        vcpus=1,
        memory_bytes=128 * MIB,
        network="user",
        wait_ready=True,
    )
    job = done(jobs.submit(plan_create(real_host, request), real_host, journal))
    assert job.steps[-1].result == {"ready": True}


def test_a_cancelled_wait_leaves_the_vm_that_was_made(real_host, journal, tmp_path):
    request = replace(tiny_request("awaited"), network="none")
    job, _pid = start_runner(plan_create(real_host, request), real_host, journal, tmp_path / "pid")
    wait_for(lambda: waits(journal, job.id), "the wait for the guest")
    jobs.cancel(job.id, journal)
    ended = done(jobs.wait(job.id, journal, 60))
    assert (ended.warnings, ended.exit_code) == (("stopped waiting; its guest has not answered",), 0)
    assert inventory.find(real_host, "awaited").state is VmState.RUNNING
    assert not jobs.plan_undo(ended, real_host).blockers


def waits(journal: Journal, job_id: int) -> bool:
    current = journal.job(job_id).current_step
    return current is not None and current.verb == "create.wait"


def test_a_guest_that_stops_while_it_is_waited_for_is_said_so(real_host, journal, tiny_guest):
    request = CreateRequest(
        "short",
        source=SourceKind.KERNEL,
        kernel=str(tiny_guest.kernel),
        initrd=str(tiny_guest.initrd),
        kernel_arguments="console=ttyS0 rdinit=/bin/poweroff panic=-1 -- -f",
        vcpus=1,
        memory_bytes=128 * MIB,
        network="none",
        wait_ready=True,
    )
    plan = plan_create(real_host, request)
    stopper = stop_when_running(real_host, "short")
    job = done(jobs.submit(plan, real_host, journal, lambda _job: stopper()))
    assert "it stopped again" in job.steps[-1].result["warning"]


def stop_when_running(host: Host, name: str) -> Callable[[], None]:
    other = open_host(host.uri, name="other")

    def stop() -> None:
        with other.calls("look") as connection:
            for domain in connection.listAllDomains(libvirt.VIR_CONNECT_LIST_DOMAINS_ACTIVE):
                if domain.name() == name:
                    domain.destroy()

    return stop


def test_a_disk_that_another_vm_took_is_not_removed_by_an_undo(real_host, journal, private_daemon):
    request = replace(DISK_REQUEST, name="giver", start=False, firmware=Firmware.BIOS, tpm=False)
    job = done(jobs.submit(plan_create(real_host, request), real_host, journal))
    path = job.steps[0].result["path"]
    taker = (
        "<domain type='qemu'><name>taker</name><memory>65536</memory>"
        "<os><type arch='x86_64' machine='q35'>hvm</type></os><devices><disk type='file' device='disk'>"
        f"<source file='{path}'/><target dev='vda'/></disk></devices></domain>"
    )
    with real_host.calls("define") as connection:
        connection.defineXML(taker)
    undone = jobs.submit(jobs.plan_undo(job, real_host), real_host, journal)
    assert undone.state is JobState.FAILED
    assert "used by taker" in undone.error
    assert Path(path).exists()
