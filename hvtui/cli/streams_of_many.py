"""The stream of several hosts as one: each host is followed on a thread of its own, and the caller's writes the lines.

A host that does not answer is a line of the kind "link", told once, and so is its return; it delays no other.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, TypeAlias, TypeGuard

from host.connection import Host, Link, LinkStatus
from host.errors import ConnectionLost, HvtuiError
from hvtui.cli.streaming import LOOK_S, Source, link_record, reader_left

if TYPE_CHECKING:
    from hvtui.cli.output import Record

SILENT_S = 5.0  # as in the console: long before keepalive gives a connection up
CONNECTING_S = 10.0  # as for lists

Tell: TypeAlias = Callable[["Record"], None]
# Follows one host until it has told what it was asked for. May raise HvtuiError.
Follow: TypeAlias = Callable[[Source, Tell], None]


class Streams:
    """The streams of several hosts. `exit_code` is 6 while one of them does not answer, else 0."""

    def __init__(self, hosts: Sequence[Host], follow: Follow) -> None:
        self._lines: queue.SimpleQueue[tuple[_Follower, Record | None]] = queue.SimpleQueue()
        self._followers = [_Follower(host, follow, self._lines) for host in hosts]

    @property
    def exit_code(self) -> int:
        return ConnectionLost.exit_code if any(each.is_lost for each in self._followers) else 0

    def lines(self, *, end_s: float, until_s: float = float("inf")) -> Iterator[Record]:
        """Every line, as they come: until each host has told everything, at the latest at `end_s`. Nobody waits for one
        that is lost at `until_s` (both monotonic). Raises BrokenPipeError when the reader left."""
        for follower in self._followers:
            follower.start()
        while not self._is_over(until_s) and (left_s := end_s - time.monotonic()) > 0:
            try:
                follower, record = self._lines.get(timeout=min(LOOK_S, left_s))
            except queue.Empty:
                if reader_left():
                    raise BrokenPipeError from None
            else:
                if follower.is_news(record):
                    yield record
            for each in self._followers:
                yield from each.change_of_silence()

    def _is_over(self, until_s: float) -> bool:
        is_late = time.monotonic() >= until_s
        return self._lines.empty() and all(each.is_over or (each.is_lost and is_late) for each in self._followers)


class _Follower:
    """One host. `is_over`: it has told everything; `is_lost`: the last line about its link says that it is lost."""

    def __init__(self, host: Host, follow: Follow, lines: queue.SimpleQueue[tuple[_Follower, Record | None]]) -> None:
        self.is_over = self.is_lost = False
        self._is_silent = False
        self._source = Source(host)
        self._host = host
        self._follow = follow
        self._lines = lines

    def start(self) -> None:
        threading.Thread(target=self._run, name=f"follow-{self._host.name}", daemon=True).start()

    def _run(self) -> None:
        try:
            self._source.expect()
            self._follow(self._source, self._tell)
        except BrokenPipeError:
            return  # the thread that writes sees it too
        except HvtuiError as error:
            self._tell(self._lost(error.cause))
        self._lines.put((self, None))

    def _tell(self, record: Record) -> None:
        self._lines.put((self, record))

    def _lost(self, why: str) -> Record:
        return link_record(self._host.name, Link(LinkStatus.LOST, time.monotonic(), why))

    # On the thread that writes

    def is_news(self, record: Record | None) -> TypeGuard[Record]:
        """True for every line but those of the link that say what was told already; None is the end."""
        if record is None:
            self.is_over = True
            return False
        if record["kind"] != "link":
            return True
        before = self.is_lost
        if record["status"] in {LinkStatus.LOST, LinkStatus.CONNECTED}:
            self.is_lost = record["status"] == LinkStatus.LOST
        return self.is_lost is not before

    def change_of_silence(self) -> Iterator[Record]:
        """The line of a host that has not answered for long, and the one when it does again."""
        link = self._host.link
        if link.status is LinkStatus.CONNECTING:
            over_s = link.since_s + CONNECTING_S
        else:
            over_s = self._source.busy_since_s + SILENT_S
        is_silent = not self.is_over and time.monotonic() > over_s
        if is_silent and not self.is_lost:
            self.is_lost = self._is_silent = True
            yield self._lost("the host does not answer")
        elif self._is_silent and not is_silent:
            self._is_silent = False
            if self.is_lost and link.is_up:
                self.is_lost = False
                yield link_record(self._host.name, link)
