"""Runs plans and step verbs in tests: through the real journal and runner, or one verb at a time."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from host import jobs
from host.connection import Host
from host.job_model import Job, JobState
from host.journal import Journal
from host.plan import Json, Plan, Step
from host.steps import Result, StepContext, verb_named
from tests.support.private_libvirtd import PrivateLibvirtd
from vm import inventory, steps
from vm.model import Vm

__all__ = ["Notes", "context", "do", "done", "done_while_the_daemon_dies", "steps", "submit", "undo", "vm_named"]


@dataclass(slots=True)
class Notes:
    """What a step told about its progress, and whether the user cancelled."""

    notes: list[str] = field(default_factory=list)
    cancelled: Callable[[], bool] = lambda: False


def context(host: Host, notes: Notes | None = None) -> StepContext:
    """A context for one verb, outside of any job."""
    seen = notes or Notes()
    return StepContext(host, 1, lambda _fraction, note: seen.notes.append(note), lambda: seen.cancelled())


def do(host: Host, step: Step, notes: Notes | None = None, **changed: Json) -> Result:
    """Run one step's verb with its arguments, some of them changed."""
    return verb_named(step.verb).do(context(host, notes), {**step.args, **changed})


def undo(host: Host, step: Step, result: Mapping[str, Json] | None) -> None:
    """Roll one step back, as the runner does."""
    rollback = verb_named(step.verb).rollback
    if rollback is not None:
        rollback(context(host), step.args, None if result is None else dict(result))


def submit(plan: Plan, host: Host) -> Job:
    """Run a plan as a job, in the journal of the test's own state directory."""
    return jobs.submit(plan, host, Journal())


def done(plan: Plan, host: Host) -> Job:
    """Run a plan as a job that must succeed."""
    job = submit(plan, host)
    assert job.state is JobState.DONE, f"{job.title}: {job.error}"
    return job


def done_while_the_daemon_dies(plan: Plan, host: Host, daemon: PrivateLibvirtd) -> Job:
    """Run a plan as a job that must succeed although libvirtd is killed and started again at the beginning of each of
    its steps."""
    seen: set[int] = set()

    def kill_once_a_step(job: Job) -> None:
        step = job.current_step
        if step is not None and step.index not in seen:
            seen.add(step.index)
            daemon.restart()

    job = jobs.submit(plan, host, Journal(), kill_once_a_step)
    assert job.state is JobState.DONE, f"{job.title}: {job.error}"
    assert len(seen) == len(plan.steps)
    return job


def vm_named(host: Host, name: str) -> Vm:
    """The VM as it is now, with its configuration."""
    return inventory.read_configs(host, [inventory.find(host, name)])[0]
