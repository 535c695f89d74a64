"""Deployments on a real libvirtd with real guests: several at once, and nothing is left of those that fail."""

from __future__ import annotations

import json
import subprocess
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import libvirt
import pytest

from host import job_engine, jobs
from host.connection import Host
from host.errors import NotFound
from host.images import inspect
from host.job_engine import Patience
from host.job_model import Job, JobState
from host.journal import Journal
from host.plan import Plan, PlanSet
from host.steps import Args, Result, StepContext, StepVerb, verb_named
from host.units import GIB, MIB
from hvtui.cli.progress import held_up
from tests.real.conftest import wait_for
from tests.support.private_libvirtd import PrivateLibvirtd
from tests.support.templates import add_template, add_tiny, made_pool
from vm import deploy, inventory, steps
from vm.create_request import Firmware
from vm.deploy_request import DeployRequest
from vm.domain_xml import read_config
from vm.library import find
from vm.profile_model import GuestProfile, HardwareProfile, ProfileNic
from vm.tiny import TinyGuest

assert steps  # registers the verbs
SMALL = HardwareProfile("small", memory_bytes=96 * MIB, nics=(ProfileNic("user"),))
DISK_BYTES = 256 * MIB


@pytest.fixture
def library(real_host: Host, tiny_guest: TinyGuest, tmp_path: Path) -> Iterator[Path]:
    """A library with `tiny`, which boots by its kernel, and `disky`, which has a disk with 8 MiB of noise besides."""
    with made_pool(real_host, "library", tmp_path / "library") as directory:
        add_tiny(real_host, tiny_guest, directory)
        add_tiny(real_host, tiny_guest, directory, name="disky", disk_bytes=DISK_BYTES, data_bytes=8 * MIB)
        yield directory


@pytest.fixture
def request_(library: Path) -> DeployRequest:
    return DeployRequest("disky", ("web-01", "web-02", "web-03"), SMALL, GuestProfile(), ready_timeout_s=100)


def run_together(plan_set: PlanSet, host: Host, journal: Journal) -> list[Job]:
    """All plans of a set beside each other."""
    plan_set.raise_if_blocked()
    with ThreadPoolExecutor(4) as pool:
        return list(pool.map(lambda plan: jobs.submit(plan, host, journal), plan_set.plans))


def traces(daemon: PrivateLibvirtd, host: Host) -> set[str]:
    """Everything that deploying can leave: files, a TPM's directory, definitions."""
    names = ("images", "lib", "etc")
    found = {str(path) for name in names for path in (daemon.directory / name).rglob("*") if not path.is_dir()}
    found |= {str(path) for path in (daemon.directory / "lib/swtpm").glob("*")}
    with host.calls("look") as connection:
        return found | {f"vm {domain.name()}" for domain in connection.listAllDomains()}


def submit_one(host: Host, journal: Journal, request: DeployRequest) -> tuple[Plan, Job]:
    plan_set = deploy.plan_deploy(host, request)
    plan_set.raise_if_blocked()
    return plan_set.plans[0], jobs.submit(plan_set.plans[0], host, journal)


# What is deployed


@pytest.mark.timeout(300)
def test_linked_vms_deployed_together_are_ready_and_strangers_to_each_other(
    real_host: Host, journal: Journal, request_: DeployRequest, library: Path
) -> None:
    done = run_together(deploy.plan_deploy(real_host, request_), real_host, journal)
    assert [job.state for job in done] == [JobState.DONE] * 3, [job.error for job in done]
    uuids, macs, disks, hosts = set(), set(), set(), set()
    with real_host.calls("look") as connection:
        for name in request_.names:
            domain = connection.lookupByName(name)
            config = read_config(domain.XMLDesc(0))
            uuids.add(domain.UUIDString())
            macs.add(config.nics[0].mac)
            disks.add(config.disks[0].source)
            hosts.add(domain.hostname(libvirt.VIR_DOMAIN_GET_HOSTNAME_AGENT))
    assert len(uuids) == len(macs) == len(disks) == 3
    assert hosts == set(request_.names)
    for disk in disks:
        info = inspect(disk)
        assert (info.format, info.virtual_size_bytes) == ("qcow2", DISK_BYTES)
        assert info.backing == (library / "disky.qcow2",)


