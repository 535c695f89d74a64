"""The only place where threads meet Textual.

Blocking work runs in daemon threads, one a call, so that quitting never waits for a libvirt call that hangs (a pool
is joined at exit). The feed's and the runner's threads post messages; nothing else of theirs touches the app.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, ParamSpec, TypeVar

from host.connection import Host, open_host
from host.errors import HvtuiError
from host.events import Event
from host.job_model import Job, JobSet, JobState
from host.job_rules import is_in_process
from host.plan import Plan, PlanSet
from hvtui.tui.messages import EventArrived, JobsChanged, SnapshotChanged
from vm.feed import Feed, ReadSamples
from vm.model import Snapshot

if TYPE_CHECKING:
    from textual.app import App

    from host.host_list import HostEntry
    from host.journal import Journal
    from hvtui.config import Config
    from vm.fleet import Fleet

_log = logging.getLogger(__name__)
P = ParamSpec("P")
T = TypeVar("T")

JOB_POLL_S = 0.25
JOURNAL_LOOK_S = 1.0  # how soon a job of another process is shown
JOBS_SHOWN = 200
MERGE_S = 0.25  # at most so often the pictures of several hosts become one
MANY_VMS, MERGE_MANY_S = 2000, 1.0
PARALLEL_JOBS = 4  # a libvirtd serves five requests of a client at once; one stays free for the lists


@dataclass(frozen=True, slots=True)
class Services:
    """What the terminal interface works with; opened by the caller, who also closes it. With several `hosts` (each the
    one of the entry at the same place, not connected yet), `host` is the first of them."""

    host: Host
    journal: Journal
    config: Config
    simulated_samples: ReadSamples | None = None  # replaces libvirt's statistics where the driver has none
    hosts: tuple[Host, ...] = ()
    entries: tuple[HostEntry, ...] = ()

    @property
    def is_many(self) -> bool:
        """True when several hosts are shown."""
        return len(self.hosts) > 1


class Bridge:
    """Runs blocking calls off the event loop, and carries snapshots, events and jobs to the app as messages."""

    def __init__(self, app: App[None], services: Services) -> None:
        self._app = app
        self._services = services
        self._feed: Feed | None = None
        self._fleet: Fleet | None = None
        self._others: tuple[Host, ...] = ()  # beside the one that is shown, once a VM is to move
        self._loop: asyncio.AbstractEventLoop | None = None
        self._is_merge_due = False
        self._merged_at_s = 0.0
        self._runner_slots = asyncio.Semaphore(PARALLEL_JOBS)
        self._watcher: asyncio.Task[None] | None = None
        self._is_stopping = threading.Event()
        self._quiet_polls = 0
        self._jobs: tuple[Job, ...] = ()
        self._read: tuple[Job, ...] = ()
        self._read_at: tuple[int, int] | None = None  # the journal's stamp
        self.running_here = 0  # jobs that run in this process and would be cut off by its end

    def start(self) -> None:
        """Start the feeds (their own daemon threads) and read the journal once."""
        services = self._services
        self._loop = asyncio.get_running_loop()
        if services.is_many:
            self._start_fleet()
        else:
            self._feed = Feed(
                services.host,
                self._snapshot,
                self._event,
                services.config.ui.refresh_s,
                read_samples=services.simulated_samples,
            )
            self._feed.start()
        self.watch_jobs()
        look = partial(self._look_at_the_journal, self._loop)
        threading.Thread(target=look, name="journal", daemon=True).start()

    def _start_fleet(self) -> None:
        from vm.fleet import Fleet

        services = self._services
        opened = {entry.name: host for entry, host in zip(services.entries, services.hosts, strict=True)}
        self._fleet = Fleet(
            services.entries,
            lambda entry: opened[entry.name],
            self._snapshot_of_one,
            self._event_of_one,
            interval_s=services.config.ui.refresh_s,
            read_samples=services.simulated_samples,
        )
        self._fleet.start()

    def stop(self) -> None:
        """Tell the feeds to end, from a thread of its own: quitting waits for nothing."""
        self._is_stopping.set()
        ending = self._feed or self._fleet
        if ending is not None:
            threading.Thread(target=ending.stop, name="feed-stop", daemon=True).start()
        for host in self._others:
            threading.Thread(target=host.close, name="close", daemon=True).start()

    def refresh(self) -> None:
        """Read everything again, soon."""
        for feed in (self._feed, self._fleet):
            if feed is not None:
                feed.refresh()

    def set_polling(self, enabled: bool) -> None:
        """Rates are polled only while something shows them."""
        for feed in (self._feed, self._fleet):
            if feed is not None:
                feed.set_polling(enabled)

    def host_at(self, uri: str) -> Host:
        """The Host of that URI; of one that is not shown the first, which then refuses what belongs to another."""
        hosts = self._services.hosts or (self._services.host,)
        return next((host for host in hosts if host.uri == uri), self._services.host)

    def places(self) -> tuple[tuple[HostEntry, ...], tuple[Host, ...]]:
        """The host that is shown alone, and the others of the configuration, opened when first asked for."""
        from host.host_list import HostEntry

        host, config = self._services.host, self._services.config
        own = next((entry for entry in config.hosts if entry.uri == host.uri), None) or HostEntry(host.name, host.uri)
        others = tuple(entry for entry in config.hosts if entry.uri != host.uri)
        if not self._others:
            self._others = tuple(open_host(entry.uri, name=entry.name, read_only=host.read_only) for entry in others)
        return (own, *others), (host, *self._others)

    def _reread(self, host: Host, uuid: str | None) -> None:
        """Have a VM read again: not every change is an event."""
        if uuid is None:
            return
        if self._feed is not None:
            self._feed.reread(uuid)
        elif self._fleet is not None:
            self._fleet.reread(host.name, uuid)

    async def call(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run blocking code in a daemon thread and await its result. Raises the HvtuiError that it raised; any other
        exception is logged and becomes an HvtuiError."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()

        def finish(result: T | None, error: HvtuiError | None) -> None:
            if future.cancelled():
                return
            if error is not None:
                future.set_exception(error)
            else:
                future.set_result(result)  # type: ignore[arg-type]  # T may itself be None

        def work() -> None:
            result: T | None = None
            error: HvtuiError | None = None
            try:
                result = function(*args, **kwargs)
            except HvtuiError as problem:
                error = problem
            except Exception as problem:  # noqa: BLE001 - one of the three outer edges: a thread has nobody above it
                _log.exception("%s failed", function)
                error = HvtuiError(f"internal error: {type(problem).__name__}: {problem}")
            with suppress(RuntimeError):  # the loop is closed: the program has quit meanwhile
                loop.call_soon_threadsafe(finish, result, error)

        threading.Thread(target=work, name="call", daemon=True).start()
        return await future

    async def run_plan(self, plan: Plan) -> Job:
        """Run `plan` as a job and await its end. A long one gets a process of its own and is only watched. Raises
        HvtuiError when it cannot be created (the VM is held by another job, the journal cannot be written)."""
        (outcome,) = await self.run_plans([plan])
        if isinstance(outcome, HvtuiError):
            raise outcome
        return outcome

    async def run_plans(self, plans: Sequence[Plan]) -> tuple[Job | HvtuiError, ...]:
        """Run plans side by side, a few at once; one result each, in order. Raises nothing for a failed one. Those that
        wait for a free slot are queued jobs from the beginning: they can be seen and cancelled, and hold their VMs."""
        begun = await self.call(self._queue, plans)
        self.watch_jobs()
        return tuple(await asyncio.gather(*map(self._outcome, plans, begun)))

    def _queue(self, plans: Sequence[Plan]) -> list[Job | HvtuiError | None]:
        """A queued job for each plan that runs in this process, or why there is none; None for the others."""
        from host import jobs

        services = self._services
        begun: list[Job | HvtuiError | None] = []
        for plan in plans:
            host = self.host_at(plan.host_uri)
            if plan.long and not host.is_simulated:
                begun.append(None)
                continue
            try:
                jobs.check_host(plan.host_uri, host)
                begun.append(jobs.create(plan, services.journal))
            except HvtuiError as error:
                begun.append(error)
        return begun

    async def _outcome(self, plan: Plan, begun: Job | HvtuiError | None) -> Job | HvtuiError:
        from host import jobs

        services = self._services
        try:
            if begun is None:
                job = await self.call(jobs.start_detached, plan, self.host_at(plan.host_uri), services.journal)
                return await self.job_end(job.id)
            return begun if isinstance(begun, HvtuiError) else await self._run_here(jobs.run, begun)
        except HvtuiError as error:
            return error

    async def restart_job(self, job: Job) -> Job:
        """Go on with a job that ended early, and await its end; a long one in a process of its own. Raises
        HvtuiError."""
        from host import jobs
        from vm import steps as steps  # registers the verbs, which a job of an earlier day needs

        host = self.host_at(job.host_uri)
        if job.plan.long and not host.is_simulated:
            begun = await self.call(jobs.restart_detached, job.id, host, self._services.journal)
            return await self.job_end(begun.id)
        return await self._run_here(jobs.restart, job)

    async def roll_back_job(self, job: Job) -> Job:
        """Take back what a job made that ended early, and await the end of that. Raises HvtuiError."""
        from host import jobs
        from vm import steps as steps  # the same

        return await self._run_here(jobs.rollback, job)

    async def run_set(self, plan_set: PlanSet) -> tuple[Job, ...]:
        """Run the plans of a set as jobs and await the end of all, in a process of their own (in threads on a host that
        is simulated in this one). Raises HvtuiError when they cannot be created, and then none is."""
        from host import job_sets

        host = self.host_at(plan_set.plans[0].host_uri)
        started = await self.call(job_sets.start_detached_set, plan_set, host, self._services.journal)
        return await self._set_end(started[0].set_id or started[0].id, host)

    async def restart_set(self, job_set: JobSet) -> tuple[Job, ...]:
        """Run all of a set again that is not done, and await the end. Raises HvtuiError."""
        from host import job_sets
        from vm import steps as steps  # the same

        host = self.host_at(job_set.jobs[-1].host_uri)
        await self.call(job_sets.restart_set, job_set.id, host, self._services.journal)
        return await self._set_end(job_set.id, host)

    async def roll_back_all(self, jobs: Sequence[Job]) -> tuple[Job, ...]:
        """Take back what members of a set made that ended early: the preparations' after the VMs'. Raises
        HvtuiError."""
        mains = [job for job in jobs if not job.is_preparation]
        ended = await asyncio.gather(*(self.roll_back_job(job) for job in mains))
        return (*ended, *[await self.roll_back_job(job) for job in jobs if job.is_preparation])

    async def _set_end(self, set_id: int, host: Host) -> tuple[Job, ...]:
        is_here = is_in_process(host.uri)
        self.running_here += is_here
        try:
            while True:
                self.watch_jobs()
                jobs = await self.call(self._services.journal.members, set_id)
                if all(job.state.is_over for job in jobs):
                    break
                await asyncio.sleep(JOB_POLL_S)
        finally:
            self.running_here -= is_here
        for uuid in {job.vm_uuid for job in jobs if is_here}:
            self._reread(host, uuid)
        return jobs

    async def _run_here(self, function: Callable[[int, Host, Journal], Job], what: Job) -> Job:
        """Work on a job in a thread of this process, which quitting would cut off, as soon as there is a free slot."""
        host = self.host_at(what.host_uri)
        self.running_here += 1
        try:
            async with self._runner_slots:
                self.watch_jobs()
                job = await self.call(function, what.id, host, self._services.journal)
        finally:
            self.running_here -= 1
        self.watch_jobs()
        self._reread(host, job.vm_uuid)
        return job

    async def job_end(self, job_id: int) -> Job:
        """Await the end of a job that another process runs."""
        self.watch_jobs()
        while True:
            job = await self.call(self._services.journal.job, job_id)
            if job.state.is_over:
                return job
            await asyncio.sleep(JOB_POLL_S)

    def watch_jobs(self) -> None:
        """Poll the journal while jobs run, at least once; JobsChanged is posted when something changed."""
        self._quiet_polls = 0
        if self._watcher is None or self._watcher.done():
            self._watcher = asyncio.create_task(self._watch())

    async def _watch(self) -> None:
        while self._quiet_polls < 2:
            try:
                jobs = await self.call(self.read_jobs)
            except HvtuiError:
                _log.warning("the journal cannot be read", exc_info=True)
                return
            if jobs != self._jobs:
                self._jobs = jobs
                self._app.post_message(JobsChanged(jobs))
            is_quiet = not self.running_here and all(job.state.is_over for job in jobs)
            self._quiet_polls = self._quiet_polls + 1 if is_quiet else 0
            if self._quiet_polls < 2:
                await asyncio.sleep(JOB_POLL_S)

    def _look_at_the_journal(self, loop: asyncio.AbstractEventLoop) -> None:
        """Notice, in a thread of its own, what other processes write into the journal. While nobody writes it is one
        PRAGMA a second; a journal that is busy or damaged never holds the interface up."""
        stamp: tuple[int, int] | None = None
        while not self._is_stopping.wait(JOURNAL_LOOK_S):
            before = stamp
            try:
                stamp = self._services.journal.stamp()
            except HvtuiError:
                stamp = None
                continue
            if stamp != before:
                with suppress(RuntimeError):  # the loop is closed: the program has quit meanwhile
                    loop.call_soon_threadsafe(self.watch_jobs)

    def read_jobs(self) -> tuple[Job, ...]:
        """The newest jobs of the journal as it is now; may wait. Raises JournalFailed."""
        journal = self._services.journal
        journal.recover()  # a killed process cannot tell that its job ended
        stamp = journal.stamp()  # taken first: what is written meanwhile is read the next time
        if stamp != self._read_at:
            self._read_at, self._read = stamp, _with_running(journal, _newest(journal))
        return self._read

    def _snapshot(self, snapshot: Snapshot) -> None:
        self._app.post_message(SnapshotChanged(snapshot))

    def _event(self, event: Event) -> None:
        self._app.post_message(EventArrived(event))

    def _event_of_one(self, host_name: str, event: Event) -> None:
        self._app.post_message(EventArrived(replace(event, host=host_name)))

    def _snapshot_of_one(self, _snapshot: Snapshot) -> None:
        """One of several hosts has news, on its feed's thread."""
        if not self._is_merge_due and self._loop is not None:
            self._is_merge_due = True
            with suppress(RuntimeError):  # the loop is closed: the program has quit meanwhile
                self._loop.call_soon_threadsafe(self._merge_soon)

    def _merge_soon(self) -> None:
        if self._loop is not None:
            self._loop.call_later(max(self._merged_at_s - self._loop.time(), 0.0), self._merge)

    def _merge(self) -> None:
        """Hosts tell their news one after the other: they are put together a few times a second at most."""
        if self._loop is None or self._fleet is None or self._is_stopping.is_set():
            return
        from hvtui.tui.fleet_view import merged

        self._is_merge_due = False  # first: what arrives from here on is for the next one
        snapshots = self._fleet.snapshots
        whole = merged(self._services.entries, snapshots)
        self._merged_at_s = self._loop.time() + (MERGE_MANY_S if len(whole.vms) > MANY_VMS else MERGE_S)
        self._app.post_message(SnapshotChanged(whole, snapshots))


def _newest(journal: Journal) -> tuple[Job, ...]:
    return _with_whole_sets(journal, journal.jobs(limit=JOBS_SHOWN))


def _with_running(journal: Journal, jobs: tuple[Job, ...]) -> tuple[Job, ...]:
    """`jobs`, newest first, with those that run and are older: behind them, many more may wait."""
    if len(jobs) < JOBS_SHOWN:
        return jobs
    running = journal.jobs(limit=JOBS_SHOWN, states=(JobState.RUNNING,))
    return (*jobs, *(job for job in running if job.id < jobs[-1].id))


def _with_whole_sets(journal: Journal, jobs: tuple[Job, ...]) -> tuple[Job, ...]:
    """`jobs`, newest first, with those of the oldest one's set that the limit cut off."""
    set_id = jobs[-1].set_id if jobs else None
    if set_id is None or set_id == jobs[-1].id:
        return jobs
    cut_off = [job for job in journal.members(set_id) if job.id < jobs[-1].id]
    return (*jobs, *reversed(cut_off))
