"""`hvtui job pause`, `resume` and `first`: the order of the jobs that wait."""

from __future__ import annotations

from hvtui.cli.grammar import job_arguments, option, verb
from hvtui.cli.output import write_text
from hvtui.cli.session import Session

_ONLY = option("--only", is_flag=True, text="Just that job, where ID is a set's.")


def _waiting(session: Session, job_ids: tuple[int, ...], only: bool) -> tuple[int, ...]:
    """These jobs, and in place of a set's first one all of the set that wait."""
    from host.job_model import JobState

    journal = session.journal()
    journal.recover()
    found: list[int] = []
    for job_id in job_ids:
        job = journal.job(job_id)
        members = journal.members(job_id) if job.set_id == job_id and not only else ()
        found += [each.id for each in members if each.state is JobState.QUEUED] or [job_id]
    return tuple(dict.fromkeys(found))


@verb(
    "pause",
    job_arguments(),
    _ONLY,
    text="Pass over jobs that wait, until 'job resume'. A set's number means all of it that waits.",
)
def pause(session: Session, job_ids: tuple[int, ...], only: bool) -> None:
    from host import job_queue

    for job in job_queue.pause(session.journal(), *_waiting(session, job_ids, only)):
        write_text(f"Job {job.id}: paused")


@verb("resume", job_arguments(), _ONLY, text="Let paused jobs have their turn again.")
def resume(session: Session, job_ids: tuple[int, ...], only: bool) -> None:
    from host import job_queue

    for job in job_queue.resume(session.journal(), *_waiting(session, job_ids, only)):
        write_text(f"Job {job.id}: {job_queue.waits(job) or 'queued'}")


@verb("first", job_arguments(), _ONLY, text="Put jobs that wait before all others, in the order given.")
def first(session: Session, job_ids: tuple[int, ...], only: bool) -> None:
    from host import job_queue

    for job in job_queue.put_first(session.journal(), *_waiting(session, job_ids, only)):
        write_text(f"Job {job.id}: {job_queue.waits(job) or 'queued'}, before the others")
