"""The XML editor: edits a VM's configuration as text and hands it to the plan dialog. Changes nothing itself."""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

from textual.content import Content
from textual.widget import Widget
from textual.widgets import Static, TextArea

from host.errors import HvtuiError
from host.text import printable
from hvtui.tui.screens.base import HvtuiScreen
from vm.model import Vm


class XmlEditorScreen(HvtuiScreen):
    """`xml` is the editable text of `vm`'s next-boot configuration, without secrets."""

    SCOPES: ClassVar[tuple[str, ...]] = ("xml",)
    DEFAULT_CSS = """
    XmlEditorScreen #title { height: 1; padding: 0 1; color: $text-muted; }
    XmlEditorScreen TextArea { height: 1fr; border: none; padding: 0; }
    """

    def __init__(self, vm: Vm, xml: str) -> None:
        super().__init__()
        self.vm = vm
        self._xml = xml
        self._warned = False

    def body(self) -> Iterable[Widget]:
        name = printable(self.vm.name, limit=60)
        yield Static(Content(f"{name}: ctrl+s shows what changes before anything is done; esc leaves"), id="title")
        yield TextArea(self._xml, show_line_numbers=True, tab_behavior="indent", soft_wrap=False, id="text")

    def on_mount(self) -> None:
        self.query_one(TextArea).focus()

    def targets(self) -> tuple[Vm, ...]:
        return (self.vm,)

    @property
    def text(self) -> str:
        return self.query_one(TextArea).text

    async def save(self) -> None:
        """Plan the change, show its diff, and leave when it was made."""
        from vm import edit

        if self.text == self._xml:
            self.say("nothing was changed")
            return
        try:
            host = self.hvtui.services.host
            plan = await self.hvtui.bridge.call(edit.plan_edit, host, self.vm, self.text)
        except HvtuiError as error:
            self.say(str(error), "bad")
            return
        if await self.hvtui.propose([plan], done="changed"):
            self.dismiss()

    def leave(self) -> None:
        """Go back; unsaved text is given up only at the second press."""
        if self.text != self._xml and not self._warned:
            self._warned = True
            self.say("changes are not saved: esc again gives them up, ctrl+s shows them", "warn")
            return
        self.dismiss()
