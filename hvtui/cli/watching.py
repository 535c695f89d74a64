"""What `vm watch` tells of one host: the states of its VMs, their changes, and rates. It writes nothing itself."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from host.connection import Host, Link
from host.errors import ConnectionLost
from host.plan import Json
from host.statistics import Sample, VmRates, rates, read_samples
from hvtui.cli.streaming import RATE_KEYS, Source, link_record, now
from vm import inventory

if TYPE_CHECKING:
    from hvtui.cli.output import Record
    from vm.model import Vm

RETRY_S = 1.0


class Watcher:
    """What was last told of each VM of a host, by `write`."""

    def __init__(
        self, host: Host, wanted: Callable[[Vm], bool], write: Callable[[Record], None], interval_s: float | None
    ) -> None:
        self.host = host
        self.wanted = wanted
        self.write = write
        self.interval_s = interval_s
        self.known: dict[str, Vm] = {}
        self.samples: dict[str, Sample] = {}
        self.read_samples: Callable[[Any], dict[str, Sample]] = read_samples

    def run(self, source: Source, readings: int | None, *, end_s: float) -> None:
        """Tell everything until `readings` readings of rates were told, or until `end_s` (monotonic). The source was
        told to start or to expect its host."""
        if source.is_attached:
            self.begin()
        due_s = time.monotonic() + (self.interval_s or 0.0)
        while (readings is None or readings > 0) and time.monotonic() < end_s:
            left_s = (min(due_s, end_s) if self.interval_s else end_s) - time.monotonic()
            has_begun = source.is_attached
            try:
                self.tell(source, source.next(left_s))
                if not has_begun:
                    due_s = time.monotonic() + (self.interval_s or 0.0)
                elif self.interval_s and time.monotonic() >= due_s:
                    due_s = max(due_s + self.interval_s, time.monotonic())
                    self.measure(tell=True)
                    readings = None if readings is None else readings - 1
            except ConnectionLost:  # the link tells of it, and of its return
                due_s = time.monotonic() + RETRY_S

    def begin(self) -> None:
        """Tell every state, and take the counters from which the first rates are counted."""
        self.samples = {}
        self.read_all()
        self.measure()

    def tell(self, source: Source, happened: Sequence[object]) -> None:
        """React to events with one reading of the VMs concerned, to a new connection with one of everything."""
        links = [each for each in happened if isinstance(each, Link)]
        for link in links:
            self.write(link_record(self.host.name, link))
        if any(link.is_up for link in links):
            source.attach()
            self.begin()
        elif happened and not links:
            self.read_all()

    def read_all(self) -> None:
        """Read every VM, and tell what changed since."""
        vms = {vm.uuid: vm for vm in inventory.read(self.host) if self.wanted(vm)}
        for uuid in self.known.keys() - vms.keys():
            self.write(_gone_record(self.known[uuid]))
        for uuid, vm in vms.items():
            before = self.known.get(uuid)
            if before is None or (before.state, before.state_reason, before.name) != (
                vm.state,
                vm.state_reason,
                vm.name,
            ):
                self.write(_state_record(vm, before))
        self.known = vms

    def measure(self, *, tell: bool = False) -> None:
        """Read the counters of all running VMs in one call, and tell their rates."""
        if self.interval_s is None:
            return
        with self.host.calls("read statistics", self.host.name) as connection:
            samples = self.read_samples(connection)
        for uuid, sample in samples.items() if tell else ():
            vm = self.known.get(uuid)
            if vm is not None:
                self.write(_rates_record(vm, sample, rates(self.samples.get(uuid), sample)))
        self.samples = samples


def _of(vm: Vm, kind: str) -> dict[str, Json]:
    return {"at": now(), "kind": kind, "host": vm.host, "vm": vm.name, "uuid": vm.uuid}


def _gone_record(vm: Vm) -> dict[str, Json]:
    return {**_of(vm, "gone"), "was": vm.state.value}


def _state_record(vm: Vm, before: Vm | None) -> dict[str, Json]:
    was = before.state.value if before else None
    return {**_of(vm, "state"), "state": vm.state.value, "reason": vm.state_reason, "was": was}


def _rates_record(vm: Vm, sample: Sample, measured: VmRates) -> dict[str, Json]:
    values = _of(vm, "rates")
    for key in RATE_KEYS:
        value = getattr(measured, key)
        values[key] = None if value is None else round(value, 2)
    values["memory_bytes"] = sample.memory_bytes
    values["memory_used_bytes"] = sample.memory_used_bytes
    return values
