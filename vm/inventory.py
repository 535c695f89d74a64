"""Reads the VMs of a host, in a number of libvirt calls that does not depend on how many there are.

One getAllDomainStats gives state, memory and vCPUs of every VM; one filtered listAllDomains a flag (autostart, saved
state, checkpoints, transient) gives the set of the VMs that have it; name, uuid and id come with the handles and cost
no call. The domain XML has no bulk call: `read_configs` reads it VM by VM, and only it does. A VM that vanishes between
two calls is left out. This module changes nothing.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import libvirt

from host.connection import Host
from host.errors import NotFound, UsageError
from host.rates import memory_used_bytes
from host.text import printable
from vm.model import Vm
from vm.states import reason_of, state_of

if TYPE_CHECKING:
    from vm.configuration import VmConfig

Handles: TypeAlias = dict[str, Any]  # uuid -> virDomain: what saves a look-up call a VM

STATE_GROUPS = libvirt.VIR_DOMAIN_STATS_STATE | libvirt.VIR_DOMAIN_STATS_BALLOON | libvirt.VIR_DOMAIN_STATS_VCPU
# One VM that is busy (or whose QEMU hangs) must not hold up the list of all others.
NOWAIT = libvirt.VIR_CONNECT_GET_ALL_DOMAINS_STATS_NOWAIT
_MOST_LOOKUPS = 3  # for more VMs one call for all handles is cheaper
_UUID = re.compile(r"[0-9a-fA-F]{8}-?(?:[0-9a-fA-F]{4}-?){3}[0-9a-fA-F]{12}")
_GLOB = re.compile(r"[*?\[]")


class _Flags(NamedTuple):
    """The uuids of the VMs that have each flag."""

    autostart: frozenset[str]
    saved: frozenset[str]
    with_snapshots: frozenset[str]
    transient: frozenset[str]


def read(host: Host) -> tuple[Vm, ...]:
    """Every VM of the host, sorted by name, in five calls. `config` is None; `checkpoints` is 1 for any number of them
    (`read_configs` counts). Raises ConnectionLost, Denied."""
    return read_all(host)[0]


def read_all(host: Host) -> tuple[tuple[Vm, ...], Handles]:
    """As `read`, with the handles that `read_some` and `read_configs` can use again on the same connection."""
    with host.calls("list VMs") as connection:
        records = connection.getAllDomainStats(STATE_GROUPS, NOWAIT)
        flags = _read_flags(connection)
    return _to_vms(host, records, flags), {domain.UUIDString(): domain for domain, _ in records}


def read_states(host: Host) -> tuple[Vm, ...]:
    """Every VM with its name, state and saved state only, in two calls: the quick list."""
    with host.calls("list VMs") as connection:
        records = connection.getAllDomainStats(libvirt.VIR_DOMAIN_STATS_STATE, NOWAIT)
        saved = _uuids(connection, libvirt.VIR_CONNECT_LIST_DOMAINS_MANAGEDSAVE)
    return _to_vms(host, records, _Flags(frozenset(), saved, frozenset(), frozenset()))


def read_some(host: Host, uuids: Collection[str], *, handles: Mapping[str, Any] | None = None) -> tuple[Vm, ...]:
    """The VMs of those uuids that still exist, as `read` gives them. With `handles` for all of them in five calls; a
    few without are looked up, and many cost one call more."""
    with host.calls("read VMs") as connection:
        known = _handles(connection, uuids, handles or {})
        if not known:
            return ()
        records = connection.domainListGetStats(known, STATE_GROUPS, NOWAIT)
        flags = _read_flags(connection)
    return _to_vms(host, records, flags)


def read_configs(
    host: Host, vms: Sequence[Vm], *, pending: bool = False, handles: Mapping[str, Any] | None = None
) -> tuple[Vm, ...]:
    """Those VMs with their `config` (one call a VM) and their exact number of checkpoints (one call for each VM that
    has any). `pending` also reads the next boot's configuration of running VMs (one call each). A VM that vanished
    is left out."""
    with host.calls("read the configuration of VMs") as connection:
        known = {domain.UUIDString(): domain for domain in _handles(connection, [vm.uuid for vm in vms], handles or {})}
        read_vms = (_read_config(known[vm.uuid], vm, pending) for vm in vms if vm.uuid in known)
        return tuple(vm for vm in read_vms if vm is not None)


def with_config(vm: Vm, config: VmConfig) -> Vm:
    """`vm` with its configuration, which also gives memory and vCPUs where the driver's statistics have none, and of a
    VM that is off: statistics of before it was changed may stand there."""
    first, second = (vm, config) if vm.is_active else (config, vm)
    return replace(
        vm,
        config=config,
        vcpus=first.vcpus or second.vcpus,
        memory_bytes=first.memory_bytes or second.memory_bytes,
        memory_max_bytes=first.memory_max_bytes or second.memory_max_bytes,
    )


def find(host: Host, ref: str) -> Vm:
    """The VM of that name, uuid or id (in this order), without its config. Raises NotFound with the nearest names."""
    with host.calls("find a VM", ref) as connection:
        domain = _lookup(connection, ref)
    found = read_some(host, [domain.UUIDString()], handles={domain.UUIDString(): domain}) if domain is not None else ()
    if not found:
        raise not_found(ref, (vm.name for vm in read_states(host)))
    return found[0]


def read_xml(host: Host, vm: Vm, *, live: bool = False) -> str:
    """The VM's XML without secrets, for people to read: what the next boot gets, or with `live` what runs now.
    Raises NotFound, ConnectionLost."""
    flags = 0 if live or not vm.persistent else libvirt.VIR_DOMAIN_XML_INACTIVE
    with host.calls("read the XML", vm.name) as connection:
        text: str = connection.lookupByUUIDString(vm.uuid).XMLDesc(flags)
    return text


def expand(host: Host, patterns: Iterable[str]) -> tuple[Vm, ...]:
    """The VMs that the names, uuids, ids and globs stand for, each once, in the order of the patterns. An exact name
    wins over its glob characters. Raises NotFound for a pattern that matches nothing."""
    return pick(read(host), patterns)


def pick(vms: Sequence[Vm], patterns: Iterable[str]) -> tuple[Vm, ...]:
    """As `expand`, of VMs that were read already, on whatever hosts. Raises NotFound."""
    found: dict[tuple[str, str], Vm] = {}
    for pattern in patterns:
        matches = matching(vms, pattern)
        if not matches:
            raise not_found(pattern, (vm.name for vm in vms))
        found.update((vm.key, vm) for vm in matches)
    return tuple(found.values())


def matching(vms: Sequence[Vm], pattern: str) -> list[Vm]:
    """The VMs that one name, uuid, id or glob stands for; none when nothing matches."""
    exact = [vm for vm in vms if vm.name == pattern]
    if exact:
        return exact
    if _UUID.fullmatch(pattern):
        plain = pattern.replace("-", "").lower()
        return [vm for vm in vms if vm.uuid.replace("-", "") == plain]
    if pattern.isascii() and pattern.isdigit():
        return [vm for vm in vms if vm.domain_id == int(pattern)]
    if not _GLOB.search(pattern):
        return []
    from fnmatch import fnmatchcase

    return [vm for vm in vms if fnmatchcase(vm.name, pattern)]


def not_found(ref: str, names: Iterable[str]) -> NotFound:
    """The error for a name or glob that matches none of `names`, with the nearest."""
    from difflib import get_close_matches

    near = get_close_matches(ref[:80], (name[:80] for name in names), n=3, cutoff=0.6)
    shown = ", ".join(printable(name, limit=60) for name in near)
    remedy = f"Did you mean {shown}?" if near else "See 'hvtui vm list'"
    what = "no VM matches" if _GLOB.search(ref) else "there is no VM of this name"
    return NotFound(what, about=printable(ref, limit=60), remedy=remedy)


def _lookup(connection: Any, ref: str) -> Any | None:
    if not _can_be_asked(ref):
        return None
    lookups: list[tuple[Any, str | int]] = [(connection.lookupByName, ref)]
    if _UUID.fullmatch(ref):
        lookups.append((connection.lookupByUUIDString, ref))
    if ref.isascii() and ref.isdigit() and len(ref) < 10:
        lookups.append((connection.lookupByID, int(ref)))
    return next((domain for look_up, value in lookups if (domain := _try(look_up, value)) is not None), None)


def _can_be_asked(ref: str) -> bool:
    """False for bytes that are no UTF-8 (Python hands them over as lone surrogates) and for NUL: no VM is called so."""
    return "\0" not in ref and not any("\ud800" <= char <= "\udfff" for char in ref)


def _try(call: Any, *arguments: Any) -> Any | None:
    """The call's value, or None when its VM (or, during an undefine, its XML) does not exist any more."""
    try:
        return call(*arguments)
    except libvirt.libvirtError as error:
        if error.get_error_code() != libvirt.VIR_ERR_NO_DOMAIN:
            raise
        return None


