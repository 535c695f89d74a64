"""How busy a host is now: its CPU, memory and the file system of its images. Reads only."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class HostLoad:
    """One reading. `cpu_percent` is 0..100 over all CPUs since the reading before; None where it is not known."""

    cpu_percent: float | None = None
    memory_used_bytes: int | None = None
    memory_total_bytes: int | None = None
    disk_used_bytes: int | None = None
    disk_total_bytes: int | None = None
