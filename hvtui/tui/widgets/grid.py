"""The fleet list: rows of VMs with a cursor and marks, painted line by line.

It shows what it is given and keeps cursor and marks by host and uuid (a definition may be on two hosts), so they stay
with their VM when the order changes. A refresh paints only the cells that changed: rows whose Vm object is the one
painted before are not even looked at.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from textual import events
from textual.message import Message

from hvtui.tui.symbols import ASCENDING, CURSOR, DESCENDING, MARK
from hvtui.tui.themes import Palette
from hvtui.tui.widgets import columns
from hvtui.tui.widgets.columns import BY_ID, DEFAULT_COLUMNS, MANY_COLUMNS, Column, Layout
from hvtui.tui.widgets.lines import Line, Lines, Span, cells, line_of
from vm.filter import Filter
from vm.model import Vm

GUTTER = 4  # cursor and mark
_CACHED_ROWS = 512


class Grid(Lines, can_focus=True):
    """The list. The screen calls `show`, `narrow`, `sort_by`; it reads `current`, `marked`, `shown`."""

    class CursorMoved(Message):
        """Another VM (or none) is under the cursor."""

    class Opened(Message):
        """A row was clicked twice."""

    class MarksChanged(Message):
        """Rows were marked or unmarked, or the number of shown rows changed."""

    def __init__(self) -> None:
        super().__init__(id="grid")
        self._all: tuple[Vm, ...] = ()
        self._ordered: tuple[Vm, ...] = ()
        self.shown: tuple[Vm, ...] = ()
        self._marks: dict[tuple[str, str], None] = {}
        self._filter: Filter | None = None
        self._groups: Mapping[str, Collection[str]] | None = None  # of each host, where there are several
        self._scope: frozenset[str] | None = None  # the hosts whose VMs are shown; None: all
        self._sort: tuple[str, bool] = ("name", False)
        self._chosen: tuple[str, ...] = DEFAULT_COLUMNS
        self._cursor = 0
        self._top = 0
        self._name_needs = 4
        self._now = datetime.now(UTC)
        self._stale = False
        self._stale_hosts: frozenset[str] = frozenset()
        self._doubtful = False
        self._mark_emulated = False
        self._is_resting = False
        self._rows: dict[tuple[Any, ...], tuple[Vm, Line]] = {}
        self._rows_key: tuple[Any, ...] = ()

    # What is shown

    def rest(self, *, is_resting: bool) -> None:
        """Another pane has the keys: the row under the cursor keeps its sign only."""
        if is_resting != self._is_resting:
            self._is_resting = is_resting
            self.repaint()

    def show(
        self,
        vms: tuple[Vm, ...],
        *,
        now: datetime,
        stale: bool = False,
        stale_hosts: frozenset[str] = frozenset(),
        mark_emulated: bool = False,
    ) -> None:
        """Show these VMs from now on. Uptimes are counted to `now`; `stale` greys all of them, `stale_hosts` those of
        some hosts; `mark_emulated` names the ones without acceleration."""
        self._now, self._stale, self._stale_hosts, self._mark_emulated = now, stale, stale_hosts, mark_emulated
        if len(vms) != len(self._all) or any(new is not old for new, old in zip(vms, self._all, strict=True)):
            self._all = vms
            if self._marks:
                there = {vm.key for vm in vms}
                self._marks = {key: None for key in self._marks if key in there}
            self._name_needs = columns.name_width(vms)
            self._order()
            self._choose(self._ordered)
        self.repaint()

    def narrow(self, wanted: Filter | None, *, refines: bool = False) -> None:
        """Show only the VMs that match; None shows all. `refines` says that it can only let through fewer than the
        filter before: only those that are shown are looked at."""
        self._filter = wanted
        self._choose(self.shown if refines else self._ordered)
        self.repaint()

    def tell_hosts(self, groups: Mapping[str, Collection[str]]) -> None:
        """There are several hosts, each in these groups: filters look at both, and the column of hosts can be shown."""
        self._groups = groups
        if self._chosen == DEFAULT_COLUMNS:
            self._chosen = MANY_COLUMNS

    def show_hosts(self, names: frozenset[str] | None) -> None:
        """Show only the VMs of these hosts; None shows all."""
        if names != self._scope:
            self._scope = names
            self._choose(self._ordered)
            self.repaint()

    def doubt(self, *, doubtful: bool) -> None:
        """Grey the rows: they answer another filter than the one that is being typed."""
        if doubtful != self._doubtful:
            self._doubtful = doubtful
            self.repaint()

    def sort_by(self, column_id: str, *, reverse: bool | None = None) -> None:
        """Sort by a column: its natural order first, the other way round when it is the order already."""
        if reverse is None:
            again = self._sort[0] == column_id
            reverse = not self._sort[1] if again else BY_ID[column_id].descending
        self._sort = (column_id, reverse)
        self._order()
        self._choose(self._ordered)
        self.repaint()

    @property
    def sort(self) -> tuple[str, bool]:
        """The column's id, and whether the order is descending."""
        return self._sort

    def choose_columns(self, column_ids: Sequence[str]) -> None:
        """Show these columns, in this order, as far as they fit."""
        self._chosen = tuple(column_ids) or self.usual_columns
        self._rows.clear()
        self.repaint()

    @property
    def chosen_columns(self) -> tuple[str, ...]:
        """The ids of the columns to show, whether they fit or not."""
        return self._chosen

    @property
    def usual_columns(self) -> tuple[str, ...]:
        """The ids of the columns that nobody chose otherwise."""
        return DEFAULT_COLUMNS if self._groups is None else MANY_COLUMNS

    @property
    def layout_now(self) -> Layout:
        """The columns as they fit now."""
        return self.layout_of(self._chosen)

    def layout_of(self, column_ids: Sequence[str]) -> Layout:
        """Those columns as they would fit now."""
        if self._groups is None:
            column_ids = [column_id for column_id in column_ids if column_id != "host"]
        return columns.fitted(column_ids, width=self.size.width - GUTTER - 1, name_needs=self._name_needs)

    def _order(self) -> None:
        """All VMs in the order of the sort; VMs that are equal in it by name."""
        column_id, reverse = self._sort
        ordered = sorted(self._all, key=BY_ID["name"].sort_key, reverse=reverse and column_id == "name")
        if column_id != "name":
            ordered.sort(key=BY_ID[column_id].sort_key, reverse=reverse)
        self._ordered = tuple(ordered)

    def _choose(self, candidates: tuple[Vm, ...]) -> None:
        """Those of the ordered candidates that the filter lets through; the cursor stays on its VM."""
        current = self.current
        if self._scope is not None:
            candidates = tuple(vm for vm in candidates if vm.host in self._scope)
        self.shown = self._matching(candidates)
        place = next((i for i, vm in enumerate(self.shown) if vm.key == current.key), None) if current else None
        self._cursor = place if place is not None else min(self._cursor, max(len(self.shown) - 1, 0))
        moved = self.current
        if moved is not current:
            self.post_message(self.CursorMoved())
        self.post_message(self.MarksChanged())

    def _matching(self, vms: tuple[Vm, ...]) -> tuple[Vm, ...]:
        if self._filter is None:
            return vms
        if self._groups is None:
            return tuple(filter(self._filter.matches, vms))
        wanted, groups = self._filter, self._groups
        hosts = {name for name, those in groups.items() if wanted.matches_host(name, those)}
        return tuple(vm for vm in vms if vm.host in hosts and wanted.matches(vm))

    # Cursor and marks

    @property
    def current(self) -> Vm | None:
        """The VM under the cursor."""
        return self.shown[self._cursor] if 0 <= self._cursor < len(self.shown) else None

    @property
    def marked(self) -> tuple[Vm, ...]:
        """The marked VMs in the order of the rows, hidden ones too: a filter does not forget what was marked."""
        if not self._marks:
            return ()
        return tuple(vm for vm in self._ordered if vm.key in self._marks)

    @property
    def page(self) -> int:
        """The number of rows that fit."""
        return max(self.size.height - 1, 1)

    def move(self, by: int) -> None:
        """Move the cursor; it stops at the ends."""
        self.move_to(self._cursor + by)

    def move_to(self, place: int) -> None:
        """Put the cursor on a row; negative counts from the end."""
        if not self.shown:
            return
        place = min(max(place, 0), len(self.shown) - 1)
        if place != self._cursor:
            self._cursor = place
            self.post_message(self.CursorMoved())
            self.repaint()

    def move_to_last(self) -> None:
        """Put the cursor on the last row."""
        self.move_to(len(self.shown) - 1)

    def move_to_vm(self, uuid: str, host_name: str = "") -> bool:
        """Put the cursor on that VM (of that host, if given); False when it is not shown."""
        for place, vm in enumerate(self.shown):
            if vm.uuid == uuid and host_name in {"", vm.host}:
                self.move_to(place)
                return True
        return False

    def mark_current(self) -> None:
        """Mark or unmark the row under the cursor, and go on to the next."""
        current = self.current
        if current is None:
            return
        if current.key in self._marks:
            del self._marks[current.key]
        else:
            self._marks[current.key] = None
        self.post_message(self.MarksChanged())
        self._cursor = min(self._cursor + 1, len(self.shown) - 1)
        self.post_message(self.CursorMoved())
        self.repaint()

    def mark_shown(self) -> None:
        """Mark every shown row, or unmark all when every shown row is marked."""
        keys = {vm.key for vm in self.shown}
        if keys and keys <= self._marks.keys():
            self._marks.clear()
        else:
            self._marks.update(dict.fromkeys(keys))
        self.post_message(self.MarksChanged())
        self.repaint()

    def unmark_all(self) -> None:
        """Forget every mark."""
        if self._marks:
            self._marks.clear()
            self.post_message(self.MarksChanged())
            self.repaint()

    # Painting

    def paint(self, width: int, height: int, palette: Palette) -> Sequence[Line]:
        layout = self.layout_now
        ages = any(column.id == "uptime" for column, _width in layout.columns)
        minute = self._now.replace(second=0, microsecond=0) if ages else None
        stale = (self._stale, self._stale_hosts, self._doubtful)
        key = (palette.colors.name, width, layout, stale, self._mark_emulated, minute)
        if key != self._rows_key or len(self._rows) > _CACHED_ROWS:
            self._rows.clear()
            self._rows_key = key
        page = height - 1
        self._top = min(max(self._top, self._cursor - page + 1), self._cursor)
        self._top = max(min(self._top, len(self.shown) - page), 0)
        lines = [self._titles(layout, width, palette)]
        thumb = self._thumb(page)
        for y, vm in enumerate(self.shown[self._top : self._top + page]):
            lines.append(self._row(vm, layout, width, palette, is_thumb=thumb is not None and thumb[0] <= y < thumb[1]))
        if not self.shown and self._all:
            why: list[Span] = [("    nothing matches; ", "dim"), ("esc", "key"), (" shows all", "dim")]
            if self._filter is None and self._scope is not None:
                why = [("    no VM there", "dim")]
            lines += [line_of((), width, palette), line_of(why, width, palette)]
        blank = line_of((), width, palette)
        lines += [blank] * (height - len(lines))
        return lines

    def _thumb(self, page: int) -> tuple[int, int] | None:
        """The rows of the scroll mark at the right edge; None when everything fits."""
        total = len(self.shown)
        if total <= page or page < 2:
            return None
        length = max(page * page // total, 1)
        start = round(self._top / (total - page) * (page - length))
        return start, start + length

    def _titles(self, layout: Layout, width: int, palette: Palette) -> Line:
        spans: list[Span] = [(" " * GUTTER, "head")]
        sorted_by, reverse = self._sort
        for place, (column, column_width) in enumerate(layout.columns):
            if place:
                spans.append((" " * layout.gap, "head"))
            arrow = DESCENDING if reverse else ASCENDING
            title = f"{column.title}{arrow}" if column.id == sorted_by else column.title
            role = "accent" if column.id == sorted_by else "head"
            spans.append((cells(title, column_width, right=column.right), role))
        return line_of(spans, width, palette)

    def _row(self, vm: Vm, layout: Layout, width: int, palette: Palette, *, is_thumb: bool) -> Line:
        is_cursor = self.current is vm
        is_marked = vm.key in self._marks
        key = (vm.key, is_cursor, is_marked, is_thumb, self._is_resting)
        cached = self._rows.get(key)
        if cached is not None and cached[0] is vm:
            return cached[1]
        pointer = (CURSOR if is_cursor else " ", "accent")
        mark = (MARK if is_marked else " ", "accent")
        spans: list[Span] = [(" ", "text"), pointer, mark, (" ", "text")]
        for place, (column, column_width) in enumerate(layout.columns):
            if place:
                spans.append((" " * layout.gap, "text"))
            spans += self._cell(column, vm, column_width)
        if self._stale or self._doubtful or vm.host in self._stale_hosts:
            spans = [(text, "dim") for text, _role in spans]
        edge = [*line_of(spans, width - 1, palette, cursor=is_cursor and not self._is_resting)]
        edge += line_of([("▐" if is_thumb else " ", "faint")], 1, palette)
        line = tuple(edge)
        self._rows[key] = (vm, line)
        return line

    def _cell(self, column: Column, vm: Vm, width: int) -> Sequence[Span]:
        if column.id == "name":
            return self._named(vm, width)
        return columns.uptime(vm, width, now=self._now) if column.id == "uptime" else column.cell(vm, width)

    def _named(self, vm: Vm, width: int) -> Sequence[Span]:
        emulated = self._mark_emulated and vm.config is not None and vm.config.is_emulated
        if emulated and width >= 14:
            return (*BY_ID["name"].cell(vm, width - 5), (" emul", "dim"))
        return BY_ID["name"].cell(vm, width)

    # The mouse

    def on_click(self, event: events.Click) -> None:
        place = self._top + event.y - 1
        if event.y == 0:
            self._sort_by_title(event.x)
        elif place < len(self.shown):
            self.move_to(place)
            if event.chain > 1:
                self.post_message(self.Opened())

    def on_mouse_scroll_down(self) -> None:
        self.move(3)

    def on_mouse_scroll_up(self) -> None:
        self.move(-3)

    def _sort_by_title(self, x: int) -> None:
        layout = self.layout_now
        left = GUTTER
        for column, width in layout.columns:
            if left <= x < left + width:
                self.sort_by(column.id)
                return
            left += width + layout.gap
