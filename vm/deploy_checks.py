"""What could stand in the way of a whole deployment, found out before anything is made. Reads only.

The checks look at all VMs together and at the host once: their calls do not grow with the number of VMs.
Findings that are true for every VM of the set are the set's own. vm.create_checks has what a single VM needs.
"""

from __future__ import annotations

import re
import shlex
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import libvirt

from host import images, pool_room
from host.connection import Host
from host.errors import NameTaken, NotFound, Unsupported, UsageError
from host.facts import GuestDefaults
from host.load import local_memory
from host.text import printable
from host.units import MIB, format_bytes
from vm import create_checks
from vm.create_checks import Findings
from vm.create_request import Firmware
from vm.deploy_request import DeployRequest
from vm.domain_xml import check_tag, fits_xml, parse
from vm.name_patterns import collisions
from vm.names import check_name
from vm.new_domain_xml import NewNic
from vm.profile_model import GuestProfile, HardwareProfile, ProfileNic
from vm.template_model import ImageRole, Library, Template

FILE_POOLS = frozenset({"dir", "fs", "netfs"})
BUSES = ("virtio", "scsi", "sata")
LEAST_FREE_BYTES = 512 * MIB  # less than that and guests that write are paused at once
MOST_NAMES = 5
_NUMBERED = re.compile(r"(.*?)(\d{1,9})(\D*)", re.DOTALL)


def check_values(request: DeployRequest) -> None:
    """Refuse what no host could make. Raises UsageError."""
    if not request.names:
        raise UsageError("no VM is named", remedy="Give a name, or a pattern and a number: web-{:02} -n 20")
    for name in request.names:
        check_name(name)
    twice = [name for name, count in Counter(request.names).items() if count > 1]
    if twice:
        raise UsageError(f"{_names(twice)} would be made twice", remedy="Give each VM a name of its own")
    for tag in request.tags:
        check_tag(tag)
    if not all(fits_xml(text) for text in (request.title, request.owner)) or "\n" in request.title:
        raise UsageError("the title or the owner holds characters that a VM's definition cannot hold")
    check_hardware(request.hardware)


def check_hardware(hardware: HardwareProfile) -> None:
    """Refuse a profile that contradicts itself. Raises UsageError."""
    minimum, start, maximum = hardware.memory_minimum_bytes, hardware.memory_bytes, hardware.memory_maximum_bytes
    if hardware.vcpus < 1:
        raise UsageError("a VM needs at least one vCPU")
    if start < create_checks.LEAST_MEMORY_BYTES:
        raise UsageError(f"{format_bytes(start)} is too little memory", remedy="Give it 128M or more")
    if minimum > start or 0 < maximum < start:
        sizes = " ≤ ".join(format_bytes(size) for size in (minimum, start, maximum) if size)
        raise UsageError(f"the memory's sizes are not in order: {sizes}", remedy="minimum ≤ memory ≤ maximum")
    if (topology := hardware.topology) is not None:
        product = topology.sockets * topology.cores * topology.threads
        if product != hardware.vcpus:
            shown = f"{topology.sockets} × {topology.cores} × {topology.threads}"
            raise UsageError(f"the topology {shown} has {product} vCPUs, and {hardware.vcpus} are wanted")
    if hardware.disk_bus and hardware.disk_bus not in BUSES:
        raise UsageError(f"{printable(hardware.disk_bus)!r} is no bus for a disk", remedy=f"Use {', '.join(BUSES)}")


# Names


def check_names(
    existing: Collection[str], names: Sequence[str], findings: Findings, *, is_numbered: bool = True
) -> None:
    """Is every name free? `is_numbered`: they came from a pattern with a field for the number."""
    taken = collisions(names, existing)
    if not taken:
        return
    verb = "is a VM" if len(taken) == 1 else "are VMs"
    first = first_free(names, existing)
    remedy = "Choose another name"
    if first is not None:
        remedy = f"Begin after them: --first {first}" if is_numbered else f"{remedy}: {with_number(names[0], first)}"
    findings.block(f"there {verb} called {_names(taken)} already", remedy, exit_code=NameTaken.exit_code)


