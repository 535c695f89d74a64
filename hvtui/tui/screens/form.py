"""What every form shares: a page of fields, a live preview of the plan, and one key that shows it in the dialog.

A form makes nothing: its plan goes through the app's confirm dialog.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import ClassVar, Generic, TypeVar

from textual import on
from textual.binding import Binding, BindingType
from textual.containers import Container, Horizontal, VerticalScroll
from textual.widget import Widget
from textual.widgets import Input, Label

from host.errors import HvtuiError
from host.plan import Plan, PlanSet
from host.text import printable
from hvtui.tui import plan_text
from hvtui.tui.form_fields import Field, NotYet
from hvtui.tui.key_words import in_keys
from hvtui.tui.screens.base import HvtuiScreen
from hvtui.tui.widgets.chooser import Chooser
from hvtui.tui.widgets.line_input import LineInput
from hvtui.tui.widgets.page import Page, Row, row

_PREVIEW_DELAY_S = 0.2  # typing must not ask the host at every key
_MOVES = (
    ("down", "app.focus_next"),
    ("up", "app.focus_previous"),
    ("tab", "app.focus_next"),
    ("shift+tab", "app.focus_previous"),
    ("pagedown", "screen.scroll_preview(1)"),
    ("pageup", "screen.scroll_preview(-1)"),
)
_LOOKING = (row("looking at what the host can do …", style="$text-muted", indent=2),)
HOW_TO_MOVE = row("↑↓ tab enter  another field     ←→  another choice", style="$text-muted", indent=2)
P = TypeVar("P", Plan, PlanSet)


class _Fields(VerticalScroll, can_focus=False, inherit_bindings=False):
    """Scrolls to the field that has the focus; the arrow keys are the form's."""


