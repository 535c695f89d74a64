"""The immutable picture of jobs, as the journal keeps them and the front ends show them. Data only."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from host.plan import Json, Plan

HELD_UP = "cancelled; libvirt finishes the copy first"  # the note of a cancelled step whose call nothing can end


class JobState(StrEnum):
    """INTERRUPTED: its process died or the hypervisor was lost; it can be restarted or rolled back."""

    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"  # what it had made was rolled back, unless it was told to keep it (`kept`)
    CANCELLED = "cancelled"
    INTERRUPTED = "interrupted"
    ROLLED_BACK = "rolled back"

    @property
    def is_over(self) -> bool:
        """True when no process works on it and none is going to by itself."""
        return self not in {JobState.QUEUED, JobState.RUNNING}


class StepState(StrEnum):
    PENDING = "pending"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    UNDONE = "undone"


@dataclass(frozen=True, slots=True)
class JobStep:
    """One step as journalled. `fraction` is 0..1, or None while the total is not known ("preparing"). `result` is what
    its verb returned, once it was done."""

    index: int
    verb: str
    title: str
    state: StepState = StepState.PENDING
    fraction: float | None = None
    note: str = ""
    error: str = ""
    result: Mapping[str, Json] | None = None

    @property
    def has_begun(self) -> bool:
        """True when the step may have made something that is still there."""
        return self.state in {StepState.RUNNING, StepState.DONE, StepState.FAILED}


@dataclass(frozen=True, slots=True)
class Job:
    """One journalled plan. `exit_code` is its error's, 0 without one. `kept`: it ended early and what it had made was
    left in place. `keep_failed`: it was told to do so. `undone_by` is the job that took it back. A member of a set has
    the set's id (which is that of its first job), title and command; the set's preparations run before its others. A
    QUEUED one may be paused, or wait for its turn: `waits_for` says why ("2 moves run on lab1 already")."""

    id: int
    title: str
    state: JobState
    user: str
    host_uri: str
    vm_uuid: str | None
    vm_name: str | None
    command: tuple[str, ...]
    steps: tuple[JobStep, ...]
    plan: Plan
    created_at: datetime
    started_at: datetime | None = None
    finished_at: datetime | None = None
    error: str = ""
    remedy: str = ""
    exit_code: int = 0
    kept: bool = False
    keep_failed: bool = False
    cancel_requested: bool = False
    undone_by: int | None = None
    set_id: int | None = None
    set_title: str = ""
    set_command: tuple[str, ...] = ()
    is_preparation: bool = False
    is_paused: bool = False
    waits_for: str = ""

    @property
    def progress(self) -> float:
        """0..1: finished steps plus the running one's fraction."""
        if not self.steps:
            return 1.0 if self.state is JobState.DONE else 0.0
        done = sum(step.state is StepState.DONE for step in self.steps)
        running = sum(step.fraction or 0.0 for step in self.steps if step.state is StepState.RUNNING)
        return min((done + running) / len(self.steps), 1.0)

    @property
    def warnings(self) -> tuple[str, ...]:
        """What its steps found worth telling when they were done: a guest that did not answer, say."""
        told = (step.result.get("warning") for step in self.steps if step.result)
        return tuple(warning for warning in told if isinstance(warning, str) and warning)

    @property
    def current_step(self) -> JobStep | None:
        """The step that runs, or the one that failed; None when there is none."""
        for step in self.steps:
            if step.state in {StepState.RUNNING, StepState.FAILED}:
                return step
        return None


@dataclass(frozen=True, slots=True)
class JobSet:
    """The jobs that one request made (host.plan.PlanSet), in their order: the preparations first."""

    jobs: tuple[Job, ...]

    @property
    def id(self) -> int:
        return self.jobs[0].set_id or self.jobs[0].id

    @property
    def title(self) -> str:
        return self.jobs[0].set_title or self.jobs[0].title

    @property
    def command(self) -> tuple[str, ...]:
        return self.jobs[0].set_command

    @property
    def main(self) -> tuple[Job, ...]:
        """Those that are wanted for themselves; all, in a set of nothing but preparations."""
        return tuple(job for job in self.jobs if not job.is_preparation) or self.jobs

    @property
    def preparations(self) -> tuple[Job, ...]:
        return tuple(job for job in self.jobs if job.is_preparation)

    @property
    def state(self) -> JobState:
        """RUNNING as long as one runs or waits for others; then DONE when all are, else the worst of them."""
        states = {job.state for job in self.jobs}
        if states == {JobState.QUEUED}:
            return JobState.QUEUED
        if any(not state.is_over for state in states):
            return JobState.RUNNING
        worst_first = (JobState.INTERRUPTED, JobState.FAILED, JobState.CANCELLED, JobState.ROLLED_BACK, JobState.DONE)
        return next(state for state in worst_first if state in states)

    @property
    def counts(self) -> Counter[JobState]:
        """How many of `main` are in which state."""
        return Counter(job.state for job in self.main)

    @property
    def progress(self) -> float:
        """0..1: the steps of all members. While some go on, one that is over has none left, however it ended; once all
        are over, what is done of them counts."""
        total, is_over = sum(max(len(job.steps), 1) for job in self.jobs), self.state.is_over
        shares = ((1.0 if job.state.is_over and not is_over else job.progress, job) for job in self.jobs)
        done = sum(share * max(len(job.steps), 1) for share, job in shares)
        return min(done / total, 1.0)


def in_sets(jobs: Iterable[Job]) -> tuple[Job | JobSet, ...]:
    """`jobs` with those of one set together, where the first of them stood; a set of one is just its job."""
    groups: dict[int, list[Job]] = {}
    for job in jobs:
        groups.setdefault(job.id if job.set_id is None else job.set_id, []).append(job)
    return tuple(
        group[0] if len(group) == 1 else JobSet(tuple(sorted(group, key=lambda job: job.id)))
        for group in groups.values()
    )
