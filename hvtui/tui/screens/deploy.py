"""The deploy form: many VMs from a template on one page, with a live preview of all that will be made."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import ClassVar

from textual import work
from textual.widget import Widget
from textual.widgets import Input

from host import secrets
from host.errors import HvtuiError
from host.plan import PlanSet
from host.text import printable
from hvtui.tui import deploy_form
from hvtui.tui.deploy_form import FIELDS, Choices
from hvtui.tui.form_fields import Field, NotYet
from hvtui.tui.screens.form import HOW_TO_MOVE, FormScreen
from hvtui.tui.template_text import IN_THE_DEMO
from hvtui.tui.widgets.chooser import Chooser
from hvtui.tui.widgets.page import Row, row
from vm.template_model import ImageRole, Template

_CHOSEN_FROM = ("template", "hardware", "guest")
_OF_GUESTS = frozenset({"guest", "user", "ssh_key", "user_data"})


class DeployScreen(FormScreen[PlanSet]):
    """VMs from a template; `template` is chosen at first, where it is there. `library` is the host's, unless said."""

    SCOPES: ClassVar[tuple[str, ...]] = ("deploy",)
    FORM_TITLE = "Deploy from a template"

    def __init__(self, template: str = "", library: str = "") -> None:
        super().__init__(FIELDS)
        self._wanted = template
        self._library = library
        self._choices: Choices | None = None
        self._previewed: PlanSet | None = None
        self._number = 0  # of the newest plan that was asked for

    def body(self) -> Iterable[Widget]:
        self.preset("library", self._library or self.hvtui.library_at(self.hvtui.current_host))
        return super().body()

    def on_mount(self) -> None:
        self._offer_choices()

    def on_unmount(self) -> None:
        self._number += 1
        _forget(self._previewed)

    def begin(self) -> Sequence[Row]:
        if self._choices is not None and not self._choices.templates:
            return self._no_template(self._choices.library)
        return (
            row("Give the VM a name, or a pattern for many: web-{:02}", style="$text-muted", indent=2),
            row("What will be made stands here.", style="$text-muted", indent=2),
            HOW_TO_MOVE,
        )

    def _no_template(self, library: str) -> Sequence[Row]:
        if self.hvtui.is_demo:
            return IN_THE_DEMO
        name = printable(library, limit=40)
        what = f"There is no template in the library {name}, and VMs are deployed from one."
        how = "esc, then T: the templates. There, a adds one."
        return (row(what, style="bold", indent=2), row(how, style="$text-muted", indent=2))

    def is_shown(self, field: Field) -> bool:
        """Guests that cannot be told anything need no users; a template without a disk has nothing to link."""
        template = self._template()
        if template is None:
            return True
        if field.key in _OF_GUESTS:
            return template.takes_seed
        return field.key != "disks" or template.image(ImageRole.DISK) is not None

    def key_of(self, about: str) -> str | None:
        return deploy_form.key_of(about)

    async def make(self) -> PlanSet:
        self._number += 1
        number, values = self._number, self.values()
        values |= {field.key: "" for field in self.fields if field.key in _OF_GUESTS and not self.is_shown(field)}
        host, call = self.hvtui.current_host, self.hvtui.bridge.call
        library = deploy_form.library_of(values)
        if self._choices is not None and self._choices.library != library:
            await self._read_choices(library)
            values |= {key: self.value(key) for key in _CHOSEN_FROM}

        def plan() -> PlanSet:
            from vm.deploy import plan_deploy

            made = plan_deploy(host, request)
            if number != self._number:  # nobody waits for it any more
                _forget(made)
            return made

        try:
            usual = self.hvtui.library_at(host)
            request, parts = await call(deploy_form.request_from, host, values, usual_library=usual)
            self._show_hints(deploy_form.hints(parts))
        except NotYet:
            await self._show_defaults(values)
            raise
        made = await call(plan)
        _forget(self._previewed)
        self._previewed = made
        return made

    async def run(self, made: PlanSet) -> None:
        self._previewed = None  # the dialog's now: a preview that is made meanwhile does not take its secrets away
        try:
            await self.hvtui.propose_set(made, done="deployed", accepted=lambda: self.hvtui.go("fleet"))
        finally:
            _forget(made)

    @work(group="choices")
    async def _offer_choices(self) -> None:
        try:
            await self._read_choices(deploy_form.library_of(self.values()))
        except HvtuiError as error:
            self.say(str(error), "bad")
            return
        self.preview_soon()

    async def _read_choices(self, library: str) -> None:
        """Offer what that library has from now on. Raises HvtuiError."""
        found = await self.hvtui.bridge.call(deploy_form.read_choices, self.hvtui.current_host, library)
        if not self.is_composed:
            return  # it was left meanwhile
        was_untouched = self.values() == self.initial
        self._choices = found
        for key in _CHOSEN_FROM:
            chosen = self.value(key) or (self._wanted if key == "template" else "")
            self.query_one(f"#{key}", Chooser).offer(found.of(key), chosen)
            self.initial[key] = self.value(key)
        if was_untouched:
            self.initial = self.values()
        self.show_fields()

    async def _show_defaults(self, values: dict[str, str]) -> None:
        """What empty fields mean, before there is a name."""
        if values["template"]:
            named = values | {"name": values["name"].strip() or "x"}
            _, parts = await self.hvtui.bridge.call(deploy_form.request_from, self.hvtui.current_host, named)
            self._show_hints(deploy_form.hints(parts))

    def _show_hints(self, hints: dict[str, str]) -> None:
        for field in self.fields if self.is_composed else ():
            if not field.choices:
                self.query_one(f"#{field.key}", Input).placeholder = hints.get(field.key, field.hint)

    def _template(self) -> Template | None:
        templates = self._choices.templates if self._choices is not None else ()
        name = self.value("template")
        return next((each for each in templates if each.name == name), None)


def _forget(plan_set: PlanSet | None) -> None:
    """What its seeds would have held is not kept in memory: it may be secret."""
    if plan_set is not None:
        secrets.forget([step.args for plan in plan_set.plans for step in plan.steps])
