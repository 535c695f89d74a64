"""The immutable picture of virtual machines: what the lists, the filters and the plans read.

Values are converted at libvirt's edge: enums, bytes with the unit in the name, datetimes. A Vm never holds a
libvirt object. `config` is filled in the background from the domain XML (one call a VM, cached until the VM is
redefined); everything else comes from a constant number of bulk calls.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from importlib import import_module
from typing import TYPE_CHECKING

from host.rates import VmRates as VmRates

if TYPE_CHECKING:
    from vm.configuration import Disk as Disk
    from vm.configuration import Nic as Nic
    from vm.configuration import VmConfig as VmConfig
    from vm.snapshot import Snapshot as Snapshot


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
    host: str = ""  # the host's name in the list of hosts

    @property
    def key(self) -> tuple[str, str]:
        """Host and uuid: what a VM is known by where several hosts are shown, since a definition may be on two."""
        return self.host, self.uuid

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

# Classes that a plain list on the command line does not need; making each costs it more than a millisecond.
_ELSEWHERE = {
    "Disk": "vm.configuration",
    "Nic": "vm.configuration",
    "VmConfig": "vm.configuration",
    "Snapshot": "vm.snapshot",
}


def __getattr__(name: str) -> type:
    """Load a class of _ELSEWHERE when it is first named."""
    if name not in _ELSEWHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found: type = getattr(import_module(_ELSEWHERE[name]), name)
    globals()[name] = found
    return found
