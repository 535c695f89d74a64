"""In what a VM can depart from its template and profile: one Aspect each, which reads a domain XML and may align one.

The expected XML is what a deployment would define today; both are read in the same way, so that what libvirt adds at
definition (addresses, aliases, resolved machine types) never counts. Pure: elements in, words out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import dataclass
from xml.etree.ElementTree import Element

from host.text import printable
from host.units import KIB, format_bytes
from vm.domain_xml import AGENT_CHANNEL, OSINFO_NAMESPACE, disk_source, read_config, set_tags, tags_of, to_text

Reader = Callable[[Element], str]
Writer = Callable[[Element, Element], None]  # the VM's root, the expected root

_OS = f"metadata/{{{OSINFO_NAMESPACE}}}libosinfo/{{{OSINFO_NAMESPACE}}}os"
_LONGEST = 1000  # a kernel's command line; who shows it cuts it


@dataclass(frozen=True, slots=True)
class Aspect:
    """`read` tells it in words, "none" where there is nothing; `align` makes the VM's XML as expected, and is None
    where that would lose something: `why_not` says what then."""

    key: str
    title: str
    read: Reader
    align: Writer | None = None
    why_not: str = ""
    is_same: Callable[[str, str], bool] = str.__eq__  # expected, found


# Reading


def _vcpus(root: Element) -> str:
    vcpu = root.find("vcpu")
    return (vcpu.get("current") or (vcpu.text or "").strip()) if vcpu is not None else "1"


def _topology(root: Element) -> str:
    found = root.find("cpu/topology")
    names = ("sockets", "cores", "threads")
    return " × ".join(f"{found.get(name, '1')} {name}" for name in names) if found is not None else "none"


def _memory(root: Element) -> str:
    return format_bytes(read_config(to_text(root)).memory_bytes)


def _memory_maximum(root: Element) -> str:
    return format_bytes(read_config(to_text(root)).memory_max_bytes)


def _cpu(root: Element) -> str:
    cpu = root.find("cpu")
    if cpu is None:
        return "none"
    mode, model = cpu.get("mode", ""), cpu.findtext("model", "")
    if mode in {"", "custom"}:
        return model or "none"
    return mode


def _machine(root: Element) -> str:
    kind = root.find("os/type")
    return kind.get("machine", "none") if kind is not None else "none"


def _is_same_machine(expected: str, found: str) -> bool:
    """libvirt puts a versioned type (pc-q35-7.2) in an alias's place (q35); "pc" is i440fx."""
    family = {"pc": "i440fx"}.get(expected, expected)
    return found == expected or f"-{family}-" in found or found.startswith(f"{family}-")


def _firmware(root: Element) -> str:
    name = read_config(to_text(root)).firmware or "bios"
    secure = root.find("os/firmware/feature[@name='secure-boot'][@enabled='yes']")
    loader = root.find("os/loader[@secure='yes']")
    return f"{name} with Secure Boot" if secure is not None or loader is not None else name


def _tpm(root: Element) -> str:
    return "TPM 2.0" if root.find("devices/tpm") is not None else "none"


def _data_disks(root: Element) -> list[Element]:
    return [disk for disk in root.findall("devices/disk") if disk.get("device", "disk") == "disk"]


def _boot_disk(root: Element) -> str:
    disks = _data_disks(root)
    if not disks:
        return "none"
    target, driver = disks[0].find("target"), disks[0].find("driver")
    bus = target.get("bus", "") if target is not None else ""
    return f"{bus} {driver.get('type', '') if driver is not None else ''}".strip()


def _disk_count(root: Element) -> str:
    return str(len(_data_disks(root)))


def nic_words(nic: Element) -> str:
    """A card: "virtio on network default"."""
    model, source = nic.find("model"), nic.find("source")
    kind = nic.get("type", "")
    name = source.get(kind, "") if source is not None else ""
    return f"{model.get('type', '') if model is not None else 'default'} on {kind} {name}".strip()


def _nics(root: Element) -> str:
    return ", ".join(nic_words(nic) for nic in root.findall("devices/interface")) or "none"


def _graphics(root: Element) -> str:
    found = []
    for each in root.findall("devices/graphics"):
        listen = each.find("listen")
        how = listen.get("type", "address") if listen is not None else "address"
        where = listen.get("address", "") if listen is not None else each.get("listen", "")
        found.append(f"{each.get('type', '')} {how} {where}".strip())
    return ", ".join(found) or "none"


def _integration(root: Element) -> str:
    """The paravirtual devices that every deployed VM has."""
    config = read_config(to_text(root))
    parts = {"agent channel": config.has_agent_channel, "balloon": config.has_balloon, "rng": config.has_rng}
    return ", ".join(name for name, is_there in parts.items() if is_there) or "none"


