"""How busy a host is now: its CPU, memory and the file system of its images. Reads only.

The local host is read from the kernel (psutil), any other one through libvirt. A statistic that a host does not give
is None. CPU load is a difference between two readings: the counters of the reading before are kept for each Host. The
file system is read again only after DISK_AGAIN_S.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from weakref import WeakKeyDictionary

import libvirt

from host.errors import ConnectionLost, HvtuiError

if TYPE_CHECKING:
    from host.connection import Host

SYSTEM_IMAGES = Path("/var/lib/libvirt/images")
SESSION_IMAGES = Path(".local/share/libvirt/images")  # below the home directory
DEFAULT_POOL = "default"
DISK_AGAIN_S = 20.0  # a file system fills slowly, and asking for it is half of the work of a reading

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class HostLoad:
    """One reading. `cpu_percent` is 0..100 over all CPUs since the reading before; None where it is not known."""

    cpu_percent: float | None = None
    memory_used_bytes: int | None = None
    memory_total_bytes: int | None = None
    disk_used_bytes: int | None = None
    disk_total_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class CpuTimes:
    """CPU time since the host's start, over all CPUs, in any one unit."""

    busy: float
    idle: float


_Pair = tuple[int | None, int | None]
_UNKNOWN: _Pair = (None, None)
_before: WeakKeyDictionary[Host, CpuTimes] = WeakKeyDictionary()
_replaced: WeakKeyDictionary[Host, Callable[[Host], HostLoad]] = WeakKeyDictionary()
_disks: WeakKeyDictionary[Host, tuple[float, _Pair]] = WeakKeyDictionary()  # when it was read (monotonic), and what
_lock = threading.Lock()


def replace_reader(host: Host, reader: Callable[[Host], HostLoad]) -> None:
    """Let `reader` answer for `host`: a simulated host's own driver has no load to tell."""
    _replaced[host] = reader


def read_load(host: Host, *, settle_s: float = 0.0) -> HostLoad:
    """The load of `host`. The first reading of a Host has no CPU load, unless `settle_s` (seconds) is given: then it
    waits that long between two readings. Raises ConnectionLost; a missing statistic is None."""
    if host in _replaced:
        return _replaced[host](host)
    is_from_kernel = host.is_local and not host.is_simulated
    read_cpu = _local_cpu if is_from_kernel else _remote_cpu
    if settle_s > 0 and host not in _before:
        _cpu_percent(host, read_cpu(host))
        time.sleep(settle_s)
    cpu_percent = _cpu_percent(host, read_cpu(host))
    memory = local_memory(host) or _remote_memory(host)
    return HostLoad(cpu_percent, *memory, *_disk(host, is_from_kernel=is_from_kernel))


def _disk(host: Host, *, is_from_kernel: bool) -> _Pair:
    now_s = time.monotonic()
    read_s, pair = _disks.get(host, (-inf, _UNKNOWN))
    if now_s >= read_s + DISK_AGAIN_S:
        pair = _local_disk(images_directory(host.uri)) if is_from_kernel else _remote_disk(host)
        _disks[host] = (now_s, pair)
    return pair


def images_directory(uri: str) -> Path:
    """Where libvirt's default pool keeps the images of a local host (the user's own for a session)."""
    return Path.home() / SESSION_IMAGES if uri.endswith("/session") else SYSTEM_IMAGES


def busy_percent(before: CpuTimes | None, after: CpuTimes | None) -> float | None:
    """The busy share in percent between two readings; None when one is missing, or the counters did not
    grow."""
    if before is None or after is None:
        return None
    busy = after.busy - before.busy
    idle = max(after.idle - before.idle, 0.0)  # the kernel's iowait may go down a little (proc(5))
    if busy < 0 or busy + idle == 0:
        return None
    return 100.0 * busy / (busy + idle)


def _cpu_percent(host: Host, after: CpuTimes | None) -> float | None:
    with _lock:
        before = _before.get(host)
        if after is None:
            _before.pop(host, None)
        else:
            _before[host] = after
    return busy_percent(before, after)


def _psutil() -> Any:
    import psutil  # imported only where a local host's load is asked for: it costs start-up time

    return psutil


def _local_cpu(_host: Host) -> CpuTimes | None:
    times = _psutil().cpu_times()
    idle = times.idle + getattr(times, "iowait", 0.0)
    # guest and guest_nice are part of user and nice already.
    fields = ("user", "nice", "system", "irq", "softirq", "steal")
    return CpuTimes(busy=sum(getattr(times, name, 0.0) for name in fields), idle=idle)


def local_memory(host: Host) -> tuple[int, int] | None:
    """The used and the total memory of a local host in bytes, as its kernel tells; None for any other. libvirt adds up
    the NUMA cells that it sees, which in a container or a small virtual machine may be far less than there is."""
    if not host.is_local or host.is_simulated:
        return None
    memory = _psutil().virtual_memory()
    return int(memory.total - memory.available), int(memory.total)


def _local_disk(directory: Path) -> _Pair:
    for place in (directory, *directory.parents):
        try:
            usage = _psutil().disk_usage(str(place))
        except OSError:
            continue  # not made yet, or not traversable for this user: its parent tells the file system
        return int(usage.used), int(usage.total)
    return _UNKNOWN


def _ask(host: Host, call: Callable[[libvirt.virConnect], _T]) -> _T | None:
    try:
        with host.calls("read the host's load", host.name) as connection:
            return call(connection)
    except ConnectionLost:
        raise
    except HvtuiError:
        return None


def _remote_cpu(host: Host) -> CpuTimes | None:
    stats = _ask(host, lambda connection: connection.getCPUStats(libvirt.VIR_NODE_CPU_STATS_ALL_CPUS, 0))
    if not stats or "idle" not in stats:
        return None
    idle = stats["idle"] + stats.get("iowait", 0)
    return CpuTimes(busy=sum(stats.get(name, 0) for name in ("user", "kernel", "intr")), idle=idle)


def _remote_memory(host: Host) -> _Pair:
    kib = _ask(host, lambda connection: connection.getMemoryStats(libvirt.VIR_NODE_MEMORY_STATS_ALL_CELLS, 0))
    if kib and "total" in kib:
        unused = sum(kib.get(name, 0) for name in ("free", "buffers", "cached"))
        return (kib["total"] - unused) * 1024, kib["total"] * 1024
    return _ask(host, _memory_by_difference) or _UNKNOWN


def _memory_by_difference(connection: libvirt.virConnect) -> _Pair:
    total_bytes = int(connection.getInfo()[1]) * 1024**2
    return max(total_bytes - int(connection.getFreeMemory()), 0), total_bytes


def _remote_disk(host: Host) -> _Pair:
    def pool_info(connection: libvirt.virConnect) -> list[Any]:
        return list(connection.storagePoolLookupByName(DEFAULT_POOL).info())

    info = _ask(host, pool_info)
    if not info or not info[1] or info[3] > info[1]:
        return _UNKNOWN  # not running, or (thin pools) promised more than it has
    _state, total_bytes, _allocated, available_bytes = info
    return int(total_bytes - available_bytes), int(total_bytes)
