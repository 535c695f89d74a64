"""One-line questions: a new name, a title, tags. Returns the answer or None; changes nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import ClassVar

from textual.binding import Binding, BindingType
from textual.widget import Widget
from textual.widgets import Input

from hvtui.tui.screens.dialog import Dialog
from hvtui.tui.widgets.line_input import LineInput
from hvtui.tui.widgets.page import Page, row

Check = Callable[[str], str]  # an answer -> what is wrong with it, or "" when it is good


class PromptScreen(Dialog[str | None]):
    """Asks for one line. `check` is called at every key and its complaint is shown below the line."""

    DEFAULT_CSS = """
    PromptScreen #frame { max-width: 76; padding: 0 1; }
    PromptScreen #hint { height: auto; padding: 0 2; }
    """

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape", "refuse", "back")]

    def __init__(self, question: str, *, value: str = "", hint: str = "", check: Check | None = None) -> None:
        super().__init__()
        self._question = question
        self._value = value
        self._hint = hint
        self._check = check or (lambda _answer: "")

    def title_text(self) -> str:
        return self._question

    def hints(self) -> Sequence[tuple[str, str]]:
        return (("enter", "take it"), ("esc", "back"))

    def body(self) -> Iterable[Widget]:
        yield LineInput(self._value, id="answer")
        yield Page([row(self._hint, style="$text-muted", indent=0)], id="hint")

    def on_mount(self) -> None:
        self.query_one("#answer", Input).focus()

    def on_input_changed(self, message: Input.Changed) -> None:
        complaint = self._check(message.value) if message.value != self._value else ""
        told = (
            row(complaint, style="$text-warning", indent=0)
            if complaint
            else row(self._hint, style="$text-muted", indent=0)
        )
        self.query_one("#hint", Page).show([told])

    def on_input_submitted(self, message: Input.Submitted) -> None:
        if not self._check(message.value):
            self.dismiss(message.value)

    def action_refuse(self) -> None:
        self.dismiss(None)
