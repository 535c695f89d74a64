"""What every running VM did lately, for the charts: a snapshot has the history of its CPUs only. No calls, no files."""

from __future__ import annotations

from array import array
from collections.abc import Collection
from dataclasses import dataclass

from host.load import HostLoad
from vm.model import Snapshot, Vm

POINTS = 120  # as many as the widest chart has cells
MOST_VMS = 1000  # beyond it only the VMs that are looked at are remembered
_SERIES = 6


@dataclass(frozen=True, slots=True)
class RateHistory:
    """Recent values of one VM, newest last: percent of its CPUs and of its memory, and bytes a second."""

    cpu: tuple[float, ...] = ()
    memory: tuple[float, ...] = ()
    receive: tuple[float, ...] = ()
    send: tuple[float, ...] = ()
    read: tuple[float, ...] = ()
    write: tuple[float, ...] = ()

    @property
    def net(self) -> tuple[float, ...]:
        """Received and sent together."""
        return tuple(map(sum, zip(self.receive, self.send, strict=True)))

    @property
    def disk(self) -> tuple[float, ...]:
        """Read and written together."""
        return tuple(map(sum, zip(self.read, self.write, strict=True)))


class RateHistories:
    """Remembers the newest values of each running VM; forgets a VM that stops."""

    def __init__(self) -> None:
        # By host and uuid; one row of _SERIES values after the other.
        self._values: dict[str, dict[str, array[float]]] = {}
        self._loads: dict[str, HostLoad] = {}

    def take(self, snapshot: Snapshot, *, looked_at: Collection[str] = ()) -> None:
        """Add the values of `snapshot`, if they were measured since the last one: each measurement has a load of its
        own, what an event made known has not."""
        host = snapshot.host_name
        if snapshot.load is self._loads.get(host):
            return
        self._loads[host] = snapshot.load
        many = len(snapshot.vms) > MOST_VMS
        old = self._values.get(host, {})
        self._values[host] = {
            vm.uuid: _with_newest(old.get(vm.uuid), vm)
            for vm in snapshot.vms
            if vm.rates.cpu_percent is not None and (not many or vm.uuid in looked_at)
        }

    def of(self, vm: Vm | None) -> RateHistory:
        """The history of a VM; an empty one where nothing was recorded."""
        if vm is None or not vm.is_active:
            return RateHistory()
        of_host = self._values.get(vm.host) or next(iter(self._values.values()), {})  # of the only one there is
        values = of_host.get(vm.uuid, array("f"))
        cpu, *others = (tuple(values[place::_SERIES]) for place in range(_SERIES))
        return RateHistory(cpu if len(cpu) > len(vm.cpu_history) else vm.cpu_history, *others)


def _with_newest(values: array[float] | None, vm: Vm) -> array[float]:
    rates = vm.rates
    used, total = vm.memory_used_bytes or 0, vm.memory_bytes or vm.memory_max_bytes
    newest = (
        rates.cpu_percent,
        100 * used / total if total else 0.0,
        rates.net_receive_bytes_s,
        rates.net_send_bytes_s,
        rates.disk_read_bytes_s,
        rates.disk_write_bytes_s,
    )
    values = array("f") if values is None else values
    values.extend(value or 0.0 for value in newest)
    del values[: max(len(values) - POINTS * _SERIES, 0)]
    return values
