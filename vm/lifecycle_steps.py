"""The step verbs that change a VM's state: start, stop, restart, reset, off, pause, resume, save, discard, autostart.

Each looks at the VM's state first, so that running it again after a crash is harmless. A VM is found by its uuid. This
module decides nothing about what is allowed when: vm.lifecycle does, before anything runs.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, TypeAlias

import libvirt

from host.errors import HvtuiError, NotFound, WrongState
from host.plan import Json, Step
from host.steps import Args, Result, StepContext, StepVerb, register
from vm.asking import AskResult, Request, ask
from vm.background import BackgroundCall
from vm.commands import hint
from vm.model import VmState
from vm.states import state_of

POLL_S = 0.5
CLOCK_TIMEOUT_S = 3.0  # best effort: a guest without an agent must not delay the job


def look_up(connection: Any, args: Args) -> Any:
    """The virDomain of a step's arguments."""
    return connection.lookupByUUIDString(args["uuid"])


def state_now(domain: Any) -> VmState:
    """The state of a VM now, from libvirt; OFF for a crashed one without a QEMU process."""
    number = domain.state()[0]
    if not domain.isActive():
        return state_of(libvirt.VIR_DOMAIN_SHUTOFF, has_saved_state=_has_saved_state(domain))
    return state_of(number)


def _has_saved_state(domain: Any) -> bool:
    return bool(domain.isPersistent() and domain.hasManagedSaveImage(0))


def inverse_step(verb: str, title: str, args: Args, **more: Json) -> Step:
    """A step for the same VM as `args`."""
    identity: dict[str, Json] = {key: args[key] for key in ("uuid", "name", "persistent") if key in args}
    return Step(verb, title, {**identity, **more})


def _wrong_state(args: Args, state: VmState, doing: str) -> WrongState:
    return WrongState(f"cannot {doing}: it is {state} now", about=args["name"])


# Start


def _start(ctx: StepContext, args: Args) -> Result:
    discard = bool(args.get("discard_saved"))
    with ctx.calls("start", args["name"]) as connection:
        domain = look_up(connection, args)
        state = state_now(domain)
        if state.is_active:
            return {"changed": False, "restored": False}
        if state is VmState.CRASHED:
            raise _wrong_state(args, state, "start")
        restoring = state is VmState.SAVED and not discard
        if state is VmState.SAVED and discard:
            domain.managedSaveRemove(0)
    ctx.progress(None, "restoring the saved state" if restoring else "starting")
    _create(ctx, args, restoring=restoring)
    if restoring and not args.get("paused"):
        _sync_clock(ctx, args)
    return {"changed": True, "restored": restoring}


def _create(ctx: StepContext, args: Args, *, restoring: bool) -> None:
    flags = libvirt.VIR_DOMAIN_START_PAUSED if args.get("paused") else 0
    try:
        with ctx.calls("start", args["name"]) as connection:
            look_up(connection, args).createWithFlags(flags)
    except HvtuiError as error:
        if restoring and type(error) is HvtuiError:
            error.remedy = f"Boot it without the saved state: {hint('start', args['name'], '--discard-saved')}"
        raise


def _undo_start(ctx: StepContext, args: Args, result: Result | None) -> None:
    if not result or not result["changed"]:
        return
    with ctx.calls("undo the start of", args["name"]) as connection:
        domain = look_up(connection, args)
        if not domain.isActive():
            return
        if result["restored"]:
            domain.managedSave(0)
        else:
            domain.destroy()


def _sync_clock(ctx: StepContext, args: Args) -> None:
    """Set the guest's clock after its time stood still. Best effort: many guests have no agent."""
    call = BackgroundCall(
        ctx, args, doing="set the clock of", call=lambda domain: domain.setTime(None, libvirt.VIR_DOMAIN_TIME_SYNC)
    )
    ctx.progress(None, "setting the guest's clock")
    call.wait(CLOCK_TIMEOUT_S)


# Stop, restart, reset, off

