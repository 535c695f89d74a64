"""Still scenes of several hosts and of moves between them, for tests and pictures. Everything is data made here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Any

from host.connection import Link, LinkStatus, open_host
from host.host_list import HostEntry
from host.job_model import Job, JobState, StepState
from host.journal import Journal
from host.load import HostLoad
from host.maintenance import Maintenance
from host.plan import Plan, PlanSet, Step
from hvtui.config import Config
from hvtui.tui.app import Services
from hvtui.tui.fleet_state import FleetState
from hvtui.tui.fleet_view import merged
from hvtui.tui.messages import JobsChanged, SnapshotChanged
from hvtui.tui.move_text import Sight
from tests.tui import scenes
from tests.tui.scenes import CLOCK_S, DARK, GIB, MIB, StillApp
from vm.drain_model import DrainPlan, Fate
from vm.model import Snapshot, Vm
from vm.move import plan_of
from vm.move_model import Check, MoveDisk, MoveKind, MovePicture, MoveRequest
from vm.move_model import Link as Way
from vm.placement import Rating, rate
from vm.placement_model import Demand, DiskDemand, HostPicture, PoolPicture
from vm.whatif import n_minus_1

URI = "qemu+ssh://root@{}/system"
ENTRIES = tuple(
    HostEntry(name, URI.format(name), groups)
    for name, groups in (("lab1", ("lab",)), ("lab2", ("lab",)), ("lab3", ("lab",)), ("shop1", ("shop",)),
                         ("shop2", ("shop",)))
)  # fmt: skip
SO_FAR = timedelta(seconds=7)  # since the move of the scenes began
STALE, DRAINED = "shop2", "lab3"


class StillFleet(FleetState):
    """It looks at nothing by itself."""

    def snapshot_changed(self, snapshot: Snapshot) -> None:
        pass

    def jobs_changed(self) -> None:
        pass

    def look(self) -> None:
        pass


class StillMany(StillApp):
    """The app on the snapshots of several hosts."""

    def __init__(self, services: Services, by_host: Mapping[str, Snapshot], shown_jobs: tuple[Job, ...] = ()) -> None:
        super().__init__(services, merged(services.entries, by_host), shown_jobs)
        self.by_host = by_host
        self.fleet = StillFleet(self)
        uri = URI.format(DRAINED)
        self.fleet.notes = {uri: Maintenance(uri, DRAINED, "2026-05-04T09:58:00+00:00")}
        self.fleet.pictures = pictures()
        self.fleet.light = n_minus_1(self.fleet.pictures)

    def start_services(self) -> None:
        self.post_message(SnapshotChanged(self.picture, self.by_host))
        self.post_message(JobsChanged(self.shown_jobs))


def snapshots() -> dict[str, Snapshot]:
    """The VMs of the usual scene, spread over the hosts; one host is drained, one does not answer."""
    vms: dict[str, list[Vm]] = {entry.name: [] for entry in ENTRIES}
    for place, vm in enumerate(scenes.varied_vms()):
        name = "shop2" if vm.name in {"old-shop", "print"} else ("lab1", "lab2", "shop1")[place % 3]
        vms[name].append(replace(vm, host=name))
    found = {}
    for place, entry in enumerate(ENTRIES):
        load = HostLoad(
            cpu_percent=(23.0, 61.0, 2.0, 38.0, 11.0)[place], memory_used_bytes=(38, 21, 3, 44, 12)[place] * GIB,
            memory_total_bytes=64 * GIB, disk_used_bytes=610 * GIB, disk_total_bytes=1000 * GIB,
        )  # fmt: skip
        is_lost = entry.name == STALE
        error = "keepalive timed out" if is_lost else ""
        link = Link(LinkStatus.LOST if is_lost else LinkStatus.CONNECTED, 0.0, error)
        found[entry.name] = scenes.snapshot(
            tuple(vms[entry.name]), host_name=entry.name, uri=entry.uri, load=load, link=link,
            read_at_s=CLOCK_S - (12.0 if is_lost else 0.0),
        )  # fmt: skip
    return found


def many_app(*, config: Config = DARK, shown_jobs: tuple[Job, ...] = ()) -> StillMany:
    """The app on five hosts."""
    hosts = tuple(open_host(entry.uri, name=entry.name) for entry in ENTRIES)
    config = replace(config, hosts=ENTRIES)
    services = Services(host=hosts[0], journal=Journal(), config=config, hosts=hosts, entries=ENTRIES)
    return StillMany(services, snapshots(), shown_jobs)


def demand(name: str, number: int, host: str, **more: Any) -> Demand:
    values: dict[str, Any] = {
        "name": name, "vcpus": 2, "memory_bytes": 2 * GIB, "cpu_cores": 0.8, "uuid": f"uuid-{number}", "host": host,
        "disks": (DiskDemand(3 * GIB, "shared", f"/srv/shared/{name}.qcow2"),), "networks": frozenset({"default"}),
    }  # fmt: skip
    values.update(more)
    return Demand(**values)


def pictures() -> tuple[HostPicture, ...]:
    """What placement sees of the five hosts: lab1 to lab3 share a pool, the shop's hosts have one of their own."""
    found = []
    for place, entry in enumerate(ENTRIES):
        is_lab = entry.groups == ("lab",)
        volumes = frozenset({"web-01.qcow2", "web-02.qcow2", "mail.qcow2"}) if is_lab else frozenset[str]()
        pools = {"shared": PoolPicture("shared", 390 * GIB, 1000 * GIB, "/srv/shared", volumes)} if is_lab else {}
        vms = {
            "lab1": (demand("web-01", 1, "lab1"), demand("mail", 4, "lab1", memory_bytes=4 * GIB)),
            "lab2": (demand("web-02", 2, "lab2"),),
            "shop1": (demand("till", 7, "shop1", disks=(DiskDemand(9 * GIB, "default", "/var/lib/till.qcow2"),)),),
        }.get(entry.name, ())
        promised = (38, 21, 3, 44, 12)[place] * GIB
        found.append(
            HostPicture(
                entry.name,
                entry.uri,
                entry.groups,
                cpus=32,
                cpu_percent=(23.0, 61.0, 2.0, 38.0, None)[place],
                memory_bytes=64 * GIB,
                memory_free_bytes=64 * GIB - promised,
                memory_promised_bytes=promised,
                reserve_memory_bytes=GIB,
                network_percent=3.0,
                pools=pools,
                networks=frozenset({"default"}),
                vms=vms,
                is_drained=entry.name == DRAINED,
                is_reachable=entry.name != STALE,
                problem="no answer within 15 s" if entry.name == STALE else "",
            )
        )
    return tuple(found)


