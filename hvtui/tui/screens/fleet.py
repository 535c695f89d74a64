"""The fleet screen: the list of VMs, its filter, and the details of the VM under the cursor."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import ClassVar, TypeAlias

from textual import on
from textual.containers import Horizontal, Vertical
from textual.widget import Widget

from host.text import printable
from hvtui.tui.screens.base import HvtuiScreen
from hvtui.tui.symbols import ASCENDING, ATTENTION, DESCENDING, MARK
from hvtui.tui.themes import Palette
from hvtui.tui.widgets.columns import BY_ID, STATES
from hvtui.tui.widgets.details import Details
from hvtui.tui.widgets.filter_line import FilterLine
from hvtui.tui.widgets.footer import Footer, StatusLine
from hvtui.tui.widgets.grid import Grid
from hvtui.tui.widgets.lines import Line, Lines, Span, between, line_of, width_of
from hvtui.tui.widgets.welcome import Welcome
from vm.model import Snapshot, Vm, VmState

Tally: TypeAlias = tuple[dict[VmState, int], dict[str, int]]

WIDE_COLUMNS = 120


class Counts(Lines):
    """How many VMs there are in which state, the filter, the order. One line."""

    def __init__(self) -> None:
        super().__init__(id="counts")
        self._spans: tuple[list[Span], list[Span]] = ([], [])

    def show(self, left: list[Span], right: list[Span]) -> None:
        self._spans = (left, right)
        self.repaint()

    def paint(self, width: int, height: int, palette: Palette) -> Sequence[Line]:  # noqa: ARG002 - one line
        return [line_of(between(*self._spans, width), width, palette)]


class FleetScreen(HvtuiScreen):
    """The first screen."""

    AUTO_FOCUS = ""  # on an empty host the grid is hidden: the hidden filter would get the focus, and every key
    SCOPES: ClassVar[tuple[str, ...]] = ("fleet", "vm")

    def __init__(self) -> None:
        super().__init__()
        self._tallied: tuple[Vm, ...] = ()
        self._tally: Tally = ({}, {})
        self._filter_text = ""
        self._details_hidden = False
        self._is_puzzled = False
        self._expected: tuple[str, str] | None = None  # a VM that is being made, and the one under the cursor before

    def body(self) -> Iterable[Widget]:
        with Horizontal(id="bar"):
            yield Counts()
            yield FilterLine()
        with Horizontal(id="fleet"):
            with Vertical(id="list"):
                yield Grid()
                yield Welcome()
            yield Details()

    def on_mount(self) -> None:
        configured = self.hvtui.services.config.ui.columns
        if configured:
            self.grid.choose_columns(configured)
        self.grid.focus()

    def on_resize(self) -> None:
        self._arrange()
        self.call_after_refresh(self._show_counts)

    @property
    def grid(self) -> Grid:
        return self.query_one(Grid)

    def targets(self) -> tuple[Vm, ...]:
        current = self.grid.current
        return self.grid.marked or ((current,) if current is not None else ())

    # What arrives

    def snapshot_changed(self, snapshot: Snapshot) -> None:
        kvm = snapshot.facts is not None and snapshot.facts.accelerator == "kvm"
        self.grid.show(snapshot.vms, now=self.hvtui.now(), stale=not snapshot.link.is_up, mark_emulated=kvm)
        self._go_to_expected()
        welcome = self.query_one(Welcome)
        welcome.show(snapshot)
        if welcome.display != (not snapshot.vms):
            welcome.display = not snapshot.vms
            self.grid.display = bool(snapshot.vms)
            self._arrange()
        self._show_counts()
        self._show_details()

    # Showing

    def _arrange(self) -> None:
        wide = self.size.width >= WIDE_COLUMNS
        self.set_class(wide, "-wide")
        self.set_class(self._details_hidden or not self.grid.display or self.size.height < 16, "-no-details")
        self.set_class(self.size.width >= 160, "-widest")

    def _show_counts(self) -> None:
        snapshot = self.hvtui.snapshot
        if snapshot is None:
            return
        column_id, reverse = self.grid.sort
        right: list[Span] = []
        if self.query_one(FilterLine).display:
            right.append(("/", "key"))
        elif self._filter_text:
            right.append((f"/{printable(self._filter_text, limit=40)}   ", "accent"))
        if column_id not in {column.id for column, _width in self.grid.layout_now.columns}:
            right.append((f"by {BY_ID[column_id].title.lower()} {DESCENDING if reverse else ASCENDING} ", "dim"))
        counts = self.query_one(Counts)
        room = counts.size.width - width_of(right) - 1
        shown, marked = None if self._is_puzzled else len(self.grid.shown), len(self.grid.marked)
        if snapshot.vms is not self._tallied:
            self._tallied, self._tally = snapshot.vms, tallied(snapshot.vms)
        spans = count_spans(self._tally, total=len(snapshot.vms), shown=shown, marked=marked, width=room)
        counts.show(spans if snapshot.link.is_up else [(text, "dim") for text, _role in spans], right)

    def _show_details(self) -> None:
        current = self.grid.current
        snapshot = self.hvtui.snapshot
        stale = snapshot is not None and not snapshot.link.is_up
        history = self.hvtui.rates.of(current)
        self.query_one(Details).show(current, history, now=self.hvtui.now(), stale=stale)
        self.query_one(Footer).show_target(self.target())

    @on(Grid.CursorMoved)
    def _cursor_moved(self) -> None:
        self._show_details()

    @on(Grid.MarksChanged)
    def _marks_changed(self) -> None:
        self._show_counts()
        self.query_one(Footer).show_target(self.target())

    @on(Grid.Opened)
    def _opened(self) -> None:
        self.open_vm()

    # The filter

    @on(FilterLine.Narrowed)
    def _narrowed(self, message: FilterLine.Narrowed) -> None:
        self._filter_text = self.query_one(FilterLine).value.strip()
        self.grid.narrow(message.wanted, refines=message.refines)
        self._show_counts()

    @on(FilterLine.Puzzled)
    def _puzzled(self, message: FilterLine.Puzzled) -> None:
        self.query_one(StatusLine).stand(message.complaint, "bad" if message.refused else "warn")
        self._is_puzzled = bool(message.complaint)
        self.grid.doubt(doubtful=self._is_puzzled)
        self._show_counts()

    @on(FilterLine.Moved)
    def _moved(self, message: FilterLine.Moved) -> None:
        self.grid.move(message.by)

    @on(FilterLine.Closed)
    def _filter_closed(self) -> None:
        self.grid.focus()
        self.query_one(StatusLine).stand("")
        self.query_one(Footer).show_typing()
        self._show_counts()

    # What the keys do (hvtui.tui.catalogue)

    def cursor_down(self) -> None:
        self.grid.move(1)

    def cursor_up(self) -> None:
        self.grid.move(-1)

    def page_down(self) -> None:
        self.grid.move(self.grid.page)

    def page_up(self) -> None:
        self.grid.move(-self.grid.page)

    def cursor_first(self) -> None:
        self.grid.move_to(0)

    def cursor_last(self) -> None:
        self.grid.move_to(len(self.grid.shown) - 1)

    def mark(self) -> None:
        self.grid.mark_current()

    def mark_all(self) -> None:
        self.grid.mark_shown()

    def open_filter(self) -> None:
        self.query_one(FilterLine).open()
        self.query_one(Footer).show_typing(("enter", "keep it"), ("↑↓", "move"), ("esc", "clear it"), ("f1", "help"))
        self._show_counts()

    def open_vm(self) -> None:
        """Show the VM under the cursor on the whole screen."""
        from hvtui.tui.screens.vm import VmScreen

        if (current := self.grid.current) is not None:
            self.hvtui.push_screen(VmScreen(current))

    def toggle_details(self) -> None:
        self._details_hidden = not self._details_hidden
        self._arrange()

    def back(self) -> None:
        """Clear the filter, then the marks."""
        if self._filter_text:
            self.query_one(FilterLine).wipe()
        else:
            self.grid.unmark_all()
        self.say("")

    def say_sort_keys(self) -> None:
        shown = [column.title.lower() for column, _width in self.grid.layout_now.columns][:9]
        self.say("sort by  " + "  ".join(f"{place} {title}" for place, title in enumerate(shown, 1)), "dim")

    def sort_by_place(self, place: int) -> None:
        shown = self.grid.layout_now.columns
        if place <= len(shown):
            self.grid.sort_by(shown[place - 1][0].id)
            self._show_counts()

    async def choose_columns(self) -> None:
        """Ask which columns to show, for this run."""
        from hvtui.tui.screens.columns import ColumnsScreen

        def fitting(ids: Sequence[str]) -> frozenset[str]:
            return frozenset(column.id for column, _width in self.grid.layout_of(ids).columns)

        config = self.hvtui.services.config
        chosen = await self.hvtui.push_screen_wait(ColumnsScreen(self.grid.chosen_columns, fitting, file=config.file))
        if chosen is not None:
            self.grid.choose_columns(chosen)
            self._show_counts()

    def follow_new(self, uuid: str) -> None:
        """Put the cursor on that VM when it comes into the list, unless the user has moved it meanwhile."""
        current = self.grid.current
        self._expected = (uuid, current.uuid if current is not None else "")

    def _go_to_expected(self) -> None:
        if self._expected is None:
            return
        uuid, before = self._expected
        current = self.grid.current
        was_moved = current is not None and before not in {"", current.uuid}
        if was_moved or self.grid.move_to_vm(uuid):
            self._expected = None

    def go_to_vm(self, uuid: str) -> None:
        """Put the cursor on that VM, clearing a filter that hides it."""
        if not self.grid.move_to_vm(uuid):
            self.query_one(FilterLine).wipe()
            self.grid.narrow(None)
            self.grid.move_to_vm(uuid)


def tallied(vms: Sequence[Vm]) -> Tally:
    """How many VMs are in which state, and how many need attention for which reason."""
    counts: dict[VmState, int] = {}
    alarms: dict[str, int] = {}
    for vm in vms:
        if vm.needs_attention:
            reason = printable(vm.state_reason or vm.state.value, limit=16)
            alarms[reason] = alarms.get(reason, 0) + 1
        else:
            counts[vm.state] = counts.get(vm.state, 0) + 1
    return counts, alarms


def count_spans(tally: Tally, *, total: int, shown: int | None, marked: int, width: int) -> list[Span]:
    """ "24 VMs  ! 1 disk error  ● 18 running  ○ 5 off": each state that occurs, the alarming ones first; the last ones
    are left out where they do not fit. `shown` is None while nobody can say which ones are meant."""
    number = f"{'?' if shown is None else shown} of {total}" if shown != total else f"{total}"
    counts, alarms = tally
    pieces: list[list[Span]] = [[(f" {number} VM{'' if number == '1' else 's'}", "text")]]
    if marked:
        pieces.append([(f"  {MARK} {marked} marked", "accent")])
    pieces += [[(f"  {ATTENTION} {count} {reason}", "alarm")] for reason, count in alarms.items()]
    for state, (symbol, word, role) in STATES.items():
        if state in counts:
            pieces.append([(f"  {symbol}", role), (f" {counts[state]} {word}", "dim")])
    spans: list[Span] = []
    for piece in pieces:
        if width_of([*spans, *piece]) > width:
            break
        spans += piece
    return spans
