"""VMs of several hosts in one list, and the one host that a name means among several. Reads only."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from host.errors import Conflict, ConnectionLost, HvtuiError, UsageError
from host.text import printable
from hvtui.cli.chosen import looked_into, read_filter
from hvtui.cli.output import complain
from hvtui.cli.session import Session
from vm import inventory
from vm.fleet import HostReading, read_all

if TYPE_CHECKING:
    from host.connection import Host
    from vm.model import Vm

TIMEOUT_S = 10.0  # for hosts that do not answer, where --timeout says nothing


def listed_everywhere(session: Session, names: Sequence[str], **what: bool) -> tuple[tuple[Vm, ...], int]:
    """The VMs of every host that was asked for, by name and host, and the exit code: 6 when a host did not answer,
    which is told on standard error. `what` is as for `listed_vms`. Raises UsageError, NotFound."""
    wanted = read_filter(session)
    groups = {entry.name: entry.groups for entry in session.entries()}
    known: list[str] = []
    matched: set[str] = set()

    def read(host: Host) -> tuple[Vm, ...]:
        vms = inventory.read(host)
        known.extend(vm.name for vm in vms)
        picked = vms
        if names:
            found = {name: inventory.matching(vms, name) for name in names}
            matched.update(name for name in names if found[name])
            picked = tuple({vm.uuid: vm for each in found.values() for vm in each}.values())
        return looked_into(host, picked, wanted, groups=groups[host.name], **what)

    readings = read_all(session.hosts(), session.timeout_s or TIMEOUT_S, read=read)
    code = tell_failures(readings)
    vms = tuple(sorted((vm for each in readings for vm in each.vms), key=lambda vm: (vm.name, vm.host)))
    _refuse_unknown([name for name in names if name not in matched], known, is_complete=not code)
    return vms, code


def tell_failures(readings: Sequence[HostReading]) -> int:
    """Say which hosts did not answer; 6 when there is one, else 0."""
    failed = [each for each in readings if each.error is not None]
    for each in failed:
        complain(f"{printable(each.host.name, limit=80)}: {_without_about(each.error)}")
    return ConnectionLost.exit_code if failed else 0


def settle(session: Session, names: Sequence[str]) -> None:
    """Let the command go on with the one host on which all of `names` are. Raises NotFound, Conflict for a name that is
    on several, UsageError for names on different hosts."""
    if not names:
        raise UsageError("which VMs, of several hosts?", remedy="Give their names, or one --host")
    readings = read_all(session.hosts(), session.timeout_s or TIMEOUT_S, read=inventory.read_states)
    is_complete = tell_failures(readings) == 0
    places = {name: _hosts_with(readings, name) for name in names}
    known = [vm.name for each in readings for vm in each.vms]
    _refuse_unknown([name for name, hosts in places.items() if not hosts], known, is_complete=is_complete)
    for name, hosts in places.items():
        if len(hosts) > 1:
            where = ", ".join(host.name for host in hosts)
            raise Conflict(f"it is on several hosts: {where}", about=name, remedy=f"Say which: --host {hosts[0].name}")
    found = {host.name: host for hosts in places.values() for host in hosts}
    if len(found) > 1:
        raise UsageError(
            f"these VMs are on several hosts: {', '.join(sorted(found))}",
            remedy="One command changes the VMs of one host: give those of each with its --host",
        )
    session.settle(next(iter(found.values())))


def _hosts_with(readings: Sequence[HostReading], name: str) -> list[Host]:
    return [each.host for each in readings if inventory.matching(each.vms, name)]


def _refuse_unknown(unknown: Sequence[str], known: Sequence[str], *, is_complete: bool) -> None:
    """Raise NotFound for a name that matched on no host; ConnectionLost where one that did not answer may know it."""
    if not unknown:
        return
    if not is_complete:
        raise ConnectionLost("it is on none of the hosts that answered", about=unknown[0])
    raise inventory.not_found(unknown[0], known)


def _without_about(error: HvtuiError | None) -> str:
    return str(type(error)(error.cause, remedy=error.remedy)) if error is not None else ""
