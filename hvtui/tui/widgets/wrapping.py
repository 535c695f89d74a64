"""Breaks text and coloured spans into lines of so many cells. Pure functions; text is printable already."""

from __future__ import annotations

from collections.abc import Iterable

from rich.cells import cell_len

from hvtui.tui.widgets.lines import Span, width_of


def wrapped(text: str, width: int) -> list[str]:
    """`text` in lines of at most `width` cells, broken at blanks, and inside words that are longer; at least one."""
    width = max(width, 2)
    lines = [""]
    for word in text.split(" "):
        longer = f"{lines[-1]} {word}" if lines[-1] else word
        if cell_len(longer) <= width:
            lines[-1] = longer
            continue
        parts = _chopped(word, width)
        lines = lines + parts if lines[-1] else lines[:-1] + parts
    return lines


def _chopped(word: str, width: int) -> list[str]:
    return ["".join(text for text, _role in line) for line in folded([(word, "")], width)]


def folded(spans: Iterable[Span], width: int) -> list[list[Span]]:
    """Coloured spans in lines of at most `width` cells (at least 2), broken anywhere; at least one line."""
    width = max(width, 2)
    lines: list[list[Span]] = [[]]
    room = width
    for text, role in spans:
        rest = text
        while rest:
            piece = _beginning(rest, room)
            if piece:
                lines[-1].append((piece, role))
                rest = rest[len(piece) :]
                room -= cell_len(piece)
            if rest:
                lines.append([])
                room = width
    return lines


def _beginning(text: str, room: int) -> str:
    """As much of `text` as fits into `room` cells."""
    if text.isascii():
        return text[:room]
    used = 0
    for place, char in enumerate(text):
        used += cell_len(char)
        if used > room:
            return text[:place]
    return text


def flowing(items: Iterable[Span], width: int, *, gap: int = 3) -> list[list[Span]]:
    """Short facts side by side with `gap` cells between them, on as many lines as they need."""
    lines: list[list[Span]] = [[]]
    for text, role in items:
        if lines[-1] and width_of(lines[-1]) + gap + cell_len(text) > width:
            lines.append([])
        if lines[-1]:
            lines[-1].append((" " * gap, "text"))
        lines[-1].append((text, role))
    return lines
