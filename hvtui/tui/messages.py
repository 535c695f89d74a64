"""What the service layer tells the screens. Posted by bridge.py only; data only."""

from __future__ import annotations

from collections.abc import Mapping

from textual.message import Message

from host.events import Event
from host.job_model import Job
from vm.model import Snapshot


class SnapshotChanged(Message):
    """A new picture replaces the one before. With several hosts, `snapshot` is all of them as one and `by_host` has
    each by its name."""

    def __init__(self, snapshot: Snapshot, by_host: Mapping[str, Snapshot] | None = None) -> None:
        super().__init__()
        self.snapshot = snapshot
        self.by_host = by_host if by_host is not None else {snapshot.host_name: snapshot}


class EventArrived(Message):
    """Something happened to a VM."""

    def __init__(self, event: Event) -> None:
        super().__init__()
        self.event = event


class JobsChanged(Message):
    """The newest jobs first, whenever one of them changed."""

    def __init__(self, jobs: tuple[Job, ...]) -> None:
        super().__init__()
        self.jobs = jobs
