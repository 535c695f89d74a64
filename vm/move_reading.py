"""What is read of a VM's own host and of the one that it is to move to. Reads only; vm.move_checks judges it."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import PurePosixPath
from typing import Any
from xml.etree.ElementTree import Element

import libvirt

from host.connection import Host
from vm.clone_xml import target_of
from vm.create_checks import read_available_bytes
from vm.domain_xml import disk_source, parse
from vm.move_model import BOOT_FILES
from vm.move_sides import mark_of, operation_of

MIGRATABLE = libvirt.VIR_DOMAIN_XML_MIGRATABLE
_INACTIVE = libvirt.VIR_DOMAIN_XML_INACTIVE
_DIRTY_RATE_S = 1
_POLL_S = 0.1
_LONGEST_CHAIN = 32
_NO_DOMAIN = libvirt.VIR_ERR_NO_DOMAIN


@dataclass(frozen=True, slots=True)
class VolumeReading:
    """A volume at a path."""

    path: str
    pool: str
    name: str
    capacity_bytes: int
    allocation_bytes: int
    format: str = ""
    kind: str = "file"
    backing: str = ""
    backing_format: str = ""


@dataclass(frozen=True, slots=True)
class PoolReading:
    name: str
    path: str
    kind: str
    is_active: bool
    free_bytes: int


@dataclass(frozen=True, slots=True)
class HostReading:
    """What both hosts are asked alike. Versions are libvirt's numbers, 0 where a driver has none."""

    uri: str
    name: str
    driver: str
    host_uuid: str
    host_cpu: str
    libvirt_version: int
    hypervisor_version: int
    volumes: Mapping[str, VolumeReading] = field(default_factory=dict)  # by path, of those asked for


@dataclass(frozen=True, slots=True)
class SourceReading:
    """The VM on its own host. `definition` is what its next start gets, `current` what moves with a running guest."""

    host: HostReading
    uuid: str
    name: str
    is_active: bool
    is_paused: bool
    is_asleep: bool
    is_persistent: bool
    autostart: bool
    has_saved_state: bool
    is_busy: bool
    definition: Element
    current: Element
    inactive_xml: str = ""
    migratable_xml: str = ""
    snapshots: tuple[str, ...] = ()
    external_snapshots: tuple[str, ...] = ()  # those that keep disks or memory in files of their own
    checkpoints: tuple[str, ...] = ()
    memory_bytes: int = 0
    resident_bytes: int = 0
    dirty_bytes_s: float | None = None
    measuring_since_s: float | None = None  # time.monotonic() when libvirt began to count what the guest writes
    sizes: Mapping[str, tuple[int, int]] = field(default_factory=dict)  # capacity, allocation by disk target

    @property
    def backing(self) -> tuple[str, ...]:
        """The images that the disks' own ones build on, as far as pools know them."""
        return tuple(dict.fromkeys(each.backing for each in self.host.volumes.values() if each.backing))


@dataclass(frozen=True, slots=True)
class Namesake:
    """A VM at the target with the same name or uuid."""

    uuid: str
    name: str
    is_active: bool
    mark: str = ""


@dataclass(frozen=True, slots=True)
class TargetReading:
    """The host that it is to move to. None means that the driver does not tell, and then nothing is refused for it.
    `cpu` is libvirt's comparison (0 incompatible, 1 the same, 2 more than needed), `cpu_problem` what else it said."""

    host: HostReading
    by_name: Namesake | None = None
    by_uuid: Namesake | None = None
    machines: frozenset[str] | None = None
    domain_types: frozenset[str] | None = None
    emulators: frozenset[str] | None = None
    loaders: frozenset[str] | None = None
    tpm_models: frozenset[str] | None = None
    cpus: int = 0
    nodes: int = 1
    cpu: int | None = None
    cpu_problem: str = ""
    free_memory_bytes: int | None = None
    total_memory_bytes: int = 0
    networks: Mapping[str, bool] = field(default_factory=dict)
    interfaces: frozenset[str] | None = None
    filters: frozenset[str] | None = None
    secrets: frozenset[str] | None = None
    pools: tuple[PoolReading, ...] = ()
    likeness: Mapping[str, bool | None] = field(default_factory=dict)  # by path: whether both hosts see one file


# The source