def first_free(names: Sequence[str], existing: Collection[str]) -> int | None:
    """The number after the highest that a VM of the same pattern has; None when the names do not follow one."""
    parts = [found.groups() for name in names if (found := _NUMBERED.fullmatch(name))]
    if len(parts) != len(names) or len({(before, after) for before, _, after in parts}) != 1:
        return None
    before, _, after = parts[0]
    others = [found for name in existing if (found := _NUMBERED.fullmatch(name))]
    numbers = [int(found[2]) for found in others if (found[1], found[3]) == (before, after)]
    return max(numbers) + 1 if numbers else None


def with_number(name: str, number: int) -> str:
    """web-03 of web-01 and 3."""
    found = _NUMBERED.fullmatch(name)
    return f"{found[1]}{number:0{len(found[2])}d}{found[3]}" if found else name


def _names(names: Sequence[str]) -> str:
    shown = ", ".join(printable(name, limit=60) for name in names[:MOST_NAMES])
    return shown + (f" and {len(names) - MOST_NAMES} more" if len(names) > MOST_NAMES else "")


# The template


def check_template(
    host: Host, library: Library, template: Template, volumes: Collection[str], findings: Findings
) -> None:
    """Are its images there, and may QEMU open them? `volumes` are the names in the library."""
    missing = [image.volume for image in template.images if image.volume not in volumes]
    if missing:
        reason = f"the template {printable(template.name)} lacks its {_names(missing)}"
        remedy = f"See what is wrong: hvtui template verify {shlex.quote(printable(template.name))}"
        findings.block(reason, remedy, exit_code=NotFound.exit_code)
    if not template.images:
        findings.block(f"the template {printable(template.name)} has no images")
    if host.is_simulated or not host.is_local:
        return  # how it is on another host only that host knows; libvirt tells it at the start
    for image in template.images:
        if image.volume not in missing:
            what = f"the template's {image.role.value}"
            create_checks.check_file(host, f"{library.path}/{image.volume}", what, findings)


def check_seed(request: DeployRequest, template: Template, findings: Findings) -> None:
    """Can the guest be told what it shall be?"""
    if template.takes_seed:
        return
    if request.user_data:
        reason = f"guests of the template {printable(template.name)} read no user data"
        findings.block(reason, "Leave the user data out, or take a template with cloud-init")
    elif request.guest != GuestProfile(request.guest.name, request.guest.description, request.guest.name_pattern):
        findings.warnings.append(
            f"guests of the template {printable(template.name)} do not read cloud-init: users, packages and whatever "
            "else the guest profile says do not reach them, only its names are used"
        )


# Storage


@dataclass(frozen=True, slots=True)
class Target:
    """The pool that the new disks go to. `exists` is False for one that has to be made; `free_bytes` None where
    nobody knows."""

    name: str
    path: str
    kind: str = "dir"
    exists: bool = True
    is_active: bool = True
    free_bytes: int | None = None

    @property
    def is_block(self) -> bool:
        return self.kind not in FILE_POOLS


def read_target(host: Host, pools: dict[str, Any], request: DeployRequest, findings: Findings) -> Target:
    """The pool as it is. `pools` are all pools of the host by name."""
    name = request.pool
    if name in pools:
        root = parse(pools[name].XMLDesc(0), root="pool")
        path, is_active = root.findtext("target/path", ""), bool(pools[name].isActive())
        room = pool_room.free_bytes(host, path, pools[name].info()) if is_active else _free_bytes(host, path)
        target = Target(name, path, root.get("type", ""), is_active=is_active, free_bytes=room)
        _check_kind(target, findings, linked=request.linked)
        return target
    from vm.create import DEFAULT_POOL, DEFAULT_POOL_PATH

    if name != DEFAULT_POOL:
        known = ", ".join(printable(each, limit=60) for each in sorted(pools)) or "none"
        reason = f"there is no storage pool {printable(name, limit=60)}"
        findings.block(reason, f"Pools here: {known}", exit_code=NotFound.exit_code)
    is_session = host.uri.endswith("/session")
    path = str(Path.home() / ".local/share/libvirt/images" if is_session else DEFAULT_POOL_PATH)
    return Target(name, path, exists=False, is_active=False, free_bytes=_free_bytes(host, path))


