"""The two lowest lines: what happened or runs, and the keys that apply to what is selected."""

from __future__ import annotations

from collections.abc import Sequence

from host.job_model import Job
from host.text import printable
from hvtui.tui import keymap
from hvtui.tui.actions import Target, actions_for
from hvtui.tui.themes import Palette
from hvtui.tui.widgets import charts
from hvtui.tui.widgets.lines import Line, Lines, Span, between, line_of, width_of

_ROLES = {"text": "text", "good": "good", "warn": "warn", "bad": "bad", "dim": "dim"}
_SIGNS = {"bad": "× ", "warn": "! "}


class StatusLine(Lines):
    """One line: the jobs that run, else what happened last."""

    def __init__(self) -> None:
        super().__init__()
        self._said: Span = ("", "text")
        self._jobs: tuple[Job, ...] = ()

    def say(self, text: str, role: str = "text") -> None:
        """Show `text` until something else is said; role is text, good, warn, bad or dim."""
        self._said = (printable(text, limit=400), _ROLES.get(role, "text"))
        self.repaint()

    def show_jobs(self, jobs: tuple[Job, ...]) -> None:
        """Show the progress of those that run."""
        running = tuple(job for job in jobs if not job.state.is_over)
        if running != self._jobs:
            self._jobs = running
            self.repaint()

    def paint(self, width: int, height: int, palette: Palette) -> Sequence[Line]:  # noqa: ARG002 - one line
        text, role = self._said
        said: list[Span] = [(f" {_SIGNS.get(role, '')}{text}", role)] if text else []
        if not self._jobs:
            return [line_of(between(said, [], width), width, palette)]
        if role == "bad":
            return [line_of(between(said, [(f"  {len(self._jobs)} running ", "dim")], width), width, palette)]
        return [line_of(job_spans(self._jobs, width), width, palette)]


def job_spans(jobs: Sequence[Job], width: int) -> list[Span]:
    """The oldest running job with its step, bar and note, and how many others run."""
    job = jobs[-1]
    step = job.current_step
    left: list[Span] = [(f" job {job.id}  ", "dim"), (printable(job.title, limit=40), "text")]
    if len(job.steps) > 1 and step is not None:
        left.append((f"   {step.index + 1} of {len(job.steps)}", "dim"))
    left += [("   ", "text"), (charts.bar(job.progress, 14), "chart"), (f" {job.progress:4.0%}", "text")]
    note = step.note if step is not None else ""
    if note:
        left.append((f"   {printable(note, limit=60)}", "dim"))
    more: list[Span] = [(f"  +{len(jobs) - 1} more ", "dim")] if len(jobs) > 1 else []
    return between(left, more, width)


class Footer(Lines):
    """One line of keys: those of the screen's actions that have a place in the footer and apply now."""

    def __init__(self, scopes: Sequence[str], *, help_key: str = "?") -> None:
        super().__init__()
        self._scopes = tuple(scopes)
        self._help_key = help_key
        self._target = Target()

    def show_target(self, target: Target) -> None:
        """Show the keys for these VMs."""
        self._target = target
        self.repaint()

    def paint(self, width: int, height: int, palette: Palette) -> Sequence[Line]:  # noqa: ARG002 - one line
        return [line_of(footer_spans(self._scopes, self._target, width, help_key=self._help_key), width, palette)]


def footer_spans(scopes: Sequence[str], target: Target, width: int, *, help_key: str = "?") -> list[Span]:
    """As many keys as fit, in the order of their footer places; help is always there."""
    actions = sorted((a for a in actions_for(scopes) if a.footer and a.applies(target)), key=lambda a: a.footer)
    help_spans: list[Span] = [(f" {help_key}", "key"), (" help ", "dim")]
    spans: list[Span] = []
    keys: set[str] = set()
    for action in actions:
        key = keymap.shown_key(action)
        if key in keys:
            continue  # it belongs to the action before
        keys.add(key)
        piece: list[Span] = [(f" {key}", "key"), (f" {action.title} ", "dim")]
        if width_of(spans) + width_of(piece) + width_of(help_spans) > width:
            break
        spans += piece
    return [*spans, *help_spans]
