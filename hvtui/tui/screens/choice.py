"""One choice out of several lines: a dialog that returns the chosen one's key. It changes nothing itself."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import ClassVar

from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.content import Content
from textual.widget import Widget

from host.text import display_width, fit
from hvtui.tui.screens.dialog import Dialog
from hvtui.tui.symbols import CURSOR
from hvtui.tui.widgets.page import Page, Row

_INDENT = 3
_MOST_HANGING = 24  # cells: what is said of a choice stands in a column of its own beside short ones


class ChoiceScreen(Dialog[str | None]):
    """Asks for one of `choices`: (key, what it is, what is said of it, dim). Returns the key, or None to go back."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "accept", "choose"),
        Binding("j,down", "move(1)", show=False),
        Binding("k,up", "move(-1)", show=False),
        Binding("home,g", "move(-9999)", show=False),
        Binding("end,G", "move(9999)", show=False),
        Binding("escape,q", "refuse", "back"),
    ]

    def __init__(
        self, question: str, choices: Sequence[tuple[str, str, str]], *, chosen: str = "", verb: str = "choose"
    ) -> None:
        super().__init__()
        self._question = question
        self._choices = tuple(choices)
        self._verb = verb
        self._cursor = next((place for place, (key, *_) in enumerate(self._choices) if key == chosen), 0)

    def title_text(self) -> str:
        return self._question

    def hints(self) -> Sequence[tuple[str, str]]:
        return (("↑↓", "move"), ("enter", self._verb), ("esc", "back"))

    def body(self) -> Iterable[Widget]:
        yield VerticalScroll(Page(self._lines(), id="text"), id="body", can_focus=False)

    def action_move(self, rows: int) -> None:
        self._cursor = min(max(self._cursor + rows, 0), len(self._choices) - 1)
        page = self.query_one("#text", Page)
        page.show(self._lines())
        self.query_one("#body", VerticalScroll).scroll_to_region(page.place_of(self._cursor), animate=False)

    def action_accept(self) -> None:
        self.dismiss(self._choices[self._cursor][0])

    def action_refuse(self) -> None:
        self.dismiss(None)

    def _lines(self) -> list[Row]:
        return [self._row(place, what, about) for place, (_key, what, about) in enumerate(self._choices)]

    def _row(self, place: int, what: str, about: str) -> Row:
        is_current = place == self._cursor
        margin = Content.styled(f" {CURSOR if is_current else ' '} ", "bold $accent")
        cells = max(display_width(each) for _key, each, _about in self._choices)
        chosen = (fit(what, cells), "bold" if is_current else "")
        if cells <= _MOST_HANGING:
            return Row(
                Content.styled(about, "$text-muted"), margin + Content.assemble(chosen, "   "), _INDENT + cells + 3
            )
        told = (f"   {about}" if about else "", "$text-muted")
        return Row(Content.assemble(chosen, told), margin, _INDENT)
