"""Still scenes for the tests and pictures of the terminal interface: a frozen fleet on a frozen host.

Everything is data made here, so that a picture is the same at each run. `still_app` shows a scene without any feed.
"""

from __future__ import annotations

import math
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from host.connection import Host, Link, LinkStatus, open_host
from host.events import Event, EventKind
from host.facts import NodeFacts
from host.job_model import Job, JobState, JobStep, StepState
from host.journal import Journal
from host.load import HostLoad
from host.plan import Danger, Plan, Step
from hvtui.config import Config, Ui
from hvtui.tui.app import HvtuiApp, Services
from hvtui.tui.messages import JobsChanged, SnapshotChanged
from vm.model import Disk, Nic, Snapshot, Vm, VmConfig, VmRates, VmState

GIB = 1024**3
MIB = 1024**2
NOW = datetime(2026, 5, 4, 10, 30, tzinfo=UTC)
CLOCK_S = 86_400.0

FACTS = NodeFacts(
    host_name="lab1", architecture="x86_64", cpu_model="EPYC 7313P", cpu_vendor="AMD", cpus=32, sockets=1,
    cores_per_socket=16, threads_per_core=2, cpu_mhz=3000, memory_bytes=64 * GIB, numa=(), driver="QEMU",
    hypervisor_version="7.2.22", libvirt_version="9.0.0", accelerator="kvm", accelerator_reason="a guest started",
    machine_types=("pc-q35-7.2",), firmware=("bios", "uefi"), secure_boot=True, tpm_models=("tpm-crb",),
    emulator="/usr/bin/qemu-system-x86_64", default_machine="pc-q35-7.2", vcpus_max=288,
)  # fmt: skip
LOAD = HostLoad(
    cpu_percent=23.0, memory_used_bytes=int(38.4 * GIB), memory_total_bytes=64 * GIB,
    disk_used_bytes=610 * GIB, disk_total_bytes=1000 * GIB,
)  # fmt: skip


def wave(busy: float, phase: float, length: int = 60) -> tuple[float, ...]:
    """A made-up history around `busy` percent that ends there."""
    before = (1 + 0.5 * math.sin(phase + i / 3) + 0.2 * math.sin(i * 1.7) for i in range(length - 1))
    return (*(max(busy * each, 0.0) for each in before), busy)


def config(name: str, number: int, **changes: Any) -> VmConfig:
    """What the XML of a usual VM says."""
    values: dict[str, Any] = {
        "virtualization": "kvm", "machine": "pc-q35-7.2", "firmware": "uefi", "cpu_mode": "host-model",
        "memory_bytes": 2 * GIB, "memory_max_bytes": 2 * GIB, "vcpus": 2, "vcpus_max": 2,
        "disks": (Disk("vda", "virtio", "disk", f"/var/lib/libvirt/images/{name}.qcow2", "file", "qcow2"),),
        "nics": (Nic(f"52:54:00:1a:2b:{number % 256:02x}", "virtio", "bridge", "br0", f"vnet{number}"),),
        "has_agent_channel": True, "agent_connected": True, "has_serial_console": True, "has_balloon": True,
        "has_rng": True, "graphics": ("vnc socket",),
    }  # fmt: skip
    values.update(changes)
    return VmConfig(**values)


def running(
    name: str, number: int, *, cpu: float, memory_gib: float = 2.0, tags: tuple[str, ...] = (), **more: Any
) -> Vm:
    """A running VM with rates that follow from its CPU's."""
    memory = int(memory_gib * GIB)
    extra = more.pop("config", {})
    values: dict[str, Any] = {
        "uuid": f"00000000-0000-4000-8000-{number:012d}", "name": name, "state": VmState.RUNNING, "domain_id": number,
        "vcpus": 2, "memory_bytes": memory, "memory_max_bytes": memory, "memory_used_bytes": int(memory * 0.46),
        "rates": VmRates(cpu, 0.2, cpu * 21_000, cpu * 9_000, cpu * 30_000, cpu * 7_500),
        "cpu_history": wave(cpu, number), "addresses": (f"198.51.100.{10 + number}",),
        "started_at": NOW - timedelta(hours=7 * number, minutes=12), "autostart": True,
        "config": config(name, number, tags=tags, **extra),
    }  # fmt: skip
    values.update(more)
    return Vm(**values)


