"""What `hvtui job` does with sets of jobs: list, show, watch, cancel, restart them. Loaded when there is one."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from host import job_sets
from host.errors import WrongState
from host.job_model import Job, JobSet, JobState, in_sets
from host.job_queue import waits
from host.job_rules import what_now_with_set
from host.plan import PlanSet
from host.text import printable
from hvtui.cli.change import OnUpdate, Work, overall, planned, report, run_works, show_plans
from hvtui.cli.change_set import report_set, run_and_report_set, show_set, sum_text
from hvtui.cli.job import COLUMNS, host_of
from hvtui.cli.output import (
    Format,
    json_line,
    narrate,
    record,
    stream,
    write_facts,
    write_list,
    write_table,
    write_text,
)
from hvtui.cli.plans import confirm, tell_warnings
from hvtui.cli.session import Session
from hvtui.cli.set_progress import SetProgress, name_of, outcome_of
from hvtui.outcome_sum import set_sum
from hvtui.same_as import set_command_line


def write_compact(jobs: Sequence[Job]) -> None:
    """A table of jobs in which a set is one line."""
    shown = [column for column in COLUMNS if column.in_table]
    rows = []
    for entry in in_sets(jobs):
        first = entry.jobs[0] if isinstance(entry, JobSet) else entry
        cells = {column.key: column.text(first) for column in shown}
        if isinstance(entry, JobSet):
            state = f"{entry.state} {entry.progress:.0%}" if entry.state is JobState.RUNNING else entry.state.value
            cells |= {"id": str(entry.id), "state": state, "title": sum_text(entry)}
        rows.append([cells[column.key] for column in shown])
    write_table([column.title for column in shown], rows, right=[column.right for column in shown])


def show(session: Session, set_id: int) -> None:
    """A set and its members."""
    job_set = JobSet(job_sets.members(set_id, session.journal()))
    if session.output is not Format.TABLE:
        write_list(job_set.jobs, COLUMNS, output=session.output, chosen=session.columns, details=True)
        return
    first = job_set.jobs[0]
    cells = {column.key: column.text(first) for column in COLUMNS}
    write_facts(
        (
            ("set", str(job_set.id)),
            ("title", job_set.title),
            ("state", f"{job_set.state.value}, {set_sum(job_set)}"),
            ("progress", f"{job_set.progress:.0%}"),
            ("user", cells["user"]),
            ("host_uri", first.host_uri),
            ("created", cells["created_at"]),
            ("same as", set_command_line(job_set)),
            ("next", what_now_with_set(job_set)),
        )
    )
    rows = [[str(job.id), job.state.value, name_of(job), _told(job)] for job in job_set.jobs]
    write_table(["JOB", "STATE", "VM", "STEP"], rows, right=[True, False, False, False])


def _told(job: Job) -> str:
    """Why a member ended early, or where it is."""
    if job.error and job.state.is_over:
        return printable(job.error, limit=200)
    step = job.current_step
    if step is None:
        return printable(waits(job), limit=200)
    words = f"{step.index + 1}/{len(job.steps)} {printable(step.title, limit=80)}"
    return f"{words}  {printable(step.note, limit=60)}" if step.note else words


def watch(session: Session, set_id: int) -> int:
    """Follow a set until all members are over; a stream of JSON has a line for each member that changed."""
    journal = session.journal()
    if session.output in {Format.JSONL, Format.JSON}:
        written: dict[int, Job] = {}

        def write(jobs: tuple[Job, ...]) -> None:
            for job in jobs:
                if written.get(job.id) != job:
                    written[job.id] = job
                    stream(json_line(record(job, COLUMNS)))

        job_sets.wait_set(set_id, journal, session.timeout_s, write)
        return overall([outcome_of(job).exit_code for job in written.values()])
    with SetProgress() as progress:
        ended = job_sets.wait_set(set_id, journal, session.timeout_s, progress.show)
    return report_set(session, ended, told=progress.told)


def cancel(session: Session, set_id: int) -> None:
    """Cancel what is not over of a set."""
    journal = session.journal()
    cancelled = job_sets.cancel_set(set_id, journal)
    if not session.wait:
        narrate(f"Set {set_id} was asked to stop")
        return
    if not all(job.state.is_over for job in cancelled):
        with SetProgress() as progress:
            cancelled = job_sets.wait_set(set_id, journal, session.timeout_s, progress.show)
    job_set = JobSet(cancelled)
    write_text(f"Set {set_id}: {sum_text(job_set)}")
    if job_set.state is not JobState.DONE:
        narrate(what_now_with_set(job_set))


def restart(session: Session, found: Job) -> int:
    """Complete the set of a job: run its members again that are not done."""
    import vm.steps  # noqa: F401 - registers every verb that an old job may hold

    set_id = found.set_id or found.id
    journal = session.journal()
    if session.dry_run:
        return show_set(session, _left_of(JobSet(job_sets.members(set_id, journal))))
    host = host_of(session, found)

    def start() -> tuple[Job, ...]:
        return job_sets.restart_set(set_id, host, journal)

    return run_and_report_set(session, found, start, limit_s=session.timeout_s)


def _left_of(job_set: JobSet) -> PlanSet:
    """What a restart would run, to be shown. Raises WrongState when nothing is left."""
    left = [job for job in job_set.jobs if job.state is not JobState.DONE]
    preparations = tuple(job.plan for job in left if job.is_preparation)
    plans = tuple(job.plan for job in left if not job.is_preparation)
    if not left:
        raise WrongState("all of it is done", about=f"set {job_set.id}", remedy=what_now_with_set(job_set))
    command = ("job", "restart", str(job_set.id))
    return PlanSet(
        f"Complete set {job_set.id}: {job_set.title}", plans or preparations, command, preparations if plans else ()
    )


def rollback(session: Session, set_id: int) -> int:
    """Remove what members of a set left behind that ended halfway: the VMs' first, then the preparations'."""
    import vm.steps  # noqa: F401 - the same
    from host import jobs

    journal = session.journal()
    journal.recover()
    found = [job for job in job_sets.members(set_id, journal) if job.state is JobState.INTERRUPTED or job.kept]
    if not found:
        raise WrongState("nothing of it was left halfway", about=f"set {set_id}", remedy="Take back what is done: undo")
    outcomes = [planned(name_of(job), job.vm_uuid, partial(jobs.plan_rollback, job)) for job in found]
    if session.dry_run:
        return show_plans(session, outcomes)
    host = host_of(session, found[0])
    plans = [each.plan for each in outcomes if each.plan is not None]
    if not confirm(plans, yes=session.yes):
        tell_warnings(plans)

    with job_sets.hosts(host) as host_at:

        def roll(job: Job, update: OnUpdate) -> Job:
            return jobs.rollback(job.id, host_at(job.host_uri), journal, update)

        works = [(job, Work(each, partial(roll, job))) for job, each in zip(found, outcomes, strict=True)]
        ended = []
        for are_preparations in (False, True):
            those = [work for job, work in works if job.is_preparation is are_preparations]
            ended += run_works(those, journal, limit_s=session.timeout_s)
    return report(session, ended)
