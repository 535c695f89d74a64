"""Reads what placement looks at: a picture of each host, on a thread of its own, and what a VM demands.

It changes nothing. A host that does not answer in time is a picture as well: an unreachable one. CPU and network loads
are differences between two readings, so that a picture takes `settle_s`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any
from xml.etree.ElementTree import Element

import libvirt

from host.connection import Host
from host.host_list import HostEntry
from host.load import read_load
from host.many_hosts import ask_all
from host.text import printable
from vm import inventory
from vm.configuration import Disk, VmConfig
from vm.deploy_request import DeployRequest
from vm.domain_xml import parse, to_text
from vm.model import Vm
from vm.placement import tags_of
from vm.placement_model import TEMPLATE_CPU_SHARE, Demand, DiskDemand, HostPicture, PoolPicture
from vm.template_model import Template

TIMEOUT_S = 15.0
SETTLE_S = 0.5
LEAST_RESERVE_BYTES = 512 * 1024**2
ASSUMED_LINK_BYTES_S = 125e6  # 1 Gbit/s: libvirt tells no host's speed
_SAMPLES = libvirt.VIR_DOMAIN_STATS_CPU_TOTAL | libvirt.VIR_DOMAIN_STATS_INTERFACE
_Sample = Mapping[str, tuple[float, float]]  # uuid: seconds of CPU, bytes over the network


def read_pictures(
    hosts: Sequence[Host],
    *,
    entries: Iterable[HostEntry] = (),
    drained: Collection[str] = (),
    moves: Mapping[str, int] | None = None,
    moves_limit: int = 2,
    timeout_s: float = TIMEOUT_S,
    settle_s: float = SETTLE_S,
) -> tuple[HostPicture, ...]:
    """A picture of each host, in their order, after `timeout_s` at the latest. `entries` give groups and reserves,
    `drained` are the URIs and identities of the hosts in maintenance, `moves` says how many moves run on a host (by
    name). Raises nothing: a host that fails is unreachable, and says why."""
    known = {entry.uri: entry for entry in entries}
    answers = ask_all(hosts, lambda host: _read(host, settle_s), timeout_s=timeout_s)
    found = [
        answer.value or HostPicture(answer.host.name, answer.host.uri, is_reachable=False, problem=str(answer.error))
        for answer in answers
    ]
    return tuple(
        _entered(picture, known.get(picture.uri), moves or {}, moves_limit, is_drained=_is_one_of(picture, drained))
        for picture in _with_new_volumes(found, hosts, timeout_s)
    )


def _is_one_of(picture: HostPicture, keys: Collection[str]) -> bool:
    return picture.uri in keys or picture.identity in keys


def demand_of(host: Host, vm: Vm, *, targets: Iterable[Host] = (), settle_s: float = 0.0) -> Demand:
    """What a VM demands, with the size of its disks as they are now. With `targets` it also knows which of those cannot
    give its running guest the CPU that it sees. With `settle_s` its CPU load is measured over that time, else it is
    what a VM is expected to use. Raises NotFound, ConnectionLost, Denied."""
    vm = vm if vm.config is not None else next(iter(inventory.read_configs(host, [vm])), vm)
    cores = _cores_used(host, vm, settle_s) if settle_s and vm.is_active else vm.vcpus * TEMPLATE_CPU_SHARE
    with host.calls("read what the VM needs", vm.name) as connection:
        domain = connection.lookupByUUIDString(vm.uuid)
        pools = _pools(connection)
        demand = _demand(vm, host.name, pools, cores)
        disks = tuple(replace(disk, size_bytes=_size(domain, disk.path)) for disk in demand.disks)
        migratable = _migratable(domain) if vm.is_active else None
    refused = {} if migratable is None else _refusals(migratable, [each for each in targets if each.uri != host.uri])
    return replace(demand, disks=disks, refused=refused)


def demand_of_template(template: Template, request: DeployRequest) -> Demand:
    """What each VM of a deployment demands: the hardware that it asks for, the template's disks, 20 % of its vCPUs."""
    hardware = request.hardware
    sizes = [image.size_bytes if request.linked else image.virtual_size_bytes for image in template.images]
    vcpus = hardware.vcpus or 1
    return Demand(
        name=request.names[0] if request.names else template.name,
        vcpus=vcpus,
        memory_bytes=hardware.memory_bytes or 0,
        cpu_cores=vcpus * TEMPLATE_CPU_SHARE,
        disks=tuple(DiskDemand(size, request.pool) for size in sizes),
        networks=frozenset(_named(nic.network) for nic in hardware.nics) - {""},
        tags=frozenset((*template.tags, *request.tags)),
    )


def _named(network: str) -> str:
    """The libvirt network that a profile's card names; empty where the host chooses, or it is none of libvirt's."""
    kind, _, name = network.rpartition(":")
    return name if kind in {"", "network"} and name not in {"auto", "none", "user"} else ""


