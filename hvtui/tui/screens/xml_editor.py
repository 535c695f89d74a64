"""The XML editor: edits a VM's configuration as text and hands it to the plan dialog. Changes nothing itself."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import ClassVar

from textual.widget import Widget

from host.errors import HvtuiError
from host.text import printable
from hvtui.tui.screens.base import HvtuiScreen
from hvtui.tui.widgets.page import Page, Row, row
from hvtui.tui.widgets.xml_text import XmlText
from vm.model import Vm

_LINE_NUMBER = re.compile(r"\bline:? ?(\d{1,6})")


class XmlEditorScreen(HvtuiScreen):
    """`xml` is the editable text of `vm`'s next-boot configuration, without secrets."""

    SCOPES: ClassVar[tuple[str, ...]] = ("xml",)
    IS_TYPED_INTO = True
    DEFAULT_CSS = """
    XmlEditorScreen #title { max-height: 6; }
    XmlEditorScreen XmlText, XmlEditorScreen XmlText:focus { height: 1fr; border: none; padding: 0;
        background: $background; scrollbar-size-horizontal: 0; scrollbar-size-vertical: 1; }
    """

    def __init__(self, vm: Vm, xml: str) -> None:
        super().__init__()
        self.vm = vm
        self._xml = xml
        self._warned_of = ""  # the text that the first esc warned of

    def body(self) -> Iterable[Widget]:
        yield Page(self._title(), id="title")
        yield XmlText(self._xml, id="text")

    def on_mount(self) -> None:
        self._editor.focus()

    def targets(self) -> tuple[Vm, ...]:
        return (self.vm,)

    @property
    def text(self) -> str:
        return self._editor.text

    async def save(self) -> None:
        """Plan the change, show its differences, and leave when it was made."""
        from vm import edit

        if self.text == self._xml:
            self._complain("")
            self.say("nothing was changed")
            return
        try:
            host = self.hvtui.host_of(self.vm)
            plan = await self.hvtui.bridge.call(edit.plan_edit, host, self.vm, self.text)
        except HvtuiError as error:
            self._complain(str(error))
            return
        self._complain("")
        if await self.hvtui.propose([plan], done="changed the XML of", ask=True) and self.is_current:
            self.hvtui.back()

    def leave(self) -> None:
        """Go back; unsaved text is given up only at the second press."""
        if self._may_be_lost("esc"):
            self.hvtui.back()

    def may_quit(self) -> bool:
        return self._may_be_lost("the same key")

    def _may_be_lost(self, key: str) -> bool:
        if self.text in (self._xml, self._warned_of):
            return True
        self._warned_of = self.text
        self.say(f"not saved: {key} again gives the changes up, ctrl+s shows them", "warn")
        return False

    @property
    def _editor(self) -> XmlText:
        return self.query_one("#text", XmlText)

    def _title(self, problem: str = "") -> list[Row]:
        name = printable(self.vm.name, limit=60)
        rows = [row(f"XML of {name}: what its next start uses", style="bold", indent=1)]
        return [*rows, row(printable(problem, limit=400), mark="×", style="$text-error")] if problem else rows

    def _complain(self, problem: str) -> None:
        """Show above the text what is wrong with it, and go to the line that the complaint names."""
        self.query_one("#title", Page).show(self._title(problem))
        named = _LINE_NUMBER.search(problem)
        if named is not None and 1 <= int(named.group(1)) <= self._editor.document.line_count:
            self._editor.move_cursor((int(named.group(1)) - 1, 0))
            # The complaint above takes lines of the text away: only after that is known where the cursor stands.
            self.call_after_refresh(self._editor.scroll_cursor_visible)
        self.say("not changed: see above" if problem else "", "bad" if problem else "text")
