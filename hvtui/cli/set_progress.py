"""The progress of a set of jobs on standard error: one view that redraws itself on a terminal, else plain lines."""

from __future__ import annotations

import shutil

from host.job_model import Job, JobSet, JobState
from host.text import display_width, fit, printable
from hvtui.cli.change import Outcome
from hvtui.cli.output import complain, narrate
from hvtui.cli.progress import Progress, bar, held_up
from hvtui.outcome_sum import set_sum

MOST_LINES = 8  # of running members, below the bar
WIDEST_NAME = 24
MOST_NAMES = 5


class SetProgress:
    """Shows a set as it goes on; use it as a context manager. `told` are the jobs whose failure was told."""

    def __init__(self) -> None:
        self.told: set[int] = set()
        self._progress = Progress()
        self._over: set[int] | None = None
        self._held_up: set[int] = set()  # those of which that was told
        self._title = ""

    def __enter__(self) -> SetProgress:
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.clear()

    def show(self, jobs: tuple[Job, ...]) -> None:
        """Show the members as they are now: what ended since the last time is told for good."""
        job_set = JobSet(jobs)
        if not self._progress.redraws and not self._title:
            self._title = printable(job_set.title, limit=200)
            narrate(f"{self._title}: {_how_many(job_set)}")
        self._tell_ends(job_set)
        if not self._progress.redraws:
            self._tell_held_up(job_set)
        rows = shutil.get_terminal_size().lines
        self._progress.block(set_lines(job_set, most=min(MOST_LINES, max(rows - 2, 1))))

    def say(self, text: str) -> None:
        """Say something for good, in the view's place: it is drawn again below."""
        self._progress.clear()
        narrate(text)

    def _tell_ends(self, job_set: JobSet) -> None:
        ended = [job for job in job_set.jobs if job.state.is_over]
        first_look = self._over is None
        new = [job for job in ended if job.id not in (self._over or ())]
        self._over = {job.id for job in ended}  # one that was restarted may end again
        failed = [job for job in new if outcome_of(job).exit_code]
        if failed:
            self._progress.clear()
            self._complain(failed)
        if not self._progress.redraws and not first_look:
            for job in new:
                if job.state is JobState.DONE:
                    narrate(f"{name_of(job)}: done")

    def _tell_held_up(self, job_set: JobSet) -> None:
        for job in job_set.jobs:
            if job.id not in self._held_up and (why := held_up(job)):
                self._held_up.add(job.id)
                narrate(why)

    def _complain(self, failed: list[Job]) -> None:
        """Each reason once: what waits for a preparation that failed ends with the same words."""
        by_reason: dict[str, list[Job]] = {}
        for job in failed:
            by_reason.setdefault(job.error, []).append(job)
            self.told.add(job.id)
        for reason, jobs in by_reason.items():
            if len(jobs) == 1:
                complain(outcome_of(jobs[0]).complaint())
            else:
                more = f" and {len(jobs) - MOST_NAMES} more" if len(jobs) > MOST_NAMES else ""
                names = ", ".join(name_of(job) for job in jobs[:MOST_NAMES])
                complain(f"{names}{more}: {printable(reason, limit=600) or jobs[0].state.value}")


def outcome_of(job: Job) -> Outcome:
    """What became of a member, for a report."""
    return Outcome(job.vm_name or job.title, job.vm_uuid, job.plan, job)


def name_of(job: Job) -> str:
    """The member's VM; what it does, for a preparation."""
    return printable(job.vm_name or job.title, limit=80)


def set_lines(job_set: JobSet, *, most: int) -> list[str]:
    """The bar over the whole set, and a line for each member that runs, at most `most`."""
    head = f"{bar(job_set.progress)}{printable(job_set.title, limit=60)}  {set_sum(job_set)}"
    running = [job for job in job_set.jobs if job.state is JobState.RUNNING]
    shown = running if len(running) <= most else running[: most - 1]
    width = min(max((display_width(name_of(job)) for job in shown), default=0), WIDEST_NAME)
    lines = [head, *(_member_line(job, width) for job in shown)]
    return [*lines, f"  and {len(running) - len(shown)} more"] if len(shown) < len(running) else lines


def _member_line(job: Job, width: int) -> str:
    name, step = fit(name_of(job), width), job.current_step
    if step is None:
        return f"  {name}"
    share = f"  {step.fraction:.0%}" if step.fraction is not None else ""
    note = f"  {printable(step.note, limit=60)}" if step.note else ""
    return f"  {name}  {step.index + 1}/{len(job.steps)}  {printable(step.title, limit=60)}{share}{note}"


def _how_many(job_set: JobSet) -> str:
    first = f" after {len(job_set.preparations)} preparations" if len(job_set.preparations) > 1 else ""
    first = " after a preparation" if len(job_set.preparations) == 1 else first
    count = len(job_set.main)
    return f"{count} {'job' if count == 1 else 'jobs'}{first}, set {job_set.id}"
