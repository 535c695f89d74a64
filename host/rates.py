"""The rates of one VM, as host.statistics works them out, and what it shares with the list of VMs. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class VmRates:
    """Rates between two samples; None where a counter was reset or is not known. `cpu_percent` is of all vCPUs:
    100 means every vCPU busy; `steal_percent` is the share of time the vCPUs waited for a host CPU."""

    cpu_percent: float | None = None
    steal_percent: float | None = None
    disk_read_bytes_s: float | None = None
    disk_write_bytes_s: float | None = None
    net_receive_bytes_s: float | None = None
    net_send_bytes_s: float | None = None


def memory_used_bytes(values: Mapping[str, Any]) -> int | None:
    """What the guest of these statistics of libvirt uses, told by its balloon driver: without caches where
    it tells `usable`, as `free` does. None where it tells nothing."""
    available = values.get("balloon.available")
    free = values.get("balloon.usable", values.get("balloon.unused"))
    return None if available is None or free is None else max(int(available) - int(free), 0) * 1024