def read_source(host: Host, uuid: str, *, measure: bool = True) -> SourceReading:
    """Everything of the VM and its host. `measure` begins to count what a running guest writes to its memory:
    `with_dirty_rate` has the result a second later. Raises NotFound, ConnectionLost."""
    with host.calls("look at", uuid) as connection:
        domain = connection.lookupByUUIDString(uuid)
        is_active = bool(domain.isActive())
        started_s = time.monotonic() if measure and is_active and _starts_measuring(domain) else None
        found = _read_domain(host, connection, domain, is_active=is_active)
    return replace(found, measuring_since_s=started_s)


def with_dirty_rate(host: Host, found: SourceReading) -> SourceReading:
    """The same with how fast the guest writes to its memory, where that is being counted; waits for it. Raises
    NotFound, ConnectionLost."""
    if found.measuring_since_s is None:
        return found
    with host.calls("look at", found.name) as connection:
        domain = connection.lookupByUUIDString(found.uuid)
        return replace(found, dirty_bytes_s=_dirty_rate(connection, domain, found.measuring_since_s))


def _read_domain(host: Host, connection: Any, domain: Any, *, is_active: bool) -> SourceReading:
    inactive_xml = domain.XMLDesc(_INACTIVE)
    migratable_xml = _or_else(lambda: domain.XMLDesc(MIGRATABLE), "") if is_active else ""
    definition, current = parse(inactive_xml), parse(migratable_xml or domain.XMLDesc(0))
    state = domain.state(0)[0]
    is_persistent = bool(domain.isPersistent())
    paths = [disk_source(disk) for disk in current.iterfind("devices/disk")]
    paths += [current.findtext(f"os/{tag}", "") for tag in BOOT_FILES]
    _refresh(connection, host, paths)
    snapshots = {each.getName(): each.getXMLDesc(0) for each in _or_else(lambda: domain.listAllSnapshots(0), [])}
    return SourceReading(
        host=_read_host(host, connection, [path for path in paths if path.startswith("/")], follow=True),
        uuid=domain.UUIDString(),
        name=domain.name(),
        is_active=is_active,
        is_paused=state == libvirt.VIR_DOMAIN_PAUSED,
        is_asleep=state == libvirt.VIR_DOMAIN_PMSUSPENDED,
        is_persistent=is_persistent,
        autostart=is_persistent and bool(domain.autostart()),
        has_saved_state=is_persistent and bool(domain.hasManagedSaveImage(0)),
        is_busy=is_active and operation_of(domain) != 0,
        definition=definition,
        current=current,
        inactive_xml=inactive_xml,
        migratable_xml=migratable_xml,
        snapshots=tuple(snapshots),
        external_snapshots=tuple(
            name for name, xml in snapshots.items() if is_external(parse(xml, root="domainsnapshot"))
        ),
        checkpoints=tuple(each.getName() for each in _or_else(lambda: domain.listAllCheckpoints(0), [])),
        memory_bytes=int(domain.info()[1]) * 1024,
        resident_bytes=int(_or_else(domain.memoryStats, {}).get("rss", 0)) * 1024 if is_active else 0,
        sizes=_sizes(domain, current),
    )


def is_external(root: Element) -> bool:
    """Whether a checkpoint keeps disks or memory in files beside the VM's own."""
    memory = root.find("memory")
    elements = [*root.iterfind("disks/disk"), *([memory] if memory is not None else [])]
    return any(each.get("snapshot") == "external" for each in elements)


def _sizes(domain: Any, root: Element) -> dict[str, tuple[int, int]]:
    found = {}
    for disk in root.iterfind("devices/disk"):
        target = target_of(disk)
        if disk_source(disk) and disk.get("device", "disk") == "disk":
            sizes = _or_else(lambda target=target: domain.blockInfo(target, 0), None)
            if sizes:
                found[target] = (int(sizes[0]), int(sizes[1]))
    return found


def _starts_measuring(domain: Any) -> bool:
    try:
        domain.startDirtyRateCalc(_DIRTY_RATE_S, 0)
    except (libvirt.libvirtError, AttributeError) as error:
        _raise_if_lost(error)
        return False
    return True


def _dirty_rate(connection: Any, domain: Any, started_s: float) -> float | None:
    """What the guest writes to its memory, bytes a second, when libvirt has counted it."""
    while time.monotonic() - started_s < _DIRTY_RATE_S + 1.0:
        time.sleep(max(started_s + _DIRTY_RATE_S + _POLL_S - time.monotonic(), _POLL_S))
        told = _or_else(lambda: connection.domainListGetStats([domain], libvirt.VIR_DOMAIN_STATS_DIRTYRATE, 0), [])
        statistics = told[0][1] if told else {}
        if statistics.get("dirtyrate.calc_status") == libvirt.VIR_DOMAIN_DIRTYRATE_MEASURED:
            return float(statistics.get("dirtyrate.megabytes_per_second", 0)) * 1024**2
    return None