def _boot(root: Element) -> str:
    parts = (root.findtext(f"os/{tag}", "") for tag in ("kernel", "initrd", "cmdline"))
    return " ".join(part.rpartition("/")[2] if part.startswith("/") else part for part in parts if part) or "none"


def _os_id(root: Element) -> str:
    found = root.find(_OS)
    return found.get("id", "none") if found is not None else "none"


def _tags(root: Element) -> str:
    return ", ".join(sorted(tags_of(root))) or "none"


def _has_all_tags(expected: str, found: str) -> bool:
    return expected == "none" or set(expected.split(", ")) <= set(found.split(", "))


# Aligning


# What a new element stands behind where the VM has none of its kind; libvirt itself does not care for the order.
_AFTER = {"currentMemory": "memory", "vcpu": "currentMemory", "cpu": "features"}


def _replace(path: str) -> Writer:
    """Puts the expected children at `path` (below the domain, or below its devices) in the place of the VM's."""

    def align(root: Element, expected: Element) -> None:
        parent_path, _, tag = path.rpartition("/")
        parent = root.find(parent_path) if parent_path else root
        if parent is None:
            return
        at = _place(parent, tag)
        for old in parent.findall(tag):
            parent.remove(old)
        for number, element in enumerate(expected.findall(path)):
            parent.insert(at + number, deepcopy(element))

    return align


def _place(parent: Element, tag: str) -> int:
    tags = [each.tag for each in parent]
    if tag in tags:
        return tags.index(tag)
    before = _AFTER.get(tag)
    return tags.index(before) + 1 if before in tags else len(tags)


def _align_vcpus(root: Element, expected: Element) -> None:
    _replace("vcpu")(root, expected)
    _align_topology(root, expected)  # libvirt refuses a number that is not the topology's product


def _align_topology(root: Element, expected: Element) -> None:
    cpu, wanted = root.find("cpu"), expected.find("cpu/topology")
    if cpu is None:
        if wanted is not None:
            _replace("cpu")(root, expected)
        return
    for old in cpu.findall("topology"):
        cpu.remove(old)
    if wanted is not None:
        model = cpu.find("model")
        cpu.insert(list(cpu).index(model) + 1 if model is not None else 0, deepcopy(wanted))


def _align_cpu(root: Element, expected: Element) -> None:
    """The model; its topology and its NUMA cells are aspects of the vCPUs."""
    kept = [each for tag in ("topology", "numa") for each in root.findall(f"cpu/{tag}")]
    _replace("cpu")(root, expected)
    cpu = root.find("cpu")
    if cpu is None:
        if not kept:
            return
        cpu = Element("cpu")
        root.insert(_place(root, "cpu"), cpu)
    for old in [*cpu.findall("topology"), *cpu.findall("numa")]:
        cpu.remove(old)
    cpu.extend(kept)


def _align_memory(root: Element, expected: Element) -> None:
    """What it starts with alone; without an element for that, libvirt starts it with the most."""
    _write_memory(root, read_config(to_text(root)).memory_max_bytes, read_config(to_text(expected)).memory_bytes)


def _align_memory_maximum(root: Element, expected: Element) -> None:
    _write_memory(root, read_config(to_text(expected)).memory_max_bytes, read_config(to_text(root)).memory_bytes)


