"""What both hosts of a move have to have in common. Pure functions on what was read."""

from __future__ import annotations

import re
from collections.abc import Iterator
from xml.etree.ElementTree import Element

from host.facts import version_text
from host.text import printable
from host.units import format_bytes
from vm.commands import hint
from vm.move_kinds import ALL, MEMORY, MOVES
from vm.move_model import Check
from vm.move_reading import SourceReading, TargetReading

CONFLICT, UNSUPPORTED, NOT_FOUND = 4, 8, 3
_MIB = 1024**2
_OVERHEAD_BYTES = 64 * _MIB  # QEMU itself


def check_hosts(here: SourceReading, there: TargetReading) -> Iterator[Check]:
    """Every check of the hosts, in the order in which a person would look."""
    yield from _same_host(here, there)
    yield from _namesakes(here, there)
    yield from _versions(here, there)
    yield from _machine(here, there)
    yield from _cpu(here, there)
    yield from _firmware(here, there)
    yield from _memory(here, there)
    yield from _networks(here, there)
    yield from _placement(here, there)
    yield from _secrets(here, there)


def _same_host(here: SourceReading, there: TargetReading) -> Iterator[Check]:
    if here.host.uri == there.host.uri:
        yield Check("host", False, f"it is on {there.host.name} already", "Choose another host", ALL, CONFLICT)
    elif here.host.host_uuid and here.host.host_uuid == there.host.host_uuid:
        reason = f"{here.host.name} and {there.host.name} have the same host UUID: they are one host, or clones of one"
        yield Check("host", False, reason, "Where they are two, give each a host_uuid in libvirtd.conf", ALL)


def _namesakes(here: SourceReading, there: TargetReading) -> Iterator[Check]:
    if here.host.uri == there.host.uri:
        return  # it is the VM itself
    target, name = there.host.name, printable(here.name, limit=80)
    same, twin = there.by_name, there.by_uuid
    if same is not None and same.uuid != here.uuid:
        remedy = f"Rename one of them: {hint('rename', here.name, 'NEW')}"
        yield Check("name", False, f"{target} has another VM named {name}", remedy, ALL, CONFLICT)
    if twin is None:
        return
    if twin.is_active:
        reason = (
            f"{target} runs a VM with the same UUID ({printable(twin.name, limit=80)}): the same disks may be in use"
        )
        yield Check("uuid", False, reason, "Find out which of them is right, and stop the other", ALL, CONFLICT)
    elif twin.mark:
        yield Check("uuid", True, f"{target} has a definition that an earlier move left: it is replaced")
    else:
        reason = (
            f"{target} has a definition with the same UUID ({printable(twin.name, limit=80)}), which is not running"
        )
        remedy = f"When it is not needed: hvtui --connect {printable(there.host.uri)} vm delete {printable(twin.name)}"
        yield Check("uuid", False, reason, remedy, ALL, CONFLICT)


# Versions, machine, CPU, firmware


def _versions(here: SourceReading, there: TargetReading) -> Iterator[Check]:
    old, new = here.host.hypervisor_version, there.host.hypervisor_version
    shown = f"QEMU {version_text(old)} on {here.host.name}, {version_text(new)} on {there.host.name}"
    if old // 1000 > new // 1000:
        remedy = "Update the target, or shut the VM down and move it offline"
        yield Check("versions", False, f"{shown}: a running guest moves to the same or a newer QEMU only", remedy,
                    MEMORY, UNSUPPORTED)  # fmt: skip
    else:
        yield Check("versions", True, shown)
    older, newer = here.host.libvirt_version, there.host.libvirt_version
    if older // 1000 > newer // 1000:
        names = f"libvirt {version_text(older)} on {here.host.name}, {version_text(newer)} on {there.host.name}"
        yield Check("libvirt", False, f"{names}: an older libvirt may not know all of the definition")


