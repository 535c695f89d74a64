"""The create form: one page with sane defaults and a live preview of the plan. The plan dialog does the rest."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from textual.widgets import Input

from host.plan import Plan
from hvtui.tui import form_fields
from hvtui.tui.create_form import FIELDS, SUGGESTED, Field, request_from
from hvtui.tui.form_fields import NotYet
from hvtui.tui.screens.form import HOW_TO_MOVE, FormScreen
from hvtui.tui.widgets.page import Row, row
from vm.create_request import SourceKind


class CreateScreen(FormScreen[Plan]):
    """A new VM from a medium, an image, a kernel or nothing."""

    SCOPES: ClassVar[tuple[str, ...]] = ("create",)
    FORM_TITLE = "New virtual machine"

    def __init__(self) -> None:
        super().__init__(FIELDS)

    def begin(self) -> Sequence[Row]:
        return (row("Give it a name: what will be made stands here.", style="$text-muted", indent=2), HOW_TO_MOVE)

    def is_shown(self, field: form_fields.Field) -> bool:
        return isinstance(field, Field) and field.applies_to(self._source)

    def chose(self, key: str) -> None:
        if key == "source":
            self._suggest()

    async def make(self) -> Plan:
        from vm.create import plan_create

        values = self.values()
        if not values["name"].strip():
            raise NotYet("give the new VM a name", about="name")
        return await self.hvtui.bridge.call(plan_create, self.hvtui.current_host, request_from(values))

    async def run(self, made: Plan) -> None:
        await self.hvtui.propose([made], done="made", ask=True, accepted=lambda: self.hvtui.go("fleet"))

    @property
    def _source(self) -> SourceKind:
        return SourceKind(self.value("source"))

    def _suggest(self) -> None:
        for key, value in SUGGESTED[self._source].items():
            if key not in self.typed:
                self.query_one(f"#{key}", Input).value = value
