"""Plans that change a VM's state: start, stop, restart, reset, off, pause, resume, save, discard, autostart.

A plan is made from the Vm as last read, without any libvirt call, so a plan for each of a hundred VMs costs nothing;
the steps (vm.lifecycle_steps) look again. What a state does not allow is a blocker with its remedy. This module
changes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from host.connection import Host
from host.plan import Blocker, Danger, Json, Plan, Step
from vm import lifecycle_steps  # noqa: F401 - registers the verbs that these plans are made of
from vm.commands import host_blockers, identity, virsh, words
from vm.model import Vm, VmState

SHUTDOWN_TIMEOUT_S = 120.0

_RUNNING, _PAUSED, _STOPPING = VmState.RUNNING, VmState.PAUSED, VmState.SHUTTING_DOWN
_OFF, _SAVED, _CRASHED, _SUSPENDED = VmState.OFF, VmState.SAVED, VmState.CRASHED, VmState.SUSPENDED

# In which states an action makes sense. An unknown state allows everything: the step looks again, and libvirt decides.
ALLOWED: Mapping[str, frozenset[VmState]] = {
    "vm.start": frozenset({_OFF, _SAVED}),
    "vm.stop": frozenset({_RUNNING, _STOPPING}),
    "vm.restart": frozenset({_RUNNING}),
    "vm.reset": frozenset({_RUNNING, _PAUSED, _STOPPING, _CRASHED}),
    "vm.off": frozenset({_RUNNING, _PAUSED, _STOPPING, _SUSPENDED, _CRASHED}),
    "vm.pause": frozenset({_RUNNING}),
    "vm.resume": frozenset({_PAUSED, _SUSPENDED}),
    "vm.save": frozenset({_RUNNING, _PAUSED}),
    "vm.discard-saved": frozenset({_SAVED}),
}

# In which states an action has nothing left to do.
REACHED: Mapping[str, frozenset[VmState]] = {
    "vm.start": frozenset({_RUNNING}),
    "vm.stop": frozenset({_OFF, _SAVED}),
    "vm.off": frozenset({_OFF, _SAVED}),
    "vm.pause": frozenset({_PAUSED}),
    "vm.resume": frozenset({_RUNNING}),
    "vm.save": frozenset({_SAVED}),
    "vm.discard-saved": frozenset(VmState) - {_SAVED, VmState.UNKNOWN},
}

_START = ("Start it first", "vm.start")
_RESUME = ("Resume it first", "vm.resume")
_WAKE = ("Wake it up first (resume)", "vm.resume")
_TURN_OFF = ("Wait for it, or turn it off", "vm.off")
_CLEAR = ("Turn it off first", "vm.off")

# What removes the blocker; nothing is said where the VM is already what was asked for.
_REMEDIES: Mapping[tuple[str, VmState], tuple[str, str]] = {
    ("vm.start", _PAUSED): ("Resume it instead", "vm.resume"),
    ("vm.start", _SUSPENDED): ("Wake it up instead (resume)", "vm.resume"),
    ("vm.start", _STOPPING): _TURN_OFF,
    ("vm.start", _CRASHED): _CLEAR,
    ("vm.stop", _PAUSED): _RESUME,
    ("vm.stop", _SUSPENDED): _WAKE,
    ("vm.stop", _SAVED): ("Discard the saved state to have it off", "vm.discard-saved"),
    ("vm.stop", _CRASHED): ("Turn it off instead", "vm.off"),
    ("vm.restart", _PAUSED): _RESUME,
    ("vm.restart", _SUSPENDED): _WAKE,
    ("vm.restart", _STOPPING): _TURN_OFF,
    ("vm.restart", _CRASHED): ("Reset it instead", "vm.reset"),
    ("vm.restart", _OFF): ("Start it instead", "vm.start"),
    ("vm.restart", _SAVED): ("Start it instead", "vm.start"),
    ("vm.reset", _SUSPENDED): _WAKE,
    ("vm.reset", _OFF): ("Start it instead", "vm.start"),
    ("vm.reset", _SAVED): ("Start it instead", "vm.start"),
    ("vm.off", _SAVED): ("Discard the saved state to have it off", "vm.discard-saved"),
    ("vm.pause", _STOPPING): _TURN_OFF,
    ("vm.pause", _OFF): _START,
    ("vm.pause", _SAVED): _START,
    ("vm.pause", _CRASHED): ("Reset it first", "vm.reset"),
    ("vm.resume", _STOPPING): _TURN_OFF,
    ("vm.resume", _OFF): ("Start it instead", "vm.start"),
    ("vm.resume", _SAVED): ("Start it instead", "vm.start"),
    ("vm.resume", _CRASHED): ("Reset it instead", "vm.reset"),
    ("vm.save", _SUSPENDED): _WAKE,
    ("vm.save", _STOPPING): _TURN_OFF,
    ("vm.save", _OFF): _START,
    ("vm.save", _CRASHED): _CLEAR,
}

# Reasons of a pause that may belong to an operation still going on. Only a warning: libvirt leaves "migrating" on a VM
# that was saved paused and restored, and the others on one whose operation its daemon did not survive.
_BUSY_REASONS = frozenset({"migrating", "saving", "dumping", "making a snapshot", "starting up", "shutting down"})

_UNPLUG = "Like pulling the plug: what the guest has not written to its disks is lost"


def effective_state(vm: Vm) -> VmState:
    """The state that decides what is allowed: a crashed VM without a QEMU process is off."""
    if vm.state is _CRASHED and vm.domain_id is None:
        return _SAVED if vm.has_saved_state else _OFF
    return vm.state


def is_reached(vm: Vm, action_id: str) -> bool:
    """True when the VM already is what the action would make of it."""
    return effective_state(vm) in REACHED.get(action_id, frozenset())


def state_blockers(vm: Vm, action_id: str) -> tuple[Blocker, ...]:
    """Why the VM's state does not allow the action (a key of ALLOWED)."""
    state = effective_state(vm)
    if state is VmState.UNKNOWN or state in ALLOWED[action_id]:
        return ()
    remedy, removed_by = _REMEDIES.get((action_id, state), ("", None))
    return (Blocker.wrong_state(f"it is {_in_words(vm, state)}", remedy=remedy, action_id=removed_by),)


