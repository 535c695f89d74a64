"""One choice out of a few, on one line: the arrow keys left and right change it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from textual import events
from textual.binding import Binding, BindingType
from textual.content import Content
from textual.message import Message
from textual.widget import Widget

from host.text import display_width, fit


class Chooser(Widget, can_focus=True):
    """Shows the chosen one of (shown, value) pairs. `value` is the second part."""

    DEFAULT_CSS = """
    Chooser { height: 1; width: 1fr; padding: 0 1; border-left: blank; }
    Chooser:focus { border-left: wide $accent; }
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("right,space,l", "change(1)", show=False),
        Binding("left,h", "change(-1)", show=False),
    ]

    class Changed(Message):
        """Another one was chosen."""

        def __init__(self, chooser: Chooser) -> None:
            super().__init__()
            self.chooser = chooser

    def __init__(self, choices: Sequence[tuple[str, str]], value: str, *, id: str | None = None) -> None:  # noqa: A002
        super().__init__(id=id)
        self._choices = tuple(choices)
        self._place = [choice for _shown, choice in self._choices].index(value)

    @property
    def value(self) -> str:
        return self._choices[self._place][1]

    def choose(self, value: str) -> None:
        """Choose that value. Raises ValueError for one that is not offered."""
        self._place = [choice for _shown, choice in self._choices].index(value)
        self.refresh()
        self.post_message(self.Changed(self))

    def offer(self, choices: Sequence[tuple[str, str]], value: str) -> None:
        """Offer these from now on, with `value` chosen, or the first one where that is not among them."""
        self._choices = tuple(choices)
        values = [choice for _shown, choice in self._choices]
        self.choose(value if value in values else values[0])

    def on_key(self, event: events.Key) -> None:
        """Letters belong to the form, as in its text fields: none of them is a key of the program here."""
        if event.is_printable and event.key not in {"space", "h", "l"}:
            event.stop()
            event.prevent_default()

    def action_change(self, by: int) -> None:
        self.choose(self._choices[(self._place + by) % len(self._choices)][1])

    def render(self) -> Content:
        count = f"  {self._place + 1} of {len(self._choices)}"
        arrows = "bold $accent" if self.has_focus else "$text-disabled"
        shown = self._choices[self._place][0]
        if display_width(shown) > self.size.width - 4:
            shown = fit(shown, max(self.size.width - 4, 1)).rstrip()
        room = self.size.width - len(shown) - 4 - len(count)
        parts = (("< ", arrows), shown, (" >", arrows))
        return Content.assemble(*parts, (" " * room + count, "$text-muted")) if room >= 0 else Content.assemble(*parts)
