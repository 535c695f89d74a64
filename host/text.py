"""Makes text that a guest, a file or another administrator wrote harmless to show.

Names, descriptions, agent data and error messages are hostile: they may hold escape sequences, newlines,
bidirectional overrides or ten thousand characters. Everything shown in a list, a dialog, a log or an error
goes through `printable` once, at the place where it is shown. JSON output keeps the true value (json escapes it).
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable

_ESCAPES = {"\n": "\\n", "\r": "\\r", "\t": "\\t", "\x1b": "\\e"}
# Cc control, Cf format (bidi overrides, zero width), Cs lone surrogates, Co private use, Zl/Zp line separators.
_HIDDEN = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}


def printable(text: str, *, limit: int | None = None) -> str:
    """`text` on one line with every invisible or controlling character made visible (ESC as \\e, others as \\xNN
    or \\uNNNN), cut to `limit` characters with an ellipsis."""
    cut = text if limit is None else text[: limit + 1]
    harmless = cut.isascii() and cut.isprintable()
    shown = cut if harmless else "".join(_visible(char) for char in cut)
    if limit is not None and len(shown) > limit:
        shown = shown[: max(limit - 1, 0)] + "…"
    return shown


def _visible(char: str) -> str:
    if char in _ESCAPES:
        return _ESCAPES[char]
    if unicodedata.category(char) not in _HIDDEN:
        return char
    code = ord(char)
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def did_you_mean(word: str, known: Iterable[str], *, otherwise: str = "") -> str:
    """ "Did you mean X?" with the nearest of the `known` words, which are harmless to show; `otherwise`, or the list of
    them, where none is near."""
    from difflib import get_close_matches  # here: it is needed only where something is wrong already

    words = [each for each in known if each]
    near = get_close_matches(word[:80].casefold(), words, n=1, cutoff=0.5)
    return f"Did you mean {near[0]}?" if near else otherwise or f"Known: {', '.join(words)}"


def display_width(text: str) -> int:
    """The number of terminal cells that `text` (already printable) takes: wide and full-width characters take two,
    combining marks none."""
    if text.isascii():
        return len(text)
    return sum(_cell_width(char) for char in text)


def _cell_width(char: str) -> int:
    if unicodedata.combining(char) or unicodedata.category(char) in {"Mn", "Me"}:
        return 0
    return 2 if unicodedata.east_asian_width(char) in {"W", "F"} else 1


def fit(text: str, width: int, *, right: bool = False) -> str:
    """`text` cut or padded to exactly `width` cells; an ellipsis marks a cut. `right` aligns to the right."""
    if display_width(text) > width:
        kept = ""
        used = 0
        for char in text:
            if used + _cell_width(char) > width - 1:
                break
            kept += char
            used += _cell_width(char)
        text = kept + "…" if width else ""
    padding = " " * (width - display_width(text))
    return padding + text if right else text + padding