# The target


def read_target(host: Host, source: SourceReading, *, name: str) -> TargetReading:
    """What the host has of what `source` needs; `name` is the VM's name there. Raises ConnectionLost, Denied."""
    root = source.current
    paths = [disk_source(disk) for disk in root.iterfind("devices/disk")]
    paths += source.backing
    paths += [root.findtext(f"os/{tag}", "") for tag in BOOT_FILES]
    with host.calls("look at", host.name) as connection:
        capabilities = parse(_or_else(connection.getCapabilities, "<capabilities/>"), root="capabilities")
        kind = root.find("os/type")
        architecture = "" if kind is None else kind.get("arch", "")
        arch = _arch(capabilities, architecture)
        special = _domain_capabilities(connection, root)
        cpu, cpu_problem = _compare_cpu(connection, root, is_active=source.is_active)
        information = connection.getInfo()
        _refresh(connection, host, paths)
        pools = connection.listAllStoragePools(0)
        return TargetReading(
            host=_read_host(host, connection, [path for path in dict.fromkeys(paths) if path.startswith("/")]),
            by_name=_namesake(lambda: connection.lookupByName(name)),
            by_uuid=_namesake(lambda: connection.lookupByUUIDString(source.uuid)),
            machines=_machines(arch),
            domain_types=_attributes(arch, "domain", "type"),
            emulators=_texts(arch, ".//emulator"),
            loaders=_texts(special, "os/loader/value"),
            tpm_models=_texts(special, "devices/tpm/enum[@name='model']/value"),
            cpus=int(information[2]),
            nodes=max(int(information[4]), 1),
            cpu=cpu,
            cpu_problem=cpu_problem,
            free_memory_bytes=read_available_bytes(connection),
            total_memory_bytes=int(information[1]) * 1024**2,
            networks={each.name(): bool(each.isActive()) for each in connection.listAllNetworks(0)},
            interfaces=_names(lambda: connection.listAllInterfaces(libvirt.VIR_CONNECT_LIST_INTERFACES_ACTIVE)),
            filters=_names(lambda: connection.listAllNWFilters(0)),
            secrets=_names(lambda: connection.listAllSecrets(0), lambda each: each.UUIDString()),
            pools=tuple(_pool(pool) for pool in pools),
        )


def _refresh(connection: Any, host: Host, paths: Iterable[str]) -> None:
    """libvirt knows of no image that another host made since it last looked into a pool, not even where a VM that was
    moved here uses it."""
    unknown = {
        str(PurePosixPath(path).parent)
        for path in paths
        if path.startswith("/") and _or_else(lambda path=path: connection.storageVolLookupByPath(path), None) is None
    }
    for pool in connection.listAllStoragePools(0) if unknown and not host.read_only else ():
        if pool.isActive() and _pool(pool).path in unknown:
            _or_else(pool.refresh, None)


def _read_host(host: Host, connection: Any, paths: Iterable[str], *, follow: bool = False) -> HostReading:
    capabilities = parse(_or_else(connection.getCapabilities, "<capabilities/>"), root="capabilities")
    volumes: dict[str, VolumeReading] = {}
    for path in paths:
        _add_volume(connection, path, volumes, follow=follow)
    return HostReading(
        uri=host.uri,
        name=host.name if host.name and host.name != host.uri else connection.getHostname(),
        driver=connection.getType(),
        host_uuid=capabilities.findtext("host/uuid", ""),
        host_cpu=capabilities.findtext("host/cpu/model", ""),
        libvirt_version=connection.getLibVersion(),
        hypervisor_version=int(_or_else(connection.getVersion, 0)),
        volumes=volumes,
    )


def _add_volume(connection: Any, path: str, volumes: dict[str, VolumeReading], *, follow: bool) -> None:
    while path and path not in volumes and len(volumes) < _LONGEST_CHAIN * 8:
        try:
            volume = connection.storageVolLookupByPath(path)
            volumes[path] = _volume(path, volume)
        except libvirt.libvirtError as error:
            _raise_if_lost(error)
            return
        path = volumes[path].backing if follow else ""


