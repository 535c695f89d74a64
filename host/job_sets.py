"""Sets of jobs: what one request changes on several VMs, each VM a job of its own, all run by one process.

The preparations run first, one after the other; then the VMs' jobs, a few beside each other, each on its own host. One
that fails rolls back only itself, and one that waits for its turn (host.job_queue) holds up no other; a preparation
that does not get done stops all that come after it. What a set and its members are stands in the journal, so that every
function works from any process. The jobs themselves are host.jobs'.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime

from host import job_process, jobs
from host.connection import Host, open_host
from host.errors import Cancelled, HvtuiError, TimedOut, UsageError, WrongState
from host.job_engine import PATIENCE, OnUpdate, Patience
from host.job_model import Job, JobSet, JobState
from host.job_queue import Door
from host.job_rules import (
    ALIVE,
    HEADLESS,
    RESTARTABLE,
    in_words,
    interrupted,
    is_in_process,
    names_a_vm,
    what_now,
    what_now_with_set,
)
from host.journal import Journal
from host.plan import PlanSet

_log = logging.getLogger(__name__)

WORKERS = 4  # a libvirtd serves five requests of a client at once (max_client_requests); one is left for the others
MOST_AT_ONCE = 16  # of those with lanes, which mostly wait: moves between hosts
POLL_S = 0.05
OnSetUpdate = Callable[[tuple[Job, ...]], None]


def create(plan_set: PlanSet, journal: Journal, *, keep_failed: bool = False) -> tuple[Job, ...]:
    """QUEUED jobs for all preparations and plans, in this order, each of which holds its VM from now on; all or none.

    `set_id` of each is the first one's id. `keep_failed`: do not roll back what fails. Raises Blocked (and the like),
    Busy (another job holds one of the VMs), UsageError (nothing to do, or on several hosts of which one is simulated in
    this process), JournalFailed.
    """
    plan_set.raise_if_blocked()
    _check(plan_set)
    return journal.add_set(plan_set, keep_failed=keep_failed)


def members(set_id: int, journal: Journal) -> tuple[Job, ...]:
    """The jobs of a set, its preparations first. Raises NotFound."""
    return journal.members(set_id)


def run_set(
    set_id: int,
    host: Host,
    journal: Journal,
    on_update: OnUpdate | None = None,
    *,
    patience: Patience = PATIENCE,
) -> tuple[Job, ...]:
    """Run the QUEUED members of a set in this process: the preparations in this thread, then the VMs' jobs in threads,
    WORKERS of them, and more that have lanes. `host` is that of one of them; the others' are opened here. Returns all
    members when none is left to run, each as `jobs.run` does.

    `on_update` gets a job at each of its journalled changes, in its thread. Raises NotFound, UsageError (another host's
    jobs), JournalFailed.
    """
    found = JobSet(journal.members(set_id))
    _check_host(found.jobs, host)
    claims = journal.queued_claims([job.id for job in found.jobs])
    try:
        with hosts(host) as host_at:

            def run(job: Job) -> Job:
                return _ended(job, host_at(job.host_uri), journal, on_update, patience)

            def run_taken(job: Job, claim: str) -> None:
                jobs.run_taken(job, claim, host_at(job.host_uri), journal, on_update, patience=patience)

            if _prepare(found.preparations, journal, run):
                _side_by_side([job for job in found.main if job.state is JobState.QUEUED], journal, run_taken)
    finally:
        for claim in claims:  # of those that could not begin, because the journal cannot be written
            job_process.release(claim)
    return journal.members(set_id)


def start_detached_set(
    plan_set: PlanSet,
    host: Host,
    journal: Journal,
    *,
    keep_failed: bool = False,
    program: Sequence[str] | None = None,
) -> tuple[Job, ...]:
    """Create the jobs of a set and start one process for them all, which outlives this one and its terminal.

    Returns when that process has begun. `program` is the argument list to which the set's id is added. A host that is
    simulated in this process gets threads instead. Raises what `create` does, HvtuiError when the process does not
    start (all jobs have then failed).
    """
    _check(plan_set)
    if host.uri not in {plan.host_uri for plan in (*plan_set.preparations, *plan_set.plans)}:
        jobs.check_host(plan_set.plans[0].host_uri, host)
    return start_set(create(plan_set, journal, keep_failed=keep_failed), host, journal, program=program)


def start_set(
    created: tuple[Job, ...], host: Host, journal: Journal, *, program: Sequence[str] | None = None
) -> tuple[Job, ...]:
    """What `start_detached_set` does with the jobs of a set that were just created."""
    set_id = created[0].set_id or created[0].id
    if is_in_process(host.uri):
        threading.Thread(target=_run_here, args=(set_id, host, journal), name=f"set-{set_id}", daemon=True).start()
        return created
    from host.runner import SET_PROGRAM, launch

    queued = [job.id for job in created if job.state is JobState.QUEUED]
    problem = launch(set_id, journal, program or SET_PROGRAM, members=queued)
    if problem is None:
        return journal.members(set_id)

    def never_began(job: Job) -> Job:
        if _has_begun(job):
            return interrupted(job, problem.cause)
        return replace(_told(job, JobState.FAILED, problem.cause, exit_code=problem.exit_code), remedy=problem.remedy)

    journal.end_queued(set_id, never_began)
    raise problem


def restart_set(set_id: int, host: Host, journal: Journal, *, program: Sequence[str] | None = None) -> tuple[Job, ...]:
    """Complete a set: run every member again that is not done, in a process of its own as `start_detached_set` does.

    Raises WrongState (all are done, or some run), Busy, NotFound, UsageError (another host's jobs), JournalFailed.
    """
    journal.recover()
    _check_host(journal.members(set_id), host)
    return start_set(journal.claim_set(set_id, accept=RESTARTABLE), host, journal, program=program)


def wait_set(
    set_id: int,
    journal: Journal,
    timeout_s: float | None = None,
    on_update: OnSetUpdate | None = None,
) -> tuple[Job, ...]:
    """Wait, in whichever process they run, until all members are over. `on_update` gets all of them whenever one has
    changed. Raises TimedOut (they go on), NotFound."""
    deadline_s = None if timeout_s is None else time.monotonic() + timeout_s
    stamp, looked_at_s = None, float("-inf")
    found: tuple[Job, ...] = ()
    while True:
        if time.monotonic() - looked_at_s >= jobs.LOOK_FOR_THE_DEAD_S:
            journal.recover()
            looked_at_s = time.monotonic()
        if (new_stamp := journal.stamp()) != stamp:
            before, stamp, found = found, new_stamp, journal.members(set_id)
            if on_update is not None and found != before:
                on_update(found)
            if all(job.state.is_over for job in found):
                return found
        if deadline_s is not None and time.monotonic() >= deadline_s:
            remedy = f"It goes on: watch it with '{HEADLESS} watch {set_id}'"
            raise TimedOut(f"not over after {timeout_s:g} s", about=f"set {set_id}", remedy=remedy)
        time.sleep(POLL_S)


def cancel_set(set_id: int, journal: Journal) -> tuple[Job, ...]:
    """Cancel what is not over: members that wait end at once, those that run are asked to stop and to roll back; what
    is done stays. `wait_set` for the end. Where nothing is alive, the interrupted members are given up: what they made
    stays, and their VMs are free. Raises WrongState when all are over, NotFound."""
    journal.recover()
    found = journal.members(set_id)
    alive = [job for job in found if job.state in ALIVE]
    given_up = [job for job in found if job.state is JobState.INTERRUPTED]
    if alive:
        journal.end_queued(set_id, lambda job: job if _has_begun(job) else _cancelled(job))
        journal.request_cancel(*(job.id for job in alive))
    elif given_up:
        for job in given_up:
            jobs.cancel(job.id, journal)
    else:
        told = JobSet(found)
        raise WrongState(f"it {in_words(told.state)} already", about=f"set {set_id}", remedy=what_now_with_set(told))
    return journal.members(set_id)


def _check(plan_set: PlanSet) -> None:
    plans = (*plan_set.preparations, *plan_set.plans)
    if not plan_set.plans:
        raise UsageError("there is nothing to do", about=plan_set.title)
    uris = {plan.host_uri for plan in plans}
    if len(uris) > 1 and any(is_in_process(uri) for uri in uris):
        raise UsageError("a simulated host has no part in a set of several hosts", about=plan_set.title)
    named = Counter((plan.host_uri, plan.vm_name or plan.vm_uuid or "") for plan in plans if names_a_vm(plan))
    if (twice := named.most_common(1)) and twice[0][1] > 1:
        raise UsageError("it is named twice, and a set changes each VM once", about=twice[0][0][1])


def _check_host(members: Sequence[Job], host: Host) -> None:
    """`host` must be that of one of the members. Raises UsageError."""
    if host.uri not in {job.host_uri for job in members}:
        jobs.check_host(members[0].host_uri, host)


@contextmanager
def hosts(host: Host) -> Iterator[Callable[[str], Host]]:
    """The Host of a URI: `host`, or one that is opened once for all and closed in the end."""
    known, lock = {host.uri: host}, threading.Lock()

    def host_at(uri: str) -> Host:
        with lock:
            if uri not in known:
                known[uri] = open_host(uri)
            return known[uri]

    try:
        yield host_at
    finally:
        for other in known.values():
            if other is not host:
                other.close()


def _ended(job: Job, host: Host, journal: Journal, on_update: OnUpdate | None, patience: Patience) -> Job:
    """The member once it was run; as it is now where somebody cancelled it, or took it, in between."""
    try:
        return jobs.run(job.id, host, journal, on_update, patience=patience)
    except WrongState:
        return journal.job(job.id)


def _prepare(preparations: Sequence[Job], journal: Journal, run: Callable[[Job], Job]) -> bool:
    """Run the preparations. False when the others must not begin: then they have ended, and say why."""
    for job in preparations:
        ended = run(job) if job.state is JobState.QUEUED else job
        if not ended.state.is_over:
            return False  # another process runs this set
        if ended.state is not JobState.DONE:
            _call_off(ended, journal)
            return False
    return True


def _call_off(preparation: Job, journal: Journal) -> None:
    """End what waits for a preparation that did not get done."""
    words = f"{preparation.title}: {preparation.error}" if preparation.error else preparation.title
    error = f"not begun: job {preparation.id} {in_words(preparation.state)} ({words})"

    def called_off(job: Job) -> Job:
        if _has_begun(job):
            return interrupted(job, error)
        return _told(job, JobState.CANCELLED, error, exit_code=preparation.exit_code or Cancelled.exit_code)

    journal.end_queued(preparation.set_id or preparation.id, called_off)


class _Threads:
    """The threads of the members that run: the few that work all the time are for those without lanes."""

    def __init__(self, run: Callable[[Job, str], None]) -> None:
        self._run = run
        self._have_lanes: dict[int, bool] = {}  # of the jobs that run now
        self._threads: list[threading.Thread] = []
        self.changed = threading.Event()

    def has_room(self, job: Job) -> bool:
        """True when a thread is free for that job."""
        running = tuple(self._have_lanes.values())
        return len(running) < MOST_AT_ONCE if job.plan.lanes else running.count(False) < WORKERS

    def begin(self, job: Job, claim: str) -> None:
        """Run the job in a thread of its own. What goes wrong with the journal ends that thread, not the others."""
        self._have_lanes[job.id] = bool(job.plan.lanes)
        thread = threading.Thread(target=self._work, args=(job, claim), name=f"job-{job.id}", daemon=True)
        self._threads.append(thread)
        thread.start()

    def _work(self, job: Job, claim: str) -> None:
        try:
            self._run(job, claim)
        except HvtuiError as error:
            _log.warning("job %d ended without its journal: %s", job.id, error)
        finally:
            del self._have_lanes[job.id]
            self.changed.set()

    def join(self) -> None:
        """Wait until all have ended."""
        for thread in self._threads:
            thread.join()


def _side_by_side(members: Sequence[Job], journal: Journal, run: Callable[[Job, str], None]) -> None:
    """Run each of these QUEUED jobs when it is its turn and a thread is free."""
    left = {job.id: job for job in members}
    claims = {job.id: job_process.claim_here() for job in members}
    door, threads = Door(journal), _Threads(run)
    threads.changed.set()
    try:
        while left:
            has_changed = threads.changed.is_set()
            threads.changed.clear()
            may_begin = [job.id for job in left.values() if threads.has_room(job)]
            if may_begin and (has_changed or door.may_be_open(*may_begin)):
                taken, waiting = journal.enter({job_id: claims[job_id] for job_id in may_begin})
                for job_id in {*may_begin} - waiting:  # the one taken, and those that somebody else ended or took
                    del left[job_id]
                if taken is not None:
                    threads.begin(taken, claims.pop(taken.id))
                    threads.changed.set()  # the next one's turn may be now
            threads.changed.wait(POLL_S)
    finally:
        threads.join()
        for claim in claims.values():
            job_process.release(claim)


def _run_here(set_id: int, host: Host, journal: Journal) -> None:
    try:
        run_set(set_id, host, journal)
    except HvtuiError as error:
        _log.warning("set %d ended without its journal: %s", set_id, error)


def _has_begun(job: Job) -> bool:
    """True when something of an earlier run may be there: then only its own rollback may end it."""
    return any(step.has_begun for step in job.steps)


def _cancelled(job: Job) -> Job:
    return _told(job, JobState.CANCELLED, "cancelled by the user before it began", exit_code=Cancelled.exit_code)


def _told(job: Job, state: JobState, error: str, *, exit_code: int) -> Job:
    ended = replace(job, state=state, finished_at=datetime.now(UTC), error=error, exit_code=exit_code)
    return replace(ended, remedy=what_now(ended))