_SHUTDOWN = Request(
    doing="shut down",
    agent=lambda domain: domain.shutdownFlags(libvirt.VIR_DOMAIN_SHUTDOWN_GUEST_AGENT),
    acpi=lambda domain: domain.shutdownFlags(libvirt.VIR_DOMAIN_SHUTDOWN_ACPI_POWER_BTN),
    plain=lambda domain: domain.shutdown(),
)
_REBOOT = Request(
    doing="restart",
    agent=lambda domain: domain.reboot(libvirt.VIR_DOMAIN_REBOOT_GUEST_AGENT),
    acpi=lambda domain: domain.reboot(libvirt.VIR_DOMAIN_REBOOT_ACPI_POWER_BTN),
    plain=lambda domain: domain.reboot(0),
    restarts=True,
)


def _stop(ctx: StepContext, args: Args) -> Result:
    if not _is_active(ctx, args):
        return {"changed": False, "forced": False}
    try:
        outcome = ask(ctx, args, _SHUTDOWN)
    except HvtuiError:
        if _is_active(ctx, args):
            raise
        outcome = AskResult.REACTED  # it went off by itself in between
    if outcome is AskResult.SILENT:
        if not args.get("force"):
            raise _SHUTDOWN.no_reaction(args)
        ctx.progress(None, "no reaction: turning it off")
        _destroy(ctx, args)
    return {"changed": True, "forced": outcome is AskResult.SILENT}


def _is_active(ctx: StepContext, args: Args) -> bool:
    """False too for a transient VM that is gone."""
    try:
        with ctx.calls("read the state of", args["name"]) as connection:
            return bool(look_up(connection, args).isActive())
    except NotFound:
        if args.get("persistent", True):
            raise
        return False


def _restart(ctx: StepContext, args: Args) -> Result:
    if not _is_active(ctx, args):
        raise _wrong_state(args, VmState.OFF, "restart")
    if ask(ctx, args, _REBOOT) is AskResult.SILENT:
        if not args.get("force"):
            raise _REBOOT.no_reaction(args)
        ctx.progress(None, "no reaction: resetting it")
        _reset(ctx, args)
        return {"forced": True}
    return {"forced": False}


def _reset(ctx: StepContext, args: Args) -> Result:
    with ctx.calls("reset", args["name"]) as connection:
        look_up(connection, args).reset(0)
    return {}


def _off(ctx: StepContext, args: Args) -> Result:
    if not _is_active(ctx, args):
        return {"changed": False}
    _destroy(ctx, args)
    return {"changed": True}


def _destroy(ctx: StepContext, args: Args) -> None:
    try:
        with ctx.calls("turn off", args["name"]) as connection:
            look_up(connection, args).destroy()
    except HvtuiError:
        if _is_active(ctx, args):
            raise  # else it went off by itself in between


# Pause and resume


def _pause(ctx: StepContext, args: Args) -> Result:
    with ctx.calls("pause", args["name"]) as connection:
        domain = look_up(connection, args)
        state = state_now(domain)
        if state is VmState.PAUSED:
            return {"changed": False}
        if not state.is_active:
            raise _wrong_state(args, state, "pause")
        domain.suspend()
    return {"changed": True}


def _resume(ctx: StepContext, args: Args) -> Result:
    with ctx.calls("resume", args["name"]) as connection:
        domain = look_up(connection, args)
        state = state_now(domain)
        if state is VmState.RUNNING:
            return {"changed": False}
        if state is VmState.SUSPENDED:
            domain.pMWakeup(0)
        elif state is VmState.PAUSED:
            domain.resume()
        else:
            raise _wrong_state(args, state, "resume")
    _sync_clock(ctx, args)
    return {"changed": True}


def _taking_back(doing: str, while_it_is: VmState, call: Callable[[Any], object]) -> Rollback:
    """The rollback of a step that changed the state to `while_it_is`: another state is somebody else's, and stays."""

    def undo(ctx: StepContext, args: Args, result: Result | None) -> None:
        if result and result["changed"]:
            with ctx.calls(doing, args["name"]) as connection:
                domain = look_up(connection, args)
                if state_now(domain) is while_it_is:
                    call(domain)

    return undo


# Save


def _save(ctx: StepContext, args: Args) -> Result:
    with ctx.calls("save", args["name"]) as connection:
        domain = look_up(connection, args)
        state = state_now(domain)
        if state is VmState.SAVED:
            return {"changed": False}
        if not state.is_active:
            raise _wrong_state(args, state, "save")
        call = BackgroundCall(ctx, args, doing="save", call=lambda domain: domain.managedSave(0))
        _follow_save(ctx, domain, call)
        call.raise_error()
    return {"changed": True}


