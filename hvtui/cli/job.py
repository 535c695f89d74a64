"""`hvtui job`: what was changed, what runs, and how to stop it, run it again or take it back."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import click

from host.errors import NotFound
from host.job_model import Job, JobState
from host.plan import Json
from host.text import printable
from hvtui.cli import moved
from hvtui.cli.grammar import Noun, Verbs, job_argument, option, verb
from hvtui.cli.output import (
    Column,
    Format,
    json_line,
    narrate,
    plain,
    record,
    stream,
    write_facts,
    write_list,
    write_text,
)
from hvtui.cli.session import Session

if TYPE_CHECKING:
    from datetime import datetime

    from host.connection import Host
    from host.plan import Plan

VERBS: Verbs = {
    "list": ("hvtui.cli.job:list_", "List the newest jobs."),
    "show": ("hvtui.cli.job:show", "Show a job, its steps, and why it failed."),
    "watch": ("hvtui.cli.job:watch", "Follow a job until it ends; its exit code is this one's."),
    "cancel": ("hvtui.cli.job:cancel", "Ask a job to stop; give an interrupted one up."),
    "pause": ("hvtui.cli.job_queue:pause", "Pass over waiting jobs until they are resumed."),
    "resume": ("hvtui.cli.job_queue:resume", "Let paused jobs have their turn again."),
    "first": ("hvtui.cli.job_queue:first", "Put waiting jobs before all others that wait."),
    "tune": ("hvtui.cli.job_tune:tune", "Change a live move while it runs: bandwidth, downtime, post-copy."),
    "restart": ("hvtui.cli.job:restart", "Run a failed, interrupted or cancelled job again."),
    "rollback": ("hvtui.cli.job:rollback", "Remove what a failed or interrupted job left behind."),
    "undo": ("hvtui.cli.job:undo", "Take back what a job did, where that is possible."),
    "run-set": ("hvtui.cli.job:run_set", ""),
    "run": ("hvtui.cli.job:run", ""),  # without a help text a command is hidden: the runner's own process
}

job = Noun("job", verbs=VERBS, help="Jobs: every change is one. They are kept with who, when, and what came of it.")


def _iso(at: datetime | None) -> str | None:
    return at.isoformat(timespec="seconds") if at else None


def _local(at: datetime | None) -> str:
    return at.astimezone().strftime("%m-%d %H:%M:%S") if at else "–"


def _state(job: Job) -> str:
    if job.state is JobState.QUEUED and (job.is_paused or job.waits_for):
        return "paused" if job.is_paused else "waiting"
    return f"{job.state} {job.progress:.0%}" if job.state is JobState.RUNNING else job.state.value


def _title(job: Job) -> str:
    return f"{printable(job.title, limit=200)} (waits: {job.waits_for})" if job.waits_for else job.title


def _steps(job: Job) -> Json:
    return [
        {
            "title": step.title,
            "verb": step.verb,
            "state": step.state.value,
            "fraction": step.fraction,
            "note": step.note,
            "error": step.error or None,
        }
        for step in job.steps
    ]


COLUMNS: tuple[Column[Job], ...] = (
    Column("id", "The job's number.", lambda job: job.id, right=True, in_table=True),
    Column(
        "state",
        "queued, running, done, failed, cancelled, interrupted or rolled back.",
        lambda job: job.state.value,
        _state,
        in_table=True,
    ),
    Column("progress", "0 to 1 over all steps.", lambda job: round(job.progress, 4), right=True),
    Column("title", "What it does.", lambda job: job.title, _title, in_table=True),
    Column("vm", "The VM's name, or null.", lambda job: job.vm_name),
    Column("vm_uuid", "The VM's UUID, or null.", lambda job: job.vm_uuid),
    Column("user", "Who asked for it.", lambda job: job.user, in_table=True),
    Column("host_uri", "On which hypervisor.", lambda job: job.host_uri),
    Column(
        "created_at",
        "When it was asked for, ISO 8601.",
        lambda job: _iso(job.created_at),
        lambda job: _local(job.created_at),
        title="CREATED",
        in_table=True,
    ),
    Column("started_at", "When it began, or null.", lambda job: _iso(job.started_at)),
    Column("finished_at", "When it ended, or null.", lambda job: _iso(job.finished_at)),
    Column("exit_code", "What a command that waited for it ends with.", lambda job: job.exit_code, right=True),
    Column("error", "Why it failed, or null.", lambda job: job.error or None),
    Column("remedy", "What to do about it, or null.", lambda job: job.remedy or None),
    Column("set", "The number of the set it belongs to, or null.", lambda job: job.set_id, right=True),
    Column("set_title", "What that set does, or null.", lambda job: job.set_title or None),
    Column("kept", "True when what it had made was kept after it failed.", lambda job: job.kept),
    Column("paused", "True for a waiting job that is passed over until 'job resume'.", lambda job: job.is_paused),
    Column("waits_for", "Why a waiting job has not begun, or null.", lambda job: job.waits_for or None),
    Column("undone_by", "The job that took it back, or null.", lambda job: job.undone_by),
    Column("command", "The same as a command, an argument list.", lambda job: list(job.command)),
    Column(
        "move",
        "A move's forecast beside its actual figures (seconds, bytes), or null.",
        moved.as_json,
        moved.told,
        extra=True,
    ),
    Column("steps", "Its steps: title, verb, state, fraction, note, error.", _steps, extra=True),
)


@verb(
    "list",
    option("--state", "states", multiple=True, type=click.Choice([s.value for s in JobState]), text="In these states."),
    option("--vm", "vm_name", metavar="NAME", text="Of this VM (name or UUID)."),
    option(
        "--limit",
        type=click.IntRange(min=1, max=10**9),
        default=50,
        show_default=True,
        metavar="N",
        text="At most so many.",
    ),
    option("--all", "each", is_flag=True, text="Each job of a set on a line of its own, as in JSON and CSV."),
    text="List the newest jobs; the jobs of one set are one line.",
)
def list_(session: Session, states: tuple[str, ...], vm_name: str | None, limit: int, each: bool) -> None:
    journal = session.journal()
    journal.recover()
    is_whole = not (each or states or vm_name is not None or session.columns)
    if is_whole and session.output is Format.TABLE and (newest := journal.newest(limit)):
        from hvtui.cli import job_set

        job_set.write_compact(newest)
        return
    jobs = journal.jobs(limit=limit, states=[JobState(state) for state in states] or None, vm=vm_name)
    if not jobs and vm_name is not None and not journal.jobs(limit=1, vm=vm_name):
        from vm.inventory import find

        find(session.host(), vm_name)  # a VM without jobs is no error, one that there never was is
    if not jobs and session.output is Format.TABLE:
        any_job = journal.jobs(limit=1)
        narrate("No job matches" if any_job else "No jobs yet: every change that hvtui makes will be one")
        return
    write_list(jobs, COLUMNS, output=session.output, chosen=session.columns)


def _only(text: str) -> click.Option:
    return option("--only", is_flag=True, text=text)


def _with_set(text: str) -> click.Option:
    return option("--set", "whole", is_flag=True, text=text)


def _has_company(session: Session, found: Job) -> bool:
    """True for a member of a set that has others."""
    return found.set_id is not None and len(session.journal().members(found.set_id)) > 1


@verb(
    "show",
    job_argument(),
    _only("Just that job, where ID is a set's."),
    text="Show a job or a set of jobs, its steps, and why it failed.",
)
def show(session: Session, job_id: int, only: bool) -> None:
    journal = session.journal()
    journal.recover()
    found = journal.job(job_id)
    if found.set_id == job_id and not only and _has_company(session, found):
        from hvtui.cli import job_set

        job_set.show(session, job_id)
        return
    if session.output is not Format.TABLE:
        write_list([found], COLUMNS, output=session.output, chosen=session.columns, details=True)
        return
    values = {**record(found, COLUMNS), "move": moved.told(found)}
    write_facts(
        (key, _text(value)) for key, value in values.items() if key != "steps" and value not in (None, "", False)
    )
    for step in found.steps:
        note = f"  {printable(step.error or step.note, limit=300)}" if step.error or step.note else ""
        write_text(f"  {step.index + 1}  {step.state:<8} {printable(step.title, limit=200)}{note}")


def _text(value: Json) -> str:
    return " ".join(map(str, value)) if isinstance(value, list) else plain(value)


@verb(
    "watch",
    job_argument(),
    _only("Just that job, where ID is a set's."),
    text="Follow a job or a set of jobs until it ends; its exit code is this command's. -o jsonl streams it.",
)
def watch(session: Session, job_id: int, only: bool) -> int:
    from host import jobs
    from hvtui.cli.change import Outcome, report
    from hvtui.cli.progress import Progress, show_job

    journal = session.journal()
    journal.recover()
    found = journal.job(job_id)
    if found.set_id == job_id and not only and _has_company(session, found):
        from hvtui.cli import job_set

        return job_set.watch(session, job_id)
    streams = session.output in {Format.JSONL, Format.JSON}
    with Progress() as progress:

        def update(job: Job) -> None:
            if streams:
                stream(json_line(record(job, COLUMNS)))
            else:
                show_job(progress, job)

        ended = jobs.wait(job_id, journal, timeout_s=session.timeout_s, on_update=update)
    outcome = Outcome(ended.vm_name or "", ended.vm_uuid, ended.plan, ended)
    return outcome.exit_code if streams else report(session, [outcome])


@verb(
    "cancel",
    job_argument(),
    _only("Just that job: the others of its set go on."),
    text="Ask a job to stop; what it had made is removed. An interrupted one is given up: what it made stays, and its "
    "VM is free for other jobs. With a job of a set all of it that is not over is cancelled; finished VMs stay.",
)
def cancel(session: Session, job_id: int, only: bool) -> None:
    from host import jobs

    journal = session.journal()
    journal.recover()
    found = journal.job(job_id)
    if found.set_id is not None and not only and _has_company(session, found):
        from hvtui.cli import job_set

        job_set.cancel(session, found.set_id)
        return
    jobs.cancel(job_id, journal)
    if not session.wait:
        narrate(f"Job {job_id} was asked to stop")
        return
    ended = jobs.wait(job_id, journal, timeout_s=session.timeout_s)
    write_text(f"Job {job_id}: {ended.state}")


@verb(
    "restart",
    job_argument(),
    _only("Just that job: what else is not done of its set stays as it is."),
    text="Run a failed, interrupted or cancelled job again from the step that was not done. With a job of a set, "
    "complete the set: run all of it that is not done.",
)
def restart(session: Session, job_id: int, only: bool) -> int:
    from host import jobs
    from host.job_rules import is_in_process

    session.journal().recover()
    found = session.journal().job(job_id)
    if not only and _has_company(session, found):
        from hvtui.cli import job_set

        return job_set.restart(session, found)

    def again(host: Host, update: Callable[[Job], None]) -> Job:
        journal = session.journal()
        if is_in_process(host.uri) or (session.wait and not journal.job(job_id).plan.long):
            return jobs.restart(job_id, host, journal, update)
        started = jobs.restart_detached(job_id, host, journal)
        return jobs.wait(job_id, journal, on_update=update) if session.wait else started

    return _again(session, job_id, again)


@verb(
    "rollback",
    job_argument(),
    _with_set("Of all jobs of its set, the preparations last."),
    text="Remove what a failed or interrupted job left behind. --dry-run shows what; it asks before something is lost.",
)
def rollback(session: Session, job_id: int, whole: bool) -> int:
    from host import jobs

    if whole and (set_id := session.journal().job(job_id).set_id) is not None:
        from hvtui.cli import job_set

        return job_set.rollback(session, set_id)

    def roll(host: Host, update: Callable[[Job], None]) -> Job:
        return jobs.rollback(job_id, host, session.journal(), update)

    return _again(session, job_id, roll, plan_of=jobs.plan_rollback)


def _again(
    session: Session,
    job_id: int,
    work: Callable[[Host, Callable[[Job], None]], Job],
    *,
    plan_of: Callable[[Job], Plan] | None = None,
) -> int:
    """Work on a job once more, on the host it belongs to: its own plan, or that of `plan_of`, which is confirmed where
    something is lost. --dry-run shows it."""
    import vm.steps  # noqa: F401 - registers every verb that an old job may hold
    from hvtui.cli.change import Work, planned, run_and_report, show_plans
    from hvtui.cli.plans import confirm, tell_warnings

    journal = session.journal()
    journal.recover()
    found = journal.job(job_id)
    outcome = planned(found.vm_name or "", found.vm_uuid, lambda: plan_of(found) if plan_of else found.plan)
    if session.dry_run:
        return show_plans(session, [outcome])
    if outcome.error is not None:
        raise outcome.error
    host = host_of(session, found)
    if plan_of is not None and outcome.plan is not None and not confirm([outcome.plan], yes=session.yes):
        tell_warnings([outcome.plan])
    return run_and_report(session, [Work(outcome, lambda update: work(host, update))], journal)


def host_of(session: Session, found: Job) -> Host:
    """The host that the job belongs to, whatever --connect says of others. Raises ConnectionLost, Denied."""
    if "connect" not in session.given and "host" not in session.given and not session.given.get("demo"):
        session.given["connect"] = found.host_uri
    host = session.host()
    if host.uri != found.host_uri:
        raise NotFound(
            f"job {found.id} belongs to {printable(found.host_uri)}, not to {host.uri}",
            remedy="Leave --connect and --host out",
        )
    return host


@verb(
    "undo",
    job_argument(),
    _with_set("What all jobs of its set did but the preparations, whose results others may use."),
    text="Take back what a job did. Says why where that is impossible.",
)
def undo(session: Session, job_id: int, whole: bool) -> int:
    import vm.steps  # noqa: F401 - registers every verb that an old job may hold
    from host import jobs
    from hvtui.cli.change import change

    journal = session.journal()
    journal.recover()
    found = journal.job(job_id)
    host = host_of(session, found)

    def undoing(job: Job) -> tuple[str, str | None, Callable[[], Plan]]:
        return job.vm_name or "", job.vm_uuid, lambda: jobs.plan_undo(job, host, journal)

    those, prepared = [found], []
    if whole and found.set_id is not None:
        members = journal.members(found.set_id)
        prepared = [job for job in members if job.is_preparation and _can_be_taken_back(job)]
        members = tuple(job for job in members if not job.is_preparation)
        those = [job for job in members if _can_be_taken_back(job)] or list(members)
    code = change(session, [undoing(job) for job in those], ask=False)
    for job in prepared if code == 0 else ():
        narrate(f"What it began with stays ({printable(job.title)}): 'hvtui job undo {job.id}' takes that back too")
    return code


def _can_be_taken_back(job: Job) -> bool:
    return job.state is JobState.DONE and job.undone_by is None


@verb("run", click.Argument(["job_id"], type=int), text="Run a queued job: the runner's own process.", hidden=True)
def run(_session: Session, job_id: int) -> int:
    import vm.steps  # noqa: F401 - registers every verb
    from host.runner import run_job

    return run_job(job_id).exit_code


@verb("run-set", click.Argument(["set_id"], type=int), text="Run a queued set of jobs.", hidden=True)
def run_set(_session: Session, set_id: int) -> int:
    import vm.steps  # noqa: F401 - the same
    from host.runner import run_set as run_members
    from hvtui.cli.change import overall

    return overall([job.exit_code for job in run_members(set_id)])
