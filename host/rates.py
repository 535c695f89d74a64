"""The rates of one VM, as host.statistics works them out. Data only."""

from __future__ import annotations

from dataclasses import dataclass


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
