"""What could stand in the way of a new VM, found out before anything is made: each a Blocker with its remedy.

Reads only. A fact that cannot be known from here (a file on another host, say) is a warning, never a guess.
"""

from __future__ import annotations

import os
import re
import shlex
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import libvirt

from host import images
from host.connection import Host
from host.errors import Blocked, Denied, HvtuiError, NameTaken, NotFound, Unsupported, UsageError
from host.facts import GuestDefaults
from host.file_access import User
from host.images import ImageInfo
from host.plan import Blocker
from host.text import printable
from host.units import MIB, format_bytes
from vm.create_request import CreateRequest, Firmware, SourceKind
from vm.disk_uses import World, read_world
from vm.domain_xml import check_tag, fits_xml, parse
from vm.names import check_name as check_new_name
from vm.new_domain_xml import CPU_MODES

LEAST_MEMORY_BYTES = 16 * MIB
DISK_FORMATS = ("qcow2", "raw")
IMAGE_ENDINGS = frozenset({".qcow2", ".qcow", ".qed", ".vmdk", ".vdi", ".vhd", ".vhdx"})
OS_DATABASE = Path("/usr/share/osinfo/os")
_NO_DOMAIN = frozenset({libvirt.VIR_ERR_NO_DOMAIN})


@dataclass(slots=True)
class Findings:
    """What the checks found, in their order."""

    blockers: list[Blocker] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def block(self, reason: str, remedy: str = "", *, exit_code: int = Blocked.exit_code) -> None:
        """Add a blocker."""
        self.blockers.append(Blocker(reason, remedy, exit_code=exit_code))

    def block_for(self, error: HvtuiError) -> None:
        """Add a blocker that says what an error says."""
        about = f"{printable(error.about)}: " if error.about else ""
        self.block(f"{about}{error.cause}", error.remedy, exit_code=error.exit_code)


def check_values(request: CreateRequest) -> None:
    """Refuse what no host could make. Raises UsageError."""
    check_new_name(request.name)
    if request.vcpus < 1:
        raise UsageError("a VM needs at least one vCPU")
    if request.memory_bytes < LEAST_MEMORY_BYTES:
        raise UsageError(f"{format_bytes(request.memory_bytes)} is too little memory", remedy="Give it 128M or more")
    if request.disk_bytes < 0 or 0 < request.disk_bytes < MIB:
        raise UsageError(f"a disk of {request.disk_bytes} bytes is too small", remedy="Give it 1G, or 0 for none")
    if request.disk_format not in DISK_FORMATS:
        raise UsageError(f"{request.disk_format!r} is not a format for a new disk", remedy="Use qcow2 or raw")
    if request.source is SourceKind.TINY and request.firmware in {Firmware.UEFI, Firmware.UEFI_SECURE}:
        remedy = "Leave the firmware out, or install a guest of your own with it"
        raise UsageError("the tiny guest's kernel is started directly: it has no use for UEFI", remedy=remedy)
    for tag in request.tags:
        check_tag(tag)
    for each in fields(request):
        if isinstance(value := getattr(request, each.name), str):
            _check_text(value)
    if "\n" in request.title:
        raise UsageError("a title is one line", remedy="Put the rest into the description")


def _check_text(text: str) -> None:
    if not fits_xml(text):
        raise UsageError(f"{printable(text, limit=60)!r} holds characters that a VM's definition cannot hold")


def check_name(connection: libvirt.virConnect, request: CreateRequest, findings: Findings) -> None:
    """Is the name free?"""
    try:
        connection.lookupByName(request.name)
    except libvirt.libvirtError as error:
        if error.get_error_code() not in _NO_DOMAIN:
            raise
        return
    findings.block(f"there is a VM called {request.name} already", "Choose another name", exit_code=NameTaken.exit_code)


