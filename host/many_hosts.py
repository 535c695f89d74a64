"""One question to many hosts at once: each is asked on a thread of its own, and one that is late delays no other.

A host that does not answer in time is an answer too: its error says so, and its thread is left behind (a daemon
thread: it ends with the process or with the host's close).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Generic, TypeVar

from host.connection import Host
from host.errors import HvtuiError, TimedOut

Found = TypeVar("Found")


@dataclass(frozen=True, slots=True)
class Answer(Generic[Found]):
    """What one host answered: `value`, or the `error` in its place. `took_s` is the time until then."""

    host: Host
    value: Found | None
    error: HvtuiError | None
    took_s: float


def ask_all(hosts: Sequence[Host], question: Callable[[Host], Found], *, timeout_s: float) -> tuple[Answer[Found], ...]:
    """Every host's answer to one question, as `ask_each` gives them."""
    return ask_each([(host, partial(question, host)) for host in hosts], timeout_s=timeout_s)


def ask_each(questions: Sequence[tuple[Host, Callable[[], Found]]], *, timeout_s: float) -> tuple[Answer[Found], ...]:
    """The answers in the order of `questions`, after `timeout_s` at the latest. Each question runs on a thread of its
    own; it may raise HvtuiError."""
    began_s = time.monotonic()
    changed = threading.Condition()
    answers: dict[int, Answer[Found]] = {}

    def ask(place: int, host: Host, question: Callable[[], Found]) -> None:
        value: Found | None = None
        error: HvtuiError | None = HvtuiError("an internal error, told on standard error", about=host.name)
        try:
            value, error = question(), None
        except HvtuiError as problem:
            error = problem
        finally:
            with changed:
                answers[place] = Answer(host, value, error, time.monotonic() - began_s)
                changed.notify()

    for place, (host, question) in enumerate(questions):
        threading.Thread(target=ask, args=(place, host, question), name=f"ask-{host.name}", daemon=True).start()
    with changed:
        changed.wait_for(lambda: len(answers) == len(questions), timeout_s)
        told = dict(answers)
    return tuple(told.get(place) or _late(host, timeout_s) for place, (host, _) in enumerate(questions))


def _late(host: Host, timeout_s: float) -> Answer[Found]:
    remedy = "Is it frozen or overloaded? --timeout gives it more time"
    return Answer(host, None, TimedOut(f"no answer within {timeout_s:g} s", about=host.name, remedy=remedy), timeout_s)
