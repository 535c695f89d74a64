"""The forms of a new template and of what a template says of itself. The plan dialog does the rest."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from host.plan import Plan
from host.text import printable
from hvtui.tui import template_form
from hvtui.tui.form_fields import Field
from hvtui.tui.screens.form import HOW_TO_MOVE, FormScreen
from hvtui.tui.widgets.page import Row, row
from vm.template_model import Library, Template


class AddTemplateScreen(FormScreen[Plan]):
    """A new template from a recipe, a file or a volume."""

    SCOPES: ClassVar[tuple[str, ...]] = ("newtemplate",)
    FORM_TITLE = "New template"

    def __init__(self, library: Library | None = None) -> None:
        super().__init__(template_form.add_fields(library))

    def begin(self) -> Sequence[Row]:
        return (row("Give it a name: what will be done stands here.", style="$text-muted", indent=2), HOW_TO_MOVE)

    def is_shown(self, field: Field) -> bool:
        return template_form.is_shown(field.key, self.value("source"))

    async def make(self) -> Plan:
        from vm.template_add import plan_add

        request = template_form.add_request(self.values())
        return await self.hvtui.bridge.call(plan_add, self.hvtui.current_host, request)

    async def run(self, made: Plan) -> None:
        await self.hvtui.propose([made], done="added", ask=True, accepted=lambda: self.hvtui.go("templates"))


class EditTemplateScreen(FormScreen[Plan]):
    """What a template says of itself; its images stay."""

    SCOPES: ClassVar[tuple[str, ...]] = ("edittemplate",)
    FIRST_FIELD = "description"

    def __init__(self, library: Library, template: Template) -> None:
        super().__init__(template_form.edit_fields(template))
        self._library = library
        self._template = template

    def title_text(self) -> str:
        return f"Template {printable(self._template.name, limit=60)}"

    def begin(self) -> Sequence[Row]:
        words = "Change something: what will be stored stands here. VMs made from it stay as they are."
        return (row(words, style="$text-muted", indent=2), HOW_TO_MOVE)

    def key_of(self, about: str) -> str | None:
        return next((field.key for field in self.fields if about in {field.label, field.key}), None)

    async def make(self) -> Plan:
        from vm.template_change import plan_edit

        changes = template_form.changes(self.initial, self.values())
        host = self.hvtui.current_host
        return await self.hvtui.bridge.call(plan_edit, host, self._library, self._template, changes)

    async def run(self, made: Plan) -> None:
        await self.hvtui.propose([made], done="changed", ask=True, accepted=lambda: self.hvtui.go("templates"))