def _entered(
    picture: HostPicture, entry: HostEntry | None, moves: Mapping[str, int], limit: int, *, is_drained: bool
) -> HostPicture:
    reserve = entry.reserve_memory_bytes if entry is not None else 0
    return replace(
        picture,
        groups=entry.groups if entry is not None else (),
        reserve_memory_bytes=reserve or min(LEAST_RESERVE_BYTES, picture.memory_bytes // 10),
        is_drained=is_drained,
        moves=moves.get(picture.name, 0),
        moves_limit=limit,
    )


def _read(host: Host, settle_s: float) -> HostPicture:
    vms = inventory.read_configs(host, inventory.read(host))
    identity = host.identity
    began_s, before = time.monotonic(), _sample(host)
    load = read_load(host, settle_s=settle_s)
    if (left_s := began_s + settle_s - time.monotonic()) > 0:
        time.sleep(left_s)
    after, took_s = _sample(host), max(time.monotonic() - began_s, 0.001)
    cores = {uuid: max(after[uuid][0] - before[uuid][0], 0.0) / took_s for uuid in after if uuid in before}
    sent = sum(max(after[uuid][1] - before[uuid][1], 0.0) for uuid in after if uuid in before)
    with host.calls("look at the host", host.name) as connection:
        pools = _pools(connection)
        demands = tuple(_demand(vm, host.name, pools, cores.get(vm.uuid, vm.vcpus * TEMPLATE_CPU_SHARE)) for vm in vms)
        machines, virtualizations = _guests(connection)
        info = connection.getInfo()
        total = load.memory_total_bytes or info[1] * 1024**2
        # The test driver's node has nothing free, whatever runs there.
        used = None if host.is_simulated else load.memory_used_bytes
        return HostPicture(
            name=host.name,
            uri=host.uri,
            cpus=int(info[2]),
            cpu_percent=load.cpu_percent,
            memory_bytes=total,
            memory_free_bytes=None if used is None else total - used,
            memory_promised_bytes=sum(vm.memory_bytes for vm in demands if vm.is_active),
            network_percent=100 * sent / took_s / ASSUMED_LINK_BYTES_S if after else None,
            pools=pools,
            networks=frozenset(
                each.name() for each in connection.listAllNetworks(libvirt.VIR_CONNECT_LIST_NETWORKS_ACTIVE)
            ),
            machines=machines,
            virtualizations=virtualizations,
            vms=demands,
            tags=tags_of(demands),
            identity=identity,
        )


def _demand(vm: Vm, host_name: str, pools: Mapping[str, PoolPicture], cores: float) -> Demand:
    config = vm.config or VmConfig()
    return Demand(
        name=vm.name,
        uuid=vm.uuid,
        host=host_name,
        vcpus=vm.vcpus or config.vcpus,
        memory_bytes=vm.memory_max_bytes or config.memory_max_bytes or config.memory_bytes,
        cpu_cores=cores,
        disks=tuple(found for disk in config.disks if (found := _disk(disk, pools)) is not None),
        networks=frozenset(nic.source for nic in config.nics if nic.source_type == "network" and nic.source),
        machine=config.machine,
        virtualization=config.virtualization,
        tags=frozenset(config.tags),
        is_active=vm.is_active,
        own_devices=config.host_devices,
    )


def _disk(disk: Disk, pools: Mapping[str, PoolPicture]) -> DiskDemand | None:
    """The disk as a demand; None for a medium in a drive, and for a disk over the network, which each host reaches."""
    if disk.device not in {"disk", "lun"} or not disk.source or disk.source_type not in {"file", "block", "volume"}:
        return None
    if disk.source_type == "volume":
        pool_name, _, name = disk.source.partition("/")
        pool = pools.get(pool_name)
        return DiskDemand(0, pool_name, f"{pool.directory}/{name}" if pool and pool.directory else "")
    directory = disk.source.rpartition("/")[0]
    found = next((pool.name for pool in pools.values() if pool.directory == directory), "")
    return DiskDemand(0, found, disk.source)


def _size(domain: Any, path: str) -> int:
    """What a copy of the disk takes: what is allocated of it now; nothing where libvirt cannot tell."""
    return int(_or_else(lambda: domain.blockInfo(path), (0, 0, 0))[1]) if path else 0


def _pools(connection: Any) -> dict[str, PoolPicture]:
    found = {}
    for pool in connection.listAllStoragePools(libvirt.VIR_CONNECT_LIST_STORAGE_POOLS_ACTIVE):
        picture = _or_else(partial(_pool, pool), None)
        if picture is not None:
            found[picture.name] = picture
    return found


def _pool(pool: Any) -> PoolPicture:
    _, capacity, _, available = pool.info()
    root = parse(pool.XMLDesc(0), root="pool")
    return PoolPicture(
        name=pool.name(),
        free_bytes=int(available),
        capacity_bytes=int(capacity),
        directory=root.findtext("target/path", "").rstrip("/"),
        volumes=frozenset(pool.listVolumes()),
    )


def _with_new_volumes(
    pictures: Sequence[HostPicture], hosts: Sequence[Host], timeout_s: float
) -> Sequence[HostPicture]:
    """The pictures once more with the volumes that libvirt had not seen yet: it knows of no image that another host
    made since it last looked into a pool. Only pools are looked into in whose directory another host has a disk."""
    wanted: dict[str, set[str]] = {}
    for disk in (disk for picture in pictures for vm in picture.vms for disk in vm.disks):
        directory, _, name = disk.path.rpartition("/")
        wanted.setdefault(directory, set()).add(name)
    stale = {
        picture.uri: names
        for picture in pictures
        if (
            names := [
                pool.name
                for pool in picture.pools.values()
                if pool.directory and wanted.get(pool.directory, set()) - pool.volumes
            ]
        )
    }
    asked = [host for host in hosts if host.uri in stale and not host.read_only]
    answers = ask_all(asked, lambda host: _look_again(host, stale[host.uri]), timeout_s=timeout_s)
    fresh = {answer.host.uri: answer.value for answer in answers if answer.value}
    return [
        replace(picture, pools={**picture.pools, **fresh[picture.uri]}) if picture.uri in fresh else picture
        for picture in pictures
    ]


def _look_again(host: Host, names: Iterable[str]) -> dict[str, PoolPicture]:
    found = {}
    with host.calls("look into storage pools", host.name) as connection:
        for name in names:
            pool = connection.storagePoolLookupByName(name)
            _or_else(pool.refresh, None)
            found[name] = _pool(pool)
    return found


def _guests(connection: Any) -> tuple[frozenset[str], frozenset[str]]:
    """The machine types, with those that QEMU calls deprecated, and the kinds of virtualization."""
    root = parse(_or_else(connection.getCapabilities, "<capabilities/>"), root="capabilities")
    arches = [found for guest in root.findall("guest") if (found := guest.find("arch")) is not None]
    machines = {
        name
        for arch in arches
        for each in arch.iter("machine")
        for name in (each.text or "", each.get("canonical", ""))
    }
    kinds = {each.get("type", "") for arch in arches for each in arch.findall("domain")}
    return frozenset(machines - {""}), frozenset(kinds - {""})


def _sample(host: Host) -> _Sample:
    """Seconds of CPU and bytes over the network of each VM that runs, so far."""
    active = libvirt.VIR_CONNECT_GET_ALL_DOMAINS_STATS_ACTIVE | libvirt.VIR_CONNECT_GET_ALL_DOMAINS_STATS_NOWAIT
    with host.calls("measure the VMs' loads", host.name) as connection:
        records = _or_else(lambda: connection.getAllDomainStats(_SAMPLES, active), ())
        return {domain.UUIDString(): _sums(values) for domain, values in records if "cpu.time" in values}


def _sums(values: Mapping[str, int]) -> tuple[float, float]:
    count = int(values.get("net.count", 0))
    sent = sum(values.get(f"net.{index}.{way}.bytes", 0) for index in range(count) for way in ("rx", "tx"))
    return values["cpu.time"] / 1e9, float(sent)


def _cores_used(host: Host, vm: Vm, settle_s: float) -> float:
    before = _sample(host)
    began_s = time.monotonic()
    time.sleep(settle_s)
    after = _sample(host)
    if vm.uuid not in before or vm.uuid not in after:
        return vm.vcpus * TEMPLATE_CPU_SHARE
    return max(after[vm.uuid][0] - before[vm.uuid][0], 0.0) / (time.monotonic() - began_s)


def _migratable(domain: Any) -> Element | None:
    text = _or_else(lambda: domain.XMLDesc(libvirt.VIR_DOMAIN_XML_MIGRATABLE), "")
    return parse(text, root="domain") if text else None


def _refusals(root: Element, targets: Sequence[Host]) -> dict[str, str]:
    """The hosts that cannot give the guest the CPU that it sees now, by name, each with why."""
    cpu, kind = root.find("cpu"), root.find("os/type")
    if cpu is None or kind is None or cpu.get("mode", "custom") != "custom" or cpu.find("model") is None:
        return {}
    wanted = (root.findtext("devices/emulator") or None, kind.get("arch"), kind.get("machine"), root.get("type"))

    def compare(host: Host) -> int:
        with host.calls("compare CPUs", host.name) as connection:
            return int(_or_else(lambda: connection.compareHypervisorCPU(*wanted, to_text(cpu), 0), 1))

    answers = ask_all(targets, compare, timeout_s=TIMEOUT_S)
    model = printable(cpu.findtext("model", ""), limit=40)
    why = f"its CPU cannot be the {model} that the guest sees"
    return {answer.host.name: why for answer in answers if answer.value == libvirt.VIR_CPU_COMPARE_INCOMPATIBLE}


def _or_else(call: Callable[[], Any], otherwise: Any) -> Any:
    """The call's value, or `otherwise` where the driver does not have it."""
    try:
        return call()
    except libvirt.libvirtError as error:
        if error.get_error_domain() == libvirt.VIR_FROM_RPC:
            raise
        return otherwise
