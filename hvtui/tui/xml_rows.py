"""XML as coloured rows with line numbers, for reading: only what is looked at is taken to pieces. Pure."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate
from typing import overload

from host.text import printable
from hvtui.tui.widgets.lines import Span
from hvtui.tui.widgets.wrapping import folded
from hvtui.tui.xml_colors import insides, pieces

_LONGEST = 4000  # characters of one line that are shown
Row = Sequence[Span]


class ColoredXml:
    """A text with what each line begins inside of. Making it takes a moment for a long text: on a thread."""

    def __init__(self, xml: str) -> None:
        lines = xml.splitlines()
        self.insides = list(insides(lines))
        self.lines = [line if len(line) <= _LONGEST else f"{line[:_LONGEST]}…" for line in lines]

    def spans(self, index: int) -> list[Span]:
        """One line, harmless, in colours."""
        line = self.lines[index].replace("\t", "    ")
        found, place = [], 0
        for start, end, role in pieces(line, self.insides[index])[0]:
            if start > place:
                found.append((printable(line[place:start]), "text"))
            found.append((printable(line[start:end]), role))
            place = end
        return [*found, (printable(line[place:]), "text")] if place < len(line) else found


class XmlRows(Sequence[Row]):
    """The rows of `xml` at a width, below a row that says what it is; long lines go on under their beginning."""

    def __init__(self, xml: ColoredXml, *, width: int, head: Row) -> None:
        self._xml = xml
        self._gutter = len(str(len(xml.lines))) + 2
        self._room = max(width - self._gutter - 1, 8)
        self._head = head
        self._begins = list(accumulate((self._height(line) for line in xml.lines), initial=1))
        self._line: tuple[int, list[list[Span]]] = (-1, [])

    def _height(self, line: str) -> int:
        if line.isascii() and line.isprintable():
            return max(-(-len(line) // self._room), 1)
        return len(folded([(printable(line.replace("\t", "    ")), "text")], self._room))

    def __len__(self) -> int:
        return self._begins[-1]

    @overload
    def __getitem__(self, place: int) -> Row: ...

    @overload
    def __getitem__(self, place: slice) -> Sequence[Row]: ...

    def __getitem__(self, place: int | slice) -> Row | Sequence[Row]:
        if isinstance(place, slice):
            return [self[each] for each in range(*place.indices(len(self)))]
        if not 0 <= place < len(self):
            raise IndexError(place)
        if place == 0:
            return self._head
        index = bisect_right(self._begins, place) - 1
        if self._line[0] != index:
            self._line = (index, folded(self._xml.spans(index), self._room))
        within = place - self._begins[index]
        number = f"{index + 1:>{self._gutter}} " if within == 0 else " " * (self._gutter + 1)
        return [(number, "faint"), *self._line[1][within]]
