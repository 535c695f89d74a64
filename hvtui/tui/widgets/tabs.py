"""One line: the name of what is shown, the tabs with their numbers, and a note at the right."""

from __future__ import annotations

from collections.abc import Sequence

from rich.cells import cell_len
from textual import events
from textual.message import Message

from host.text import printable
from hvtui.tui.symbols import CURSOR, RULE
from hvtui.tui.themes import Palette
from hvtui.tui.widgets.lines import Line, Lines, Span, cells, line_of, width_of

LEAST_NAME = 8


class Tabs(Lines):
    """` ─ web-01 ─ ▶ Summary  2 Hardware  3 XML ────── ● running ─`."""

    class Chosen(Message):
        """A tab was clicked."""

        def __init__(self, place: int) -> None:
            super().__init__()
            self.place = place

    def __init__(self, titles: Sequence[str]) -> None:
        super().__init__(id="tabs")
        self._titles = tuple(titles)
        self._vm_name = ""
        self._chosen = 0
        self._note: Sequence[Span] = ()
        self._places: list[range] = []  # where each tab stands

    def show(self, name: str, chosen: int, note: Sequence[Span]) -> None:
        """Name the VM, and mark the tab at that place."""
        self._vm_name, self._chosen, self._note = name, chosen, note
        self.repaint()

    def paint(self, width: int, height: int, palette: Palette) -> Sequence[Line]:  # noqa: ARG002 - one line
        labels = self._labels(width)
        note = self._note if width_of(labels) + width_of(self._note) + LEAST_NAME + 12 <= width else ()
        room = max(width - width_of(labels) - (width_of(note) + 6 if note else 0) - 7, 1)
        name = printable(self._vm_name, limit=room)
        name = name if cell_len(name) <= room else cells(name, room)
        head: list[Span] = [(f" {RULE} ", "faint"), (name, "bold"), (f" {RULE}", "faint")]
        line = [*line_of(head, min(width_of(head), width), palette)]
        end = min(width_of(head), width)
        self._places = []
        for place, (text, role) in enumerate(labels):
            is_chosen = place == self._chosen
            begin, end = end, min(end + cell_len(text), width)
            self._places.append(range(begin, end))
            line += line_of([(text, "bold" if is_chosen else role)], end - begin, palette, cursor=is_chosen)
        tail: list[Span] = [(" ", "text"), *note, (f" {RULE}", "faint")] if note else []
        rule: Span = (" " + RULE * (width - end - width_of(tail) - 2), "faint")
        return [(*line, *line_of([rule, *tail], width - end, palette))]

    def _labels(self, width: int) -> list[Span]:
        """All tabs with their numbers, without them where that is too wide, else the chosen one alone."""
        signs = [CURSOR if place == self._chosen else str(place + 1) for place in range(len(self._titles))]
        full = [(f" {sign} {title} ", "dim") for sign, title in zip(signs, self._titles, strict=True)]
        short = [(f" {title} ", "dim") for title in self._titles]
        least = LEAST_NAME + 7
        if width_of(full) + least <= width:
            return full
        if width_of(short) + least <= width:
            return short
        return [(text if place == self._chosen else "", role) for place, (text, role) in enumerate(short)]

    def on_click(self, event: events.Click) -> None:
        place = next((place for place, cells_of in enumerate(self._places) if event.x in cells_of), None)
        if place is not None:
            self.post_message(self.Chosen(place))
