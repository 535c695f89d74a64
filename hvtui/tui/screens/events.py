"""The events screen: what happened to which VM, newest first, as libvirt told it. Shows only."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import ClassVar

from textual.content import Content
from textual.widget import Widget
from textual.widgets import Static

from host.events import Event, EventKind
from host.text import fit, printable
from hvtui.tui.screens.base import HvtuiScreen
from hvtui.tui.widgets.choice_list import ChoiceList

_ALARMING = {EventKind.CRASHED, EventKind.WATCHDOG, EventKind.IO_ERROR}
_EMPTY = "\n  Nothing has happened since hvtui was started.\n\n  esc back"


class EventsScreen(HvtuiScreen):
    """The newest thousand events since the start; new ones appear at the top."""

    SCOPES: ClassVar[tuple[str, ...]] = ("events",)
    DEFAULT_CSS = """
    EventsScreen #list { height: 1fr; }
    EventsScreen #empty { height: 1fr; display: none; }
    EventsScreen.-empty #list { display: none; }
    EventsScreen.-empty #empty { display: block; }
    """

    def body(self) -> Iterable[Widget]:
        yield ChoiceList(id="list")
        yield Static(Content(_EMPTY), id="empty")

    def on_screen_resume(self) -> None:
        super().on_screen_resume()
        self._show()

    def event_arrived(self, event: Event) -> None:  # noqa: ARG002 - the app keeps the list
        self._show()

    def _show(self) -> None:
        events = self.hvtui.events
        self.set_class(not events, "-empty")
        newest_first = reversed(list(enumerate(events, self.hvtui.events_dropped)))
        self.query_one("#list", ChoiceList).show_rows([(str(index), _line(event)) for index, event in newest_first])


def _line(event: Event) -> Callable[[int], Content]:
    def line(width: int) -> Content:
        name = fit(printable(event.vm_name, limit=200), min(max(width // 3, 16), 40))
        style = "$text-error" if event.kind in _ALARMING else "$text-accent"
        used = 10 + 1 + len(fit("", 15)) + 1 + min(max(width // 3, 16), 40) + 1
        detail = fit(printable(event.detail, limit=300), max(width - used, 8))
        at = f" {event.at.astimezone():%H:%M:%S} "
        return Content.assemble((at, "$text-muted"), (fit(event.kind.value, 15), style), " ", name, " ", detail)

    return line
