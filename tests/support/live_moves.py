"""A live move in a test: two lab hosts as hvtui sees them, the plan between them, and the job that runs it."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import libvirt

from host import jobs
from host.connection import Host, open_host
from host.job_engine import Patience
from host.job_model import Job
from host.journal import Journal
from host.plan import Plan
from tests.support.lab import Lab
from tests.support.lab_host import LabHost
from tests.support.lab_saved import RunningGuest
from tests.support.waiting import wait_for
from vm import inventory, steps
from vm.move import plan_move
from vm.move_model import MoveKind, MoveOptions, MoveRequest

assert steps  # registers the verbs
DEADLY = Path(__file__).parent / "killing"
SLOW = 2 * 1024**2  # bytes a second: the guest's memory takes a minute
PATIENCE = Patience(reconnect_s=30.0, first_delay_s=0.2, longest_delay_s=1.0)


class Pair:
    """Two hosts, the first of which the VM is on."""

    def __init__(self, lab: Lab, source: str = "lab1", target: str = "lab2") -> None:
        self.here, self.there = lab[source], lab[target]
        self.source, self.target = opened(self.here), opened(self.there)
        self.journal = Journal()

    def close(self) -> None:
        for host in (self.source, self.target):
            host.close()
        self.journal.close()

    def plan(self, name: str, kind: MoveKind | None = None, *, direct: bool = False, **options: Any) -> Plan:
        """The plan as the command makes it."""
        request = MoveRequest(
            kind, peer_uri="" if direct else self.there.peer_uri, options=MoveOptions(**{"eject": False, **options})
        )
        return plan_move(self.source, self.target, inventory.find(self.source, name), request)

    def run(self, plan: Plan) -> Job:
        """Run a plan to its end, in this thread."""
        job = jobs.create(plan, self.journal)
        return jobs.run(job.id, self.source, self.journal, patience=PATIENCE)

    def begin(self, plan: Plan) -> UnderWay:
        """Run a plan beside the test; returns when libvirt is sending the guest's memory."""
        moving = UnderWay(self, jobs.create(plan, self.journal))
        wait_for(lambda: moving.is_over or is_sending(self.source, plan), what="the guest's memory to be sent")
        assert not moving.is_over, moving.job
        return moving


class UnderWay:
    """A job that runs in a thread of the test's process."""

    def __init__(self, pair: Pair, job: Job) -> None:
        self.id = job.id
        self.journal = pair.journal
        self._ended: list[Job] = []
        self._thread = threading.Thread(target=self._run, args=(pair,), daemon=True)
        self._thread.start()

    def _run(self, pair: Pair) -> None:
        self._ended.append(jobs.run(self.id, pair.source, pair.journal, patience=PATIENCE))

    @property
    def is_over(self) -> bool:
        return not self._thread.is_alive()

    @property
    def job(self) -> Job:
        return self._ended[0] if self._ended else self.journal.job(self.id)

    def ended(self, timeout_s: float = 180.0) -> Job:
        """The job, when it is over."""
        self._thread.join(timeout_s)
        assert self._ended, f"still under way: {self.journal.job(self.id)}"
        return self._ended[0]


def opened(host: LabHost) -> Host:
    return open_host(host.uri, name=host.name)


def is_sending(source: Host, plan: Plan) -> bool:
    """Whether libvirt sends the guest's memory just now."""
    with source.calls("look") as connection:
        try:
            statistics = connection.lookupByUUIDString(plan.vm_uuid or "").jobStats()
        except libvirt.libvirtError:
            return False
        sent = int(statistics.get("memory_processed", 0)) + int(statistics.get("disk_processed", 0))
        return bool(statistics.get("type")) and sent > 0


# What both hosts say


def states(pair: Pair, name: str) -> tuple[str, str]:
    """The VM on both hosts: running, paused, off or gone; and "half" for one that a migration holds."""
    return state(pair.here, name), state(pair.there, name)


def state(host: LabHost, name: str) -> str:
    connection = host.connect()
    try:
        found = next((each for each in connection.listAllDomains() if each.name() == name), None)
        if found is None:
            return "gone"
        current, reason = found.state()
        if current == libvirt.VIR_DOMAIN_PAUSED:
            return "half" if reason == libvirt.VIR_DOMAIN_PAUSED_MIGRATION else "paused"
        return {libvirt.VIR_DOMAIN_RUNNING: "running", libvirt.VIR_DOMAIN_SHUTOFF: "off"}.get(current, str(current))
    finally:
        connection.close()


def runs_at_the_target_alone(pair: Pair, guest: RunningGuest) -> None:
    """Its life goes on there, it is defined there and nowhere else, and nothing of the move is left."""
    assert states(pair, guest.name) == ("gone", "running")
    guest.counted_on(pair.there)
    domain = guest.on(pair.there)
    assert domain.isPersistent()
    assert "hvtui.org/xmlns/move" not in domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE)
    assert not pair.here.qemu_pids()
    assert_no_leftovers(pair)


def runs_at_the_source_alone(pair: Pair, guest: RunningGuest) -> None:
    """Nothing has changed for it, and the target knows nothing of it."""
    assert states(pair, guest.name) == ("running", "gone")
    guest.counted_on(pair.here)
    assert guest.on(pair.here).isPersistent()
    assert not pair.there.qemu_pids()
    assert_no_leftovers(pair)


def assert_no_leftovers(pair: Pair) -> None:
    for host in (pair.here, pair.there):
        names = set(host.run(["ls", "/srv/shared/images", "/var/lib/libvirt/images"]).stdout.split())
        assert not {name for name in names if "hvtui-token" in name or name.endswith(".save")}, (host.name, names)


def volumes(host: LabHost, pool: str = "default") -> set[str]:
    place = {"default": "/var/lib/libvirt/images", "shared": "/srv/shared/images"}[pool]
    return set(host.run(["ls", place]).stdout.split())


def figures(job: Job) -> Mapping[str, Any]:
    """The result of the live step."""
    index = next(step.index for step in job.steps if step.verb == "move.live")
    return dict(job.steps[index].result or {})


# The real program


def configured(lab: Lab, config_file: Path) -> None:
    """A configuration with the lab's hosts under their names."""
    lines = ['accelerator = "qemu"']
    for host in lab.hosts:
        lines += ["[[host]]", f'name = "{host.name}"', f'uri = "{host.uri}"', f'peer_uri = "{host.peer_uri}"']
    config_file.write_text("\n".join(lines) + "\n", encoding="utf-8")


def hvtui(*arguments: str, timeout_s: float = 180.0, **environment: str) -> subprocess.CompletedProcess[str]:
    """The real program, in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "hvtui", "--headless", *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
        env={**os.environ, **environment},
    )


def with_options(plan: Plan, verb: str, **changes: Any) -> Plan:
    """The same plan with other arguments of a step."""
    changed = tuple(replace(step, args={**step.args, **changes}) if step.verb == verb else step for step in plan.steps)
    return replace(plan, steps=changed)