def test_a_linked_disk_is_of_the_modern_format_and_grown(
    real_host: Host, journal: Journal, request_: DeployRequest
) -> None:
    hardware = replace(SMALL, disk_bytes=GIB)
    plan, job = submit_one(real_host, journal, replace(request_, hardware=hardware, start=False))
    assert job.state is JobState.DONE, job.error
    path = plan.steps[0].args["path"]
    told = subprocess.run(["qemu-img", "info", "--output=json", "--", path], capture_output=True, check=True).stdout
    info = json.loads(told)
    assert info["format-specific"]["data"]["compat"] == "1.1"
    assert info["backing-filename-format"] == "qcow2"
    assert info["virtual-size"] == GIB


def test_a_full_copy_needs_its_template_no_more(
    real_host: Host, journal: Journal, request_: DeployRequest, library: Path
) -> None:
    request = replace(request_, linked=False, hardware=replace(SMALL, disk_bytes=512 * MIB), start=False)
    plan, job = submit_one(real_host, journal, request)
    assert job.state is JobState.DONE, job.error
    info = inspect(str(plan.steps[0].args["path"]))
    assert (info.backing, info.virtual_size_bytes) == ((), 512 * MIB)
    original = library / "disky.qcow2"
    compare = ["qemu-img", "compare", "-f", "qcow2", "-F", "qcow2", "--", str(original), str(info.path)]
    assert subprocess.run(compare, capture_output=True, check=False).returncode == 0


def test_every_bus_machine_and_firmware_can_be_defined(
    real_host: Host, journal: Journal, request_: DeployRequest, library: Path
) -> None:
    hardware = replace(SMALL, memory_maximum_bytes=256 * MIB, nics=(ProfileNic("user", "e1000e"), ProfileNic("user")))
    for number, (bus, machine) in enumerate([("virtio", ""), ("scsi", "q35"), ("sata", "pc"), ("scsi", "pc")]):
        wanted = replace(hardware, disk_bus=bus, machine=machine)
        request = replace(request_, names=(f"bus-{number}",), hardware=wanted, start=False)
        _, job = submit_one(real_host, journal, request)
        assert job.state is JobState.DONE, (bus, machine, job.error)
    strange = deploy.plan_deploy(real_host, replace(request_, hardware=replace(SMALL, machine="pc-q35-99.9")))
    assert "no machine type pc-q35-99.9" in strange.blockers[0].reason


# Failure


@pytest.fixture
def small_pool(real_host: Host, private_daemon: PrivateLibvirtd, tmp_path: Path) -> Iterator[Path]:
    """A pool `small` on a file system of 20 MiB, which only the private libvirtd sees there; the path to look at it."""
    path = tmp_path / "small"
    path.mkdir()
    pid = str(private_daemon.libvirtd_pids()[0])
    inside = ["nsenter", "-t", pid, "-m", "-p", "--"]
    subprocess.run([*inside, "mount", "-t", "tmpfs", "-o", "size=20M", "tmpfs", str(path)], check=True)
    with made_pool(real_host, "small", path):
        yield Path(f"/proc/{pid}/root{path}")
    subprocess.run([*inside, "umount", "-l", str(path)], check=True)


def test_a_full_pool_fails_one_vm_which_leaves_nothing_and_the_others_stay(
    real_host: Host, journal: Journal, request_: DeployRequest, small_pool: Path
) -> None:
    plan_set = deploy.plan_deploy(real_host, replace(request_, linked=False, pool="small", start=False))
    first, second, third = (jobs.submit(plan, real_host, journal) for plan in plan_set.plans)
    assert (first.state, second.state) == (JobState.DONE, JobState.DONE), (first.error, second.error)
    assert third.state is JobState.FAILED
    assert "space" in third.error
    disks = [str(plan.steps[0].args["name"]) for plan in plan_set.plans]
    assert sorted(path.name for path in small_pool.iterdir()) == sorted(disks[:2])
    with pytest.raises(NotFound):
        inventory.find(real_host, request_.names[2])
    (small_pool / disks[0]).unlink()  # room
    assert jobs.restart(third.id, real_host, journal).state is JobState.DONE


