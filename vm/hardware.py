"""Reads what one VM is made of: processor, memory, firmware, disks with their sizes, interfaces, every other device.

Frozen values for a details view. `read` makes at most two calls (the XML, running and for the next start), `disk_sizes`
one for each disk. Changes nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from xml.etree.ElementTree import Element

import libvirt

from host.connection import Host
from vm.domain_xml import parse, read_config
from vm.model import Disk, Nic, Vm, VmConfig

_INACTIVE = libvirt.VIR_DOMAIN_XML_INACTIVE
_SHOWN_ELSEWHERE = frozenset({"disk", "interface", "emulator"})
_DRIVER_OPTIONS = ("cache", "io", "discard", "detect_zeroes", "iothread", "queues")
_ONE = {"sockets": "socket", "dies": "die", "clusters": "cluster", "cores": "core", "threads": "thread"}
# Where the words of a device stand, in the order in which a person says them. The path to a child, and its attribute.
_DEVICE_WORDS = (
    ("", "type"), ("", "model"), ("model", "type"), ("model", "name"), ("", "bus"), ("target", "type"),
    ("target", "name"), ("target", "dir"), ("source", "dir"), ("source", "path"), ("source", "dev"),
    ("source", "service"), ("backend", "type"), ("backend", "version"), ("backend", "model"), ("cid", "address"),
    ("", "action"), ("target", "state"),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class DiskSize:
    """What the guest sees of a disk, and what it takes on the host."""

    capacity_bytes: int
    allocation_bytes: int


@dataclass(frozen=True, slots=True)
class DiskPart:
    """A disk or drive; `options` such as "cache none"."""

    disk: Disk
    options: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class NicPart:
    """A network interface; `options` such as "vlan 12"."""

    nic: Nic
    options: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Device:
    """Devices that are alike: "pci pcie-root-port", ten of them. `kind` is the element's name."""

    kind: str
    words: str
    count: int = 1


@dataclass(frozen=True, slots=True)
class Hardware:
    """What a VM runs on now; of one that does not run, what its next start uses. `live_xml` is empty then."""

    config: VmConfig
    architecture: str
    emulator: str
    cpu: str  # "host-model: EPYC-Milan"
    topology: str  # "1 socket × 4 cores × 2 threads"; empty when the XML says nothing
    memory: tuple[str, ...]  # "hugepages 2048 KiB", "locked"
    secure_boot: bool
    boot: tuple[str, ...]  # "hd", "network" or "vda", in their order
    features: tuple[str, ...]
    clock: str
    disks: tuple[DiskPart, ...]
    nics: tuple[NicPart, ...]
    devices: tuple[Device, ...]
    next_xml: str
    live_xml: str = ""


def read(host: Host, vm: Vm) -> Hardware:
    """The VM's hardware and its XML, without secrets. Raises NotFound, ConnectionLost, and UsageError for XML that is
    too large to be read."""
    with host.calls("read the hardware of", vm.name) as connection:
        domain = connection.lookupByUUIDString(vm.uuid)
        next_xml = str(domain.XMLDesc(_INACTIVE))
        live_xml = str(domain.XMLDesc(0)) if domain.isActive() else ""
    return from_xml(next_xml, live_xml)


def from_xml(next_xml: str, live_xml: str = "") -> Hardware:
    """What the XML says; `live_xml` is that of a running VM. Raises UsageError."""
    root = parse(live_xml or next_xml)
    config = read_config(live_xml or next_xml, inactive_xml=next_xml if live_xml else None)
    return Hardware(
        config=config,
        architecture=_attribute(root.find("os/type"), "arch"),
        emulator=root.findtext("devices/emulator", ""),
        cpu=_cpu(parse(next_xml), root),
        topology=_topology(root.find("cpu/topology")),
        memory=tuple(_memory(root)),
        secure_boot=_has_secure_boot(root),
        boot=_boot_order(root),
        features=tuple(each.tag for each in root.iterfind("features/*") if each.get("state") != "off"),
        clock=_attribute(root.find("clock"), "timezone") or _attribute(root.find("clock"), "offset"),
        disks=tuple(map(DiskPart, config.disks, map(_disk_options, root.iterfind("devices/disk")))),
        nics=tuple(map(NicPart, config.nics, map(_nic_options, root.iterfind("devices/interface")))),
        devices=_devices(root, config),
        next_xml=next_xml,
        live_xml=live_xml,
    )


def disk_sizes(host: Host, vm: Vm, hardware: Hardware) -> dict[str, DiskSize]:
    """The sizes of the VM's disks by target; one that cannot be told is left out. Waits while a running VM does not
    answer libvirt. Raises NotFound, ConnectionLost."""
    with host.calls("read the disk sizes of", vm.name) as connection:
        domain = connection.lookupByUUIDString(vm.uuid)
        found = {}
        for disk in (part.disk for part in hardware.disks if part.disk.source):
            size = _volume_size(connection, disk) if host.is_simulated else _block_size(domain, disk)
            if size is not None:
                found[disk.target] = size
    return found


def _block_size(domain: Any, disk: Disk) -> DiskSize | None:
    try:
        capacity, allocation, _physical = domain.blockInfo(disk.target)
    except libvirt.libvirtError:
        return None  # a file that is gone, a server that does not answer: that is no reason to hide the other disks
    return DiskSize(capacity, allocation)


