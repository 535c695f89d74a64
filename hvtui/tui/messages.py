"""What the service layer tells the screens. Posted by bridge.py only; data only."""

from __future__ import annotations

from textual.message import Message

from host.events import Event
from host.job_model import Job
from vm.model import Snapshot


class SnapshotChanged(Message):
    """A new picture of the host replaces the one before."""

    def __init__(self, snapshot: Snapshot) -> None:
        super().__init__()
        self.snapshot = snapshot


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