def check_resources(
    connection: Any,
    request: CreateRequest,
    defaults: GuestDefaults,
    findings: Findings,
    *,
    memory: tuple[int, int] | None = None,
) -> None:
    """Has the host the processors and the memory? `memory` is its used and its total one in bytes, where it is known
    better than libvirt does (host.load.local_memory)."""
    information = connection.getInfo()
    cpus, total_bytes = information[2], memory[1] if memory else information[1] * MIB
    if defaults.vcpus_max and request.vcpus > defaults.vcpus_max:
        findings.block(f"{request.vcpus} vCPUs are more than the {defaults.vcpus_max} that a VM can have here")
    elif request.vcpus > cpus:
        findings.warnings.append(f"{request.vcpus} vCPUs share the {cpus} of the host: the guest gets slower by it")
    wanted = format_bytes(request.memory_bytes)
    available_bytes = memory[1] - memory[0] if memory else read_available_bytes(connection)
    if request.memory_bytes > total_bytes:
        findings.block(f"{wanted} of memory is more than the host has ({format_bytes(total_bytes)})", "Give it less")
    elif request.start and available_bytes is not None and request.memory_bytes > available_bytes:
        remedy = "Give it less, stop another VM, or make it without starting it"
        findings.block(f"{wanted} of memory is more than the {format_bytes(available_bytes)} that are free", remedy)


def read_available_bytes(connection: Any) -> int | None:
    """Free memory and what the host's caches would give back; None where the driver does not tell."""
    try:
        found = connection.getMemoryStats(libvirt.VIR_NODE_MEMORY_STATS_ALL_CELLS, 0)
    except libvirt.libvirtError:
        return None
    return sum(int(found.get(key, 0)) for key in ("free", "buffers", "cached")) * 1024


def check_firmware(request: CreateRequest, firmware: Firmware, defaults: GuestDefaults, findings: Findings) -> None:
    """Has the host the firmware and the TPM?"""
    unsupported = Unsupported.exit_code
    if firmware in {Firmware.UEFI, Firmware.UEFI_SECURE} and "uefi" not in defaults.firmware:
        findings.block("the host has no UEFI firmware", "Install it: apt-get install ovmf", exit_code=unsupported)
    elif firmware is Firmware.UEFI_SECURE and not defaults.secure_boot:
        findings.block("the host's UEFI firmware has no Secure Boot", "Choose uefi", exit_code=unsupported)
    if firmware is Firmware.BIOS and "bios" not in defaults.firmware:
        findings.block("guests of this host boot by UEFI only", "Choose uefi", exit_code=unsupported)
    if request.tpm and not defaults.tpm_models:
        remedy = "Install it: apt-get install swtpm swtpm-tools"
        findings.block("the host cannot emulate a TPM", remedy, exit_code=unsupported)


@dataclass(frozen=True, slots=True)
class GuestChoices:
    """What domain capabilities say can be chosen; empty where a driver has none."""

    cpu_modes: frozenset[str] = frozenset()
    cpu_models: frozenset[str] = frozenset()
    video_models: frozenset[str] = frozenset()


def read_choices(connection: Any, defaults: GuestDefaults) -> GuestChoices:
    """The CPU modes and models and the video models of this host's guests."""
    try:
        xml = connection.getDomainCapabilities(
            defaults.emulator or None, defaults.architecture, defaults.machine or None, defaults.virtualization, 0
        )
    except libvirt.libvirtError as error:
        if error.get_error_domain() == libvirt.VIR_FROM_RPC:
            raise
        return GuestChoices()
    root = parse(xml, root="domainCapabilities")
    custom = "cpu/mode[@name='custom']/model"
    return GuestChoices(
        cpu_modes=frozenset(mode.get("name", "") for mode in root.findall("cpu/mode[@supported='yes']")),
        cpu_models=frozenset(model.text or "" for model in root.findall(custom) if model.get("usable") != "no"),
        video_models=frozenset(each.text or "" for each in root.findall("devices/video/enum/value")),
    )


