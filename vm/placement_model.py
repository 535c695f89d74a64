"""What placement looks at and what it says: pictures of hosts, what a VM demands of one, and ratings. Data only.

Two tags of a VM steer it: VMs with the same `affinity/NAME` belong together on one host, those with the same
`anti-affinity/NAME` apart. Both are wishes: they cost stars, they make nothing impossible.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

TOGETHER = "affinity/"
APART = "anti-affinity/"
TEMPLATE_CPU_SHARE = 0.2  # of its vCPUs: what a VM that nobody has measured is expected to use


class Goal(StrEnum):
    """BALANCE gives the emptiest host most stars, CONSOLIDATE the fullest one that has room."""

    BALANCE = "balance"
    CONSOLIDATE = "consolidate"


@dataclass(frozen=True, slots=True)
class Weights:
    """How much each of a host's resources counts, against the others."""

    cpu: float = 3.0
    memory: float = 4.0
    disk: float = 2.0
    network: float = 1.0


@dataclass(frozen=True, slots=True)
class Policy:
    """What stars are given for: [placement] of the configuration."""

    goal: Goal = Goal.BALANCE
    weights: Weights = Weights()


USUAL = Policy()


@dataclass(frozen=True, slots=True)
class DiskDemand:
    """A disk that comes along. `path` is empty for one that is yet to be made; `pool` is where it lies or shall lie,
    empty for whichever a host offers. `size_bytes` is the room that a copy takes."""

    size_bytes: int
    pool: str = ""
    path: str = ""


@dataclass(frozen=True, slots=True)
class Demand:
    """What a VM, or a VM yet to be made, needs of a host. `cpu_cores` is what it is expected to use, in cores. `host`
    is the name of the one where it is, with its `uuid`; `refused` names hosts that cannot run it and why (a CPU that
    they do not have). With `needs_its_disks` they are not copied: the host must see them (the old host is dead)."""

    name: str
    vcpus: int
    memory_bytes: int
    cpu_cores: float = 0.0
    disks: tuple[DiskDemand, ...] = ()
    networks: frozenset[str] = frozenset()
    machine: str = ""
    virtualization: str = ""
    tags: frozenset[str] = frozenset()
    uuid: str = ""
    host: str = ""
    is_active: bool = True
    refused: Mapping[str, str] = field(default_factory=dict)
    needs_its_disks: bool = False
    own_devices: int = 0  # of the host where it is; it cannot leave with them


@dataclass(frozen=True, slots=True)
class PoolPicture:
    """A storage pool that is active. `directory` is empty for one of another kind; `volumes` are the names in it."""

    name: str
    free_bytes: int
    capacity_bytes: int
    directory: str = ""
    volumes: frozenset[str] = frozenset()
    source: str = ""  # of a network pool: the same on each host that has it


@dataclass(frozen=True, slots=True)
class HostPicture:
    """One host as placement sees it. `memory_promised_bytes` is what its active VMs may take in all,
    `memory_free_bytes` what its kernel has left now, `reserve_memory_bytes` what stays with the host itself.
    Percentages are None where nothing is known; `machines` and `virtualizations` are then empty. `moves` is how many
    moves run there, of at most `moves_limit`. `problem` says why it did not answer. `tags` are those of its active VMs
    that steer placement, each with the VMs that have it; `identity` is the host's own, under whatever URI."""

    name: str
    uri: str
    groups: tuple[str, ...] = ()
    cpus: int = 1
    cpu_percent: float | None = None
    memory_bytes: int = 0
    memory_free_bytes: int | None = None
    memory_promised_bytes: int = 0
    reserve_memory_bytes: int = 0
    network_percent: float | None = None
    pools: Mapping[str, PoolPicture] = field(default_factory=dict)
    networks: frozenset[str] = frozenset()
    machines: frozenset[str] = frozenset()
    virtualizations: frozenset[str] = frozenset()
    vms: tuple[Demand, ...] = ()
    tags: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    is_drained: bool = False
    is_reachable: bool = True
    problem: str = ""
    moves: int = 0
    moves_limit: int = 2
    identity: str = ""


def together(demands: Sequence[Demand]) -> Demand:
    """What several VMs demand of the one host that is to take them all: the sums, and everything that any one needs."""
    first = demands[0]
    if len(demands) == 1:
        return first
    return Demand(
        name=f"{len(demands)} VMs",
        vcpus=max(demand.vcpus for demand in demands),
        memory_bytes=sum(demand.memory_bytes for demand in demands),
        cpu_cores=sum(demand.cpu_cores for demand in demands),
        disks=tuple(disk for demand in demands for disk in demand.disks),
        networks=frozenset().union(*(demand.networks for demand in demands)),
        machine=first.machine if all(demand.machine == first.machine for demand in demands) else "",
        virtualization=first.virtualization,
        tags=frozenset().union(*(demand.tags for demand in demands)),
        host=first.host,
        refused={name: why for demand in demands for name, why in demand.refused.items()},
        own_devices=sum(demand.own_devices for demand in demands),
    )


def steering(tags: frozenset[str]) -> tuple[str, ...]:
    """Those of a VM's tags that placement looks at."""
    return tuple(sorted(tag for tag in tags if tag.startswith((TOGETHER, APART))))


def tags_of(vms: tuple[Demand, ...]) -> dict[str, tuple[str, ...]]:
    """`HostPicture.tags` of a host with these VMs."""
    found: dict[str, tuple[str, ...]] = {}
    for vm in vms:
        for tag in steering(vm.tags) if vm.is_active else ():
            found[tag] = (*found.get(tag, ()), vm.name)
    return found