def _free_bytes(host: Host, path: str) -> int | None:
    """Where there is no active pool to be asked: what the file system says, where it is this machine's."""
    return images.free_bytes(path) if path.startswith("/") and host.is_local and not host.is_simulated else None


def _check_kind(target: Target, findings: Findings, *, linked: bool) -> None:
    shown = printable(target.name, limit=60)
    if target.kind not in {*FILE_POOLS, "logical"}:
        findings.block(f"the storage pool {shown} is of type {printable(target.kind)}", "Choose a directory pool")
    elif target.is_block and linked:
        reason = f"the storage pool {shown} holds block volumes, which cannot be linked to a template"
        findings.block(reason, "Make full copies (--full), or choose a directory pool")


def disk_bytes(hardware: HardwareProfile, template: Template) -> tuple[int, ...]:
    """The sizes of each VM's disks: the template's, the first one grown; one new disk when the template has none."""
    sizes = [image.virtual_size_bytes for image in template.images if image.role is ImageRole.DISK]
    wanted = -(-hardware.disk_bytes // MIB) * MIB
    if not sizes:
        return (wanted,) if wanted else ()
    return (max(sizes[0], wanted), *sizes[1:])


def check_space(request: DeployRequest, template: Template, target: Target, findings: Findings) -> None:
    """Is there room for what is written now, and for what the guests may write later?"""
    count, sizes = len(request.names), disk_bytes(request.hardware, template)
    images_of_disks = [image for image in template.images if image.role is ImageRole.DISK]
    if images_of_disks and 0 < request.hardware.disk_bytes < images_of_disks[0].virtual_size_bytes:
        size = format_bytes(images_of_disks[0].virtual_size_bytes)
        findings.warnings.append(f"the first disk stays at {size}: a template's disk is not made smaller")
    free_bytes, most_bytes = target.free_bytes, count * sum(sizes)
    if free_bytes is None or not most_bytes:
        return
    copied_bytes = 0 if request.linked else count * sum(image.size_bytes for image in images_of_disks)
    least_bytes = max(copied_bytes, min(most_bytes, LEAST_FREE_BYTES))
    if target.is_block:
        least_bytes = most_bytes
    shown, free, most = printable(target.name, limit=60), format_bytes(free_bytes), format_bytes(most_bytes)
    disks = f"the {count * len(sizes)} disks" if count * len(sizes) > 1 else "the disk"
    if free_bytes < least_bytes:
        reason = f"the pool {shown} has {free} free, and {disks} need {format_bytes(least_bytes)} at once"
        findings.block(reason, "Make room, deploy fewer VMs, or choose another pool")
    elif free_bytes < most_bytes:
        times = f"over-committed {most_bytes / max(free_bytes, 1):.1f} times"
        findings.warnings.append(
            f"{disks} may grow to {most}, and the pool {shown} has {free} free: {times}; a full pool pauses its VMs"
        )


# Processors, memory, firmware


def check_resources(
    host: Host, connection: Any, request: DeployRequest, defaults: GuestDefaults, findings: Findings
) -> None:
    """Has the host the processors and the memory for all of them?"""
    hardware, count = request.hardware, len(request.names)
    information, memory = connection.getInfo(), local_memory(host)
    cpus, total_bytes = information[2], memory[1] if memory else information[1] * MIB
    if defaults.vcpus_max and hardware.vcpus > defaults.vcpus_max:
        findings.block(f"{hardware.vcpus} vCPUs are more than the {defaults.vcpus_max} that a VM can have here")
    elif hardware.vcpus * count > cpus:
        findings.warnings.append(f"{hardware.vcpus * count} vCPUs share the {cpus} of the host")
    all_bytes = hardware.memory_bytes * count
    each = f"{count} × {format_bytes(hardware.memory_bytes)}" if count > 1 else format_bytes(all_bytes)
    available_bytes = memory[1] - memory[0] if memory else create_checks.read_available_bytes(connection)
    fewer = "Give them less, or deploy fewer" if count > 1 else "Give it less"
    if hardware.memory_bytes > total_bytes or (request.start and all_bytes > total_bytes):
        findings.block(f"{each} of memory is more than the host has ({format_bytes(total_bytes)})", fewer)
    elif request.start and available_bytes is not None and all_bytes > available_bytes:
        reason = f"{each} of memory is more than the {format_bytes(available_bytes)} that are free"
        findings.block(reason, f"{fewer}, stop other VMs, or define them without a start (--no-start)")
    elif all_bytes > total_bytes:
        findings.warnings.append(f"{each} of memory is more than the host has: they cannot all run at once")


def resolve_firmware(request: DeployRequest, template: Template, defaults: GuestDefaults) -> Firmware:
    """The profile's, else the template's; AUTO is BIOS where the host has it."""
    wanted = request.hardware.firmware or template.firmware
    if wanted is not Firmware.AUTO:
        return wanted
    return Firmware.UEFI if "uefi" in defaults.firmware and "bios" not in defaults.firmware else Firmware.BIOS


def check_machine(connection: Any, template: Template, defaults: GuestDefaults, findings: Findings) -> None:
    """Can the host run such a machine? `defaults` has the profile's machine type."""
    unsupported = Unsupported.exit_code
    if template.architecture != defaults.architecture and defaults.virtualization != "test":
        shown = printable(template.architecture, limit=20)
        reason = f"the template is made for {shown} machines, the guests of this host are {defaults.architecture}"
        findings.block(reason, "Choose another template", exit_code=unsupported)
    try:
        connection.getDomainCapabilities(
            defaults.emulator or None, defaults.architecture, defaults.machine or None, defaults.virtualization, 0
        )
    except libvirt.libvirtError as error:
        if error.get_error_code() == libvirt.VIR_ERR_INVALID_ARG and "machine" in (error.get_error_message() or ""):
            reason = f"this host has no machine type {printable(defaults.machine, limit=40)}"
            findings.block(reason, "Leave it out, or choose one of: hvtui host show", exit_code=unsupported)
        elif error.get_error_domain() == libvirt.VIR_FROM_RPC:
            raise


# Networks


def read_nic(host: Host, connection: Any, nic: ProfileNic, template: Template, findings: Findings) -> NewNic | None:
    """The card as it can be had; None for none."""
    model, wanted = nic.model or template.nic_model, nic.network
    if wanted in {"", "none"}:
        return None
    if wanted == "user":
        return NewNic("user", model=model)
    if wanted.startswith("bridge:"):
        name = wanted.removeprefix("bridge:")
        create_checks.check_bridge(host, name, findings)
        return NewNic("bridge", name, model)
    if wanted != "auto":
        create_checks.check_network(connection, host.uri, wanted, findings)
        return NewNic("network", wanted, model)
    if create_checks.is_active_network(connection, "default"):
        return NewNic("network", "default", model)
    if host.uri.endswith("/session"):
        return NewNic("user", model=model)  # what an unprivileged libvirt has
    start = shlex.join(["virsh", "-c", host.uri, "net-start", "--network", "default"])
    findings.warnings.append(
        f"made without a network: the network 'default' is not active. Start it first ({start}), or choose another"
    )
    return None
