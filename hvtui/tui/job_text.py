"""Jobs as text for the jobs screen: pure functions from a frozen Job to a line or rows. No widget here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from textual.content import Content

from host.job_model import Job, JobSet, JobState, JobStep, StepState
from host.job_rules import what_now
from host.text import display_width, fit, printable
from hvtui.outcome_sum import set_sum
from hvtui.same_as import command_line, set_command_line
from hvtui.tui import keymap, plan_text
from hvtui.tui.actions import Target, action_named
from hvtui.tui.key_words import in_keys
from hvtui.tui.widgets.charts import bar
from hvtui.tui.widgets.page import Row, row

_LIVE = "move.live"
_BAR_CELLS = 14
_SET_BAR_CELLS = 24
_MOST_NAMES = 4
_STATE_CELLS = 12
_LONGEST = 400
HEAD = f"{'JOB':>5}  {'  STATE':<{_STATE_CELLS + 2}}WHAT"
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
    JobState.QUEUED: "$text-muted",
    JobState.RUNNING: "$text-accent",
    JobState.DONE: "$text-success",
    JobState.FAILED: "$text-error",
    JobState.INTERRUPTED: "bold $text-warning",
    JobState.CANCELLED: "$text-muted",
    JobState.ROLLED_BACK: "$text-muted",
}


def can_cancel(job: Job | JobSet) -> bool:
    """It is alive, or it was interrupted and can be given up."""
    return not job.state.is_over or job.state is JobState.INTERRUPTED


def can_restart(job: Job | JobSet) -> bool:
    """It ended without being done."""
    return job.state.is_over and job.state is not JobState.DONE


def can_roll_back(job: Job | JobSet) -> bool:
    """Something that it made may still be there."""
    if isinstance(job, JobSet):
        return job.state.is_over and any(can_roll_back(member) for member in job.jobs)
    made = any(step.has_begun for step in job.steps)
    return made and (job.state is JobState.INTERRUPTED or (job.kept and job.state.is_over))


def can_pause(job: Job | JobSet) -> bool:
    """Some of it waits for its turn."""
    return any(each.state is JobState.QUEUED for each in (job.jobs if isinstance(job, JobSet) else (job,)))


def is_live_move(job: Job | JobSet) -> bool:
    """A job whose live migration is under way: it can be steered."""
    step = job.current_step if isinstance(job, Job) and job.state is JobState.RUNNING else None
    return step is not None and step.verb == _LIVE and step.state is StepState.RUNNING


def can_postcopy(job: Job | JobSet) -> bool:
    """A live migration that was begun with the permission to go on as post-copy."""
    return is_live_move(job) and isinstance(job, Job) and _live_args(job).get("postcopy") is True


def can_go_quick(job: Job | JobSet) -> bool:
    """A live migration whose plan has Quick Migration to fall back to."""
    return is_live_move(job) and isinstance(job, Job) and _live_args(job).get("quick_follows") is True


def _live_args(job: Job) -> Mapping[str, Any]:
    return next((step.args for step in job.plan.steps if step.verb == _LIVE), {})


def is_stuck(job: Job | JobSet) -> bool:
    """A live migration that does not come to an end by itself."""
    step = job.current_step if isinstance(job, Job) else None
    return is_live_move(job) and step is not None and "does not come to an end" in step.note


def stuck_words(job: Job) -> str:
    """What may be done about a live migration that does not come to an end."""
    keys = [f"jobs.{verb}" for verb in ("quick", "postcopy", "downtime", "cancel")]
    ways = [_key_words(each).plain for each in keys if _applies(each, job)]
    jobs = action_named("app.jobs")
    return f"does not come to an end · {keymap.shown_key(jobs) if jobs is not None else ''} then {', '.join(ways)}"


def can_undo(job: Job) -> bool:
    """It is done and was not taken back yet; whether its steps have an inverse is told by its plan."""
    return job.state is JobState.DONE and job.undone_by is None


def ways_out(job: Job | JobSet) -> tuple[str, ...]:
    """The ids of the actions for a job that was left halfway, or for a set that is not complete, best first; empty when
    nothing is left of it."""
    is_halfway = can_restart(job) if isinstance(job, JobSet) else job.state is JobState.INTERRUPTED or job.kept
    if not is_halfway:
        return ()
    choices = (("jobs.restart", can_restart), ("jobs.rollback", can_roll_back), ("jobs.cancel", can_cancel))
    return tuple(action_id for action_id, applies in choices if applies(job))


def job_line(job: Job, *, width: int, now: datetime, is_member: bool = False) -> Content:
    """One line of `width` cells: number, state, title, then progress while it runs, what to press when it was left
    halfway, else who and when. A member of an opened set stands below it, a little to the right."""
    title = f"  {job.title}" if is_member else job.title
    return _line(job, title, _tail(job, width, now), width)


def set_line(job_set: JobSet, *, width: int, now: datetime, is_open: bool) -> Content:
    """One line for a whole set: an arrow that shows whether its members are below, the total bar while it runs."""
    done = f"{job_set.counts[JobState.DONE]} of {len(job_set.main)}"
    arrow = "↓" if is_open else "→"
    last = job_set.jobs[-1] if not job_set.state.is_over else max(job_set.jobs, key=_ended_at)
    tail = Content.assemble((f"{done}  ", "$text-muted"), _tail(job_set, width, now, last))
    return _line(job_set, f"{arrow} {job_set.title}", tail, width)


def _line(job: Job | JobSet, title: str, tail: Content, width: int) -> Content:
    symbol, word, style = _state_words(job)
    state = f"{symbol} {fit(word, _STATE_CELLS)}"
    head = f"{job.id:>5}  "
    room = max(width - len(head) - display_width(state) - display_width(tail.plain) - 1, 8)
    strong = job.state in {JobState.RUNNING, JobState.INTERRUPTED}
    title = fit(printable(title, limit=200), room)
    return Content.assemble((head, "$text-muted"), (state, style), (title, "bold" if strong else ""), " ", tail)


def _ended_at(job: Job) -> datetime:
    return job.finished_at or job.created_at


def _state_words(job: Job | JobSet) -> tuple[str, str, str]:
    """The symbol, the word and the style of a state; what other jobs took back is not just done."""
    jobs = job.main if isinstance(job, JobSet) else (job,)
    if job.state is JobState.DONE and all(each.undone_by is not None for each in jobs):
        return _SYMBOLS[JobState.ROLLED_BACK], "undone", "$text-muted"
    return _SYMBOLS[job.state], job.state.value, _STYLES[job.state]


def waits_alone(job: Job | JobSet) -> bool:
    """It is queued for itself: members of a set wait for their turn in it."""
    return isinstance(job, Job) and job.state is JobState.QUEUED and job.set_id is None


def waiting_words(job: Job) -> str:
    """What a queued job waits for."""
    if job.cancel_requested:
        return "is cancelled in its turn"
    if job.is_paused:
        return "paused"
    return f"waits: {printable(job.waits_for, limit=60)}" if job.waits_for else "waits for a free slot"


def _tail(job: Job | JobSet, width: int, now: datetime, last: Job | None = None) -> Content:
    if isinstance(job, Job) and job.state is JobState.QUEUED and (waits_alone(job) or job.is_paused or job.waits_for):
        return Content.styled(f"{waiting_words(job)} ", "$text-muted")
    if not job.state.is_over:
        cells = _BAR_CELLS if width >= 76 else 6
        return Content.assemble((bar(job.progress, cells), "$text-accent"), f" {job.progress:4.0%} ")
    if keys := [_key_words(action_id) for action_id in ways_out(job)[:2]]:
        return Content.assemble(Content("  ").join(keys), " ")
    told = job.jobs[-1] if isinstance(job, JobSet) else job
    user = fit(printable(told.user, limit=12), 8) if width >= 76 else ""
    return Content.styled(f"{user} {_when(last or told, now):>10} ", "$text-muted")


def job_rows(job: Job, *, now: datetime) -> list[Row]:
    """Everything about one job: what went wrong and what to press, the steps with progress, the command."""
    rows = [row(printable(job.title, limit=_LONGEST), style="bold", indent=1), *_state_rows(job, now)]
    rows += [*(_move_rows(job) if job.plan.also_on else ()), row()]
    above = len(rows)
    if job.error:
        rows.append(row(printable(job.error, limit=_LONGEST), mark="×", style="$text-error"))
    if job.remedy and job.remedy != what_now(job):
        rows.append(row(printable(in_keys(job.remedy), limit=_LONGEST), style="$text-muted"))
    rows += _ways_out_rows(job)
    if len(rows) > above:
        rows.append(row())
    rows += _step_rows(job.steps)
    command = printable(command_line(job), limit=_LONGEST)
    margin = Content.styled("     same as  ", "$text-muted")
    return [*rows, row(), Row(Content.styled(command, "$text-muted"), margin, 14)]


def _move_rows(job: Job) -> list[Row]:
    """What can be done with a live move that is under way; of one that is done, its figures beside the forecast."""
    from hvtui.tui.move_text import figure_rows

    keys = [f"jobs.{verb}" for verb in ("bandwidth", "downtime", "postcopy", "quick", "cancel")]
    offered = [_key_words(each) for each in keys if _applies(each, job)] if job.state is JobState.RUNNING else []
    return [row(Content("   ").join(offered), indent=1)] if len(offered) > 1 else figure_rows(job)


def _applies(action_id: str, job: Job) -> bool:
    action = action_named(action_id)
    return action is not None and action.applies(Target(job=job))


def set_rows(job_set: JobSet, *, now: datetime) -> list[Row]:
    """Everything about a set: how far it is, why members failed, what to press, each member in a line, the command."""
    symbol, word, style = _state_words(job_set)
    first = job_set.jobs[0]
    who = f"by {printable(first.user, limit=40)}   {first.created_at.astimezone():%Y-%m-%d %H:%M:%S}"
    span = (max(map(_ended_at, job_set.jobs)) if job_set.state.is_over else now) - first.created_at
    took = f"   {'took' if job_set.state.is_over else 'for'} {_duration(span)}"
    rows = [
        row(printable(job_set.title, limit=_LONGEST), style="bold", indent=1),
        row(Content.assemble((f"{symbol} {word}", style), (f"   {set_sum(job_set)}{took}", "$text-muted")), indent=1),
        row(who, style="$text-muted", indent=1),
    ]
    if not job_set.state.is_over:
        share = f"{bar(job_set.progress, _SET_BAR_CELLS)} {job_set.progress:4.0%}"
        rows.append(row(Content.styled(share, "$text-accent"), indent=1))
    rows += [row(), *_failure_rows(job_set), *_set_ways_out_rows(job_set)]
    rows += [row()] if len(rows) > 5 else []
    rows += [_member_row(job) for job in job_set.jobs]
    command = printable(set_command_line(job_set), limit=_LONGEST)
    return [
        *rows,
        row(),
        Row(Content.styled(command, "$text-muted"), Content.styled("     same as  ", "$text-muted"), 14),
    ]


def _failure_rows(job_set: JobSet) -> list[Row]:
    """Each reason once, with those that it ended."""
    by_reason: dict[str, list[str]] = {}
    for job in job_set.jobs:
        if job.error and job.state in {JobState.FAILED, JobState.INTERRUPTED}:
            by_reason.setdefault(job.error, []).append(_name(job))
    return [
        row(f"{', '.join(names[:_MOST_NAMES])}{' …' if len(names) > _MOST_NAMES else ''}: "
            f"{printable(reason, limit=_LONGEST)}" if not reason.startswith(names[0]) or len(names) > 1
            else printable(reason, limit=_LONGEST), mark="×", style="$text-error")
        for reason, names in by_reason.items()
    ]  # fmt: skip


def _set_ways_out_rows(job_set: JobSet) -> list[Row]:
    words: Mapping[str, str] = {
        "jobs.restart": "run all of it that is not done",
        "jobs.rollback": "take back what was left halfway",
        "jobs.cancel": "give up what was left halfway: it stays, and its VMs are free for other jobs",
    }
    return [
        row(Content.assemble(_key_words(action_id), (f": {words[action_id]}", "$text-muted")))
        for action_id in ways_out(job_set)
    ]


def _member_row(job: Job) -> Row:
    symbol, word, style = _state_words(job)
    parts: list[tuple[str, str]] = [(_name(job), "" if job.state is not JobState.QUEUED else "$text-muted")]
    step = job.current_step
    if job.state is JobState.RUNNING and step is not None:
        share = f" {step.fraction:.0%}" if step.fraction is not None else ""
        note = f" {step.note}" if step.note else ""
        words = f"   {step.index + 1} of {len(job.steps)} {step.title}{share}{note}"
        parts.append((printable(words, limit=_LONGEST), "$text-accent"))
    elif job.state is JobState.QUEUED:
        parts.append((f"   {waiting_words(job)}", "$text-muted"))
    elif job.state is not JobState.DONE:
        parts.append((f"   {word}", "$text-muted"))
    return Row(Content.assemble(*parts), Content.styled(f"  {symbol}  ", style))


def _name(job: Job) -> str:
    return printable(job.vm_name or job.title, limit=60)


def _state_rows(job: Job, now: datetime) -> list[Row]:
    span = (job.finished_at or now) - (job.started_at or job.created_at)
    took = f"   {'took' if job.state.is_over else 'for'} {_duration(span)}" if job.started_at else ""
    undone = f"   undone by job {job.undone_by}" if job.undone_by is not None else ""
    symbol, word, style = _state_words(job)
    state = (f"{symbol} {word}", style)
    who = f"by {printable(job.user, limit=40)}   {job.created_at.astimezone():%Y-%m-%d %H:%M:%S}"
    waits = f"   {waiting_words(job)}" if waits_alone(job) else ""
    return [
        row(Content.assemble(state, (f"{waits}{took}{undone}", "$text-muted")), indent=1),
        row(who, style="$text-muted", indent=1),
    ]


def _ways_out_rows(job: Job) -> list[Row]:
    words: Mapping[str, str] = {
        "jobs.restart": "go on with the first step that is not done",
        "jobs.rollback": "take back what it made",
        "jobs.cancel": "give it up: what it made stays, and its VM is free for other jobs",
    }
    return [
        row(Content.assemble(_key_words(action_id), (f": {words[action_id]}", "$text-muted")))
        for action_id in ways_out(job)
        if job.state is JobState.INTERRUPTED or action_id != "jobs.cancel"
    ]


def _key_words(action_id: str) -> Content:
    action = action_named(action_id)
    if action is None:
        return Content("")
    return Content.assemble((keymap.shown_key(action), "bold $accent"), f" {action.title}")


def _step_rows(steps: Sequence[JobStep]) -> list[Row]:
    """A row each; those that a live move did not come to in one."""
    instead = [step for step in steps if step.title.startswith(plan_text.INSTEAD)]
    is_folded = len(instead) > 1 and len({(step.state, step.note, step.error) for step in instead}) == 1
    if not is_folded:
        return [_step_row(step) for step in steps]
    first = replace(instead[0], title=plan_text.instead_words(len(instead)))
    return [_step_row(first if step is instead[0] else step) for step in steps if step not in instead[1:]]


def _step_row(step: JobStep) -> Row:
    style = {StepState.FAILED: "$text-error", StepState.PENDING: "$text-muted", StepState.UNDONE: "$text-muted"}
    parts: list[tuple[str, str]] = [(printable(step.title, limit=_LONGEST), style.get(step.state, ""))]
    if step.state is StepState.RUNNING:
        known = f"   {bar(step.fraction, _BAR_CELLS)} {step.fraction:4.0%}" if step.fraction is not None else ""
        parts.append((known or ("" if step.note else "   preparing"), "$text-accent"))
    note = printable(step.error or step.note, limit=_LONGEST)
    if note and step.state is not StepState.PENDING:
        parts.append((f"   {note}", "$text-error" if step.error else "$text-muted"))
    mark_style = {StepState.DONE: "$text-success", StepState.FAILED: "$text-error", StepState.RUNNING: "$text-accent"}
    mark = Content.styled(f"  {_STEP_SYMBOLS[step.state]}  ", mark_style.get(step.state, "$text-muted"))
    return Row(Content.assemble(*parts), mark)


def _when(job: Job, now: datetime) -> str:
    moment = job.finished_at or job.started_at or job.created_at
    if now - moment < timedelta(days=1):
        return f"{moment.astimezone():%H:%M:%S}"
    return f"{moment.astimezone():%Y-%m-%d}"


def _duration(span: timedelta) -> str:
    seconds = max(span.total_seconds(), 0.0)
    if seconds < 0.1:
        return "under 0.1 s"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, seconds = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {seconds} s"
