"""`hvtui vm watch` and `hvtui vm console`: what goes on until it is ended."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

import click

from host.errors import UsageError
from hvtui.cli.chosen import listed_vms, one_vm
from hvtui.cli.grammar import Seconds, name_argument, names_argument, option, verb
from hvtui.cli.output import narrate
from hvtui.cli.session import Session
from hvtui.cli.streaming import RATE_KEYS, Source, end_of, writer
from hvtui.cli.watching import Watcher

if TYPE_CHECKING:
    from hvtui.cli.streams_of_many import Tell
    from vm.model import Vm

WATCH_KEYS = (
    *("at", "kind", "vm", "uuid", "state", "reason", "was", *RATE_KEYS, "memory_bytes", "memory_used_bytes"),
    "host",
)
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
) -> int:
    if no_rates and (once or count):
        raise UsageError("--once and --count count readings of rates, which --no-rates leaves out")
    interval_s = None if no_rates else interval
    readings = 1 if once else count
    if session.is_many:
        return _watch_many(session, names, interval_s, readings)
    host = session.host()
    wanted = _wanted(session, names)
    watcher = Watcher(host, wanted, writer(session, WATCH_KEYS, in_table=WATCH_TABLE), interval_s)
    if session.given.get("demo"):
        from vm.demo import simulated_samples

        watcher.read_samples = simulated_samples
    source = Source(host)
    source.start()
    watcher.run(source, readings, end_s=end_of(session.timeout_s))
    return 0


def _watch_many(session: Session, names: tuple[str, ...], interval_s: float | None, readings: int | None) -> int:
    """The same of several hosts; 6 when one of them does not answer in the end."""
    from hvtui.cli.streams_of_many import Streams

    wanted = _wanted(session, names)
    end_s = end_of(session.timeout_s)
    until_s = time.monotonic() + (interval_s or 0.0) * readings if readings else float("inf")

    def follow(source: Source, tell: Tell) -> None:
        Watcher(source.host, wanted, tell, interval_s).run(source, readings, end_s=end_s)

    write = writer(session, WATCH_KEYS, in_table=("host", *WATCH_TABLE))
    streams = Streams(session.hosts(), follow)
    for line in streams.lines(end_s=end_s, until_s=until_s):
        write(line)
    return streams.exit_code


def _wanted(session: Session, names: tuple[str, ...]) -> Callable[[Vm], bool]:
    """Which VMs to tell of: those of NAMES, new ones too; with --filter, those that match now."""
    if not names and not session.filter_text:
        return lambda _vm: True
    chosen = frozenset(vm.uuid for vm in _matching(session, names))  # raises NotFound for a wrong name
    if session.filter_text:
        return lambda vm: vm.uuid in chosen
    return lambda vm: vm.uuid in chosen or any(fnmatchcase(vm.name, name) for name in names)


def _matching(session: Session, names: tuple[str, ...]) -> tuple[Vm, ...]:
    if not session.is_many:
        return listed_vms(session, names)
    from hvtui.cli.many import listed_everywhere

    return listed_everywhere(session, names)[0]


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
