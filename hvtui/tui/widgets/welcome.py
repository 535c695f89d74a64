"""What stands in the list's place while there is no VM: what to do first, or why nothing can be seen."""

from __future__ import annotations

from collections.abc import Sequence

from host.text import printable
from hvtui.tui import keymap
from hvtui.tui.actions import action_named
from hvtui.tui.themes import Palette
from hvtui.tui.widgets.lines import Line, Lines, Span, line_of
from vm.model import Snapshot


class Welcome(Lines):
    """Shown instead of an empty list."""

    def __init__(self) -> None:
        super().__init__(id="welcome")
        self._snapshot: Snapshot | None = None

    def show(self, snapshot: Snapshot) -> None:
        """Show what to do on this host."""
        self._snapshot = snapshot
        self.repaint()

    def paint(self, width: int, height: int, palette: Palette) -> Sequence[Line]:
        rows: list[list[Span]] = [[], []]
        rows += welcome_rows(self._snapshot, width)
        lines = [line_of(row, width, palette) for row in rows[:height]]
        return lines + [line_of((), width, palette)] * (height - len(lines))


def welcome_rows(snapshot: Snapshot | None, width: int) -> list[list[Span]]:
    """The rows, without leading blank ones."""
    if snapshot is None:
        return [[("   connecting…", "dim")]]
    if not snapshot.link.is_up:
        rows: list[list[Span]] = [
            [("   × ", "alarm"), (f"{printable(snapshot.uri, limit=60)} cannot be reached.", "bold")],
            [],
        ]
        if snapshot.link.error:
            rows += [[(f"     {printable(snapshot.link.error, limit=max(width - 8, 20))}", "text")], []]
        rows.append([("     hvtui tries again by itself. ", "dim"), ("q", "key"), (" quits; ", "dim"),
                     ("hvtui --demo", "text"), (" shows a simulated host.", "dim")])  # fmt: skip
        return rows
    rows = [
        [("   No virtual machine on ", "text"), (printable(snapshot.host_name, limit=40), "bold"), (" yet.", "text")],
        [],
    ]
    for action_id, words in _FIRST_STEPS:
        action = action_named(action_id)
        if action is not None:
            key = keymap.shown_key(action)
            rows.append([(f"    {key:<4}", "key"), (words, "text")])
    return rows


_FIRST_STEPS = (
    ("fleet.tiny", "try one now: a tiny Linux made from this system's own kernel (5 s, 128 MB)"),
    ("fleet.debian", "make a Debian template and deploy from it (3 min)"),
    ("app.create", "new VM from an ISO or a disk image"),
    ("app.import", "import from Hyper-V, VMware or VirtualBox, or from a bundle"),
    ("app.host", "what this host can do"),
    ("app.help", "all keys"),
)
