"""Tries what a move between two hosts needs: that each reaches the other, and that a guest of one fits the other.

Each way is told for itself. What one libvirt tells is compared with what the other tells; what one host would have to
try itself is tried over its ssh login, and unknown without one. Changes nothing.
"""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import libvirt

from host.accelerator import choose
from host.connection import Host
from host.facts import parse_host_capabilities, version_text
from host.host_test import Subject, clock_ahead_s, judge_clock, last_words, run_on
from host.legs import Leg, LegState, tried
from host.shared_storage import looks_shared
from host.text import printable

OK, WARN, FAIL, UNKNOWN = LegState.OK, LegState.WARN, LegState.FAIL, LegState.UNKNOWN
MIGRATION_PORT = 49152  # the first of those that libvirt gives to incoming migrations
MOST_NAMES = 6
_ADDRESS = re.compile(r"[\w.:%-]+")
_CANNOT = "cannot be tried from here: there is no ssh login to {}"


@dataclass(frozen=True, slots=True)
class _Side:
    """What one host's libvirt tells, read once."""

    uuid: str
    host_name: str
    libvirt_version: int
    hypervisor_version: int
    architecture: str
    host_cpu: str
    guest_cpu: str
    virtualization: str
    machine_types: frozenset[str]
    networks: frozenset[str]
    pools: Mapping[str, str]
    volumes: Mapping[str, str]  # a directory to one volume's path in it


def test_pair(source: Subject, target: Subject) -> tuple[Leg, ...]:
    """Each leg from `source` to `target`; call it again the other way round. Raises nothing."""
    read: list[_Side] = []

    def read_both() -> Iterable[Leg]:
        read.extend(_read(each.host) for each in (source, target))
        return ()

    legs = [*tried("libvirt", read_both)]
    if len(read) == 2:
        own, other = read
        for name, look in _comparisons(source, target, own, other):
            legs += tried(name, look)
    legs += tried("reach", lambda: _reach(source, target))
    legs += tried("migration port", lambda: _port(source, target))
    legs += tried("clock", lambda: _clocks(source, target))
    legs += tried("locks", lambda: _locks(source, target))
    return tuple(replace(leg, host=source.entry.name, peer=target.entry.name) for leg in legs)


test_pair.__test__ = False  # type: ignore[attr-defined]  # pytest takes it for a test of its own


def _comparisons(source: Subject, target: Subject, own: _Side, other: _Side) -> Iterator[tuple[str, Callable[[], Leg]]]:
    yield "identity", lambda: _identity(own, other)
    yield "versions", lambda: _versions(own, other)
    yield "cpu", lambda: _cpu(target.host, own)
    yield "machine types", lambda: _machines(own, other)
    yield "networks", lambda: _networks(own, other)
    yield "pools", lambda: _pools(own, other)
    yield "shared paths", lambda: _shared(source.host, target.host, own, other)


# Reading


def _read(host: Host) -> _Side:
    kind = choose(host, prove=False).kind.value
    with host.calls("look at the host", host.name) as connection:
        xml = connection.getCapabilities()
        root = ET.fromstring(xml)  # noqa: S314  libvirt wrote it
        known = parse_host_capabilities(xml)
        cpu = root.find("host/cpu")
        pools = _read_pools(connection)
        return _Side(
            uuid=root.findtext("host/uuid", ""),
            host_name=connection.getHostname(),
            libvirt_version=connection.getLibVersion(),
            hypervisor_version=connection.getVersion(),
            architecture=known.architecture,
            host_cpu="" if cpu is None else ET.tostring(cpu, encoding="unicode"),
            guest_cpu=_guest_cpu(connection, known.architecture, kind),
            virtualization=kind,
            machine_types=frozenset(known.machine_types),
            networks=frozenset(
                net.name() for net in connection.listAllNetworks(libvirt.VIR_CONNECT_LIST_NETWORKS_ACTIVE)
            ),
            pools={name: path for name, (path, _) in pools.items()},
            volumes={path: volume for path, volume in pools.values() if volume},
        )


def _read_pools(connection: Any) -> dict[str, tuple[str, str]]:
    """Each active pool's directory, and the path of one volume in it."""
    found = {}
    for pool in connection.listAllStoragePools(libvirt.VIR_CONNECT_LIST_STORAGE_POOLS_ACTIVE):
        root = ET.fromstring(pool.XMLDesc(0))  # noqa: S314  libvirt wrote it
        first = next(iter(sorted(pool.listVolumes())), "")
        path = root.findtext("target/path", "")
        found[pool.name()] = (path, f"{path}/{first}" if first and path else "")
    return found


