"""The jobs screen: what runs, what ran, with progress; cancel, restart, roll back and undo."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime
from functools import partial
from typing import ClassVar

from textual.containers import Container, VerticalScroll
from textual.content import Content
from textual.widget import Widget
from textual.widgets import OptionList

from host.job_model import Job, JobSet, JobState, in_sets
from host.plan import Plan
from hvtui.tui import job_plans, job_text
from hvtui.tui.actions import Target
from hvtui.tui.screens.base import HvtuiScreen
from hvtui.tui.screens.plan import PlanScreen
from hvtui.tui.widgets.choice_list import ChoiceList, Line
from hvtui.tui.widgets.footer import Footer
from hvtui.tui.widgets.page import Page, Row, row

_SET = "set-"  # a set's row is named by that and its number
_EMPTY = (
    row(),
    row("No job yet.", style="bold", indent=3),
    row(),
    row("Whatever changes this host or a VM runs as a job and is listed here: who did what and when, step by step,"
        " and how to take it back.", indent=3),
)  # fmt: skip


class JobsScreen(HvtuiScreen):
    """Newest first; the details of the job under the cursor below (at the right on wide terminals)."""

    SCOPES: ClassVar[tuple[str, ...]] = ("jobs",)
    AUTO_FOCUS = ""  # the list gets the focus once it has a row: an empty one, which is hidden, would swallow keys
    HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (120, "-wide")]  # noqa: RUF012 - Textual declares it so
    DEFAULT_CSS = """
    JobsScreen #head { height: 1; }
    JobsScreen.-open #head, JobsScreen.-empty #head { display: none; }
    JobsScreen #panes { height: 1fr; }
    JobsScreen #rows { height: 1fr; width: 1fr; }
    JobsScreen #detail { height: 55%; border-top: solid $text-disabled; scrollbar-size-vertical: 1; }
    JobsScreen.-wide #panes { layout: horizontal; }
    JobsScreen.-wide #detail { width: 45%; height: 1fr; border-top: none; border-left: solid $text-disabled; }
    JobsScreen.-open #rows, JobsScreen.-empty #rows { display: none; }
    JobsScreen.-open #detail, JobsScreen.-empty #detail { height: 1fr; width: 1fr; border: none; }
    """

    def body(self) -> Iterable[Widget]:
        yield Page([row(job_text.HEAD, style="$text-muted", indent=0)], id="head")
        yield Container(ChoiceList(id="rows"), VerticalScroll(Page(_EMPTY, id="text"), id="detail"), id="panes")

    def __init__(self) -> None:
        super().__init__()
        self._opened: set[int] = set()  # the sets whose members are listed

    def target(self) -> Target:
        return replace(super().target(), job=self.selected, job_set=self.selected_set)

    def jobs_changed(self, jobs: tuple[Job, ...]) -> None:
        self.set_class(not jobs, "-empty")
        if jobs and self.focused is None:
            self.call_after_refresh(self._list.focus)
        self._show_list()
        self._show_detail()

    def _show_list(self) -> None:
        now = self.hvtui.now()
        rows: list[tuple[str, Line]] = []
        for entry in in_sets(self.hvtui.jobs):
            if isinstance(entry, Job):
                rows.append((str(entry.id), partial(_job_line, entry, now)))
                continue
            is_open = entry.id in self._opened
            rows.append((f"{_SET}{entry.id}", partial(_set_line, entry, now, is_open)))
            members = entry.jobs if is_open else ()
            rows += [(str(job.id), partial(_job_line, job, now, is_member=True)) for job in members]
        self._list.show_rows(rows)

    def on_option_list_option_highlighted(self, _message: OptionList.OptionHighlighted) -> None:
        self._show_detail()
        self.query_one("#detail", VerticalScroll).scroll_home(animate=False)

    def on_option_list_option_selected(self, _message: OptionList.OptionSelected) -> None:
        self.open_job()

    @property
    def selected(self) -> Job | None:
        """The job under the cursor."""
        chosen = self._list.chosen
        return next((job for job in self.hvtui.jobs if str(job.id) == chosen), None)

    @property
    def selected_set(self) -> JobSet | None:
        """The set of jobs under the cursor."""
        return self._set_of_row(self._list.chosen or "")

    def _set_of_row(self, key: str) -> JobSet | None:
        if not key.startswith(_SET):
            return None
        entries = in_sets(self.hvtui.jobs)
        return next((each for each in entries if isinstance(each, JobSet) and f"{_SET}{each.id}" == key), None)

    def open_job(self) -> None:
        """List the members of the set under the cursor, or no longer. Give a job the whole screen, or the list its
        place back."""
        if (job_set := self.selected_set) is not None:
            self._opened ^= {job_set.id}
            self._show_list()
            self._show_detail()
            return
        is_open = not self.has_class("-open") and self.selected is not None
        self.set_class(is_open, "-open")
        self.query_one("#detail" if is_open else "#rows").focus()

    def back(self) -> None:
        """Leave the opened job, then the opened set that it belongs to, then the screen."""
        if self.has_class("-open"):
            self.open_job()
        elif self.selected is not None and self.selected.set_id in self._opened:
            set_id = self.selected.set_id
            self._list.highlighted = self._list.get_option_index(f"{_SET}{set_id}")
            self._opened.discard(set_id)
            self._show_list()
        else:
            self.hvtui.back()

    async def cancel_job(self) -> None:
        """Ask the process that runs the job to stop and to roll back; give up an interrupted one. Of a set: all of it
        that is not over."""
        from host import job_sets, jobs

        if (job_set := self.selected_set) is not None:
            if await self._agreed(job_plans.plan_cancel_set(job_set)):
                await self.hvtui.bridge.call(job_sets.cancel_set, job_set.id, self.hvtui.services.journal)
                self.say(f"asked set {job_set.id} to stop", "warn")
                self.hvtui.bridge.watch_jobs()
            return
        job = self._chosen()
        if job is not None and await self._agreed(job_plans.plan_cancel(job)):
            cancelled = await self.hvtui.bridge.call(jobs.cancel, job.id, self.hvtui.services.journal)
            self.say(f"job {job.id} is given up" if cancelled.state.is_over else f"asked job {job.id} to stop", "warn")
            self.hvtui.bridge.watch_jobs()

    async def restart_job(self) -> None:
        """Continue a failed, cancelled or interrupted job with its first step that is not done. Of a set: run all of
        it that is not done."""
        if (job_set := self.selected_set) is not None:
            if await self._agreed(job_plans.plan_restart_set(job_set)):
                await self.hvtui.tell_set(await self.hvtui.bridge.restart_set(job_set))
            return
        job = self._chosen()
        if job is not None and await self._agreed(job_plans.plan_restart(job)):
            self._tell(await self.hvtui.bridge.restart_job(job))

    async def roll_back_job(self) -> None:
        """Take back what an interrupted job, or a failed one that kept it, made. Of a set: of all such members."""
        from host.jobs import plan_rollback
        from vm import steps as steps  # registers the verbs, which tell what is lost

        if (job_set := self.selected_set) is not None:
            left = [job for job in job_set.jobs if job_text.can_roll_back(job)]
            if left and await self._agreed(*(plan_rollback(job) for job in left)):
                await self.hvtui.tell_set(await self.hvtui.bridge.roll_back_all(left), done="rolled back")
            return
        job = self._chosen()
        if job is not None and await self._agreed(plan_rollback(job)):
            self._tell(await self.hvtui.bridge.roll_back_job(job))

    async def undo_job(self) -> None:
        """Take a finished job back, where its steps have an inverse; the plan is shown first. Of a set: all VMs' jobs
        that are done."""
        from hvtui.tui import undo_handlers

        if (job_set := self.selected_set) is not None:
            await undo_handlers.undo_all(self.hvtui, job_set.main)
            return
        if (job := self._chosen()) is not None:
            await undo_handlers.undo(self.hvtui, job)

    async def _agreed(self, *plans: Plan) -> bool:
        agreed = await self.hvtui.push_screen_wait(PlanScreen(plans))
        return bool(agreed)

    def _tell(self, job: Job) -> None:
        role = "good" if not job.error else "warn" if job.state is JobState.CANCELLED else "bad"
        self.say(f"job {job.id} {job.state.value}{f': {job.error}' if job.error else ''}", role)

    def _chosen(self) -> Job | None:
        if self.selected is None:
            self.say("no job is selected", "warn")
        return self.selected

    @property
    def _list(self) -> ChoiceList:
        return self.query_one("#rows", ChoiceList)

    def _show_detail(self) -> None:
        job, job_set = self.selected, self.selected_set
        rows: Iterable[Row] = job_text.job_rows(job, now=self.hvtui.now()) if job is not None else _EMPTY
        if job is not None and job.plan.also_on and job.state.is_over:
            from hvtui.tui.move_text import where_rows

            where = where_rows(job, self.hvtui.snapshots.values())
            rows = [*rows, row(), *where] if len(where) > 1 else rows
        if job_set is not None:
            rows = job_text.set_rows(job_set, now=self.hvtui.now())
        self.query_one("#text", Page).show(tuple(rows))
        self.query_one(Footer).show_target(self.target())


def _job_line(job: Job, now: datetime, width: int, is_member: bool = False) -> Content:
    return job_text.job_line(job, width=width, now=now, is_member=is_member)


def _set_line(job_set: JobSet, now: datetime, is_open: bool, width: int) -> Content:
    return job_text.set_line(job_set, width=width, now=now, is_open=is_open)
