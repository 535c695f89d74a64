"""From a request for many VMs to a set of jobs: plan all, show it compactly, ask once, one progress view, one report.

The counterpart of hvtui.cli.change for a host.plan.PlanSet. It decides nothing about a VM itself.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from host import job_sets
from host.errors import Denied, HvtuiError, TimedOut
from host.job_model import Job, JobSet, JobState
from host.job_rules import is_in_process, what_now_with_set
from host.plan import Plan, PlanSet
from host.text import printable
from hvtui.cli.change import report
from hvtui.cli.output import Format, complain, narrate, paint, write_records, write_text
from hvtui.cli.plans import confirm, plan_text, tell_job_warnings, tell_warnings
from hvtui.cli.session import Session
from hvtui.cli.set_progress import SetProgress, outcome_of
from hvtui.outcome_sum import set_sum
from hvtui.same_as import set_command_line

if TYPE_CHECKING:
    from host.journal import Journal

NAMES_WIDTH = 100  # cells of a line of names


def change_set(
    session: Session,
    make_plan_set: Callable[[], PlanSet],
    *,
    ask: bool = False,
    own_waiting: bool = False,
    keep_failed: bool = False,
    done_word: str = "done",
) -> int:
    """Plan, confirm, run and report a set; returns the exit code. `ask` confirms a harmless set too; with `own_waiting`
    the plans themselves keep to --timeout; `keep_failed` does not roll back what fails; `done_word` is the result of
    what was done. Raises what `make_plan_set` does, Blocked (and the like) and Busy before anything has begun,
    UsageError or Cancelled from the confirmation."""
    plan_set = make_plan_set()
    if session.dry_run:
        return show_set(session, plan_set)
    if session.read_only:
        raise Denied("the hypervisor was opened read-only", remedy="Leave --read-only out to change something")
    plan_set.raise_if_blocked()
    plans = (*plan_set.preparations, *plan_set.plans)
    if not confirm(plans, yes=session.yes, ask=ask, text=plan_set_text(plan_set)):
        _tell_warnings(plan_set)
    host, journal = session.host(), session.journal()
    created = job_sets.create(plan_set, journal, keep_failed=keep_failed)

    def start() -> tuple[Job, ...]:
        return job_sets.start_set(created, host, journal)

    limit_s = None if own_waiting else session.timeout_s
    return run_and_report_set(session, created[0], start, limit_s=limit_s, done_word=done_word)


def run_and_report_set(
    session: Session,
    member: Job,
    start: Callable[[], tuple[Job, ...]],
    *,
    limit_s: float | None,
    done_word: str = "done",
) -> int:
    """Start a set's jobs, wait for them (unless told not to), and report each; returns the exit code. Ctrl-C and the
    limit cancel what is not over; finished VMs stay. A second Ctrl-C raises KeyboardInterrupt."""
    journal, set_id = session.journal(), member.set_id or member.id
    if not session.wait and not is_in_process(member.host_uri):
        return _report_started(session, start())
    late: TimedOut | None = None
    with SetProgress() as progress:
        try:
            start()
            ended = job_sets.wait_set(set_id, journal, limit_s, progress.show)
        except KeyboardInterrupt:
            progress.say("Interrupted: cancelling what is not over; Ctrl-C again leaves at once")
            _cancel(set_id, journal, progress)
            ended = job_sets.wait_set(set_id, journal, None, progress.show)
        except TimedOut:
            late = TimedOut(f"not done within {limit_s:g} s, cancelled", remedy="Give more time with --timeout")
            progress.say(str(late))
            _cancel(set_id, journal, progress)
            ended = job_sets.wait_set(set_id, journal, None, progress.show)
    return report_set(session, ended, told=progress.told, late=late, done_word=done_word)


def _cancel(set_id: int, journal: Journal, progress: SetProgress) -> None:
    try:
        job_sets.cancel_set(set_id, journal)
    except HvtuiError as error:  # all ended by themselves in between
        progress.say(str(error))


def report_set(
    session: Session,
    ended: Sequence[Job],
    *,
    told: set[int],
    late: TimedOut | None = None,
    done_word: str = "done",
) -> int:
    """Write what became of each VM (and of a preparation that was not done); returns the exit code."""
    shown = [job for job in ended if not job.is_preparation or job.state is not JobState.DONE]
    outcomes = [replace(outcome_of(job), done_word=done_word) for job in shown]
    if late is not None:
        outcomes = [replace(each, error=late) if each.exit_code else each for each in outcomes]
    tell_job_warnings([job for job in ended if job.is_preparation])
    code = report(session, outcomes, told=told)
    if len(ended) > 1 and any(job.state.is_over and job.state is not JobState.DONE for job in ended):
        narrate(what_now_with_set(JobSet(tuple(ended))))
    return code


def _report_started(session: Session, started: Sequence[Job]) -> int:
    job_set = JobSet(tuple(started))
    if session.output is not Format.TABLE:
        write_records([outcome_of(job).record() for job in job_set.main], session.output)
        return 0
    title = printable(job_set.title, limit=200)
    write_text(f"{title}: {job_set.state} (set {job_set.id})")
    narrate(f"Watch it with 'hvtui job watch {job_set.id}'")
    return 0


def show_set(session: Session, plan_set: PlanSet) -> int:
    """What --dry-run does: write the whole set; returns the exit code that its blockers would give."""
    if session.output is Format.TABLE:
        write_text(plan_set_text(plan_set))
    else:
        from host.job_codec import plan_set_to_json

        write_records([plan_set_to_json(plan_set)], session.output)
    try:
        plan_set.raise_if_blocked()
    except HvtuiError as error:
        if session.output is not Format.TABLE:
            complain(str(error))
        return error.exit_code
    return 0


def plan_set_text(plan_set: PlanSet) -> str:
    """A set, harmless to show: what is true for whom, the preparations and the first VM in full, the others by name."""
    lines = [paint(printable(plan_set.title, limit=200), "bold"), *_consequences(plan_set)]
    for plan in (*plan_set.preparations, *plan_set.plans[:1]):
        bare = replace(plan, blockers=(), losses=(), keeps=(), warnings=())
        lines += plan_text(bare, same_as=False).rstrip("\n").split("\n")
    if others := plan_set.plans[1:]:
        are_alike = len({tuple(step.verb for step in plan.steps) for plan in plan_set.plans}) == 1
        names = ", ".join(printable(plan.vm_name or plan.title, limit=60) for plan in others)
        lines += _wrapped(f"and {len(others)} more{' like it' if are_alike else ''}: {names}")
    return "\n".join((*lines, f"  same as: {set_command_line(plan_set)}")) + "\n"


def _consequences(plan_set: PlanSet) -> list[str]:
    """Blockers, losses and warnings, each once with the VMs that it is true for."""
    remedies = {blocker.reason: blocker.remedy for blocker in plan_set.all_blockers}
    lines = []
    for reason, names in plan_set.blocked_names.items():
        remedy = f". {printable(remedies[reason])}" if remedies[reason] else ""
        lines.append(f"  blocked: {_whose(names)}{printable(reason)}{remedy}")
    plans = (*plan_set.preparations, *plan_set.plans)
    for word, of in (("lost", "losses"), ("kept", "keeps"), ("warning", "warnings")):
        own = plan_set.warnings if of == "warnings" else ()
        lines += [f"  {word}: {printable(text)}" for text in own]
        lines += [f"  {word}: {_whose(names)}{printable(text)}" for text, names in _by_text(plans, of).items()]
    return lines


def _by_text(plans: Sequence[Plan], field: str) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for plan in plans:
        for text in getattr(plan, field):
            found.setdefault(text, []).append(plan.vm_name or plan.title)
    return found


def _whose(names: Sequence[str]) -> str:
    shown = ", ".join(printable(name, limit=60) for name in names[:5])
    return f"{shown}{f' and {len(names) - 5} more' if len(names) > 5 else ''}: " if names else ""


def _tell_warnings(plan_set: PlanSet) -> None:
    if plan_set.warnings:
        tell_warnings([replace(plan_set.plans[0], warnings=plan_set.warnings)])
    tell_warnings((*plan_set.preparations, *plan_set.plans))


def _wrapped(text: str) -> list[str]:
    from textwrap import wrap

    return wrap(text, NAMES_WIDTH, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)


def sum_text(job_set: JobSet) -> str:
    """A set in one line: its title and how many are done."""
    return f"{printable(job_set.title, limit=200)}  {set_sum(job_set)}"
