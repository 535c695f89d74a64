"""What a host is: its hardware, its versions, and what guests on it can have. Reads only."""

from __future__ import annotations

from dataclasses import dataclass


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
