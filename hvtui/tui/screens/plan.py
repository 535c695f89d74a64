"""The confirm dialog: shows plans before anything happens and returns whether to run them. Runs nothing itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical, VerticalScroll
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import Input, Static

from host.plan import Plan
from hvtui.tui import plan_text


class PlanScreen(ModalScreen[bool]):
    """Shows one or more plans. Dismisses with True when the runnable ones are to be run."""

    DEFAULT_CSS = """
    PlanScreen { align: center middle; }
    PlanScreen #frame {
        width: 100%; max-width: 110; height: auto; max-height: 100%;
        border: round $accent; border-title-style: bold; background: $surface; padding: 0 1;
    }
    PlanScreen.-danger #frame { border: round $error; }
    PlanScreen #body { height: auto; max-height: 1fr; scrollbar-size-vertical: 1; }
    PlanScreen #typed { border: none; height: 1; margin: 1 2 0 2; padding: 0 1; background: $boost; }
    PlanScreen #keys { height: 1; margin-top: 1; color: $text-muted; }
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "accept", "do it"),
        Binding("d", "details", "details and XML diff"),
        Binding("y", "copy", "copy command"),
        Binding("escape,q", "refuse", "back"),
        Binding("j,down", "scroll(1)", show=False),
        Binding("k,up", "scroll(-1)", show=False),
    ]

    def __init__(self, plans: Sequence[Plan]) -> None:
        super().__init__()
        self.plans = tuple(plans)
        self.runnable = tuple(plan for plan in self.plans if not plan.blockers)
        self.must_type = plan_text.typed_confirmation(self.plans) if self.runnable else None
        self._shows_details = False
        self.set_class(self.must_type is not None, "-danger")

    def compose(self) -> ComposeResult:
        with Vertical(id="frame") as frame:
            frame.border_title = Content(f" {plan_text.title_of(self.plans)} ")
            with VerticalScroll(id="body", can_focus=False):
                yield Static(self._summary(), id="text")
            if self.must_type is not None:
                yield Input(placeholder=f"type {self.must_type} to confirm", id="typed", compact=True)
            yield Static(self._keys(), id="keys")

    def on_mount(self) -> None:
        if self.must_type is not None:
            self.query_one("#typed", Input).focus()

    def on_input_submitted(self) -> None:
        self.action_accept()

    def action_accept(self) -> None:
        """Run the plans, once the typed confirmation (if one is asked for) is right."""
        if not self.runnable:
            self._say("nothing here can run: esc goes back")
        elif self.must_type is not None and self.query_one("#typed", Input).value != self.must_type:
            self._say(f"type {self.must_type} first, exactly; esc goes back")
        else:
            self.dismiss(True)

    def action_refuse(self) -> None:
        self.dismiss(False)

    def action_details(self) -> None:
        """Switch between the summary and the commands with the XML diff."""
        self._shows_details = not self._shows_details
        text = plan_text.details_content(self.plans) if self._shows_details else self._summary()
        self.query_one("#text", Static).update(text)

    def action_copy(self) -> None:
        """Put the equivalent commands on the clipboard (OSC 52: it works over ssh where the terminal allows it)."""
        self.app.copy_to_clipboard("\n".join(plan_text.equivalent_command(plan) for plan in self.plans))
        self._say("the command was sent to the terminal's clipboard")

    def action_scroll(self, lines: int) -> None:
        self.query_one("#body", VerticalScroll).scroll_relative(y=lines, animate=False)

    def _summary(self) -> Content:
        if len(self.plans) == 1:
            return plan_text.plan_content(self.plans[0])
        return plan_text.plans_content(self.plans)

    def _keys(self) -> Content:
        some = f" the other {len(self.runnable)}" if 0 < len(self.runnable) < len(self.plans) else " it"
        accept = f"enter do{some}   " if self.runnable else ""
        others = "d details and XML diff   y copy command   "
        return Content(f"{accept}{'tab, then ' if self.must_type is not None else ''}{others}esc back")

    def _say(self, text: str) -> None:
        self.query_one("#keys", Static).update(Content.styled(text, "$text-warning"))
