"""Remedies in this interface's own words: the key instead of the command that the service layer names. Pure."""

from __future__ import annotations

import re

from hvtui.tui import keymap
from hvtui.tui.actions import action_named

# Only what a key does just so: a command with options, or with a name that a shell would need quotes for, stays.
_COMMAND = re.compile(r"'hvtui (?:--headless )?(?:job (list|(?:\w+) \d+)|vm ([a-z-]+) [^'\s-][^'\s]*)'")
_SHOWN_BY_THE_LIST = frozenset({"list", "show", "watch"})


def in_keys(text: str) -> str:
    """`text` with each quoted hvtui command replaced by the key that does the same, where there is one."""
    return _COMMAND.sub(_key_for, text) if "'hvtui " in text else text


def _key_for(command: re.Match[str]) -> str:
    on_job, on_vm = command.groups()
    if on_vm is not None:
        return _key_of(f"vm.{on_vm}") or command[0]
    verb, _, number = on_job.partition(" ")
    jobs = _key_of("app.jobs")
    if verb in _SHOWN_BY_THE_LIST:
        return f"{jobs} (job {number})" if number else jobs
    key = _key_of(f"jobs.{verb}")
    return f"{key} on job {number} ({jobs})" if key else command[0]


def _key_of(action_id: str) -> str:
    """The key, else how the `:` line names it; empty when there is no such action."""
    action = action_named(action_id)
    return (keymap.shown_key(action) or f":{action.title}") if action is not None else ""
