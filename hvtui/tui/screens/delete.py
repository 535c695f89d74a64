"""Which disks of a VM go with it: kept by default, and only those that nothing else uses can be chosen."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.content import Content
from textual.widget import Widget

from host.text import printable
from host.units import format_bytes
from hvtui.tui.screens.dialog import Dialog
from hvtui.tui.symbols import CURSOR, MARK
from hvtui.tui.widgets.page import Page, Row, row
from vm.model import Vm

if TYPE_CHECKING:
    from vm.disk_uses import DiskUse

_INDENT = 8
_OFF = ""  # the key of the row that turns the VM off; disks have their targets


@dataclass(frozen=True, slots=True)
class Deletion:
    """What goes with the VM: the targets of the disks to remove, and whether to turn it off first."""

    disks: tuple[str, ...] = ()
    off: bool = False


class DeleteScreen(Dialog[Deletion | None]):
    """Returns what to do besides removing the definition, or None to go back. The plan is shown after it."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "accept", "go on"),
        Binding("space", "switch", "keep or remove"),
        Binding("j,down", "move(1)", show=False),
        Binding("k,up", "move(-1)", show=False),
        Binding("escape,q", "refuse", "back"),
    ]

    def __init__(self, vm: Vm, uses: Sequence[DiskUse]) -> None:
        super().__init__()
        self._vm = vm
        self._uses = {use.target: use for use in uses}
        self._rows = [*([_OFF] if vm.is_active else []), *self._uses]
        self._chosen: set[str] = set()
        self._cursor = 0
        self.add_class("-danger")

    def title_text(self) -> str:
        return f"Delete {printable(self._vm.name, limit=40)}: what goes with it"

    def hints(self) -> Sequence[tuple[str, str]]:
        move = (("↑↓", "move"),) if len(self._rows) > 1 else ()
        return (*move, ("space", "change"), ("enter", "show the plan"), ("esc", "back"))

    def body(self) -> Iterable[Widget]:
        yield VerticalScroll(Page(self._lines(), id="text"), id="body", can_focus=False)

    def action_move(self, rows: int) -> None:
        self._cursor = (self._cursor + rows) % len(self._rows)
        self._repaint()

    def action_switch(self) -> None:
        """Change the row under the cursor, where it can be."""
        key = self._rows[self._cursor]
        if key == _OFF or self._uses[key].removable:
            self._chosen.symmetric_difference_update({key})
            self._repaint()
        else:
            self.warn("this disk stays, for the reason that stands there")

    def action_accept(self) -> None:
        disks = tuple(target for target in self._uses if target in self._chosen)
        self.dismiss(Deletion(disks, off=_OFF in self._chosen and self._vm.is_active))

    def action_refuse(self) -> None:
        self.dismiss(None)

    def _repaint(self) -> None:
        page = self.query_one("#text", Page)
        page.show(self._lines())
        place = page.place_of(2 * self._cursor).union(page.place_of(2 * self._cursor + 1))
        self.query_one("#body", VerticalScroll).scroll_to_region(place, animate=False)

    def _lines(self) -> list[Row]:
        return [line for index, key in enumerate(self._rows) for line in self._row(key, index == self._cursor)]

    def _row(self, key: str, is_current: bool) -> list[Row]:
        is_chosen = key in self._chosen
        cursor = Content.styled(f" {CURSOR if is_current else ' '} ", "bold $accent")
        is_fixed = key != _OFF and not self._uses[key].removable
        box = Content.styled(f"[{MARK if is_chosen else ' '}]  ", "bold $text-error" if is_chosen else "")
        box = Content(" –   ") if is_fixed else box
        if key == _OFF:
            what, why = "turn it off first", f"it is {self._vm.state.value}; what is not on its disks is lost"
        else:
            what, why = _disk_words(self._uses[key])
        style = "bold $text-error" if is_chosen else "bold" if is_current else ""
        return [Row(Content.styled(what, style), cursor + box, _INDENT), row(why, style="$text-muted", indent=_INDENT)]


def _disk_words(use: DiskUse) -> tuple[str, str]:
    size = f"  {format_bytes(use.size_bytes)}" if use.size_bytes is not None else ""
    where = printable(use.path or use.source, limit=400) or "an empty drive"
    what = f"{use.device} {printable(use.target, limit=20)}  {where}{size}"
    if use.removable:
        return f"remove the {what}", "used by nothing else; it stays unless you mark it"
    return f"the {what}", f"stays: {printable(use.keep_reason, limit=400)}"
