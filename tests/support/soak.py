"""Random moves with random faults: drawn from a seed, carried out, their jobs completed as a person would do it.

What is drawn depends on the seed and the number of the move alone. When exactly a fault strikes does not: machines are
not equally fast.
"""

from __future__ import annotations

import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from host import jobs
from host.errors import HvtuiError
from host.job_engine import Patience
from host.job_model import Job, JobState, StepState
from host.plan import Plan
from tests.support.lab_host import LabHost
from tests.support.soak_faults import EXTRA, FAULTS, FULL, KILLED, NOTHING, Act
from tests.support.soak_watch import Watch
from tests.support.soak_world import Expected, SoakGuest, World
from vm import inventory, steps
from vm.move import plan_move
from vm.move_model import MoveKind, MoveOptions, MoveRequest

assert steps  # registers the verbs
PATIENCE = Patience(reconnect_s=20.0, first_delay_s=0.2, longest_delay_s=1.0)
_LONGEST_S = 240.0
_ATTEMPTS = 6
_MIB = 1024**2
_KINDS = {
    "shared": (None, None, MoveKind.LIVE, MoveKind.QUICK, MoveKind.QUICK, MoveKind.OFFLINE),
    "default": (None, MoveKind.LIVE_STORAGE, MoveKind.LIVE_STORAGE, MoveKind.QUICK, MoveKind.QUICK, MoveKind.OFFLINE),
}
# Where a fault tells most: these steps are struck more often than the others.
_HEAVY = {"move.live": 8, "move.save": 3, "move.carry": 3, "move.restore": 4, "move.copy-disks": 3, "move.finish": 2}
_FALLBACK = frozenset({"move.save", "move.carry", "move.restore", "move.drop-save", "move.hold"})


@dataclass(slots=True)
class Record:
    """What was drawn for a move, and what came of it. `wrong` is empty when everything held."""

    number: int
    guest: str
    kind: str
    way: str
    fault: str
    struck: str = ""
    ends: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    seconds: float = 0.0

    def __str__(self) -> str:
        ends = " → ".join(self.ends)
        wrong = f" WRONG: {'; '.join(self.wrong)}" if self.wrong else ""
        return (
            f"{self.number:3} {self.seconds:5.1f} s {self.guest} {self.kind} {self.way}: {self.fault} {self.struck}:"
            f" {ends}{wrong}"
        )


