"""The journal's database file: opening, making and migrating it, and its errors in words.

SQLite in WAL mode, synchronous=NORMAL: a commit costs no fsync, a killed process loses nothing, and after a power cut
the newest commits may be missing but the file is whole. It never removes or replaces a file.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from host.errors import HvtuiError
from host.paths import state_directory

if TYPE_CHECKING:
    import sqlite3

BUSY_TIMEOUT_S = 10.0

# MIGRATIONS[n] takes a file from schema version n to n + 1. Never change one that was released: append.
MIGRATIONS: tuple[tuple[str, ...], ...] = (
    (
        """CREATE TABLE jobs (
            id INTEGER PRIMARY KEY AUTOINCREMENT,
            state TEXT NOT NULL,
            user TEXT NOT NULL,
            host_uri TEXT NOT NULL,
            vm_uuid TEXT,
            vm_name TEXT,
            plan TEXT NOT NULL,
            holds INTEGER NOT NULL,
            claim TEXT NOT NULL,
            keep_failed INTEGER NOT NULL,
            kept INTEGER NOT NULL DEFAULT 0,
            cancel_requested INTEGER NOT NULL DEFAULT 0,
            undoes_job INTEGER,
            undone_by INTEGER,
            created_at TEXT NOT NULL,
            started_at TEXT,
            finished_at TEXT,
            error TEXT NOT NULL DEFAULT '',
            remedy TEXT NOT NULL DEFAULT '',
            exit_code INTEGER NOT NULL DEFAULT 0
        )""",
        # A step without a row is still pending: most jobs write each of their steps once.
        """CREATE TABLE steps (
            job_id INTEGER NOT NULL,
            position INTEGER NOT NULL,
            state TEXT NOT NULL,
            fraction REAL,
            note TEXT NOT NULL,
            error TEXT NOT NULL,
            result TEXT,
            PRIMARY KEY (job_id, position)
        ) WITHOUT ROWID""",
        "CREATE INDEX jobs_held ON jobs (host_uri) WHERE holds",
        "CREATE INDEX jobs_alive ON jobs (id) WHERE state IN ('queued', 'running')",
    ),
    (
        # A set's id is that of its first job.
        "CREATE TABLE sets (id INTEGER PRIMARY KEY, title TEXT NOT NULL, command TEXT NOT NULL)",
        "ALTER TABLE jobs ADD COLUMN set_id INTEGER",
        "ALTER TABLE jobs ADD COLUMN is_preparation INTEGER NOT NULL DEFAULT 0",
        "CREATE INDEX jobs_in_sets ON jobs (set_id) WHERE set_id IS NOT NULL",
    ),
    (
        # What is wanted of a running job (host.jobs.wish), and on which other hosts it changes its VM (JSON).
        """CREATE TABLE wishes (
            job_id INTEGER NOT NULL,
            name TEXT NOT NULL,
            value TEXT NOT NULL,
            PRIMARY KEY (job_id, name)
        ) WITHOUT ROWID""",
        "ALTER TABLE jobs ADD COLUMN also_on TEXT NOT NULL DEFAULT '[]'",
    ),
    (
        # The queue (host.job_queue): the lanes a job needs (JSON), the order of those that wait, which is passed over,
        # and which has a process that runs it as soon as it may.
        "ALTER TABLE jobs ADD COLUMN lanes TEXT NOT NULL DEFAULT '[]'",
        "ALTER TABLE jobs ADD COLUMN position INTEGER NOT NULL DEFAULT 0",
        "ALTER TABLE jobs ADD COLUMN is_paused INTEGER NOT NULL DEFAULT 0",
        "ALTER TABLE jobs ADD COLUMN is_ready INTEGER NOT NULL DEFAULT 0",
    ),
)


class JournalFailed(HvtuiError):
    """The journal cannot be read or written. A runner that meets it stops where it is: see host.job_engine."""


class JournalDenied(JournalFailed):
    """The operating system does not permit the journal's file or directory."""

    exit_code = 5


class ClaimLost(JournalFailed):
    """Another process works on the job now; this one must not touch it any more."""

    exit_code = 4


