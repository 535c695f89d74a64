"""What `vm watch` and `host events` share: a queue of events and of the link's changes, and lines written at once.

A lost connection is a line of its own; the stream goes on when the host is back. It ends when the reader leaves.
"""

from __future__ import annotations

import queue
import select
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime

from host.connection import Host, Link, LinkStatus
from host.errors import HvtuiError
from host.events import Event, Subscription, subscribe
from host.plan import Json
from host.statistics import VmRates
from host.text import fit, printable
from host.units import format_bytes
from hvtui.cli.output import Format, Record, csv_line, json_line, nearest_key, paint, plain, stream
from hvtui.cli.session import Session

RATE_KEYS = tuple(VmRates.__dataclass_fields__)
_WIDTHS = {
    "at": 12,
    "kind": 8,
    "host": 12,
    "vm": 20,
    "uuid": 36,
    "state": 13,
    "reason": 12,
    "was": 13,
    "detail": 20,
}  # cells
LEAST_WIDTH = 7
LOOK_S = 1.0  # how often a silent stream looks whether anybody still reads it


class Source:
    """The events of one host, through losses of the connection. Use it from one thread."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self._queue: queue.SimpleQueue[Event | Link] = queue.SimpleQueue()
        self._subscription: Subscription | None = None
        self._connection: object = None
        self.busy_since_s = float("inf")  # how long whoever uses this has been at work: more is a host that is silent

    @property
    def is_attached(self) -> bool:
        """True once it has subscribed."""
        return self._subscription is not None

    def start(self) -> None:
        """Subscribe, and keep the connection open from now on. Raises ConnectionLost, Denied."""
        self.attach()
        self._keep_open()

    def expect(self) -> None:
        """Open the connection and keep it open from now on, without waiting for it: the link tells when it is there."""
        self._keep_open()
        if self.host.link.is_up:
            self._queue.put(self.host.link)

    def _keep_open(self) -> None:
        self.host.on_link(self._queue.put)
        self.host.supervise()

    def attach(self) -> None:
        """Subscribe on the connection as it is now, if that is a new one."""
        with self.host.calls("watch events", self.host.name) as connection:
            if connection is not self._connection:
                self._subscription = subscribe(connection, self._queue.put)
                self._connection = connection

    def next(self, wait_s: float) -> list[Event | Link]:
        """What happened, at once when something did; an empty list after `wait_s` seconds, or when it is time to look
        after the reader. Raises BrokenPipeError when nobody reads standard output any more."""
        found: list[Event | Link] = []
        self.busy_since_s = float("inf")
        try:
            found.append(self._queue.get(timeout=max(min(wait_s, LOOK_S), 0.0)))
            while True:
                found.append(self._queue.get_nowait())
        except queue.Empty:
            if not found and reader_left():
                raise BrokenPipeError from None
        finally:
            self.busy_since_s = time.monotonic()
        return found


def reader_left() -> bool:
    """True when standard output is a pipe whose other end was closed."""
    poll = select.poll()
    try:
        poll.register(sys.stdout.fileno(), 0)
    except OSError:  # something else stands in its place in this process
        return False
    return any(state & select.POLLERR for _, state in poll.poll(0))


def writer(session: Session, keys: Sequence[str], *, in_table: Sequence[str]) -> Callable[[Record], None]:
    """A function that writes one record as a line: JSON unless the user asked for a table or CSV, with all of `keys` (a
    table: `in_table`) or those of --columns. Raises UsageError for a column that is not among them."""
    output = Format(session.given.get("output") or Format.JSONL)
    chosen = [nearest_key(name, {key: key for key in keys}) for name in session.columns]
    if output is Format.CSV:
        stream(csv_line(chosen or keys))
        return lambda each: stream(csv_line([each.get(key) for key in chosen or keys]))
    if output is Format.TABLE:
        return _table_writer(chosen or in_table)
    if chosen:
        return lambda each: stream(json_line({key: each.get(key) for key in chosen}))
    return lambda each: stream(json_line(each))


def _table_writer(keys: Sequence[str]) -> Callable[[Record], None]:
    """Lines under heads; how wide the cells of a stream get is not known, so the widths are fixed."""
    heads = [key.removesuffix("_bytes").removesuffix("_bytes_s").upper().replace("_", " ") for key in keys]
    widths = [max(len(head), _WIDTHS.get(key, LEAST_WIDTH)) for key, head in zip(keys, heads, strict=True)]
    right = [key in RATE_KEYS or key.endswith("_bytes") for key in keys]

    def line(cells: Sequence[str]) -> str:
        fitted = (fit(cell, width, right=flag) for cell, width, flag in zip(cells, widths, right, strict=True))
        return "  ".join(fitted).rstrip() + "\n"

    stream(paint(line(heads).rstrip("\n"), "bold") + "\n")
    return lambda each: stream(line([_cell(key, each.get(key, _stand_in(key, each))) for key in keys]))


def _stand_in(key: str, each: Record) -> Json:
    """What lines without that key have to say in its place: those of the link, and of a VM that is gone."""
    if key in {"state", "detail"} and each["kind"] == "link":
        return f"{each['status']} {each['error'] or ''}".rstrip() if key == "detail" else each["status"]
    return "gone" if key == "state" and each["kind"] == "gone" else None


def _cell(key: str, value: Json) -> str:
    if value is None:
        return ""
    if key == "at" and isinstance(value, str):
        return value[11:23]  # the time of day: a table is for a person who looks on
    if isinstance(value, int | float) and not isinstance(value, bool):
        return format_bytes(value) if key.endswith(("_bytes", "_bytes_s")) else f"{value:.1f}"
    return printable(plain(value), limit=120)


def link_record(host_name: str, link: Link) -> dict[str, Json]:
    """The line that tells of a lost or regained connection."""
    status, error = link.status.value, link.error or None
    return {"at": now(), "kind": "link", "host": host_name, "status": status, "error": error}


def end_of(limit_s: float | None) -> float:
    """When a stream with that time limit ends, on the monotonic clock."""
    return time.monotonic() + limit_s if limit_s is not None else float("inf")


def now() -> str:
    """The time of a line, ISO 8601 in UTC."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def events_of(source: Source, *, limit_s: float | None = None) -> Iterator[Event | Link]:
    """Every event of a started source, and every change of its link, for `limit_s` seconds or for ever. Raises
    BrokenPipeError when the reader left."""
    end_s = end_of(limit_s)
    while (left_s := end_s - time.monotonic()) > 0:
        for each in source.next(left_s):
            if isinstance(each, Link) and each.status is LinkStatus.CONNECTED:
                try:
                    source.attach()
                except HvtuiError:  # lost again at once: the link tells so
                    continue
            yield each
