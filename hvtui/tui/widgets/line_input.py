"""The one-line input of every dialog and form: what would control the terminal is shown as a harmless sign."""

from __future__ import annotations

from rich.text import Text
from textual.widgets import Input

from host.text import printable

_SIGN = "\N{REPLACEMENT CHARACTER}"


def harmless(text: str) -> str:
    """`text` with a sign for each character that is invisible or controls the terminal; as long as before."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(char if printable(char) == char else _SIGN for char in text)


class HarmlessInput(Input):
    """An Input whose `value` is what was typed or pasted; only its picture is made harmless."""

    @property
    def _value(self) -> Text:
        return Text(harmless(self.value), no_wrap=True, overflow="ignore", end="")


class LineInput(HarmlessInput):
    """Without frame and blinking."""

    DEFAULT_CSS = """
    LineInput.-textual-compact, LineInput.-textual-compact:focus {
        border: none; border-left: blank !important; height: 1; padding: 0 1; background: transparent;
    }
    LineInput.-textual-compact:focus { border-left: wide $accent !important; }
    """

    def __init__(self, value: str = "", *, placeholder: str = "", id: str | None = None) -> None:  # noqa: A002
        super().__init__(value, placeholder=placeholder, id=id, compact=True, select_on_focus=False)
        self.cursor_blink = False

    @property
    def _value(self) -> Text:
        return Text(harmless(self.value), no_wrap=True, overflow="ignore", end="")
