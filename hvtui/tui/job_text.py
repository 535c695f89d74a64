"""Jobs as text for the jobs screen: pure functions from a frozen Job to styled Content. No widget here."""

from __future__ import annotations

import shlex
from datetime import UTC, datetime, timedelta

from textual.content import Content

from host.job_model import Job, JobState, JobStep, StepState
from host.text import fit, printable
from hvtui.tui.symbols import BAR_EMPTY, BAR_FULL

_BAR_CELLS = 14
_SYMBOLS = {
    JobState.QUEUED: "○",
    JobState.RUNNING: "◐",
    JobState.DONE: "✓",
    JobState.FAILED: "×",
    JobState.INTERRUPTED: "!",
    JobState.CANCELLED: "–",
    JobState.ROLLED_BACK: "←",
}
_STEP_SYMBOLS = {
    StepState.PENDING: "○",
    StepState.RUNNING: "◐",
    StepState.DONE: "✓",
    StepState.FAILED: "×",
    StepState.UNDONE: "←",
}
_STYLES = {
    JobState.RUNNING: "$text-accent",
    JobState.DONE: "$text-success",
    JobState.FAILED: "$text-error",
    JobState.INTERRUPTED: "$text-warning",
    JobState.CANCELLED: "$text-muted",
    JobState.ROLLED_BACK: "$text-muted",
}


def bar(fraction: float, *, cells: int = _BAR_CELLS) -> str:
    """A progress bar of exactly `cells` characters for 0..1."""
    full = round(max(0.0, min(fraction, 1.0)) * cells)
    return BAR_FULL * full + BAR_EMPTY * (cells - full)


def job_line(job: Job, *, width: int) -> Content:
    """One line of `width` cells: number, state, bar while it runs, title, age and user."""
    tail = f" {printable(job.user, limit=12)}  {_age(job)} "
    state = _SYMBOLS[job.state] + " " + fit(job.state.value, 11)
    middle = f"{bar(job.progress)} {job.progress:4.0%}  " if not job.state.is_over else ""
    head = f"{job.id:>6}  "
    room = max(width - len(head) - len(state) - 1 - len(middle) - len(tail), 8)
    title = fit(printable(job.title, limit=200), room)
    return Content.assemble(
        head, (state, _STYLES.get(job.state, "")), " ", (middle, "$text-accent"), title, (tail, "$text-muted")
    )


def job_content(job: Job) -> Content:
    """Everything about one job: steps with progress, what went wrong and what to do, the command."""
    lines = [Content.styled(f" {printable(job.title)}", "bold")]
    if job.error:
        lines.append(Content.styled(f" {printable(job.error)}", "$text-error"))
    if job.remedy:
        lines.append(Content.styled(f" {printable(job.remedy)}", "$text-warning"))
    lines += [_step_line(step) for step in job.steps]
    took = f"   took {_duration(job.finished_at - job.started_at)}" if job.finished_at and job.started_at else ""
    started = f"{job.created_at.astimezone():%Y-%m-%d %H:%M:%S}"
    lines.append(Content.styled(f" by {printable(job.user)}  {started}{took}", "$text-muted"))
    command = printable(shlex.join(("hvtui", "--headless", *job.command)))
    lines.append(Content.styled(f" same as: {command}", "$text-muted"))
    return Content("\n").join(lines)


def _step_line(step: JobStep) -> Content:
    text = f"  {_STEP_SYMBOLS[step.state]} {step.index + 1}  {printable(step.title)}"
    if step.state is StepState.RUNNING:
        progress = "preparing" if step.fraction is None else f"{bar(step.fraction)} {step.fraction:4.0%}"
        text += f"   {progress}"
    note = printable(step.error or step.note, limit=120)
    style = "$text-error" if step.state is StepState.FAILED else ""
    if not note:
        return Content.styled(text, style) if style else Content(text)
    return Content.assemble((text, style), "   ", (note, style or "$text-muted"))


def _age(job: Job) -> str:
    moment = job.finished_at or job.started_at or job.created_at
    age = datetime.now(UTC) - moment
    if age < timedelta(days=1):
        return f"{moment.astimezone():%H:%M:%S}"
    return f"{moment.astimezone():%Y-%m-%d}"


def _duration(span: timedelta) -> str:
    seconds = span.total_seconds()
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, seconds = divmod(int(seconds), 60)
    return f"{minutes} min {seconds} s"
