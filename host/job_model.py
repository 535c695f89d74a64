"""The immutable picture of jobs, as the journal keeps them and the front ends show them. Data only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from host.plan import Json, Plan


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
    left in place. `keep_failed`: it was told to do so. `undone_by` is the job that took it back."""

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
