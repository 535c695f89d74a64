"""What cancelling and restarting a job will do, as Plans for the confirm dialog. Pure.

These plans are shown, never run: host.jobs works on the job itself, and has the plans of a rollback and of an undo
(host.jobs.plan_rollback, host.jobs.plan_undo).
"""

from __future__ import annotations

from dataclasses import replace

from host.job_model import Job, JobState, StepState
from host.plan import Danger, Plan, Step

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
