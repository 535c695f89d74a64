"""What cancelling and restarting a job will do, as Plans for the confirm dialog. Pure.

These plans are shown, never run: host.jobs works on the job itself, and has the plans of a rollback and of an undo
(host.jobs.plan_rollback, host.jobs.plan_undo).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from host.job_model import Job, JobSet, JobState, StepState
from host.plan import Danger, Plan, Step

_MOST_NAMES = 5
_ENDED = {StepState.RUNNING: "End halfway, and take back what it made so far"}


def plan_cancel(job: Job) -> Plan:
    """Stop a job that runs, or give up one that was interrupted."""
    if job.state is JobState.INTERRUPTED:
        begun = [step.title for step in job.steps if step.has_begun]
        return _shown(
            job,
            "cancel",
            f"Give up job {job.id}: {job.title}",
            [Step("", "Mark it as cancelled: other jobs may work on its VM again")],
            keeps=tuple(f"what it made: {title}" for title in begun),
        )
    ended = [step for step in reversed(job.steps) if step.has_begun]
    steps = [
        Step("", "Ask it to stop; it looks a few times a second"),
        *(Step("", f"{_ENDED.get(step.state, 'Take back')}: {step.title}") for step in ended),
    ]
    return _shown(job, "cancel", f"Cancel job {job.id}: {job.title}", steps, danger=Danger.DISRUPTIVE)


def plan_restart(job: Job) -> Plan:
    """Go on with the first step that is not done."""
    left = [
        planned for planned, step in zip(job.plan.steps, job.steps, strict=True) if step.state is not StepState.DONE
    ]
    plan = _shown(job, "restart", f"Restart job {job.id}: {job.title}", left, danger=job.plan.danger)
    return replace(plan, losses=job.plan.losses, warnings=job.plan.warnings)


def plan_cancel_set(job_set: JobSet) -> Plan:
    """Cancel what is not over of a set; where nothing is alive, give up what was left halfway."""
    done = tuple(_names(job_set, JobState.DONE, "what is done"))
    if job_set.state is JobState.INTERRUPTED:
        left = tuple(_names(job_set, JobState.INTERRUPTED, "what these had made"))
        steps = [Step("", "Mark what was left halfway as cancelled: other jobs may work on those VMs again")]
        return _of_set(job_set, "cancel", "Give up", steps, keeps=(*done, *left))
    waiting = sum(job.state is JobState.QUEUED for job in job_set.jobs)
    steps = [
        *(
            Step("", f"Ask job {job.id} to stop, and take back what it made so far: {job.title}")
            for job in job_set.jobs
            if job.state is JobState.RUNNING
        ),
        *([Step("", f"Do not begin the {waiting} that wait")] if waiting else []),
    ]
    return _of_set(job_set, "cancel", "Cancel", steps, keeps=done, danger=Danger.DISRUPTIVE)


def plan_restart_set(job_set: JobSet) -> Plan:
    """Run again what is not done of a set."""
    left = [job for job in job_set.jobs if job.state is not JobState.DONE]
    plan = _of_set(job_set, "restart", "Complete", [Step("", job.title) for job in left])
    losses = tuple(dict.fromkeys(loss for job in left for loss in job.plan.losses))
    warnings = tuple(dict.fromkeys(warning for job in left for warning in job.plan.warnings))
    danger = Danger.DESTRUCTIVE if losses else Danger.NONE
    return replace(plan, losses=losses, warnings=warnings, danger=danger)


def _names(job_set: JobSet, state: JobState, words: str) -> list[str]:
    names = [job.vm_name or job.title for job in job_set.main if job.state is state]
    more = f" and {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES else ""
    return [f"{words}: {', '.join(names[:_MOST_NAMES])}{more}"] if names else []


def _of_set(job_set: JobSet, verb: str, doing: str, steps: list[Step], **rest: Any) -> Plan:
    return Plan(
        title=f"{doing} set {job_set.id}: {job_set.title}",
        host_uri=job_set.jobs[0].host_uri,
        steps=tuple(steps),
        command=("job", verb, str(job_set.id)),
        **rest,
    )


def _shown(
    job: Job, verb: str, title: str, steps: list[Step], *, danger: Danger = Danger.NONE, keeps: tuple[str, ...] = ()
) -> Plan:
    return Plan(
        title=title,
        host_uri=job.host_uri,
        steps=tuple(steps),
        command=("job", verb, str(job.id)),
        vm_uuid=job.vm_uuid,
        vm_name=job.vm_name,
        danger=danger,
        keeps=keeps,
    )
