"""What a new virtual machine shall be, as a person or a script asked for it. Data only; vm.create makes the plan."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from host.units import GIB, MIB


class SourceKind(StrEnum):
    """What the new VM starts from."""

    IMAGE = "image"  # an existing disk image, used in place
    ISO = "iso"  # an installation medium and a new disk
    KERNEL = "kernel"  # a kernel, an initial RAM disk and a command line
    TINY = "tiny"  # the built-in guest, made from the distribution's own kernel (vm.tiny)
    EMPTY = "empty"  # a new disk and nothing on it


class Firmware(StrEnum):
    """AUTO is UEFI for an installation medium where the host has it, and BIOS otherwise."""

    AUTO = "auto"
    BIOS = "bios"
    UEFI = "uefi"
    UEFI_SECURE = "uefi-secure"  # with Secure Boot and enrolled keys


class Graphics(StrEnum):
    """Where the VM's screen can be reached."""

    SOCKET = "socket"  # VNC on a Unix socket: nothing listens on a network
    LOOPBACK = "loopback"  # VNC on 127.0.0.1, the port chosen at each start
    NONE = "none"  # serial console only


@dataclass(frozen=True, slots=True)
class CreateRequest:
    """A new VM. Only `name` is needed: the defaults are a sane modern guest.

    image, iso: an absolute path on the host, for those sources.
    kernel, initrd, kernel_arguments: for the source KERNEL.
    disk_bytes: the size of a new empty disk in `pool`; 0 for none. An ISO without one gets DEFAULT_DISK_BYTES.
    network: "auto" (the network `default` where it is active, else none), "none", "user" (QEMU's own address
        translation), "bridge:NAME", or the name of a libvirt network.
    cpu_mode: "auto" (host-model where accelerated, else maximum), a libvirt mode, or the name of a CPU model.
    wait_ready: wait until the guest answers (agent, or the marker on its serial console), at most `ready_timeout_s`:
        only the tiny guest is known to answer, so only `tiny_request` waits without being asked.
    """

    name: str
    source: SourceKind = SourceKind.TINY
    image: str = ""
    iso: str = ""
    kernel: str = ""
    initrd: str = ""
    kernel_arguments: str = ""
    vcpus: int = 2
    memory_bytes: int = 2 * GIB
    disk_bytes: int = 0
    disk_format: str = "qcow2"  # or raw
    pool: str = "default"
    network: str = "auto"
    firmware: Firmware = Firmware.AUTO
    tpm: bool = False
    cpu_mode: str = "auto"
    graphics: Graphics = Graphics.SOCKET
    os_id: str = ""  # libosinfo id, "http://debian.org/debian/12"
    title: str = ""
    description: str = ""
    tags: tuple[str, ...] = ()
    owner: str = ""
    autostart: bool = False
    start: bool = True
    wait_ready: bool = False
    ready_timeout_s: float = 120.0


DEFAULT_DISK_BYTES = 20 * GIB
TINY_MEMORY_BYTES = 128 * MIB


def tiny_request(name: str) -> CreateRequest:
    """The first VM of a new user: one vCPU, 128 MiB, no disk, answering after a few seconds."""
    return CreateRequest(name=name, source=SourceKind.TINY, vcpus=1, memory_bytes=TINY_MEMORY_BYTES, wait_ready=True)
