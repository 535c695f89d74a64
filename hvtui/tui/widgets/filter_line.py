"""The filter line: filters as one types, forgives what is not finished. Enter keeps the filter (a wrong one is not
taken), esc clears it."""

from __future__ import annotations

import re
from typing import ClassVar

from textual import events
from textual.binding import Binding, BindingType
from textual.message import Message
from textual.widgets import Input

from host.errors import UsageError
from hvtui.tui.widgets.line_input import HarmlessInput
from vm.filter import KEYS, Filter, parse

# A longer word of this form is found in no more names than a shorter one; keys, signs and globs can widen a filter.
_PLAIN_WORD = re.compile(r"[\w.]+(-[\w.]+)*-?")


class FilterLine(HarmlessInput):
    """Hidden until opened. While it has the focus, the arrow keys still move in the list."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "keep", "keep", show=False, priority=True),  # what is typed after it is for the list
        Binding("escape", "clear", "clear", show=False),
    ]

    class Narrowed(Message):
        """The filter changed; None shows everything. `refines`: it can only let through fewer than the one before."""

        def __init__(self, wanted: Filter | None, *, refines: bool) -> None:
            super().__init__()
            self.wanted = wanted
            self.refines = refines

    class Puzzled(Message):
        """What is typed is no filter: what the list shows is not its answer. Empty when it is fine again. `refused`
        when enter was pressed on it."""

        def __init__(self, complaint: str, *, refused: bool = False) -> None:
            super().__init__()
            self.complaint = complaint
            self.refused = refused

    class Closed(Message):
        """The line gave the focus back."""

    class Moved(Message):
        """An arrow key, for the list."""

        def __init__(self, by: int) -> None:
            super().__init__()
            self.by = by

    def __init__(self) -> None:
        super().__init__(
            id="filter", compact=True, placeholder="name  state:running  tag:web  cpu>50", select_on_focus=False
        )
        self.cursor_blink = False
        self.display = False
        self._parsed = ""  # the text of the filter that is in force

    def open(self) -> None:
        """Show the line and take the focus."""
        self.display = True
        self.screen.set_focus(self)  # at once: the next key may be here already

    def wipe(self) -> None:
        """Show everything again."""
        self.value = ""

    def on_input_changed(self, message: Input.Changed) -> None:
        message.stop()
        text = message.value.strip()
        try:
            wanted = parse(text, lenient=True) if text else None
        except UsageError as error:
            self.post_message(self.Puzzled(_complaint(error)))
            return
        self.post_message(self.Puzzled(""))
        refines = bool(self._parsed) and text.startswith(self._parsed) and _PLAIN_WORD.fullmatch(text) is not None
        self._parsed = text
        self.post_message(self.Narrowed(wanted, refines=refines))

    def on_key(self, event: events.Key) -> None:
        by = {"up": -1, "down": 1}.get(event.key)
        if by is not None:
            event.stop()
            self.post_message(self.Moved(by))

    def action_keep(self) -> None:
        """Close the line, unless what stands in it is wrong or not finished: it would hide nothing, or too much."""
        try:
            parse(self.value.strip())
        except UsageError as error:
            self.post_message(self.Puzzled(_complaint(error), refused=True))
            return
        self._close()

    def action_clear(self) -> None:
        self.value = ""
        self._close()

    def _close(self) -> None:
        self.screen.set_focus(None)
        self.display = False
        self.post_message(self.Closed())


def _complaint(error: UsageError) -> str:
    """What is wrong, what may have been meant, and which keys there are."""
    keys = f" Keys: {', '.join(KEYS)}" if "there is no key" in error.cause and "Known:" not in error.remedy else ""
    return f"{error}{keys}"
