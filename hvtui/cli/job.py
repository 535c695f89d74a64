"""`hvtui job`: what was changed, what runs, and how to stop it, run it again or take it back."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import click

from host.errors import NotFound
from host.job_model import Job, JobState
from host.plan import Json
from host.text import printable
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
    "restart": ("hvtui.cli.job:restart", "Run a failed or interrupted job again from the step that failed."),
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
    return f"{job.state} {job.progress:.0%}" if job.state is JobState.RUNNING else job.state.value


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
    Column("title", "What it does.", lambda job: job.title, in_table=True),
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
    Column("kept", "True when what it had made was kept after it failed.", lambda job: job.kept),
    Column("undone_by", "The job that took it back, or null.", lambda job: job.undone_by),
    Column("command", "The same as a command, an argument list.", lambda job: list(job.command)),
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
    text="List the newest jobs.",
)
def list_(session: Session, states: tuple[str, ...], vm_name: str | None, limit: int) -> None:
    journal = session.journal()
    journal.recover()
    jobs = journal.jobs(limit=limit, states=[JobState(state) for state in states] or None, vm=vm_name)
    if not jobs and vm_name is not None and not journal.jobs(limit=1, vm=vm_name):
        from vm.inventory import find

        find(session.host(), vm_name)  # a VM without jobs is no error, one that there never was is
    if not jobs and session.output is Format.TABLE:
        any_job = journal.jobs(limit=1)
        narrate("No job matches" if any_job else "No jobs yet: every change that hvtui makes will be one")
        return
    write_list(jobs, COLUMNS, output=session.output, chosen=session.columns)


@verb("show", job_argument(), text="Show a job, its steps, and why it failed.")
def show(session: Session, job_id: int) -> None:
    journal = session.journal()
    journal.recover()
    found = journal.job(job_id)
    if session.output is not Format.TABLE:
        write_list([found], COLUMNS, output=session.output, chosen=session.columns, details=True)
        return
    values = record(found, COLUMNS)
    write_facts(
        (key, _text(value)) for key, value in values.items() if key != "steps" and value not in (None, "", False)
    )
    for step in found.steps:
        note = f"  {printable(step.error or step.note, limit=300)}" if step.error or step.note else ""
        write_text(f"  {step.index + 1}  {step.state:<8} {printable(step.title, limit=200)}{note}")


def _text(value: Json) -> str:
    return " ".join(map(str, value)) if isinstance(value, list) else plain(value)


@verb("watch", job_argument(), text="Follow a job until it ends; its exit code is this command's. -o jsonl streams it.")
def watch(session: Session, job_id: int) -> int:
    from host import jobs
    from hvtui.cli.change import Outcome, report
    from hvtui.cli.progress import Progress, show_job

    journal = session.journal()
    journal.recover()
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
    text="Ask a job to stop; what it had made is removed. An interrupted one is given up: what it made stays, and its "
    "VM is free for other jobs.",
)
def cancel(session: Session, job_id: int) -> None:
    from host import jobs

    journal = session.journal()
    journal.recover()
    jobs.cancel(job_id, journal)
    if not session.wait:
        narrate(f"Job {job_id} was asked to stop")
        return
    ended = jobs.wait(job_id, journal, timeout_s=session.timeout_s)
    write_text(f"Job {job_id}: {ended.state}")


@verb("restart", job_argument(), text="Run a failed or interrupted job again from the step that failed.")
def restart(session: Session, job_id: int) -> int:
    from host import jobs
    from host.job_rules import is_in_process

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
    text="Remove what a failed or interrupted job left behind. --dry-run shows what; it asks before something is lost.",
)
def rollback(session: Session, job_id: int) -> int:
    from host import jobs

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


@verb("undo", job_argument(), text="Take back what a job did. Says why where that is impossible.")
def undo(session: Session, job_id: int) -> int:
    import vm.steps  # noqa: F401 - registers every verb that an old job may hold
    from host import jobs
    from hvtui.cli.change import change

    journal = session.journal()
    journal.recover()
    found = journal.job(job_id)
    host = host_of(session, found)
    return change(
        session, [(found.vm_name or "", found.vm_uuid, lambda: jobs.plan_undo(found, host, journal))], ask=False
    )


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
