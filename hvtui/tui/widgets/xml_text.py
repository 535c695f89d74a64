"""The text of the XML editor: Textual's text area in colours, and harmless whatever is in it. Knows no VM."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import ClassVar

from rich.cells import cell_len
from rich.style import Style
from rich.text import Text
from textual.binding import Binding, BindingType
from textual.widgets import TextArea
from textual.widgets.text_area import TextAreaTheme

from hvtui.tui.themes import palette
from hvtui.tui.widgets.line_input import harmless
from hvtui.tui.xml_colors import Inside, insides, pieces

_LONGEST_COLORED = 4000  # characters: nobody sees the end of a longer line, and each piece of it takes time
_CACHE_LINE = 2  # the place of the line's number in the keys of Textual's cache of painted lines


class XmlText(TextArea):
    """A TextArea in colours, whose picture is harmless: characters that control the terminal are legal in XML."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("tab", "indent", show=False)]  # its own way would take esc, too
    _lines_before: Sequence[str] = ()
    _insides: list[Inside]  # what the first lines begin inside of, as far as they were shown

    def __init__(self, text: str, *, id: str) -> None:  # noqa: A002 - Textual's own name
        super().__init__(text, show_line_numbers=True, soft_wrap=False, compact=True, id=id)
        self.cursor_blink = False
        # Textual's own colour for the cursor's line would hide those of its text.
        self.register_theme(TextAreaTheme("hvtui", cursor_line_style=Style()))
        self.theme = "hvtui"

    def action_indent(self) -> None:
        self.insert("  ")

    def get_line(self, line_index: int) -> Text:
        line = self.document.get_line(line_index)
        text = Text(harmless(line.replace("\t", " ")), end="", no_wrap=True)
        colors = palette(self.app.theme)
        for start, end, role in pieces(line[:_LONGEST_COLORED], self._inside_at(line_index))[0]:
            text.stylize(colors.ink(role), start, end)
        return text

    def _inside_at(self, line_index: int) -> Inside:
        known = len(self._insides) - 1
        if line_index > known:
            self._insides.extend(list(insides(self.document.lines[known:line_index], self._insides[known]))[1:])
        return self._insides[line_index]

    def _build_highlight_map(self) -> None:
        """Textual's hook for whatever changed the text, undo and paste too. It would paint every line again, each in a
        time that grows with the text: where that cannot be seen, only those that changed are."""
        before, lines = self._lines_before, tuple(self.document.lines)
        self._lines_before = lines
        if not before:
            self._insides = [Inside.TEXT]
        elif (changed := _changed(before, lines)) is not None:
            known = self._insides
            self._insides = known[: changed[0] + 1]
            end = changed[-1] + 1
            goes_on = end >= len(known) or (end < len(lines) and self._inside_at(end) is known[end])
            if len(before) == len(lines) and goes_on and self._have_room((before[n], lines[n]) for n in changed):
                self._insides = known
                self._forget(changed)
                return
        super()._build_highlight_map()

    def _have_room(self, lines: Iterable[tuple[str, str]]) -> bool:
        """Whether the text is as wide as before, whatever is in these lines."""
        room = max(self.virtual_size.width, self.region.width) - self.gutter_width - 1
        return all(max(cell_len(old.expandtabs(8)), cell_len(new.expandtabs(8))) < room for old, new in lines)

    def _forget(self, line_numbers: range) -> None:
        """Have only these painted again."""
        for key in [*self._line_cache.keys()]:
            if key[_CACHE_LINE] in line_numbers:
                self._line_cache.discard(key)


def _changed(before: Sequence[str], after: Sequence[str]) -> range | None:
    """The lines of `after` from the first to the last that is not as before; None when all are."""
    numbers = range(min(len(before), len(after)))
    first = next((n for n in numbers if before[n] != after[n]), None)
    if len(before) != len(after):
        return range(len(numbers) if first is None else first, len(after))
    if first is None:
        return None
    last = next(n for n in reversed(numbers) if before[n] != after[n])
    return range(first, last + 1)
