"""Parses, reads and edits domain XML: parse, change one element, define; elements hvtui does not know survive.

The text may come from a user's editor or another host, so it is hostile: a document type (and with it every entity),
more than 1 MiB, and absurd nesting are refused before anything is built from them. hvtui's own data (tags, owner) live
in the domain's <metadata>, in a namespace of their own:

    <hvtui:vm xmlns:hvtui="https://hvtui.org/xmlns/domain/1">
      <hvtui:tag>web</hvtui:tag> <hvtui:owner>alice</hvtui:owner>
    </hvtui:vm>

This module calls no libvirt function and defines nothing.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import NoReturn
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

from host.errors import UsageError
from host.text import printable
from vm.model import Disk, Nic, VmConfig

HVTUI_NAMESPACE = "https://hvtui.org/xmlns/domain/1"
HVTUI_PREFIX = "hvtui"
HVTUI_ELEMENT = f"{{{HVTUI_NAMESPACE}}}vm"
TAG_ELEMENT = f"{{{HVTUI_NAMESPACE}}}tag"
OWNER_ELEMENT = f"{{{HVTUI_NAMESPACE}}}owner"
TEMPLATE_ELEMENT = f"{{{HVTUI_NAMESPACE}}}template"  # vm.template_mark's
OSINFO_NAMESPACE = "http://libosinfo.org/xmlns/libvirt/domain/1.0"
QEMU_NAMESPACE = "http://libvirt.org/schemas/domain/qemu/1.0"
AGENT_CHANNEL = "org.qemu.guest_agent.0"

LARGEST_XML_BYTES = 1024 * 1024
DEEPEST_XML = 100  # libxml2, behind libvirt, stops at 256
MOST_ELEMENTS = 20_000
MOST_ATTRIBUTES = 500
LONGEST_TAG = 40
# Not a Char of the XML 1.0 standard: libvirt takes some of these and writes a file that it cannot read again, so that
# the VM is gone at the daemon's next start.
_NOT_XML = re.compile(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_TAG = re.compile(r"\w[\w.+/-]*")
_PREFIXES = re.compile(r"""\sxmlns:([A-Za-z_][\w.-]*)\s*=\s*["']([^"']+)["']""")

# virScaleInteger in libvirt's src/util/virutil.c; without a unit the domain format counts in KiB.
_UNITS: dict[str, int] = {"": 1024, "b": 1, "bytes": 1} | {
    name.lower(): factor
    for power, letter in enumerate("KMGTPE", start=1)
    for name, factor in ((letter, 1024**power), (f"{letter}iB", 1024**power), (f"{letter}B", 1000**power))
}

ElementTree.register_namespace(HVTUI_PREFIX, HVTUI_NAMESPACE)
ElementTree.register_namespace("libosinfo", OSINFO_NAMESPACE)
ElementTree.register_namespace("qemu", QEMU_NAMESPACE)


def parse(xml: str, *, root: str = "domain") -> Element:
    """The root element of `xml`. Raises UsageError with the line for malformed, oversized or dangerous text, and for
    another root element than `root`."""
    element = _parsed(xml)
    if element.tag != root:
        shown = printable(element.tag, limit=60)
        raise UsageError(f"the XML's root element is <{shown}>, not <{root}>", remedy="Give a libvirt domain")
    _refuse_excess(element)
    _keep_prefixes(xml)
    return element


def _parsed(xml: str) -> Element:
    if len(xml) > LARGEST_XML_BYTES or len(xml.encode("utf-8", "replace")) > LARGEST_XML_BYTES:
        raise UsageError(f"the XML is larger than {LARGEST_XML_BYTES // 1024} KiB")
    if "<!DOCTYPE" in xml:  # entities cannot be declared anywhere else; the words may stand in a comment
        _refuse_document_type(xml)
    try:
        return ElementTree.fromstring(xml)  # noqa: S314 - without a document type expat expands nothing
    except ElementTree.ParseError as error:
        line, column = error.position
        reason = str(error).partition(": line")[0]
        raise UsageError(f"malformed XML at line {line}, column {column + 1}: {reason}") from error
    except (UnicodeEncodeError, ValueError) as error:
        raise UsageError("the XML holds characters that XML cannot hold") from error


def _refuse_document_type(xml: str) -> None:
    from xml.parsers import expat

    parser = expat.ParserCreate("utf-8")

    def refuse(*_: object) -> NoReturn:
        raise UsageError(
            f"the XML has a document type at line {parser.CurrentLineNumber}, which may define entities",
            remedy="Remove <!DOCTYPE …>: a libvirt domain needs none",
        )

    parser.StartDoctypeDeclHandler = refuse
    try:
        parser.Parse(xml.encode("utf-8", "replace"), True)
    except expat.ExpatError:
        return  # the parser proper says what is wrong, in the same words as for other text


def _refuse_excess(element: Element) -> None:
    """libvirt's validation takes minutes for what no person wrote: its time grows with the square of these."""
    level, depth, count = [element], 0, 0
    while level:
        depth, count = depth + 1, count + len(level)
        if depth > DEEPEST_XML:
            raise UsageError(f"the XML nests more than {DEEPEST_XML} elements")
        if count > MOST_ELEMENTS or any(len(each.attrib) > MOST_ATTRIBUTES for each in level):
            what = f"more than {MOST_ELEMENTS} elements, or {MOST_ATTRIBUTES} attributes in one"
            raise UsageError(f"the XML has {what}: that is no virtual machine")
        level = [child for each in level for child in each]