def resting(name: str, number: int, state: VmState = VmState.OFF, *, memory_gib: float = 4.0, **more: Any) -> Vm:
    """A VM that does not run."""
    memory = int(memory_gib * GIB)
    extra = more.pop("config", {})
    values: dict[str, Any] = {
        "uuid": f"00000000-0000-4000-8000-{number:012d}", "name": name, "state": state, "vcpus": 2,
        "memory_bytes": memory, "memory_max_bytes": memory,
        "config": config(name, number, agent_connected=None, **extra),
    }  # fmt: skip
    values.update(more)
    return Vm(**values)


def varied_vms() -> tuple[Vm, ...]:
    """About two dozen VMs as a small shop has them."""
    vms = [
        running("web-01", 1, cpu=41, tags=("web", "prod"), config={"title": "shop front"}),
        running("web-02", 2, cpu=6, tags=("web", "prod")),
        running("web-03", 3, cpu=18, tags=("web", "prod"), config={"agent_connected": False}, addresses=()),
        running("web-10", 10, cpu=2, tags=("web", "stage")),
        running("mail", 4, cpu=9, memory_gib=4, tags=("prod",), checkpoints=1),
        running("db-02", 6, cpu=93, memory_gib=16, tags=("db", "prod"), checkpoints=2),
        running("legacy", 7, cpu=11, config={"virtualization": "qemu", "machine": "pc-i440fx-7.2", "firmware": "bios",
                "has_agent_channel": False, "agent_connected": None}, addresses=(), memory_used_bytes=None),
        running("monitor", 8, cpu=4, tags=("infra",)),
        running("dns-01", 9, cpu=0, memory_gib=0.5, tags=("infra",), addresses=("198.51.100.2", "2001:db8::2")),
        running("dns-02", 11, cpu=0, memory_gib=0.5, tags=("infra",), addresses=("2001:db8::3",)),
        running("git", 12, cpu=22, memory_gib=8, tags=("infra", "prod")),
        running("ci-runner-1", 13, cpu=77, memory_gib=8, tags=("ci",)),
        running("ci-runner-2", 14, cpu=64, memory_gib=8, tags=("ci",)),
        running("vpn", 15, cpu=1, memory_gib=0.5, tags=("infra",)),
        resting("build-07", 16, checkpoints=1),
        resting("build-08", 17, VmState.SAVED, has_saved_state=True),
        resting("win-2022-template", 18, memory_gib=8, config={"os_id": "win2k22"}),
        resting("debian-12-template", 19, memory_gib=1),
        resting("old-shop", 20, VmState.CRASHED, state_reason="crashed"),
        running("standby", 21, cpu=0, state=VmState.PAUSED, rates=VmRates(), cpu_history=()),
        running("print", 22, cpu=1, state=VmState.SHUTTING_DOWN),
        resting("日本語-test", 23),
        resting("wiki", 24),
        running("db-01", 5, cpu=0, memory_gib=4, tags=("db", "prod"), state=VmState.PAUSED, state_reason="disk error",
                rates=VmRates(), cpu_history=(), config={"disks": (
                    Disk("vda", "virtio", "disk", "/var/lib/libvirt/images/db-01.qcow2", "file", "qcow2"),
                    Disk("vdb", "virtio", "disk", "/srv/data/db-01-data.qcow2", "file", "qcow2"),
                    Disk("sda", "sata", "cdrom", "", "file", "raw", read_only=True))}),
    ]  # fmt: skip
    return tuple(vms)


