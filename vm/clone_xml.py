"""From a VM's definition to that of its clone: a new identity, disks of its own, nothing that cannot be there twice.

Whatever only one VM can have (a device of the host, a file that a serial port writes to, a fixed port) is left out or
made anew, and each time a note says so in words; what is met twice without harm stays as it is. Pure functions on
parsed XML: the disks' contents are vm.clone's business.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias
from xml.etree.ElementTree import Element, SubElement

from host.text import printable
from vm.deploy_xml import NAME_FIELD, kernel_arguments
from vm.domain_xml import disk_source
from vm.new_domain_xml import new_mac

Say: TypeAlias = Callable[[str], None]

LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})
REMOVABLE = frozenset({"cdrom", "floppy"})
_TINY_NAME = "tiny.hostname="  # vm.tiny_initramfs reads it
_PORTS = ("serial", "parallel", "console", "channel")
_ONCE = {"lease": "a lock of another program", "shmem": "memory shared with other programs"}


@dataclass(frozen=True, slots=True)
class CloneDisk:
    """A disk of the clone in place of the origin's: its path, its format, and whether it is a block volume."""

    path: str
    format: str
    is_block: bool = False


@dataclass(frozen=True, slots=True)
class Identity:
    """Who the clone is. `nvram` is the file of its own firmware variables, or empty for those that libvirt makes.
    `drops` are the targets of disks and drives that it does not get."""

    name: str
    uuid: str
    disks: Mapping[str, CloneDisk] = field(default_factory=dict)
    nvram: str = ""
    drops: frozenset[str] = frozenset()


def make_clone(root: Element, identity: Identity) -> tuple[str, ...]:
    """Turn the origin's domain `root` into the clone's, in place. Returns what is not as it was with the origin, in
    words. Secrets (vm.redact) must be out of it already."""
    notes: dict[str, None] = {}

    def say(text: str) -> None:
        notes.setdefault(text)

    _set_identity(root, identity, say)
    _set_firmware(root, identity)
    _set_host_name(root, identity.name)
    devices = root.find("devices")
    if devices is not None:
        _set_disks(devices, identity)
        _set_cards(devices, identity, say)
        _set_screens(devices, say)
        for port in [each for tag in _PORTS for each in devices.findall(tag)]:
            _set_port(devices, port, say)
        _leave_out(devices, say)
        _set_others(devices, say)
    _set_labels(root, say)
    return tuple(notes)


def target_of(disk: Element) -> str:
    """The target of a <disk>: vda."""
    target = disk.find("target")
    return "" if target is None else target.get("dev", "")


def is_kept(disk: Element) -> bool:
    """True for what both VMs can have at once: a drive, a disk that is only read or that is meant to be shared."""
    is_read_only = disk.find("readonly") is not None or disk.find("shareable") is not None
    return not disk_source(disk) or disk.get("device") == "cdrom" or is_read_only


# Who it is


def _set_identity(root: Element, identity: Identity, say: Say) -> None:
    for tag, text in (("name", identity.name), ("uuid", identity.uuid)):
        element = root.find(tag)
        if element is None:
            element = Element(tag)
            root.insert(0, element)
        element.text = text
    root.attrib.pop("id", None)
    if (genid := root.find("genid")) is not None:
        genid.text = None  # libvirt makes a new one
    for system in root.iterfind("sysinfo/system"):
        for entry in list(system):
            if entry.get("name") == "uuid":
                entry.text = identity.uuid
            elif entry.get("name") == "serial":
                system.remove(entry)
                say("the serial number that its firmware tells is not taken over")


def _set_firmware(root: Element, identity: Identity) -> None:
    os_element = root.find("os")
    nvram = os_element.find("nvram") if os_element is not None else None
    if nvram is not None:
        nvram.text = None
        for source in nvram.findall("source"):
            nvram.remove(source)
        nvram.attrib.pop("type", None)
    if identity.nvram and os_element is not None:
        nvram = SubElement(os_element, "nvram") if nvram is None else nvram
        nvram.text = identity.nvram
    elif nvram is not None and not nvram.attrib and os_element is not None:
        os_element.remove(nvram)  # libvirt chooses the name, and makes it from the firmware's own


