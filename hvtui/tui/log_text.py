"""What happened to one VM, newest first: its jobs and its events in one line of time. Pure functions."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta

from host.events import Event, EventKind
from host.job_model import Job, JobState
from host.text import printable
from hvtui.tui.widgets import charts
from hvtui.tui.widgets.lines import Span, between, cells, width_of
from hvtui.tui.widgets.wrapping import wrapped

ALARMING = frozenset({EventKind.CRASHED, EventKind.WATCHDOG, EventKind.IO_ERROR})
_WHEN = 15
_LONGEST = 400
Row = list[Span]
_JOBS: dict[JobState, tuple[str, str]] = {  # symbol and role, as on the jobs screen
    JobState.QUEUED: ("○", "dim"),
    JobState.RUNNING: ("◐", "accent"),
    JobState.DONE: ("✓", "good"),
    JobState.FAILED: ("×", "bad"),
    JobState.INTERRUPTED: ("!", "warn"),
    JobState.CANCELLED: ("–", "dim"),
    JobState.ROLLED_BACK: ("←", "dim"),
}
_EMPTY = (
    "No job has changed it, and nothing has happened to it since hvtui was started. Starts, stops, errors and every"
    " change that is made with hvtui appear here, newest first."
)


def log_rows(jobs: Iterable[Job], events: Iterable[Event], *, width: int, now: datetime) -> list[Row]:
    """The jobs with who, how long and what went wrong; the events with their detail."""
    entries: list[tuple[datetime, list[Row]]] = [(_moment(job), _job_rows(job, width, now)) for job in jobs]
    entries += [(event.at, [_event_row(event, width, now)]) for event in events]
    if not entries:
        return [[], *([("   ", "text"), (line, "dim")] for line in wrapped(_EMPTY, width - 6))]
    entries.sort(key=lambda entry: entry[0], reverse=True)
    return [row for _at, rows in entries for row in rows]


def _moment(job: Job) -> datetime:
    return job.started_at or job.created_at


def _when(moment: datetime, now: datetime) -> Span:
    is_old = now - moment > timedelta(days=1)
    text = f"{moment.astimezone():%m-%d %H:%M}" if is_old else f"{moment.astimezone():%H:%M:%S}"
    return (f"   {text:<{_WHEN - 3}}", "dim")


def _job_rows(job: Job, width: int, now: datetime) -> list[Row]:
    symbol, role = _JOBS.get(job.state, ("?", "dim"))
    word = job.state.value
    if job.undone_by is not None:
        symbol, role, word = "←", "dim", f"undone by job {job.undone_by}"
    tail = _job_tail(job, word, width, now)
    left: Row = [_when(_moment(job), now), (f"{symbol} ", role)]
    title = cells(printable(job.title, limit=_LONGEST), max(width - width_of(left) - width_of(tail) - 2, 8)).rstrip()
    rows = [between([*left, (title, "text")], tail, width)]
    return rows + [
        [(" " * (_WHEN + 2), "text"), (line, line_role)]
        for text, line_role in ((job.error, "bad"), (job.remedy if job.error else "", "dim"))
        for line in (wrapped(printable(text, limit=_LONGEST), width - _WHEN - 3) if text else ())
    ]


def _job_tail(job: Job, word: str, width: int, now: datetime) -> Row:
    """How it ended or how far it is, how long it took, who did it."""
    if not job.state.is_over:
        return [(charts.bar(job.progress, 10 if width >= 76 else 5), "accent"), (f" {job.progress:4.0%}", "text")]
    took = ""
    if job.started_at is not None:
        seconds = ((job.finished_at or now) - job.started_at).total_seconds()
        took = charts.duration(seconds) if seconds >= 1 else "at once"
    who = cells(printable(job.user, limit=12), 8) if width >= 70 else ""
    end = f"{took:>8}" if job.state is JobState.DONE and job.undone_by is None else word
    return [(f"{end}  {who}{f'job {job.id}':>9}", "dim")]


def _event_row(event: Event, width: int, now: datetime) -> Row:
    is_bad = event.kind in ALARMING
    kind = event.kind.value.replace("-", " ")
    words: Row = [(f"{'!' if is_bad else '·'} ", "alarm" if is_bad else "dim"), (kind, "alarm" if is_bad else "text")]
    room = max(width - _WHEN - width_of(words) - 2, 4)
    return [_when(event.at, now), *words, ("  ", "text"), (cells(printable(event.detail, limit=_LONGEST), room), "dim")]
