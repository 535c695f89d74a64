"""The jobs screen: what runs, what ran, with progress; cancel, restart, roll back and undo."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import ClassVar

from textual.containers import Container, VerticalScroll
from textual.content import Content
from textual.widget import Widget
from textual.widgets import OptionList, Static

from host.job_model import Job
from hvtui.tui import job_text
from hvtui.tui.screens.base import HvtuiScreen
from hvtui.tui.widgets.choice_list import ChoiceList

_EMPTY = "\n  No job yet. Everything that changes this host or a VM runs as a job and is listed here:\n" \
    "  who did what, when, step by step, and how to take it back.\n\n  esc back"  # fmt: skip


class JobsScreen(HvtuiScreen):
    """Newest first; the details of the job under the cursor below (at the right on wide terminals)."""

    SCOPES: ClassVar[tuple[str, ...]] = ("jobs",)
    HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (120, "-wide")]  # noqa: RUF012 - Textual declares it so
    DEFAULT_CSS = """
    JobsScreen #panes { height: 1fr; }
    JobsScreen #list { height: 1fr; width: 1fr; }
    JobsScreen #detail { height: 45%; border-top: solid $panel; scrollbar-size-vertical: 1; }
    JobsScreen.-wide #panes { layout: horizontal; }
    JobsScreen.-wide #detail { width: 45%; height: 1fr; border-top: none; border-left: solid $panel; }
    """

    def body(self) -> Iterable[Widget]:
        yield Container(
            ChoiceList(id="list"), VerticalScroll(Static(id="text"), id="detail", can_focus=False), id="panes"
        )

    def jobs_changed(self, jobs: tuple[Job, ...]) -> None:
        self._list.show_rows([(str(job.id), partial(_job_line, job)) for job in jobs])
        self._show_detail()

    def on_option_list_option_highlighted(self, _message: OptionList.OptionHighlighted) -> None:
        self._show_detail()

    @property
    def selected(self) -> Job | None:
        """The job under the cursor."""
        chosen = self._list.chosen
        return next((job for job in self.hvtui.jobs if str(job.id) == chosen), None)

    async def cancel_job(self) -> None:
        """Ask the process that runs the job to stop; what it made is rolled back."""
        from host import jobs

        if (job := self._selected_or_say()) is not None:
            await self.hvtui.bridge.call(jobs.cancel, job.id, self.hvtui.services.journal)
            self.say(f"asked job {job.id} to stop", "warn")
            self.hvtui.bridge.watch_jobs()

    async def restart_job(self) -> None:
        """Continue a failed, cancelled or interrupted job with its first step that is not done."""
        from host import jobs

        await self._work_on(jobs.restart, "restarted")

    async def roll_back_job(self) -> None:
        """Remove what an interrupted or failed job made."""
        from host import jobs

        await self._work_on(jobs.rollback, "rolled back")

    async def undo_job(self) -> None:
        """Take a finished job back, where its steps have an inverse; the plan is shown first."""
        from host import jobs

        if (job := self._selected_or_say()) is not None:
            plan = await self.hvtui.bridge.call(jobs.plan_undo, job, self.hvtui.services.host)
            await self.hvtui.propose([plan], done="undone:")

    async def _work_on(self, function: Callable[..., Job], done: str) -> None:
        if (job := self._selected_or_say()) is not None:
            services = self.hvtui.services
            self.hvtui.bridge.watch_jobs()
            ended = await self.hvtui.bridge.call(function, job.id, services.host, services.journal)
            self.hvtui.bridge.watch_jobs()
            self.say(f"{done} job {ended.id}: {ended.state}", "bad" if ended.error else "good")

    def _selected_or_say(self) -> Job | None:
        if self.selected is None:
            self.say("no job is selected", "warn")
        return self.selected

    @property
    def _list(self) -> ChoiceList:
        return self.query_one("#list", ChoiceList)

    def _show_detail(self) -> None:
        job = self.selected
        content = job_text.job_content(job) if job else Content(_EMPTY)
        self.query_one("#text", Static).update(content)


def _job_line(job: Job, width: int) -> Content:
    return job_text.job_line(job, width=width)
