"""Jobs to and from the rows of the journal's tables. Data only: it opens no file and runs no statement."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING, Any, TypeAlias

from host.job_codec import from_text, lanes_to_json, plan_to_json, storable, to_text
from host.job_model import Job, JobState, JobStep, StepState
from host.job_rules import holds, names_a_vm, pending_steps
from host.plan import Plan

if TYPE_CHECKING:
    import sqlite3

SetWords: TypeAlias = tuple[str, tuple[str, ...]]  # its title and its command

# Everything but the plan: that is long, never changes, and is read once (host.journal).
COLUMNS = (
    "id, state, user, host_uri, created_at, started_at, finished_at, error, remedy, exit_code, kept, keep_failed, "
    "cancel_requested, undone_by, set_id, is_preparation, is_paused"
)


# What changes about a job as it goes on, as long as it belongs to the claim.
WRITE_JOB = (
    "UPDATE jobs SET state = ?, holds = ?, kept = ?, started_at = ?, finished_at = ?, error = ?, remedy = ?, "
    "exit_code = ? WHERE id = ? AND claim = ?"
)


def new_row(plan: Plan, *, user: str, claim: str, keep_failed: bool, created_at: datetime) -> dict[str, Any]:
    """The columns of a new QUEUED job. Raises UsageError for an argument that JSON cannot hold."""
    return {
        "state": JobState.QUEUED.value,
        "user": storable(user),
        "host_uri": storable(plan.host_uri),
        "vm_uuid": plan.vm_uuid,
        "vm_name": None if plan.vm_name is None else storable(plan.vm_name),
        "plan": to_text(plan_to_json(plan)),
        "holds": names_a_vm(plan),
        "claim": claim,
        "keep_failed": keep_failed,
        "undoes_job": plan.undoes_job,
        "created_at": created_at.isoformat(),
        "also_on": to_text([storable(uri) for uri in plan.also_on]),
        "lanes": to_text(lanes_to_json(plan.lanes)),
    }


def job_values(job: Job) -> tuple[Any, ...]:
    """The values of WRITE_JOB before the id and the claim."""
    return (
        job.state.value,
        holds(job),
        job.kept,
        iso(job.started_at),
        iso(job.finished_at),
        storable(job.error),
        storable(job.remedy),
        job.exit_code,
    )


def step_values(job_id: int, step: JobStep) -> tuple[Any, ...]:
    """The values of a step's row, in the table's order."""
    result = None if step.result is None else to_text(step.result)
    return (job_id, step.index, step.state.value, step.fraction, storable(step.note), storable(step.error), result)


def job_from(
    row: sqlite3.Row, plan: Plan, of_set: SetWords, steps: Mapping[int, sqlite3.Row], queue: Mapping[int, str]
) -> Job:
    """The job of a row with COLUMNS; `queue` says what those in line wait for. Raises ValueError, TypeError for a
    damaged row."""
    return Job(
        id=row["id"],
        title=plan.title,
        state=JobState(row["state"]),
        user=row["user"],
        host_uri=plan.host_uri,
        vm_uuid=plan.vm_uuid,
        vm_name=plan.vm_name,
        command=plan.command,
        steps=tuple(_step_from(step, steps.get(step.index)) for step in pending_steps(plan)),
        plan=plan,
        created_at=datetime.fromisoformat(row["created_at"]),
        started_at=_moment(row["started_at"]),
        finished_at=_moment(row["finished_at"]),
        error=row["error"],
        remedy=row["remedy"],
        exit_code=row["exit_code"],
        kept=bool(row["kept"]),
        keep_failed=bool(row["keep_failed"]),
        cancel_requested=bool(row["cancel_requested"]),
        undone_by=row["undone_by"],
        set_id=row["set_id"],
        set_title=of_set[0],
        set_command=of_set[1],
        is_preparation=bool(row["is_preparation"]),
        is_paused=bool(row["is_paused"]) and row["state"] == JobState.QUEUED,
        waits_for=queue.get(row["id"], ""),
    )


def iso(moment: datetime | None) -> str | None:
    return None if moment is None else moment.isoformat()


def _moment(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)


def _step_from(step: JobStep, row: sqlite3.Row | None) -> JobStep:
    if row is None:
        return step
    return replace(
        step,
        state=StepState(row["state"]),
        fraction=row["fraction"],
        note=row["note"],
        error=row["error"],
        result=None if row["result"] is None else from_text(row["result"]),
    )
