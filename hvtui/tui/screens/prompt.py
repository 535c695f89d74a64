"""One-line questions: a new name, a title, tags, an owner. Returns the answer or None; changes nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import Input, Static

Check = Callable[[str], str]  # an answer -> what is wrong with it, or "" when it is good


class PromptScreen(ModalScreen[str | None]):
    """Asks for one line. `check` is called at every key and its complaint is shown below the line."""

    DEFAULT_CSS = """
    PromptScreen { align: center middle; }
    PromptScreen #frame { width: 100%; max-width: 76; height: auto; border: round $accent; background: $surface; }
    PromptScreen Input { border: none; height: 1; padding: 0 1; background: $boost; }
    PromptScreen #hint { height: auto; padding: 0 1; color: $text-muted; }
    """

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape", "refuse", "back")]

    def __init__(self, question: str, *, value: str = "", hint: str = "", check: Check | None = None) -> None:
        super().__init__()
        self._question = question
        self._value = value
        self._hint = hint
        self._check = check or (lambda _answer: "")

    def compose(self) -> ComposeResult:
        with Vertical(id="frame") as frame:
            frame.border_title = Content(f" {self._question} ")
            yield Input(self._value, id="answer", compact=True)
            yield Static(Content(self._hint or "enter takes it   esc back"), id="hint")

    def on_mount(self) -> None:
        answer = self.query_one("#answer", Input)
        answer.focus()
        answer.cursor_position = len(self._value)

    def on_input_changed(self, message: Input.Changed) -> None:
        complaint = self._check(message.value) if message.value != self._value else ""
        hint = Content.styled(complaint, "$text-warning") if complaint else Content(self._hint)
        self.query_one("#hint", Static).update(hint)

    def on_input_submitted(self, message: Input.Submitted) -> None:
        if not self._check(message.value):
            self.dismiss(message.value)

    def action_refuse(self) -> None:
        self.dismiss(None)
