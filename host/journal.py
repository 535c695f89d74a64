"""The journal of jobs: one SQLite file in the state directory, shared by every hvtui process of a user.

It owns what is written about a job (who, when, where, which step, with what result) and who may work on it: one job a
VM at a time, each with a claim that tells whether its process still lives. It runs no step and changes no VM.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from host import job_process, secrets
from host.errors import Busy, Conflict, NotFound, UsageError, WrongState
from host.job_codec import from_text, storable, to_text
from host.job_codec import plan_from_json as plan_from_json
from host.job_codec import plan_to_json as plan_to_json
from host.job_model import Job, JobState, JobStep, StepState
from host.job_rules import (
    ALIVE,
    HEADLESS,
    busy,
    holds,
    in_words,
    interrupted,
    is_over_for_good,
    is_same_vm,
    names_a_vm,
    pending_steps,
    what_now,
)
from host.job_schema import ClaimLost, damaged, journal_errors, open_database, roll_back
from host.paths import state_directory
from host.plan import Plan

if TYPE_CHECKING:
    import sqlite3

RETAINED_JOBS = 1000
PRUNE_EVERY_JOBS = 50
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
            held = _holders(self._database, host_uri=host_uri, vm_uuid=vm_uuid, vm_name=vm_name)
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

    # Writing

    def add(self, plan: Plan, *, claim: str, keep_failed: bool = False) -> Job:
        """A new QUEUED job that holds its VM and belongs to `claim`; its secrets are stored. Raises Busy when another
        job holds the VM, Conflict when the job to undo was undone already."""
        return self._unless_held_by_the_dead(lambda: self._add(plan, claim=claim, keep_failed=keep_failed))

    def _add(self, plan: Plan, *, claim: str, keep_failed: bool) -> Job:
        created_at = _now()
        data = plan_to_json(plan)
        columns = {
            "state": JobState.QUEUED.value,
            "user": storable(job_process.user_name()),
            "host_uri": storable(plan.host_uri),
            "vm_uuid": plan.vm_uuid,
            "vm_name": None if plan.vm_name is None else storable(plan.vm_name),
            "plan": to_text(data),
            "holds": names_a_vm(plan),
            "claim": claim,
            "keep_failed": keep_failed,
            "undoes_job": plan.undoes_job,
            "created_at": created_at.isoformat(),
        }
        names = ", ".join(columns)
        marks = ", ".join("?" * len(columns))
        with self._writing() as database:
            self._refuse_if_held(plan, own_id=None)
            self._refuse_second_undo(plan)
            cursor = database.execute(f"INSERT INTO jobs ({names}) VALUES ({marks})", tuple(columns.values()))  # noqa: S608
            job_id = int(cursor.lastrowid or 0)
            secrets.keep(data, job_id=job_id, state=self.path.parent)
        secrets.forget(data)
        if job_id % min(PRUNE_EVERY_JOBS, self.keep) == 0:
            self.prune()
        return self.job(job_id)

    def claim(self, job_id: int, claim: str, *, accept: Collection[JobState], state: JobState) -> Job:
        """Take a job in one of the states `accept` for `claim`, holding its VM, as QUEUED or RUNNING. Where everything
        was rolled back, all steps are pending again. Raises WrongState, Busy, NotFound."""
        return self._unless_held_by_the_dead(lambda: self._claim(job_id, claim, accept=accept, state=state))

    def _claim(self, job_id: int, claim: str, *, accept: Collection[JobState], state: JobState) -> Job:
        with self._writing() as database:
            job, former = self.job(job_id), self._claim_of(job_id)
            if job.state not in accept:
                raise WrongState(f"it {in_words(job.state)}", about=f"job {job_id}", remedy=what_now(job))
            self._refuse_if_held(job.plan, own_id=job_id)
            cancelled = job.cancel_requested and job.state is JobState.QUEUED
            values = (claim, cancelled, job_id)
            database.execute("UPDATE jobs SET claim = ?, cancel_requested = ? WHERE id = ?", values)
            if is_over_for_good(job):
                database.execute("DELETE FROM steps WHERE job_id = ?", (job_id,))
                job = replace(job, steps=pending_steps(job.plan))
            started_at = job.started_at if state is JobState.QUEUED else _now()
            job = replace(
                job, state=state, started_at=started_at, finished_at=None, kept=False, cancel_requested=cancelled
            )
            self._write(database, job, claim, ())
        job_process.release(former)
        return job

    def hand_over(self, job_id: int, claim: str) -> None:
        """Give a job that is still QUEUED to another process; it may have taken it by itself already."""
        with self._writing() as database:
            database.execute("UPDATE jobs SET claim = ? WHERE id = ? AND state = 'queued'", (claim, job_id))

    def is_claimed_by(self, job_id: int, claim: str) -> bool:
        """True until another process, or another thread, has taken the job."""
        with self._reading():
            return self._claim_of(job_id) == claim

    def save(self, job: Job, claim: str, *, steps: Iterable[int] = ()) -> None:
        """Write the job's own columns and the steps with these indices. A job holds its VM while it is alive, and when
        it was interrupted with something half-made. Raises ClaimLost when another process took the job."""
        with self._writing() as database:
            self._write(database, job, claim, steps)

    def request_cancel(self, job_id: int) -> None:
        """Raise the flag that the process running the job looks at."""
        with self._writing() as database:
            database.execute("UPDATE jobs SET cancel_requested = 1 WHERE id = ?", (job_id,))

    def recover(self) -> tuple[Job, ...]:
        """Turn the jobs whose process is gone into INTERRUPTED ones and remove the secrets of vanished jobs. Cheap.

        A job of which no step had begun no longer holds its VM. Returns the jobs that were found interrupted.
        """
        with self._reading():
            rows = self._database.execute(
                "SELECT id, claim FROM jobs WHERE state IN ('queued', 'running')",
            ).fetchall()
        found = [row for row in rows if not job_process.is_alive(row["claim"])]
        recovered = [job for row in found if (job := self._interrupt(row["id"], row["claim"])) is not None]
        self._purge_secrets()
        return tuple(recovered)

    def prune(self) -> None:
        """Forget all but the newest `keep` of the jobs that are over. Those that live, that were interrupted, or that
        left something behind are not over, however old they are."""
        over = "NOT holds AND NOT kept AND state NOT IN ('queued', 'running', 'interrupted')"
        with self._writing() as database:
            gone = database.execute(
                f"DELETE FROM jobs WHERE {over} AND id <= "  # noqa: S608 - a constant
                f"(SELECT id FROM jobs WHERE {over} ORDER BY id DESC LIMIT 1 OFFSET ?) RETURNING id",
                (self.keep,),
            ).fetchall()
            database.executemany("DELETE FROM steps WHERE job_id = ?", [(row["id"],) for row in gone])
        for row in gone:
            with journal_errors(self.path):
                self.log_path(row["id"]).unlink(missing_ok=True)
            secrets.remove(row["id"], state=self.path.parent)

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
            rows = self._database.execute(f"SELECT * FROM jobs {where}", values).fetchall()  # noqa: S608
            if not rows:
                return ()
            marks = ",".join("?" * len(rows))
            ids = [row["id"] for row in rows]
            steps: dict[int, dict[int, sqlite3.Row]] = {}
            for step in self._database.execute(f"SELECT * FROM steps WHERE job_id IN ({marks})", ids):  # noqa: S608
                steps.setdefault(step["job_id"], {})[step["position"]] = step
        try:
            return tuple(_job_from(row, steps.get(row["id"], {})) for row in rows)
        except (UsageError, ValueError, KeyError, TypeError) as error:
            raise damaged(self.path, error) from error

    def _write(self, database: sqlite3.Connection, job: Job, claim: str, steps: Iterable[int]) -> None:
        values = (
            job.state.value,
            holds(job),
            job.kept,
            _iso(job.started_at),
            _iso(job.finished_at),
            storable(job.error),
            storable(job.remedy),
            job.exit_code,
            job.id,
            claim,
        )
        written = database.execute(
            "UPDATE jobs SET state = ?, holds = ?, kept = ?, started_at = ?, finished_at = ?, error = ?, remedy = ?, "
            "exit_code = ? WHERE id = ? AND claim = ?",
            values,
        )
        if not written.rowcount:
            raise ClaimLost("another process took it over", about=f"job {job.id}")
        database.executemany(
            "INSERT OR REPLACE INTO steps (job_id, position, state, fraction, note, error, result) "
            "VALUES (?, ?, ?, ?, ?, ?, ?)",
            [_step_values(job.id, job.steps[index]) for index in steps],
        )
        if job.state is JobState.DONE and job.plan.undoes_job is not None:
            database.execute("UPDATE jobs SET undone_by = ? WHERE id = ?", (job.id, job.plan.undoes_job))

    def _claim_of(self, job_id: int) -> str:
        return str(self._database.execute("SELECT claim FROM jobs WHERE id = ?", (job_id,)).fetchone()[0])

    def _unless_held_by_the_dead(self, action: Callable[[], Job]) -> Job:
        """Only a job that lives, or one that was interrupted halfway, may refuse another one its VM."""
        try:
            return action()
        except Busy:
            if not self.recover():
                raise
        return action()

    def _refuse_if_held(self, plan: Plan, *, own_id: int | None) -> None:
        held = _holders(self._database, host_uri=plan.host_uri, vm_uuid=plan.vm_uuid, vm_name=plan.vm_name)
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
            rows = database.execute("SELECT id FROM jobs WHERE kept OR state IN ('queued', 'running', 'interrupted')")
            secrets.purge({row["id"] for row in rows}, state=self.path.parent)


def set_aside(path: Path | None = None) -> Path:
    """Move a damaged journal away, for the user who asked for it, so that a new one begins. Returns where it is."""
    with journal_errors(path or Path("journal.db")):
        source = path or state_directory() / "journal.db"
        directory = source.with_name(f"{source.name}.{datetime.now(UTC):%Y%m%dT%H%M%S.%f}")
        directory.mkdir(mode=0o700)
        for suffix in ("", "-wal", "-shm"):
            part = source.with_name(source.name + suffix)
            if part.exists():
                part.rename(directory / part.name)
    return directory


def _now() -> datetime:
    return datetime.now(UTC)


def _iso(moment: datetime | None) -> str | None:
    return None if moment is None else moment.isoformat()


def _holders(
    database: sqlite3.Connection,
    *,
    host_uri: str | None,
    vm_uuid: str | None,
    vm_name: str | None,
) -> list[int]:
    """The ids of the jobs that hold the VM. A VM that is yet to be made has no uuid: its name decides."""
    rows = database.execute("SELECT id, host_uri, vm_uuid, vm_name FROM jobs WHERE holds ORDER BY id").fetchall()
    uri, name = None if host_uri is None else storable(host_uri), None if vm_name is None else storable(vm_name)
    return [
        row["id"]
        for row in rows
        if uri in {None, row["host_uri"]} and is_same_vm((row["vm_uuid"], row["vm_name"]), (vm_uuid, name))
    ]


def _step_values(job_id: int, step: JobStep) -> tuple[Any, ...]:
    result = None if step.result is None else to_text(step.result)
    return (job_id, step.index, step.state.value, step.fraction, storable(step.note), storable(step.error), result)


def _job_from(row: sqlite3.Row, steps: dict[int, sqlite3.Row]) -> Job:
    plan = plan_from_json(from_text(row["plan"]))
    return Job(
        id=row["id"],
        title=plan.title,
        state=JobState(row["state"]),
        user=row["user"],
        host_uri=plan.host_uri,
        vm_uuid=plan.vm_uuid,
        vm_name=plan.vm_name,
        command=plan.command,
        steps=tuple(_step_from(step, steps.get(step.index)) for step in pending_steps(plan)),
        plan=plan,
        created_at=datetime.fromisoformat(row["created_at"]),
        started_at=_moment(row["started_at"]),
        finished_at=_moment(row["finished_at"]),
        error=row["error"],
        remedy=row["remedy"],
        exit_code=row["exit_code"],
        kept=bool(row["kept"]),
        keep_failed=bool(row["keep_failed"]),
        cancel_requested=bool(row["cancel_requested"]),
        undone_by=row["undone_by"],
    )


def _moment(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)


def _step_from(step: JobStep, row: sqlite3.Row | None) -> JobStep:
    if row is None:
        return step
    return replace(
        step,
        state=StepState(row["state"]),
        fraction=row["fraction"],
        note=row["note"],
        error=row["error"],
        result=None if row["result"] is None else from_text(row["result"]),
    )
