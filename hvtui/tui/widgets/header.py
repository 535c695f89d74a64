"""The header: the host's name, meters, link and alerts. Shows a snapshot; reads nothing."""

from __future__ import annotations

from textual.widgets import Static

from vm.model import Snapshot


class Header(Static):
    def show_snapshot(self, snapshot: Snapshot) -> None:
        self.update(f" hvtui  {snapshot.host_name}", layout=False)