def check_cpu(request: CreateRequest, choices: GuestChoices, findings: Findings) -> None:
    """Can the CPU be had?"""
    mode = request.cpu_mode
    if mode == "auto" or not choices.cpu_modes:
        return
    if mode in CPU_MODES:
        if mode not in choices.cpu_modes:
            usable = ", ".join(sorted(choices.cpu_modes & frozenset(CPU_MODES)))
            findings.block(f"guests of this host cannot have the CPU mode {mode}", f"Choose auto, or one of {usable}")
    elif mode not in choices.cpu_models:
        shown = printable(mode, limit=40)
        findings.block(f"{shown} is no CPU model that this host can give", "See them: virsh domcapabilities")


# Files


def check_file(host: Host, path: str, what: str, findings: Findings, *, write: bool = False) -> bool:
    """Is the file there, and may QEMU open it? False when it cannot be looked at any further."""
    shown = printable(path, limit=200)
    if not path.startswith("/"):
        raise UsageError(f"{what}: {shown!r} is not an absolute path", remedy="Give the path on the host from / on")
    if host.is_simulated:
        return False
    if not host.is_local:
        findings.warnings.append(f"{what} {shown}: a file on another host cannot be looked at from here")
        return False
    try:
        Path(path).stat()
    except (FileNotFoundError, NotADirectoryError):
        reason = f"{what}: there is no file {shown}"
        findings.block(reason, "Give the path of a file on the host", exit_code=NotFound.exit_code)
        return False
    except OSError:
        pass  # the walk along the path below says who may not pass where
    problems = images.path_problems(path, user=_qemu_user(host), write=write)
    for problem in problems:
        reason, _, remedy = problem.partition(". ")
        findings.block(f"{what}: {printable(reason)}", printable(remedy), exit_code=Denied.exit_code)
    return os.access(path, os.R_OK)


def _qemu_user(host: Host) -> User | None:
    """Whom QEMU runs as under this libvirt, when it is not the system's QEMU user; None when it is."""
    with host.calls("read the host's capabilities", host.name) as connection:
        xml = connection.getCapabilities()
    label = ""
    for model in parse(xml, root="capabilities").findall("host/secmodel"):
        if model.findtext("model") == "dac":
            label = model.findtext("baselabel", "")
    found = re.match(r"\+(\d+):\+(\d+)", label)
    usual = images.qemu_user(host.uri)
    if found is None or int(found[1]) == usual.uid:
        return usual if host.uri.endswith("/session") else None
    return User(f"user {found[1]}", int(found[1]), frozenset({int(found[2])}))


def check_image(host: Host, request: CreateRequest, findings: Findings) -> str:
    """The format of the existing disk image; "raw" when it cannot be told."""
    path = request.image
    if not check_file(host, path, "the disk image", findings, write=True):
        return _format_by_name(path)
    try:
        info = images.inspect(path)
    except HvtuiError as error:
        findings.block_for(error)
        return _format_by_name(path)
    _warn_of_no_image(info, findings)
    if info.is_iso:
        findings.block("that is an installation medium, not a disk", "Make the VM from it as an ISO")
    if info.is_corrupt:
        findings.block("the disk image is damaged", f"Look at it: qemu-img check {printable(path)}")
    if info.is_encrypted:
        findings.block("the disk image is encrypted, and hvtui has no key for it", exit_code=Unsupported.exit_code)
    if info.format not in DISK_FORMATS:
        findings.block(
            f"the disk image is {printable(info.format)}, which is for importing only",
            f"Convert it: qemu-img convert -O qcow2 -- {printable(path)} NEW.qcow2",
        )
    return info.format


