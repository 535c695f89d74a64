"""The fleet screen: the list of VMs, its filter, and the details of the VM under the cursor."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar, TypeAlias

from textual import on
from textual.containers import Horizontal, Vertical
from textual.widget import Widget

from host.text import printable
from hvtui.tui.actions import Target
from hvtui.tui.screens.base import HvtuiScreen
from hvtui.tui.symbols import ASCENDING, ATTENTION, DESCENDING, MARK
from hvtui.tui.themes import Palette
from hvtui.tui.widgets.columns import BY_ID, STATES
from hvtui.tui.widgets.details import Details
from hvtui.tui.widgets.filter_line import FilterLine
from hvtui.tui.widgets.footer import Footer, StatusLine
from hvtui.tui.widgets.grid import Grid
from hvtui.tui.widgets.header import Crowd
from hvtui.tui.widgets.lines import Line, Lines, Span, between, line_of, width_of
from hvtui.tui.widgets.welcome import Welcome
from vm.model import Snapshot, Vm, VmState

if TYPE_CHECKING:
    from hvtui.tui.widgets.host_tree import HostTree

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
        # A VM that is being made (uuid and host, which may be any), and the one under the cursor before.
        self._expected: tuple[str, str, tuple[str, str]] | None = None
        self._tree: HostTree | None = None  # of groups and hosts, where there are several

    def body(self) -> Iterable[Widget]:
        with Horizontal(id="bar"):
            yield Counts()
            yield FilterLine()
        with Horizontal(id="fleet"):
            if self.hvtui.services.is_many:
                from hvtui.tui.widgets.host_tree import HostTree

                self._tree = HostTree(self.hvtui.services.entries, lambda: self.hvtui.clock_s())
                yield self._tree
            with Vertical(id="list"):
                yield Grid()
                yield Welcome()
            yield Details()

    def on_mount(self) -> None:
        configured = self.hvtui.services.config.ui.columns
        if configured:
            self.grid.choose_columns(configured)
        if self._tree is not None:
            self.grid.tell_hosts({entry.name: entry.groups for entry in self.hvtui.services.entries})
        self.grid.focus()

    def on_resize(self) -> None:
        self._arrange()
        self.call_after_refresh(self._show_counts)

    @property
    def grid(self) -> Grid:
        return self.query_one(Grid)

    def targets(self) -> tuple[Vm, ...]:
        if self._in_tree:
            return ()  # a host or a group is meant
        current = self.grid.current
        return self.grid.marked or ((current,) if current is not None else ())

    def target(self) -> Target:
        meant = super().target()
        return (
            replace(meant, host=self._tree.chosen.host, is_in_tree=True)
            if self._tree is not None and self._in_tree
            else meant
        )

    def crowd(self) -> Crowd | None:
        found = super().crowd()
        return replace(found, current="") if found is not None else None  # the list is all hosts'

    @property
    def _in_tree(self) -> bool:
        return self._tree is not None and self.focused is self._tree  # at once: has_focus comes with a message

    # What arrives

    def snapshot_changed(self, snapshot: Snapshot) -> None:
        kvm = snapshot.facts is not None and snapshot.facts.accelerator == "kvm"
        before = self.grid.current
        by_host = self.hvtui.snapshots.items() if self._tree is not None else ()
        lost = frozenset(name for name, each in by_host if not each.link.is_up)
        self.grid.show(
            snapshot.vms, now=self.hvtui.now(), stale=not snapshot.link.is_up, stale_hosts=lost, mark_emulated=kvm
        )
        if self._tree is not None and self.hvtui.fleet is not None:
            self._tree.show(self.hvtui.snapshots, self.hvtui.fleet.drained)
        self._go_to_expected(before)
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
        self.set_class(not wide, "-narrow")
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
        stale = snapshot is not None and not self.hvtui.is_up(current)
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

    # The tree of hosts

    def toggle_tree(self) -> None:
        """Show the tree of groups and hosts, and go there; or hide it, and show all."""
        if self._tree is None:
            return
        is_shown = not self.has_class("-tree")
        self.set_class(is_shown, "-tree")
        if is_shown:
            self.set_focus(self._tree)
        else:
            self._tree.move_to(0)
            self.grid.focus()
        self.call_after_refresh(self._arrange)

    def other_pane(self) -> None:
        """From the list to the tree, or back."""
        if self._tree is None:
            return
        if not self.has_class("-tree"):
            self.toggle_tree()
        else:
            self.set_focus(self.grid if self._in_tree else self._tree)

    def on_descendant_focus(self) -> None:
        if self.is_composed:
            self.grid.rest(is_resting=self._in_tree)
            self.query_one(Footer).show_target(self.target())

    def on_host_tree_chosen(self) -> None:
        """Narrow the list to the chosen hosts."""
        if self._tree is not None:
            self.grid.show_hosts(self._tree.scope)
            self._show_counts()
            self._show_details()

    def on_host_tree_opened(self) -> None:
        self.open_vm()

    # What the keys do (hvtui.tui.catalogue)

    @property
    def _mover(self) -> HostTree | Grid:
        return self._tree if self._tree is not None and self._in_tree else self.grid

    def cursor_down(self) -> None:
        self._mover.move(1)

    def cursor_up(self) -> None:
        self._mover.move(-1)

    def page_down(self) -> None:
        self._mover.move(self._mover.page)

    def page_up(self) -> None:
        self._mover.move(-self._mover.page)

    def cursor_first(self) -> None:
        self._mover.move_to(0)

    def cursor_last(self) -> None:
        self._mover.move_to_last()

    def mark(self) -> None:
        self.grid.mark_current()

    def mark_all(self) -> None:
        self.grid.mark_shown()

    def open_filter(self) -> None:
        self.query_one(FilterLine).open()
        self.query_one(Footer).show_typing(("enter", "keep it"), ("↑↓", "move"), ("esc", "clear it"), ("f1", "help"))
        self._show_counts()

    def open_vm(self) -> None:
        """Show the VM under the cursor on the whole screen; in the tree, the host, or the list of a group."""
        if self._tree is not None and self._in_tree:
            if self._tree.chosen.host:
                self.hvtui.open_host(self._tree.chosen.host)
            else:
                self.grid.focus()
            return
        from hvtui.tui.screens.vm import VmScreen

        if (current := self.grid.current) is not None:
            self.hvtui.push_screen(VmScreen(current))

    def toggle_details(self) -> None:
        self._details_hidden = not self._details_hidden
        self._arrange()

    def back(self) -> None:
        """Leave the tree; clear the filter, then the marks, then the choice of hosts."""
        if self._tree is not None and self._in_tree:
            self.grid.focus()
        elif self._tree is not None and self._tree.scope is not None and not (self._filter_text or self.grid.marked):
            self._tree.move_to(0)
        elif self._filter_text:
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
        dialog = ColumnsScreen(self.grid.chosen_columns, fitting, file=config.file, usual=self.grid.usual_columns)
        chosen = await self.hvtui.push_screen_wait(dialog)
        if chosen is not None:
            self.grid.choose_columns(chosen)
            self._show_counts()

    def follow_new(self, uuid: str, host_name: str = "") -> None:
        """Put the cursor on that VM when it comes into the list (of that host, if given), unless the user has moved it
        meanwhile."""
        current = self.grid.current
        self._expected = (uuid, host_name, current.key if current is not None else ("", ""))

    def _go_to_expected(self, before: Vm | None) -> None:
        """`before` was under the cursor before the list changed."""
        if self._expected is None:
            return
        uuid, host_name, then = self._expected
        was_moved = before is not None and then not in {("", ""), before.key}
        if was_moved or (self._has_arrived(uuid, host_name) and self.grid.move_to_vm(uuid, host_name)):
            self._expected = None

    def _has_arrived(self, uuid: str, host_name: str) -> bool:
        """A VM that moves is defined at the target long before it runs there."""
        those = [vm for vm in self.grid.shown if vm.uuid == uuid]
        there = [vm for vm in those if host_name in {"", vm.host}]
        return bool(there) and (there[0].state is VmState.RUNNING or all(vm in there for vm in those if vm.is_active))

    def go_to_vm(self, uuid: str, host_name: str = "") -> None:
        """Put the cursor on that VM, clearing a filter and a choice of hosts that hide it."""
        self.grid.focus()
        if not self.grid.move_to_vm(uuid, host_name):
            if self._tree is not None:
                self._tree.move_to(0)
                self.grid.show_hosts(None)
            self.query_one(FilterLine).wipe()
            self.grid.narrow(None)
            self.grid.move_to_vm(uuid, host_name)


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
