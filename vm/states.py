"""libvirt's state and reason numbers as VmState and words. It calls nothing.

The numbers are virDomainState and virDomain*Reason of libvirt's include/libvirt/libvirt-domain.h; a number that a newer
libvirt adds reads as "reason N", so that nothing is hidden.
"""

from __future__ import annotations

import libvirt

from vm.model import VmState

_STATES: dict[int, VmState] = {
    libvirt.VIR_DOMAIN_NOSTATE: VmState.UNKNOWN,
    libvirt.VIR_DOMAIN_RUNNING: VmState.RUNNING,
    libvirt.VIR_DOMAIN_BLOCKED: VmState.RUNNING,
    libvirt.VIR_DOMAIN_PAUSED: VmState.PAUSED,
    libvirt.VIR_DOMAIN_SHUTDOWN: VmState.SHUTTING_DOWN,
    libvirt.VIR_DOMAIN_SHUTOFF: VmState.OFF,
    libvirt.VIR_DOMAIN_CRASHED: VmState.CRASHED,
    libvirt.VIR_DOMAIN_PMSUSPENDED: VmState.SUSPENDED,
}

_REASONS: dict[VmState, tuple[str, ...]] = {
    VmState.RUNNING: (
        "", "booted", "migrated", "restored", "from snapshot", "unpaused", "migration cancelled", "save cancelled",
        "woken up", "was crashed", "post-copy", "post-copy failed",
    ),
    VmState.PAUSED: (
        "", "by user", "migrating", "saving", "dumping", "disk error", "watchdog", "from snapshot", "shutting down",
        "making a snapshot", "crashed", "starting up", "post-copy", "post-copy failed", "API error",
    ),
    VmState.SHUTTING_DOWN: ("", "by user"),
    VmState.OFF: (
        "", "shut down", "forced off", "crashed", "migrated away", "saved", "failed to start", "from snapshot",
        "daemon lost it",
    ),
    VmState.CRASHED: ("", "panicked"),
    VmState.SUSPENDED: ("",),
    VmState.UNKNOWN: ("",),
}  # fmt: skip


def state_of(number: int, *, has_saved_state: bool = False) -> VmState:
    """The state for libvirt's number; SAVED for an off VM with a managed save image."""
    state = _STATES.get(number, VmState.UNKNOWN)
    return VmState.SAVED if state is VmState.OFF and has_saved_state else state


def reason_of(state_number: int, reason_number: int) -> str:
    """libvirt's reason in words; empty where libvirt knows none."""
    words = _REASONS[_STATES.get(state_number, VmState.UNKNOWN)]
    return words[reason_number] if 0 <= reason_number < len(words) else f"reason {reason_number}"