def _keep_prefixes(xml: str) -> None:
    """Let `to_text` write the author's own prefixes, so that a diff shows only what was changed."""
    for prefix, namespace in _PREFIXES.findall(xml):
        if not re.fullmatch(r"ns\d+|xml|xmlns", prefix) and namespace != HVTUI_NAMESPACE and prefix != HVTUI_PREFIX:
            ElementTree.register_namespace(prefix, namespace)


def to_text(element: Element) -> str:
    """The XML text of `element`, as libvirt's define takes it."""
    return ElementTree.tostring(element, encoding="unicode")


# Reading


def read_config(xml: str, *, inactive_xml: str | None = None) -> VmConfig:
    """What the domain XML says. `inactive_xml`, the next boot's configuration, tells whether changes are pending.
    Raises UsageError for malformed XML; values that are no numbers read as 0."""
    root = _parsed(xml)
    following = _parsed(inactive_xml) if inactive_xml is not None else None
    memory_max = _bytes(root.find("memory"))
    vcpu = root.find("vcpu")
    channel = root.find(f"devices/channel/target[@name='{AGENT_CHANNEL}']")
    balloon = root.find("devices/memballoon")
    template = root.find(f"metadata/{HVTUI_ELEMENT}/{TEMPLATE_ELEMENT}")
    return VmConfig(
        title=root.findtext("title", ""),
        description=root.findtext("description", ""),
        tags=tags_of(root),
        owner=owner_of(root),
        os_id=_attribute(root.find(f"metadata/{{{OSINFO_NAMESPACE}}}libosinfo/{{{OSINFO_NAMESPACE}}}os"), "id"),
        virtualization=root.get("type", ""),
        machine=_attribute(root.find("os/type"), "machine"),
        firmware=_firmware(root),
        cpu_mode=_attribute(root.find("cpu"), "mode"),
        memory_bytes=_memory_of(root),
        memory_max_bytes=memory_max,
        vcpus=_vcpus_of(root),
        vcpus_max=_integer(_text(vcpu)),
        disks=tuple(_disk(disk) for disk in root.iterfind("devices/disk")),
        nics=tuple(_nic(nic) for nic in root.iterfind("devices/interface")),
        has_agent_channel=channel is not None,
        agent_connected=_agent_connected(channel),
        has_serial_console=any(root.find(f"devices/{tag}[@type='pty']") is not None for tag in ("console", "serial")),
        has_balloon=balloon is not None and balloon.get("model") != "none",
        has_rng=root.find("devices/rng") is not None,
        has_tpm=root.find("devices/tpm") is not None,
        graphics=tuple(_graphics(each) for each in root.iterfind("devices/graphics")),
        host_devices=len(root.findall("devices/hostdev")) + len(root.findall("devices/interface[@type='hostdev']")),
        pending_changes=following is not None and has_pending_changes(root, following),
        next_memory_bytes=_at_next_boot(_memory_of, root, following),
        next_vcpus=_at_next_boot(_vcpus_of, root, following),
        template=_attribute(template, "name"),
        is_linked=_attribute(template, "linked") == "yes",
    )


def _at_next_boot(read: Callable[[Element], int], root: Element, following: Element | None) -> int:
    """What the next boot gets, 0 where that is the same."""
    then = read(following) if following is not None else 0
    return then if then != read(root) else 0


def _memory_of(root: Element) -> int:
    return _bytes(root.find("currentMemory")) or _bytes(root.find("memory"))


def _vcpus_of(root: Element) -> int:
    vcpu = root.find("vcpu")
    return _integer(_attribute(vcpu, "current")) or _integer(_text(vcpu))