def _handles(connection: Any, uuids: Collection[str], handles: Mapping[str, Any]) -> list[Any]:
    missing = [uuid for uuid in uuids if uuid not in handles]
    if len(missing) <= _MOST_LOOKUPS:
        found = {uuid: domain for uuid in missing if (domain := _try(connection.lookupByUUIDString, uuid)) is not None}
    else:
        found = {domain.UUIDString(): domain for domain in connection.listAllDomains(0)}
    return [domain for uuid in uuids if (domain := handles.get(uuid) or found.get(uuid)) is not None]


def _read_config(domain: Any, vm: Vm, pending: bool) -> Vm | None:
    from vm import domain_xml  # here: a plain list needs no XML parser
    from vm.configuration import VmConfig

    xml = _try(domain.XMLDesc, 0)
    if xml is None:
        return None
    inactive = _try(domain.XMLDesc, libvirt.VIR_DOMAIN_XML_INACTIVE) if pending and vm.is_active else None
    count = _try(domain.snapshotNum, 0) if vm.checkpoints else 0
    try:
        config = domain_xml.read_config(xml, inactive_xml=inactive if vm.persistent else None)
    except UsageError as error:
        import logging

        logging.getLogger(__name__).warning(
            "%s: its configuration cannot be shown: %s", printable(vm.name, limit=60), error
        )
        config = VmConfig()
    return replace(with_config(vm, config), checkpoints=count or 0)