def _in_words(vm: Vm, state: VmState) -> str:
    return f"{state} ({vm.state_reason})" if vm.state_reason and state is vm.state else str(state)


def _persistent_blockers(vm: Vm, what: str) -> tuple[Blocker, ...]:
    if vm.persistent:
        return ()
    reason = f"it is transient: libvirt keeps no {what} for it"
    return (Blocker.wrong_state(reason, remedy="Define it first (virsh dumpxml and virsh define)"),)


def _vanishing(vm: Vm) -> tuple[str, ...]:
    """What is lost with a transient VM that ends."""
    return () if vm.persistent else (f"the VM {vm.name} itself: it is transient and vanishes with its configuration",)


def _plan(
    host: Host,
    vm: Vm,
    verb: str,
    *,
    title: str,
    commands: tuple[str, ...],
    options: tuple[str, ...] = (),
    args: Mapping[str, Json] | None = None,
    danger: Danger = Danger.NONE,
    warnings: tuple[str, ...] = (),
    blockers: tuple[Blocker, ...] = (),
    losses: tuple[str, ...] = (),
    long: bool = False,
) -> Plan:
    """A plan of one step, `vm.VERB`, with the blockers that every action on a VM has."""
    action_id = f"vm.{verb}"
    by_state = state_blockers(vm, action_id) if action_id in ALLOWED else ()
    return Plan(
        title=title,
        host_uri=host.uri,
        steps=(Step(action_id, title, {**identity(vm), **(args or {})}, commands),),
        command=words(verb, vm.name, *options),
        vm_uuid=vm.uuid,
        vm_name=vm.name,
        danger=Danger.DESTRUCTIVE if losses else danger,
        warnings=warnings,
        blockers=(*host_blockers(host), *by_state, *blockers),
        losses=losses,
        long=long,
    )


def plan_start(host: Host, vm: Vm, *, paused: bool = False, discard_saved: bool = False) -> Plan:
    """Start the VM, or restore its saved state; `discard_saved` boots it without."""
    restores = effective_state(vm) is _SAVED and not discard_saved
    losses = _saved_state_lost(vm) if discard_saved else ()
    options = (*(("--paused",) if paused else ()), *(("--discard-saved",) if discard_saved else ()))
    virsh_options = (*(("--paused",) if paused else ()), *(("--force-boot",) if discard_saved else ()))
    return _plan(
        host,
        vm,
        "start",
        title=f"{'Restore' if restores else 'Start'} {vm.name}{', paused' if paused else ''}",
        commands=(virsh(host.uri, "start", vm.name, *virsh_options),),
        options=options,
        args={"paused": paused, "discard_saved": discard_saved},
        losses=losses,
    )


def _saved_state_lost(vm: Vm) -> tuple[str, ...]:
    if effective_state(vm) is not _SAVED:
        return ()
    return (f"the saved state of {vm.name}: what its programs had in memory",)


def plan_stop(
    host: Host, vm: Vm, *, timeout_s: float = SHUTDOWN_TIMEOUT_S, force: bool = False, wait: bool = True
) -> Plan:
    """Ask the guest to shut down (its agent, then ACPI) and wait; `force` turns it off when it does not react within
    `timeout_s` seconds; without `wait` it is only asked."""
    asking = _Asking(f"Shut down {vm.name}", "shutdown", "destroy", "turned off")
    return _plan_asking(host, vm, "stop", asking, timeout_s=timeout_s, force=force, wait=wait, losses=_vanishing(vm))


def _ask_options(timeout_s: float, *, force: bool, wait: bool) -> tuple[str, ...]:
    timeout = () if timeout_s == SHUTDOWN_TIMEOUT_S or not wait else ("--timeout", f"{timeout_s:g}")
    return (*timeout, *(("--force",) if force else ()), *(() if wait else ("--no-wait",)))


