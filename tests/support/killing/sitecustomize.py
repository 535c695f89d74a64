"""Makes an hvtui process kill itself (SIGKILL) right after a step's verb has done its work, before that is journalled.

Python runs this file at start-up of a process that has this directory on its PYTHONPATH and HVTUI_TEST_KILL_AFTER set
to a verb's name: the worst moment to die, at the same place each time, in the real program.
"""

from __future__ import annotations

import os
import signal
from dataclasses import replace
from typing import Any

from host import job_engine
from host.steps import StepVerb, verb_named

VERB = os.environ.get("HVTUI_TEST_KILL_AFTER", "")


def _deadly(name: str) -> StepVerb:
    verb = verb_named(name)
    if name != VERB:
        return verb

    def do(context: Any, args: Any) -> Any:
        verb.do(context, args)
        os.kill(os.getpid(), signal.SIGKILL)

    return replace(verb, do=do)


if VERB:
    job_engine.verb_named = _deadly
