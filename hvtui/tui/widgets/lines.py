"""The line widget under every list and bar: it shows painted lines and repaints only the cells that changed.

A painter is a pure function from frozen data to lines; `Lines.show` compares them with what is on the screen. Text
reaches a line only through `cells`, which makes it printable and exactly as wide as it claims to be.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import TypeAlias

from rich.cells import cell_len
from rich.segment import Segment
from textual.geometry import Region
from textual.strip import Strip
from textual.widget import Widget

from host.text import fit, printable
from hvtui.tui.themes import Palette, palette

Line: TypeAlias = tuple[Segment, ...]
Span: TypeAlias = tuple[str, str]  # text and role


@lru_cache(maxsize=8192)
def cells(text: str, width: int, right: bool = False) -> str:
    """`text` made harmless and fitted to exactly `width` cells, for the terminal's as for the painter's measure."""
    fitted = fit(printable(text, limit=max(width * 4, 64)), width, right=right)
    if fitted.isascii() or cell_len(fitted) == width:
        return fitted
    # The two width tables disagree about some character (rare scripts): show it as a question mark.
    plain = "".join(char if char.isascii() or cell_len(char) == 1 else "?" for char in printable(text, limit=width))
    return fit(plain, width, right=right)


def line_of(spans: Sequence[Span], width: int, palette: Palette, *, cursor: bool = False) -> Line:
    """A line of exactly `width` cells from spans that are fitted already; the rest is blank, the excess is cut."""
    segments = []
    left = width
    for text, role in spans:
        if left <= 0:
            break
        length = len(text) if text.isascii() else cell_len(text)
        if length > left:
            text, length = cells(text, left), left
        segments.append(Segment(text, palette.style(role, cursor=cursor)))
        left -= length
    if left > 0:
        segments.append(Segment(" " * left, palette.style("text", cursor=cursor)))
    return tuple(segments)


def width_of(spans: Sequence[Span]) -> int:
    """The cells that the spans take."""
    return sum(cell_len(text) for text, _role in spans)


def between(left: Sequence[Span], right: Sequence[Span], width: int) -> list[Span]:
    """`left` at the left, `right` at the right of `width` cells; the left side is cut when both do not fit."""
    room = width - width_of(right)
    kept: list[Span] = []
    for text, role in left:
        length = cell_len(text)
        if length > room:
            if room > 1:
                kept.append((cells(text, room - 1) + " ", role))
                room = 0
            break
        kept.append((text, role))
        room -= length
    return [*kept, (" " * max(room, 0), "text"), *right]


def changed_cells(before: Line, after: Line) -> tuple[int, int] | None:
    """The first and the end column of the cells that differ between two lines of one width; None when none does."""
    if before == after:
        return None
    start = 0
    first = 0
    for old, new in zip(before, after, strict=False):
        if old != new:
            break
        start += cell_len(old.text)
        first += 1
    tail = 0
    for old, new in zip(reversed(before[first:]), reversed(after[first:]), strict=False):
        if old != new:
            break
        tail += cell_len(old.text)
    width = sum(cell_len(segment.text) for segment in after)
    return start, max(width - tail, start + 1)


class Lines(Widget):
    """Shows painted lines. Subclasses implement `paint`, call `repaint` when their data changed, nothing else."""

    def __init__(self, *, id: str | None = None) -> None:  # noqa: A002 - Textual's name
        super().__init__(id=id)
        self._lines: tuple[Line, ...] = ()
        self._painted_width = 0
        self.cells_painted = 0  # for the tests and benchmarks: what a refresh cost

    @property
    def lines(self) -> tuple[Line, ...]:
        """What is shown now."""
        return self._lines

    def paint(self, width: int, height: int, palette: Palette) -> Sequence[Line]:
        """The lines for this size, each exactly `width` cells. Pure: it reads the widget's frozen data only."""
        raise NotImplementedError

    def on_mount(self) -> None:
        self.app.theme_changed_signal.subscribe(self, lambda _theme: self.repaint())

    def on_resize(self) -> None:
        self.repaint()

    def repaint(self) -> None:
        """Paint again, and send only the cells that changed to the terminal."""
        width, height = self.size
        if not width or not height:
            return
        lines = tuple(self.paint(width, height, palette(self.app.theme))[:height])
        before, self._lines = self._lines, lines
        before_width, self._painted_width = self._painted_width, width
        if len(before) != len(lines) or before_width != width:
            self.cells_painted += width * height
            self.refresh()
            return
        for y, (old, new) in enumerate(zip(before, lines, strict=True)):
            if old is not new and (changed := changed_cells(old, new)):
                start, end = changed
                self.cells_painted += end - start
                self.refresh(Region(start, y, end - start, 1))

    def render_line(self, y: int) -> Strip:
        width = self.size.width
        if y < len(self._lines):
            # Between a new size and its repaint the lines are those of the size before.
            return Strip(self._lines[y], self._painted_width).adjust_cell_length(width)
        return Strip([Segment(" " * width, palette(self.app.theme).style("text"))], width)
