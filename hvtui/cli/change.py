"""From VMs and a plan_* function to jobs: plan all, ask once, run a few at a time, report each.

Every change of every noun goes through here, so dry runs, confirmations, Ctrl-C and exit codes are the same
everywhere. It decides nothing about a VM itself.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias

from host import jobs
from host.errors import Cancelled, Denied, HvtuiError, TimedOut
from host.job_model import Job, JobState
from host.job_rules import is_in_process, what_now
from host.plan import Json, Plan
from host.text import printable
from hvtui.cli import moved
from hvtui.cli.output import Format, complain, narrate, write_records, write_table, write_text
from hvtui.cli.plans import confirm, plan_text, tell_job_warnings, tell_warnings
from hvtui.cli.progress import Progress, held_up, show_job
from hvtui.cli.session import Session
from hvtui.holders import holding_jobs, is_off, make_way, with_holders
from hvtui.outcome_sum import in_sum
from vm.model import Vm

if TYPE_CHECKING:
    from host.connection import Host
    from host.journal import Journal

OnUpdate: TypeAlias = Callable[[Job], None]

WORKERS = 4  # a libvirtd serves five requests of a client at once; one is left for cancelling
REDRAW_S = 0.1
FINE = frozenset({JobState.DONE, JobState.QUEUED, JobState.RUNNING, JobState.ROLLED_BACK})  # the last: as asked


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one plan: a job, or the error that kept it from being one."""

    name: str
    uuid: str | None
    plan: Plan | None = None
    job: Job | None = None
    error: HvtuiError | None = None
    done_word: str = "done"
    is_unchanged: bool = False  # it was already what was asked for

    @property
    def exit_code(self) -> int:
        if self.error is not None:
            return self.error.exit_code
        if self.job is None or self.job.state in FINE:
            return 0
        return self.job.exit_code or (130 if self.job.state is JobState.CANCELLED else 1)

    @property
    def result(self) -> str:
        if self.error is not None:
            return "cancelled" if isinstance(self.error, Cancelled) else "failed"
        if self.job is None:
            return "unchanged" if self.is_unchanged else "planned"
        return self.done_word if self.job.state is JobState.DONE else self.job.state.value

    def complaint(self) -> str:
        """What failed, why and what to do, on one line; empty when nothing failed."""
        if self.error is not None:
            about = "" if self.error.about or not self.name else f"{printable(self.name, limit=80)}: "
            return f"{about}{self.error}"
        if self.job is None or not self.exit_code:
            return ""
        remedy = f". {printable(self.job.remedy)}" if self.job.remedy else ""
        reason = printable(self.job.error.strip()) or self.job.state.value
        name = printable(self.name, limit=80)
        return f"{reason if reason.startswith(name) else f'{name}: {reason}'}{remedy} (job {self.job.id})"

    def record(self) -> dict[str, Json]:
        """The JSON object of the reference page."""
        job, failed = self.job, self.exit_code != 0
        error = self.error.cause if self.error else job.error if job and failed else ""
        remedy = self.error.remedy if self.error else job.remedy if job and failed else ""
        return {
            "vm": self.name,
            "uuid": self.uuid,
            "result": self.result,
            "job": job.id if job else None,
            "exit_code": self.exit_code,
            "error": error or None,
            "remedy": remedy or None,
        }


def change_vms(session: Session, vms: Sequence[Vm], plan_one: Callable[[Host, Vm], Plan], **how: Any) -> int:
    """Plan and do one thing to each of `vms`; returns the exit code. `how` goes to `change`."""
    host = session.host()
    return change(session, [(vm.name, vm.uuid, partial(plan_one, host, vm)) for vm in vms], **how)