# Killed


DEADLY = Path(__file__).parents[1] / "support/killing"
WHOLE = HardwareProfile("whole", memory_bytes=96 * MIB, nics=(), firmware=Firmware.UEFI, tpm=True)
# The step, the call in it after which the process is killed, and how far the deployment is meant to go.
KILLED = [
    ("deploy.disk", range(4), "defined"),
    ("deploy.seed", range(8), "defined"),
    ("create.define", range(3), "defined"),
    ("create.start", range(5), "started"),
    ("deploy.ready", (0, 5), "ready"),
    ("deploy.unseed", range(0, 15, 2), "ready"),
]
STEPS = pytest.mark.parametrize(("verb", "calls", "until"), KILLED, ids=[verb for verb, _, _ in KILLED])


@pytest.fixture
def seeded(real_host: Host, library: Path) -> DeployRequest:
    """A deployment with everything that a VM can have: a disk, a seed, UEFI variables, a TPM."""
    template = find(real_host, "disky", "library")[1]
    add_template(real_host, "library", replace(template, name="seeded", takes_seed=True))
    return DeployRequest("seeded", ("doomed",), WHOLE, GuestProfile("g", run=("swordfish",)), ready_timeout_s=90)


def killed(host: Host, journal: Journal, request: DeployRequest, place: str) -> Job | None:
    """The job of a deployment whose process died there; None when it was done before it came there."""
    plan_set = deploy.plan_deploy(host, request)
    plan_set.raise_if_blocked()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(DEADLY))
        patch.setenv("HVTUI_TEST_KILL_AT", place)
        started = jobs.start_detached(quick(plan_set.plans[0], place), host, journal)
    ended = jobs.wait(started.id, journal, 90)
    assert ended.state in {JobState.DONE, JobState.INTERRUPTED}, ended.error
    return None if ended.state is JobState.DONE else ended


def quick(plan: Plan, place: str) -> Plan:
    """The plan without its wait for the guest, which costs a whole boot, where it is not the wait that is killed."""
    if place.startswith("deploy.ready:"):
        return plan
    return replace(plan, steps=tuple(step for step in plan.steps if step.verb != "deploy.ready"))


def until_(request: DeployRequest, until: str) -> DeployRequest:
    if until == "ready":  # firmware takes its time to boot, and has nothing to do with what is killed
        hardware = replace(SMALL, nics=())
        return replace(request, hardware=hardware)
    return replace(request, start=until == "started", wait_ready=False)


@STEPS
@pytest.mark.timeout(400)
def test_a_deployment_killed_at_any_call_is_rolled_back_to_nothing(
    real_host: Host, journal: Journal, private_daemon: PrivateLibvirtd, seeded: DeployRequest,
    verb: str, calls: Sequence[int], until: str,
) -> None:  # fmt: skip
    before = traces(private_daemon, real_host)
    for call in calls:
        job = killed(real_host, journal, until_(seeded, until), f"{verb}:{call}")
        if job is None:
            left = jobs.plan_undo(journal.jobs(limit=1)[0], real_host)
            assert jobs.submit(left, real_host, journal).state is JobState.DONE
        else:
            assert jobs.rollback(job.id, real_host, journal).state is JobState.ROLLED_BACK
        assert traces(private_daemon, real_host) == before, f"killed after call {call} of {verb}"
        if job is None:
            break
    assert call >= 1, "the step was killed at least once in the middle"


@STEPS
@pytest.mark.timeout(400)
def test_a_deployment_killed_at_any_call_is_completed_by_a_restart(
    real_host: Host, journal: Journal, private_daemon: PrivateLibvirtd, seeded: DeployRequest,
    verb: str, calls: Sequence[int], until: str,
) -> None:  # fmt: skip
    before = traces(private_daemon, real_host)
    for call in list(calls)[1::2]:
        job = killed(real_host, journal, until_(seeded, until), f"{verb}:{call}")
        if job is not None:
            job = jobs.restart(job.id, real_host, journal)
            assert job.state is JobState.DONE, (call, job.error)
        job = journal.jobs(limit=1)[0]
        seeds = [path for path in private_daemon.images.iterdir() if "seed" in path.name]
        assert len(seeds) == (0 if until == "ready" else 1)
        assert jobs.submit(jobs.plan_undo(job, real_host), real_host, journal).state is JobState.DONE
        assert traces(private_daemon, real_host) == before, f"killed after call {call} of {verb}"


