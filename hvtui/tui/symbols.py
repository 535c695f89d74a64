"""The program's symbols, and their ASCII twins for consoles without these glyphs.

Screens are written with the Unicode symbols; `AsciiFilter` rewrites every painted line where the terminal cannot
show them, so no widget has to know. A twin is as wide as its symbol: nothing moves.
"""

from __future__ import annotations

import locale
import os
from collections.abc import Mapping

from rich.segment import Segment
from textual.color import Color
from textual.filter import LineFilter

from host.text import display_width

CURSOR = "▶"
MARK = "✓"
RULE = "─"
NONE = "–"
ATTENTION = "!"
SPARKS = "▁▂▃▄▅▆▇█"
BAR_FULL = "▓"
BAR_EMPTY = "░"
ASCENDING = "↑"
DESCENDING = "↓"

_TWINS = {
    "▶": ">", "✓": "+", "─": "-", "–": "-", "—": "-", "━": "=", "│": "|", "┃": "|", "║": "|", "═": "=",
    "▁": "_", "▂": ".", "▃": ":", "▄": "-", "▅": "=", "▆": "+", "▇": "#", "█": "#", "▓": "#", "░": ".", "▒": "+",
    "●": "*", "○": "o", "◌": "~", "‖": "|", "◐": "%", "×": "x", "☾": "z", "↑": "^", "↓": "v", "←": "<", "→": ">",
    "·": "-", "•": "*", "…": "~", "★": "*", "☆": "-", "▏": "|", "▎": "|", "▌": "|", "▐": "|", "▔": "-", "▀": "-",
    "╭": "+", "╮": "+", "╰": "+", "╯": "+", "┌": "+", "┐": "+", "└": "+", "┘": "+", "├": "+", "┤": "+",
    "┬": "+", "┴": "+", "┼": "+", "╸": "-", "╺": "-", "╹": "|", "╻": "|", "▊": "|", "▍": "|", "▉": "#", "▋": "|",
    "«": "<", "»": ">", "“": '"', "”": '"', "‘": "'", "’": "'", "≤": "<", "≥": ">", "±": "~", "°": "o", "½": "+",
}  # fmt: skip


class AsciiFilter(LineFilter):
    """Paints every line in ASCII: symbols by their twins, any other character as one question mark a cell."""

    def apply(self, segments: list[Segment], background: Color) -> list[Segment]:  # noqa: ARG002 - the interface
        return [Segment(to_ascii(text), style, control) for text, style, control in segments]


def to_ascii(text: str) -> str:
    """`text` in ASCII, exactly as wide."""
    if text.isascii():
        return text
    return "".join(char if char.isascii() else _TWINS.get(char) or "?" * display_width(char) for char in text)


def needs_ascii(environment: Mapping[str, str] | None = None) -> bool:
    """True on a terminal that cannot show the symbols: the Linux console (its font has 256 or 512 glyphs), a dumb or
    VT100-like terminal, or a locale that is not UTF-8."""
    environment = os.environ if environment is None else environment
    if environment.get("TERM", "") in {"linux", "dumb", "vt100", "vt220", "ansi", ""}:
        return True
    chosen = environment.get("LC_ALL") or environment.get("LC_CTYPE") or environment.get("LANG") or ""
    if not chosen:  # nothing set is the C locale, which Python itself treats as UTF-8 (PEP 538)
        return "utf" not in locale.getpreferredencoding(False).lower()
    return "utf" not in chosen.lower()
