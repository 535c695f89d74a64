"""`hvtui vm migrate`: vm.move makes the plans."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import click

from host.errors import UsageError
from hvtui.cli.grammar import names_argument, option, verb
from hvtui.cli.session import Session

if TYPE_CHECKING:
    from host.connection import Host
    from host.host_list import HostEntry
    from host.plan import Plan
    from vm.model import Vm
    from vm.move_model import MoveRequest

KINDS = ("auto", "live", "live-storage", "quick", "offline", "definition")
PLANNERS = 4  # a libvirtd serves five requests of a client at once
STUCK = ("ask", "quick", "postcopy", "cancel")
_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0}


class _Through(click.ParamType):  # type: ignore[type-arg]
    """A value that a function of the service layer reads, with its own words for what is wrong."""

    def __init__(self, name: str, read: Callable[[str], Any]) -> None:
        self.name = name
        self._read = read

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        try:
            return self._read(value) if isinstance(value, str) else value
        except UsageError as error:
            self.fail(str(error), param, ctx)


def _rate(text: str) -> int:
    from vm.move_progress import bytes_a_second

    return bytes_a_second(text)


def _milliseconds(text: str) -> int:
    from vm.move_progress import milliseconds

    return milliseconds(text)


def _duration(text: str) -> float:
    """ "5m", "30s" or "90" in seconds."""
    word = text.strip().lower()
    factor = _UNITS.get(word[-1:], 1.0)
    number = word[:-1] if word[-1:] in _UNITS else word
    try:
        seconds = float(number) * factor
    except ValueError:
        seconds = -1.0
    if not 0 < seconds <= 1e9:
        raise UsageError(f"{text!r} is no time", remedy="Write it as 90s, 5m or 1h")
    return seconds


RATE, MILLISECONDS, DURATION = _Through("rate", _rate), _Through("time", _milliseconds), _Through("time", _duration)


@verb(
    "migrate",
    names_argument(),
    option("--to", "to", required=True, metavar="HOST|URI", text="A host of the list, a libvirt URI, or 'best'."),
    option("--kind", type=click.Choice(KINDS), default="auto", text="How (auto: the least disruptive that can work)."),
    option("--bandwidth", type=RATE, metavar="RATE", text="At most so much a second, such as 100M."),
    option("--downtime", type=MILLISECONDS, metavar="TIME", text="At most so long without the guest: 300ms."),
    option("--auto-converge/--no-auto-converge", default=True, text="Slow a guest that writes too fast (the default)."),
    option("--connections", type=click.IntRange(1, 255), default=1, metavar="N", text="Send over N connections."),
    option("--compress", is_flag=True, text="Compress the memory."),
    option("--tls", is_flag=True, text="Encrypt it; both hosts need certificates for QEMU."),
    option("--tunnelled", is_flag=True, text="Send it through libvirt's own connection."),
    option("--postcopy", is_flag=True, text="Permit post-copy ('hvtui job tune ID --postcopy' begins it)."),
    option("--if-stuck", type=click.Choice(STUCK), default="ask", text="When it does not converge (ask: go on)."),
    option("--patience", type=DURATION, default=300.0, metavar="TIME", text="How long until it counts as stuck: 5m."),
    option("--direct", is_flag=True, text="Drive it from here instead of between the hosts."),
    option("--peer-uri", default="", metavar="URI", text="The target's URI as its source reaches it."),
    option("--migrate-uri", default="", metavar="URI", text="Where QEMU sends the memory to, such as tcp://192.0.2.7."),
    option("--eject", is_flag=True, text="Take media out of their drives that the target has not."),
    option("--keep-disks", is_flag=True, text="Leave the source's disks where copies were made."),
    option("--pool", "pools", multiple=True, metavar="[DISK=]POOL", text="The target's pool for copies of disks."),
    text="Move VMs to another host, running or not. The plan says how, why not better, and how long it will take: see "
    "it with --dry-run. Ctrl-C or 'hvtui job cancel' leaves the VM where it was.",
)
def migrate(session: Session, names: tuple[str, ...], **given: Any) -> int:
    from hvtui.cli.change import change
    from hvtui.cli.change_set import change_set
    from hvtui.cli.chosen import chosen_vms
    from hvtui.cli.placing import BEST, best_host_for

    vms = chosen_vms(session, names)  # the host that has them is the session's from now on
    source = session.host()
    entry = best_host_for(session, vms) if given["to"] == BEST else target_entry(session, given["to"])
    given["to"] = entry.name if given["to"] == BEST else given["to"]
    with closing(session.open_entry(entry)) as target:
        request = request_of(given, entry)
        words = tuple(_words(given))
        plan_one = partial(_plan, session, source, target, request, words)
        if len(vms) == 1:
            wanted = [(vm.name, vm.uuid, partial(plan_one, vm)) for vm in vms]
            return change(session, wanted, done_word="moved")
        return change_set(session, lambda: _plan_set(plan_one, vms, entry.name, words), done_word="moved")


def _plan(session: Session, source: Host, target: Host, request: MoveRequest, words: tuple[str, ...], vm: Vm) -> Plan:
    from vm.move import plan_move
    from vm.move_lanes import limited
    from vm.move_links import link_between

    link = link_between(session.journal(), source.uri, target.uri)
    plan = plan_move(source, target, vm, request, link=link, command=_command(words, (vm,)))
    limits = session.config().moves
    return replace(plan, lanes=limited(plan.lanes, per_host=limits.per_host, per_link=limits.per_link))


def _plan_set(plan_one: Callable[[Vm], Plan], vms: tuple[Vm, ...], target: str, words: tuple[str, ...]) -> Any:
    from host.plan import PlanSet

    with ThreadPoolExecutor(max_workers=PLANNERS, thread_name_prefix="plan") as pool:
        plans = tuple(pool.map(plan_one, vms))  # each takes a second to see how fast its guest writes
    return PlanSet(f"Move {len(vms)} VMs to {target}", plans, _command(words, vms))


def _command(words: tuple[str, ...], vms: tuple[Vm, ...]) -> tuple[str, ...]:
    names = tuple(vm.name for vm in vms)
    separator = ("--",) if any(name.startswith("-") for name in names) else ()
    return ("vm", "migrate", *words, *separator, *names)


def target_entry(session: Session, to: str) -> HostEntry:
    """The host that --to names: one of the configuration, or any URI. Raises NotFound."""
    from host.host_list import HostEntry
    from hvtui.target import entry_named

    if "://" not in to:
        return entry_named(to, session.config())
    known = next((entry for entry in session.config().hosts if entry.uri == to), None)
    return known or HostEntry(_name_in(to), to)


def _name_in(uri: str) -> str:
    from urllib.parse import urlsplit

    try:
        return urlsplit(uri).hostname or uri
    except ValueError:
        return uri


def request_of(given: dict[str, Any], entry: HostEntry) -> MoveRequest:
    """The options as the service layer takes them. Raises UsageError."""
    from vm.move_model import MoveKind, MoveOptions, MoveRequest, Stuck

    address = f"[{entry.migration_address}]" if ":" in entry.migration_address else entry.migration_address
    options = MoveOptions(
        bandwidth_bytes_s=given["bandwidth"],
        downtime_ms=given["downtime"],
        auto_converge=given["auto_converge"],
        connections=given["connections"],
        compress=given["compress"],
        tls=given["tls"],
        tunnelled=given["tunnelled"],
        postcopy=given["postcopy"],
        peer_to_peer=not given["direct"],
        migrate_uri=given["migrate_uri"] or (f"tcp://{address}" if address else ""),
        stuck=Stuck(given["if_stuck"]),
        patience_s=given["patience"],
        keep_source_disks=given["keep_disks"],
        eject=given["eject"],
    )
    return MoveRequest(
        kind=None if given["kind"] == "auto" else MoveKind(given["kind"]),
        peer_uri=given["peer_uri"] or entry.peer,
        options=options,
        pools=dict(_pool(text) for text in given["pools"]),
    )


def _pool(text: str) -> tuple[str, str]:
    disk, separator, pool = text.partition("=")
    return (disk, pool) if separator else ("", text)


def _words(given: dict[str, Any]) -> Iterator[str]:
    """The options as they were given, for the equivalent command."""
    yield from ("--to", given["to"])
    usual = {"kind": "auto", "connections": 1, "if_stuck": "ask"}
    for name, value in usual.items():
        if given[name] != value:
            yield from (f"--{name.replace('_', '-')}", str(given[name]))
    if given["bandwidth"]:
        yield from ("--bandwidth", f"{given['bandwidth']}B")
    if given["downtime"]:
        yield from ("--downtime", f"{given['downtime']}ms")
    if given["patience"] != 300.0:
        yield from ("--patience", f"{given['patience']:g}s")
    if not given["auto_converge"]:
        yield "--no-auto-converge"
    for name in ("compress", "tls", "tunnelled", "postcopy", "direct", "eject", "keep_disks"):
        if given[name]:
            yield f"--{name.replace('_', '-')}"
    for name in ("peer_uri", "migrate_uri"):
        if given[name]:
            yield from (f"--{name.replace('_', '-')}", given[name])
    for pool in given["pools"]:
        yield from ("--pool", pool)
