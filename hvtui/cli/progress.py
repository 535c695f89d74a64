"""Progress on standard error: one line that redraws itself on a terminal, plain lines elsewhere."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Sequence

from host.job_model import HELD_UP, Job
from host.text import display_width, fit, printable
from hvtui.cli.output import narrate

BAR_CELLS = 20
LEAST_TEXT = 8  # cells: of less nothing can be read
_OWN_BAR = frozenset({"move.live"})  # nearly all of its job's time: the bar is that step's alone


class Progress:
    """What is under way. `show` may be called often; it writes only what changed. Use it as a context manager."""

    def __init__(self) -> None:
        self.redraws = sys.stderr.isatty() and os.environ.get("TERM") != "dumb"
        self._last = ""
        self._height = 1  # lines that were written and can be gone back to

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        self.clear()

    def show(self, text: str, fraction: float | None = None, *, detail: str = "") -> None:
        """`text` with a bar (fraction 0..1); `detail` changes often and is shown only where the line redraws."""
        line = self._line(text, fraction, detail) if self.redraws else text
        if line == self._last:
            return
        self._last = line
        if not self.redraws:
            narrate(line)
            return
        columns = shutil.get_terminal_size().columns
        self._write("\r" + fit(line, max(columns - 1, 10)).rstrip() + "\x1b[K")

    def _line(self, text: str, fraction: float | None, detail: str) -> str:
        """The figures of `detail` are what changes: where there is no room for all, they stay and the text is cut."""
        columns = max(shutil.get_terminal_size().columns - 1, 10)
        line = f"{bar(fraction)}{text}  {detail}".rstrip()
        if not detail or display_width(line) <= columns:
            return line
        start = bar(fraction, cells=BAR_CELLS // 2)
        left = columns - display_width(start) - display_width(detail) - 2
        return f"{start}{f'{fit(text, left)}  ' if left >= LEAST_TEXT else ''}{detail}"

    def bar_only(self, text: str, fraction: float) -> None:
        """As `show`, but silent where the line cannot redraw itself: a log needs no count."""
        if self.redraws:
            self.show(text, fraction)

    def block(self, lines: Sequence[str]) -> None:
        """Several lines that redraw themselves together; nothing where they cannot."""
        text = "\n".join(lines)
        if not self.redraws or text == self._last:
            return
        columns = shutil.get_terminal_size().columns
        fitted = [fit(line, max(columns - 1, 10)).rstrip() + "\x1b[K" for line in lines]
        self._write(f"{self._back()}{chr(10).join(fitted)}\x1b[J")
        self._last, self._height = text, len(lines)

    def clear(self) -> None:
        """Take the lines away, so that what follows starts at the left."""
        if self.redraws and self._last:
            self._write(self._back() + ("\x1b[K" if self._height == 1 else "\x1b[J"))
            self._last, self._height = "", 1

    def _back(self) -> str:
        """To the start of the first line that is to be written again."""
        return "\r" if self._height == 1 else f"\r\x1b[{self._height - 1}A"

    def _write(self, text: str) -> None:
        try:
            sys.stderr.write(text)
            sys.stderr.flush()
        except OSError:
            self.redraws = False


def bar(fraction: float | None, *, cells: int = BAR_CELLS) -> str:
    """ "▓▓▓▓░░░░  41%  ", or nothing while the total is not known."""
    if fraction is None:
        return ""
    share = min(max(fraction, 0.0), 1.0)
    full = int(share * cells)
    return f"{'▓' * full}{'░' * (cells - full)} {share:4.0%}  "


def _waits(job: Job) -> str:
    """How a job waits for its turn; only a plan with lanes makes one wait."""
    if job.is_paused:
        return "paused"
    return f"waits: {printable(job.waits_for, limit=100)}" if job.waits_for else ""


def held_up(job: Job) -> str:
    """Why a cancelled job goes on for a while; empty for one that does not."""
    step = job.current_step
    if step is None or step.note != HELD_UP or job.state.is_over:
        return ""
    return f"{printable(job.vm_name or job.title, limit=80)}: {step.note}"


def show_job(progress: Progress, job: Job) -> None:
    """A job's own line: its title, the step that runs, and how far it is."""
    step = job.current_step
    title = printable(job.title, limit=80)
    if step is None:
        progress.show(f"{title} ({waits})" if (waits := _waits(job)) else title, job.progress)
        return
    known = step.fraction is not None or len(job.steps) > 1
    step_title = printable(step.title, limit=100)
    progress.show(
        title if step_title == title else f"{title}: {step_title}",
        step.fraction if step.verb in _OWN_BAR else job.progress if known else None,
        detail=printable(step.note, limit=120),
    )