def plan_restart(
    host: Host, vm: Vm, *, timeout_s: float = SHUTDOWN_TIMEOUT_S, force: bool = False, wait: bool = True
) -> Plan:
    """Ask the guest to restart, as `plan_stop` asks it to shut down; `force` resets it when it does not react."""
    asking = _Asking(f"Restart {vm.name}", "reboot", "reset", "reset")
    return _plan_asking(host, vm, "restart", asking, timeout_s=timeout_s, force=force, wait=wait)


class _Asking(NamedTuple):
    """How a guest is asked, and what is done to one that does not react: virsh's verbs, and in words."""

    title: str
    ask: str
    force: str
    forced: str


def _plan_asking(
    host: Host,
    vm: Vm,
    verb: str,
    asking: _Asking,
    *,
    timeout_s: float,
    force: bool,
    wait: bool,
    losses: tuple[str, ...] = (),
) -> Plan:
    force = force and wait
    commands = (virsh(host.uri, asking.ask, vm.name, "--mode", "agent,acpi"),)
    warning = f"If it does not react within {timeout_s:.0f} s it is {asking.forced}. {_UNPLUG}"
    return _plan(
        host,
        vm,
        verb,
        title=asking.title,
        commands=(*commands, virsh(host.uri, asking.force, vm.name)) if force else commands,
        options=_ask_options(timeout_s, force=force, wait=wait),
        args={"timeout_s": timeout_s, "force": force, "wait": wait},
        danger=Danger.DISRUPTIVE,
        warnings=(warning,) if force else (),
        losses=losses,
    )


def plan_reset(host: Host, vm: Vm) -> Plan:
    """Press the VM's reset button: it restarts at once, and its guest is not asked."""
    return _plan(
        host,
        vm,
        "reset",
        title=f"Reset {vm.name}",
        commands=(virsh(host.uri, "reset", vm.name),),
        danger=Danger.DISRUPTIVE,
        warnings=(_UNPLUG,),
    )


def plan_off(host: Host, vm: Vm) -> Plan:
    """Turn the VM off at once; its guest is not asked."""
    return _plan(
        host,
        vm,
        "off",
        title=f"Turn off {vm.name}",
        commands=(virsh(host.uri, "destroy", vm.name),),
        danger=Danger.DISRUPTIVE,
        warnings=(_UNPLUG,),
        losses=_vanishing(vm),
    )


def plan_pause(host: Host, vm: Vm) -> Plan:
    """Stop the VM's CPUs; its memory stays in use."""
    return _plan(
        host,
        vm,
        "pause",
        title=f"Pause {vm.name}",
        commands=(virsh(host.uri, "suspend", vm.name),),
        danger=Danger.DISRUPTIVE,
    )


def plan_resume(host: Host, vm: Vm) -> Plan:
    """Let a paused VM run on, or wake up one that sleeps; then set its clock."""
    verb = "dompmwakeup" if vm.state is _SUSPENDED else "resume"
    return _plan(
        host,
        vm,
        "resume",
        title=f"Resume {vm.name}",
        commands=(virsh(host.uri, verb, vm.name),),
        warnings=_pause_warnings(vm),
    )


def _pause_warnings(vm: Vm) -> tuple[str, ...]:
    if vm.state is not _PAUSED:
        return ()
    if vm.state_reason == "disk error":
        return ("It paused because of a disk error: make room on its storage first, or it pauses again",)
    if vm.state_reason in _BUSY_REASONS:
        return (f"libvirt may need this pause itself ({vm.state_reason}): look whether that is still going on",)
    return ()


def plan_save(host: Host, vm: Vm) -> Plan:
    """Write the VM's memory to disk and stop it; the next start goes on from there."""
    passed_through = vm.config is not None and vm.config.host_devices > 0
    warning = "It uses devices of the host: libvirt refuses to save most of these"
    return _plan(
        host,
        vm,
        "save",
        title=f"Save {vm.name}",
        commands=(virsh(host.uri, "managedsave", vm.name),),
        danger=Danger.DISRUPTIVE,
        warnings=(warning,) if passed_through else (),
        blockers=_persistent_blockers(vm, "saved state"),
        long=True,
    )


def plan_discard_saved(host: Host, vm: Vm) -> Plan:
    """Remove the VM's saved state: the next start boots it."""
    return _plan(
        host,
        vm,
        "discard-saved",
        title=f"Discard the saved state of {vm.name}",
        commands=(virsh(host.uri, "managedsave-remove", vm.name),),
        losses=_saved_state_lost(vm),
    )


def plan_autostart(host: Host, vm: Vm, enabled: bool) -> Plan:
    """Start the VM together with its host, or not."""
    return _plan(
        host,
        vm,
        "autostart",
        title=f"{'Start' if enabled else 'Do not start'} {vm.name} together with its host",
        commands=(virsh(host.uri, "autostart", vm.name, *(() if enabled else ("--disable",))),),
        options=("on" if enabled else "off",),
        args={"enabled": enabled, "before": vm.autostart},
        blockers=_persistent_blockers(vm, "autostart"),
    )