def _set_host_name(root: Element, name: str) -> None:
    """The name that a tiny guest gives itself: an argument of its kernel, and nobody else's."""
    line = root.find("os/cmdline")
    words = (line.text or "").split(" ") if line is not None else []
    if line is None or not any(word.startswith(_TINY_NAME) for word in words):
        return
    asked = " ".join(f"{_TINY_NAME}{NAME_FIELD}" if word.startswith(_TINY_NAME) else word for word in words)
    line.text = kernel_arguments(asked, name)


# Disks


def _set_disks(devices: Element, identity: Identity) -> None:
    for disk in devices.findall("disk"):
        target = target_of(disk)
        if target in identity.drops:
            _drop_medium(devices, disk)
        elif target in identity.disks:
            replace_disk(disk, identity.disks[target])


def _drop_medium(devices: Element, disk: Element) -> None:
    if disk.get("device") not in REMOVABLE:
        devices.remove(disk)
        return
    for source in disk.findall("source"):
        disk.remove(source)


def replace_disk(disk: Element, new: CloneDisk) -> None:
    """Let a <disk> read another image, that stands in no explicit chain."""
    for tag in ("backingStore", "mirror"):
        for element in disk.findall(tag):
            disk.remove(element)
    source = disk.find("source")
    if source is None:
        source = SubElement(disk, "source")
    kept = {key: source.attrib[key] for key in ("startupPolicy",) if key in source.attrib}
    for child in list(source):
        source.remove(child)
    source.attrib.clear()
    source.attrib.update({"dev" if new.is_block else "file": new.path, **kept})
    disk.set("type", "block" if new.is_block else "file")
    driver = disk.find("driver")
    if driver is None:
        driver = Element("driver", name="qemu")
        disk.insert(0, driver)
    driver.set("type", new.format)


# Interfaces


def _set_cards(devices: Element, identity: Identity, say: Say) -> None:
    for number, card in enumerate(devices.findall("interface")):
        kind = card.get("type", "")
        if kind in {"hostdev", "vdpa", "vhostuser", "ethernet"}:
            devices.remove(card)
            say(f"an interface of the kind {printable(kind)} is left out: it is bound to one VM")
            continue
        address = card.find("mac")
        if address is None:
            address = Element("mac")
            card.insert(0, address)
        address.attrib.clear()
        address.set("address", new_mac(identity.uuid, number))
        for target in card.findall("target"):
            card.remove(target)
        for parameters in card.iterfind("virtualport/parameters"):
            parameters.attrib.pop("interfaceid", None)
            parameters.attrib.pop("instanceid", None)
        _release_filter(card, say)


def _release_filter(card: Element, say: Say) -> None:
    """A filter that lets only the origin's address through would cut the clone off."""
    for reference in card.findall("filterref"):
        for parameter in reference.findall("parameter"):
            if parameter.get("name") in {"IP", "IPV6", "MAC"}:
                reference.remove(parameter)
                say("its network filter is not bound to the origin's address")


# Screens


def _set_screens(devices: Element, say: Say) -> None:
    for screen in devices.iterfind("graphics"):
        kind = screen.get("type", "screen").upper()
        for key in ("port", "tlsPort", "websocket"):
            if screen.get(key, "-1") != "-1":
                screen.set(key, "-1")
                say(f"its {kind} screen gets a free port, not the origin's fixed one")
        if "port" in screen.attrib or screen.get("autoport") == "no":
            screen.set("autoport", "yes")
        screen.attrib.pop("socket", None)
        for listen in screen.iterfind("listen"):
            listen.attrib.pop("socket", None)


def close_screens(root: Element, secrets: Mapping[str, str]) -> tuple[str, ...]:
    """Let screens that had a password listen on this host alone: the clone has none. `secrets` are those that
    vm.redact took out of `root`. Returns what to say about it."""
    counts: dict[str, int] = {}
    notes = []
    for screen in root.iterfind("devices/graphics"):
        kind = screen.get("type", "")
        place = counts[kind] = counts.get(kind, -1) + 1
        if f"graphics/{kind}/{place}/passwd" not in secrets:
            continue
        where = _bind_to_loopback(screen)
        more = f", so that it listens on 127.0.0.1 and not on {printable(where, limit=60)}" if where else ""
        notes.append(f"its {kind.upper()} screen has no password{more}: set one with 'hvtui vm edit'")
        for key in ("passwdValidTo", "connected"):
            screen.attrib.pop(key, None)
    return tuple(notes)