def _warn_of_no_image(info: ImageInfo, findings: Findings) -> None:
    """Whatever is no known format counts as raw: a text file, too."""
    if info.format != "raw" or info.is_iso:
        return
    shown = printable(str(info.path), limit=200)
    if info.path.suffix.lower() in IMAGE_ENDINGS:
        findings.warnings.append(f"{shown} looks like no disk image: by its content it is no {info.path.suffix[1:]}")
    elif info.path.is_file() and info.path.stat().st_size % 512:
        findings.warnings.append(f"{shown} looks like no disk image: its size is no whole number of sectors")


def check_os_id(os_id: str, findings: Findings) -> None:
    """Is it an id of libosinfo? Its database, where this machine has it, decides; libvirt keeps any text."""
    found = re.fullmatch(r"https?://([\w.-]+)((?:/[\w.+-]+)+)", os_id)
    if not os_id or (found and not OS_DATABASE.is_dir()):
        return
    if not found:
        findings.warnings.append(
            f"{printable(os_id, limit=80)!r} is no id of libosinfo: write http://debian.org/debian/12"
        )
    elif not (OS_DATABASE / found[1] / f"{found[2][1:].replace('/', '-')}.xml").is_file():
        findings.warnings.append(f"libosinfo here knows no system {printable(os_id, limit=80)}")


def _format_by_name(path: str) -> str:
    return "qcow2" if path.endswith(".qcow2") else "raw"


def check_image_users(host: Host, path: str, findings: Findings) -> None:
    """Does another VM use the image, or does another image build on it?"""
    with host.calls("see who uses the image", path) as connection:
        world = read_world(connection, host, without_uuid="", refresh=False)
    for name in _users(world, path, by=world.users):
        findings.block(f"the VM {name} uses this disk image", "Give the new VM a copy of it", exit_code=4)
    for other in _users(world, path, by=world.builders):
        reason = f"the image {other} builds on this one: writing to it would destroy that"
        findings.block(reason, f"Make an overlay: qemu-img create -f qcow2 -F FORMAT -b {printable(path)} NEW.qcow2")


def _users(world: World, path: str, *, by: dict[str, list[str]]) -> list[str]:
    return [printable(name, limit=120) for name in world.look_up(by, path)]


def check_iso(host: Host, path: str, findings: Findings) -> None:
    """Is it an installation medium?"""
    if not check_file(host, path, "the installation medium", findings):
        return
    try:
        if not images.inspect(path).is_iso:
            findings.warnings.append("the installation medium does not look like an ISO 9660 image")
    except HvtuiError as error:
        findings.block_for(error)


# Networks


def check_bridge(host: Host, name: str, findings: Findings) -> None:
    """Is there such a bridge? Only the local host can be asked."""
    if not re.fullmatch(r"[^\s/]{1,15}", name):
        raise UsageError(f"{printable(name, limit=40)!r} is not a bridge's name", remedy="Write bridge:br0")
    if not host.is_local or host.is_simulated or Path(f"/sys/class/net/{name}/bridge").is_dir():
        return
    findings.block(f"there is no bridge {printable(name)} on the host", "Choose another, or the network user or none")


def check_network(connection: Any, uri: str, name: str, findings: Findings) -> None:
    """Is there such a network, and is it active?"""
    networks = {network.name(): network for network in connection.listAllNetworks(0)}
    if name not in networks:
        known = ", ".join(printable(each, limit=60) for each in sorted(networks)) or "none"
        reason = f"there is no network {printable(name, limit=60)}"
        findings.block(reason, f"Networks here: {known}. Also: user, none, bridge:NAME", exit_code=NotFound.exit_code)
    elif not networks[name].isActive():
        command = shlex.join(["virsh", "-c", uri, "net-start", "--network", name])
        findings.block(f"the network {name} is not active", f"Start it: {command}")


def is_active_network(connection: Any, name: str) -> bool:
    """True when there is an active network of that name."""
    return any(
        network.name() == name for network in connection.listAllNetworks(libvirt.VIR_CONNECT_LIST_NETWORKS_ACTIVE)
    )
