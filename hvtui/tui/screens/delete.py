"""Which disks of a VM go with it: kept by default, and only those that nothing else uses can be chosen."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import Static

from host.text import printable
from host.units import format_bytes
from vm.model import Vm

if TYPE_CHECKING:
    from vm.disk_uses import DiskUse


class DeleteScreen(ModalScreen[tuple[str, ...] | None]):
    """Returns the targets (vda) of the disks to remove, () for none, or None to go back."""

    DEFAULT_CSS = """
    DeleteScreen { align: center middle; }
    DeleteScreen #frame { width: 100%; max-width: 100; height: auto; border: round $error; background: $surface;
        padding: 0 1; }
    DeleteScreen #keys { margin-top: 1; color: $text-muted; }
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "accept", "go on"),
        Binding("space", "toggle", "keep or remove"),
        Binding("j,down", "move(1)", show=False),
        Binding("k,up", "move(-1)", show=False),
        Binding("escape,q", "refuse", "back"),
    ]

    def __init__(self, vm: Vm, uses: Sequence[DiskUse]) -> None:
        super().__init__()
        self._vm = vm
        self._uses = tuple(uses)
        self._removed: set[str] = set()
        self._cursor = 0

    def compose(self) -> ComposeResult:
        with Vertical(id="frame") as frame:
            frame.border_title = Content(f" Delete {printable(self._vm.name, limit=40)}: its disks ")
            yield Static(self._lines(), id="disks")
            yield Static(Content("space keep or remove   enter shows what will be done   esc back"), id="keys")

    def action_move(self, rows: int) -> None:
        self._cursor = (self._cursor + rows) % len(self._uses)
        self._repaint()

    def action_toggle(self) -> None:
        use = self._uses[self._cursor]
        if not use.why_kept:
            self._removed.symmetric_difference_update({use.target})
        self._repaint()

    def action_accept(self) -> None:
        self.dismiss(tuple(use.target for use in self._uses if use.target in self._removed))

    def action_refuse(self) -> None:
        self.dismiss(None)

    def _repaint(self) -> None:
        self.query_one("#disks", Static).update(self._lines())

    def _lines(self) -> Content:
        lines = []
        for index, use in enumerate(self._uses):
            removed = use.target in self._removed
            cursor = "▶" if index == self._cursor else " "
            size = format_bytes(use.size_bytes) if use.size_bytes is not None else "size unknown"
            words = f"{cursor} {'remove' if removed else 'keep  '}  {use.target}  {printable(use.path)}  {size}"
            style = "$text-error bold" if removed else ""
            lines.append(Content.styled(words, style) if style else Content(words))
            why = printable(use.why_kept) if use.why_kept else "used by nothing else"
            lines.append(Content.styled(f"            {why}", "$text-muted"))
        return Content("\n").join(lines)