def _guest_cpu(connection: Any, architecture: str, kind: str) -> str:
    """The CPU of a guest that is given the host's model, as its definition would name it; empty where none is told."""
    try:
        root = ET.fromstring(connection.getDomainCapabilities(None, architecture, None, kind, 0))  # noqa: S314
    except libvirt.libvirtError:
        return ""
    model = root.find("cpu/mode[@name='host-model'][@supported='yes']")
    if model is None:
        return ""
    cpu = ET.Element("cpu", mode="custom", match="exact")
    cpu.extend(list(model))
    return ET.tostring(cpu, encoding="unicode")


# What both tell


def _identity(own: _Side, other: _Side) -> Leg:
    if own.uuid and own.uuid == other.uuid:
        remedy = "Give one of them a host_uuid of its own in /etc/libvirt/libvirtd.conf"
        return Leg("identity", FAIL, f"both have the host UUID {own.uuid}: libvirt takes them for one host", remedy)
    if own.host_name == other.host_name:
        seen = f"both call themselves {printable(own.host_name)}"
        return Leg("identity", FAIL, seen, "Give each a host name of its own (hostnamectl)")
    if other.host_name.partition(".")[0] == "localhost":
        return Leg("identity", FAIL, "the target calls itself localhost", "hostnamectl set-hostname NAME there")
    return Leg("identity", OK, f"{printable(own.host_name)} and {printable(other.host_name)}, two hosts to libvirt")


def _versions(own: _Side, other: _Side) -> Leg:
    words = [
        f"{name} {version_text(mine)} to {version_text(its)}"
        for name, mine, its in (
            ("libvirt", own.libvirt_version, other.libvirt_version),
            ("hypervisor", own.hypervisor_version, other.hypervisor_version),
        )
    ]
    is_older = other.libvirt_version < own.libvirt_version or other.hypervisor_version < own.hypervisor_version
    remedy = "Upgrade the target first: a guest may not go to an older one" if is_older else ""
    return Leg("versions", WARN if is_older else OK, ", ".join(words), remedy)


def _cpu(target: Host, own: _Side) -> Leg:
    with target.calls("compare the CPU", target.name) as connection:
        if own.guest_cpu:
            found = connection.compareHypervisorCPU(
                None, own.architecture, None, own.virtualization, own.guest_cpu, 0
            )  # fmt: skip
        elif own.host_cpu:
            found = connection.compareCPU(own.host_cpu, 0)
        else:
            return Leg("cpu", UNKNOWN, "the source tells nothing of its CPU")
    if found == libvirt.VIR_CPU_COMPARE_INCOMPATIBLE:
        remedy = "Give guests a CPU model that both have: virsh hypervisor-cpu-baseline names it"
        return Leg("cpu", WARN, "a guest with the source's own CPU model does not fit the target", remedy)
    if found not in {libvirt.VIR_CPU_COMPARE_IDENTICAL, libvirt.VIR_CPU_COMPARE_SUPERSET}:
        return Leg("cpu", UNKNOWN, "the target's libvirt cannot compare them")
    same = found == libvirt.VIR_CPU_COMPARE_IDENTICAL
    return Leg("cpu", OK, "the same" if same else "the target has everything that the source's has, and more")


def _machines(own: _Side, other: _Side) -> Leg:
    missing = own.machine_types - other.machine_types
    if own.machine_types and not own.machine_types & other.machine_types:
        return Leg("machine types", FAIL, "none in common", "Install the same QEMU on both")
    if missing:
        remedy = "VMs of these types cannot go there; upgrade QEMU on the target"
        return Leg("machine types", WARN, f"the target lacks {_some(missing)}", remedy)
    return Leg("machine types", OK, f"all {len(own.machine_types)} of the source are there")


def _networks(own: _Side, other: _Side) -> Leg:
    missing = own.networks - other.networks
    if missing:
        remedy = "Define and start them there: VMs with a card in them cannot go otherwise"
        return Leg("networks", WARN, f"not active on the target: {_some(missing)}", remedy)
    return Leg("networks", OK, f"all of the source's are there: {_some(own.networks) or 'it has none'}")


def _pools(own: _Side, other: _Side) -> Leg:
    missing = frozenset(name for name in own.pools if name not in other.pools)
    elsewhere = frozenset(name for name, path in own.pools.items() if other.pools.get(name, path) != path)
    if missing or elsewhere:
        words = [f"not active on the target: {_some(missing)}"] if missing else []
        words += [f"of another path there: {_some(elsewhere)}"] if elsewhere else []
        remedy = "A move can copy disks into another pool: name it in the move, or define these there"
        return Leg("pools", WARN, "; ".join(words), remedy)
    return Leg("pools", OK, f"all of the source's are there, with the same paths: {_some(own.pools) or 'it has none'}")