def _volume(path: str, volume: Any) -> VolumeReading:
    root = parse(volume.XMLDesc(0), root="volume")
    image_format, backing_format = root.find("target/format"), root.find("backingStore/format")
    capacity, allocation = root.findtext("capacity", "0"), root.findtext("allocation", "0")
    return VolumeReading(
        path=path,
        pool=volume.storagePoolLookupByVolume().name(),
        name=volume.name(),
        capacity_bytes=int(capacity),
        allocation_bytes=int(allocation),
        format="" if image_format is None else image_format.get("type", ""),
        kind=root.get("type", "file"),
        backing=root.findtext("backingStore/path", ""),
        backing_format="" if backing_format is None else backing_format.get("type", ""),
    )


def _pool(pool: Any) -> PoolReading:
    root = parse(pool.XMLDesc(0), root="pool")
    is_active = bool(pool.isActive())
    return PoolReading(
        name=pool.name(),
        path=str(PurePosixPath(root.findtext("target/path", ""))) if root.findtext("target/path") else "",
        kind=root.get("type", ""),
        is_active=is_active,
        free_bytes=int(pool.info()[3]) if is_active else 0,
    )


def _namesake(look_up: Any) -> Namesake | None:
    try:
        domain = look_up()
        mark = mark_of(domain) if domain.isPersistent() else ""
        return Namesake(domain.UUIDString(), domain.name(), bool(domain.isActive()), mark)
    except libvirt.libvirtError as error:
        if error.get_error_code() == _NO_DOMAIN:
            return None
        raise


def _arch(capabilities: Element, architecture: str) -> Element | None:
    for guest in capabilities.findall("guest"):
        found = guest.find("arch")
        if found is not None and found.get("name") == architecture and guest.findtext("os_type") == "hvm":
            return found
    return None


def _machines(arch: Element | None) -> frozenset[str] | None:
    """Also those that QEMU calls deprecated, and what the short names stand for."""
    if arch is None:
        return None
    machines = list(arch.iter("machine"))
    return frozenset(name for each in machines for name in (each.text or "", each.get("canonical", "")) if name)


def _attributes(root: Element | None, tag: str, name: str) -> frozenset[str] | None:
    return None if root is None else frozenset(each.get(name, "") for each in root.iter(tag))


def _texts(root: Element | None, path: str) -> frozenset[str] | None:
    return None if root is None else frozenset((each.text or "").strip() for each in root.findall(path))


def _domain_capabilities(connection: Any, root: Element) -> Element | None:
    kind = root.find("os/type")
    emulator = root.findtext("devices/emulator") or None
    if kind is None:
        return None
    arguments = (emulator, kind.get("arch"), kind.get("machine"), root.get("type"), 0)
    text = _or_else(lambda: connection.getDomainCapabilities(*arguments), "")
    return parse(text, root="domainCapabilities") if text else None


def _compare_cpu(connection: Any, root: Element, *, is_active: bool) -> tuple[int | None, str]:
    """libvirt's comparison of the CPU that the running guest sees with what the host can give."""
    cpu, kind = root.find("cpu"), root.find("os/type")
    if cpu is None or kind is None or cpu.get("mode", "custom") != "custom" or cpu.find("model") is None:
        return None, ""
    from vm.domain_xml import to_text

    emulator = root.findtext("devices/emulator") or None
    try:
        compared = connection.compareHypervisorCPU(
            emulator, kind.get("arch"), kind.get("machine"), root.get("type"), to_text(cpu), 0
        )
    except libvirt.libvirtError as error:
        _raise_if_lost(error)
        return None, (error.get_error_message() or "") if is_active else ""
    return int(compared), ""


def _names(call: Any, read: Any = lambda each: each.name()) -> frozenset[str] | None:
    """The names of what the driver lists; None where it does not know such things."""
    try:
        return frozenset(read(each) for each in call())
    except libvirt.libvirtError as error:
        _raise_if_lost(error)
        return None


def _or_else(call: Any, otherwise: Any) -> Any:
    """The call's value, or `otherwise` where the driver does not have it."""
    try:
        return call()
    except libvirt.libvirtError as error:
        _raise_if_lost(error)
        return otherwise


def _raise_if_lost(error: Exception) -> None:
    if isinstance(error, libvirt.libvirtError) and error.get_error_domain() == libvirt.VIR_FROM_RPC:
        raise error
