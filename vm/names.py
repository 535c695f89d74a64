"""What a VM may be called: libvirt's own rules, and what keeps its files, lists and scripts in order. Pure."""

from __future__ import annotations

from host.errors import UsageError
from host.text import printable

NAME_RULE = "Use letters, digits, spaces and punctuation, but none of / * ? ["
LONGEST_NAME_BYTES = 200  # NAME_VARS.fd, NAME-swtpm.log: a file name has at most 255 bytes


def name_problem(name: str) -> str:
    """Why `name` cannot be a VM's name; empty when it can."""
    if not name.strip():
        return "it is empty"
    if name != name.strip():
        return "it begins or ends with a space"
    if printable(name) != name:
        return "it holds control or invisible characters"
    if "/" in name:
        return "it holds a slash, which no file name can"
    if any(char in name for char in "*?["):
        return "it holds * ? or [, which stand for other characters where commands name VMs"
    if name in {".", ".."}:
        return "it is the name of a directory"
    if len(name.encode()) > LONGEST_NAME_BYTES:
        return f"it is longer than {LONGEST_NAME_BYTES} bytes"
    return ""


def check_name(name: str) -> str:
    """`name` itself when a new VM may have it. Raises UsageError."""
    problem = name_problem(name)
    if problem:
        shown = printable(name, limit=60)
        raise UsageError(f"{shown!r} cannot be a VM's name: {problem}", remedy=NAME_RULE)
    return name
