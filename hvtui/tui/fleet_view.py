"""The hosts of the list as one picture: what the header and the list of all VMs show. Pure; reads nothing."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence

from host.connection import Link, LinkStatus
from host.host_list import HostEntry
from host.load import HostLoad
from vm.model import Snapshot


def merged(entries: Sequence[HostEntry], snapshots: Mapping[str, Snapshot]) -> Snapshot:
    """All hosts as one: every VM in the order of the hosts, the loads in sum. It is up while any host is; the age and
    the link of each are in its own snapshot."""
    found = [snapshots[entry.name] for entry in entries if entry.name in snapshots]
    up = [each for each in found if each.link.is_up]
    return Snapshot(
        host_name=f"{len(entries)} hosts",
        uri="",
        vms=tuple(vm for each in found for vm in each.vms),
        load=_sum_of(each.load for each in up),
        link=_link(entries, found),
        read_at_s=max((each.read_at_s for each in found), default=0.0),
    )


def _link(entries: Sequence[HostEntry], found: Sequence[Snapshot]) -> Link:
    for status in (LinkStatus.CONNECTED, LinkStatus.CONNECTING):
        link = next((each.link for each in found if each.link.status is status), None)
        if link is not None:
            return link
    if len(found) < len(entries):
        return Link(LinkStatus.CONNECTING, time.monotonic())
    return max((each.link for each in found), key=lambda link: link.since_s)


def _sum_of(loads: Iterable[HostLoad]) -> HostLoad:
    """What is used and what there is, of those that told both; the CPUs' as the mean of the hosts."""
    known = list(loads)
    busy = [load.cpu_percent for load in known if load.cpu_percent is not None]
    memory = [load for load in known if load.memory_used_bytes is not None]
    disks = [load for load in known if load.disk_used_bytes is not None]
    return HostLoad(
        cpu_percent=sum(busy) / len(busy) if busy else None,
        memory_used_bytes=sum(load.memory_used_bytes or 0 for load in memory) if memory else None,
        memory_total_bytes=sum(load.memory_total_bytes or 0 for load in memory or known),
        disk_used_bytes=sum(load.disk_used_bytes or 0 for load in disks) if disks else None,
        disk_total_bytes=sum(load.disk_total_bytes or 0 for load in disks) if disks else None,
    )


def groups_of(entries: Iterable[HostEntry]) -> dict[str, tuple[str, ...]]:
    """The names of each group's hosts, the groups in the order in which they first occur; those without one under the
    empty name, last."""
    found: dict[str, list[str]] = {}
    alone: list[str] = []
    for entry in entries:
        for group in entry.groups:
            found.setdefault(group, []).append(entry.name)
        if not entry.groups:
            alone.append(entry.name)
    return {name: tuple(names) for name, names in (*found.items(), *((("", alone),) if alone else ()))}
