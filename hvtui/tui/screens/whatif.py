"""What if a host died now: where each of its VMs would come up, and which would not. Shows only."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, ClassVar

from textual.containers import VerticalScroll
from textual.content import Content
from textual.widget import Widget

from host.text import fit, printable
from hvtui.tui.screens.base import HvtuiScreen
from hvtui.tui.widgets.page import Page, Row, heading, row
from vm.model import Snapshot

if TYPE_CHECKING:
    from vm.placement_model import HostPicture
    from vm.whatif import NMinusOne

_NAME = 24
_LONGEST = 300
_LOOKING = (row(), row("looking at the hosts …", style="$text-muted", indent=3))


class WhatIfScreen(HvtuiScreen):
    """One scrolling page, from the last look at all hosts; f5 looks again."""

    SCOPES: ClassVar[tuple[str, ...]] = ("whatif",)
    DEFAULT_CSS = "WhatIfScreen #body { height: 1fr; scrollbar-size-vertical: 1; }"

    def body(self) -> Iterable[Widget]:
        yield VerticalScroll(Page(_LOOKING, id="text"), id="body")

    def on_mount(self) -> None:
        self.query_one("#body", VerticalScroll).focus()
        if self.hvtui.fleet is not None and not self.hvtui.fleet.pictures:
            self.hvtui.fleet.look()

    def snapshot_changed(self, snapshot: Snapshot) -> None:  # noqa: ARG002 - it shows what was looked at
        fleet = self.hvtui.fleet
        if fleet is not None and fleet.light is not None:
            self.query_one("#text", Page).show(whatif_rows(fleet.pictures, fleet.light))

    def read_again(self) -> None:
        """Look at all hosts now."""
        if self.hvtui.fleet is not None:
            self.hvtui.fleet.look()
            self.say("looking at the hosts …", "dim")

    def leave(self) -> None:
        self.hvtui.back()


def whatif_rows(pictures: Sequence[HostPicture], light: NMinusOne) -> list[Row]:
    """The light in words, then the loss of each host: what has no place first."""
    from vm.whatif import whatif

    style = "bold $text-success" if light.is_ok else "bold $text-error" if light.losses else "bold $text-warning"
    rows = [row(), row(printable(light.text, limit=_LONGEST), style=style, indent=1), row()]
    for picture in pictures:
        name = printable(picture.name, limit=60)
        rows.append(heading(f"If {name} died now"))
        if not picture.is_reachable:
            rows.append(
                row(f"not known: {printable(picture.problem, limit=_LONGEST)}", mark="?", style="$text-warning")
            )
        else:
            loss = whatif(pictures, picture.name)
            rows += [_row(vm, why, "×", "$text-error") for vm, why in loss.unplaced.items()]
            rows += [_row(vm, f"would come up on {host}", "✓", "") for vm, host in loss.placed.items()]
            if not loss.placed and not loss.unplaced:
                rows.append(row("nothing runs there", style="$text-muted"))
        rows.append(row())
    return rows


def _row(vm: str, words: str, mark: str, style: str) -> Row:
    name = (fit(printable(vm, limit=_NAME), _NAME), style or "bold")
    return Row(
        Content.styled(printable(words, limit=_LONGEST), "$text-muted"),
        Content.assemble((f"  {mark}  ", style), name),
        5 + _NAME,
    )