def _read_flags(connection: Any) -> _Flags:
    return _Flags(
        autostart=_uuids(connection, libvirt.VIR_CONNECT_LIST_DOMAINS_AUTOSTART),
        saved=_uuids(connection, libvirt.VIR_CONNECT_LIST_DOMAINS_MANAGEDSAVE),
        with_snapshots=_uuids(connection, libvirt.VIR_CONNECT_LIST_DOMAINS_HAS_SNAPSHOT),
        transient=_uuids(connection, libvirt.VIR_CONNECT_LIST_DOMAINS_TRANSIENT),
    )


def _uuids(connection: Any, flag: int) -> frozenset[str]:
    return frozenset(domain.UUIDString() for domain in connection.listAllDomains(flag))


def _to_vms(host: Host, records: Iterable[tuple[Any, Mapping[str, Any]]], flags: _Flags) -> tuple[Vm, ...]:
    directory = _pid_directory(host)
    vms = [_to_vm(host.name, domain, statistics, flags, directory) for domain, statistics in records]
    return tuple(sorted(vms, key=lambda vm: (vm.name, vm.uuid)))


def _to_vm(host: str, domain: Any, statistics: Mapping[str, Any], flags: _Flags, pid_directory: str) -> Vm:
    uuid, name, domain_id = domain.UUIDString(), domain.name(), domain.ID()
    number = statistics.get("state.state", libvirt.VIR_DOMAIN_NOSTATE)
    state = state_of(number, has_saved_state=uuid in flags.saved)
    return Vm(
        uuid=uuid,
        name=name,
        state=state,
        state_reason=reason_of(number, statistics.get("state.reason", 0)),
        domain_id=domain_id if domain_id >= 0 else None,
        persistent=uuid not in flags.transient,
        autostart=uuid in flags.autostart,
        has_saved_state=uuid in flags.saved,
        checkpoints=int(uuid in flags.with_snapshots),
        vcpus=statistics.get("vcpu.current", 0),
        memory_bytes=statistics.get("balloon.current", 0) * 1024,
        memory_max_bytes=statistics.get("balloon.maximum", 0) * 1024,
        memory_used_bytes=memory_used_bytes(statistics),
        started_at=_started_at(pid_directory, name) if pid_directory and state.is_active else None,
        host=host,
    )


def _pid_directory(host: Host) -> str:
    """Where this machine's own libvirtd keeps the pid files of its QEMUs; empty for every other host."""
    return "/run/libvirt/qemu" if host.uri == "qemu:///system" else ""


def _started_at(pid_directory: str, name: str) -> datetime | None:
    """When QEMU wrote its pid file. libvirt itself does not tell since when a VM runs."""
    import os

    try:
        return datetime.fromtimestamp(os.stat(f"{pid_directory}/{name}.pid").st_mtime, UTC)  # noqa: PTH116 - per VM
    except (OSError, ValueError):
        return None
