"""The host screen: what this host is, how busy it is, and what it has promised to its VMs. Shows only."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import ClassVar

from textual.containers import VerticalScroll
from textual.widget import Widget

from hvtui.tui.actions import Target
from hvtui.tui.host_text import host_rows
from hvtui.tui.screens.base import HvtuiScreen
from hvtui.tui.widgets.footer import Footer
from hvtui.tui.widgets.header import Crowd
from hvtui.tui.widgets.page import Page, row
from vm.model import Snapshot


class HostScreen(HvtuiScreen):
    """One scrolling page; new figures replace old ones in place."""

    SCOPES: ClassVar[tuple[str, ...]] = ("host",)
    DEFAULT_CSS = "HostScreen #body { height: 1fr; scrollbar-size-vertical: 1; }"

    def __init__(self, name: str = "") -> None:
        super().__init__()
        self._name = name

    @property
    def name_shown(self) -> str:
        """The host of this screen; where several are shown and none was named, the one that is meant."""
        return self._name or self.hvtui.current_host.name

    def target(self) -> Target:
        return replace(super().target(), host=self.name_shown if self.hvtui.services.is_many else "")

    def update_from(self, snapshot: Snapshot | None) -> None:
        super().update_from(self.hvtui.snapshots.get(self.name_shown, snapshot))

    def crowd(self) -> Crowd | None:
        return None  # the header is this host's

    def body(self) -> Iterable[Widget]:
        yield VerticalScroll(Page([row(), row("not connected yet")], id="text"), id="body")

    def on_mount(self) -> None:
        self.query_one("#body", VerticalScroll).focus()

    def snapshot_changed(self, snapshot: Snapshot) -> None:
        fleet = self.hvtui.fleet
        note = fleet.note_of(snapshot.uri) if fleet is not None else None
        self.query_one("#text", Page).show(host_rows(snapshot, note))
        self.query_one(Footer).show_target(self.target())

    def leave(self) -> None:
        self.hvtui.back()
