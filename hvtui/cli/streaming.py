"""What `vm watch` and `host events` share: a queue of events and of the link's changes, and lines written at once.

A lost connection is a line of its own; the stream goes on when the host is back. It ends when the reader leaves.
"""

from __future__ import annotations

import queue
import select
import sys
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime

from host.connection import Host, Link, LinkStatus
from host.errors import HvtuiError
from host.events import Event, Subscription, subscribe
from host.plan import Json
from host.text import printable
from hvtui.cli.output import Format, Record, csv_line, json_line, plain, stream
from hvtui.cli.session import Session

LOOK_S = 1.0  # how often a silent stream looks whether anybody still reads it


class Source:
    """The events of one host, through losses of the connection. Use it from one thread."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._queue: queue.SimpleQueue[Event | Link] = queue.SimpleQueue()
        self._subscription: Subscription | None = None

    def start(self) -> None:
        """Subscribe, and keep the connection open from now on. Raises ConnectionLost, Denied."""
        self.attach()
        self._host.on_link(self._queue.put)
        self._host.supervise()

    def attach(self) -> None:
        """Subscribe on the connection as it is now."""
        with self._host.calls("watch events", self._host.name) as connection:
            self._subscription = subscribe(connection, self._queue.put)

    def next(self, wait_s: float) -> list[Event | Link]:
        """What happened, at once when something did; an empty list after `wait_s` seconds, or when it is time to look
        after the reader. Raises BrokenPipeError when nobody reads standard output any more."""
        found: list[Event | Link] = []
        try:
            found.append(self._queue.get(timeout=max(min(wait_s, LOOK_S), 0.0)))
            while True:
                found.append(self._queue.get_nowait())
        except queue.Empty:
            if not found and reader_left():
                raise BrokenPipeError from None
        return found


def reader_left() -> bool:
    """True when standard output is a pipe whose other end was closed."""
    poll = select.poll()
    poll.register(sys.stdout.fileno(), 0)
    return any(state & select.POLLERR for _, state in poll.poll(0))


def writer(session: Session, keys: Sequence[str]) -> Callable[[Record], None]:
    """A function that writes one record as a line: JSON unless the user asked for a table or CSV."""
    output = Format(session.given.get("output") or Format.JSONL)
    if output is Format.CSV:
        stream(csv_line(keys))
        return lambda each: stream(csv_line([each.get(key) for key in keys]))
    if output is Format.TABLE:
        return lambda each: stream("  ".join(_cell(each.get(key)) for key in keys if each.get(key) is not None) + "\n")
    return lambda each: stream(json_line(each))


def _cell(value: Json) -> str:
    return printable(f"{value:.1f}" if isinstance(value, float) else plain(value), limit=120)


def link_record(link: Link) -> dict[str, Json]:
    """The line that tells of a lost or regained connection."""
    return {"at": now(), "kind": "link", "status": link.status.value, "error": link.error or None}


def now() -> str:
    """The time of a line, ISO 8601 in UTC."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def events_of(host: Host) -> Iterator[Event | Link]:
    """Every event and every change of the link, for ever. Raises BrokenPipeError when the reader left."""
    source = Source(host)
    source.start()
    while True:
        for each in source.next(LOOK_S):
            if isinstance(each, Link) and each.status is LinkStatus.CONNECTED:
                try:
                    source.attach()
                except HvtuiError:  # lost again at once: the link tells so
                    continue
            yield each
