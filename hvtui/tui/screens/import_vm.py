"""The import form: a bundle, an appliance or a disk, with what the comparison with this host found as its preview."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from host.plan import Plan
from hvtui.tui import form_fields, import_form
from hvtui.tui.import_form import FIELDS, SourceKind
from hvtui.tui.screens.form import HOW_TO_MOVE, FormScreen
from hvtui.tui.widgets.page import Row, row

_BEGIN = (
    "Say what is imported: a bundle that an export made, an OVA, or a disk of Hyper-V, VMware or VirtualBox.",
    "What it becomes on this host stands here, before anything is made.",
)


class ImportScreen(FormScreen[Plan]):
    """A VM from another host or another product."""

    SCOPES: ClassVar[tuple[str, ...]] = ("import",)
    FORM_TITLE = "Import a virtual machine"
    FIRST_FIELD = "path"

    def __init__(self) -> None:
        super().__init__(FIELDS)
        self._kind = SourceKind.NONE

    def begin(self) -> Sequence[Row]:
        return (*(row(words, style="$text-muted", indent=2) for words in _BEGIN), HOW_TO_MOVE)

    def is_shown(self, field: form_fields.Field) -> bool:
        return import_form.is_shown(field, self._kind)

    def key_of(self, about: str) -> str | None:
        """Errors about a file name the file."""
        is_path = about.startswith("/") and about == str(import_form.path_of(self.value("path")))
        return super().key_of(about) or ("path" if is_path else "more" if about.startswith("/") else None)

    async def make(self) -> Plan:
        call, host, values = self.hvtui.bridge.call, self.hvtui.current_host, self.values()
        kind = await call(import_form.kind_of, values["path"])
        if kind is not self._kind and self.is_composed:
            self._kind = kind
            self.show_fields()
        return await call(import_form.plan_of, host, values, kind)

    async def run(self, made: Plan) -> None:
        await self.hvtui.propose([made], done="imported", ask=True, accepted=lambda: self.hvtui.go("fleet"))