def _machine(here: SourceReading, there: TargetReading) -> Iterator[Check]:
    target, root = there.host.name, here.current
    kind = root.find("os/type")
    machine = "" if kind is None else kind.get("machine", "")
    if there.domain_types is not None and root.get("type", "") not in there.domain_types:
        reason = f"{target} cannot run VMs of the type {printable(root.get('type', ''), limit=20)}"
        yield Check("virtualization", False, reason, "Enable virtualization in its firmware, or choose another host",
                    ALL, UNSUPPORTED)  # fmt: skip
    if there.machines is None:
        architecture = "" if kind is None else kind.get("arch", "")
        reason = f"{target} has no emulator for {printable(architecture, limit=20)} machines"
        yield Check("machine", False, reason, "Install one there, or choose another host", ALL, UNSUPPORTED)
    elif machine not in there.machines:
        reason = f"{target} does not know the machine type {printable(machine, limit=40)}"
        yield Check("machine", False, reason, "Update QEMU there, or choose another host", ALL, UNSUPPORTED)
    else:
        yield Check("machine", True, f"{target} knows the machine type {printable(machine, limit=40)}")
    emulator = root.findtext("devices/emulator", "").strip()
    if emulator and there.emulators is not None and emulator not in there.emulators:
        reason = f"{target} has no emulator at {printable(emulator, limit=120)}"
        yield Check("emulator", False, reason, "Install it there, or edit the VM's <emulator>", ALL, UNSUPPORTED)


def _cpu(here: SourceReading, there: TargetReading) -> Iterator[Check]:
    cpu, target = here.current.find("cpu"), there.host.name
    mode = "" if cpu is None else cpu.get("mode", "custom")
    same = f"Give the VM a CPU model that both have, or shut it down and move it offline ({hint('stop', here.name)})"
    if mode in {"host-passthrough", "maximum"}:
        alike = here.host.host_cpu == there.host.host_cpu
        is_old = here.current.get("type") == "qemu" and here.host.hypervisor_version == there.host.hypervisor_version
        if alike or is_old:
            yield Check("cpu", True, f"the hosts' CPUs are alike ({printable(there.host.host_cpu or mode, limit=40)})")
        else:
            reason = (
                f"the guest uses the CPU of {here.host.name} as it is ({printable(here.host.host_cpu, limit=40)}), and"
                f" {target} has another ({printable(there.host.host_cpu, limit=40)})"
            )
            yield Check("cpu", False, reason, same, MEMORY, UNSUPPORTED)
    elif there.cpu == 0:
        model = printable(here.current.findtext("cpu/model", "") or mode, limit=40)
        reason = f"{target} cannot give the guest the CPU that it runs with ({model})"
        yield Check("cpu", False, reason, same, MEMORY if here.is_active else MOVES, UNSUPPORTED)
    elif there.cpu is not None:
        yield Check("cpu", True, f"{target} can give the guest its CPU")
    elif there.cpu_problem and here.current.get("type") == "kvm":
        yield Check(
            "cpu", False, f"whether {target} has the guest's CPU cannot be told: {printable(there.cpu_problem)}"
        )


def _firmware(here: SourceReading, there: TargetReading) -> Iterator[Check]:
    loader = here.current.findtext("os/loader", "").strip()
    if loader and there.loaders and loader not in there.loaders:
        reason = f"{there.host.name} has no firmware {printable(loader, limit=120)}"
        yield Check("firmware", False, reason, "Install the same there: apt-get install ovmf", ALL, UNSUPPORTED)
    elif loader and there.loaders:
        yield Check("firmware", True, f"{there.host.name} has the same firmware")
    tpm = here.current.find("devices/tpm")
    model = "" if tpm is None else tpm.get("model", "")
    if model and there.tpm_models is not None and model not in there.tpm_models:
        reason = f"{there.host.name} can give no TPM ({printable(model, limit=40)})"
        yield Check("tpm-model", False, reason, "Install it there: apt-get install swtpm", ALL, UNSUPPORTED)


# Memory and processors


def _memory(here: SourceReading, there: TargetReading) -> Iterator[Check]:
    wanted, target = here.memory_bytes, there.host.name
    if there.total_memory_bytes and wanted > there.total_memory_bytes:
        reason = f"{target} has {format_bytes(there.total_memory_bytes)} of memory, the VM {format_bytes(wanted)}"
        yield Check("memory", False, reason, "Give the VM less, or choose another host", MOVES)
    elif there.free_memory_bytes is None:
        yield Check("memory", False, f"{target} does not tell how much memory is free")
    elif wanted + _OVERHEAD_BYTES > there.free_memory_bytes:
        reason = (
            f"{target} has {format_bytes(there.free_memory_bytes)} of memory free, the VM needs {format_bytes(wanted)}"
        )
        yield Check("memory", False, reason, "Stop or move another VM there, or choose another host", MEMORY)
    else:
        free = format_bytes(there.free_memory_bytes)
        yield Check("memory", True, f"{target} has {free} of memory free, the VM needs {format_bytes(wanted)}")


