"""A list of lines with a cursor for screens of at most some hundred rows (jobs, events). For VMs see grid.py."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import ClassVar

from rich.segment import Segment
from textual import events
from textual.binding import Binding, BindingType
from textual.content import Content
from textual.strip import Strip
from textual.widgets import OptionList
from textual.widgets.option_list import Option

from hvtui.tui.symbols import CURSOR
from hvtui.tui.themes import palette

SPARE_CELLS = 2  # at the right of a row: one blank, and the scroll bar's place, which is kept free without one
Line = Callable[[int], Content]  # the row's text for a width in cells


class ChoiceList(OptionList):
    """Rows by key; the cursor stays on its key when rows are added, and only changed rows are painted again."""

    DEFAULT_CSS = """
    ChoiceList { border: none; padding: 0; background: transparent; scrollbar-size-vertical: 1; }
    ChoiceList > .option-list--option-highlighted { text-style: none; }
    ChoiceList:focus > .option-list--option-highlighted { text-style: none; }
    ChoiceList:focus { border: none; background-tint: transparent; }
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("j", "cursor_down", show=False),
        Binding("k", "cursor_up", show=False),
        Binding("g", "first", show=False),
        Binding("G", "last", show=False),
    ]

    def __init__(self, *, id: str | None = None) -> None:  # noqa: A002 - Textual's own name
        super().__init__(id=id, markup=False)
        self._rows: dict[str, Line] = {}
        self._painted: dict[str, Content] = {}

    @property
    def chosen(self) -> str | None:
        """The key under the cursor; None for an empty list."""
        if self.highlighted is None:
            return None
        return self.get_option_at_index(self.highlighted).id

    def show_rows(self, rows: Sequence[tuple[str, Line]]) -> None:
        """Replace the rows; the first one gets the cursor when its key is gone."""
        before = self.chosen
        self._rows = dict(rows)
        width = max(self.outer_size.width - SPARE_CELLS, 20)
        lines = {key: line(width) for key, line in rows}
        if list(lines) == list(self._painted):
            for key, content in lines.items():
                if not content.is_same(self._painted[key]):
                    self.replace_option_prompt(key, content)
        else:
            self.clear_options()
            self.add_options([Option(content, id=key) for key, content in lines.items()])
            if lines:
                keys = list(lines)
                self.highlighted = keys.index(before) if before in lines else 0
        self._painted = lines

    def render_line(self, y: int) -> Strip:
        """The row under the cursor with the cursor's sign in its first cell; in reverse video where the theme has no
        colour for it: what is dim or coloured would sink into that."""
        strip = super().render_line(y)
        colors = palette(self.app.theme)
        if y + self.scroll_offset.y != self.highlighted or not strip.text.startswith(" "):
            return strip
        if colors.colors.cursor:
            return Strip.join([Strip([Segment(CURSOR, colors.style("accent", cursor=True))], 1), strip.crop(1)])
        return Strip([Segment(CURSOR + strip.text[1:], colors.style("text", cursor=True))], strip.cell_length)

    def on_resize(self, _event: events.Resize) -> None:
        self.show_rows(list(self._rows.items()))