class FormScreen(HvtuiScreen, Generic[P]):
    """Fields above (at the left on wide terminals), what will be done below (at the right). Subclasses say what the
    fields are, what they ask for (`make`), and what happens when that is sent (`run`)."""

    FORM_TITLE: ClassVar[str] = ""
    FIRST_FIELD: ClassVar[str] = "name"
    IS_TYPED_INTO = True
    HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (120, "-wide")]  # noqa: RUF012 - Textual declares it so
    DEFAULT_CSS = """
    FormScreen #form-title { height: 1; }
    FormScreen #panes { height: 1fr; }
    FormScreen #form { height: auto; max-height: 12; padding: 0 1 0 2; scrollbar-size-vertical: 1; }
    FormScreen #preview { height: 1fr; border-top: solid $text-disabled; scrollbar-size-vertical: 1;
        border-title-color: $text-muted; border-title-align: right; }
    FormScreen.-wide #panes { layout: horizontal; }
    FormScreen.-wide #form { width: 50%; height: 1fr; max-height: 100%; padding: 1 1 0 2; }
    FormScreen.-wide #preview { width: 50%; height: 1fr; border-top: blank; border-left: solid $text-disabled; }
    FormScreen .field { height: 1; }
    FormScreen.-wide .field { margin-bottom: 1; }
    FormScreen .field.-hidden { display: none; }
    FormScreen .field Label { width: 12; color: $text-muted; }
    FormScreen .field.-wrong Label { color: $text-error; text-style: bold; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [Binding(key, action, show=False) for key, action in _MOVES]

    def __init__(self, fields: Sequence[Field]) -> None:
        super().__init__()
        # keymap.bindings_for replaced the bindings of the class: the form's own come back here.
        for key, action in _MOVES:
            self._bindings.bind(key, action, show=False)
        self.fields = tuple(fields)
        self.initial = {field.key: field.value for field in fields}
        self.typed: set[str] = set()  # fields the user has changed: suggestions leave them alone
        self._has_preview = False
        self._warned_of: dict[str, str] = {}  # the answers that the first esc warned of

    # What a form is

    async def make(self) -> P:
        """The plan that the fields ask for. Raises HvtuiError; NotYet while something expected is missing."""
        raise NotImplementedError

    async def run(self, made: P) -> None:
        """Propose the plan; called when nothing blocks it."""
        raise NotImplementedError

    def is_shown(self, field: Field) -> bool:  # noqa: ARG002 - for subclasses
        """Whether the field matters with the choices that were made."""
        return True

    def begin(self) -> Sequence[Row]:
        """What stands in the plan's place while the form has just been opened."""
        return (HOW_TO_MOVE,)

    def chose(self, key: str) -> None:
        """Another choice was made in that field."""

    def key_of(self, about: str) -> str | None:
        """The field that an error is about, which its label names."""
        return next((field.key for field in self.fields if field.label == about), None)

    # What is shown

    def body(self) -> Iterable[Widget]:
        yield Page([row(self.title_text(), style="bold", indent=1)], id="form-title")
        yield Container(
            _Fields(*(_row(field) for field in self.fields), id="form"),
            VerticalScroll(Page(self.begin(), id="plan"), id="preview", can_focus=False),
            id="panes",
        )

    def title_text(self) -> str:
        """The line above the fields, with the host where there are several; printable."""
        where = f" on {printable(self.hvtui.current_host.name, limit=30)}" if self.hvtui.services.is_many else ""
        return f"{self.FORM_TITLE}{where}"

    def on_mount(self) -> None:
        self._preview_timer = self.set_timer(_PREVIEW_DELAY_S, self._preview)
        self.show_fields()
        self.query_one(f"#{self.FIRST_FIELD}").focus()

    @on(Input.Changed)
    def _input_changed(self, message: Input.Changed) -> None:
        if message.input.has_focus and message.input.id is not None:
            self.typed.add(message.input.id)
        self.preview_soon()

    @on(Chooser.Changed)
    def _choice_changed(self, message: Chooser.Changed) -> None:
        self.chose(message.chooser.id or "")
        self.show_fields()
        self.preview_soon()

    @on(Input.Submitted)
    def _submitted(self, message: Input.Submitted) -> None:
        if message.input.id != "command":
            self.focus_next()

    async def submit(self) -> None:
        """Show the plan and, when it is accepted, run it; the form stays open while something is wrong."""
        self._preview_timer.stop()
        try:
            made = await self.make()
        except HvtuiError as error:
            self._show_problem(error)
            self.say(str(error), "bad")
            self._go_to_problem(error)
            return
        self._show(_rows_of(made))
        blockers = made.all_blockers if isinstance(made, PlanSet) else made.blockers
        if blockers:
            self.say(f"cannot be made yet: {blockers[0].reason}", "bad")
            return
        await self.run(made)

    def leave(self) -> None:
        """Go back; a filled form is given up only at the second press."""
        if self._may_be_lost("esc"):
            self.hvtui.back()

    def may_quit(self) -> bool:
        return self._may_be_lost("the same key")

    def _may_be_lost(self, key: str) -> bool:
        values = self.values()
        if values in (self.initial, self._warned_of):
            return True
        self._warned_of = values
        self.say(f"not made yet: {key} again gives the form up, ctrl+s shows the plan", "warn")
        return False

    def preset(self, key: str, value: str) -> None:
        """Begin with this value in a line of text; called before the form is shown."""
        self.fields = tuple(replace(field, value=value) if field.key == key else field for field in self.fields)
        self.initial[key] = value

    def values(self) -> dict[str, str]:
        """What stands in the fields, by their keys."""
        return {field.key: self.value(field.key) for field in self.fields}

    def value(self, key: str) -> str:
        widget = self.query_one(f"#{key}")
        return widget.value if isinstance(widget, Input | Chooser) else ""

    def show_fields(self) -> None:
        """Show the fields that matter, and hide the others."""
        for field in self.fields:
            self.query_one(f"#row-{field.key}").set_class(not self.is_shown(field), "-hidden")

    def preview_soon(self) -> None:
        """Make the plan anew as soon as nothing more is typed."""
        self._preview_timer.stop()
        self._preview_timer = self.set_timer(_PREVIEW_DELAY_S, self._preview)

    def _preview(self) -> None:
        self.run_worker(self._show_preview(), exclusive=True, group="preview")

    async def _show_preview(self) -> None:
        if not self._has_preview and self.values() != self.initial:
            self._show(_LOOKING)  # only the first time: what stands there is right until the next plan is
            self._has_preview = True
        try:
            self._show(_rows_of(await self.make()))
        except NotYet:
            self._show(self.begin())
            self._has_preview = False
        except HvtuiError as error:
            self._show_problem(error)

    def _show_problem(self, error: HvtuiError) -> None:
        about = f"{error.about}: " if error.about else ""
        rows = [row(printable(f"{about}{error.cause}", limit=400), mark="×", style="$text-error")]
        rows += [row(printable(in_keys(error.remedy), limit=400), style="$text-muted")] if error.remedy else []
        self._show(rows, wrong=self.key_of(error.about))

    def _show(self, rows: Sequence[Row], *, wrong: str | None = None) -> None:
        if not self.is_composed:
            return  # it was left meanwhile
        for field in self.fields:
            self.query_one(f"#row-{field.key}").set_class(field.key == wrong, "-wrong")
        self.query_one("#plan", Page).show(rows)
        self.call_after_refresh(self._tell_of_more)

    def action_scroll_preview(self, pages: int) -> None:
        """A page of the plan down or up, whichever field has the focus."""
        preview = self.query_one("#preview", VerticalScroll)
        preview.scroll_relative(y=pages * max(preview.scrollable_content_region.height - 1, 1), animate=False)
        self.call_after_refresh(self._tell_of_more)

    def on_resize(self) -> None:
        self.call_after_refresh(self._tell_of_more)

    def _tell_of_more(self) -> None:
        """Say above the plan how to see what has no room."""
        if not self.is_composed:
            return
        preview = self.query_one("#preview", VerticalScroll)
        below = int(preview.max_scroll_y - preview.scroll_offset.y)
        told = [f"pgdn {below} more line{'s' if below > 1 else ''}"] if below > 0 else []
        told += ["pgup"] if preview.scroll_offset.y else []
        preview.border_title = "  ".join(told) or None

    def _go_to_problem(self, error: HvtuiError) -> None:
        if (key := self.key_of(error.about)) is not None:
            self.query_one(f"#{key}").focus()


def _rows_of(made: Plan | PlanSet) -> Sequence[Row]:
    return plan_text.plan_set_rows(made) if isinstance(made, PlanSet) else plan_text.plan_rows(made)


def _row(field: Field) -> Widget:
    return Horizontal(Label(field.label), _widget(field), classes="field", id=f"row-{field.key}")


def _widget(field: Field) -> Widget:
    if field.choices:
        return Chooser(field.choices, field.value, id=field.key)
    return LineInput(field.value, placeholder=field.hint, id=field.key)
