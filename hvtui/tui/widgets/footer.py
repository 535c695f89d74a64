"""The two lowest lines: what happened or runs, and the keys that apply to what is selected."""

from __future__ import annotations

from collections.abc import Sequence

from host.job_model import Job, JobSet, JobState, JobStep, in_sets
from host.text import printable
from hvtui.tui import keymap
from hvtui.tui.actions import Target, actions_for
from hvtui.tui.job_text import is_live_move, is_stuck, stuck_words, waiting_words, waits_alone
from hvtui.tui.themes import Palette
from hvtui.tui.widgets import charts
from hvtui.tui.widgets.lines import Line, Lines, Span, between, line_of, width_of

_ROLES = {"text": "text", "good": "good", "warn": "warn", "bad": "bad", "dim": "dim"}
SAID_S = 10.0  # how long what was said is shown
_SIGNS = {"bad": "× ", "warn": "! "}


class StatusLine(Lines):
    """One line: what somebody types into now is told, else what was said lately, else the jobs that run."""

    def __init__(self) -> None:
        super().__init__()
        self._said: Span = ("", "text")
        self._standing: Span = ("", "text")
        self._jobs: tuple[Job | JobSet, ...] = ()

    def show_said(self, text: str, role: str = "text") -> None:
        """Show `text` until this is called again (the app says what, and for how long); role is text, good, warn, bad
        or dim."""
        self._said = _span(text, role)
        self.repaint()

    def stand(self, text: str, role: str = "text") -> None:
        """Show `text` before anything else until this is called again: what belongs to a line being typed."""
        self._standing = _span(text, role)
        self.repaint()

    def show_jobs(self, jobs: tuple[Job, ...]) -> None:
        """Show the progress of those that run; a set of them counts as one."""
        running = tuple(job for job in in_sets(jobs) if not job.state.is_over)
        if running != self._jobs:
            self._jobs = running
            self.repaint()

    def paint(self, width: int, height: int, palette: Palette) -> Sequence[Line]:  # noqa: ARG002 - one line
        text, role = self._standing if self._standing[0] else self._said
        said: list[Span] = [(f" {_SIGNS.get(role, '')}{text}", role)] if text else []
        if not self._jobs:
            return [line_of(between(said, [], width), width, palette)]
        if text:
            return [line_of(between(said, [(f"  {_counts(self._jobs)} ", "dim")], width), width, palette)]
        return [line_of(job_spans(self._jobs, width), width, palette)]


def _span(text: str, role: str) -> Span:
    return printable(text, limit=400), _ROLES.get(role, "text")


def job_spans(jobs: Sequence[Job | JobSet], width: int) -> list[Span]:
    """The oldest running job with its step, bar and note (or a set with its count and bar), and how many others run."""
    job = jobs[-1]
    left = _set_spans(job) if isinstance(job, JobSet) else _job_spans(job)
    others = [each for each in jobs[:-1] if not waits_alone(each)]
    waiting = len(jobs) - 1 - len(others)
    words = [f"+{len(others)} more"] if others else []
    words += [f"{waiting} wait{'' if waiting > 1 else 's'}"] if waiting else []
    more: list[Span] = [(f"  {', '.join(words)} ", "dim")] if words else []
    return between(left, more, width)


def _counts(jobs: Sequence[Job | JobSet]) -> str:
    """ "4 running, 26 wait"."""
    waiting = sum(waits_alone(job) for job in jobs)
    words = [f"{len(jobs) - waiting} running"] if len(jobs) > waiting else []
    words += [f"{waiting} wait{'' if waiting > 1 else 's'}"] if waiting else []
    return ", ".join(words)


def _set_spans(job_set: JobSet) -> list[Span]:
    counts = job_set.counts
    left: list[Span] = [(f" set {job_set.id}  ", "dim"), (printable(job_set.title, limit=40), "text")]
    left.append((f"   {counts[JobState.DONE]} of {len(job_set.main)}", "dim"))
    left += [("   ", "text"), (charts.bar(job_set.progress, 14), "chart"), (f" {job_set.progress:4.0%}", "text")]
    failed = counts[JobState.FAILED] + counts[JobState.INTERRUPTED]
    return [*left, (f"   {failed} failed", "bad")] if failed else left


def _job_spans(job: Job) -> list[Span]:
    step = job.current_step
    left: list[Span] = [(f" job {job.id}  ", "dim"), (printable(job.title, limit=40), "text")]
    if is_stuck(job):
        return [*left, (f"   {stuck_words(job)}", "warn")]
    if is_live_move(job) and step is not None:
        return [*left[:1], (f"{printable(job.title.partition(' (')[0], limit=40)}  ", "text"), *_step_spans(step)]
    if waits_alone(job):
        return [*left, (f"   {waiting_words(job)}", "dim")]
    if len(job.steps) > 1 and step is not None:
        left.append((f"   {step.index + 1} of {len(job.steps)}", "dim"))
    if len(job.steps) > 1 or step is None or step.fraction is not None:
        left += [("   ", "text"), (charts.bar(job.progress, 14), "chart"), (f" {job.progress:4.0%}", "text")]
    note = step.note if step is not None else ""
    if note:
        left.append((f"   {printable(note, limit=120)}", "dim"))
    return left


def _step_spans(step: JobStep) -> list[Span]:
    """Phase, what remains, rates and downtime so far are what one wants to see of a move."""
    share: list[Span] = (
        [(charts.bar(step.fraction, 6), "chart"), (f" {step.fraction:4.0%}", "text")] if step.fraction else []
    )
    return [*share, (f"  {printable(step.note, limit=120)}", "dim")]


class Footer(Lines):
    """One line of keys: those of the screen's actions that have a place in the footer and apply now."""

    def __init__(self, scopes: Sequence[str], *, help_key: str = "?") -> None:
        super().__init__()
        self._scopes = tuple(scopes)
        self._help_key = help_key
        self._target = Target()
        self._typing: tuple[Span, ...] = ()

    def show_typing(self, *hints: tuple[str, str]) -> None:
        """While letters go into a line: show only these keys with what they do; without any, the usual ones again."""
        self._typing = tuple(span for key, words in hints for span in ((f" {key}", "key"), (f" {words} ", "dim")))
        self.repaint()

    def show_target(self, target: Target) -> None:
        """Show the keys for these VMs."""
        self._target = target
        self.repaint()

    def paint(self, width: int, height: int, palette: Palette) -> Sequence[Line]:  # noqa: ARG002 - one line
        if self._typing:
            return [line_of(self._typing, width, palette)]
        return [line_of(footer_spans(self._scopes, self._target, width, help_key=self._help_key), width, palette)]


def footer_spans(scopes: Sequence[str], target: Target, width: int, *, help_key: str = "?") -> list[Span]:
    """As many keys as fit, in the order of their footer places; help is always there."""
    actions = sorted((a for a in actions_for(scopes) if a.footer and a.applies(target)), key=lambda a: a.footer)
    help_spans: list[Span] = [(f" {help_key}", "key"), (" help ", "dim")]
    spans: list[Span] = []
    keys: set[str] = set()
    for action in actions:
        key = keymap.shown_key(action)
        if not key or key in keys:
            continue  # it has none, or it belongs to the action before
        keys.add(key)
        piece: list[Span] = [(f" {key}", "key"), (f" {action.title} ", "dim")]
        if width_of(spans) + width_of(piece) + width_of(help_spans) > width:
            break
        spans += piece
    return [*spans, *help_spans]