def ratings() -> tuple[Rating, ...]:
    """The hosts for web-01."""
    return rate(demand("web-01", 1, "lab1"), pictures())


def move_picture(*checks: Check, **more: Any) -> MovePicture:
    """What was read of lab1 and lab2 before web-01 moves."""
    disk = MoveDisk("vda", "disk", "/srv/shared/web-01.qcow2", "qcow2", 20 * GIB, 3 * GIB, is_shared=True,
                    target_pool="shared")  # fmt: skip
    usual = (
        Check("versions", True, "QEMU 7.2.22 on lab1, 7.2.22 on lab2"),
        Check("cpu", True, "the hosts' CPUs are alike (EPYC-Milan)"),
        Check("networks", True, "lab2 has its networks, and they are active"),
    )
    values: dict[str, Any] = {
        "vm_uuid": scenes.varied_vms()[0].uuid, "vm_name": "web-01", "source_uri": URI.format("lab1"),
        "target_uri": URI.format("lab2"), "source_name": "lab1", "target_name": "lab2", "is_running": True,
        "memory_bytes": 2 * GIB, "dirty_bytes_s": 4.0 * MIB, "resident_bytes": 900 * MIB,
        "disks": (disk,),
        "checks": (*usual, *checks), "link": Way(118e6, "measured by job 214", is_measured=True),
        "inactive_xml": "<domain type='kvm'><name>web-01</name><devices/></domain>",
    }  # fmt: skip
    values.update(more)
    return MovePicture(**values)


MEDIUM = Check("medium", False, "the CD /srv/iso/debian.iso is not on lab2", "Eject it (--eject)",
               frozenset({MoveKind.LIVE, MoveKind.QUICK}))  # fmt: skip
NOT_OFF = Check("state", False, "it is running, and an offline move needs it off", blocks=frozenset({MoveKind.OFFLINE}))