def hostile_vms() -> tuple[Vm, ...]:
    """VMs whose names and titles try to control what shows them."""
    names = ("[bold]markup[/]\x1b[31m", "evil\u202etxt\x9b31m", "日本語-テスト", "*?[a-z]", "a" * 300)
    return tuple(running(name, n, cpu=n, config={"title": f"[red]{name}"}) for n, name in enumerate(names, 1))


def many_vms(count: int) -> tuple[Vm, ...]:
    """`count` simulated VMs, most of them running."""
    return tuple(
        running(f"vm-{n:05d}", n, cpu=n % 97, tags=("odd",) if n % 2 else ()) if n % 5 else resting(f"vm-{n:05d}", n)
        for n in range(1, count + 1)
    )


def snapshot(vms: tuple[Vm, ...] | None = None, **changes: Any) -> Snapshot:
    """A picture of the host lab1."""
    values: dict[str, Any] = {
        "host_name": "lab1", "uri": "qemu:///system", "vms": varied_vms() if vms is None else vms, "load": LOAD,
        "link": Link(LinkStatus.CONNECTED, 0.0), "read_at_s": CLOCK_S, "facts": FACTS,
    }  # fmt: skip
    values.update(changes)
    return Snapshot(**values)


def lost(picture: Snapshot, *, seconds: float = 12.0) -> Snapshot:
    """The same picture on a link that was lost some seconds ago."""
    link = Link(LinkStatus.LOST, CLOCK_S - seconds, "connection lost: keepalive timed out")
    return replace(picture, link=link, read_at_s=CLOCK_S - seconds)


def earlier(vm: Vm, ago: int) -> Vm:
    """The VM with the rates it had so many measurements ago."""
    rates = vm.rates
    if rates.cpu_percent is None:
        return vm
    phase = ago / (2.0 + (vm.domain_id or 0) % 5 * 0.4)
    factor, other = 0.6 + 0.4 * math.cos(phase), 0.5 + 0.3 * math.cos(phase * 1.7) + 0.2 * math.cos(ago * 1.3)
    now = replace(
        rates,
        cpu_percent=vm.cpu_history[-ago % len(vm.cpu_history) - 1] if vm.cpu_history else rates.cpu_percent,
        net_receive_bytes_s=(rates.net_receive_bytes_s or 0) * factor,
        net_send_bytes_s=(rates.net_send_bytes_s or 0) * other,
        disk_read_bytes_s=(rates.disk_read_bytes_s or 0) * factor**2,
        disk_write_bytes_s=(rates.disk_write_bytes_s or 0) * other**2,
    )
    used = vm.memory_used_bytes
    return replace(vm, rates=now, memory_used_bytes=used and int(used * (1 - 0.004 * ago + 0.02 * math.sin(ago / 4))))


def plan(title: str, name: str, *steps: str, **changes: Any) -> Plan:
    """A plan with these steps; nothing can run it."""
    values: dict[str, Any] = {
        "title": title, "host_uri": "qemu:///system", "command": ("vm", title.split()[0].lower(), name),
        "steps": tuple(Step("scene.step", each, commands=(f"virsh edit {name}",)) for each in steps),
        "vm_uuid": "00000000-0000-4000-8000-000000000001", "vm_name": name,
    }  # fmt: skip
    values.update(changes)
    return Plan(**values)


def stop_plan() -> Plan:
    """A disruptive plan."""
    return plan("Shut down web-01", "web-01", "Ask the guest agent of web-01 to shut down, else press its power button",
                danger=Danger.DISRUPTIVE, command=("vm", "stop", "web-01"))  # fmt: skip