def change(
    session: Session,
    wanted: Sequence[tuple[str, str | None, Callable[[], Plan]]],
    *,
    ask: bool = False,
    own_waiting: bool = False,
    keep_failed: bool = False,
    done_word: str = "done",
    unchanged: Collection[str | None] = (),
    noun: str = "VM",
) -> int:
    """Plan, confirm, run and report; returns the exit code. `ask` confirms harmless plans too; with `own_waiting`
    the plans themselves keep to --timeout and --no-wait; `keep_failed` does not roll back what fails; `done_word` is
    the result of what was done; nothing is done to the uuids in `unchanged`; `noun` is what the table calls its rows.
    Raises UsageError or Cancelled from the confirmation."""
    outcomes = [
        Outcome(name, uuid, is_unchanged=True)
        if uuid in unchanged
        else replace(planned(name, uuid, partial(_beside_others, session, make)), done_word=done_word)
        for name, uuid, make in wanted
    ]
    if session.dry_run:
        return show_plans(session, outcomes)
    if session.read_only:
        raise Denied("the hypervisor was opened read-only", remedy="Leave --read-only out to change something")
    ready = [each for each in outcomes if each.plan is not None and each.error is None]
    plans = [each.plan for each in ready if each.plan]
    if not confirm(plans, yes=session.yes, ask=ask):
        tell_warnings(plans)
    if not ready:
        return report(session, outcomes, noun=noun)
    host, journal = session.host(), session.journal()
    wait_here = session.wait or own_waiting

    def run(plan: Plan, on_update: OnUpdate) -> Job:
        make_way([plan], journal)
        if is_in_process(host.uri) or (wait_here and not plan.long):  # that world ends with this process
            return jobs.submit(plan, host, journal, on_update, keep_failed)
        job = jobs.start_detached(plan, host, journal, keep_failed=keep_failed)
        on_update(job)
        return jobs.wait(job.id, journal, on_update=on_update) if wait_here else job

    works = [Work(each, partial(run, each.plan)) for each in ready if each.plan]
    done = iter(run_works(works, journal, limit_s=None if own_waiting else session.timeout_s))
    ended = [next(done) if each.plan is not None and each.error is None else each for each in outcomes]
    return report(session, ended, noun=noun)


def planned(name: str, uuid: str | None, make: Callable[[], Plan]) -> Outcome:
    """The outcome so far: the plan of `make`, and the error that keeps it from running."""
    plan = None
    try:
        plan = make()
        plan.raise_if_blocked()
    except HvtuiError as error:
        return Outcome(name, uuid, plan, error=error)
    return Outcome(name, uuid, plan)


def _beside_others(session: Session, make: Callable[[], Plan]) -> Plan:
    """The plan of `make`; one that turns a VM off says which waiting job it ends."""
    plan = make()
    if not is_off(plan):
        return plan  # the journal refuses what another job holds
    return with_holders([plan], holding_jobs(session.journal()))[0]


def show_plans(session: Session, outcomes: Sequence[Outcome]) -> int:
    """What --dry-run does: write the plans, say what is blocked; returns the exit code."""
    plans = [each.plan for each in outcomes if each.plan]
    if session.output is Format.TABLE:
        write_text("".join(plan_text(plan) for plan in plans))
    else:
        from host.journal import plan_to_json

        write_records([plan_to_json(plan) for plan in plans], session.output)
    for each in outcomes:
        if each.is_unchanged:
            narrate(f"{printable(each.name, limit=80)}: unchanged")
        if each.error is not None and (each.plan is None or session.output is not Format.TABLE):
            complain(each.complaint())
    return overall([each.exit_code for each in outcomes])


def overall(codes: Sequence[int]) -> int:
    """0 when all are 0; the code of those that failed when they agree; else 1."""
    failed = {code for code in codes if code}
    if not failed:
        return 0
    return failed.pop() if len(failed) == 1 else 1


def report(session: Session, outcomes: Sequence[Outcome], *, told: Collection[int] = (), noun: str = "VM") -> int:
    """Write the result of each to standard output, what failed to standard error (but for the jobs in `told`); returns
    the exit code."""
    if session.output is not Format.TABLE:
        write_records([each.record() for each in outcomes], session.output)
    elif len(outcomes) == 1:
        _report_one(outcomes[0])
    else:
        _report_each(outcomes, noun)
    tell_job_warnings([each.job for each in outcomes if each.job is not None])
    failures = [each for each in outcomes if each.exit_code]
    for each in failures:
        if each.job is None or each.job.id not in told:
            complain(each.complaint())
            if len(outcomes) == 1:
                _tell_what_now(each.job)
    if len(outcomes) > 1 and failures:
        cancelled = sum(each.result == JobState.CANCELLED for each in failures)
        narrate(in_sum(len(outcomes), failed=len(failures) - cancelled, cancelled=cancelled))
    return overall([each.exit_code for each in outcomes])


def _tell_what_now(job: Job | None) -> None:
    """How a job goes on that was cancelled; those that failed say what to do themselves."""
    if job is not None and job.state is JobState.CANCELLED and not job.remedy and not is_in_process(job.host_uri):
        narrate(what_now(job))


def _report_each(outcomes: Sequence[Outcome], noun: str) -> None:
    """A line each; moves with their figures."""
    rows = [[printable(e.name, limit=80), e.result, str(e.job.id) if e.job else "–"] for e in outcomes]
    figures = [moved.words(each.job)[1] for each in outcomes]
    if not any(figures):
        write_table([noun, "RESULT", "JOB"], rows, right=[False, False, True])
        return
    with_figures = [[*row, took] for row, took in zip(rows, figures, strict=True)]
    write_table([noun, "RESULT", "JOB", "TOOK"], with_figures, right=[False, False, True, False])


