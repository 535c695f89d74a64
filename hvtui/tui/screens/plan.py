"""The confirm dialog: shows plans before anything happens and returns whether to run them. Runs nothing itself."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import ClassVar

from textual import events
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, VerticalScroll
from textual.content import Content
from textual.widget import Widget
from textual.widgets import Input, Static

from host.plan import Plan, PlanSet
from host.text import printable
from hvtui.same_as import command_lines, set_command_line
from hvtui.tui import keymap, plan_text
from hvtui.tui.remedies import Remedy, remedies
from hvtui.tui.screens.dialog import Dialog
from hvtui.tui.widgets.line_input import LineInput
from hvtui.tui.widgets.page import Page, Row, row


class PlanScreen(Dialog[bool]):
    """Shows one or more plans. Dismisses with True when the runnable ones are to be run; with False and `remedy` when
    the key of a remedy was pressed, which the caller then proposes."""

    DEFAULT_CSS = """
    PlanScreen #confirm { height: 1; margin-top: 1; }
    PlanScreen #confirm Static { width: auto; margin-left: 5; }
    PlanScreen #typed { width: 1fr; margin: 0 1; }
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "accept", "do it"),
        Binding("d", "details", "details and XML diff"),
        Binding("y", "copy", "copy command"),
        Binding("escape,q", "refuse", "back"),
    ]

    def __init__(self, plans: Sequence[Plan], *, left_out: str = "") -> None:
        super().__init__()
        self._left_out = left_out
        self.plans = tuple(plans)
        self.runnable = tuple(plan for plan in self.plans if not plan.blockers)
        self.must_type = plan_text.typed_confirmation(self.plans) if self.runnable else None
        self.remedy: Remedy | None = None
        self._remedies = remedies(self.plans)
        self._shows_details = False
        self.lines_below = 2 if self.must_type is not None else 0
        self.set_class(self.must_type is not None, "-danger")

    def title_text(self) -> str:
        return plan_text.title_of(self.plans)

    def body(self) -> Iterable[Widget]:
        yield VerticalScroll(Page(self._rows(), id="text"), id="body")
        if self.must_type is not None:
            words = Content.assemble("type ", (self.must_type, "bold $text-error"), " to do it:")
            yield Horizontal(Static(words), LineInput(id="typed"), id="confirm")

    def on_mount(self) -> None:
        self.query_one("#typed" if self.must_type is not None else "#body").focus()

    def on_descendant_focus(self) -> None:
        self.show_frame()

    def hints(self) -> Sequence[tuple[str, str]]:
        hints: list[tuple[str, str]] = []
        if not self._is_typing:
            offered = {each.blocker_id: each for each in self._remedies.values()}
            hints += [(keymap.shown_key(each.action), each.words) for each in list(offered.values())[:2]]
        if self.runnable:
            rest = len(self.runnable) < len(self.plans)
            hints.append(("enter", f"do the other {len(self.runnable)}" if rest else "do it"))
        if self.query_one("#body", VerticalScroll).max_scroll_y:
            hints.append(("↑↓", "scroll"))
        if self._is_typing:
            hints.append(("tab", "other keys"))
        else:
            diff = "details and XML" if plan_text.has_xml(self.plans) else "details"
            hints += [("d", "summary" if self._shows_details else diff), ("y", "copy command")]
            if self.must_type is not None:
                hints.append(("tab", "type"))
        return (*hints, ("esc", "back"))

    def on_key(self, event: events.Key) -> None:
        """A key that removes a blocker leaves the dialog: the caller does that for the VMs it belongs to."""
        remedy = self._remedies.get(event.key)
        if remedy is not None and not self._is_typing:
            event.stop()
            self.remedy = remedy
            self.dismiss(False)

    def on_input_changed(self) -> None:
        self.show_frame()

    def on_input_submitted(self) -> None:
        self.action_accept()

    def action_accept(self) -> None:
        """Run the plans, once the typed confirmation (if one is asked for) is right."""
        if not self.runnable:
            self.warn("nothing here can run yet: esc goes back")
        elif self.must_type is not None and self.query_one("#typed", Input).value != self.must_type:
            self.query_one("#typed").focus()
            self.warn(f"type {self.must_type} first, exactly as it stands there")
        else:
            self.dismiss(True)

    def action_refuse(self) -> None:
        self.dismiss(False)

    def action_details(self) -> None:
        """Switch between the summary and the commands with the XML diff."""
        self._shows_details = not self._shows_details
        self.query_one("#text", Page).show(self._rows())
        self.query_one("#body", VerticalScroll).scroll_home(animate=False)
        self.call_after_refresh(self.show_frame)

    def action_copy(self) -> None:
        """Put the equivalent commands on the clipboard (OSC 52: it works over ssh where the terminal allows it)."""
        self.app.copy_to_clipboard("\n".join(command_lines(self.plans)))
        self.warn("sent to the terminal's clipboard")

    @property
    def _is_typing(self) -> bool:
        return isinstance(self.focused, Input)

    def _rows(self) -> list[Row]:
        if self._shows_details:
            return plan_text.details_rows(self.plans)
        rows = plan_text.plan_rows(self.plans[0]) if len(self.plans) == 1 else plan_text.plans_rows(self.plans)
        return [row(self._left_out, style="$text-warning", indent=1), row(), *rows] if self._left_out else rows


class PlanSetScreen(PlanScreen):
    """Shows a set of plans as one thing: it runs as a whole or not at all."""

    def __init__(self, plan_set: PlanSet) -> None:
        self._plan_set = plan_set
        super().__init__((*plan_set.preparations, *plan_set.plans))
        self._remedies = {}
        if plan_set.all_blockers:
            self.runnable, self.must_type = (), None
            self.lines_below = 0
            self.remove_class("-danger")

    def title_text(self) -> str:
        return printable(self._plan_set.title, limit=60)

    def action_copy(self) -> None:
        """Put the equivalent command on the clipboard."""
        self.app.copy_to_clipboard(set_command_line(self._plan_set))
        self.warn("sent to the terminal's clipboard")

    def _rows(self) -> list[Row]:
        if self._shows_details:
            return plan_text.plan_set_details(self._plan_set)
        return plan_text.plan_set_rows(self._plan_set)