def tags_of(root: Element) -> tuple[str, ...]:
    """The tags in the domain's metadata, each once, in their order."""
    texts = (_text(tag).strip() for tag in root.iterfind(f"metadata/{HVTUI_ELEMENT}/{TAG_ELEMENT}"))
    return tuple(dict.fromkeys(text for text in texts if text))


def owner_of(root: Element) -> str:
    """The owner in the domain's metadata, or an empty text."""
    return root.findtext(f"metadata/{HVTUI_ELEMENT}/{OWNER_ELEMENT}", "").strip()


def _text(element: Element | None) -> str:
    return (element.text or "") if element is not None else ""


def _attribute(element: Element | None, name: str) -> str:
    return element.get(name, "") if element is not None else ""


def _integer(text: str) -> int:
    text = text.strip()
    return int(text) if text.isascii() and text.isdigit() and len(text) < 20 else 0


def _bytes(element: Element | None) -> int:
    unit = _attribute(element, "unit") or "KiB"
    return _integer(_text(element)) * _UNITS.get(unit.lower(), 0)


def _firmware(root: Element) -> str:
    os_element = root.find("os")
    loader = root.find("os/loader")
    if os_element is not None and os_element.get("firmware") == "efi":
        return "uefi"
    if loader is not None and loader.get("type") == "pflash":
        return "uefi"
    return "kernel" if root.find("os/kernel") is not None else "bios"


def _agent_connected(target: Element | None) -> bool | None:
    state = _attribute(target, "state")
    return state == "connected" if state else None


def _disk(disk: Element) -> Disk:
    kind = disk.get("type", "file")
    target = disk.find("target")
    return Disk(
        target=_attribute(target, "dev"),
        bus=_attribute(target, "bus"),
        device=disk.get("device", "disk"),
        source=disk_source(disk),
        source_type=kind,
        driver_format=_attribute(disk.find("driver"), "type"),
        read_only=disk.find("readonly") is not None,
        shareable=disk.find("shareable") is not None,
    )


def disk_source(disk: Element) -> str:
    """What the <disk> reads: a path, a volume as pool/volume, a URL, or an empty text for an empty drive."""
    source = disk.find("source")
    if source is None:
        return ""
    kind = disk.get("type", "file")
    if kind == "volume":
        return f"{source.get('pool', '')}/{source.get('volume', '')}"
    if kind == "network":
        return _network_source(source)
    return next((source.get(name, "") for name in ("file", "dev", "dir", "path") if source.get(name)), "")


def _network_source(source: Element) -> str:
    host = source.find("host")
    where = _attribute(host, "name") or _attribute(host, "socket")
    port = _attribute(host, "port")
    return f"{source.get('protocol', '')}://{where}{f':{port}' if port else ''}/{source.get('name', '')}"


def _nic(nic: Element) -> Nic:
    kind = nic.get("type", "")
    source = nic.find("source")
    key = {"network": "network", "bridge": "bridge", "vhostuser": "path", "vdpa": "dev"}.get(kind, "dev")
    return Nic(
        mac=_attribute(nic.find("mac"), "address"),
        model=_attribute(nic.find("model"), "type"),
        source_type=kind,
        source=_attribute(source, key),
        target=_attribute(nic.find("target"), "dev"),
    )


def _graphics(graphics: Element) -> str:
    kind = graphics.get("type", "")
    listen = graphics.find("listen")
    if _attribute(listen, "type") == "socket" or graphics.get("socket"):
        return f"{kind} socket"
    address = _attribute(listen, "address") or graphics.get("listen", "")
    port = _integer(graphics.get("port", "")) or _integer(graphics.get("tlsPort", ""))
    where = f"[{address}]" if ":" in address else address
    return f"{kind} {where}:{port}" if port else f"{kind} {where}".rstrip()


# Pending changes

# Compared as they are; what libvirt fills in only while a VM runs (aliases, ports, resolved firmware, an expanded
# host-model CPU, tap devices) is left out.
_COMPARED_TEXTS = (
    "name",
    "title",
    "description",
    "vcpu",
    "memory",
    "maxMemory",
    "on_poweroff",
    "on_reboot",
    "on_crash",
)
_COMPARED_TREES = ("metadata", "features", "clock", "cputune", "iothreads", "memoryBacking", "numatune")
_COMPARED_DEVICES = (
    "controller",
    "filesystem",
    "hostdev",
    "input",
    "memballoon",
    "rng",
    "sound",
    "tpm",
    "video",
    "watchdog",
)


def has_pending_changes(live: Element, inactive: Element) -> bool:
    """True when the next boot's configuration differs from the running one in what a person can have changed."""
    return _signature(live) != _signature(inactive)


