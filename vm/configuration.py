"""What a VM's domain XML says, as lists and details show it. Data only; vm.domain_xml reads it, vm.model offers it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Disk:
    """A disk of the VM. `source` is a path, a volume as pool/volume, or a URL; empty for an empty drive."""

    target: str  # vda
    bus: str  # virtio, sata, ...
    device: str  # disk, cdrom, floppy, lun
    source: str
    source_type: str  # file, block, volume, network, dir
    driver_format: str  # qcow2, raw
    read_only: bool = False
    shareable: bool = False


@dataclass(frozen=True, slots=True)
class Nic:
    """A network interface. `source` is the network's or the bridge's name."""

    mac: str
    model: str
    source_type: str  # network, bridge, direct, user
    source: str
    target: str = ""  # vnet3 while running


@dataclass(frozen=True, slots=True)
class VmConfig:
    """What the domain XML says, as far as lists and details show it. `agent_connected` is None while not running."""

    title: str = ""
    description: str = ""
    tags: tuple[str, ...] = ()
    owner: str = ""
    os_id: str = ""  # the libosinfo id
    virtualization: str = ""  # kvm, qemu, test
    machine: str = ""
    firmware: str = "bios"  # bios, uefi, kernel (direct boot)
    cpu_mode: str = ""
    memory_bytes: int = 0
    memory_max_bytes: int = 0
    vcpus: int = 0
    vcpus_max: int = 0
    disks: tuple[Disk, ...] = ()
    nics: tuple[Nic, ...] = ()
    has_agent_channel: bool = False
    agent_connected: bool | None = None
    has_serial_console: bool = False
    has_balloon: bool = False
    has_rng: bool = False
    has_tpm: bool = False
    graphics: tuple[str, ...] = ()  # "vnc 127.0.0.1:5900", "vnc socket"
    host_devices: int = 0
    pending_changes: bool = False  # live and next-boot configuration differ
    next_memory_bytes: int = 0  # what the next boot gets, where that is something else; so with the vCPUs
    next_vcpus: int = 0
    template: str = ""  # the one that it was made from, and whether its disks are overlays on that one's
    is_linked: bool = False

    @property
    def is_emulated(self) -> bool:
        """True when QEMU emulates the CPU (10 to 50 times slower than KVM)."""
        return self.virtualization == "qemu"
