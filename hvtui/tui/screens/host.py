"""The host screen: what this host is, how busy it is, and what it has promised to its VMs. Shows only."""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

from textual.containers import VerticalScroll
from textual.widget import Widget

from hvtui.tui.host_text import host_rows
from hvtui.tui.screens.base import HvtuiScreen
from hvtui.tui.widgets.page import Page, row
from vm.model import Snapshot


class HostScreen(HvtuiScreen):
    """One scrolling page; new figures replace old ones in place."""

    SCOPES: ClassVar[tuple[str, ...]] = ("host",)
    DEFAULT_CSS = "HostScreen #body { height: 1fr; scrollbar-size-vertical: 1; }"

    def body(self) -> Iterable[Widget]:
        yield VerticalScroll(Page([row(), row("not connected yet")], id="text"), id="body")

    def on_mount(self) -> None:
        self.query_one("#body", VerticalScroll).focus()

    def snapshot_changed(self, snapshot: Snapshot) -> None:
        self.query_one("#text", Page).show(host_rows(snapshot))

    def leave(self) -> None:
        self.hvtui.back()