def _shared(source: Host, target: Host, own: _Side, other: _Side) -> Leg:
    paths = [volume for directory, volume in own.volumes.items() if directory in other.pools.values()]
    found = looks_shared(source, target, paths)
    by_answer = {
        answer: frozenset(path.rpartition("/")[0] for path, each in found.items() if each.is_shared is answer)
        for answer in (True, False, None)
    }
    words = [f"the same files: {_some(by_answer[True])}"] if by_answer[True] else []
    words += [f"each its own: {_some(by_answer[False])}"] if by_answer[False] else []
    words += [f"nobody can tell: {_some(by_answer[None])}"] if by_answer[None] else []
    if not words:
        return Leg("shared paths", UNKNOWN, "no directory of a pool with anything in it is on both to compare")
    return Leg("shared paths", UNKNOWN if by_answer[None] else OK, "; ".join(words))


def _some(names: Iterable[str]) -> str:
    listed = sorted(names)
    more = f" and {len(listed) - MOST_NAMES} more" if len(listed) > MOST_NAMES else ""
    return ", ".join(printable(name, limit=60) for name in listed[:MOST_NAMES]) + more


# What the source has to try itself


def _reach(source: Subject, target: Subject) -> Leg:
    """Whether the source reaches the target's libvirt, as a peer-to-peer migration does."""
    peer = target.entry.peer
    if not peer:
        remedy = f"Give {target.entry.name} a migration_address or a peer_uri in the configuration"
        return Leg("reach", WARN, "nobody knows how other hosts reach it: moves are driven from here", remedy)
    separator = "&" if "?" in peer else "?"
    uri = f"{peer}{separator}no_tty=1" if "+ssh" in peer else peer
    done = run_on(source, ["virsh", "--connect", uri, "--readonly", "hostname"])
    if done is None:
        return Leg("reach", UNKNOWN, _CANNOT.format(source.entry.name))
    if isinstance(done, str) or done.returncode:
        remedy = f"On {source.entry.name} this must work without a question: virsh -c '{peer}' hostname"
        return Leg("reach", FAIL, last_words(done), remedy)
    return Leg("reach", OK, f"{printable(peer)} answers: {printable(done.stdout.strip(), limit=80)}")


def _port(source: Subject, target: Subject) -> Leg:
    """Whether packets get to the ports of migrations: nobody listens there now, so "refused" is the good answer."""
    address = target.entry.address
    if not address or not _ADDRESS.fullmatch(address):
        return Leg("migration port", UNKNOWN, "the target's address is not known", "Give it a migration_address")
    # bash's own way to open a port: nothing else for it is on every host. The address is an argument, not script.
    script = 'exec 3<>"/dev/tcp/$0/$1"'
    done = run_on(source, ["timeout", "5", "bash", "-c", script, address, str(MIGRATION_PORT)])
    if done is None:
        return Leg("migration port", UNKNOWN, _CANNOT.format(source.entry.name))
    if isinstance(done, str):
        return Leg("migration port", FAIL, done)
    if done.returncode == 0 or "Connection refused" in done.stderr:
        return Leg("migration port", OK, f"{address}:{MIGRATION_PORT} is not filtered")
    remedy = f"Let the source through to the target's ports {MIGRATION_PORT} to 49215"
    seen = "no answer: filtered?" if done.returncode == 124 else last_words(done)
    return Leg("migration port", FAIL, f"{address}:{MIGRATION_PORT}: {seen}", remedy)


def _clocks(source: Subject, target: Subject) -> Leg:
    own, other = clock_ahead_s(source), clock_ahead_s(target)
    if own is None or other is None:
        return Leg("clock", UNKNOWN, "libvirt tells no time, and there is no ssh to ask both with")
    return judge_clock(other - own, f"{source.entry.name}'s")


def _locks(source: Subject, target: Subject) -> Leg:
    found = []
    for each in (source, target):
        done = run_on(each, ["grep", "-E", "^[[:space:]]*lock_manager", "/etc/libvirt/qemu.conf"])
        if done is None:
            return Leg("locks", UNKNOWN, "libvirt does not tell of lock managers, and there is no ssh to look with")
        if isinstance(done, str) or done.returncode > 1:
            return Leg("locks", UNKNOWN, last_words(done))
        found.append(done.stdout.partition("=")[2].strip().strip('"') or "none")
    if found[0] != found[1]:
        seen = f"{printable(found[0])} on the source, {printable(found[1])} on the target"
        return Leg("locks", FAIL, seen, "Set the same lock_manager in /etc/libvirt/qemu.conf on both")
    more = "QEMU's own locks of image files protect shared disks" if found[0] == "none" else "the same on both"
    return Leg("locks", OK, f"lock manager {printable(found[0])}: {more}")
