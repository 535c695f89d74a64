"""The host of `hvtui --demo`: about 30 varied VMs on libvirt's test driver, with simulated rates and load.

Nothing real is read or changed: the driver lives in this process and forgets everything at its end. The counters are
functions of a VM's uuid and the time alone, so the same VM looks the same in each run. They are sums of waves whose
integrals are known, so they grow steadily and need no memory of earlier readings.
"""

from __future__ import annotations

import time
import zlib
from collections.abc import Collection
from dataclasses import dataclass, replace
from math import cos, sin, tau
from pathlib import Path
from typing import Any

import libvirt

from host.connection import Host, open_host
from host.load import HostLoad, replace_reader
from host.statistics import Sample
from vm.demo_world import DEMO_VMS, HOST_CPUS, HOST_MEMORY_BYTES, world

DEMO_NAME = "demo"
_DIRECTORY_PREFIX = "hvtui-demo-"
_HOST_OWN_MEMORY_BYTES = 6 * 1024**3
_HOST_OWN_CPU_PERCENT = 2.0
_BUSY = {vm.uuid: vm.busy for vm in DEMO_VMS}
_BUSY_OF_A_NEW_VM = 0.08
_MIB = 1024**2
_START_S = 1_000_000.0  # the counters begin long before any reading


def demo_host() -> Host:
    """The simulated host, open. The file that libvirt reads it from is private and gone when this returns."""
    import tempfile

    with tempfile.TemporaryDirectory(prefix=_DIRECTORY_PREFIX) as directory:
        file = Path(directory) / "world.xml"
        file.write_text(world(), encoding="utf-8")
        host = open_host(f"test://{file}", name=DEMO_NAME)
        with host.calls("open the simulated host", DEMO_NAME) as connection:
            for vm in DEMO_VMS:
                if vm.autostart:
                    connection.lookupByUUIDString(vm.uuid).setAutostart(1)
    replace_reader(host, simulated_load)
    return host


def is_demo(host: Host) -> bool:
    """True for a Host that demo_host opened."""
    return host.is_simulated and host.name == DEMO_NAME


def is_demo_uri(uri: str) -> bool:
    """True for the URI of a host that demo_host opened, in this process or another."""
    return f"/{_DIRECTORY_PREFIX}" in uri


def simulated_samples(
    connection: Any, uuids: Collection[str] | None = None, *, at_s: float | None = None
) -> dict[str, Sample]:
    """In place of host.statistics.read_samples, which gets only states from the test driver. `at_s` is a
    time.monotonic() instant, now if not given. Raises libvirtError: call it inside Host.calls."""
    instant_s = time.monotonic() if at_s is None else at_s
    domains = {
        domain.UUIDString(): domain for domain in connection.listAllDomains(libvirt.VIR_CONNECT_LIST_DOMAINS_ACTIVE)
    }
    chosen = domains if uuids is None else {uuid: domain for uuid, domain in domains.items() if uuid in uuids}
    return {uuid: _sample(uuid, domain, instant_s) for uuid, domain in chosen.items()}


def simulated_load(host: Host, *, at_s: float | None = None) -> HostLoad:
    """The load that the simulated VMs would make, with the figures of the simulated pool. Raises ConnectionLost."""
    with host.calls("read the host's load", host.name) as connection:
        samples = simulated_samples(connection, at_s=at_s)
        info = connection.storagePoolLookupByName("default").info()
    running = {uuid: sample for uuid, sample in samples.items() if sample.cpu_time_ns is not None}
    busy_cpus = sum(_Waves.of(uuid).share(sample.at_s) * sample.vcpus for uuid, sample in running.items())
    memory_bytes = sum(sample.memory_bytes or 0 for sample in samples.values())
    return HostLoad(
        cpu_percent=min(_HOST_OWN_CPU_PERCENT + 100.0 * busy_cpus / HOST_CPUS, 100.0),
        memory_used_bytes=min(memory_bytes + _HOST_OWN_MEMORY_BYTES, HOST_MEMORY_BYTES),
        memory_total_bytes=HOST_MEMORY_BYTES,
        disk_used_bytes=int(info[1] - info[3]),
        disk_total_bytes=int(info[1]),
    )


@dataclass(frozen=True, slots=True)
class _Waves:
    """A load that swings between 0 and 1: a mean, three waves of different length, and bursts. Its integral is the
    counter."""

    mean: float
    seed: int

    @classmethod
    def of(cls, uuid: str) -> _Waves:
        return cls(_BUSY.get(uuid, _BUSY_OF_A_NEW_VM), zlib.crc32(uuid.encode("ascii")))

    def _terms(self) -> list[tuple[float, float, float]]:
        """(height, angular speed, phase): the heights together stay below the mean and below what is free above."""
        room = min(self.mean, 1.0 - self.mean)
        lengths_s = (6.1, 17.3, 61.0, 307.0)
        shares = (0.22, 0.28, 0.25, 0.2)
        return [
            (room * share, tau / (length_s * (0.8 + 0.4 * _unit(self.seed, index))), tau * _unit(self.seed, index + 9))
            for index, (length_s, share) in enumerate(zip(lengths_s, shares, strict=True))
        ]

    def share(self, at_s: float) -> float:
        """The load at an instant, 0 to 1."""
        return self.mean + sum(height * sin(speed * at_s + phase) for height, speed, phase in self._terms())

    def integral(self, at_s: float) -> float:
        """The load summed up since the counters began, in seconds of full load."""
        waves = sum(-height / speed * cos(speed * at_s + phase) for height, speed, phase in self._terms())
        return self.mean * (at_s + _START_S) + waves


def _unit(seed: int, index: int) -> float:
    """A number from 0 to 1 that looks random and is always the same."""
    return zlib.crc32(index.to_bytes(2, "big"), seed) / 0xFFFFFFFF


def _sample(uuid: str, domain: Any, at_s: float) -> Sample:
    state, memory_max_kib, memory_kib, vcpus, _ = domain.info()
    memory_bytes = int(memory_kib) * 1024
    common = Sample(
        at_s=at_s,
        domain_id=domain.ID(),
        state=state,
        vcpus=vcpus,
        memory_bytes=memory_bytes,
        memory_max_bytes=int(memory_max_kib) * 1024,
    )
    if state != libvirt.VIR_DOMAIN_RUNNING:
        return common  # its counters stand still: no rates
    return _with_counters(common, uuid, memory_bytes)


def _with_counters(common: Sample, uuid: str, memory_bytes: int) -> Sample:
    waves = _Waves.of(uuid)
    work_s = waves.integral(common.at_s)
    # Reading, writing, receiving and sending follow the load, each VM with a taste of its own.
    read, write, receive, send = (int(work_s * _MIB * 24 * _unit(waves.seed, index) ** 3) for index in range(20, 24))
    waiting_ns = int(work_s * 1e9 * (0.04 if waves.mean > 0.6 else 0.004))
    used_share = 0.35 + 0.4 * _unit(waves.seed, 30) + 0.1 * waves.share(common.at_s)
    return replace(
        common,
        cpu_time_ns=int(work_s * common.vcpus * 1e9),
        vcpu_delays_ns=dict.fromkeys(range(common.vcpus), waiting_ns),
        disk_read_bytes=read,
        disk_write_bytes=write,
        net_receive_bytes=receive,
        net_send_bytes=send,
        memory_used_bytes=int(memory_bytes * used_share),
    )
