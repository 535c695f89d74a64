"""Bulk statistics of the running VMs: counters read in one call, and rates made from two readings by a pure function.

Instants are time.monotonic(), so a step of the wall clock changes no rate. A counter that went down was reset (a new
QEMU process, a migration, an unplugged device): its rate is None for that interval instead of a wrong number.
Keys are those of virConnectGetAllDomainStats; one that a driver or a busy VM leaves out reads as None.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import libvirt

from host.rates import VmRates as VmRates
from host.rates import memory_used_bytes

GROUPS = (
    libvirt.VIR_DOMAIN_STATS_STATE
    | libvirt.VIR_DOMAIN_STATS_CPU_TOTAL
    | libvirt.VIR_DOMAIN_STATS_BALLOON
    | libvirt.VIR_DOMAIN_STATS_VCPU
    | libvirt.VIR_DOMAIN_STATS_INTERFACE
    | libvirt.VIR_DOMAIN_STATS_BLOCK
)
# Only running VMs have counters; one whose QEMU hangs must not hold up the others.
FLAGS = libvirt.VIR_CONNECT_GET_ALL_DOMAINS_STATS_ACTIVE | libvirt.VIR_CONNECT_GET_ALL_DOMAINS_STATS_NOWAIT


@dataclass(frozen=True, slots=True)
class Sample:
    """The counters of one VM at one monotonic instant, as libvirt counts them since its QEMU process began.

    `vcpu_delays_ns` holds, for each vCPU by number, the time it waited for a host CPU. `state` and `reason` are
    libvirt's numbers. Disk and network counters are sums over the VM's devices.
    """

    at_s: float
    domain_id: int = -1
    state: int = libvirt.VIR_DOMAIN_RUNNING
    reason: int = 0
    vcpus: int = 0
    cpu_time_ns: int | None = None
    vcpu_delays_ns: Mapping[int, int] | None = None
    disk_read_bytes: int | None = None
    disk_write_bytes: int | None = None
    net_receive_bytes: int | None = None
    net_send_bytes: int | None = None
    memory_bytes: int | None = None
    memory_max_bytes: int | None = None
    memory_used_bytes: int | None = None


def read_samples(connection: Any, uuids: Collection[str] | None = None) -> dict[str, Sample]:
    """A sample of each running VM by uuid (only of those in `uuids`, if given), in one call. Raises libvirtError: call
    it inside Host.calls."""
    records = connection.getAllDomainStats(GROUPS, FLAGS)
    at_s = time.monotonic()
    samples = {domain.UUIDString(): sample_of(values, at_s=at_s, domain_id=domain.ID()) for domain, values in records}
    return samples if uuids is None else {uuid: sample for uuid, sample in samples.items() if uuid in uuids}


def sample_of(values: Mapping[str, Any], *, at_s: float, domain_id: int = -1) -> Sample:
    """The Sample for one VM's record of typed parameters, whichever keys it has."""
    return Sample(
        at_s=at_s,
        domain_id=domain_id,
        state=values.get("state.state", libvirt.VIR_DOMAIN_NOSTATE),
        reason=values.get("state.reason", 0),
        vcpus=values.get("vcpu.current", 0),
        cpu_time_ns=values.get("cpu.time"),
        vcpu_delays_ns=_vcpu_delays(values),
        disk_read_bytes=_sum(values, "block", "rd.bytes"),
        disk_write_bytes=_sum(values, "block", "wr.bytes"),
        net_receive_bytes=_sum(values, "net", "rx.bytes"),
        net_send_bytes=_sum(values, "net", "tx.bytes"),
        memory_bytes=_kib(values, "balloon.current"),
        memory_max_bytes=_kib(values, "balloon.maximum"),
        memory_used_bytes=memory_used_bytes(values),
    )


def _vcpu_delays(values: Mapping[str, Any]) -> dict[int, int] | None:
    """vCPU numbers have gaps where one was unplugged, so the count of vCPUs does not bound them."""
    delays = {
        int(key.split(".")[1]): value for key, value in values.items() if key[:5] == "vcpu." and key[-6:] == ".delay"
    }
    return delays or None


def _sum(values: Mapping[str, Any], group: str, counter: str) -> int | None:
    """The sum over the group's devices; None when no device has that counter (an empty drive has none)."""
    found = [
        value
        for index in range(values.get(f"{group}.count", 0))
        if (value := values.get(f"{group}.{index}.{counter}")) is not None
    ]
    return sum(found) if found else None


def _kib(values: Mapping[str, Any], key: str) -> int | None:
    value = values.get(key)
    return None if value is None else int(value) * 1024


def rates(before: Sample | None, after: Sample) -> VmRates:
    """The rates between two samples of one VM. All None for the first sample, for another QEMU process than before,
    and for samples in the wrong order."""
    if before is None or before.domain_id != after.domain_id or after.at_s <= before.at_s:
        return VmRates()
    elapsed_s = after.at_s - before.at_s
    return VmRates(
        cpu_percent=_cpu_percent(before, after, elapsed_s),
        steal_percent=_steal_percent(before.vcpu_delays_ns, after.vcpu_delays_ns, elapsed_s),
        disk_read_bytes_s=_rate(before.disk_read_bytes, after.disk_read_bytes, elapsed_s),
        disk_write_bytes_s=_rate(before.disk_write_bytes, after.disk_write_bytes, elapsed_s),
        net_receive_bytes_s=_rate(before.net_receive_bytes, after.net_receive_bytes, elapsed_s),
        net_send_bytes_s=_rate(before.net_send_bytes, after.net_send_bytes, elapsed_s),
    )


def _rate(before: int | None, after: int | None, elapsed_s: float) -> float | None:
    if before is None or after is None or after < before:
        return None
    return (after - before) / elapsed_s


def _cpu_percent(before: Sample, after: Sample, elapsed_s: float) -> float | None:
    """QEMU's own threads count too, so that a busy guest may come to more than its vCPUs: capped at 100."""
    rate = _rate(before.cpu_time_ns, after.cpu_time_ns, elapsed_s)
    vcpus = max(before.vcpus, after.vcpus, 1)
    return None if rate is None else min(rate / 1e9 / vcpus * 100, 100.0)


def _steal_percent(before: Mapping[int, int] | None, after: Mapping[int, int] | None, elapsed_s: float) -> float | None:
    """The mean over the vCPUs that both samples know."""
    if before is None or after is None:
        return None
    waits = [_rate(before[number], after[number], elapsed_s) for number in after if number in before]
    known = [wait for wait in waits if wait is not None]
    return min(sum(known) / len(known) / 1e9 * 100, 100.0) if known else None