def _report_one(outcome: Outcome) -> None:
    if outcome.is_unchanged:
        write_text(f"{printable(outcome.name, limit=200)}: unchanged")
    elif outcome.job is not None:
        words = moved.words(outcome.job)[0] or f"{printable(outcome.job.title, limit=200)}: {outcome.result}"
        write_text(f"{words} (job {outcome.job.id})")


@dataclass(frozen=True, slots=True)
class Work:
    """One thing to run: what is known of it, and the function that runs it and tells each update of its job."""

    outcome: Outcome
    run: Callable[[OnUpdate], Job]


def run_and_report(session: Session, works: Sequence[Work], journal: Journal) -> int:
    """Run `works`, report them, return the exit code."""
    return report(session, run_works(works, journal, limit_s=session.timeout_s))


def run_works(works: Sequence[Work], journal: Journal, *, limit_s: float | None) -> list[Outcome]:
    """Run a few at a time; what became of each, in order. Ctrl-C (and the limit) cancels what runs and starts no
    more. A second Ctrl-C raises KeyboardInterrupt."""
    under_way = _UnderWay(journal)
    pool = ThreadPoolExecutor(max_workers=WORKERS, thread_name_prefix="job")
    futures = [pool.submit(under_way.one, place, work) for place, work in enumerate(works)]
    late: TimedOut | None = None
    try:
        _watch(futures, under_way, limit_s)
    except KeyboardInterrupt:
        narrate("Interrupted: cancelling what runs; Ctrl-C again leaves at once")
        under_way.stop()
        _wait_out(futures, under_way)
    except TimedOut as error:
        late = error
        under_way.stop()
        _wait_out(futures, under_way)
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
    outcomes = [future.result() for future in futures]
    return [replace(each, error=late) if late and each.exit_code else each for each in outcomes]


def _wait_out(futures: Sequence[Future[Outcome]], under_way: _UnderWay) -> None:
    """Until all that was cancelled has come to its end; what keeps it from that is said."""
    told: set[int] = set()
    while wait(futures, timeout=REDRAW_S)[1]:
        for job in list(under_way.latest.values()):
            if job.id not in told and (why := held_up(job)):
                told.add(job.id)
                narrate(why)


class _UnderWay:
    """The jobs of this command by their place, as last heard of; written by the worker threads."""

    def __init__(self, journal: Journal) -> None:
        self.journal = journal
        self.latest: dict[int, Job] = {}
        self._stopping = threading.Event()

    def one(self, place: int, work: Work) -> Outcome:
        """Run one of the works on a worker thread."""
        try:
            if self._stopping.is_set():
                raise Cancelled("not started: the command was interrupted")
            job = work.run(lambda job: self._heard(place, job))
        except HvtuiError as error:
            return replace(work.outcome, job=self.latest.get(place), error=error)
        self.latest[place] = job
        return replace(work.outcome, job=job)

    def _heard(self, place: int, job: Job) -> None:
        is_new = place not in self.latest
        self.latest[place] = job
        if is_new and self._stopping.is_set():  # it was created while the others were being cancelled
            jobs.cancel(job.id, self.journal)

    def stop(self) -> None:
        """Cancel what runs, and start no more."""
        self._stopping.set()
        for job in list(self.latest.values()):
            if not job.state.is_over:
                self._cancel(job)

    def _cancel(self, job: Job) -> None:
        try:
            jobs.cancel(job.id, self.journal)
        except HvtuiError as error:  # it ended by itself in between
            narrate(str(error))


def _watch(futures: Sequence[Future[Outcome]], under_way: _UnderWay, limit_s: float | None) -> None:
    """Show progress until all ended. Raises TimedOut after `limit_s`, KeyboardInterrupt."""
    deadline_s = time.monotonic() + limit_s if limit_s else None
    pending = set(futures)
    with Progress() as progress:
        while pending:
            _, pending = wait(pending, timeout=REDRAW_S, return_when=FIRST_COMPLETED)
            if len(futures) > 1:
                done = len(futures) - len(pending)
                progress.bar_only(f"{done} of {len(futures)}", done / len(futures))
            elif pending:
                for job in list(under_way.latest.values()):
                    show_job(progress, job)
            if deadline_s is not None and pending and time.monotonic() > deadline_s:
                raise TimedOut(f"not done within {limit_s:g} s, cancelled", remedy="Give more time with --timeout")
