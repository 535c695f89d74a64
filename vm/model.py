"""The immutable picture of virtual machines: what the lists, the filters and the plans read.

Values are converted at libvirt's edge: enums, bytes with the unit in the name, datetimes. A Vm never holds a
libvirt object. `config` is filled in the background from the domain XML (one call a VM, cached until the VM is
redefined); everything else comes from a constant number of bulk calls.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING

from host.statistics import VmRates as VmRates

if TYPE_CHECKING:  # for types only: a list of VMs on the command line must not load what reads a host
    from host.connection import Link
    from host.facts import NodeFacts
    from host.load import HostLoad


class VmState(StrEnum):
    """The state of a VM. SAVED is libvirt's shutoff with a managed save image."""

    RUNNING = "running"
    PAUSED = "paused"
    SHUTTING_DOWN = "shutting down"
    OFF = "off"
    SAVED = "saved"
    CRASHED = "crashed"
    SUSPENDED = "suspended"  # the guest sleeps (S3)
    UNKNOWN = "unknown"

    @property
    def is_active(self) -> bool:
        """True while a QEMU process (or the driver's equivalent) exists."""
        return self in ACTIVE_STATES


ACTIVE_STATES = frozenset({VmState.RUNNING, VmState.PAUSED, VmState.SHUTTING_DOWN, VmState.SUSPENDED})


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

    @property
    def is_emulated(self) -> bool:
        """True when QEMU emulates the CPU (10 to 50 times slower than KVM)."""
        return self.virtualization == "qemu"


@dataclass(frozen=True, slots=True)
class Vm:
    """One virtual machine as last read. `state_reason` is libvirt's reason in words ("disk error", "crashed")."""

    uuid: str
    name: str
    state: VmState
    state_reason: str = ""
    domain_id: int | None = None
    persistent: bool = True
    autostart: bool = False
    has_saved_state: bool = False
    checkpoints: int = 0
    vcpus: int = 0
    memory_bytes: int = 0  # what the guest has now (balloon) or would get
    memory_max_bytes: int = 0
    memory_used_bytes: int | None = None  # told by the guest's balloon driver
    config: VmConfig | None = None
    rates: VmRates = field(default_factory=VmRates)
    cpu_history: tuple[float, ...] = ()  # newest last, percent
    addresses: tuple[str, ...] = ()
    started_at: datetime | None = None

    @property
    def is_active(self) -> bool:
        """True while a QEMU process exists for it."""
        return self.state.is_active

    @property
    def needs_attention(self) -> bool:
        """True for a state that an administrator did not ask for (disk error, crash, watchdog)."""
        if self.state in {VmState.PAUSED, VmState.OFF}:
            return self.state_reason in ALARMING_REASONS
        return self.state is VmState.CRASHED


ALARMING_REASONS = frozenset({"disk error", "watchdog", "crashed", "post-copy failed"})


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything the screen shows of one host at one instant. A new one replaces it; nothing in it changes.

    `read_at_s` is the time.monotonic() instant of the last successful reading; while `link` is not up, the data are
    stale since then. `facts` is None until they were read once.
    """

    host_name: str
    uri: str
    vms: tuple[Vm, ...]
    load: HostLoad
    link: Link
    read_at_s: float
    facts: NodeFacts | None = None
