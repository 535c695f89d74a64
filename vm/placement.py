"""Rates hosts for a VM: 0 to 5 stars in half steps, each with its reasons. Pure functions.

A host where the VM cannot be gets 0 stars. For any other each resource counts by what is left of it once the VM is
there: most where there is most left (balance), or least (consolidate). Rating must be quick (hundreds of VMs over
dozens of hosts at once), so the reasons are put into words only when somebody reads them (vm.placement_reasons).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import NamedTuple, TypeAlias

from vm.placement_model import (
    APART,
    TOGETHER,
    USUAL,
    Demand,
    DiskDemand,
    Goal,
    HostPicture,
    Policy,
    PoolPicture,
    steering,
)
from vm.placement_model import tags_of as tags_of

MOST_STARS = 5.0
LEAST_STARS = 0.5  # of a host where the VM can be
APART_STARS = 1.0  # at most, beside one that it shall be apart from
ALONE_STARS = 2.0  # at most, away from those that it belongs to
BUSY_COST = 0.5  # where it would have to wait for other moves
FULL_CPU = 0.95  # consolidating stops there
DEFAULT_POOL = "default"


Copy: TypeAlias = tuple[DiskDemand, PoolPicture | None]


class Rating(NamedTuple):
    """One host for one VM. `stars` is 0, or from 0.5 to 5 in half steps; `score` orders hosts with the same stars."""

    host: str
    stars: float
    score: float
    demand: Demand
    picture: HostPicture
    mates: tuple[str, ...] = ()  # hosts of the VMs that it belongs to

    @property
    def is_possible(self) -> bool:
        return self.stars > 0

    @property
    def reasons(self) -> tuple[str, ...]:
        """Why, in lines that begin with "+", "-" or "="; of an impossible host each thing that makes it so."""
        from vm.placement_reasons import reasons_of

        return reasons_of(self)

    @property
    def why_not(self) -> str:
        """What makes the host impossible, in one sentence without the signs; empty for a possible one."""
        from vm.placement_reasons import obstacles

        return "; ".join(obstacles(self.demand, self.picture)) if not self.stars else ""


def rate(demand: Demand, pictures: Sequence[HostPicture], policy: Policy = USUAL) -> tuple[Rating, ...]:
    """Every host's rating for a VM, the best first; of equal ones the host where it is, then by name."""
    steer = steering(demand.tags)
    mates = hosts_of_mates(demand, pictures) if steer else ()
    found = []
    for picture in pictures:
        can_be_there = _can_be(demand, picture)
        wanted = copies(demand, picture) if can_be_there and demand.disks else ()
        if not can_be_there or (wanted and not has_disk_room(wanted)):
            found.append(Rating(picture.name, 0.0, 0.0, demand, picture))
            continue
        score = _score(demand, picture, wanted, policy)
        stars = LEAST_STARS + score * (MOST_STARS - LEAST_STARS)
        if steer:
            stars = min(stars, _most_stars(steer, demand, picture, mates))
        if picture.moves >= picture.moves_limit and picture.name != demand.host:
            stars -= BUSY_COST
        halves = int(stars * 2 + 0.5) / 2
        found.append(Rating(picture.name, max(halves, LEAST_STARS), score, demand, picture, mates))
    found.sort(key=lambda rating: (-rating.stars, -rating.score, rating.host != demand.host, rating.host))
    return tuple(found)


def hosts_of_mates(demand: Demand, pictures: Iterable[HostPicture]) -> tuple[str, ...]:
    """The hosts where VMs run that it belongs to by tag."""
    wanted = [tag for tag in demand.tags if tag.startswith(TOGETHER)]
    return tuple(picture.name for picture in pictures if any(others(tag, demand, picture) for tag in wanted))


def others(tag: str, demand: Demand, picture: HostPicture) -> tuple[str, ...]:
    """The VMs of that tag on a host, without the one that is to be placed."""
    names = picture.tags.get(tag, ())
    return tuple(name for name in names if name != demand.name) if picture.name == demand.host else names


def can_be(demand: Demand, picture: HostPicture) -> bool:
    """True when nothing makes the host impossible for the VM; vm.placement_reasons puts each of these into words."""
    return _can_be(demand, picture) and has_disk_room(copies(demand, picture))


def _can_be(demand: Demand, picture: HostPicture) -> bool:
    """As `can_be`, without a look at disks."""
    return (
        picture.is_reachable
        and not picture.is_drained
        and picture.name not in demand.refused
        and (not demand.machine or not picture.machines or demand.machine in picture.machines)
        and (
            not demand.virtualization or not picture.virtualizations or demand.virtualization in picture.virtualizations
        )
        and demand.networks <= picture.networks
        and demand.vcpus <= picture.cpus
        and (not demand.own_devices or picture.name == demand.host)
        and demand.memory_bytes <= memory_room(demand, picture)
    )


def memory_room(demand: Demand, picture: HostPicture) -> int:
    """The bytes that are there for the VM: neither promised to others, nor reserved, nor in use."""
    by_promise = picture.memory_bytes - picture.reserve_memory_bytes - picture.memory_promised_bytes
    free = picture.memory_free_bytes
    room = by_promise if free is None or by_promise < free else free
    return room + demand.memory_bytes if picture.name == demand.host and demand.is_active else room