def job(number: int, state: JobState, made: Plan, *, done: int = 0, fraction: float | None = None, **more: Any) -> Job:
    """A job of `made` with `done` finished steps and the next one at `fraction`."""
    steps = tuple(
        JobStep(
            i, each.verb, each.title,
            StepState.DONE if i < done else StepState.RUNNING if i == done and fraction is not None
            else StepState.FAILED if i == done and state is JobState.FAILED else StepState.PENDING,
            fraction if i == done else None, "1.2G of 2.9G, 12 s left" if i == done and fraction is not None else "",
        )
        for i, each in enumerate(made.steps)
    )  # fmt: skip
    began = NOW - timedelta(minutes=200 - number)
    values: dict[str, Any] = {
        "id": number, "title": made.title, "state": state, "user": "ops", "host_uri": made.host_uri,
        "vm_uuid": made.vm_uuid, "vm_name": made.vm_name, "command": made.command, "steps": steps, "plan": made,
        "created_at": began, "started_at": began,
        "finished_at": began + timedelta(seconds=9) if state.is_over else None,
    }  # fmt: skip
    values.update(more)
    return Job(**values)


def jobs() -> tuple[Job, ...]:
    """Jobs in every state, newest first."""
    create = plan("Create web-11", "web-11", "Make the disk web-11.qcow2, 20G", "Define web-11", "Start web-11",
                  "Wait for its agent", command=("vm", "create", "web-11", "--from", "debian-12"))  # fmt: skip
    return (
        job(196, JobState.RUNNING, create, done=1, fraction=0.41),
        job(195, JobState.DONE, stop_plan(), done=1),
        job(194, JobState.FAILED, plan("Start legacy", "legacy", "Start legacy"), done=0, exit_code=1,
            error="cannot start: unable to open disk image /srv/old/legacy.img: No such file or directory",
            remedy="Put the disk image back, or take the disk out of the VM"),
        job(193, JobState.INTERRUPTED, create, done=2),
        job(192, JobState.CANCELLED, plan("Save standby", "standby", "Save standby"), done=0),
        job(191, JobState.DONE, plan("Rename old-shop", "old-shop", "Rename shop to old-shop"), done=1),
    )  # fmt: skip


def events() -> tuple[Event, ...]:
    """What happened lately, oldest first."""
    told = (
        ("web-03", EventKind.STARTED, "booted"), ("db-01", EventKind.IO_ERROR, "enospc on /srv/data/db-01-data.qcow2"),
        ("db-01", EventKind.PAUSED, "disk error"), ("build-08", EventKind.STOPPED, "saved"),
        ("mail", EventKind.AGENT, "connected"), ("print", EventKind.SHUTTING_DOWN, "by the host"),
        ("old-shop", EventKind.CRASHED, "panicked"), ("legacy", EventKind.REBOOTED, ""),
        ("web-01", EventKind.METADATA, ""), ("standby", EventKind.PAUSED, "by request"),
    )  # fmt: skip
    return tuple(
        Event(kind, f"u{number}", name, detail, NOW - timedelta(seconds=97 * (len(told) - number)))
        for number, (name, kind, detail) in enumerate(told)
    )


class StillApp(HvtuiApp):
    """The app on one snapshot: nothing arrives by itself."""

    def __init__(self, services: Services, picture: Snapshot, shown_jobs: tuple[Job, ...] = ()) -> None:
        super().__init__(services)
        self.picture = picture
        self.shown_jobs = shown_jobs

    def now(self) -> datetime:
        return NOW

    def clock_s(self) -> float:
        return CLOCK_S

    def start_services(self) -> None:
        for ago in range(60, 0, -1):  # the charts of net and disk show what arrived one after the other
            vms = tuple(earlier(vm, ago) for vm in self.picture.vms)
            self.post_message(SnapshotChanged(replace(self.picture, vms=vms, load=replace(self.picture.load))))
        self.post_message(SnapshotChanged(self.picture))
        self.post_message(JobsChanged(self.shown_jobs))


DARK = Config(ui=Ui(theme="dark", ascii=False))  # a test's own terminal chooses nothing


def still_app(
    picture: Snapshot | None = None,
    *,
    config: Config | None = None,
    host: Host | None = None,
    shown_jobs: tuple[Job, ...] = (),
) -> StillApp:
    """An app that shows `picture`; actions would work on `host`."""
    services = Services(
        host=host or open_host("test:///default", name="lab1"), journal=Journal(), config=config or DARK
    )
    return StillApp(services, picture or snapshot(), shown_jobs)
