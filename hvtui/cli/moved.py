"""The figures of moves for commands: vm.move_outcome is loaded only for a job that is a move."""

from __future__ import annotations

from typing import TYPE_CHECKING

from host.job_model import JobState

if TYPE_CHECKING:
    from host.job_model import Job
    from host.plan import Json


def _is_move(job: Job) -> bool:
    return any(step.verb.startswith(("move.", "storage.")) for step in job.plan.steps)


def as_json(job: Job) -> Json:
    """Forecast and actual figures as a JSON object; None for a job that is no move."""
    if not _is_move(job):
        return None
    from vm import move_outcome

    return move_outcome.as_json(job)


def told(job: Job) -> str:
    """The same in one line; empty for a job that is no move."""
    if not _is_move(job):
        return ""
    from vm import move_outcome

    return move_outcome.told(job)


def words(job: Job | None) -> tuple[str, str]:
    """What a move that is done did, in a sentence and as its figures alone; empty for other jobs."""
    if job is None or job.state is not JobState.DONE or not _is_move(job):
        return "", ""
    from vm import move_outcome

    return move_outcome.words(job), move_outcome.figures_in_words(job)
