"""Runs the steps of one claimed job, and rolls them back: the only code that calls the verbs of host.steps.

What it guarantees: a step is journalled as begun before its verb is called; whatever a verb raises ends as a readable
error of the job; what a failed or cancelled job made is rolled back in reverse, unless it is to be kept (by the user's
wish, or because the error says so); a step that loses the connection runs again when the connection is back. When the
journal itself cannot be written it stops where it is and raises JournalFailed: the job is then found interrupted, and
can be restarted or rolled back.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import libvirt

from host import secrets
from host.connection import Host, open_host
from host.errors import Cancelled, ConnectionLost, Denied, HvtuiError, NotFound, translate
from host.job_codec import from_text, to_text
from host.job_model import Job, JobState, JobStep, StepState
from host.job_rules import interrupted, needs_secrets
from host.job_schema import ClaimLost, JournalFailed
from host.journal import Journal
from host.steps import StepContext, verb_named
from host.text import printable

_log = logging.getLogger(__name__)
_T = TypeVar("_T")
OnUpdate = Callable[[Job], None]


@dataclass(frozen=True, slots=True)
class Patience:
    """How long to wait for what, in seconds. `attempts` bounds how often one step runs: a step that itself breaks the
    connection must not do so for ever."""

    reconnect_s: float = 60.0
    first_delay_s: float = 0.5
    longest_delay_s: float = 8.0
    attempts: int = 3
    progress_every_s: float = 0.25
    cancel_every_s: float = 0.25


PATIENCE = Patience()


class Work:
    """One job under way in this process: the job as it is now, what of it is not yet written, and who wants to see."""

    def __init__(
        self,
        job: Job,
        claim: str,
        *,
        host: Host,
        journal: Journal,
        on_update: OnUpdate | None = None,
        patience: Patience = PATIENCE,
    ) -> None:
        self.job = job
        self._claim = claim
        self._host = host
        self._journal = journal
        self._on_update = on_update
        self._patience = patience
        self._lock = threading.RLock()  # a verb may report progress from a thread of its own
        self._unwritten: set[int] = set()
        self._written_at_s = float("-inf")
        self._asked_at_s = float("-inf")
        self._cancelled = False
        self._link_is_down = False
        self._peers: dict[str, Host] = {}

    def close(self) -> None:
        """Close the connections to other hosts that steps have opened."""
        with self._lock:
            peers, self._peers = list(self._peers.values()), {}
        for peer in peers:
            peer.close()

    def change(self, **changes: Any) -> None:
        """Change fields of the job, in memory."""
        with self._lock:
            self.job = replace(self.job, **changes)

    def change_step(self, index: int, **changes: Any) -> None:
        """Change fields of a step, in memory."""
        with self._lock:
            steps = list(self.job.steps)
            steps[index] = replace(steps[index], **changes)
            self.job = replace(self.job, steps=tuple(steps))
            self._unwritten.add(index)

    def write(self) -> None:
        """Journal everything that changed, and show it."""
        with self._lock:
            self._journal.save(self.job, self._claim, steps=sorted(self._unwritten))
            self._unwritten.clear()
            self._written_at_s = time.monotonic()
            job = self.job
        if self._on_update is not None:
            self._on_update(job)

    def prepare(self) -> None:
        """Look, before anything is changed, that every step can run."""
        for step in self._left():
            verb_named(step.verb)
            if secrets.missing(self._args(step.index), job_id=self.job.id, state=self._state):
                remedy = "A job's secrets are removed when it is over: give the command again"
                raise NotFound("a secret of this job is gone", remedy=remedy)
        self.change(error="", remedy="", exit_code=0)

    def forward(self) -> None:
        """Run every step that is not done yet."""
        for step in self._left():
            cancellable = not self.has_handed_over
            if cancellable and self.is_cancelled():
                raise Cancelled("cancelled by the user")
            self._begin(step.index)
            result = self._insist(step.index, self._do(step.index, cancellable=cancellable), cancellable=cancellable)
            journalled = from_text(to_text(result))  # what a restart in another process would see
            self.change_step(step.index, state=StepState.DONE, fraction=1.0, note="", result=journalled)
            self._written_at_s = time.monotonic()  # it is written with the next step's beginning, or with the end

    def backward(self, step: JobStep) -> None:
        """Roll one step back. A failed one stays marked as the one that failed."""
        self.change_step(step.index, note="rolling back", fraction=None)
        self.write()
        rollback = verb_named(step.verb).rollback
        if rollback is not None:
            args, result = self._resolved(self._args(step.index)), self._resolved(step.result)
            context = self._context(step.index, cancellable=False)
            with _a_vm_that_is_gone_needs_no_rollback():
                self._insist(step.index, lambda: rollback(context, args, result), cancellable=False)
        has_failed = step.state is StepState.FAILED
        self.change_step(step.index, state=StepState.FAILED if has_failed else StepState.UNDONE, note="rolled back")

    def end(self, state: JobState, **changes: Any) -> Job:
        """The job is over: journal it, and remove its secrets when nobody needs them any more."""
        self.change(state=state, finished_at=datetime.now(UTC), **changes)
        self.write()
        if not needs_secrets(self.job):
            try:
                secrets.remove(self.job.id, state=self._state)
            except HvtuiError:
                _log.warning("job %d: its secrets stay until the next look at the journal", self.job.id)
        return self.job

    def is_cancelled(self) -> bool:
        """True once anybody asked to cancel; looks into the journal a few times a second."""
        self._write_if_due()
        now_s = time.monotonic()
        if not self._cancelled and now_s - self._asked_at_s >= self._patience.cancel_every_s:
            self._asked_at_s = now_s
            with suppress(JournalFailed):
                self._cancelled = self._journal.is_cancel_requested(self.job.id)
        return self._cancelled

    def problem(self, error: BaseException) -> HvtuiError:
        """Any exception as an error that a user can be told about. An unexpected one leaves its traceback in a file."""
        if isinstance(error, HvtuiError):
            return error
        if isinstance(error, KeyboardInterrupt):
            return Cancelled("interrupted from the keyboard")
        if isinstance(error, libvirt.libvirtError):
            return translate(error, "do this step")
        if isinstance(error, OSError) and error.strerror:
            kind = Denied if isinstance(error, PermissionError) else HvtuiError
            return kind(error.strerror, about=str(error.filename or ""))
        path = self._journal.log_path(self.job.id)
        _leave_traceback(error, path)
        text = printable(f"{type(error).__name__}: {error}", limit=300)
        return HvtuiError(f"an error of hvtui itself: {text}", remedy=f"Please report it with {path}")

    @property
    def _state(self) -> Path:
        return self._journal.path.parent

    def _left(self) -> list[JobStep]:
        return [step for step in self.job.steps if step.state is not StepState.DONE]

    def _args(self, index: int) -> Any:
        return self.job.plan.steps[index].args

    def _resolved(self, data: Any) -> Any:
        return secrets.resolve(data, job_id=self.job.id, state=self._state)

    def _begin(self, index: int) -> None:
        self.change_step(index, state=StepState.RUNNING, fraction=None, note="", error="", result=None)
        self.write()
        self._written_at_s = float("-inf")  # the first progress of a step is shown at once

    @property
    def has_handed_over(self) -> bool:
        """True once a step has done what no later one may take back (StepVerb.hands_over)."""
        done = (step for step in self.job.steps if step.state is StepState.DONE and step.result is not None)
        verbs = ((verb_named(step.verb).hands_over, step.result) for step in done)
        return any(hands_over is not None and hands_over(dict(result or {})) for hands_over, result in verbs)

    def _do(self, index: int, *, cancellable: bool) -> Callable[[], Any]:
        verb, args = verb_named(self.job.steps[index].verb), self._resolved(self._args(index))
        context = self._context(index, cancellable=cancellable)
        return lambda: verb.do(context, args)

    def _context(self, index: int, *, cancellable: bool) -> StepContext:
        def progress(fraction: float | None, note: str) -> None:
            share = None if fraction is None else min(max(float(fraction), 0.0), 1.0)
            self.change_step(index, fraction=share, note=note)
            self._write_if_due()

        is_cancelled = self.is_cancelled if cancellable else lambda: False
        return StepContext(self._host, self.job.id, progress, is_cancelled, peer=self._peer, wishes=self._wishes)

    def _peer(self, uri: str) -> Host:
        """The other host at `uri`, the same one for all steps."""
        if uri == self._host.uri:
            return self._host
        with self._lock:
            if uri not in self._peers:
                self._peers[uri] = open_host(uri)
            return self._peers[uri]

    def _wishes(self) -> Mapping[str, str]:
        try:
            return self._journal.wishes(self.job.id)
        except JournalFailed:
            return {}

    def _write_if_due(self) -> None:
        """Progress is worth a few commits a second, and never worth the step that reports it."""
        if not self._unwritten or time.monotonic() - self._written_at_s < self._patience.progress_every_s:
            return
        try:
            self.write()
        except ClaimLost:
            raise
        except JournalFailed as error:
            self._written_at_s = time.monotonic()
            _log.warning("job %d: progress was not journalled: %s", self.job.id, error)

    def _insist(self, index: int, action: Callable[[], _T], *, cancellable: bool) -> _T:
        """`action`, again after each loss of the connection, when it is back."""
        for _ in range(self._patience.attempts - 1):
            try:
                return action()
            except ConnectionLost as lost:
                self._reconnect(index, lost, cancellable=cancellable)
        return action()

    def _reconnect(self, index: int, lost: ConnectionLost, *, cancellable: bool) -> None:
        # Whoever cancelled because nothing answers does not want to wait for it once more before the rollback.
        patience_s = 0.0 if self._link_is_down else self._patience.reconnect_s
        started_s, delay_s = time.monotonic(), self._patience.first_delay_s
        self._link_is_down = True
        while True:
            self.change_step(index, note="connection lost, reconnecting")
            self._write_if_due()
            try:
                for host in (self._host, *self._peers.values()):
                    with host.calls("reconnect") as connection:
                        connection.getLibVersion()
                self._link_is_down = False
                return
            except ConnectionLost:
                if time.monotonic() - started_s >= patience_s:
                    cause = f"{lost.cause}, and the connection did not come back within {patience_s:g} s"
                    raise ConnectionLost(cause, about=lost.about, remedy=lost.remedy) from lost
            self._pause(delay_s, cancellable=cancellable)
            delay_s = min(delay_s * 2, self._patience.longest_delay_s)

    def _pause(self, delay_s: float, *, cancellable: bool) -> None:
        until_s = time.monotonic() + delay_s
        while (left_s := until_s - time.monotonic()) > 0:
            if cancellable and self.is_cancelled():
                raise Cancelled("cancelled by the user while the connection was lost")
            time.sleep(min(left_s, self._patience.cancel_every_s))


@contextmanager
def _a_vm_that_is_gone_needs_no_rollback() -> Iterator[None]:
    try:
        yield
    except (NotFound, libvirt.libvirtError) as error:
        cause = error.__cause__ if isinstance(error, NotFound) else error
        if not isinstance(cause, libvirt.libvirtError) or cause.get_error_code() != libvirt.VIR_ERR_NO_DOMAIN:
            raise


def run_steps(work: Work) -> Job:
    """Run what is left of a job that this process has claimed. Returns it as DONE, FAILED, CANCELLED or INTERRUPTED.
    Raises JournalFailed."""
    try:
        work.prepare()
        work.forward()
    except JournalFailed:
        raise
    except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001 - the runner's outer edge: a verb may raise anything
        return _fail(work, work.problem(error))
    return work.end(JobState.DONE)


def roll_back(work: Work) -> Job:
    """Take back what a job left, as the user asked. Returns it as ROLLED_BACK or INTERRUPTED. Raises JournalFailed."""
    problem = _undo_all(work)
    if problem is not None:
        return _stop(work, problem)
    for step in work.job.steps:
        if step.has_begun:
            work.change_step(step.index, state=StepState.UNDONE)
    return work.end(JobState.ROLLED_BACK, remedy="", exit_code=0, kept=False)


def _fail(work: Work, problem: HvtuiError) -> Job:
    for step in work.job.steps:
        if step.state is StepState.RUNNING:
            work.change_step(step.index, state=StepState.FAILED, fraction=None, error=_told(problem))
    work.change(error=_told(problem), remedy=problem.remedy, exit_code=problem.exit_code)
    if isinstance(problem, ConnectionLost):
        return _stop(work, None)
    state = JobState.CANCELLED if isinstance(problem, Cancelled) else JobState.FAILED
    if work.job.keep_failed or problem.keeps or work.has_handed_over:
        return work.end(state, kept=any(step.has_begun for step in work.job.steps))
    failed_too = _undo_all(work)
    return work.end(state) if failed_too is None else _stop(work, failed_too)


def _undo_all(work: Work) -> HvtuiError | None:
    """Roll everything back, last step first. Stops at the first that fails: what came before may depend on it."""
    for step in reversed(work.job.steps):
        if not step.has_begun:
            continue
        try:
            work.backward(step)
        except JournalFailed:
            raise
        except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001 - the runner's outer edge, as in run_steps
            problem = work.problem(error)
            told = f"rolling back “{step.title}” failed: {_told(problem)}"
            work.change_step(step.index, state=StepState.FAILED, note="", error=told)
            return HvtuiError(told, remedy=problem.remedy)
    return None


def _stop(work: Work, rollback_problem: HvtuiError | None) -> Job:
    """End as INTERRUPTED, with everything that went wrong."""
    if rollback_problem is not None and rollback_problem.cause not in work.job.error:
        work.change(error="; ".join(filter(None, (work.job.error, rollback_problem.cause))))
    stopped = interrupted(work.job, "")
    remedies = filter(None, (rollback_problem.remedy if rollback_problem else work.job.remedy, stopped.remedy))
    remedy = ". ".join(dict.fromkeys(remedies))
    return work.end(JobState.INTERRUPTED, error=stopped.error, remedy=remedy, exit_code=stopped.exit_code)


def _told(problem: HvtuiError) -> str:
    return f"{problem.about}: {problem.cause}" if problem.about else problem.cause


def _leave_traceback(error: BaseException, path: Path) -> None:
    import traceback

    text = "".join(traceback.format_exception(error))
    with suppress(OSError):
        path.parent.mkdir(mode=0o700, exist_ok=True)
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        with os.fdopen(handle, "w", encoding="utf-8", errors="backslashreplace") as file:
            file.write(text)
