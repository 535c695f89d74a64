"""The create form: one page with sane defaults and a live preview of the plan. The plan dialog does the rest."""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

from textual.containers import Container, Horizontal, VerticalScroll
from textual.content import Content
from textual.widget import Widget
from textual.widgets import Input, Label, Select, Static

from host.errors import HvtuiError
from host.plan import Plan
from hvtui.tui import plan_text
from hvtui.tui.create_form import FIELDS, SUGGESTED, Field, request_from
from hvtui.tui.screens.base import HvtuiScreen
from vm.create_request import SourceKind

_PREVIEW_DELAY_S = 0.3  # typing must not ask the host at every key


class CreateScreen(HvtuiScreen):
    """Fields above (at the left on wide terminals), what will be done below (at the right)."""

    SCOPES: ClassVar[tuple[str, ...]] = ("create",)
    HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (120, "-wide")]  # noqa: RUF012 - Textual declares it so
    DEFAULT_CSS = """
    CreateScreen #panes { height: 1fr; }
    CreateScreen #form { height: 12; padding: 0 1; scrollbar-size-vertical: 1; }
    CreateScreen #preview { height: 1fr; border-top: solid $panel; scrollbar-size-vertical: 1; }
    CreateScreen.-wide #panes { layout: horizontal; }
    CreateScreen.-wide #form { width: 50%; height: 1fr; }
    CreateScreen.-wide #preview { width: 50%; height: 1fr; border-top: none; border-left: solid $panel; }
    CreateScreen .field { height: 1; }
    CreateScreen .field.-hidden { display: none; }
    CreateScreen .field Label { width: 12; color: $text-muted; }
    CreateScreen .field Input { width: 1fr; border: none; height: 1; padding: 0 1; background: $boost; }
    CreateScreen .field Select { width: 1fr; height: 1; }
    """

    def __init__(self) -> None:
        super().__init__()
        self._typed: set[str] = set()  # fields the user has changed: suggestions leave them alone

    def body(self) -> Iterable[Widget]:
        rows = [
            Horizontal(Label(field.label), _widget(field), classes="field", id=f"row-{field.key}") for field in FIELDS
        ]
        yield Container(
            VerticalScroll(*rows, id="form", can_focus=False),
            VerticalScroll(Static(id="plan"), id="preview", can_focus=False),
            id="panes",
        )

    def on_mount(self) -> None:
        self._preview_timer = self.set_timer(_PREVIEW_DELAY_S, self._preview)
        self._show_fields()
        self.query_one("#name", Input).focus()

    def on_input_changed(self, message: Input.Changed) -> None:
        if message.input.has_focus and message.input.id is not None:
            self._typed.add(message.input.id)
        self._preview_soon()

    def on_select_changed(self, message: Select.Changed) -> None:
        if message.select.id == "source":
            self._suggest()
            self._show_fields()
        self._preview_soon()

    def on_input_submitted(self) -> None:
        self.focus_next()

    async def submit(self) -> None:
        """Show the plan and, when it is accepted, make the VM; the form stays open while something is wrong."""
        try:
            plan = await self._plan()
        except HvtuiError as error:
            self.say(str(error), "bad")
            return
        self._preview_timer.stop()
        if plan.blockers:
            self.query_one("#plan", Static).update(plan_text.plan_content(plan))
            self.say(f"cannot be made yet: {plan.blockers[0].reason}", "bad")
            return
        name = plan.vm_name or "the VM"
        self.hvtui.run_worker(self.hvtui.propose([plan], done="made"), group="create")
        self.hvtui.say(f"making {name}")

    def leave(self) -> None:
        self.dismiss()

    @property
    def _source(self) -> SourceKind:
        return SourceKind(self._values()["source"])

    def _values(self) -> dict[str, str]:
        values = {}
        for field in FIELDS:
            widget = self.query_one(f"#{field.key}")
            values[field.key] = widget.value if isinstance(widget, Input) else str(_selected(widget))
        return values

    async def _plan(self) -> Plan:
        from vm.create import plan_create

        request = request_from(self._values())
        return await self.hvtui.bridge.call(plan_create, self.hvtui.services.host, request)

    def _suggest(self) -> None:
        for key, value in SUGGESTED[self._source].items():
            if key not in self._typed:
                self.query_one(f"#{key}", Input).value = value

    def _show_fields(self) -> None:
        source = self._source
        for field in FIELDS:
            self.query_one(f"#row-{field.key}").set_class(not field.applies_to(source), "-hidden")

    def _preview_soon(self) -> None:
        self._preview_timer.stop()
        self._preview_timer = self.set_timer(_PREVIEW_DELAY_S, self._preview)

    def _preview(self) -> None:
        self.run_worker(self._show_preview(), exclusive=True, group="preview")

    async def _show_preview(self) -> None:
        try:
            content = plan_text.plan_content(await self._plan())
        except HvtuiError as error:
            content = Content.styled(f"  {error}", "$text-muted")
        self.query_one("#plan", Static).update(content)


def _row(field: Field) -> Widget:
    return Horizontal(Label(field.label), _widget(field), classes="field", id=f"row-{field.key}")


def _widget(field: Field) -> Widget:
    if field.choices:
        return Select(field.choices, value=field.value, allow_blank=False, compact=True, id=field.key)
    return Input(field.value, placeholder=field.hint, compact=True, id=field.key)


def _selected(widget: Widget) -> object:
    return widget.value if isinstance(widget, Select) else ""
