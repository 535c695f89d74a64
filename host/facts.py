"""What a host is: its hardware, its versions, and what guests on it can have. Reads only.

Everything comes from libvirt, so it is the same for a remote host: one call each for the capabilities, the domain
capabilities, the node and the versions. A driver that has no domain capabilities (the test driver) leaves firmware
and TPM empty. libvirt's XML is trusted: it comes from the hypervisor, not from a guest or a file.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import libvirt

from host import accelerator
from host.load import local_memory

if TYPE_CHECKING:
    from host.accelerator import Accelerator
    from host.connection import Host

# The machine type for new guests of an architecture: PCI Express and no legacy devices.
MODERN_MACHINES = {"x86_64": "q35", "i686": "q35", "aarch64": "virt", "riscv64": "virt", "ppc64le": "pseries"}
BIOS_ARCHITECTURES = frozenset({"x86_64", "i686"})

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class NumaCell:
    """One NUMA node: its CPUs and its memory."""

    id: int
    cpus: tuple[int, ...]
    memory_bytes: int


@dataclass(frozen=True, slots=True)
class NodeFacts:
    """One host. `accelerator` is kvm, qemu (guests are emulated, 10 to 50 times slower) or test, with its reason."""

    host_name: str
    architecture: str
    cpu_model: str
    cpu_vendor: str
    cpus: int
    sockets: int
    cores_per_socket: int
    threads_per_core: int
    cpu_mhz: int
    memory_bytes: int
    numa: tuple[NumaCell, ...]
    driver: str  # QEMU, TEST
    hypervisor_version: str  # "7.2.22"
    libvirt_version: str
    accelerator: str
    accelerator_reason: str
    machine_types: tuple[str, ...]
    firmware: tuple[str, ...]  # bios, uefi
    secure_boot: bool
    tpm_models: tuple[str, ...]
    emulator: str
    default_machine: str
    vcpus_max: int


@dataclass(frozen=True, slots=True)
class GuestDefaults:
    """What a new guest on a host should be made of. `cpu_mode` is empty where the hypervisor's own default is best."""

    accelerator: Accelerator
    architecture: str
    emulator: str
    machine: str  # pc-q35-7.2
    cpu_mode: str  # host-model, maximum
    firmware: tuple[str, ...]  # bios, uefi
    secure_boot: bool
    tpm_models: tuple[str, ...]
    vcpus_max: int

    @property
    def virtualization(self) -> str:
        """The `type` of the domain element: kvm, qemu or test."""
        return self.accelerator.kind.value


@dataclass(frozen=True, slots=True)
class HostCapabilities:
    """What libvirt's host capabilities say, for guests of the host's own architecture."""

    architecture: str
    cpu_model: str
    cpu_vendor: str
    numa: tuple[NumaCell, ...]
    emulator: str
    machine_types: tuple[str, ...]  # without those that QEMU calls deprecated
    domain_types: tuple[str, ...]  # qemu, kvm


@dataclass(frozen=True, slots=True)
class GuestCapabilities:
    """What libvirt's domain capabilities say about the modern machine type; empty where a driver has none."""

    emulator: str = ""
    machine: str = ""  # pc-q35-7.2
    firmware: tuple[str, ...] = ()
    secure_boot: bool = False
    tpm_models: tuple[str, ...] = ()
    cpu_modes: tuple[str, ...] = ()
    vcpus_max: int = 0


def read_facts(host: Host, *, configured: str = "auto") -> NodeFacts:
    """The facts of `host`. The accelerator is the cached or the cheap answer for the configuration's value
    `configured`; no test guest is booted for it. Raises ConnectionLost, Denied, UsageError (accelerator)."""
    with host.calls("read the host's facts", host.name) as connection:
        known = parse_host_capabilities(connection.getCapabilities())
        chosen = accelerator.choose(host, configured=configured, prove=False, announces_kvm="kvm" in known.domain_types)
        guests = _guest_capabilities(connection, known.architecture, chosen)
        _, memory_mib, cpus, mhz, nodes, sockets, cores, threads = connection.getInfo()
        return NodeFacts(
            host_name=connection.getHostname(),
            architecture=known.architecture,
            cpu_model=known.cpu_model,
            cpu_vendor=known.cpu_vendor,
            cpus=cpus,
            sockets=nodes * sockets,  # libvirt counts the sockets of one NUMA node
            cores_per_socket=cores,
            threads_per_core=threads,
            cpu_mhz=mhz,
            memory_bytes=_memory_bytes(host, connection) or memory_mib * 1024**2,
            numa=known.numa,
            driver=connection.getType(),
            hypervisor_version=version_text(connection.getVersion()),
            libvirt_version=version_text(connection.getLibVersion()),
            accelerator=chosen.kind.value,
            accelerator_reason=chosen.reason,
            machine_types=known.machine_types,
            firmware=guests.firmware,
            secure_boot=guests.secure_boot,
            tpm_models=guests.tpm_models,
            emulator=known.emulator,
            default_machine=guests.machine,
            vcpus_max=guests.vcpus_max,
        )


def read_defaults(host: Host, *, configured: str = "auto", kernels: tuple[Path, ...] = ()) -> GuestDefaults:
    """What a new guest on `host` should be made of. `configured` and `kernels` as for host.accelerator.choose, which
    may boot a test guest here (up to 8 s, once a boot of the machine). Raises ConnectionLost, Denied, UsageError."""
    chosen = accelerator.choose(host, configured=configured, kernels=kernels)
    with host.calls("read the host's capabilities", host.name) as connection:
        architecture = str(connection.getInfo()[0])
        guests = _guest_capabilities(connection, architecture, chosen)
    return GuestDefaults(
        accelerator=chosen,
        architecture=architecture,
        emulator=guests.emulator,
        machine=guests.machine,
        cpu_mode=best_cpu_mode(chosen.kind.value, guests.cpu_modes),
        firmware=guests.firmware,
        secure_boot=guests.secure_boot,
        tpm_models=guests.tpm_models,
        vcpus_max=guests.vcpus_max,
    )


