"""Processes by pid and start time, so that a number that was given to another process meanwhile is never killed."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path


def start_time(pid: int) -> int:
    """When the process was started, in the kernel's ticks; 0 when there is no such process or it is a zombie."""
    try:
        words = (Path("/proc") / str(pid) / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0
    return 0 if words[0] in "ZX" else int(words[19])


def kill(pid: int, started: int) -> None:
    """SIGKILL to the process of that start time, if it is there."""
    if pid and started and start_time(pid) == started:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def namespace_of(pid: int) -> int:
    """The PID namespace that the process is in; 0 when it is gone."""
    try:
        return (Path("/proc") / str(pid) / "ns/pid").stat().st_ino
    except OSError:
        return 0


def processes() -> Iterator[int]:
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            yield int(entry.name)


def command_name(pid: int) -> str:
    """The first 15 characters of the program's name; empty when the process is gone or a zombie."""
    if not start_time(pid):
        return ""
    with contextlib.suppress(OSError):
        return (Path("/proc") / str(pid) / "comm").read_text().strip()
    return ""


def parent(pid: int) -> int:
    with contextlib.suppress(OSError, IndexError):
        return int((Path("/proc") / str(pid) / "stat").read_text().rpartition(")")[2].split()[1])
    return 0


def memory_bytes(pid: int) -> int:
    """The process's share of the memory it uses (PSS); 0 when it is gone."""
    with contextlib.suppress(OSError):
        for line in (Path("/proc") / str(pid) / "smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    return 0