def _volume_size(connection: Any, disk: Disk) -> DiskSize | None:
    """On the test driver, where a disk of any VM has the same made-up size."""
    try:
        _kind, capacity, allocation = connection.storageVolLookupByPath(disk.source).info()
    except libvirt.libvirtError:
        return None
    return DiskSize(capacity, allocation)


def _attribute(element: Element | None, name: str) -> str:
    return element.get(name, "") if element is not None else ""


def _cpu(next_root: Element, root: Element) -> str:
    """How the processor is chosen, and what came of it: libvirt tells the second only while the VM runs."""
    model = root.findtext("cpu/model", "").strip()
    return ": ".join(part for part in (_attribute(next_root.find("cpu"), "mode"), model) if part)


def _topology(topology: Element | None) -> str:
    if topology is None:
        return ""
    counts = [(name, topology.get(name, "")) for name in ("sockets", "dies", "clusters", "cores", "threads")]
    told = (
        (name, count) for name, count in counts if count and (name in {"sockets", "cores", "threads"} or count != "1")
    )
    return " × ".join(f"{count} {_ONE[name] if count == '1' else name}" for name, count in told)


def _memory(root: Element) -> Iterator[str]:
    backing = root.find("memoryBacking")
    if backing is None:
        return
    pages = backing.find("hugepages")
    if pages is not None:
        page = pages.find("page")
        size = f"{_attribute(page, 'size')} {_attribute(page, 'unit') or 'KiB'}"
        yield f"huge pages {size}" if page is not None else "huge pages"
    if backing.find("locked") is not None:
        yield "locked"
    if (access := _attribute(backing.find("access"), "mode")) == "shared":
        yield access


def _has_secure_boot(root: Element) -> bool:
    asked = root.find("os/firmware/feature[@name='secure-boot']")
    return _attribute(root.find("os/loader"), "secure") == "yes" or _attribute(asked, "enabled") == "yes"


def _boot_order(root: Element) -> tuple[str, ...]:
    """By device where the devices have numbers, else by kind."""
    numbered = []
    for device in root.iterfind("devices/*"):
        order = _attribute(device.find("boot"), "order")
        if order.isascii() and order.isdigit():
            name = _attribute(device.find("target"), "dev") if device.tag == "disk" else ""
            numbered.append((int(order[:9]), name or ("network" if device.tag == "interface" else device.tag)))
    if numbered:
        return tuple(name for _order, name in sorted(numbered))
    return tuple(boot.get("dev", "") for boot in root.iterfind("os/boot"))


def _disk_options(disk: Element) -> tuple[str, ...]:
    driver = disk.find("driver")
    options = [f"{name.replace('_', ' ')} {value}" for name in _DRIVER_OPTIONS if (value := _attribute(driver, name))]
    serial = disk.findtext("serial", "")
    options += [f"serial {serial}"] if serial else []
    options += ["encrypted"] if disk.find(".//encryption") is not None else []
    return (*options, *(["limited"] if disk.find("iotune") is not None else ()))


def _nic_options(nic: Element) -> tuple[str, ...]:
    options = []
    if _attribute(nic.find("link"), "state") == "down":
        options.append("link down")
    options += [f"vlan {tag.get('id', '')}" for tag in nic.iterfind("vlan/tag")]
    if mtu := _attribute(nic.find("mtu"), "size"):
        options.append(f"mtu {mtu}")
    if rule := _attribute(nic.find("filterref"), "filter"):
        options.append(f"filter {rule}")
    if queues := _attribute(nic.find("driver"), "queues"):
        options.append(f"{queues} queues")
    return tuple(options)


def _devices(root: Element, config: VmConfig) -> tuple[Device, ...]:
    """Every other device in the XML's order, those that are alike once."""
    screens = iter(config.graphics)
    counts = Counter(
        (each.tag, next(screens, "") if each.tag == "graphics" else _device_words(each))
        for each in root.iterfind("devices/*")
        if each.tag not in _SHOWN_ELSEWHERE
    )
    return tuple(Device(kind, words, count) for (kind, words), count in counts.items())


def _device_words(device: Element) -> str:
    words = [_attribute(device.find(path) if path else device, name) for path, name in _DEVICE_WORDS]
    if device.tag == "hostdev":
        words.append(_host_address(device.find("source")))
    words.append(device.findtext("backend", "").strip())
    return " ".join(dict.fromkeys(word for word in words if word))


def _host_address(source: Element | None) -> str:
    """ "0000:01:00.0" of a PCI device, "046d:c52b" of a USB one, the uuid of a mediated one."""
    if source is None:
        return ""
    address = source.find("address")
    if (slot := _attribute(address, "slot")) and address is not None:
        domain, bus, function = (address.get(name, "0").removeprefix("0x") for name in ("domain", "bus", "function"))
        return f"{domain}:{bus}:{slot.removeprefix('0x')}.{function}"
    vendor, product = (_attribute(source.find(name), "id").removeprefix("0x") for name in ("vendor", "product"))
    return f"{vendor}:{product}" if vendor else _attribute(address, "uuid")