@contextmanager
def journal_errors(path: Path) -> Iterator[None]:
    """Translate the errors of SQLite and of the operating system about the journal at `path`."""
    import sqlite3

    try:
        yield
    except sqlite3.Error as error:
        raise _in_words(error, path) from error
    except PermissionError as error:
        raise JournalDenied(f"no permission: {error}", about=str(path), remedy=_OTHER_DIRECTORY) from error
    except OSError as error:
        raise JournalFailed(f"cannot be used: {error}", about=str(path), remedy=_OTHER_DIRECTORY) from error


_OTHER_DIRECTORY = "Set HVTUI_STATE_DIR to a directory of your own"


def damaged(path: Path, why: object) -> JournalFailed:
    """The error for a file that is no journal, or is one no longer. The file stays as it is."""
    remedy = (
        f"Move {path} with its -wal and -shm files aside to begin a new journal; its jobs are then unknown to hvtui"
    )
    return JournalFailed(f"the journal of jobs is damaged: {why}", about=str(path), remedy=remedy)


def _in_words(error: sqlite3.Error, path: Path) -> JournalFailed:
    import sqlite3

    about = str(path)
    if isinstance(error, sqlite3.ProgrammingError):
        return JournalFailed(f"the journal of jobs cannot be used here: {error}", about=about)
    match (getattr(error, "sqlite_errorcode", 0) or 0) & 0xFF:
        case sqlite3.SQLITE_FULL | sqlite3.SQLITE_IOERR:
            remedy = f"Is the disk full? Free space in {path.parent} (df {path.parent}), then go on with 'job list'"
            return JournalFailed(f"the journal of jobs cannot be written: {error}", about=about, remedy=remedy)
        case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
            remedy = f"See who has it open: fuser {path}"
            return JournalFailed(f"another process keeps the journal locked: {error}", about=about, remedy=remedy)
        case sqlite3.SQLITE_READONLY | sqlite3.SQLITE_CANTOPEN | sqlite3.SQLITE_PERM:
            return JournalDenied(f"no permission to write: {error}", about=about, remedy=_OTHER_DIRECTORY)
        case _:
            return damaged(path, error)


def open_database(path: Path) -> sqlite3.Connection:
    """The database at `path`, made (mode 0600) or migrated if need be. Raises JournalFailed."""
    import sqlite3

    with journal_errors(path):
        # Only a file that is new: closing one that is there would drop the locks of every journal that this process has
        # open on it (POSIX locks belong to the process), and others would remove the -wal file under them.
        with suppress(FileExistsError):
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        database = sqlite3.connect(path, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False)
        database.row_factory = sqlite3.Row
        try:
            database.execute("PRAGMA synchronous=NORMAL")
            migrate(database, path)
        except BaseException:
            database.close()
            raise
        return database


def migrate(database: sqlite3.Connection, path: Path, scripts: Sequence[Sequence[str]] = MIGRATIONS) -> None:
    """Bring the file to the newest schema. Raises JournalFailed for a file that a newer hvtui made."""
    if _version(database) == len(scripts):
        return
    # Two processes that make the file at once: switching to WAL does not wait for a lock as a transaction does.
    with _one_process(path):
        if _version(database) == 0:
            database.execute("PRAGMA journal_mode=WAL")
        for script in scripts[_checked(_version(database), len(scripts), path) :]:
            _apply(database, script)


def _checked(version: int, newest: int, path: Path) -> int:
    if version > newest:
        raise JournalFailed(
            f"a newer hvtui wrote the journal of jobs (version {version}; this one knows up to {newest})",
            about=str(path),
            remedy="Use that hvtui, or set HVTUI_STATE_DIR to another directory",
        )
    return version


def _apply(database: sqlite3.Connection, script: Sequence[str]) -> None:
    database.execute("BEGIN IMMEDIATE")
    try:
        for statement in script:
            database.execute(statement)
        database.execute(f"PRAGMA user_version={_version(database) + 1}")
        database.execute("COMMIT")
    except BaseException:
        roll_back(database)
        raise


def roll_back(database: sqlite3.Connection) -> None:
    """End a transaction that failed; SQLite has ended it by itself after some errors."""
    import sqlite3

    with suppress(sqlite3.Error):
        if database.in_transaction:
            database.execute("ROLLBACK")


def _version(database: sqlite3.Connection) -> int:
    return int(database.execute("PRAGMA user_version").fetchone()[0])


@contextmanager
def _one_process(path: Path) -> Iterator[None]:
    lock = os.open(path.with_name(path.name + ".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


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