def _follow_save(ctx: StepContext, domain: Any, call: BackgroundCall) -> None:
    """Show progress until the call has ended; a cancel makes libvirt abort it and the guest run on."""
    started_s, aborted = time.monotonic(), False
    while not call.wait(POLL_S):
        if ctx.is_cancelled() and not aborted:
            aborted = _try(domain.abortJob) is not None
        statistics = _try(domain.jobStats) or {}
        total = statistics.get("memory_total", 0)
        written = total - statistics.get("memory_remaining", 0)
        seconds = f"{time.monotonic() - started_s:.0f} s"
        if total:
            ctx.progress(written / total, f"{written / 2**20:.0f} of {total / 2**20:.0f} MiB, {seconds}")
        else:
            ctx.progress(None, f"preparing, {seconds}")


def _try(call: Any) -> Any | None:
    """The call's value, or None when libvirt refuses: there is no job yet or any more, or the driver has none."""
    try:
        return call()
    except libvirt.libvirtError:
        return None


def _discard_saved(ctx: StepContext, args: Args) -> Result:
    with ctx.calls("discard the saved state of", args["name"]) as connection:
        domain = look_up(connection, args)
        existed = _has_saved_state(domain)
        if existed:
            domain.managedSaveRemove(0)
    return {"changed": existed}


# Autostart


def _autostart(ctx: StepContext, args: Args) -> Result:
    with ctx.calls("set the autostart of", args["name"]) as connection:
        domain = look_up(connection, args)
        if bool(domain.autostart()) != args["enabled"]:
            domain.setAutostart(int(args["enabled"]))
    return {"before": args["before"]}


def _undo_autostart(ctx: StepContext, args: Args, result: Result | None) -> None:
    del result  # the plan knows the old value, so an interrupted step can be undone as well
    with ctx.calls("set the autostart of", args["name"]) as connection:
        look_up(connection, args).setAutostart(int(args["before"]))


def _inverse_autostart(args: Args, result: Result) -> Step | None:
    del result
    if args["before"] == args["enabled"]:
        return None
    title = f"Set the autostart of {args['name']} back to {'on' if args['before'] else 'off'}"
    return inverse_step("vm.autostart", title, args, enabled=args["before"], before=args["enabled"])


Rollback: TypeAlias = Callable[[StepContext, Args, Result | None], None]
Inverse: TypeAlias = Callable[[Args, Result], Step | str | None]


def _back(verb: str, word: str) -> Inverse:
    """The inverse of a step that changed the state: `verb`."""
    return lambda args, result: inverse_step(verb, f"{word} {args['name']}", args) if result["changed"] else None


def _none(reason: str) -> Inverse:
    """No inverse, for that reason; nothing at all when the step found everything done."""
    return lambda _args, result: reason if result.get("changed", True) else None


for _verb in (
    StepVerb("vm.start", _start, _undo_start, _none("A start is not taken back: shut the VM down or save it")),
    StepVerb("vm.stop", _stop, None, _none("A shutdown cannot be taken back: start the VM again")),
    StepVerb("vm.restart", _restart, None, _none("A restart cannot be taken back")),
    StepVerb("vm.reset", _reset, None, _none("A reset cannot be taken back")),
    StepVerb("vm.off", _off, None, _none("Turning off cannot be taken back: start the VM again")),
    StepVerb(
        "vm.pause",
        _pause,
        _taking_back("resume", VmState.PAUSED, lambda domain: domain.resume()),
        _back("vm.resume", "Resume"),
    ),
    StepVerb(
        "vm.resume",
        _resume,
        _taking_back("pause", VmState.RUNNING, lambda domain: domain.suspend()),
        _back("vm.pause", "Pause"),
    ),
    StepVerb(
        "vm.save",
        _save,
        _taking_back("start", VmState.SAVED, lambda domain: domain.create()),
        _back("vm.start", "Start"),
    ),
    StepVerb("vm.discard-saved", _discard_saved, None, _none("A discarded saved state cannot be brought back")),
    StepVerb("vm.autostart", _autostart, _undo_autostart, _inverse_autostart),
):
    register(_verb)
