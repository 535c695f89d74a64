"""The create form: one page with sane defaults and a live preview of the plan. The plan dialog does the rest."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import ClassVar

from textual import on
from textual.binding import Binding, BindingType
from textual.containers import Container, Horizontal, VerticalScroll
from textual.widget import Widget
from textual.widgets import Input, Label

from host.errors import HvtuiError
from host.plan import Plan
from host.text import printable
from hvtui.tui import plan_text
from hvtui.tui.create_form import FIELDS, SUGGESTED, Field, key_of_label, request_from
from hvtui.tui.key_words import in_keys
from hvtui.tui.screens.base import HvtuiScreen
from hvtui.tui.widgets.chooser import Chooser
from hvtui.tui.widgets.line_input import LineInput
from hvtui.tui.widgets.page import Page, Row, row
from vm.create_request import SourceKind

_PREVIEW_DELAY_S = 0.2  # typing must not ask the host at every key
_NOT_YET = (
    row("Give it a name: what will be made stands here.", style="$text-muted", indent=2),
    row("↑↓ tab enter  another field     ←→  another choice", style="$text-muted", indent=2),
)
_MOVES = (
    ("down", "app.focus_next"),
    ("up", "app.focus_previous"),
    ("tab", "app.focus_next"),
    ("shift+tab", "app.focus_previous"),
)
_INITIAL = {field.key: field.value for field in FIELDS}
_LOOKING = (row("looking at what the host can do …", style="$text-muted", indent=2),)


class CreateScreen(HvtuiScreen):
    """Fields above (at the left on wide terminals), what will be done below (at the right)."""

    SCOPES: ClassVar[tuple[str, ...]] = ("create",)
    IS_TYPED_INTO = True
    HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (120, "-wide")]  # noqa: RUF012 - Textual declares it so
    DEFAULT_CSS = """
    CreateScreen #title { height: 1; }
    CreateScreen #panes { height: 1fr; }
    CreateScreen #form { height: auto; max-height: 12; padding: 0 1 0 2; scrollbar-size-vertical: 1; }
    CreateScreen #preview { height: 1fr; border-top: solid $text-disabled; scrollbar-size-vertical: 1; }
    CreateScreen.-wide #panes { layout: horizontal; }
    CreateScreen.-wide #form { width: 50%; height: 1fr; max-height: 100%; padding: 1 1 0 2; }
    CreateScreen.-wide #preview { width: 50%; height: 1fr; border-top: none; border-left: solid $text-disabled;
        padding: 1 0 0 0; }
    CreateScreen .field { height: 1; }
    CreateScreen.-wide .field { margin-bottom: 1; }
    CreateScreen .field.-hidden { display: none; }
    CreateScreen .field Label { width: 12; color: $text-muted; }
    CreateScreen .field.-wrong Label { color: $text-error; text-style: bold; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [Binding(key, action, show=False) for key, action in _MOVES]

    def __init__(self) -> None:
        super().__init__()
        # keymap.bindings_for replaced the bindings of the class: the form's own come back here.
        for key, action in _MOVES:
            self._bindings.bind(key, action, show=False)
        self._has_preview = False
        self._warned_of: dict[str, str] = {}  # the answers that the first esc warned of
        self._typed: set[str] = set()  # fields the user has changed: suggestions leave them alone

    def body(self) -> Iterable[Widget]:
        yield Page([row("New virtual machine", style="bold", indent=1)], id="title")
        yield Container(
            VerticalScroll(*(_row(field) for field in FIELDS), id="form", can_focus=False),
            VerticalScroll(Page(_NOT_YET, id="plan"), id="preview", can_focus=False),
            id="panes",
        )

    def on_mount(self) -> None:
        self._preview_timer = self.set_timer(_PREVIEW_DELAY_S, self._preview)
        self._show_fields()
        self.query_one("#name", Input).focus()

    @on(Input.Changed)
    def _input_changed(self, message: Input.Changed) -> None:
        if message.input.has_focus and message.input.id is not None:
            self._typed.add(message.input.id)
        self._preview_soon()

    @on(Chooser.Changed)
    def _choice_changed(self, message: Chooser.Changed) -> None:
        if message.chooser.id == "source":
            self._suggest()
            self._show_fields()
        self._preview_soon()

    @on(Input.Submitted)
    def _submitted(self, message: Input.Submitted) -> None:
        if message.input.id != "command":
            self.focus_next()

    async def submit(self) -> None:
        """Show the plan and, when it is accepted, make the VM; the form stays open while something is wrong."""
        self._preview_timer.stop()
        try:
            plan = await self._plan()
        except HvtuiError as error:
            self._show_problem(error)
            self.say(str(error), "bad")
            self._go_to_problem(error)
            return
        self._show_plan(plan)
        if plan.blockers:
            self.say(f"cannot be made yet: {plan.blockers[0].reason}", "bad")
            return
        await self.hvtui.propose([plan], done="made", ask=True, accepted=lambda: self.hvtui.go("fleet"))

    def leave(self) -> None:
        """Go back; a filled form is given up only at the second press."""
        if self._may_be_lost("esc"):
            self.hvtui.back()

    def may_quit(self) -> bool:
        return self._may_be_lost("the same key")

    def _may_be_lost(self, key: str) -> bool:
        values = self._values()
        if values in (_INITIAL, self._warned_of):
            return True
        self._warned_of = values
        self.say(f"not made yet: {key} again gives the form up, ctrl+s shows the plan", "warn")
        return False

    def _values(self) -> dict[str, str]:
        values = {}
        for field in FIELDS:
            widget = self.query_one(f"#{field.key}")
            values[field.key] = widget.value if isinstance(widget, Input | Chooser) else ""
        return values

    @property
    def _source(self) -> SourceKind:
        return SourceKind(self.query_one("#source", Chooser).value)

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
        if not self.query_one("#name", Input).value.strip():
            self._show(_NOT_YET)
            self._has_preview = False
            return
        if not self._has_preview:
            self._show(_LOOKING)  # only the first time: what stands there is right until the next plan is
            self._has_preview = True
        try:
            self._show_plan(await self._plan())
        except HvtuiError as error:
            self._show_problem(error)

    def _show_plan(self, plan: Plan) -> None:
        self._show(plan_text.plan_rows(plan))

    def _show_problem(self, error: HvtuiError) -> None:
        about = f"{error.about}: " if error.about else ""
        rows = [row(printable(f"{about}{error.cause}", limit=400), mark="×", style="$text-error")]
        rows += [row(printable(in_keys(error.remedy), limit=400), style="$text-muted")] if error.remedy else []
        self._show(rows, wrong=key_of_label(error.about))

    def _show(self, rows: Sequence[Row], *, wrong: str | None = None) -> None:
        for field in FIELDS:
            self.query_one(f"#row-{field.key}").set_class(field.key == wrong, "-wrong")
        self.query_one("#plan", Page).show(rows)

    def _go_to_problem(self, error: HvtuiError) -> None:
        if (key := key_of_label(error.about)) is not None:
            self.query_one(f"#{key}").focus()


def _row(field: Field) -> Widget:
    return Horizontal(Label(field.label), _widget(field), classes="field", id=f"row-{field.key}")


def _widget(field: Field) -> Widget:
    if field.choices:
        return Chooser(field.choices, field.value, id=field.key)
    return LineInput(field.value, placeholder=field.hint, id=field.key)