def _placement(here: SourceReading, there: TargetReading) -> Iterator[Check]:
    root, target = here.current, there.host.name
    pins = [each.get("cpuset", "") for each in (*root.findall("vcpu"), *root.findall("cputune/*"))]
    if there.cpus and max(map(_highest, pins), default=-1) >= there.cpus:
        reason = f"it is pinned to processors that {target} has not ({there.cpus} there)"
        yield Check("pinning", False, reason, "Change <cputune> with 'hvtui vm edit'", MOVES)
    nodes = [each.get("nodeset", "") for each in root.findall("numatune/*")]
    if max(map(_highest, nodes), default=-1) >= there.nodes:
        reason = f"it is pinned to memory nodes that {target} has not ({there.nodes} there)"
        yield Check("pinning", False, reason, "Change <numatune> with 'hvtui vm edit'", MOVES)
    if root.find("memoryBacking/hugepages") is not None:
        yield Check("hugepages", False, f"it uses huge pages, and {target} needs as many free")


def _highest(text: str) -> int:
    """The highest number of a set such as "0-3,^2,8"; -1 for an empty one."""
    return max((int(each) for each in re.findall(r"\d{1,6}", text)), default=-1)


# Networks, secrets


def _networks(here: SourceReading, there: TargetReading) -> Iterator[Check]:
    found = False
    for kind, name in dict.fromkeys(_sources(here.current)):
        problem = _network_problem(kind, name, there)
        found = True
        if problem is not None:
            yield problem
    cards = here.current.findall("devices/interface")
    filters = {each.get("filter", "") for card in cards for each in card.findall("filterref")}
    for name in sorted(filters - there.filters) if there.filters is not None else ():
        reason = f"{there.host.name} has no network filter {printable(name, limit=60)}"
        yield Check("filter", False, reason, "Define it there: virsh nwfilter-define", MOVES, NOT_FOUND)
    if found and all(_network_problem(kind, name, there) is None for kind, name in _sources(here.current)):
        yield Check("networks", True, f"{there.host.name} has its networks, and they are active")


def _sources(root: Element) -> Iterator[tuple[str, str]]:
    for card in root.findall("devices/interface"):
        source = card.find("source")
        kind = card.get("type", "")
        if source is not None and kind in {"network", "bridge", "direct"}:
            yield kind, source.get({"network": "network", "bridge": "bridge", "direct": "dev"}[kind], "")


def _network_problem(kind: str, name: str, there: TargetReading) -> Check | None:
    target, shown = there.host.name, printable(name, limit=60)
    if kind == "network":
        if name not in there.networks:
            remedy = (
                f"Define it there, or give the VM another network ({', '.join(sorted(there.networks)) or 'none there'})"
            )
            return Check("network", False, f"{target} has no network {shown}", remedy, MOVES, NOT_FOUND)
        if not there.networks[name]:
            remedy = f"Start it: virsh -c {printable(there.host.uri)} net-start --network {shown}"
            return Check("network", False, f"the network {shown} is not active on {target}", remedy, MEMORY, CONFLICT)
        return None
    what = "bridge" if kind == "bridge" else "interface"
    if there.interfaces is None or (not there.interfaces):
        return Check("network", False, f"whether {target} has the {what} {shown} cannot be told")
    if name not in there.interfaces:
        return Check("network", False, f"{target} has no active {what} {shown}", "Make it there", MOVES, NOT_FOUND)
    return None


def _secrets(here: SourceReading, there: TargetReading) -> Iterator[Check]:
    wanted = {each.get("uuid", "") for each in here.current.iter("secret") if each.get("uuid")}
    for uuid in sorted(wanted - there.secrets) if there.secrets is not None else ():
        reason = f"{there.host.name} has not the secret {printable(uuid, limit=40)} that a disk needs"
        yield Check("secret", False, reason, "Define it there: virsh secret-define", ALL, NOT_FOUND)
