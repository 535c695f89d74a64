"""`hvtui vm watch` and `hvtui vm console`: what goes on until it is ended."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

import click

from host.connection import Host, Link
from host.errors import ConnectionLost, UsageError
from host.plan import Json
from host.statistics import Sample, VmRates, rates, read_samples
from hvtui.cli.chosen import listed_vms, one_vm
from hvtui.cli.grammar import Seconds, name_argument, names_argument, option, verb
from hvtui.cli.output import narrate
from hvtui.cli.session import Session
from hvtui.cli.streaming import RATE_KEYS, Source, end_of, link_record, now, writer
from vm import inventory

if TYPE_CHECKING:
    from hvtui.cli.output import Record
    from vm.model import Vm

RETRY_S = 1.0
WATCH_KEYS = ("at", "kind", "vm", "uuid", "state", "reason", "was", *RATE_KEYS, "memory_bytes", "memory_used_bytes")
WATCH_TABLE = (
    "at",
    "vm",
    "state",
    "reason",
    *(key for key in RATE_KEYS if key != "steal_percent"),
    "memory_used_bytes",
)


@verb(
    "watch",
    names_argument(),
    option("--interval", type=Seconds(min=0.2), default=2.0, show_default=True, text="Seconds between rates."),
    option("--once", is_flag=True, text="Every state and one reading of rates, then end."),
    option("--count", type=click.IntRange(min=1), metavar="N", text="End after N readings of rates."),
    option("--no-rates", is_flag=True, text="State changes only."),
    text="Stream states, their changes, and rates of running VMs, as JSON lines, until Ctrl-C or for "
    "--timeout seconds.",
)
def watch(
    session: Session, names: tuple[str, ...], interval: float, once: bool, count: int | None, no_rates: bool
) -> None:
    if no_rates and (once or count):
        raise UsageError("--once and --count count readings of rates, which --no-rates leaves out")
    host = session.host()
    wanted = _wanted(session, names)
    watcher = _Watcher(host, wanted, writer(session, WATCH_KEYS, in_table=WATCH_TABLE), None if no_rates else interval)
    if session.given.get("demo"):
        from vm.demo import simulated_samples

        watcher.read_samples = simulated_samples
    watcher.run(1 if once else count, end_s=end_of(session.timeout_s))


def _wanted(session: Session, names: tuple[str, ...]) -> Callable[[Vm], bool]:
    """Which VMs to tell of: those of NAMES, new ones too; with --filter, those that match now."""
    if not names and not session.filter_text:
        return lambda _vm: True
    chosen = frozenset(vm.uuid for vm in listed_vms(session, names))  # raises NotFound for a wrong name
    if session.filter_text:
        return lambda vm: vm.uuid in chosen
    return lambda vm: vm.uuid in chosen or any(fnmatchcase(vm.name, name) for name in names)


class _Watcher:
    """What was last told of each VM."""

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

    def run(self, readings: int | None, *, end_s: float) -> None:
        """Tell everything until `readings` readings of rates were told, or until `end_s` (monotonic)."""
        source = Source(self.host)
        source.start()
        self.read_all()
        self.measure()  # what the first rates are counted from
        due_s = time.monotonic() + (self.interval_s or 0.0)
        while (readings is None or readings > 0) and time.monotonic() < end_s:
            left_s = (min(due_s, end_s) if self.interval_s else end_s) - time.monotonic()
            try:
                self.tell(source, source.next(left_s))
                if self.interval_s and time.monotonic() >= due_s:
                    due_s = max(due_s + self.interval_s, time.monotonic())
                    self.measure(tell=True)
                    readings = None if readings is None else readings - 1
            except ConnectionLost:  # the link tells of it, and of its return
                due_s = time.monotonic() + RETRY_S

    def tell(self, source: Source, happened: Sequence[object]) -> None:
        """React to events with one reading of the VMs concerned, to a new connection with one of everything."""
        links = [each for each in happened if isinstance(each, Link)]
        for link in links:
            self.write(link_record(link))
        if any(link.is_up for link in links):
            source.attach()
            self.samples = {}
            self.read_all()
        elif happened and not links:
            self.read_all()

    def read_all(self) -> None:
        """Read every VM, and tell what changed since."""
        vms = {vm.uuid: vm for vm in inventory.read(self.host) if self.wanted(vm)}
        for uuid in self.known.keys() - vms.keys():
            gone = self.known[uuid]
            self.write({"at": now(), "kind": "gone", "vm": gone.name, "uuid": uuid, "was": gone.state.value})
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


def _state_record(vm: Vm, before: Vm | None) -> dict[str, Json]:
    return {
        "at": now(),
        "kind": "state",
        "vm": vm.name,
        "uuid": vm.uuid,
        "state": vm.state.value,
        "reason": vm.state_reason,
        "was": before.state.value if before else None,
    }


def _rates_record(vm: Vm, sample: Sample, measured: VmRates) -> dict[str, Json]:
    values: dict[str, Json] = {"at": now(), "kind": "rates", "vm": vm.name, "uuid": vm.uuid}
    for key in RATE_KEYS:
        value = getattr(measured, key)
        values[key] = None if value is None else round(value, 2)
    values["memory_bytes"] = sample.memory_bytes
    values["memory_used_bytes"] = sample.memory_used_bytes
    return values


@verb(
    "console",
    name_argument(active=True),
    option("--force", is_flag=True, text="Take it away from whoever has it open."),
    text="The serial console of a running VM; ctrl+] leaves it.",
)
def console(session: Session, name: str, force: bool) -> None:
    from vm.console import attach

    vm = one_vm(session, name, config=True)
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise UsageError("a console needs a terminal", remedy="Run it in a terminal")
    why = attach(session.host(), vm, stdin_fd=sys.stdin.fileno(), stdout_fd=sys.stdout.fileno(), force=force)
    narrate(f"{why[:1].upper()}{why[1:]}")
