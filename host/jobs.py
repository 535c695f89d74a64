"""Jobs: the only way from a plan to a change. Creating, running, watching, cancelling, restarting, taking back.

Every function works from any process: what a job is stands in the journal. The steps themselves are run by
host.job_engine; the process that outlives the terminal is started by host.runner.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Collection, Sequence
from contextlib import closing
from dataclasses import replace

from host import job_process, secrets
from host.connection import Host
from host.errors import HvtuiError, NotFound, TimedOut, UsageError, WrongState
from host.job_engine import PATIENCE, OnUpdate, Patience, Work, roll_back, run_steps
from host.job_model import Job, JobState, JobStep
from host.job_queue import wait_for_turn
from host.job_rules import ALIVE, HEADLESS, RESTARTABLE, in_words, interrupted, is_in_process, what_now
from host.journal import Journal
from host.plan import Blocker, Danger, Plan, Step
from host.steps import verb_named

_log = logging.getLogger(__name__)

POLL_S = 0.1
LOOK_FOR_THE_DEAD_S = 1.0


def create(plan: Plan, journal: Journal, *, keep_failed: bool = False) -> Job:
    """A QUEUED job for `plan`, which holds its VM from now on. `keep_failed`: do not roll back what fails.

    Raises Blocked, Busy (another job holds the VM), Conflict (undone already), JournalFailed.
    """
    plan.raise_if_blocked()
    claim = job_process.claim_here()
    try:
        return journal.add(plan, claim=claim, keep_failed=keep_failed)
    except BaseException:
        job_process.release(claim)
        raise


def run(
    job_id: int,
    host: Host,
    journal: Journal,
    on_update: OnUpdate | None = None,
    keep_failed: bool = False,
    *,
    patience: Patience = PATIENCE,
) -> Job:
    """Run a QUEUED job in this thread, when it is its turn (host.job_queue). Returns it as DONE, FAILED, CANCELLED or
    INTERRUPTED, with `exit_code`.

    `on_update` gets the job at each journalled change, in this thread. Raises WrongState (somebody else runs it, or it
    is over), UsageError (another host's job), JournalFailed (the job is then found interrupted).
    """
    check_host(journal.job(job_id).host_uri, host)
    return _work(
        job_id,
        host,
        journal,
        accept=(JobState.QUEUED,),
        on_update=on_update,
        keep_failed=keep_failed,
        patience=patience,
    )


def submit(
    plan: Plan,
    host: Host,
    journal: Journal,
    on_update: OnUpdate | None = None,
    keep_failed: bool = False,
) -> Job:
    """Create a job for `plan` and run it in this thread; raises what `create` and `run` do."""
    check_host(plan.host_uri, host)
    return run(create(plan, journal, keep_failed=keep_failed).id, host, journal, on_update)


def start_detached(
    plan: Plan,
    host: Host,
    journal: Journal,
    *,
    keep_failed: bool = False,
    program: Sequence[str] | None = None,
) -> Job:
    """Create a job for `plan` and start a process of its own for it, which outlives this one and its terminal.

    Returns when that process has begun. `program` is the argument list to which the job's id is added. A simulated
    host lives only in this process: its job runs in a thread. Raises what `create` does, HvtuiError when the process
    does not start.
    """
    check_host(plan.host_uri, host)
    return _detach(create(plan, journal, keep_failed=keep_failed), host, journal, program)


def restart_detached(job_id: int, host: Host, journal: Journal, *, program: Sequence[str] | None = None) -> Job:
    """As `restart`, in a process of its own as `start_detached`."""
    check_host(journal.job(job_id).host_uri, host)
    claim = job_process.claim_here()
    try:
        job = journal.claim(job_id, claim, accept=RESTARTABLE, state=JobState.QUEUED)
    except BaseException:
        job_process.release(claim)
        raise
    return _detach(job, host, journal, program)


def wait(
    job_id: int,
    journal: Journal,
    timeout_s: float | None = None,
    on_update: OnUpdate | None = None,
) -> Job:
    """Wait, in whichever process the job runs, until it is over. Raises TimedOut (the job goes on), NotFound."""
    deadline_s = None if timeout_s is None else time.monotonic() + timeout_s
    stamp, looked_at_s, shown = None, float("-inf"), None
    while True:
        if time.monotonic() - looked_at_s >= LOOK_FOR_THE_DEAD_S:
            journal.recover()
            looked_at_s = time.monotonic()
        if (new_stamp := journal.stamp()) != stamp:
            stamp, job = new_stamp, journal.job(job_id)
            if on_update is not None and job != shown:
                on_update(job)
            shown = job
            if job.state.is_over:
                return job
        if deadline_s is not None and time.monotonic() >= deadline_s:
            remedy = f"It goes on: watch it with '{HEADLESS} watch {job_id}'"
            raise TimedOut(f"not over after {timeout_s:g} s", about=f"job {job_id}", remedy=remedy)
        time.sleep(POLL_S)


def cancel(job_id: int, journal: Journal) -> Job:
    """Ask the process that runs the job to stop and to roll back; it looks a few times a second. `wait` for the end.

    An interrupted job is given up: what it made stays, and its VM is free. Raises WrongState when it is over, NotFound.
    """
    journal.recover()
    job = journal.job(job_id)
    if job.state in ALIVE:
        journal.request_cancel(job_id)
        return journal.job(job_id)
    if job.state is not JobState.INTERRUPTED:
        raise WrongState(f"it {in_words(job.state)} already", about=f"job {job_id}", remedy=what_now(job))
    return _give_up(job, journal)


def wish(job_id: int, journal: Journal, **wishes: str) -> Job:
    """Tell the process that runs the job what is wanted of it now (a bandwidth, another way): its steps look at it
    a few times a second, and know what they can do about it. Raises WrongState (the job is not under way), NotFound."""
    journal.recover()
    job = journal.job(job_id)
    if job.state not in ALIVE:
        raise WrongState(f"it {in_words(job.state)}", about=f"job {job_id}", remedy=what_now(job))
    journal.wish(job_id, wishes)
    return job


def restart(
    job_id: int,
    host: Host,
    journal: Journal,
    on_update: OnUpdate | None = None,
    *,
    patience: Patience = PATIENCE,
) -> Job:
    """Go on, in this thread, with the first step that is not done; from the start when all was rolled back.

    Raises WrongState (it is done, or runs), Busy, UsageError (another host's job), JournalFailed.
    """
    journal.recover()
    check_host(journal.job(job_id).host_uri, host)
    return _work(job_id, host, journal, accept=RESTARTABLE, on_update=on_update, patience=patience)


def rollback(
    job_id: int,
    host: Host,
    journal: Journal,
    on_update: OnUpdate | None = None,
    *,
    patience: Patience = PATIENCE,
) -> Job:
    """Take back, in this thread, what an interrupted or kept job made. Returns it as ROLLED_BACK or INTERRUPTED.

    Raises WrongState (nothing is left of it, it is done, or runs), Busy, UsageError, JournalFailed.
    """
    journal.recover()
    job = journal.job(job_id)
    check_host(job.host_uri, host)
    if job.state is not JobState.INTERRUPTED and not job.kept:
        raise WrongState(f"it {in_words(job.state)}", about=f"job {job_id}", remedy=what_now(job))
    claim = job_process.claim_here()
    try:
        claimed = journal.claim(job_id, claim, accept=RESTARTABLE, state=JobState.RUNNING)
        with closing(Work(claimed, claim, host=host, journal=journal, on_update=on_update, patience=patience)) as work:
            return roll_back(work)
    finally:
        job_process.release(claim)


def plan_rollback(job: Job) -> Plan:
    """What `rollback` is going to take back of an interrupted or kept job, last step first, to be shown and agreed to;
    `rollback` does it. Blocked when nothing of the job is left to take back."""
    begun = [step for step in reversed(job.steps) if step.has_begun]
    has_left = job.state is JobState.INTERRUPTED or job.kept
    blockers = () if has_left else (Blocker.wrong_state(f"job {job.id} {in_words(job.state)}", remedy=what_now(job)),)
    losses = tuple(loss for step in begun for loss in _lost_by_rollback(job, step))
    return Plan(
        title=f"Roll back job {job.id}: {job.title}",
        host_uri=job.host_uri,
        steps=tuple(Step("", f"Take back, where it made something: {step.title}") for step in begun),
        command=("job", "rollback", str(job.id)),
        vm_uuid=job.vm_uuid,
        vm_name=job.vm_name,
        danger=Danger.DESTRUCTIVE if losses else Danger.DISRUPTIVE,
        blockers=blockers,
        losses=losses,
    )


def _lost_by_rollback(job: Job, step: JobStep) -> tuple[str, ...]:
    """What the step's inverse would lose: the rollback of a step removes what that does."""
    planned = job.plan.steps[step.index]
    try:
        verb = verb_named(planned.verb)
        inverse = verb.inverse(planned.args, dict(step.result)) if verb.rollback and step.result is not None else None
    except UsageError:
        return ()  # the rollback itself will say that this version does not know the step
    return inverse.losses if isinstance(inverse, Step) else ()


def plan_undo(job: Job, host: Host, journal: Journal | None = None) -> Plan:
    """The plan that takes a done job back, last step first, or one whose blockers say why there is none. With a
    `journal` it also says which job removed a VM that is gone. Raises ConnectionLost, Denied."""
    blockers = _undo_blockers(job, host)
    steps, obstacles = ([], []) if blockers else _inverses(job)
    blockers += obstacles
    if not steps and not blockers:
        blockers.append(Blocker(f"job {job.id} changed nothing"))
    if not blockers and _lacks_its_vm(steps, host):
        blockers.append(_gone(job, journal))
    losses = tuple(loss for step in steps for loss in step.losses)
    return Plan(
        title=f"Undo job {job.id}: {job.title}",
        host_uri=job.host_uri,
        steps=tuple(steps),
        command=("job", "undo", str(job.id)),
        vm_uuid=job.vm_uuid,
        vm_name=job.vm_name,
        danger=Danger.DESTRUCTIVE if losses else Danger.DISRUPTIVE,
        blockers=tuple(blockers),
        losses=losses,
        long=job.plan.long,
        undoes_job=job.id,
    )


def _inverses(job: Job) -> tuple[list[Step], list[Blocker]]:
    steps, obstacles = [], []
    for step in reversed(job.steps):
        inverse = _inverse(job, step.index)
        if isinstance(inverse, Step):
            steps.append(inverse)
        elif inverse is not None:
            obstacles.append(Blocker(f"{step.title}: {inverse}"))
    return steps, obstacles


def _lacks_its_vm(steps: Sequence[Step], host: Host) -> bool:
    """True when the first step works on a VM that is not there; the later ones find what the first one left."""
    uuid = steps[0].args.get("uuid")
    if not isinstance(uuid, str) or verb_named(steps[0].verb).without_vm:
        return False
    try:
        with host.calls("look for its VM") as connection:
            connection.lookupByUUIDString(uuid)
    except NotFound:
        return True
    return False


def _gone(job: Job, journal: Journal | None) -> Blocker:
    newer = journal.jobs(None, (JobState.DONE,), job.vm_uuid) if journal is not None and job.vm_uuid else ()
    deletions = (other for other in newer if other.id > job.id and other.undone_by is None and _brings_back(other))
    deletion = next(deletions, None)
    remedy = f"Undo its deletion first: '{HEADLESS} undo {deletion.id}'" if deletion is not None else ""
    return Blocker("the VM is gone", remedy, exit_code=NotFound.exit_code)


def _brings_back(job: Job) -> bool:
    """True when undoing the job makes its VM anew."""
    steps, obstacles = _inverses(job)
    return not obstacles and any(verb_named(step.verb).without_vm for step in steps)


def _undo_blockers(job: Job, host: Host) -> list[Blocker]:
    if job.undone_by is not None:
        return [Blocker(f"job {job.undone_by} undid it already", f"See it with '{HEADLESS} show {job.undone_by}'")]
    if job.state is not JobState.DONE:
        return [Blocker(f"only a job that is done can be undone; job {job.id} {in_words(job.state)}", what_now(job))]
    if job.host_uri != host.uri:
        return [Blocker(f"job {job.id} belongs to {job.host_uri}", f"Connect to it with --connect {job.host_uri}")]
    return []


def _inverse(job: Job, index: int) -> Step | str | None:
    planned = job.plan.steps[index]
    try:
        inverse = verb_named(planned.verb).inverse(planned.args, dict(job.steps[index].result or {}))
    except UsageError as unknown:
        return unknown.cause
    if isinstance(inverse, Step) and any(secrets.references(inverse.args)):
        return f"it needs a secret that was removed when job {job.id} ended"
    return inverse


def check_host(uri: str, host: Host) -> None:
    if uri != host.uri:
        raise UsageError(f"the job belongs to the host {uri}", remedy=f"Connect to it with --connect {uri}")


def _work(
    job_id: int,
    host: Host,
    journal: Journal,
    *,
    accept: Collection[JobState],
    on_update: OnUpdate | None,
    patience: Patience,
    keep_failed: bool = False,
) -> Job:
    claim = job_process.claim_here()
    try:
        if JobState.QUEUED not in accept:
            journal.claim(job_id, claim, accept=accept, state=JobState.QUEUED)
        job = wait_for_turn(job_id, claim, journal, on_update)
        work = Work(job, claim, host=host, journal=journal, on_update=on_update, patience=patience)
        if keep_failed:
            work.change(keep_failed=True)
        with closing(work):
            return run_steps(work)
    finally:
        job_process.release(claim)


def run_taken(
    job: Job,
    claim: str,
    host: Host,
    journal: Journal,
    on_update: OnUpdate | None = None,
    *,
    patience: Patience = PATIENCE,
) -> Job:
    """As `run`, of a job that was taken for `claim` already (host.journal's `enter`)."""
    try:
        with closing(Work(job, claim, host=host, journal=journal, on_update=on_update, patience=patience)) as work:
            return run_steps(work)
    finally:
        job_process.release(claim)


def _detach(job: Job, host: Host, journal: Journal, program: Sequence[str] | None) -> Job:
    if is_in_process(host.uri):
        threading.Thread(target=_run_here, args=(job.id, host, journal), name=f"job-{job.id}", daemon=True).start()
        return journal.job(job.id)
    from host.runner import PROGRAM, launch

    problem = launch(job.id, journal, program or PROGRAM)
    return journal.job(job.id) if problem is None else _never_began(job.id, journal, problem)


def _run_here(job_id: int, host: Host, journal: Journal) -> None:
    try:
        run(job_id, host, journal)
    except HvtuiError as error:
        _log.warning("job %d ended without its journal: %s", job_id, error)


def _never_began(job_id: int, journal: Journal, problem: HvtuiError) -> Job:
    """Raise `problem`, with the job as FAILED, unless somebody works on it after all."""
    claim = job_process.claim_here()
    try:
        accept = (JobState.QUEUED, JobState.INTERRUPTED)
        job = interrupted(journal.claim(job_id, claim, accept=accept, state=JobState.RUNNING), problem.cause)
        state = JobState.INTERRUPTED if any(step.has_begun for step in job.steps) else JobState.FAILED
        told = replace(job, state=state, error=problem.cause, remedy=problem.remedy, exit_code=problem.exit_code)
        journal.save(told, claim)
    except WrongState:
        return journal.job(job_id)
    finally:
        job_process.release(claim)
    raise problem


def _give_up(job: Job, journal: Journal) -> Job:
    claim = job_process.claim_here()
    try:
        claimed = journal.claim(job.id, claim, accept=(JobState.INTERRUPTED,), state=JobState.RUNNING)
        kept = any(step.has_begun for step in claimed.steps)
        ended = interrupted(claimed, "")
        journal.save(replace(ended, state=JobState.CANCELLED, kept=kept, exit_code=130), claim)
    finally:
        job_process.release(claim)
    return journal.job(job.id)
