"""Whose turn it is in the queue of jobs: the statements on the journal's tables, inside the journal's transactions.

A job that waits may begin when each lane of its plan has room for it, beside the jobs that run in any process and those
before it that may begin themselves. One that must wait, or is paused, holds up no other.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from host.job_codec import from_text, lanes_from_json
from host.plan import Lane
from host.text import printable

if TYPE_CHECKING:
    import sqlite3

_ALIVE = "state IN ('queued', 'running')"  # in these words, so that the index jobs_alive serves


@dataclass(frozen=True, slots=True)
class _Standing:
    """A job that runs or stands in line. `full` is the lane that keeps it waiting; `before` are those that get the
    lane's last room before it."""

    job_id: int
    lanes: tuple[Lane, ...]
    is_running: bool
    full: Lane | None = None
    before: tuple[int, ...] = ()
    running: int = 0  # in the full lane


def stand_in_line(database: sqlite3.Connection, claims: Mapping[int, str]) -> tuple[frozenset[int], tuple[str, ...]]:
    """Let those of the jobs that are QUEUED wait for their turn, each for its claim. Returns which those are, and the
    claims that they had before."""
    query = f"SELECT id, claim, is_ready FROM jobs WHERE id IN ({_marks(claims)}) AND state = 'queued'"  # noqa: S608
    found = database.execute(query, tuple(claims)).fetchall()
    taken = [row for row in found if not row["is_ready"] or row["claim"] != claims[row["id"]]]
    values = [(claims[row["id"]], row["id"]) for row in taken]
    database.executemany("UPDATE jobs SET claim = ?, is_ready = 1 WHERE id = ?", values)
    former = tuple(row["claim"] for row in taken if row["claim"] != claims[row["id"]])
    return frozenset(row["id"] for row in found), former


def next_in_line(database: sqlite3.Connection, job_ids: Collection[int]) -> int | None:
    """The first of these QUEUED jobs whose turn it is; None when all must wait. One that was cancelled does not wait:
    it ends where it begins."""
    rows = database.execute(
        f"SELECT id, is_paused, cancel_requested FROM jobs WHERE id IN ({_marks(job_ids)}) "  # noqa: S608 - marks only
        "AND state = 'queued' ORDER BY position, id",
        tuple(job_ids),
    ).fetchall()
    must_wait = {each.job_id for each in _in_line(database, job_ids) if each.full is not None} if rows else set()
    for row in rows:
        if row["cancel_requested"] or not (row["is_paused"] or row["id"] in must_wait):
            return int(row["id"])
    return None


def waiting_words(database: sqlite3.Connection) -> dict[int, str]:
    """What each job in line waits for, in plain words."""
    return {each.job_id: _words(each, each.full) for each in _in_line(database) if each.full is not None}


def set_paused(database: sqlite3.Connection, job_ids: Collection[int], is_paused: bool) -> None:
    """Let these jobs be passed over, or no longer."""
    values = (is_paused, *job_ids)
    database.execute(f"UPDATE jobs SET is_paused = ? WHERE id IN ({_marks(job_ids)})", values)  # noqa: S608


def put_first(database: sqlite3.Connection, job_ids: Collection[int]) -> None:
    """Move these jobs before all that wait, in the order given."""
    first = database.execute(f"SELECT MIN(position) FROM jobs WHERE {_ALIVE}").fetchone()[0] or 0  # noqa: S608
    begin = min(first, 0) - len(job_ids)
    values = [(begin + index, job_id) for index, job_id in enumerate(job_ids)]
    database.executemany("UPDATE jobs SET position = ? WHERE id = ?", values)


def _in_line(database: sqlite3.Connection, also: Collection[int] = ()) -> list[_Standing]:
    """The jobs with lanes that run, then those in line in their order; `also` count as if they stood in it."""
    rows = database.execute(
        f"SELECT id, state, lanes FROM jobs WHERE {_ALIVE} AND lanes <> '[]' AND (state = 'running' OR "  # noqa: S608
        f"(NOT is_paused AND (is_ready OR id IN ({_marks(also)})))) ORDER BY state = 'queued', position, id",
        tuple(also),
    )
    running: Counter[str] = Counter()
    expected: dict[str, list[int]] = {}
    found = []
    for row in rows:
        lanes = lanes_from_json(from_text(row["lanes"]))
        is_running = row["state"] == "running"
        full = None if is_running else _full(lanes, running, expected)
        before = tuple(expected.get(full.name, ())) if full else ()
        count = running[full.name] if full else 0
        found.append(_Standing(row["id"], lanes, is_running, full, before, count))
        for lane in lanes if full is None else ():
            if is_running:
                running[lane.name] += 1
            else:
                expected.setdefault(lane.name, []).append(row["id"])
    return found


def _full(lanes: Collection[Lane], running: Counter[str], expected: Mapping[str, list[int]]) -> Lane | None:
    """The first lane without room."""
    return next((lane for lane in lanes if running[lane.name] + len(expected.get(lane.name, ())) >= lane.limit), None)


def _words(standing: _Standing, full: Lane) -> str:
    if standing.running < full.limit and standing.before:
        return f"job {standing.before[-1]} comes first"
    kind, _, whose = printable(full.name, limit=100).partition(":")
    if kind == "host":
        return f"{_many(standing.running, 'move')} on {whose} already"
    if kind == "link":
        source, _, target = whose.partition(">")
        return f"{_many(standing.running, 'move')} from {source} to {target} already"
    return f"{_many(standing.running, 'job')} in {kind} already"


def _many(count: int, noun: str) -> str:
    return f"1 {noun} runs" if count == 1 else f"{count} {noun}s run"


def _marks(values: Collection[object]) -> str:
    return ",".join("?" * len(values))