def _write_memory(root: Element, maximum_bytes: int, memory_bytes: int) -> None:
    for tag, size_bytes in (("memory", maximum_bytes), ("currentMemory", min(memory_bytes, maximum_bytes))):
        element = root.find(tag)
        if element is None:
            element = Element(tag)
            root.insert(_place(root, tag), element)
        element.set("unit", "KiB")
        element.text = str(size_bytes // KIB)


def _align_nics(root: Element, expected: Element) -> None:
    """Cards that are there keep their MAC and their place; missing ones come, further ones go."""
    devices = root.find("devices")
    if devices is None:
        return
    found, wanted = root.findall("devices/interface"), expected.findall("devices/interface")
    for nic, like in zip(found, wanted, strict=False):
        if nic_words(nic) != nic_words(like):
            nic.set("type", like.get("type", ""))
            for tag in ("source", "model"):
                for old in nic.findall(tag):
                    nic.remove(old)
                nic.extend(deepcopy(like.findall(tag)))
    for extra in found[len(wanted) :]:
        devices.remove(extra)
    devices.extend(deepcopy(wanted[len(found) :]))


def _align_integration(root: Element, expected: Element) -> None:
    devices = root.find("devices")
    if devices is None:
        return
    config = read_config(to_text(root))
    if not config.has_agent_channel:
        channels = expected.findall("devices/channel")
        devices.extend(
            deepcopy([each for each in channels if each.find(f"target[@name='{AGENT_CHANNEL}']") is not None])
        )
    if not config.has_balloon:
        _replace("devices/memballoon")(root, expected)
    if not config.has_rng:
        devices.extend(deepcopy(expected.findall("devices/rng")))


def _align_tpm(root: Element, expected: Element) -> None:
    devices = root.find("devices")
    if devices is not None and root.find("devices/tpm") is None:
        devices.extend(deepcopy(expected.findall("devices/tpm")))


def _align_boot(root: Element, expected: Element) -> None:
    os_element = root.find("os")
    if os_element is None:
        return
    for tag in ("kernel", "initrd", "cmdline"):
        for old in os_element.findall(tag):
            os_element.remove(old)
        os_element.extend(deepcopy(expected.findall(f"os/{tag}")))


def _align_tags(root: Element, expected: Element) -> None:
    set_tags(root, tuple(dict.fromkeys((*tags_of(root), *tags_of(expected)))))


_NEW_VM = "a new VM from the template has it; this guest would find another computer around it"
ASPECTS: tuple[Aspect, ...] = (
    Aspect("vcpus", "vCPUs", _vcpus, _align_vcpus),
    Aspect("topology", "CPU topology", _topology, _align_vcpus),
    Aspect("cpu", "CPU model", _cpu, _align_cpu),
    Aspect("memory", "memory", _memory, _align_memory),
    Aspect("memory-maximum", "most memory", _memory_maximum, _align_memory_maximum),
    Aspect("machine", "machine type", _machine, None, _NEW_VM, _is_same_machine),
    Aspect("firmware", "firmware", _firmware, None, "its disk may not boot with another firmware"),
    Aspect("tpm", "TPM", _tpm, _align_tpm),
    Aspect("boot", "kernel", _boot, _align_boot),
    Aspect("disk", "first disk", _boot_disk, None, "its guest may lack the driver: see 'hvtui vm paravirtual'"),
    Aspect("disks", "disks", _disk_count, None, "a disk is not removed or made by aligning: it may hold data"),
    Aspect("nics", "network cards", _nics, _align_nics),
    Aspect("graphics", "screen", _graphics, _replace("devices/graphics")),
    Aspect("integration", "integration", _integration, _align_integration),
    Aspect("os", "system", _os_id, None, "it is known by its first definition: change it with 'hvtui vm edit'"),
    Aspect("tags", "tags", _tags, _align_tags, is_same=_has_all_tags),
)


@dataclass(frozen=True, slots=True)
class Difference:
    """One departure, in words that are harmless to show. `can_align` is False with the reason in `why_not`."""

    key: str
    title: str
    expected: str
    found: str
    can_align: bool
    why_not: str = ""


def differences(found: Element, expected: Element) -> tuple[Difference, ...]:
    """Where the domain `found` departs from the domain `expected`, in the order of ASPECTS."""
    told = []
    for aspect in ASPECTS:
        wanted, has = aspect.read(expected), aspect.read(found)
        if aspect.is_same(wanted, has):
            continue
        why_not = aspect.why_not
        if aspect.key == "tpm" and wanted == "none":
            why_not = "what the guest keeps in its TPM would be lost"
        told.append(
            Difference(
                aspect.key,
                aspect.title,
                printable(wanted, limit=_LONGEST),
                printable(has, limit=_LONGEST),
                can_align=aspect.align is not None and not why_not,
                why_not=why_not,
            )
        )
    return tuple(told)


def aligned(found: Element, expected: Element, keys: frozenset[str]) -> Element:
    """A copy of `found` that is as expected in the aspects of `keys`."""
    root = deepcopy(found)
    for aspect in reversed(ASPECTS):  # the most memory before the memory, which cannot be more
        if aspect.key in keys and aspect.align is not None:
            aspect.align(root, expected)
    return root


def needed_with(found: Element, expected: Element, keys: frozenset[str]) -> Mapping[str, str]:
    """The aspects that those of `keys` cannot be aligned without, and why."""
    has, wanted = read_config(to_text(found)), read_config(to_text(expected))
    needed = {}
    if "memory" in keys and wanted.memory_bytes > has.memory_max_bytes:
        needed["memory-maximum"] = "memory cannot be more than the most memory"
    if "memory-maximum" in keys and wanted.memory_max_bytes < has.memory_bytes:
        needed["memory"] = "memory cannot be more than the most memory"
    for key, other in (("vcpus", "topology"), ("topology", "vcpus")):
        if key in keys:
            needed[other] = "the number of vCPUs is that of the topology"
    return needed


def disk_files(root: Element) -> tuple[str, ...]:
    """The files of its data disks, the first one first."""
    return tuple(source for disk in _data_disks(root) if (source := disk_source(disk)))