def _bind_to_loopback(screen: Element) -> str:
    """Where it listened, when that was somewhere else."""
    listens = screen.findall("listen")
    open_ones = [each for each in listens if each.get("type") in {"address", "network"}]
    was = next((each.get("address") or each.get("network") or "" for each in open_ones), screen.get("listen", ""))
    if (listens and not open_ones) or was in LOOPBACK or (not listens and not was):
        return ""
    for each in open_ones:
        screen.remove(each)
    screen.set("listen", "127.0.0.1")
    SubElement(screen, "listen", type="address", address="127.0.0.1")
    return was or "another address"


# Serial ports and channels


def _set_port(devices: Element, port: Element, say: Say) -> None:
    kind, tag = port.get("type", "pty"), port.tag
    source = port.find("source")
    for log in port.findall("log"):
        port.remove(log)
        say(f"what its {tag} says is not written to {printable(log.get('file', ''), limit=120)}")
    if kind in {"pty", "null", "stdio", "vc", "spicevmc", "spiceport", "qemu-vdagent", "dbus"}:
        if kind == "pty" and source is not None:
            port.remove(source)
        port.attrib.pop("tty", None)
    elif tag == "channel" and kind == "unix" and (source is None or source.get("mode", "bind") == "bind"):
        if source is not None:
            port.remove(source)  # libvirt gives it a socket of its own
    elif tag in {"serial", "console"}:
        for child in [each for each in port if each.tag in {"source", "protocol"}]:
            port.remove(child)
        port.set("type", "pty")
        say(f"its {tag} port is a console like any other, not {_where(kind, source)}")
    else:
        devices.remove(port)
        say(f"a {tag} is left out: it is {_where(kind, source)}")


def _where(kind: str, source: Element | None) -> str:
    found = "" if source is None else source.get("path") or source.get("host") or source.get("service") or ""
    return f"{printable(kind, limit=20)} {printable(found, limit=120)}".rstrip()


# What there can be only once


def _leave_out(devices: Element, say: Say) -> None:
    for device in devices.findall("hostdev"):
        devices.remove(device)
        say(f"a {printable(device.get('type', ''), limit=20)} device of the host stays with the origin")
    for tag, what in _ONCE.items():
        for device in devices.findall(tag):
            devices.remove(device)
            say(f"its <{tag}> is left out: {what}")
    for tpm in devices.findall("tpm"):
        backend = tpm.find("backend")
        kind = "" if backend is None else backend.get("type", "")
        if kind != "emulator":
            devices.remove(tpm)
            say(f"its TPM ({printable(kind, limit=20)}) is left out: it is the origin's alone")
            continue
        for source in backend.findall("source") if backend is not None else ():
            backend.remove(source) if backend is not None else None
        say("its TPM is a new, empty one: what the guest has sealed with the origin's needs its recovery key")


def _set_others(devices: Element, say: Say) -> None:
    for address in devices.iterfind("vsock/cid"):
        address.attrib.pop("address", None)
        address.set("auto", "yes")
    for device in devices.iterfind("filesystem"):
        source = device.find("source")
        where = "" if source is None else source.get("dir") or source.get("socket") or source.get("file") or ""
        say(f"it shares {printable(where, limit=120)} with the origin")
    for device in devices.findall("memory"):
        if device.find("source/path") is not None:
            devices.remove(device)
            say("its memory that keeps its contents (NVDIMM) stays with the origin")


def _set_labels(root: Element, say: Say) -> None:
    for label in root.findall("seclabel"):
        if label.get("type") == "static":
            root.remove(label)
            say("its fixed security label stays with the origin: the clone gets one of its own")


def problem_of(disk: Element) -> str:
    """Why the disk cannot be copied; empty when it can."""
    kind, shown = disk.get("type", "file"), printable(disk_source(disk), limit=120)
    if disk.get("device") == "lun":
        return f"it is a device of the host given to the guest ({shown})"
    if kind not in {"file", "block", "volume"}:
        return f"it is no disk of this host ({printable(kind, limit=20)} {shown})"
    if disk.find("encryption") is not None or disk.find("source/encryption") is not None:
        return "it is encrypted with a secret of the host, which libvirt cannot copy it with"
    if disk.find("source/slices") is not None:
        return "it is only a part of its file"
    return ""
