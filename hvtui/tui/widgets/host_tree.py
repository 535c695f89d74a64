"""The tree of groups and hosts at the left of the list: state and meters of each host, the chosen one narrows the list.

It shows frozen data and keeps a cursor; the screen reads `chosen` and tells it what to show.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

from textual import events
from textual.message import Message
from textual.timer import Timer

from host.connection import LinkStatus
from host.host_list import HostEntry
from host.text import printable
from hvtui.tui.fleet_view import groups_of
from hvtui.tui.symbols import CURSOR
from hvtui.tui.themes import Palette
from hvtui.tui.widgets import charts
from hvtui.tui.widgets.header import stale_words
from hvtui.tui.widgets.lines import Line, Lines, Span, cells, line_of
from vm.model import Snapshot

WIDTH = 30
TICK_S = 1.0
_NAME_CELLS = 12
_NO_GROUP = "no group"


@dataclass(frozen=True, slots=True)
class Node:
    """A row: all hosts, a group, or one host. `hosts` are the names that it stands for."""

    title: str
    hosts: tuple[str, ...]
    host: str = ""  # of a row that is one host
    depth: int = 0


def nodes_of(entries: Sequence[HostEntry]) -> tuple[Node, ...]:
    """The rows: all, then each group with its hosts (a host of two groups is in both)."""
    everything = Node("all hosts", tuple(entry.name for entry in entries))
    groups = groups_of(entries)
    if set(groups) == {""}:
        return (everything, *(Node(name, (name,), name, 1) for name in groups[""]))
    found = [everything]
    for group, names in groups.items():
        found.append(Node(group or _NO_GROUP, names, depth=1))
        found += [Node(name, (name,), name, 2) for name in names]
    return tuple(found)


class HostTree(Lines, can_focus=True):
    """Hidden until the screen shows it. `Chosen` is posted when the cursor moves."""

    class Chosen(Message):
        """Another row is under the cursor."""

    class Opened(Message):
        """A row was clicked twice."""

    def __init__(self, entries: Sequence[HostEntry], clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(id="tree")
        self._shown_nodes = nodes_of(entries)
        self._clock = clock
        self._snapshots: Mapping[str, Snapshot] = {}
        self._drained: frozenset[str] = frozenset()
        self._cursor = 0
        self._top = 0
        self._ticker: Timer | None = None

    def show(self, snapshots: Mapping[str, Snapshot], drained: Collection[str]) -> None:
        """Show these hosts as they are now; `drained` are the URIs of those in maintenance."""
        self._snapshots, self._drained = snapshots, frozenset(drained)
        self._tick_while(any(not each.link.is_up for each in snapshots.values()))
        self.repaint()

    @property
    def chosen(self) -> Node:
        """The row under the cursor."""
        return self._shown_nodes[self._cursor]

    @property
    def scope(self) -> frozenset[str] | None:
        """The hosts that the chosen row stands for; None for all."""
        return frozenset(self.chosen.hosts) if self._cursor else None

    @property
    def page(self) -> int:
        """The number of rows that fit."""
        return max(self.size.height, 1)

    def move(self, by: int) -> None:
        """Move the cursor; it stops at the ends."""
        self.move_to(self._cursor + by)

    def move_to(self, place: int) -> None:
        """Put the cursor on a row; negative counts from the end."""
        place = min(max(place, 0), len(self._shown_nodes) - 1)
        if place != self._cursor:
            self._cursor = place
            self.post_message(self.Chosen())
        self.repaint()

    def move_to_last(self) -> None:
        """Put the cursor on the last row."""
        self.move_to(len(self._shown_nodes) - 1)

    def paint(self, width: int, height: int, palette: Palette) -> Sequence[Line]:
        self._top = max(min(self._top, self._cursor, len(self._shown_nodes) - height), self._cursor - height + 1, 0)
        lines = []
        for place, node in enumerate(self._shown_nodes[self._top : self._top + height], self._top):
            is_cursor = place == self._cursor
            spans = self._row(node, is_cursor, width - 2)
            line = line_of(spans, width - 1, palette, cursor=is_cursor and self.has_focus)
            lines.append((*line, *line_of([("│", "faint")], 1, palette)))
        blank = (*line_of((), width - 1, palette), *line_of([("│", "faint")], 1, palette))
        return lines + [blank] * (height - len(lines))

    def _row(self, node: Node, is_cursor: bool, width: int) -> list[Span]:
        pointer: Span = (f" {CURSOR if is_cursor else ' '}", "accent")
        blank: Span = (" " * node.depth, "text")
        if not node.host:
            count = sum(len(self._snapshots[name].vms) for name in node.hosts if name in self._snapshots)
            words = f"{count} VM{'' if count == 1 else 's'} "
            room = max(width - 2 - node.depth - len(words), 4)
            title = cells(printable(node.title, limit=60), room)
            return [pointer, blank, (title, "bold"), (words, "dim")]
        snapshot = self._snapshots.get(node.host)
        symbol, role = _state(snapshot)
        spans: list[Span] = [pointer, blank, (f"{symbol} ", role)]
        name = cells(printable(node.host, limit=60), _NAME_CELLS - node.depth)
        spans.append((name, "text" if snapshot is not None and snapshot.link.is_up else "dim"))
        return [*spans, *figures(snapshot, self._clock(), is_drained=self._is_drained(snapshot))]

    def _is_drained(self, snapshot: Snapshot | None) -> bool:
        return snapshot is not None and snapshot.uri in self._drained

    def _tick_while(self, lost: bool) -> None:
        if lost and self._ticker is None:
            self._ticker = self.set_interval(TICK_S, self.repaint)
        elif not lost and self._ticker is not None:
            self._ticker.stop()
            self._ticker = None

    def on_focus(self) -> None:
        self.repaint()

    def on_blur(self) -> None:
        self.repaint()

    def on_click(self, event: events.Click) -> None:
        self.focus()
        self.move_to(min(self._top + event.y, len(self._shown_nodes) - 1))
        if event.chain > 1:
            self.post_message(self.Opened())

    def on_mouse_scroll_down(self) -> None:
        self.move(1)

    def on_mouse_scroll_up(self) -> None:
        self.move(-1)


def _state(snapshot: Snapshot | None) -> tuple[str, str]:
    if snapshot is None or snapshot.link.status is LinkStatus.CONNECTING:
        return "◌", "dim"
    return ("●", "good") if snapshot.link.is_up else ("×", "bad")


def figures(snapshot: Snapshot | None, now_s: float, *, is_drained: bool) -> list[Span]:
    """What stands beside a host's name: its meters; "stale 12 s" in their place where the line is lost."""
    if snapshot is None or (snapshot.link.status is LinkStatus.CONNECTING and not snapshot.read_at_s):
        return [("connecting…", "dim")]
    if not snapshot.link.is_up:
        return [(stale_words(snapshot, now_s), "alarm")]
    if is_drained:
        return [("drained", "warn")]
    load = snapshot.load
    memory = None
    if load.memory_total_bytes and load.memory_used_bytes is not None:
        memory = 100 * load.memory_used_bytes / load.memory_total_bytes
    return [
        (charts.level(load.cpu_percent), "chart"), (f"{charts.percent(load.cpu_percent):>4} ", "dim"),
        (charts.level(memory), "chart"), (f"{charts.percent(memory):>4}", "dim"),
    ]  # fmt: skip