def best_cpu_mode(virtualization: str, modes: tuple[str, ...]) -> str:
    """host-model under KVM (it migrates and has every common feature); `maximum` under emulation, because QEMU's
    default CPU lacks what current distributions need (x86-64-v2); empty where the host offers neither."""
    wanted = {"kvm": "host-model", "qemu": "maximum"}.get(virtualization, "")
    return wanted if wanted in modes else ""


def version_text(number: int) -> str:
    """libvirt's version number (1,000,000 × major + 1,000 × minor + release) as "9.0.0"; empty for 0."""
    return f"{number // 1_000_000}.{number // 1_000 % 1_000}.{number % 1_000}" if number else ""


def parse_host_capabilities(xml: str) -> HostCapabilities:
    """Read libvirt's capabilities XML."""
    root = ET.fromstring(xml)  # noqa: S314  libvirt wrote it
    architecture = root.findtext("host/cpu/arch", "")
    guest = _own_guest(root, architecture)
    machines = guest.findall("machine") if guest is not None else []
    current = [machine for machine in machines if machine.get("deprecated") != "yes"]
    return HostCapabilities(
        architecture=architecture,
        cpu_model=root.findtext("host/cpu/model", ""),
        cpu_vendor=root.findtext("host/cpu/vendor", ""),
        numa=tuple(_numa_cell(cell) for cell in root.findall("host/topology/cells/cell")),
        emulator=guest.findtext("emulator", "") if guest is not None else "",
        machine_types=tuple(sorted(machine.text or "" for machine in current)),
        domain_types=tuple(d.get("type", "") for d in guest.findall("domain")) if guest is not None else (),
    )


def _own_guest(root: ET.Element, architecture: str) -> ET.Element | None:
    for guest in root.findall("guest"):
        found = guest.find("arch")
        if guest.findtext("os_type") == "hvm" and found is not None and found.get("name") == architecture:
            return found
    return None


def _numa_cell(cell: ET.Element) -> NumaCell:
    memory = cell.find("memory")
    # libvirt reports memory in KiB only (virCapabilitiesHostNUMAFormat).
    memory_kib = int(memory.text or 0) if memory is not None else 0
    cpus = tuple(int(cpu.get("id", "0")) for cpu in cell.findall("cpus/cpu"))
    return NumaCell(id=int(cell.get("id", "0")), cpus=cpus, memory_bytes=memory_kib * 1024)


def _memory_bytes(host: Host, connection: libvirt.virConnect) -> int | None:
    own = local_memory(host)
    if own is not None:
        return own[1]
    # The node's own figure leaves out memory that was plugged in later; the kernel's statistics have it.
    try:
        stats = connection.getMemoryStats(libvirt.VIR_NODE_MEMORY_STATS_ALL_CELLS, 0)
    except libvirt.libvirtError as error:
        return _unless_lost(error, None)
    return int(stats["total"]) * 1024 if "total" in stats else None


def _guest_capabilities(connection: libvirt.virConnect, architecture: str, chosen: Accelerator) -> GuestCapabilities:
    kind, machine = chosen.kind.value, MODERN_MACHINES.get(architecture)
    try:
        return parse_guest_capabilities(connection.getDomainCapabilities(None, architecture, machine, kind, 0))
    except libvirt.libvirtError as error:
        vcpus_max = _unless_lost(error, _vcpus_max(connection, kind))
        return GuestCapabilities(machine=machine or "", vcpus_max=vcpus_max)


def _vcpus_max(connection: libvirt.virConnect, kind: str) -> int:
    try:
        return int(connection.getMaxVcpus(kind))
    except libvirt.libvirtError as error:
        return _unless_lost(error, 0)


def _unless_lost(error: libvirt.libvirtError, value: _T) -> _T:
    """`value` in place of what this driver does not have; a lost connection is an error all the same."""
    if error.get_error_domain() == libvirt.VIR_FROM_RPC:
        raise error
    return value


def parse_guest_capabilities(xml: str) -> GuestCapabilities:
    """Read libvirt's domain capabilities XML."""
    root = ET.fromstring(xml)  # noqa: S314  libvirt wrote it
    architecture = root.findtext("arch", "")
    uefi = "efi" in _values(root, "os/enum[@name='firmware']")
    vcpu = root.find("vcpu")
    has_tpm = root.find("devices/tpm[@supported='yes']") is not None
    return GuestCapabilities(
        emulator=root.findtext("path", ""),
        machine=root.findtext("machine", ""),
        firmware=(("bios",) if architecture in BIOS_ARCHITECTURES else ()) + (("uefi",) if uefi else ()),
        secure_boot=uefi and "yes" in _values(root, "os/loader/enum[@name='secure']"),
        tpm_models=_values(root, "devices/tpm/enum[@name='model']") if has_tpm else (),
        cpu_modes=tuple(mode.get("name", "") for mode in root.findall("cpu/mode[@supported='yes']")),
        vcpus_max=int(vcpu.get("max", "0")) if vcpu is not None else 0,
    )


def _values(root: ET.Element, path: str) -> tuple[str, ...]:
    return tuple(value.text or "" for value in root.findall(f"{path}/value"))
