"""The two lowest lines: what happened or runs, and the keys that apply."""

from __future__ import annotations

from textual.widgets import Static

from host.job_model import Job


class StatusLine(Static):
    def say(self, text: str, role: str = "text") -> None:
        self.update(text, layout=False)

    def show_jobs(self, jobs: tuple[Job, ...]) -> None:
        """The running jobs."""


class Footer(Static):
    def __init__(self, scopes: tuple[str, ...]) -> None:
        super().__init__()
        self.scopes = scopes
