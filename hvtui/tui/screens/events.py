"""The events screen: what happened to which VM, newest first, as libvirt told it. Shows only."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import timedelta
from typing import ClassVar

from textual.content import Content
from textual.widget import Widget

from host.events import Event, EventKind
from host.text import fit, printable
from hvtui.tui.screens.base import HvtuiScreen
from hvtui.tui.widgets.choice_list import SPARE_CELLS, ChoiceList
from hvtui.tui.widgets.page import Page, row

_ALARMING = {EventKind.CRASHED, EventKind.WATCHDOG, EventKind.IO_ERROR}
_TIME, _KIND = 12, 16
_EMPTY = (
    row(),
    row("Nothing has happened since hvtui was started.", style="bold", indent=3),
    row(),
    row("Starts, stops, pauses, crashes, disk errors and changes of VMs appear here as they happen, newest first.",
        indent=3),
)  # fmt: skip


class EventsScreen(HvtuiScreen):
    """The newest thousand events since the start; new ones appear at the top."""

    SCOPES: ClassVar[tuple[str, ...]] = ("events",)
    AUTO_FOCUS = ""  # the list gets the focus once it has a row: an empty one, which is hidden, would swallow keys
    DEFAULT_CSS = """
    EventsScreen #head { height: 1; }
    EventsScreen #rows { height: 1fr; }
    EventsScreen #empty { height: 1fr; display: none; }
    EventsScreen.-empty #rows, EventsScreen.-empty #head { display: none; }
    EventsScreen.-empty #empty { display: block; }
    """

    def body(self) -> Iterable[Widget]:
        yield Page(id="head")
        yield ChoiceList(id="rows")
        yield Page(_EMPTY, id="empty")

    def on_screen_resume(self) -> None:
        self._show()

    def on_resize(self) -> None:
        cells = _name_cells(self.size.width - SPARE_CELLS)
        words = f" {fit('TIME', _TIME)}{fit('EVENT', _KIND)}{fit('VM', cells + 1)}DETAIL"
        self.query_one("#head", Page).show([row(words, style="$text-muted", indent=0)])

    def event_arrived(self, event: Event) -> None:  # noqa: ARG002 - the app keeps the list
        self._show()

    def on_option_list_option_selected(self) -> None:
        self.open_vm()

    def open_vm(self) -> None:
        """Go to the VM of the event under the cursor, if there still is one."""
        event = self.selected
        vms = self.hvtui.snapshot.vms if self.hvtui.snapshot is not None else ()
        if event is None:
            self.say("no event is selected", "warn")
        elif all(vm.uuid != event.vm_uuid or event.host not in {"", vm.host} for vm in vms):
            self.say(f"{printable(event.vm_name, limit=40)} is not here any more", "warn")
        else:
            self.hvtui.go_to_vm(event.vm_uuid, event.host)

    def leave(self) -> None:
        self.hvtui.back()

    @property
    def selected(self) -> Event | None:
        """The event under the cursor."""
        chosen = self._list.chosen
        place = int(chosen) - self.hvtui.events_dropped if chosen is not None else -1
        return self.hvtui.events[place] if 0 <= place < len(self.hvtui.events) else None

    @property
    def _list(self) -> ChoiceList:
        return self.query_one("#rows", ChoiceList)

    def _show(self) -> None:
        events = self.hvtui.events
        self.set_class(not events, "-empty")
        if events and self.focused is None:
            self.call_after_refresh(self._list.focus)
        newest_first = reversed(list(enumerate(events, self.hvtui.events_dropped)))
        self._list.show_rows([(str(index), self._line(event)) for index, event in newest_first])

    def _line(self, event: Event) -> Callable[[int], Content]:
        is_old = self.hvtui.now() - event.at > timedelta(days=1)
        at = event.at.astimezone()

        def line(width: int) -> Content:
            cells = _name_cells(width)
            name = fit(printable(event.vm_name, limit=200), cells)
            is_bad = event.kind in _ALARMING
            where = f"{event.host}: " if event.host else ""
            detail = fit(printable(f"{where}{event.detail}", limit=300), max(width - cells - _TIME - _KIND - 2, 8))
            return Content.assemble(
                (fit(f" {at:%m-%d %H:%M}" if is_old else f" {at:%H:%M:%S}", _TIME + 1), "$text-muted"),
                (fit(f"{'! ' if is_bad else ''}{event.kind.value}", _KIND), "bold $text-error" if is_bad else ""),
                (name, "bold"), " ", (detail, "$text-muted"),
            )  # fmt: skip

        return line


def _name_cells(width: int) -> int:
    return min(max(width // 3, 16), 40)
