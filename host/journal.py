"""The journal of jobs: one SQLite file in the state directory, shared by every hvtui process of a user.

It owns what is written about a job (who, when, where, which step, with what result) and who may work on it: one job a
VM at a time, each with a claim that tells whether its process still lives. It runs no step and changes no VM.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeVar

from host import job_process, job_turns, secrets
from host.errors import Busy, Conflict, NotFound, UsageError, WrongState
from host.job_codec import from_text, storable, to_text
from host.job_codec import plan_from_json as plan_from_json
from host.job_codec import plan_to_json as plan_to_json
from host.job_holders import holders, holders_of
from host.job_model import Job, JobSet, JobState
from host.job_pruning import forget_old
from host.job_rows import COLUMNS, WRITE_JOB, SetWords, iso, job_from, job_values, new_row, step_values
from host.job_rules import (
    ALIVE,
    HEADLESS,
    SECRETS_OF_A_SET_KEPT,
    busy,
    in_words,
    interrupted,
    is_over_for_good,
    pending_steps,
    what_now,
    what_now_with_set,
)
from host.job_schema import ClaimLost, damaged, journal_errors, open_database, roll_back
from host.job_schema import set_aside as set_aside
from host.paths import state_directory
from host.plan import Plan, PlanSet

if TYPE_CHECKING:
    import sqlite3

RETAINED_JOBS = 1000
PRUNE_EVERY_JOBS = 50
MOST_PLANS = 300  # kept as read: what the jobs screen shows, and then some
_T = TypeVar("_T")
_INTERRUPTED = "interrupted: its process was killed, or the machine restarted"


class Journal:
    """The journal at `path` (default: journal.db in the state directory). Safe from any thread and any process. Of
    ended jobs it keeps the newest `keep`, and some more until it is next tidied.

    Every method raises JournalFailed (host.job_schema) when the file cannot be read or written.
    """

    def __init__(self, path: Path | None = None, *, keep: int = RETAINED_JOBS) -> None:
        self.keep = keep
        with journal_errors(path or Path("journal.db")):
            self.path = path or state_directory() / "journal.db"
        self._lock = threading.RLock()
        self._database = open_database(self.path)
        self._plans: dict[int, Plan] = {}  # as read: they never change, and are long
        self._sets: dict[int, SetWords] = {0: ("", ())}  # 0: of a job that is in none

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; the journal cannot be used afterwards."""
        with self._lock:
            self._database.close()

    def log_path(self, job_id: int) -> Path:
        """Where a job's runner process, and an unexpected error, leave their notes; often there is no such file."""
        return self.path.parent / "logs" / f"job-{job_id}.log"

    # Reading

    def job(self, job_id: int) -> Job:
        """That job. Raises NotFound."""
        found = self._select("WHERE id = ?", (job_id,))
        if not found:
            raise NotFound(f"there is no job {job_id}", remedy=f"See them with '{HEADLESS} list'")
        return found[0]

    def members(self, set_id: int) -> tuple[Job, ...]:
        """The jobs of that set, in their order. Raises NotFound."""
        found = self._select("WHERE set_id = ? ORDER BY id", (set_id,))
        if not found:
            raise NotFound(f"there is no set of jobs {set_id}", remedy=f"See them with '{HEADLESS} list'")
        return found

    def newest(self, limit: int) -> tuple[Job, ...]:
        """The newest jobs first, so many lines of them: the jobs of one set count as one, and all of them are here."""
        one_each = "COALESCE(set_id, id)"
        newest = f"SELECT DISTINCT {one_each} FROM jobs ORDER BY 1 DESC LIMIT ?"  # noqa: S608 - a constant
        return self._select(f"WHERE {one_each} IN ({newest}) ORDER BY id DESC", (limit,))

    def jobs(
        self,
        limit: int | None = 50,
        states: Collection[JobState] | None = None,
        vm: str | None = None,
        *,
        host_uri: str | None = None,
    ) -> tuple[Job, ...]:
        """The newest jobs first; all of them with limit None. `vm` is a uuid or a name."""
        conditions, values = ["1"], []
        if states is not None:
            conditions.append(f"state IN ({','.join('?' * len(states))})")
            values += [state.value for state in states]
        if vm is not None:
            conditions.append("(vm_uuid = ? OR vm_name = ?)")
            values += [storable(vm), storable(vm)]
        if host_uri is not None:
            conditions.append("host_uri = ?")
            values.append(host_uri)
        where = f"WHERE {' AND '.join(conditions)} ORDER BY id DESC LIMIT ?"
        return self._select(where, (*values, -1 if limit is None else limit))

    def holder(self, vm_uuid: str | None, *, vm_name: str | None = None, host_uri: str | None = None) -> Job | None:
        """The job that holds the VM now, if any."""
        with self._reading():
            held = holders(self._database, host_uri=host_uri, vm_uuid=vm_uuid, vm_name=vm_name)
            return self.job(held[0]) if held else None

    def stamp(self) -> tuple[int, int]:
        """Two equal stamps of one Journal mean that nothing was written in between, by any process; it is cheap."""
        with self._reading():
            return int(self._database.execute("PRAGMA data_version").fetchone()[0]), self._database.total_changes

    def is_cancel_requested(self, job_id: int) -> bool:
        """True once somebody asked to cancel the job."""
        with self._reading():
            row = self._database.execute("SELECT cancel_requested FROM jobs WHERE id = ?", (job_id,)).fetchone()
        return bool(row and row[0])

    def wishes(self, job_id: int) -> dict[str, str]:
        """What people want of the job while it runs (host.jobs.wish): the newest value of each name."""
        with self._reading():
            rows = self._database.execute("SELECT name, value FROM wishes WHERE job_id = ?", (job_id,))
            return {row["name"]: row["value"] for row in rows}

    # Writing

    def wish(self, job_id: int, wishes: Mapping[str, str]) -> None:
        """Write what is wanted of a running job; a name that was wished before gets the new value."""
        with self._writing() as database:
            rows = [(job_id, name, value) for name, value in wishes.items()]
            database.executemany("INSERT OR REPLACE INTO wishes (job_id, name, value) VALUES (?, ?, ?)", rows)

    def add(self, plan: Plan, *, claim: str, keep_failed: bool = False) -> Job:
        """A new QUEUED job that holds its VM and belongs to `claim`; its secrets are stored. Raises Busy when another
        job holds the VM, Conflict when the job to undo was undone already."""
        return self._unless_held_by_the_dead(lambda: self._add(plan, claim=claim, keep_failed=keep_failed))

    def _add(self, plan: Plan, *, claim: str, keep_failed: bool) -> Job:
        row = new_row(
            plan, user=job_process.user_name(), claim=claim, keep_failed=keep_failed, created_at=datetime.now(UTC)
        )
        with self._writing() as database:
            self._refuse_if_held(plan, own_id=None)
            self._refuse_second_undo(plan)
            job_id = self._insert(database, plan, row)
        secrets.forget(plan_to_json(plan))
        self._prune_now_and_then([job_id])
        return self.job(job_id)

    def add_set(self, plan_set: PlanSet, *, keep_failed: bool = False) -> tuple[Job, ...]:
        """QUEUED jobs for all preparations and plans of a set, in one transaction, each with a claim of this process
        (job_process). Raises what `add` does, and then adds none."""
        return self._unless_held_by_the_dead(lambda: self._add_set(plan_set, keep_failed=keep_failed))

    def _add_set(self, plan_set: PlanSet, *, keep_failed: bool) -> tuple[Job, ...]:
        plans = (*plan_set.preparations, *plan_set.plans)
        user, created_at, claims = job_process.user_name(), datetime.now(UTC), [job_process.claim_here() for _ in plans]
        try:
            rows = [
                new_row(plan, user=user, claim=claim, keep_failed=keep_failed, created_at=created_at)
                for plan, claim in zip(plans, claims, strict=True)
            ]
            with self._writing() as database:
                for plan in plans:
                    self._refuse_if_held(plan, own_id=None)
                    self._refuse_second_undo(plan)
                ids = [self._insert(database, plan, row) for plan, row in zip(plans, rows, strict=True)]
                words = (ids[0], storable(plan_set.title), to_text(list(plan_set.command)))
                database.execute("INSERT INTO sets (id, title, command) VALUES (?, ?, ?)", words)
                first_main = ids[0] + len(plan_set.preparations)
                values = (ids[0], first_main, ids[0], ids[-1])
                database.execute("UPDATE jobs SET set_id = ?, is_preparation = id < ? WHERE id BETWEEN ? AND ?", values)
        except BaseException:
            for claim in claims:
                job_process.release(claim)
            raise
        for plan, row in zip(plans, rows, strict=True):
            if secrets.KEY in row["plan"]:
                secrets.forget(plan_to_json(plan))
        self._prune_now_and_then(ids)
        return self.members(ids[0])

    def _insert(self, database: sqlite3.Connection, plan: Plan, row: Mapping[str, Any]) -> int:
        names, marks = ", ".join(row), ", ".join("?" * len(row))
        cursor = database.execute(f"INSERT INTO jobs ({names}) VALUES ({marks})", tuple(row.values()))  # noqa: S608
        job_id = int(cursor.lastrowid or 0)
        if secrets.KEY in row["plan"]:
            secrets.keep(plan_to_json(plan), job_id=job_id, state=self.path.parent)
        return job_id

    def _prune_now_and_then(self, added: Iterable[int]) -> None:
        if any(job_id % min(PRUNE_EVERY_JOBS, self.keep) == 0 for job_id in added):
            self.prune()

    def claim(self, job_id: int, claim: str, *, accept: Collection[JobState], state: JobState) -> Job:
        """Take a job in one of the states `accept` for `claim`, holding its VM, as QUEUED or RUNNING. Where everything
        was rolled back, all steps are pending again. Raises WrongState, Busy, NotFound."""
        return self._unless_held_by_the_dead(lambda: self._claim(job_id, claim, accept=accept, state=state))

    def _claim(self, job_id: int, claim: str, *, accept: Collection[JobState], state: JobState) -> Job:
        with self._writing() as database:
            job, former = self.job(job_id), self._claim_of(job_id)
            if job.state not in accept:
                raise WrongState(f"it {in_words(job.state)}", about=f"job {job_id}", remedy=what_now(job))
            job = self._take(database, job, claim, state)
        job_process.release(former)
        return job

    def enter(self, claims: Mapping[int, str]) -> tuple[Job | None, frozenset[int]]:
        """Take that one of these QUEUED jobs whose turn it is (host.job_queue) for its claim, as RUNNING, if there is
        one; the others stand in line, each with its claim. Returns the one, and those that wait now."""
        with self._writing() as database:
            queued, former = job_turns.stand_in_line(database, claims)
            job_id = job_turns.next_in_line(database, queued)
            job = self._take(database, self.job(job_id), claims[job_id], JobState.RUNNING) if job_id else None
        for claim in former:
            job_process.release(claim)
        return job, queued - {job_id}

    def has_turn(self, job_ids: Sequence[int]) -> bool:
        """True when it is the turn of one of these jobs that wait, or one waits no longer: `enter` tells which."""
        with self._reading():
            is_over = len(self.queued_claims(job_ids)) < len(job_ids)
            return is_over or job_turns.next_in_line(self._database, job_ids) is not None

    def change_queued(self, job_ids: Sequence[int], change: Callable[[sqlite3.Connection], None]) -> tuple[Job, ...]:
        """Change how these QUEUED jobs wait. Raises WrongState when one is not QUEUED, NotFound; then none changes."""
        with self._writing() as database:
            found = [self.job(job_id) for job_id in job_ids]
            for job in found:
                if job.state is not JobState.QUEUED:
                    raise WrongState(f"it {in_words(job.state)}", about=f"job {job.id}", remedy=what_now(job))
            change(database)
            return tuple(self.job(job_id) for job_id in job_ids)

    def claim_set(self, set_id: int, *, accept: Collection[JobState]) -> tuple[Job, ...]:
        """Take all members of a set that are in one of the states `accept`, as QUEUED, in one transaction, each with a
        claim of this process. Raises WrongState when there are none or one is alive, Busy, NotFound."""
        return self._unless_held_by_the_dead(lambda: self._claim_set(set_id, accept=accept))

    def _claim_set(self, set_id: int, *, accept: Collection[JobState]) -> tuple[Job, ...]:
        claims: list[str] = []
        try:
            with self._writing() as database:
                found = self.members(set_id)
                wanted = [job for job in found if job.state in accept]
                refused = next((job for job in found if job.state in ALIVE), None if wanted else found[0])
                if refused is not None:
                    about = f"job {refused.id} of set {set_id}" if refused.state in ALIVE else f"set {set_id}"
                    told = what_now_with_set(JobSet(found))
                    raise WrongState(f"it {in_words(refused.state)}", about=about, remedy=told)
                for job in wanted:
                    claims.append(job_process.claim_here())
                    self._take(database, job, claims[-1], JobState.QUEUED)
        except BaseException:
            for claim in claims:
                job_process.release(claim)
            raise
        return self.members(set_id)

    def _take(self, database: sqlite3.Connection, job: Job, claim: str, state: JobState) -> Job:
        self._refuse_if_held(job.plan, own_id=job.id)
        cancelled = job.cancel_requested and job.state is JobState.QUEUED
        was_queued = job.state is JobState.QUEUED
        values = (claim, cancelled, was_queued, was_queued, job.id)
        database.execute(
            "UPDATE jobs SET claim = ?, cancel_requested = ?, is_ready = 0, is_paused = is_paused AND ?, "
            "position = position * ? WHERE id = ?",
            values,
        )
        database.execute("DELETE FROM wishes WHERE job_id = ?", (job.id,))  # those were for the run before
        if is_over_for_good(job):
            database.execute("DELETE FROM steps WHERE job_id = ?", (job.id,))
            job = replace(job, steps=pending_steps(job.plan))
        started_at = job.started_at if state is JobState.QUEUED else datetime.now(UTC)
        job = replace(job, state=state, started_at=started_at, finished_at=None, kept=False, cancel_requested=cancelled)
        self._write(database, job, claim, ())
        return job

    def hand_over(self, job_ids: Sequence[int], claim: str) -> None:
        """Give those of the jobs that are still QUEUED to another process; it may have taken some by itself already."""
        with self._writing() as database:
            values = (claim, *job_ids)
            database.execute(
                f"UPDATE jobs SET claim = ? WHERE id IN ({_marks(job_ids)}) "  # noqa: S608
                "AND state = 'queued' AND NOT is_ready",
                values,
            )

    def are_untouched(self, job_ids: Sequence[int], claim: str) -> bool:
        """True as long as all of the jobs are QUEUED and belong to `claim`: no process, or thread, has begun."""
        return self.queued_claims(job_ids) == (claim,) * len(job_ids)

    def queued_claims(self, job_ids: Sequence[int]) -> tuple[str, ...]:
        """The claims of those of the jobs that are QUEUED."""
        with self._reading():
            query = f"SELECT claim FROM jobs WHERE id IN ({_marks(job_ids)}) AND state = 'queued'"  # noqa: S608
            return tuple(row["claim"] for row in self._database.execute(query, job_ids))

    def save(self, job: Job, claim: str, *, steps: Iterable[int] = ()) -> None:
        """Write the job's own columns and the steps with these indices. A job holds its VM while it is alive, and when
        it was interrupted with something half-made. Raises ClaimLost when another process took the job."""
        with self._writing() as database:
            self._write(database, job, claim, steps)

    def request_cancel(self, *job_ids: int) -> None:
        """Raise the flag that the process running a job looks at."""
        with self._writing() as database:
            query = f"UPDATE jobs SET cancel_requested = 1 WHERE id IN ({_marks(job_ids)})"  # noqa: S608
            database.execute(query, job_ids)

    def end_queued(self, set_id: int, ended: Callable[[Job], Job]) -> tuple[Job, ...]:
        """End the members of a set that nobody has begun as `ended` says, in one transaction; those for which it
        returns the job as it is stay. Returns those that it ended."""
        with self._writing() as database:
            queued = [job for job in self.members(set_id) if job.state is JobState.QUEUED]
            changed = [(job, now) for job in queued if (now := ended(job)) != job]
            for job, now in changed:
                self._write(database, now, self._claim_of(job.id), ())
        return tuple(now for _, now in changed)

    def recover(self) -> tuple[Job, ...]:
        """Turn the jobs whose process is gone into INTERRUPTED ones and remove the secrets of vanished jobs. Cheap.

        A job of which no step had begun no longer holds its VM. Returns the jobs that were found interrupted.
        """
        with self._reading():
            rows = self._database.execute(
                "SELECT id, claim FROM jobs WHERE state IN ('queued', 'running')",
            ).fetchall()
        is_alive = {claim: job_process.is_alive(claim) for claim in {row["claim"] for row in rows}}
        found = [row for row in rows if not is_alive[row["claim"]]]
        recovered = [job for row in found if (job := self._interrupt(row["id"], row["claim"])) is not None]
        self._purge_secrets()
        return tuple(recovered)

    def prune(self) -> None:
        """Forget all but the newest `keep` of the jobs that are over. Those that live, that were interrupted, or that
        left something behind are not over, however old they are. A set goes as a whole."""
        with self._writing() as database:
            gone = forget_old(database, keep=self.keep)
        for job_id in gone:
            with journal_errors(self.path):
                self.log_path(job_id).unlink(missing_ok=True)
            secrets.remove(job_id, state=self.path.parent)

    # Inside

    @contextmanager
    def _reading(self) -> Iterator[None]:
        with self._lock, journal_errors(self.path):
            yield

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        """One transaction that no other process can interleave with."""
        with self._lock, journal_errors(self.path):
            self._database.execute("BEGIN IMMEDIATE")
            try:
                yield self._database
                self._database.execute("COMMIT")
            except BaseException:
                roll_back(self._database)
                raise

    def _select(self, where: str, values: tuple[object, ...]) -> tuple[Job, ...]:
        with self._reading():
            rows = self._database.execute(f"SELECT {COLUMNS} FROM jobs {where}", values).fetchall()  # noqa: S608
            if not rows:
                return ()
            ids = [row["id"] for row in rows]
            steps: dict[int, dict[int, sqlite3.Row]] = {}
            for step in self._database.execute(f"SELECT * FROM steps WHERE job_id IN ({_marks(ids)})", ids):  # noqa: S608
                steps.setdefault(step["job_id"], {})[step["position"]] = step
            queue = job_turns.waiting_words(self._database) if any(row["state"] == "queued" for row in rows) else {}
            try:
                self._read_plans(ids)
                self._read_sets({row["set_id"] for row in rows if row["set_id"] is not None})
                return tuple(
                    job_from(
                        row, self._plans[row["id"]], self._sets[row["set_id"] or 0], steps.get(row["id"], {}), queue
                    )
                    for row in rows
                )
            except (UsageError, ValueError, KeyError, TypeError) as error:
                raise damaged(self.path, error) from error

    def _read_plans(self, ids: Sequence[int]) -> None:
        """Know the plans of these jobs, and forget the others when that would be too many."""
        missing = [job_id for job_id in ids if job_id not in self._plans]
        if len(self._plans) + len(missing) > MOST_PLANS:
            self._plans = {job_id: self._plans[job_id] for job_id in ids if job_id in self._plans}
        query = f"SELECT id, plan FROM jobs WHERE id IN ({_marks(missing)})"  # noqa: S608
        for row in self._database.execute(query, missing) if missing else ():
            self._plans[row["id"]] = plan_from_json(from_text(row["plan"]))

    def _read_sets(self, ids: Iterable[int]) -> None:
        missing = [set_id for set_id in ids if set_id not in self._sets]
        query = f"SELECT id, title, command FROM sets WHERE id IN ({_marks(missing)})"  # noqa: S608
        for row in self._database.execute(query, missing) if missing else ():
            self._sets[row["id"]] = (row["title"], tuple(from_text(row["command"])))

    def _write(self, database: sqlite3.Connection, job: Job, claim: str, steps: Iterable[int]) -> None:
        written = database.execute(WRITE_JOB, (*job_values(job), job.id, claim))
        if not written.rowcount:
            raise ClaimLost("another process took it over", about=f"job {job.id}")
        database.executemany(
            "INSERT OR REPLACE INTO steps (job_id, position, state, fraction, note, error, result) "
            "VALUES (?, ?, ?, ?, ?, ?, ?)",
            [step_values(job.id, job.steps[index]) for index in steps],
        )
        if job.state is JobState.DONE and job.plan.undoes_job is not None:
            database.execute("UPDATE jobs SET undone_by = ? WHERE id = ?", (job.id, job.plan.undoes_job))

    def _claim_of(self, job_id: int) -> str:
        return str(self._database.execute("SELECT claim FROM jobs WHERE id = ?", (job_id,)).fetchone()[0])

    def _unless_held_by_the_dead(self, action: Callable[[], _T]) -> _T:
        """Only a job that lives, or one that was interrupted halfway, may refuse another one its VM."""
        try:
            return action()
        except Busy:
            if not self.recover():
                raise
        return action()

    def _refuse_if_held(self, plan: Plan, *, own_id: int | None) -> None:
        held = holders_of(self._database, plan)
        others = [job_id for job_id in held if job_id != own_id]
        if others:
            raise busy(self.job(others[0]), about=plan.vm_name or plan.vm_uuid or "")

    def _refuse_second_undo(self, plan: Plan) -> None:
        if plan.undoes_job is None:
            return
        undone_by = self.job(plan.undoes_job).undone_by
        if undone_by is not None:
            raise Conflict(f"job {undone_by} undid it already", about=f"job {plan.undoes_job}")
        row = self._database.execute(
            "SELECT id FROM jobs WHERE undoes_job = ? AND state IN ('queued', 'running', 'interrupted')",
            (plan.undoes_job,),
        ).fetchone()
        if row is not None:
            raise busy(self.job(row["id"]), about=f"job {plan.undoes_job}")

    def _interrupt(self, job_id: int, claim: str) -> Job | None:
        with self._writing() as database:
            row = database.execute("SELECT claim, state FROM jobs WHERE id = ?", (job_id,)).fetchone()
            if row is None or row["claim"] != claim or JobState(row["state"]) not in ALIVE:
                return None
            job = interrupted(self.job(job_id), _INTERRUPTED)
            self._write(database, job, claim, range(len(job.steps)) if job.steps else ())
        return job

    def _purge_secrets(self) -> None:
        if not secrets.jobs_with_secrets(self.path.parent):
            return
        with self._writing() as database:  # a job that is being created stores its secrets inside its transaction
            rows = database.execute(
                "SELECT id FROM jobs WHERE kept OR state IN ('queued', 'running', 'interrupted') "
                "OR (set_id IS NOT NULL AND state IN ('failed', 'cancelled') AND finished_at > ?)",
                (iso(datetime.now(UTC) - SECRETS_OF_A_SET_KEPT),),
            )
            secrets.purge({row["id"] for row in rows}, state=self.path.parent)


def _marks(values: Sequence[object]) -> str:
    return ",".join("?" * len(values))