def move_sight(*checks: Check) -> tuple[Plan, Sight]:
    """The plan that moves web-01 live from lab1 to lab2, and what its dialog shows."""
    picture, request = move_picture(NOT_OFF, *checks), MoveRequest()
    source = open_host(picture.source_uri, name="lab1")
    command = ("vm", "migrate", "--to", "lab2", "web-01")
    plan = plan_of(source, picture, MoveKind.LIVE, request, command=command)
    best = next(rating for rating in ratings() if rating.host == "lab2")
    return plan, Sight(picture, MoveKind.LIVE, request, rating=best)


def moving(note: str = "", *, fraction: float | None = 0.74, postcopy: bool = True) -> Job:
    """A job that moves web-01 live, in the middle of it."""
    plan, _sight = move_sight()
    steps = tuple(
        replace(step, args={**step.args, "postcopy": postcopy}) if step.verb == "move.live" else step
        for step in plan.steps
    )
    plan = replace(plan, steps=steps)
    job = scenes.job(231, JobState.RUNNING, plan)
    at = next(i for i, step in enumerate(plan.steps) if step.verb == "move.live")
    words = note or "memory, round 3: 236M of 908M left, 112M/s, dirty 4.2M/s"
    states = [StepState.DONE] * at + [StepState.RUNNING] + [StepState.PENDING] * (len(plan.steps) - at - 1)
    shown = [replace(step, state=state) for step, state in zip(job.steps, states, strict=True)]
    shown[at] = replace(shown[at], fraction=fraction, note=words)
    return replace(job, steps=tuple(shown), created_at=scenes.NOW - SO_FAR, started_at=scenes.NOW - SO_FAR)


def moved() -> Job:
    """The same job when it is over."""
    job = moving()
    result = {"handed_over": True, "total_s": 8.1, "downtime_s": 0.043, "bytes": 931 * MIB}
    steps = tuple(
        replace(step, state=StepState.DONE, note="", fraction=None, result=result if step.verb == "move.live" else None)
        for step in job.steps
    )
    return replace(job, state=JobState.DONE, steps=steps, finished_at=scenes.NOW)


def waiting_jobs() -> tuple[Job, ...]:
    """A move that runs, one that waits for its turn, and one that was paused."""
    others = []
    for number, name in ((233, "web-03"), (232, "web-02")):
        plan = scenes.plan(f"Move {name} to lab2 (live)", name, "Migrate it live")
        others.append(scenes.job(number, JobState.QUEUED, plan, waits_for="2 moves run on lab2 already"))
    return replace(others[0], is_paused=True), others[1], moving()


def drain_plan() -> DrainPlan:
    """What becomes of the VMs of lab1."""

    def leaving(name: str, number: int, fate: str, host: str, took_s: float, why: str) -> Fate:
        plan = scenes.plan(f"Move {name} to {host} ({fate})" if host else f"Save {name}", name, "Migrate it live")
        stars = {"lab2": 3.5, "shop1": 2.5}.get(host, 0.0)
        plan = replace(plan, host_uri=URI.format("lab1"))
        return Fate(name, f"uuid-{number}", fate, why, host=host, stars=stars, predicted_s=took_s, plan=plan)

    fine = "nothing less disruptive is needed"
    fates = (
        leaving("git", 12, "live-storage", "shop1", 94.0, "live cannot be: shop1 does not see its disk vda"),
        leaving("web-01", 1, "live", "lab2", 9.0, fine),
        leaving("mail", 4, "live", "lab2", 14.0, fine),
        leaving("legacy", 7, "save", "", 7.0, "lab2: it has no kvm; shop1: it has no kvm"),
        Fate("vpn", "uuid-15", "stay", "it has a device of the host, which nobody else has"),
        Fate("build-07", "uuid-16", "stay", "it is off", is_active=False),
    )
    first = Plan("Drain lab1", URI.format("lab1"), (Step("host.drain", "Note that lab1 takes no VMs"),), ("host",))
    plans = tuple(fate.plan for fate in fates if fate.plan is not None)
    plan_set = PlanSet("Drain lab1", plans, ("host", "drain", "lab1"), preparations=(first,))
    return DrainPlan("lab1", fates, plan_set, 101.0)
