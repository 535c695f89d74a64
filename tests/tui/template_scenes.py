"""What pictures show of templates: a library, the plan of a deployment on it, and a set of jobs that runs."""

from __future__ import annotations

from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path
from typing import Any

from host.connection import Host, open_host
from host.job_model import Job, JobState
from host.plan import Plan, PlanSet
from host.units import GIB, MIB
from hvtui.tui import undo_handlers
from tests.support import fake_library, new_vms
from tests.support.fake_library import DEBIAN, DISK, TINY
from tests.tui import scenes
from vm.create_request import Firmware
from vm.model import Snapshot, Vm
from vm.os_catalogue import OsSupport, SupportState
from vm.profile_model import GuestProfile, GuestUser
from vm.template_model import Library, Readiness, Template

_LARGE = "<memory>67108864</memory>"  # KiB
UBUNTU = replace(
    DEBIAN, name="ubuntu-24.04", images=(replace(DISK, volume="ubuntu-24.04.qcow2", virtual_size_bytes=8 * GIB),),
    revision=1, description="cloud image, as downloaded", origin="the qcow2 file noble-server-cloudimg-amd64.img",
    os_id="http://ubuntu.com/ubuntu/24.04", firmware=Firmware.UEFI, manifest="",
)  # fmt: skip
WINDOWS = Template(
    "win2k22", (replace(DISK, volume="win2k22.qcow2", virtual_size_bytes=64 * GIB, size_bytes=11 * GIB),), revision=2,
    description="sysprepped, no updates", origin="the vhdx file w2022.vhdx", created_at=DEBIAN.created_at,
    os_id="http://microsoft.com/win/2k22", firmware=Firmware.UEFI_SECURE, readiness=Readiness.AGENT, disk_bus="sata",
    nic_model="e1000e",
)  # fmt: skip
LIBRARY = Library(
    "library", "/var/lib/libvirt/library", templates=(DEBIAN, TINY, UBUNTU, WINDOWS),
    others=("debian-12.14.0-amd64-netinst.iso", "virtio-win.iso"), free_bytes=390 * GIB,
)  # fmt: skip


def read(_host: Host, _pool: str = "library") -> Library:
    """In place of vm.library.read on a host that is not there."""
    return LIBRARY


def look_up(os_id: str) -> OsSupport:
    """In place of vm.os_catalogue.look_up: a database that knows every system."""
    name = " ".join(os_id.rsplit("/", 2)[-2:]).title()
    return OsSupport(os_id, "", name, "", end_date=date(2028, 6, 30), state=SupportState.SUPPORTED, virtio_disk=True)


def guest() -> GuestProfile:
    """In place of the built-in guest profile, which is of who runs the program."""
    return GuestProfile("default", users=(GuestUser("ops", ("ssh-ed25519 AAAA ops",)),))


def host(directory: Path) -> Host:
    """A simulated host with the library's pool and images; it deploys nothing that is not in pictures."""
    pools = new_vms.POOL + fake_library.POOL + new_vms.NETWORK.format(name="default")
    path = directory / "library-world.xml"
    world = new_vms.WORLD.format(body=pools).replace("<memory>8388608</memory>", _LARGE)
    path.write_text(world, encoding="utf-8")
    opened = open_host(f"test://{path}", name="lab1")
    with opened.calls("fill the library") as connection:
        pool = connection.storagePoolLookupByName("library")
        for image in {image.volume: image for each in LIBRARY.templates for image in each.images}.values():
            pool.createXML(f"<volume><name>{image.volume}</name><capacity>{MIB}</capacity></volume>", 0)
    return opened


def as_on_lab1(plan_set: PlanSet) -> PlanSet:
    """The set as it is on the host of the picture."""
    plans = tuple(replace(plan, host_uri="qemu:///system") for plan in plan_set.plans)
    return replace(plan_set, plans=plans)


def snapshot() -> Snapshot:
    """The usual fleet, the web servers of which were deployed from debian."""
    return scenes.snapshot(tuple(map(_from_debian, scenes.varied_vms())))


def _from_debian(vm: Vm) -> Vm:
    if vm.config is None or not vm.name.startswith(("web-", "dns-")):
        return vm
    return replace(vm, config=replace(vm.config, template="debian", is_linked=vm.name != "dns-02"))


def import_plan() -> Plan:
    """What the import of an old bundle would do, and what was found when it was compared with the host."""
    return scenes.plan(
        "Import shop from /srv/bundles/shop-2019", "shop",
        "Upload and check its disk vda (3.1G)", "Upload its firmware variables", "Define shop",
        command=("vm", "import", "/srv/bundles/shop-2019", "--name", "shop"),
        warnings=("it is a copy, with a new identity (UUID, MAC addresses)",
                  "the machine type pc-q35-4.2 is not there: pc-q35-7.2 takes its place",
                  "the network lan is not there: its card is connected to default"),
        keeps=("the bundle /srv/bundles/shop-2019 stays as it is",),
        notes=("the bundle is whole by its 4 files' sizes (3.1G)", "the name shop is free",
               "the pool default has 390G free", "UEFI is there, and its variables fit",
               "2.0G of memory and 2 vCPUs can be had", "libvirt here takes its definition"),
    )  # fmt: skip


def undo_choices() -> list[tuple[str, str, str]]:
    """What u asks on a VM that was deployed with others, while another one's job is newer."""
    jobs = tuple(reversed([job for job in running_set() if job.set_id is not None]))
    own = replace(jobs[2], vm_name="web-03", title="Deploy web-03 from debian", set_title="Deploy 5 VMs from debian")
    last = scenes.job(212, JobState.DONE, scenes.stop_plan(), done=1)
    newest = undo_handlers.Found(last, last.plan)
    return undo_handlers.choices(undo_handlers.Found(own, own.plan), jobs[:5], newest)


def running_set() -> tuple[Job, ...]:
    """A deployment of eight VMs half-way, newest first, and what ran before."""
    steps = (
        "Link a disk of 4.0G to debian.qcow2", "Make the seed that tells its guest what to be", "Define {}",
        "Start {}", "Wait until its guest is ready, at most 600 s", "Take the seed away and delete it",
    )  # fmt: skip
    jobs = []
    for number in range(1, 9):
        name = f"web-{number + 20}"
        made = scenes.plan(f"Deploy {name} from debian", name, *(each.format(name) for each in steps),
                           command=("vm", "deploy", "debian", name))  # fmt: skip
        more: dict[str, Any] = {
            "set_id": 201, "set_title": "Deploy 8 VMs from debian, linked",
            "set_command": ("vm", "deploy", "-n", "8", "--first", "21", "debian", "web-{:02}"),
        }  # fmt: skip
        state, done, fraction = (
            (JobState.DONE, 6, None) if number <= 3 else (JobState.RUNNING, 4, 0.3 * (number - 3)) if number <= 6
            else (JobState.QUEUED, 0, None)
        )  # fmt: skip
        if state is JobState.RUNNING:
            more["started_at"] = scenes.NOW - timedelta(seconds=47)
        jobs.append(scenes.job(200 + number, state, made, done=done, fraction=fraction, **more))
    told = tuple(_with_note(job) for job in reversed(jobs))
    return (*told, *(job for job in scenes.jobs() if job.state.is_over))


def _with_note(job: Job) -> Job:
    steps = tuple(replace(step, note="cloud-init: modules-config") if step.note else step for step in job.steps)
    begun = scenes.NOW - timedelta(seconds=70)
    finished = begun + timedelta(seconds=20) if job.state is JobState.DONE else None
    return replace(job, steps=steps, created_at=begun, finished_at=finished)
