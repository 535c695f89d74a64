"""Timing: monotonic clocks, medians, and contestants that take turns so that both see the same machine."""

from __future__ import annotations

import os
import statistics
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path


def run_s(command: Sequence[str], environment: Mapping[str, str] | None = None) -> float:
    """The wall time of one command, its output thrown away. Raises CalledProcessError."""
    started = time.monotonic()
    subprocess.run(
        command,
        check=True,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env=environment_with(environment or {}),
    )
    return time.monotonic() - started


def environment_with(more: Mapping[str, str]) -> dict[str, str]:
    """This process's environment and `more`. Python shall keep its compiled modules, as it does for a user."""
    own = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return {**own, **more}


def medians_s(contestants: Sequence[Callable[[], float]], runs: int) -> list[float]:
    """Each contestant's median; they take turns, after one round that does not count."""
    for contestant in contestants:
        contestant()
    rounds = [[contestant() for contestant in contestants] for _ in range(runs)]
    return [statistics.median(times) for times in zip(*rounds, strict=True)]


def cpu_s(pid: int) -> float:
    """The CPU time that every living thread of the process has used, in seconds, by the scheduler's own clock."""
    total_ns = 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        total_ns += int((task / "schedstat").read_text().split()[0])
    return total_ns / 1e9


def memory_mib(pid: int, field: str = "Rss") -> float:
    """The resident (Rss) or proportional (Pss) memory of the process."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) / 1024
    raise ValueError(f"no {field} of process {pid}")