def _signature(root: Element) -> tuple[object, ...]:
    devices = root.find("devices")
    children = list(devices) if devices is not None else []
    nics = [_nic(each) for each in root.iterfind("devices/interface")]
    return (
        tuple(" ".join(root.findtext(tag, "").split()) for tag in _COMPARED_TEXTS),
        tuple(_canonical(root.find(tag)) for tag in _COMPARED_TREES),
        _attribute(root.find("vcpu"), "current"),
        _attribute(root.find("os/type"), "machine"),
        tuple(boot.get("dev") for boot in root.iterfind("os/boot")),
        tuple(root.findtext(f"os/{tag}", "") for tag in ("kernel", "initrd", "cmdline")),
        tuple(_compared_disk(disk) for disk in root.iterfind("devices/disk")),
        tuple((nic.mac, nic.model, nic.source_type, nic.source) for nic in nics),
        tuple(each.get("type") for each in root.iterfind("devices/graphics")),
        tuple((each.tag, _device_model(each)) for each in children if each.tag in _COMPARED_DEVICES),
    )


def _compared_disk(element: Element) -> Disk:
    """libvirt tells no format of an empty drive while its VM runs."""
    disk = _disk(element)
    return disk if disk.source else replace(disk, driver_format="")


def _device_model(device: Element) -> tuple[str, ...]:
    model = device.find("model")
    attributes = (device.get("type", ""), device.get("model", ""), device.get("index", ""), device.get("bus", ""))
    return (*attributes, _attribute(model, "type"), _attribute(model, "name"))


def _canonical(element: Element | None) -> str:
    if element is None:
        return ""
    return ElementTree.canonicalize(to_text(element), strip_text=True)


# Editing


def fits_xml(text: str) -> bool:
    """False when `text` holds a character that no XML can hold."""
    return _NOT_XML.search(text) is None


def check_tag(tag: str) -> str:
    """`tag` itself when it is a valid one: a letter or digit, then letters, digits or . _ + / - ; at most 40
    characters. Raises UsageError."""
    if len(tag) > LONGEST_TAG or not _TAG.fullmatch(tag):
        raise UsageError(
            f"{tag[:60]!r} is not a tag",
            remedy=f"Use letters, digits and . _ + / - (at most {LONGEST_TAG}), with a letter or digit first",
        )
    return tag


def parse_tags(text: str) -> tuple[str, ...]:
    """The tags of a comma- or space-separated text, each once. Raises UsageError for one that is not valid."""
    return tuple(dict.fromkeys(check_tag(part) for part in re.split(r"[,\s]+", text) if part))


def set_tags(root: Element, tags: Iterable[str]) -> None:
    """Replace the tags in the domain's metadata and keep everything else in it. Raises UsageError."""
    checked = [check_tag(tag) for tag in tags]
    _set_own(root, TAG_ELEMENT, checked)


def set_owner(root: Element, owner: str) -> None:
    """Set the owner in the domain's metadata; an empty text removes it."""
    _set_own(root, OWNER_ELEMENT, [owner.strip()] if owner.strip() else [])


def set_text(root: Element, tag: str, text: str) -> None:
    """Set the text of the child `tag` (title, description) of the domain; an empty text removes the child."""
    child = root.find(tag)
    if child is not None and not text:
        root.remove(child)
    elif text:
        (child if child is not None else _add(root, tag)).text = text


def _add(root: Element, tag: str) -> Element:
    """A new child after <name> and <uuid>, where libvirt writes it."""
    child = Element(tag)
    before = [index for index, each in enumerate(root) if each.tag in {"name", "uuid", "genid", "title", "description"}]
    child.tail = "\n  "
    root.insert(before[-1] + 1 if before else 0, child)
    return child


def own_metadata(root: Element) -> Element | None:
    """hvtui's own element in the domain's metadata; its text is what virDomainSetMetadata takes."""
    return root.find(f"metadata/{HVTUI_ELEMENT}")


def _set_own(root: Element, tag: str, texts: list[str]) -> None:
    metadata = root.find("metadata")
    if metadata is None:
        metadata = _add(root, "metadata")
    own = metadata.find(HVTUI_ELEMENT)
    if own is None:
        own = ElementTree.SubElement(metadata, HVTUI_ELEMENT)
    for old in own.findall(tag):
        own.remove(old)
    for index, text in enumerate(texts):
        new = Element(tag)
        new.text = text
        own.insert(index, new)
    if len(own) == 0:
        metadata.remove(own)
    if len(metadata) == 0:
        root.remove(metadata)
    else:
        ElementTree.indent(metadata, level=1)
