"""Flowing text of marked rows: wrapped with a hanging indent, so that a long line stays in its own column."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from textual.content import Content
from textual.geometry import Region, Size
from textual.widget import Widget

INDENT = 5


@dataclass(frozen=True, slots=True)
class Row:
    """One paragraph. `mark` stands in the margin of `indent` cells; `text` wraps in the rest."""

    text: Content
    mark: Content
    indent: int = INDENT


def row(text: str | Content = "", *, mark: str = "", style: str = "", indent: int = INDENT) -> Row:
    """A row whose mark (right-aligned, two cells before the text) and text have the same style. `text` as str is shown
    as it is: it must be printable already, and is never markup."""
    content = Content.styled(text, style) if isinstance(text, str) else text
    margin = mark.rjust(max(indent - 2, 0)).ljust(indent) if mark else " " * indent
    return Row(content, Content.styled(margin, style) if style else Content(margin), indent)


def heading(text: str) -> Row:
    """A section's title."""
    return Row(Content.styled(text, "bold $text-accent"), Content(" "), 1)


def hanging(rows: Sequence[Row], width: int) -> list[Content]:
    """The rows as lines of at most `width` cells."""
    lines: list[Content] = []
    for each in rows:
        wrapped = each.text.wrap(max(width - each.indent, 8)) if each.text else [Content("")]
        blank = Content(" " * each.indent)
        lines += [(each.mark if not place else blank) + line for place, line in enumerate(wrapped)]
    return lines


def are_same(first: Sequence[Row], second: Sequence[Row]) -> bool:
    """True when both look the same (== of Content leaves the styles out)."""
    return len(first) == len(second) and all(
        a.indent == b.indent and a.text.is_same(b.text) and a.mark.is_same(b.mark)
        for a, b in zip(first, second, strict=True)
    )


class Page(Widget):
    """Shows rows; its height is what they need at its width."""

    DEFAULT_CSS = "Page { width: 1fr; height: auto; }"

    def __init__(self, rows: Sequence[Row] = (), *, id: str | None = None) -> None:  # noqa: A002 - Textual's own name
        super().__init__(id=id)
        self._rows = tuple(rows)
        self._wrapped: tuple[int, list[Content]] = (-1, [])

    def show(self, rows: Sequence[Row]) -> None:
        """Replace the rows; nothing is painted when they are the same."""
        shown = tuple(rows)
        if are_same(shown, self._rows):
            return
        height_before = len(self._wrapped[1])
        width = self._wrapped[0]
        self._rows, self._wrapped = shown, (-1, [])
        self.refresh(layout=width < 0 or len(self._lines(width)) != height_before)

    @property
    def plain(self) -> str:
        """The text as it stands there, for tests and screen readers."""
        return "\n".join(line.plain for line in self._lines(max(self.size.width, 20)))

    def place_of(self, index: int) -> Region:
        """Where row `index` stands in this widget."""
        width = max(self.size.width, 1)
        top = len(hanging(self._rows[:index], width))
        return Region(0, top, width, len(hanging(self._rows[index : index + 1], width)))

    def get_content_width(self, container: Size, viewport: Size) -> int:  # noqa: ARG002 - Textual's interface
        return container.width

    def get_content_height(self, container: Size, viewport: Size, width: int) -> int:  # noqa: ARG002 - the same
        return len(self._lines(width))

    def render(self) -> Content:
        return Content("\n").join(self._lines(self.size.width))

    def _lines(self, width: int) -> list[Content]:
        if self._wrapped[0] != width:
            self._wrapped = (width, hanging(self._rows, width))
        return self._wrapped[1]
