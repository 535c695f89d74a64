"""Which columns the list shows, and in what order: a dialog that returns the ids. It changes nothing itself."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from typing import ClassVar, TypeAlias

from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.content import Content
from textual.widget import Widget

from host.text import fit, printable
from hvtui.tui.screens.dialog import Dialog
from hvtui.tui.symbols import CURSOR, MARK
from hvtui.tui.widgets.columns import BY_ID, DEFAULT_COLUMNS
from hvtui.tui.widgets.page import Page, Row, row

Fitting: TypeAlias = Callable[[Sequence[str]], frozenset[str]]  # the ids that there is room for

_INDENT = 8
_TITLE = 12
_USUAL_FILE = "~/.config/hvtui/config.toml"


class ColumnsScreen(Dialog[tuple[str, ...] | None]):
    """Returns the chosen columns' ids in their order, or None to leave them as they are."""

    DEFAULT_CSS = "ColumnsScreen #frame { max-width: 80; }"

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "accept", "apply"),
        Binding("space", "switch", "show or hide"),
        Binding("j,down", "move(1)", show=False),
        Binding("k,up", "move(-1)", show=False),
        Binding("J,plus,shift+down", "carry(1)", show=False),
        Binding("K,minus,shift+up", "carry(-1)", show=False),
        Binding("d", "reset", "the built-in set"),
        Binding("y", "copy", "copy the line"),
        Binding("escape,q,C", "refuse", "back"),
    ]

    def __init__(
        self, shown: Sequence[str], fitting: Fitting, *, file: str = "", usual: Sequence[str] = DEFAULT_COLUMNS
    ) -> None:
        super().__init__()
        self._usual = tuple(usual)
        self._fitting = fitting
        self._file = file or _USUAL_FILE
        self._take(shown)
        self._cursor = 0

    def _take(self, shown: Sequence[str]) -> None:
        named = shown if "name" in shown else ("name", *shown)
        self._order = [*named, *(column_id for column_id in self._usual if column_id not in named)]
        self._shown = set(named)

    @property
    def chosen(self) -> tuple[str, ...]:
        """The ids of the columns to show, in their order."""
        return tuple(column_id for column_id in self._order if column_id in self._shown)

    def title_text(self) -> str:
        return "Columns"

    def hints(self) -> Sequence[tuple[str, str]]:
        return (("space", "show/hide"), ("J K", "move"), ("enter", "apply"), ("d", "built-in"), ("y", "copy"),
                ("esc", "back"))  # fmt: skip

    def body(self) -> Iterable[Widget]:
        yield VerticalScroll(Page(self._lines(), id="text"), id="body", can_focus=False)

    def action_move(self, rows: int) -> None:
        self._cursor = (self._cursor + rows) % len(self._order)
        self._repaint()

    def action_carry(self, rows: int) -> None:
        """Move the column under the cursor, and the cursor with it."""
        place = min(max(self._cursor + rows, 0), len(self._order) - 1)
        self._order.insert(place, self._order.pop(self._cursor))
        self._cursor = place
        self._repaint()

    def action_switch(self) -> None:
        """Show or hide the column under the cursor."""
        column_id = self._order[self._cursor]
        if column_id == "name":
            self.warn("the name is always shown")
            return
        self._shown ^= {column_id}
        self._repaint()

    def action_reset(self) -> None:
        """The columns of a list that nobody configured."""
        self._take(self._usual)
        self._repaint()

    def action_copy(self) -> None:
        """Put the line for the configuration file on the clipboard (OSC 52)."""
        self.app.copy_to_clipboard(config_line(self.chosen))
        self.warn("sent to the terminal's clipboard")

    def action_accept(self) -> None:
        self.dismiss(self.chosen)

    def action_refuse(self) -> None:
        self.dismiss(None)

    def _repaint(self) -> None:
        self.query_one("#text", Page).show(self._lines())
        body = self.query_one("#body", VerticalScroll)
        if self._cursor == len(self._order) - 1:
            body.scroll_end(animate=False)  # what stands below the last column is read there
        else:
            body.scroll_to(y=max(self._cursor - body.size.height + 2, 0), animate=False)

    def _lines(self) -> list[Row]:
        fitting = self._fitting(self.chosen)
        rows = [self._row(column_id, place, fitting) for place, column_id in enumerate(self._order)]
        keep = row(f"This run only. To keep it, write into {printable(self._file, limit=200)}, below [ui]:", indent=3,
                   style="$text-muted")  # fmt: skip
        return [*rows, row(), keep, row(config_line(self.chosen), indent=3)]

    def _row(self, column_id: str, place: int, fitting: frozenset[str]) -> Row:
        column, is_shown, is_current = BY_ID[column_id], column_id in self._shown, place == self._cursor
        margin = Content.assemble(
            (f" {CURSOR if is_current else ' '} ", "bold $accent"),
            (
                f"[{MARK if is_shown else ' '}]  " if column_id != "name" else f" {MARK}   ",
                "" if is_shown else "$text-muted",
            ),
        )
        title = (fit(column.title, _TITLE), "bold" if is_current else "" if is_shown else "$text-muted")
        no_room = "; no room for it now" if is_shown and column_id not in fitting else ""
        return Row(
            Content.assemble(title, (column.meaning, "$text-muted"), (no_room, "$text-warning")), margin, _INDENT
        )


def config_line(column_ids: Iterable[str]) -> str:
    """The line of the configuration's table [ui] that chooses these columns."""
    return f"columns = {json.dumps(list(column_ids))}"
