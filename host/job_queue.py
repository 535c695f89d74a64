"""The queue: jobs wait, as QUEUED, until each lane of their plan has room among the jobs of every process.

The order is that of the jobs' numbers, unless somebody puts one first; a paused one is passed over. Every function
works from any process. What the statements are is host.job_turns', what a job does is host.jobs'.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

from host import job_turns
from host.errors import WrongState
from host.job_model import Job, JobState
from host.job_rules import in_words, what_now
from host.journal import Journal
from host.plan import Lane as Lane

POLL_S = 0.05
LOOK_FOR_THE_DEAD_S = 1.0


class Door:
    """Tells, as often as it is asked, whether it is worth while to ask for a turn; asking costs a transaction, which
    every process would have to wait for. Once a second it looks for processes that died while they filled a lane."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._stamp: tuple[int, int] | None = None
        self._looked_at_s = time.monotonic()

    def may_be_open(self, *job_ids: int) -> bool:
        """True when the journal has changed since the last time, and one of these QUEUED jobs may begin or is over."""
        now_s = time.monotonic()
        if now_s - self._looked_at_s >= LOOK_FOR_THE_DEAD_S:
            self._journal.recover()
            self._looked_at_s = now_s
        stamp = self._journal.stamp()
        if stamp == self._stamp:
            return False
        self._stamp = stamp
        return self._journal.has_turn(job_ids)


def wait_for_turn(job_id: int, claim: str, journal: Journal, on_update: Callable[[Job], None] | None = None) -> Job:
    """Take a QUEUED job for `claim` as RUNNING, when it is its turn. It can be cancelled meanwhile: then it is taken at
    once. Raises WrongState (another process took it, or it is over), JournalFailed."""
    shown: Job | None = None
    door = Door(journal)
    while True:
        job, waiting = journal.enter({job_id: claim})
        if job is not None:
            return job
        job = journal.job(job_id)
        if not waiting:
            raise WrongState(f"it {in_words(job.state)}", about=f"job {job_id}", remedy=what_now(job))
        if on_update is not None and job != shown:
            shown = job
            on_update(job)
        try:
            while not door.may_be_open(job_id):
                time.sleep(POLL_S)
        except KeyboardInterrupt:
            journal.request_cancel(job_id)


def pause(journal: Journal, *job_ids: int) -> tuple[Job, ...]:
    """Let jobs that wait be passed over until `resume`. Raises WrongState (one runs, or is over), NotFound; then none
    is paused."""
    return journal.change_queued(job_ids, partial(job_turns.set_paused, job_ids=job_ids, is_paused=True))


def resume(journal: Journal, *job_ids: int) -> tuple[Job, ...]:
    """Let paused jobs have their turn again. Raises what `pause` does."""
    return journal.change_queued(job_ids, partial(job_turns.set_paused, job_ids=job_ids, is_paused=False))


def put_first(journal: Journal, *job_ids: int) -> tuple[Job, ...]:
    """Put jobs before all others that wait, in the order given. Raises what `pause` does."""
    return journal.change_queued(job_ids, partial(job_turns.put_first, job_ids=job_ids))


def waits(job: Job) -> str:
    """How a QUEUED job waits, in words: "paused", "waits: 2 moves run on lab1 already"; empty for any other."""
    if job.state is not JobState.QUEUED:
        return ""
    if job.is_paused:
        return "paused"
    return f"waits: {job.waits_for}" if job.waits_for else ""