def sees(disk: DiskDemand, picture: HostPicture) -> bool:
    """True when the host has the disk at the same place: nothing is to be copied."""
    directory, _, name = disk.path.rpartition("/")
    for pool in picture.pools.values():  # noqa: SIM110 - any() takes twice the time, in the innermost loop of all
        if directory and pool.directory == directory and name in pool.volumes:
            return True
    return False


def copies(demand: Demand, picture: HostPicture) -> Sequence[Copy]:
    """The disks that would be made on the host, each with its pool there: that of the same name, else the default one,
    else None. None as well for disks that must not be copied."""
    if picture.name == demand.host:
        return ()
    pools = picture.pools
    return [
        (disk, None if demand.needs_its_disks else pools.get(disk.pool) or pools.get(DEFAULT_POOL))
        for disk in demand.disks
        if not sees(disk, picture)
    ]


def has_disk_room(wanted: Sequence[Copy]) -> bool:
    """True when each disk has a pool, and the pools have room for all of theirs."""
    taken: dict[str, int] = {}
    for disk, pool in wanted:
        if pool is None:
            return False
        taken[pool.name] = taken.get(pool.name, 0) + disk.size_bytes
        if taken[pool.name] > pool.free_bytes:
            return False
    return True


def _most_stars(steer: Iterable[str], demand: Demand, picture: HostPicture, mates: Sequence[str]) -> float:
    if any(tag.startswith(APART) and others(tag, demand, picture) for tag in steer):
        return APART_STARS
    return ALONE_STARS if mates and picture.name not in mates else MOST_STARS


def cpu_share(demand: Demand, picture: HostPicture) -> float | None:
    """The part of the host's CPU that is busy once the VM is there, 0 to 1; None where its load is not known."""
    if picture.cpu_percent is None:
        return None
    cores = 0.0 if picture.name == demand.host and demand.is_active else demand.cpu_cores
    return min(picture.cpu_percent / 100 + cores / picture.cpus, 1.0)


def memory_share(demand: Demand, picture: HostPicture) -> float:
    """The part of the memory for VMs that is promised once the VM is there, 0 to 1."""
    total = picture.memory_bytes - picture.reserve_memory_bytes
    if total <= 0:
        return 1.0
    is_there = picture.name == demand.host and demand.is_active
    return min((picture.memory_promised_bytes + (0 if is_there else demand.memory_bytes)) / total, 1.0)


def disk_share(wanted: Sequence[Copy]) -> float | None:
    """The part of the fullest pool that is taken once the disks are made; None when none is."""
    fullest = None
    for disk, pool in wanted:
        if pool is not None and pool.capacity_bytes:
            share = 1 - (pool.free_bytes - disk.size_bytes) / pool.capacity_bytes
            fullest = share if fullest is None or share > fullest else fullest
    return fullest


def _score(demand: Demand, picture: HostPicture, wanted: Sequence[Copy], policy: Policy) -> float:
    """0 to 1, over the resources about which something is known."""
    weights = policy.weights
    total = weights.memory
    busy = total * memory_share(demand, picture)
    cpu = cpu_share(demand, picture)
    if cpu is not None:
        total += weights.cpu
        busy += weights.cpu * cpu
    disk = disk_share(wanted) if wanted else None
    if disk is not None:
        total += weights.disk
        busy += weights.disk * disk
    if picture.network_percent is not None:
        total += weights.network
        busy += weights.network * min(picture.network_percent / 100, 1.0)
    share = busy / total if total > 0 else 0.0
    if policy.goal is Goal.BALANCE:
        return 1 - share
    return share if cpu is None or cpu < FULL_CPU else share / 2


def with_vm(picture: HostPicture, demand: Demand) -> HostPicture:
    """The host once the VM has come there: what is left for the next one."""
    pools = dict(picture.pools)
    for disk, pool in copies(demand, picture):
        if pool is not None:
            now = pools[pool.name]
            pools[pool.name] = replace(now, free_bytes=max(now.free_bytes - disk.size_bytes, 0))
    vms = (*picture.vms, replace(demand, host=picture.name))
    if not demand.is_active:
        return replace(picture, vms=vms, pools=pools)
    free = picture.memory_free_bytes
    cpu = cpu_share(demand, picture)
    tags = dict(picture.tags)
    for tag in steering(demand.tags):
        tags[tag] = (*tags.get(tag, ()), demand.name)
    return replace(
        picture,
        vms=vms,
        pools=pools,
        tags=tags,
        memory_promised_bytes=picture.memory_promised_bytes + demand.memory_bytes,
        memory_free_bytes=None if free is None else free - demand.memory_bytes,
        cpu_percent=None if cpu is None else cpu * 100,
    )


def without_vm(picture: HostPicture, demand: Demand) -> HostPicture:
    """The host once the VM has left it."""
    vms = tuple(vm for vm in picture.vms if vm.uuid != demand.uuid)
    if not demand.is_active:
        return replace(picture, vms=vms)
    free = picture.memory_free_bytes
    cpu = picture.cpu_percent
    return replace(
        picture,
        vms=vms,
        tags=tags_of(vms),
        memory_promised_bytes=max(picture.memory_promised_bytes - demand.memory_bytes, 0),
        memory_free_bytes=None if free is None else free + demand.memory_bytes,
        cpu_percent=None if cpu is None else max(cpu - 100 * demand.cpu_cores / picture.cpus, 0.0),
    )