class Soak:
    """Moves of the world's guests. `most_hold_s` is how long a fault lasts at most."""

    def __init__(self, world: World, watch: Watch, seed: str, *, most_hold_s: float) -> None:
        self.world, self._watch, self._seed, self._most_hold_s = world, watch, seed, most_hold_s
        self._made = len(world.guests)

    def move(self, number: int) -> Record:
        """Draw one move, carry it out, check everything; what is wrong is put right for the next one."""
        draw = random.Random(f"{self._seed}:{number}")  # noqa: S311
        guest = draw.choice(self.world.guests)
        here = guest.host
        there = draw.choice([host for host in self.world.lab.hosts if host is not here])
        kind = draw.choice(_KINDS[guest.pool])
        fault = draw.choice(sorted(FAULTS))
        if kind is MoveKind.OFFLINE and fault in {EXTRA, "the guest powers off"}:
            fault = NOTHING
        record = Record(number, guest.name, str(kind or "auto"), f"{here.name} to {there.name}", fault)
        started_s = time.monotonic()
        try:
            self._carry_out(draw, record, guest, there, kind)
        except (AssertionError, HvtuiError, RuntimeError) as error:
            record.wrong.append(f"{type(error).__name__}: {error}")
        self._go_on(record, guest)
        record.seconds = time.monotonic() - started_s
        return record

    def _carry_out(
        self, draw: random.Random, record: Record, guest: SoakGuest, there: LabHost, kind: MoveKind | None
    ) -> None:
        here, world = guest.host, self.world
        world.start_again(guest)
        world.counts(guest)
        if kind is MoveKind.OFFLINE:
            world.switch_off(guest)
        plan = self._plan(draw, guest, there, kind)
        record.kind = plan.title.rpartition("(")[2].rstrip(")") if not kind else record.kind
        if guest.pool == "shared" and any(step.verb == "move.copy-disks" for step in plan.steps):
            record.wrong += [f"its shared disk is copied: {why}" for why in world.likeness(guest, there)]
        if record.fault == FULL:
            free = draw.randint(_MIB, 3 * _MIB)
            there.fill_disk("/var/lib/libvirt/images" if guest.pool == "default" else "/srv/shared/images",
                            free_bytes=free)  # fmt: skip
        hold_s = draw.choice([0.5, 1.5, 4.0, self._most_hold_s])
        job = jobs.create(plan, world.journal)
        act = Act(world, guest, here, there, job.id, hold_s)
        self._watch.doubled()
        over = self._start(act, is_apart=record.fault == KILLED)
        strike = _Strike(act, draw, record, plan, over)
        job = over()
        strike.join()
        world.make_well()
        job = self._settle(draw, record, here, job)
        expected = there if job.state is JobState.DONE else here
        is_off = kind is MoveKind.OFFLINE
        may_be_off = act.is_ended or expected in act.dead or is_off
        record.wrong += self._watch.doubled()
        has_told = any("booted anew" in warning for warning in job.warnings)
        record.wrong += world.wrong(guest, Expected(expected, may_be_off, must_be_off=is_off, has_told=has_told))
        if not record.wrong:
            self._check_others(record, guest, act)
            record.wrong += world.left_over()

    def _plan(self, draw: random.Random, guest: SoakGuest, there: LabHost, kind: MoveKind | None) -> Plan:
        source, target = self.world.hvtui(guest.host), self.world.hvtui(there)
        options = MoveOptions(bandwidth_bytes_s=draw.choice([None, 16 * _MIB, 48 * _MIB]))
        peer_uri = draw.choice([there.peer_uri, there.peer_uri, ""])
        request = MoveRequest(kind, peer_uri=peer_uri, options=options)
        return plan_move(source, target, inventory.find(source, guest.name), request)

    def _start(self, act: Act, *, is_apart: bool) -> Callable[[], Job]:
        """Run the job, here or in a process of its own; returns what waits for its end."""
        journal, source = act.journal, self.world.hvtui(act.here)
        if is_apart:
            command = [sys.executable, "-m", "hvtui", "--headless", "job", "run", str(act.job_id)]
            act.runner = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

            def wait_apart() -> Job:
                assert act.runner is not None
                act.runner.wait(_LONGEST_S)
                journal.recover()
                return journal.job(act.job_id)

            return wait_apart
        ended: list[Job | HvtuiError] = []

        def run() -> None:
            try:
                ended.append(jobs.run(act.job_id, source, journal, patience=PATIENCE))
            except HvtuiError as error:
                ended.append(error)

        thread = threading.Thread(target=run, daemon=True)
        thread.start()

        def wait_here() -> Job:
            thread.join(_LONGEST_S)
            assert ended, f"the job does not end: {journal.job(act.job_id)}"
            if isinstance(ended[0], HvtuiError):
                raise ended[0]
            return ended[0]

        return wait_here

    def _settle(self, draw: random.Random, record: Record, here: LabHost, job: Job) -> Job:
        """Restart the job or roll it back, one after the other where one does not help, until it is over for good."""
        source, journal = self.world.hvtui(here), self.world.journal
        record.ends.append(_end(job))
        ways = [jobs.restart, jobs.rollback]
        draw.shuffle(ways)
        for attempt in range(_ATTEMPTS):
            if job.state is not JobState.INTERRUPTED and not job.kept:
                return job
            way = ways[attempt % 2]
            job = way(job.id, source, journal, patience=PATIENCE)
            record.ends.append(f"{way.__name__}: {_end(job)}")
        raise AssertionError(f"the job cannot be completed: {job.error} ({job.remedy})")

    def _check_others(self, record: Record, moved: SoakGuest, act: Act) -> None:
        for guest in self.world.guests:
            if guest is not moved:
                expected = Expected(guest.host, may_be_off=guest.host in act.dead)
                record.wrong += [f"{guest.name}: {what}" for what in self.world.wrong_place(guest, expected)]

    def _go_on(self, record: Record, guest: SoakGuest) -> None:
        """All guests run, on well hosts; one of which something is wrong is replaced."""
        if record.wrong:
            self.world.make_well()
            self.world.wipe(guest)
            self._made += 1
            self.world.add_guest(f"g{self._made}", self.world.lab.hosts[self._made % 3], guest.pool)
            self.world.sweep()
        for each in self.world.guests:
            self.world.start_again(each)


def _end(job: Job) -> str:
    words = f" ({job.error} | {job.remedy})" if job.error else "".join(f" ({told})" for told in job.warnings)
    return f"{job.state}{' kept' if job.kept else ''}{words}"


def _weight(verb: str, verbs: list[str]) -> float:
    """How often a step is struck. What follows a live move in case that it is given up mostly has nothing to do."""
    return 0.3 if "move.live" in verbs and verb in _FALLBACK else _HEAVY.get(verb, 1)


class _Strike:
    """Lets the fault happen in a step that was drawn, some moments after its beginning."""

    def __init__(self, act: Act, draw: random.Random, record: Record, plan: Plan, over: object) -> None:
        verbs = [step.verb for step in plan.steps]
        weights = [_weight(verb, verbs) for verb in verbs]
        self._index = draw.choices(range(len(verbs)), weights)[0]
        self._delay_s = draw.choice([0.0, draw.uniform(0, 0.3), draw.uniform(0, 1.5)])
        self._act, self._record = act, record
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def join(self) -> None:
        self._thread.join()

    def _run(self) -> None:
        if self._record.fault == NOTHING:
            return
        verb = ""
        while True:
            job = self._act.journal.job(self._act.job_id)
            step = job.steps[self._index]
            verb = step.verb
            if step.state is not StepState.PENDING or job.state.is_over:
                break
            time.sleep(0.01)
        time.sleep(self._delay_s)
        job = self._act.journal.job(self._act.job_id)
        current = job.current_step
        self._record.struck = f"at {verb}+{self._delay_s:.2f} ({current.verb if current else job.state})"
        try:
            FAULTS[self._record.fault](self._act)
        except (RuntimeError, OSError) as error:
            self._record.struck += f" ({error})"
