"""Makes an hvtui process kill itself (SIGKILL) inside a step, at the same place each time, in the real program.

Python runs this file at start-up of a process that has this directory on its PYTHONPATH.
HVTUI_TEST_KILL_AFTER=VERB: right after the step's verb has done its work, before that is journalled.
HVTUI_TEST_KILL_AT=VERB:N: inside the verb, right after its Nth call into libvirt has returned; 0 is before any.
"""

from __future__ import annotations

import os
import signal
import sys
from dataclasses import replace
from typing import Any

from host import job_engine
from host.steps import StepVerb, verb_named

AFTER = os.environ.get("HVTUI_TEST_KILL_AFTER", "")
AT, _, CALLS = os.environ.get("HVTUI_TEST_KILL_AT", "").partition(":")


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _deadly(name: str) -> StepVerb:
    verb = verb_named(name)
    if name not in {AFTER, AT}:
        return verb

    def do(context: Any, args: Any) -> Any:
        if name == AT:
            _count_calls(int(CALLS))
        result = verb.do(context, args)
        sys.setprofile(None)
        if name == AFTER:
            _die()
        return result

    return replace(verb, do=do)


def _count_calls(left: int) -> None:
    if not left:
        _die()

    def count(_frame: object, event: str, function: Any) -> None:
        nonlocal left
        if event == "c_return" and getattr(function, "__module__", "") == "libvirtmod":
            left -= 1
            if not left:
                _die()

    sys.setprofile(count)


if AFTER or AT:
    job_engine.verb_named = _deadly
