"""Fits the machine of an imported VM to a host: architecture, machine type, CPU, firmware, what is bound to a host.

The definition may come from anybody. Whatever could reach into the host by itself (an emulator, a boot loader's path,
QEMU arguments) is replaced by the host's own or left out, and a finding says so. Pure functions on parsed XML.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from xml.etree.ElementTree import Element, SubElement

from host.errors import Unsupported
from host.text import printable
from vm.import_report import Findings
from vm.import_surroundings import Surroundings

# What a VM's definition may have at its top; the rest is bound to a host or to QEMU's own command line.
_KNOWN = frozenset(
    {
        "name", "uuid", "genid", "title", "description", "metadata", "memory", "maxMemory", "currentMemory",
        "memoryBacking", "vcpu", "vcpus", "iothreads", "iothreadids", "defaultiothread", "cputune", "memtune",
        "numatune", "sysinfo", "os", "cpu", "features", "clock", "on_poweroff", "on_reboot", "on_crash",
        "on_lockfailure", "perf", "pm", "devices",
    }
)  # fmt: skip
_OS_KNOWN = frozenset(
    {"type", "firmware", "loader", "nvram", "boot", "bootmenu", "bios", "smbios", "kernel", "initrd", "cmdline"}
)
_KEPT_OF_CPU = ("topology", "numa")
_MACHINE = re.compile(r"(?P<family>[a-z]+(?:-[a-z][a-z0-9]*)*?)-?(?:rhel|)(?P<version>\d+(?:\.\d+){1,2})(?:[.-].*)?")
_UBUNTU = re.compile(r"(?P<family>pc-q35|pc-i440fx|virt|pseries)-[a-z].*")
_ALIASES = {"pc-q35": "q35", "pc-i440fx": "pc", "pc": "pc", "q35": "q35"}
_SECURE_NAMES = (".secboot.", ".ms.", "secboot")


def fit_machine(root: Element, around: Surroundings, findings: Findings) -> None:
    """Make the domain `root` one that the host can run."""
    _fit_virtualization(root, around, findings)
    _leave_unknown(root, findings)
    _fit_type(root, around, findings)
    _fit_cpu(root, around, findings)
    _fit_firmware(root, around, findings)
    _fit_placement(root, around, findings)


def _fit_virtualization(root: Element, around: Surroundings, findings: Findings) -> None:
    wanted, here = root.get("type", ""), around.virtualization
    if wanted not in {"kvm", "qemu", "hvf", "test"}:
        shown = printable(wanted, limit=40)
        findings.block(f"it is a VM of {shown}, not of QEMU", exit_code=Unsupported.exit_code)
    elif here == "test" or wanted in {"hvf", "test"}:
        root.set("type", here)
    elif wanted == "kvm" and here == "qemu":
        root.set("type", "qemu")
        findings.changed(f"it is emulated here, 10 to 50 times slower: {around.why_emulated}")
    else:
        findings.ok("it stays emulated, as it was" if wanted == "qemu" else "it is accelerated by KVM, as it was")


def _leave_unknown(root: Element, findings: Findings) -> None:
    for child in list(root):
        if child.tag not in _KNOWN:
            root.remove(child)
            name = printable(str(child.tag).rpartition("}")[2], limit=40)
            findings.changed(f"its <{name}> is left out: {_why_left(child)}")
    for sysinfo in root.findall("sysinfo"):
        if sysinfo.get("type") != "smbios":
            root.remove(sysinfo)
            findings.changed("its firmware configuration (fw_cfg) is left out: it may name files of the host")
    os_element = root.find("os")
    for child in list(os_element) if os_element is not None else []:
        if child.tag not in _OS_KNOWN and os_element is not None:
            os_element.remove(child)
            findings.changed(
                f"its <os>'s <{printable(str(child.tag), limit=40)}> is left out: it names files of a host"
            )


def _why_left(element: Element) -> str:
    arguments = [each.get("value", "") for each in element.iter() if each.get("value")]
    if arguments and str(element.tag).endswith("}commandline"):
        return f"QEMU's own arguments ({printable(' '.join(arguments), limit=120)})"
    return "it is bound to its old host"


# Machine type


def _fit_type(root: Element, around: Surroundings, findings: Findings) -> None:
    kind = root.find("os/type")
    if kind is None:
        findings.block("its definition names no machine type")
        return
    architecture, machine = kind.get("arch", around.architecture), kind.get("machine", "")
    kind.set("arch", architecture)
    if architecture != around.architecture:
        shown = printable(architecture, limit=20)
        reason = f"it is a {shown} machine, and this host runs {around.architecture} guests"
        findings.block(reason, f"Install an emulator for {shown}", exit_code=Unsupported.exit_code)
        return
    devices = root.find("devices")
    emulator = devices.find("emulator") if devices is not None else None
    if devices is not None and around.emulator:
        if emulator is None:
            emulator = SubElement(devices, "emulator")
        if emulator.text and emulator.text.strip() != around.emulator:
            findings.changed(f"its emulator is {around.emulator}, not {printable(emulator.text.strip(), limit=120)}")
        emulator.text = around.emulator
    if not around.machines or machine in around.machines:
        findings.ok(f"the machine type {printable(machine, limit=40)} is there")
        return
    nearest = nearest_machine(machine, around.machines)
    if nearest:
        kind.set("machine", nearest)
        findings.changed(
            f"its machine type is {nearest}: {printable(machine, limit=40)} is not known here. A guest may see some"
            " devices anew at its first start"
        )
    else:
        reason = f"the machine type {printable(machine, limit=40)} is not known here, and none is like it"
        findings.block(reason, exit_code=Unsupported.exit_code)


def nearest_machine(machine: str, known: Iterable[str]) -> str:
    """The machine type of the same family with the nearest version that is not newer, else the oldest newer one;
    empty when the family is not known."""
    names = sorted(known)
    found = _MACHINE.fullmatch(machine) or _UBUNTU.fullmatch(machine)
    family = found["family"] if found else machine
    wanted = _version(machine)
    versions = {
        name: _version(name) for name in names if (each := _MACHINE.fullmatch(name)) and each["family"] == family
    }
    older = [name for name, version in versions.items() if not wanted or version <= wanted]
    if older:
        return max(older, key=lambda name: versions[name])
    if versions:
        return min(versions, key=lambda name: versions[name])
    alias = _ALIASES.get(family, family)
    return alias if alias in names else ""


def _version(machine: str) -> tuple[int, ...]:
    found = _MACHINE.fullmatch(machine)
    return tuple(int(part) for part in found["version"].split(".")[:2]) if found else ()


# CPU


def _fit_cpu(root: Element, around: Surroundings, findings: Findings) -> None:
    cpu = root.find("cpu")
    if cpu is None or not around.cpu_modes:
        return
    mode, model = cpu.get("mode", "custom"), (cpu.findtext("model") or "").strip()
    if mode == "custom" and not model:
        return
    shown = printable(model if mode == "custom" else mode, limit=40)
    can = model in around.cpu_models if mode == "custom" else mode in around.cpu_modes
    if can and not (mode == "host-passthrough" and root.get("type") != "kvm"):
        findings.ok(f"the CPU {shown} can be had")
        return
    kept = [child for child in cpu if child.tag in _KEPT_OF_CPU]
    for child in list(cpu):
        cpu.remove(child)
    cpu.attrib.clear()
    cpu.extend(kept)
    best = around.best_cpu_mode
    if best:
        cpu.set("mode", best)
    elif not kept:
        root.remove(cpu)
    findings.changed(f"its CPU is {best or 'the default one'}: this host cannot give {shown}")


# Firmware


def _fit_firmware(root: Element, around: Surroundings, findings: Findings) -> None:
    os_element = root.find("os")
    if os_element is None:
        return
    loader = os_element.find("loader")
    path = (loader.text or "").strip() if loader is not None else ""
    is_uefi = os_element.get("firmware") == "efi" or (loader is not None and loader.get("type") == "pflash")
    if loader is not None and path and path not in around.loaders:
        os_element.remove(loader)
        if is_uefi:
            _choose_firmware(os_element, loader)
        findings.changed(f"its firmware is one of this host, not {printable(path, limit=120)}")
    if not is_uefi:
        if around.firmware and "bios" not in around.firmware:
            findings.block("it boots by BIOS, and guests of this host by UEFI only", exit_code=Unsupported.exit_code)
        return
    if around.firmware and "uefi" not in around.firmware:
        findings.block("this host has no UEFI firmware", "Install it: apt-get install ovmf",
                       exit_code=Unsupported.exit_code)  # fmt: skip
    elif wants_secure_boot(os_element) and not around.secure_boot:
        findings.block("this host's UEFI firmware has no Secure Boot", "Install it: apt-get install ovmf",
                       exit_code=Unsupported.exit_code)  # fmt: skip
    else:
        findings.ok("UEFI firmware is there" + (" with Secure Boot" if wants_secure_boot(os_element) else ""))


def wants_secure_boot(os_element: Element) -> bool:
    """Whether the definition asks for Secure Boot."""
    loader = os_element.find("loader")
    feature = os_element.find("firmware/feature[@name='secure-boot']")
    return (feature is not None and feature.get("enabled") == "yes") or (
        loader is not None and loader.get("secure") == "yes"
    )


def _choose_firmware(os_element: Element, loader: Element) -> None:
    """Let libvirt choose a firmware of the same kind."""
    os_element.set("firmware", "efi")
    if os_element.find("firmware") is None:
        path = loader.text or ""
        is_secure = loader.get("secure") == "yes" or any(word in path for word in _SECURE_NAMES)
        features = Element("firmware")
        SubElement(features, "feature", enabled="yes" if is_secure else "no", name="secure-boot")
        kind = os_element.find("type")
        os_element.insert(0 if kind is None else list(os_element).index(kind) + 1, features)


# Places on the host


def _fit_placement(root: Element, around: Surroundings, findings: Findings) -> None:
    """Leave out what is pinned to processors or nodes that this host has not."""
    left = set()
    vcpu = root.find("vcpu")
    if vcpu is not None and _highest(vcpu.get("cpuset", "")) >= around.cpus > 0:
        vcpu.attrib.pop("cpuset")
        left.add("processors")
    tune = root.find("cputune")
    for child in list(tune) if tune is not None else []:
        if tune is not None and _highest(child.get("cpuset", "")) >= around.cpus > 0:
            tune.remove(child)
            left.add("processors")
    nodes = root.find("numatune")
    if nodes is not None and any(_highest(each.get("nodeset", "")) >= around.nodes for each in nodes):
        root.remove(nodes)
        left.add("memory nodes")
    for what in sorted(left):
        findings.changed(f"it is not pinned to {what} that this host has not")


def _highest(text: str) -> int:
    """The highest number of a set such as "0-3,^2,8"; -1 for an empty one."""
    numbers = [int(each) for each in re.findall(r"\d{1,6}", text)]
    return max(numbers, default=-1)