def test_a_libvirtd_that_dies_while_it_copies_is_waited_for_and_nothing_is_left_twice(
    real_host: Host, journal: Journal, private_daemon: PrivateLibvirtd, tiny_guest: TinyGuest, library: Path
) -> None:
    add_tiny(real_host, tiny_guest, library, name="large", disk_bytes=512 * MIB, data_bytes=400 * MIB)
    request = DeployRequest("large", ("copied",), SMALL, GuestProfile(), linked=False, start=False)
    plan = deploy.plan_deploy(real_host, request).plans[0]
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(jobs.submit, plan, real_host, journal)
        path = Path(str(plan.steps[0].args["path"]))
        wait_for(lambda: path.exists() and path.stat().st_size > MIB, "the copy to begin")
        private_daemon.restart()
        job = running.result()
    assert job.state is JobState.DONE, job.error
    compare = ["qemu-img", "compare", "-f", "qcow2", "-F", "qcow2", "--", str(library / "large.qcow2"), str(path)]
    assert subprocess.run(compare, capture_output=True, check=False).returncode == 0
    assert [each.name for each in private_daemon.images.iterdir()] == [path.name]
    # Cancelled in its middle it ends with the copy, says so meanwhile, and leaves nothing.
    plan = deploy.plan_deploy(real_host, replace(request, names=("unwanted",))).plans[0]
    second = Path(str(plan.steps[0].args["path"]))
    created, notes = jobs.create(plan, journal), set()

    def look(job: Job) -> None:
        notes.add(held_up(job))

    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(jobs.run, created.id, real_host, journal, look, patience=Patience(progress_every_s=0.0))
        wait_for(lambda: second.exists() and second.stat().st_size > MIB, "the copy to begin")
        jobs.cancel(created.id, journal)
        job = running.result()
    assert (job.state, "unwanted: cancelled; libvirt finishes the copy first" in notes) == (JobState.CANCELLED, True)
    assert [each.name for each in private_daemon.images.iterdir()] == [path.name]


VERBS = ("deploy.disk", "deploy.seed", "create.define", "create.start", "deploy.ready", "deploy.unseed")


@pytest.mark.timeout(300)
@pytest.mark.parametrize("delay_s", [0.0, 0.03], ids=["before", "during"])
def test_a_libvirtd_that_dies_in_each_step_is_waited_for(
    real_host: Host, journal: Journal, private_daemon: PrivateLibvirtd, seeded: DeployRequest,
    monkeypatch: pytest.MonkeyPatch, delay_s: float,
) -> None:  # fmt: skip
    left = set(VERBS)

    def restart_with_qemu() -> None:
        wait_for(private_daemon.qemu_pids, "a QEMU")
        private_daemon.restart()

    def deadly(name: str) -> StepVerb:
        verb = verb_named(name)

        def do(context: StepContext, args: Args) -> Result:
            if name not in left:
                return verb.do(context, args)
            left.remove(name)
            has_qemu = name == "create.start" and delay_s  # libvirt 9.0 does not get over a death before
            killer = threading.Timer(delay_s, restart_with_qemu if has_qemu else private_daemon.restart)
            killer.start()
            if not delay_s:
                killer.join()
            try:
                return verb.do(context, args)
            finally:
                killer.join()

        return replace(verb, do=do)

    monkeypatch.setattr(job_engine, "verb_named", deadly)
    request = until_(seeded, "ready")
    _, job = submit_one(real_host, journal, request)
    if job.state is not JobState.DONE:  # libvirtd itself may not get over a death in the middle of a start
        private_daemon.restart_without(["doomed"])
        job = jobs.restart(job.id, real_host, journal)
    assert job.state is JobState.DONE, job.error
    assert left == set()
    assert [path.suffix for path in private_daemon.images.iterdir()] == [".qcow2"]
