"""Shows more lines than fit, and scrolls them. Keys are the screen's; the wheel is its own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

from hvtui.tui.themes import Palette
from hvtui.tui.widgets.lines import Line, Lines, Span, line_of

Rows: TypeAlias = Sequence[Sequence[Span]]
Make: TypeAlias = Callable[[int, int], Rows]  # the rows for a width and a height in cells

WHEEL_LINES = 3


class Scroller(Lines):
    """`show` gives it a function that makes its rows, which is called again when the size has changed. One cell at the
    right is kept for the mark of where one is."""

    def __init__(self, *, id: str | None = None) -> None:  # noqa: A002 - Textual's name
        super().__init__(id=id)
        self._make: Make = lambda _width, _height: ()
        self._made: tuple[tuple[int, int], Rows] | None = None
        self._top = 0
        self._stale = False

    def show(self, make: Make, *, top: int | None = None, stale: bool = False) -> None:
        """Show these rows from now on, from row `top` (where one is, if not given); `stale` greys them."""
        self._make, self._made, self._stale = make, None, stale
        self._top = self._top if top is None else top
        self.repaint()

    @property
    def top(self) -> int:
        """The first row that is seen."""
        return self._top

    @property
    def page(self) -> int:
        """The number of rows that fit."""
        return max(self.size.height, 1)

    def scroll_rows(self, by: int) -> None:
        """Scroll; it stops at the ends."""
        self._top += by
        self.repaint()

    def paint(self, width: int, height: int, palette: Palette) -> Sequence[Line]:
        if self._made is None or self._made[0] != (width, height):
            self._made = ((width, height), self._make(width - 1, height))
        rows = self._made[1]
        self._top = max(min(self._top, len(rows) - height), 0)
        first, end = thumb(self._top, height, len(rows))
        lines = []
        for y in range(height):
            row = rows[self._top + y] if self._top + y < len(rows) else ()
            if self._stale:
                row = [(text, "faint" if role == "faint" else "dim") for text, role in row]
            edge = line_of([("▐" if first <= y < end else " ", "faint")], 1, palette)
            lines.append((*line_of(row, width - 1, palette), *edge))
        return lines

    def on_mouse_scroll_down(self) -> None:
        self.scroll_rows(WHEEL_LINES)

    def on_mouse_scroll_up(self) -> None:
        self.scroll_rows(-WHEEL_LINES)


def thumb(top: int, page: int, total: int) -> tuple[int, int]:
    """The first and the end row of the scroll mark on a page; nothing when everything fits."""
    if total <= page or page < 2:
        return 0, 0
    length = max(page * page // total, 1)
    start = round(top / (total - page) * (page - length))
    return start, start + length
