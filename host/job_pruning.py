"""Which jobs the journal forgets: the statements, inside the journal's transaction."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import sqlite3

_OVER = "NOT holds AND NOT kept AND state NOT IN ('queued', 'running', 'interrupted')"


def forget_old(database: sqlite3.Connection, *, keep: int) -> tuple[int, ...]:
    """Remove all but the newest `keep` of the jobs that are over, a set as a whole. Returns their ids."""
    nth = f"SELECT id FROM jobs WHERE {_OVER} ORDER BY id DESC LIMIT 1 OFFSET ?"  # noqa: S608 - a constant
    last = database.execute(nth, (keep,)).fetchone()
    if last is None:
        return ()
    needed = f"SELECT set_id FROM jobs WHERE set_id IS NOT NULL AND (id > ? OR NOT ({_OVER}))"  # noqa: S608
    gone = database.execute(
        f"DELETE FROM jobs WHERE {_OVER} AND id <= ? "  # noqa: S608 - constants
        f"AND (set_id IS NULL OR set_id NOT IN ({needed})) RETURNING id",
        (last["id"], last["id"]),
    ).fetchall()
    database.executemany("DELETE FROM steps WHERE job_id = ?", [(row["id"],) for row in gone])
    database.executemany("DELETE FROM wishes WHERE job_id = ?", [(row["id"],) for row in gone])
    database.execute("DELETE FROM sets WHERE id NOT IN (SELECT set_id FROM jobs WHERE set_id IS NOT NULL)")
    return tuple(row["id"] for row in gone)
