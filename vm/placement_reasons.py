"""Why a host got its stars, in plain words. Pure functions; the decisions are vm.placement's."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from host.text import printable
from host.units import format_bytes
from vm.placement import Copy, Rating, copies, cpu_share, disk_share, has_disk_room, memory_room, memory_share, others
from vm.placement_model import APART, TOGETHER, Demand, HostPicture, steering

GOOD_SHARE = 0.6  # of a resource, up to which it speaks for the host
POOR_SHARE = 0.85  # above which it speaks against it
LONGEST_NAME = 60


def reasons_of(rating: Rating) -> tuple[str, ...]:
    """The lines of a rating, each with its sign."""
    if not rating.stars:
        return tuple(f"- impossible, because {reason}" for reason in obstacles(rating.demand, rating.picture))
    told = (_where, _memory, _cpu, _disks, _network, _company, _moves)
    return tuple(line for each in told for line in each(rating))


def obstacles(demand: Demand, picture: HostPicture) -> tuple[str, ...]:
    """Everything that makes the host impossible for the VM; nothing else of a host that did not answer."""
    if not picture.is_reachable:
        return (f"it does not answer{f': {_shown(picture.problem, 200)}' if picture.problem else ''}",)
    return tuple(_obstacles(demand, picture))


def _obstacles(demand: Demand, picture: HostPicture) -> Iterator[str]:
    if picture.is_drained:
        yield "it is drained for maintenance"
    if picture.name in demand.refused:
        yield demand.refused[picture.name]
    if demand.own_devices and picture.name != demand.host:
        yield f"the VM has devices of {_shown(demand.host) or 'its host'} itself"
    if demand.virtualization and picture.virtualizations and demand.virtualization not in picture.virtualizations:
        yield f"it has no {_shown(demand.virtualization)}"
    if demand.machine and picture.machines and demand.machine not in picture.machines:
        yield f"it does not know the machine type {_shown(demand.machine)}"
    if missing := sorted(demand.networks - picture.networks):
        names = ", ".join(_shown(name) for name in missing)
        yield f"it has no active network{'s' if len(missing) > 1 else ''} {names}"
    if demand.vcpus > picture.cpus:
        yield f"it has {picture.cpus} CPUs, and the VM {demand.vcpus} vCPUs"
    room = memory_room(demand, picture)
    if demand.memory_bytes > room:
        yield f"it has {format_bytes(max(room, 0))} of memory for VMs left, and the VM needs {_size(demand)}"
    wanted = copies(demand, picture)
    if not has_disk_room(wanted):
        yield _disk_obstacle(demand, wanted)


def _disk_obstacle(demand: Demand, wanted: Sequence[Copy]) -> str:
    homeless = next((disk for disk, pool in wanted if pool is None), None)
    if homeless is not None and demand.needs_its_disks:
        return f"it does not see the disk {_shown(homeless.path) or 'of the VM'}"
    if homeless is not None:
        return f"it has no active storage pool {_shown(homeless.pool) or 'default'} for the VM's disks"
    taken: dict[str, int] = {}
    pools = {pool.name: pool for _, pool in wanted if pool is not None}
    for disk, pool in wanted:
        taken[pool.name if pool else ""] = taken.get(pool.name if pool else "", 0) + disk.size_bytes
    full = next(pool for pool in pools.values() if taken[pool.name] > pool.free_bytes)
    needed = format_bytes(taken[full.name])
    return f"its storage pool {_shown(full.name)} has {format_bytes(full.free_bytes)} free, and the VM needs {needed}"


def _where(rating: Rating) -> Iterator[str]:
    if rating.host == rating.demand.host:
        yield "= the VM is here now"


def _memory(rating: Rating) -> Iterator[str]:
    demand, picture = rating.demand, rating.picture
    share = memory_share(demand, picture)
    total = picture.memory_bytes - picture.reserve_memory_bytes
    reserve = f" (besides {format_bytes(picture.reserve_memory_bytes)} for the host)"
    left = f"{format_bytes(max(total - share * total, 0))} of {format_bytes(total)} memory left for others"
    yield f"{_sign(share)} {left}{reserve if picture.reserve_memory_bytes else ''}"


def _cpu(rating: Rating) -> Iterator[str]:
    share = cpu_share(rating.demand, rating.picture)
    if share is None:
        yield "= its CPU load is not known"
    else:
        yield f"{_sign(share)} CPU {share:.0%} busy with it ({rating.picture.cpus} CPUs)"


def _disks(rating: Rating) -> Iterator[str]:
    demand, picture = rating.demand, rating.picture
    if not demand.disks or picture.name == demand.host:
        return
    wanted = copies(demand, picture)
    if not wanted:
        yield "+ it sees the VM's disks: nothing to copy"
        return
    share, pool = disk_share(wanted), wanted[0][1]
    if pool is None or share is None:
        return
    what = format_bytes(sum(disk.size_bytes for disk, _ in wanted))
    act = "to copy into" if any(disk.path for disk, _ in wanted) else "to make in"
    yield f"{_sign(share)} {what} of disks {act} {_shown(pool.name)}, which is then {share:.0%} full"


def _network(rating: Rating) -> Iterator[str]:
    busy = rating.picture.network_percent
    if busy is not None:
        yield f"{_sign(busy / 100)} network {busy:.0f} % busy"


def _company(rating: Rating) -> Iterator[str]:
    demand, picture = rating.demand, rating.picture
    for tag in steering(demand.tags):
        there = ", ".join(_shown(name) for name in others(tag, demand, picture)[:3])
        if there and tag.startswith(APART):
            yield f"- {there} runs here, and {tag} keeps them apart (1 star at most)"
        elif tag.startswith(TOGETHER) and there:
            yield f"+ {there} runs here, and {tag} keeps them together"
        elif tag.startswith(TOGETHER) and rating.mates:
            yield f"- its {tag} is on {', '.join(_shown(name) for name in rating.mates[:3])} (2 stars at most)"


def _moves(rating: Rating) -> Iterator[str]:
    picture = rating.picture
    if picture.moves >= picture.moves_limit and picture.name != rating.demand.host:
        yield f"- {picture.moves} moves run here already: it would have to wait"


def _sign(share: float) -> str:
    """ "+" for a resource of which there is much left, "-" for one that is nearly used up."""
    if share <= GOOD_SHARE:
        return "+"
    return "-" if share > POOR_SHARE else "="


def _size(demand: Demand) -> str:
    return format_bytes(demand.memory_bytes)


def _shown(text: str, limit: int = LONGEST_NAME) -> str:
    return printable(text, limit=limit)
