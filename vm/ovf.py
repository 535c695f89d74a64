"""What the descriptor of an OVA says of its virtual machine: firmware, disks in their order, cards, memory, vCPUs.

Descriptors of VMware, VirtualBox and others differ in their extensions, so that what is not understood is left to
the defaults. The text is hostile: it is parsed without DTD and entities, and every value is checked. Pure.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from xml.etree.ElementTree import Element

from host.errors import UsageError
from host.text import printable
from host.units import MIB
from vm.create_request import Firmware
from vm.domain_xml import parse

# CIM_ResourceAllocationSettingData.ResourceType (DMTF DSP1041)
_PROCESSOR, _MEMORY, _IDE, _SCSI, _NIC, _DISK, _SATA = 3, 4, 5, 6, 10, 17, 20
_BUSES = {_IDE: "ide", _SCSI: "scsi", _SATA: "sata"}
_NAMESPACE = "http://schemas.dmtf.org/ovf/envelope/{}"
_POWER = re.compile(r"byte\s*\*\s*2\s*\^\s*(\d{1,2})")
_WORDS = {"byte": 1, "bytes": 1, "kilobytes": 2**10, "megabytes": 2**20, "gigabytes": 2**30}
_MOST_DISKS = 64
_MOST_BYTES = 2**63 - 1


@dataclass(frozen=True, slots=True)
class OvfDisk:
    """A disk: the OVA's file it is in, its size in bytes, and the bus that it hangs on (ide, scsi, sata, or empty)."""

    file: str
    capacity_bytes: int = 0
    bus: str = ""


@dataclass(frozen=True, slots=True)
class OvfMachine:
    """The virtual machine of a descriptor; 0 and "" where it does not tell. `nics` are the cards' models as written."""

    name: str = ""
    disks: tuple[OvfDisk, ...] = ()
    vcpus: int = 0
    memory_bytes: int = 0
    firmware: Firmware = Firmware.BIOS
    nics: tuple[str, ...] = ()
    os_name: str = ""


def read(text: str) -> OvfMachine:
    """The machine that the descriptor describes. Raises UsageError for XML that is malformed or not an OVF, for one of
    several machines, and for one without a disk."""
    version = 2 if _NAMESPACE.format(2) in text else 1
    root = parse(text, root=f"{{{_NAMESPACE.format(version)}}}Envelope")
    systems = [each for each in root.iter() if _tag(each) == "VirtualSystem"]
    if len(systems) != 1:
        raise UsageError(f"it describes {len(systems)} virtual machines, and one is what can be taken")
    items = [_fields(each) for each in systems[0].iter() if _tag(each) in {"Item", "StorageItem", "EthernetPortItem"}]
    disks = _disks(root, items)
    if not disks:
        raise UsageError("it describes a virtual machine without a disk")
    return OvfMachine(
        name=printable(_attribute(systems[0], "id") or "", limit=100),
        disks=disks,
        vcpus=_first_quantity(items, _PROCESSOR),
        memory_bytes=_memory_bytes(items),
        firmware=_firmware(systems[0]),
        nics=tuple(printable(each.get("ResourceSubType", ""), limit=40) for each in _of(items, _NIC)),
        os_name=_os_name(systems[0]),
    )


def _tag(element: Element) -> str:
    return str(element.tag).rpartition("}")[2]


def _attribute(element: Element, name: str) -> str | None:
    """Whatever namespace it is in: producers differ."""
    return next((value for key, value in element.attrib.items() if key.rpartition("}")[2] == name), None)


def _fields(item: Element) -> dict[str, str]:
    return {_tag(child): (child.text or "").strip() for child in item}


def _of(items: list[dict[str, str]], kind: int) -> list[dict[str, str]]:
    return [item for item in items if item.get("ResourceType") == str(kind)]


def _number(text: str | None) -> int:
    return int(text) if text and text.isascii() and text.isdecimal() and len(text) < 20 else 0


def _first_quantity(items: list[dict[str, str]], kind: int) -> int:
    return next((_number(item.get("VirtualQuantity")) for item in _of(items, kind)), 0)


def _unit(text: str) -> int:
    found = _POWER.search(text)
    return 2 ** int(found[1]) if found else _WORDS.get(text.strip().lower(), 0)


def _memory_bytes(items: list[dict[str, str]]) -> int:
    for item in _of(items, _MEMORY):
        unit = _unit(item.get("AllocationUnits", "")) or MIB
        return min(_number(item.get("VirtualQuantity")) * unit, _MOST_BYTES)
    return 0


def _disks(root: Element, items: list[dict[str, str]]) -> tuple[OvfDisk, ...]:
    files = {_attribute(each, "id"): _attribute(each, "href") or "" for each in root.iter() if _tag(each) == "File"}
    described = {_attribute(each, "diskId"): each for each in root.iter() if _tag(each) == "Disk"}
    buses = {item.get("InstanceID"): _BUSES[kind] for kind in _BUSES for item in _of(items, kind)}
    found = []
    for item in sorted(_of(items, _DISK), key=lambda each: _number(each.get("AddressOnParent"))):
        disk = described.get(item.get("HostResource", "").rpartition("/")[2])
        if disk is None:
            continue
        file = files.get(_attribute(disk, "fileRef"), "")
        if file:  # a disk without a file is an empty one
            found.append(OvfDisk(file, _capacity(disk), buses.get(item.get("Parent"), "")))
    return tuple(found[:_MOST_DISKS])


def _capacity(disk: Element) -> int:
    unit = _unit(_attribute(disk, "capacityAllocationUnits") or "byte") or 1
    return min(_number(_attribute(disk, "capacity")) * unit, _MOST_BYTES)


def _firmware(system: Element) -> Firmware:
    """VMware's vmw:Config key="firmware", and VirtualBox's own Firmware element."""
    secure = False
    efi = False
    for element in system.iter():
        if _tag(element) == "Config":
            key, value = _attribute(element, "key"), (_attribute(element, "value") or "").lower()
            efi = efi or (key == "firmware" and value == "efi")
            secure = secure or (key == "bootOptions.efiSecureBootEnabled" and value == "true")
        elif _tag(element) == "Firmware":
            efi = efi or (_attribute(element, "type") or "").upper().startswith("EFI")
    return (Firmware.UEFI_SECURE if secure else Firmware.UEFI) if efi else Firmware.BIOS


def _os_name(system: Element) -> str:
    for section in system.iter():
        if _tag(section) == "OperatingSystemSection":
            described = next((child.text for child in section if _tag(child) == "Description" and child.text), "")
            return printable(_attribute(section, "osType") or described or "", limit=100)
    return ""
