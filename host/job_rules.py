"""What the states of a job mean: what it holds, what is left of it, and what a user can do about it. Pure functions."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from host.connection import is_simulated_uri
from host.errors import Busy
from host.job_model import Job, JobSet, JobState, JobStep, StepState
from host.plan import Plan
from host.text import printable

ALIVE = (JobState.QUEUED, JobState.RUNNING)
RESTARTABLE = (JobState.INTERRUPTED, JobState.FAILED, JobState.CANCELLED, JobState.ROLLED_BACK)
HEADLESS = "hvtui job"
# A member of a set that failed or was cancelled may be wanted again: restarting the set completes it, and nobody has
# its secrets at hand any more. After a day they are gone.
SECRETS_OF_A_SET_KEPT = timedelta(days=1)


def busy(job: Job, *, about: str) -> Busy:
    """The error that names the job which holds a VM."""
    who = f"job {job.id} ({printable(job.title, limit=80)}) of {printable(job.user, limit=40)}"
    if job.state in ALIVE:
        remedy = f"Wait for it with '{HEADLESS} watch {job.id}', or stop it with '{HEADLESS} cancel {job.id}'"
        return Busy(f"{who} holds it", about=about, remedy=remedy)
    return Busy(f"{who} was interrupted and may have left it half-made", about=about, remedy=what_now(job))


def interrupted(job: Job, error: str) -> Job:
    """`job` as one that ended halfway: the step that ran is a failed one."""
    steps = tuple(
        replace(step, state=StepState.FAILED, error=step.error or "interrupted", fraction=None)
        if step.state is StepState.RUNNING
        else step
        for step in job.steps
    )
    stopped = replace(
        job,
        state=JobState.INTERRUPTED,
        steps=steps,
        finished_at=datetime.now(UTC),
        error=job.error or error,
        exit_code=job.exit_code or 1,
    )
    return replace(stopped, remedy=what_now(stopped))


def in_words(state: JobState) -> str:
    """The state as the end of a sentence about a job: "has failed", "is running"."""
    return "has failed" if state is JobState.FAILED else f"is {state.value}"


def what_now(job: Job) -> str:
    """What to do about a job in this state."""
    restart, rollback = f"'{HEADLESS} restart {job.id}'", f"'{HEADLESS} rollback {job.id}'"
    if job.state in ALIVE:
        return f"Watch it with '{HEADLESS} watch {job.id}'"
    if job.state is JobState.DONE:
        return f"Take it back with '{HEADLESS} undo {job.id}'"
    half_made = f"Complete it with {restart}, or take it back with {rollback}"
    if job.state is JobState.INTERRUPTED and any(step.has_begun for step in job.steps):
        return f"{half_made}, or give it up, keeping what it made, with '{HEADLESS} cancel {job.id}'"
    if job.kept:
        return half_made
    return f"Nothing of it was left behind; run it again with {restart}"


def what_now_with_set(job_set: JobSet) -> str:
    """What to do about a set in its state: all commands mean the whole set."""
    watch, restart = f"'{HEADLESS} watch {job_set.id}'", f"'{HEADLESS} restart {job_set.id}'"
    if not job_set.state.is_over:
        return f"Watch it with {watch}"
    if job_set.state is JobState.DONE:
        return f"Take it back with '{HEADLESS} undo {job_set.id} --set'"
    done = job_set.counts[JobState.DONE]
    if any(job.state is JobState.INTERRUPTED or job.kept for job in job_set.jobs):
        return f"Complete it with {restart}, or take back what is halfway with '{HEADLESS} rollback {job_set.id} --set'"
    take_back = f", or take back what is done with '{HEADLESS} undo {job_set.id} --set'" if done else ""
    return f"Complete it with {restart}{take_back}"


def is_in_process(uri: str) -> bool:
    """True for libvirt's test driver without a daemon: its VMs exist only in the process that opened it."""
    return is_simulated_uri(uri) and "+" not in uri.partition(":")[0]


def names_a_vm(plan: Plan) -> bool:
    """True for a plan about one VM, which its job then holds."""
    return plan.vm_uuid is not None or plan.vm_name is not None


def holds(job: Job) -> bool:
    """True when no other job may touch the VM: this one is alive, or was interrupted with something half-made."""
    if job.state in ALIVE:
        return names_a_vm(job.plan)
    half_made = job.state is JobState.INTERRUPTED and any(step.has_begun for step in job.steps)
    # The simulated world of a process is gone with it: nothing is half-made.
    return half_made and not is_in_process(job.host_uri) and names_a_vm(job.plan)


def is_over_for_good(job: Job) -> bool:
    """True when nothing of the job is left to complete or to take back."""
    return job.state not in ALIVE and job.state is not JobState.INTERRUPTED and not job.kept


def needs_secrets(job: Job) -> bool:
    """True while a restart or a rollback may need the job's secrets."""
    ended_in_a_set = job.set_id is not None and job.state in {JobState.FAILED, JobState.CANCELLED}
    return ended_in_a_set or not is_over_for_good(job)


def is_same_vm(first: tuple[str | None, str | None], second: tuple[str | None, str | None]) -> bool:
    """Compares (uuid, name) pairs. A VM that is yet to be made has no uuid: then the names decide."""
    if first[0] is not None and second[0] is not None:
        return first[0] == second[0]
    return first[1] is not None and first[1] == second[1]


def pending_steps(plan: Plan) -> tuple[JobStep, ...]:
    """The steps of a plan of which nothing has begun."""
    return tuple(JobStep(index, step.verb, step.title) for index, step in enumerate(plan.steps))
