"""The command lines that plans and jobs equal, as both front ends show them: harmless to show, and right to paste.

Pure, but for the environment and the names of hosts: the host is named unless a command would mean it anyway.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence

from host.connection import is_simulated_uri
from host.job_model import Job, JobSet
from host.plan import Plan, PlanSet
from host.text import printable
from hvtui.target import implied_uri

_names: dict[str, str] = {}  # of the hosts in the list, by URI


def name_hosts(names: Mapping[str, str]) -> None:
    """Have lines name hosts as the configuration does (`names` by URI) instead of by their URIs."""
    _names.clear()
    _names.update(names)


PROGRAM = ("hvtui", "--headless")


def command_line(meant: Plan | Job) -> str:
    """The line for a shell (bash, zsh) that does the same."""
    return _line(meant, meant.command)


def set_command_line(meant: PlanSet | JobSet) -> str:
    """The line that does the same as a whole set."""
    first = meant.jobs[0] if isinstance(meant, JobSet) else meant.plans[0]
    return _line(first, meant.command)


def command_lines(plans: Sequence[Plan]) -> list[str]:
    """One line for a host's plans that differ only in the VM's name, else one for each. Blocked plans are left out
    unless all are."""
    meant = [plan for plan in plans if not plan.blockers] or list(plans)
    hosts = dict.fromkeys(plan.host_uri for plan in meant)
    if len(hosts) > 1:
        return [line for uri in hosts for line in command_lines([plan for plan in meant if plan.host_uri == uri])]
    shapes = {tuple("" if word == plan.vm_name else word for word in plan.command) for plan in meant}
    shape = shapes.pop()
    if len(meant) < 2 or shapes or shape.count("") != 1:
        return [command_line(plan) for plan in meant]
    place = shape.index("")
    names = [plan.vm_name or "" for plan in meant]
    return [_line(meant[0], (*shape[:place], *names, *shape[place + 1 :]))]


def _line(meant: Plan | Job, command: Sequence[str]) -> str:
    names_its_host = command[:2] in {("host", "drain"), ("host", "resume")}
    there = () if names_its_host else _host_options(meant.host_uri, is_job=command[:1] == ("job",))
    return " ".join(_shell_word(word) for word in (*PROGRAM, *there, *command))


def _host_options(uri: str, *, is_job: bool) -> tuple[str, ...]:
    """A job of the journal knows its host by itself; those of the demo are in a journal of its own, and without
    --demo their numbers would mean others."""
    if uri == implied_uri():
        return ()
    if is_simulated_uri(uri):
        from vm.demo import is_demo_uri

        if is_demo_uri(uri):
            return ("--demo",)
    if is_job:
        return ()
    return ("--host", _names[uri]) if uri in _names else ("--connect", uri)


def _shell_word(word: str) -> str:
    """`word` quoted for a shell; one with hidden characters as $'…', in which each of them is spelled out."""
    if printable(word) == word:
        return shlex.quote(word)
    return "$'" + "".join(_spelled(char) for char in word) + "'"


def _spelled(char: str) -> str:
    if char in "\\'":
        return "\\" + char
    shown = printable(char)
    if shown == char:
        return char
    return f"\\u{ord(char):04x}" if ord(char) < 0x10000 else f"\\U{ord(char):08x}"
