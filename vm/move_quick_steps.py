"""The step verbs of a quick move: save the guest to a file, carry that to the target, restore it there, remove it.

Each looks at both hosts before it acts. The guest changes hands when `move.restore` calls libvirt at the target: until
then a rollback restores it at the source from the file, afterwards nothing is rolled back. The source is never started
while it is not known that the target does not run the guest: then the job stays interrupted, and says so. The file is
removed only after the guest was seen running.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import libvirt

from host import volume_copy
from host.errors import Busy, Cancelled, ConnectionLost, HvtuiError, NotFound, WrongState
from host.steps import Args, Result, StepContext, StepVerb, register
from host.text import printable
from vm import host_files, move_memory
from vm.create_steps import or_none, settle
from vm.move_disk_steps import at_target, copy_images, remove_images, volume_of
from vm.move_sides import NO_DOMAIN, Side, behind_the_hand_over, look, look_at, statistics_of, wait_until_quiet
from vm.move_xml import fitted

_POLL_S = 0.2
_NOT_RUNNING = frozenset({libvirt.VIR_ERR_OPERATION_INVALID, libvirt.VIR_ERR_NO_DOMAIN})
_PATIENCE_S = 3600.0  # for libvirt to end what a killed process asked for
_NEVER_RAN_S = 20.0
_TARGET_BACK_S = 20.0
_ATTEMPTS = 2
# A guest that libvirtd was still loading when it died is left in these: it never ran there.
_LOADING = frozenset({libvirt.VIR_DOMAIN_PAUSED_STARTING_UP, libvirt.VIR_DOMAIN_PAUSED_MIGRATION})


class _Call:
    """One long libvirt call on a thread of its own, watched by the step."""

    def __init__(self, ctx: StepContext, args: Args, doing: str, call: Callable[[Any], object]) -> None:
        self.error: HvtuiError | None = None
        self.ended_at_s = 0.0
        self._over = threading.Event()
        self._work = (ctx, args, doing, call)
        threading.Thread(target=self._run, name="libvirt-call", daemon=True).start()

    def wait(self, timeout_s: float) -> bool:
        return self._over.wait(timeout_s)

    def _run(self) -> None:
        ctx, args, doing, call = self._work
        try:
            with ctx.calls(doing, args["name"]) as connection:
                call(connection)
                self.ended_at_s = move_memory.now_s()
        except HvtuiError as error:
            self.error = error
        finally:
            self._over.set()


# Save


def _save(ctx: StepContext, args: Args) -> Result:
    _here, there = wait_until_quiet(ctx, args, patience_s=_PATIENCE_S)
    if there.is_active:
        return {"changed": False}
    while _wait_for_a_save(ctx, args):
        if _is_saved(ctx, args):
            return {"changed": True}
        ctx.raise_if_cancelled()
        error = _save_once(ctx, args)
        if error is None:
            return {"changed": True}
        if look_at(ctx.host, args).is_active:
            raise error
        if not _is_saved(ctx, args):
            break
    if not _is_saved(ctx, args):
        if args.get("fallback"):  # the live move before it went well, and its guest went off since
            return {"changed": False}
        remedy = "Roll the job back, then start it or move it as it is: hvtui vm migrate --kind offline"
        raise WrongState("its guest went off in the meantime", about=args["name"], remedy=remedy)
    return {"changed": True}


def _wait_for_a_save(ctx: StepContext, args: Args) -> bool:
    """Wait for the end of a save that a killed process began. False when the VM is not active (any more)."""
    until_s = time.monotonic() + _PATIENCE_S
    while True:
        with ctx.calls("look at", args["name"]) as connection:
            domain = or_none(connection.lookupByUUIDString, args["uuid"], missing=NO_DOMAIN)
            if domain is None or not domain.isActive():
                return False
            if not move_memory.is_saving(domain):
                return True
            if ctx.is_cancelled():
                _abort(domain)
            _tell(ctx, domain, "saving its memory")
        if time.monotonic() > until_s:
            raise Busy("libvirt is still saving it", about=args["name"], remedy="Wait, then restart the job")
        time.sleep(_POLL_S)


def _save_once(ctx: StepContext, args: Args) -> HvtuiError | None:
    """Save it; returns what went wrong. Raises Cancelled when the user cancelled and it runs on."""
    move_memory.remove_file(ctx, args["path"], mark=args["mark"])  # what was begun and not finished
    move_memory.note_stop(args, is_running=look_at(ctx.host, args).is_running)
    call = _Call(ctx, args, "save", lambda connection: _look_up(connection, args).saveFlags(args["path"], None, 0))
    cancelled = False
    while not call.wait(_POLL_S):
        with ctx.calls("look at", args["name"]) as connection:
            domain = or_none(connection.lookupByUUIDString, args["uuid"], missing=NO_DOMAIN)
            if domain is not None:
                _tell(ctx, domain, "saving its memory")
                if ctx.is_cancelled() and not cancelled:
                    cancelled = _abort(domain)
    if cancelled or isinstance(call.error, Cancelled):
        raise Cancelled("cancelled by the user", about=args["name"])
    return call.error


def _abort(domain: Any) -> bool:
    try:
        domain.abortJob()
    except libvirt.libvirtError as error:
        if error.get_error_domain() == libvirt.VIR_FROM_RPC:
            raise
        return False  # it had just ended
    return True


def _tell(ctx: StepContext, domain: Any, what: str) -> None:
    told = statistics_of(domain)
    total, done = told.get("data_total", 0), told.get("data_processed", 0)
    ctx.progress(min(done / total, 1.0) if total else None, what if total else f"{what}: preparing")


def _look_up(connection: Any, args: Args) -> Any:
    return connection.lookupByUUIDString(args["uuid"])


def _is_saved(ctx: StepContext, args: Args) -> bool:
    """Whether the guest is in the file at the source, whole, and nowhere else."""
    with ctx.calls("look at the saved memory of", args["name"]) as connection:
        domain = or_none(connection.lookupByUUIDString, args["uuid"], missing=NO_DOMAIN)
        if domain is not None and domain.isActive():
            return False
        return bool(move_memory.whole_image(connection, args["path"]))


def _bring_back(ctx: StepContext, args: Args, result: Result | None) -> None:
    """Run the guest at the source again, from its file; then remove that."""
    settle(result)
    try:
        if look_at(ctx.peer(args["target"]), args).is_active:
            raise _is_at_target(args)
    except ConnectionLost:
        # The target was not asked to run it: `move.restore` did not begin, or its rollback has just found nothing.
        ctx.progress(None, f"{printable(args['target_name'])} does not answer, and was never asked to run it")
    _end_a_save(ctx, args)
    if _is_saved(ctx, args):
        if not look_at(ctx.host, args).is_persistent:
            raise NotFound(
                f"it is not defined at {printable(args['source_name'])} any more; its memory is in"
                f" {printable(args['path'])}", about=args["name"],
            )  # fmt: skip
        ctx.progress(None, f"restoring it at {printable(args['source_name'])}")
        with ctx.calls("restore", args["name"]) as connection:
            connection.restoreFlags(args["path"], None, 0)
        if not look_at(ctx.host, args).is_active:
            raise HvtuiError("it went off as soon as it was restored", about=args["name"],
                             remedy=f"Its memory is still in {printable(args['path'])}")  # fmt: skip
    move_memory.remove_file(ctx, args["path"], mark=args["mark"])
    move_memory.forget_stop(args)


def _end_a_save(ctx: StepContext, args: Args) -> None:
    """Abort a save that is under way, and wait until that is over; the guest runs on, or its file is whole."""
    until_s = time.monotonic() + _PATIENCE_S
    while time.monotonic() < until_s:
        with ctx.calls("look at", args["name"]) as connection:
            domain = or_none(connection.lookupByUUIDString, args["uuid"], missing=NO_DOMAIN)
            if domain is None or not domain.isActive() or not move_memory.is_saving(domain):
                return
            _abort(domain)
        time.sleep(_POLL_S)


# Carry


def _carry(ctx: StepContext, args: Args) -> Result:
    """Copy what the hosts have not in common: the file, and disks. A target that is lost meanwhile gives the guest back
    to the source, where it can run: it stands still."""
    for _ in range(_ATTEMPTS):
        try:
            return _carry_once(ctx, args)
        except ConnectionLost as lost:
            _wait_for_target(ctx, args, lost)
    return _carry_once(ctx, args)


def _wait_for_target(ctx: StepContext, args: Args, lost: ConnectionLost) -> None:
    """Raises HvtuiError when the target does not come back soon, ConnectionLost for the source."""
    with ctx.calls("look for", args["name"]) as connection:
        connection.getLibVersion()
    until_s = time.monotonic() + _TARGET_BACK_S
    while True:
        ctx.raise_if_cancelled()
        try:
            look_at(ctx.peer(args["target"]), args)
        except ConnectionLost:
            if time.monotonic() > until_s:
                cause = f"{printable(args['target_name'])} does not answer any more: {lost.cause}"
                raise HvtuiError(cause, about=args["name"], remedy="Move it again when that host is well") from lost
        else:
            return
        ctx.progress(None, f"{printable(args['target_name'])} does not answer")
        time.sleep(_POLL_S)


def _carry_once(ctx: StepContext, args: Args) -> Result:
    _here, there = look(ctx, args)
    is_saved = _is_saved(ctx, args)
    if there.is_active or (args.get("fallback") and not is_saved):
        return {}
    if not is_saved:  # a rollback that came to no end has let it go on at the source
        _save(ctx, args)
    if not args["is_common"]:
        _carry_memory(ctx, args)
    return copy_images(ctx, args)


def _carry_memory(ctx: StepContext, args: Args) -> None:
    directory, name = host_files.split(args["target_path"])
    there = at_target(ctx, args)
    with (
        host_files.directory_pool(there, directory, mark=args["mark"], build=True) as pool,
        volume_of(ctx, args["path"], mark=args["mark"]) as place,
    ):
        volume_copy.copy(
            ctx.host,
            place,
            there.host,
            (str(pool), name),
            progress=lambda fraction, note: ctx.progress(fraction, f"its memory: {note}"),
            is_cancelled=ctx.is_cancelled,
        )


def _drop_carried(ctx: StepContext, args: Args, result: Result | None) -> None:
    """First the guest runs again; what is at the target can wait."""
    _bring_back(ctx, args, result)
    if not args["is_common"]:
        move_memory.remove_file(at_target(ctx, args), args["target_path"], mark=args["mark"])
    remove_images(ctx, args)


# Restore: the VM changes hands


def _restore(ctx: StepContext, args: Args) -> Result:
    there = _wait_for_a_restore(ctx, args)
    if there.is_active and _goes_on(ctx, args):
        return _arrived(args)
    if move_memory.has_lived(args):
        return {"handed_over": True}  # and its guest has ended there: what it had in memory is out of date
    ctx.raise_if_cancelled()
    if args.get("fallback") and not _is_saved(ctx, args):
        return {"handed_over": False}
    _refuse_twice(ctx, args)
    xml = _fitted_image(ctx, args)
    ctx.progress(None, f"restoring it at {printable(args['target_name'])}")
    call = _Call(at_target(ctx, args), args, "restore", lambda connection: _restore_and_go_on(connection, args, xml))
    while not call.wait(_POLL_S):
        ctx.progress(None, f"restoring it at {printable(args['target_name'])}")
    stood_still_s = move_memory.stood_still_s(args)
    there = _look_at_target(ctx, args) if call.error is None else _wait_for_a_restore(ctx, args)
    if not there.is_active or not _goes_on(ctx, args):
        raise call.error or HvtuiError("it went off as soon as it was restored", about=args["name"])
    return _arrived(args, stood_still_s=stood_still_s)


def _restore_and_go_on(connection: Any, args: Args, xml: str | None) -> None:
    """In two parts: a guest that was only loaded has not run, and may be restored once more after any loss; of one that
    goes on the note is there first."""
    is_running = move_memory.was_running(args)
    connection.restoreFlags(args["target_path"], xml, libvirt.VIR_DOMAIN_SAVE_PAUSED if is_running else 0)
    move_memory.note_life(args)
    if is_running:
        _look_up(connection, args).resume()


def _goes_on(ctx: StepContext, args: Args) -> bool:
    """Let a guest go on that was restored and not resumed. False when there is none after all: a libvirtd that was
    killed shows for a moment after its start what it is about to end. It answers this question only afterwards."""
    with at_target(ctx, args).calls("resume", args["name"]) as connection:
        domain = or_none(connection.lookupByUUIDString, args["uuid"], missing=NO_DOMAIN)
        if domain is None or or_none(domain.memoryStats, missing=_NOT_RUNNING) is None:
            return False
        move_memory.note_life(args)
        if move_memory.was_running(args) and domain.state(0)[0] == libvirt.VIR_DOMAIN_PAUSED:
            domain.resume()
    return True


def _arrived(args: Args, *, stood_still_s: float | None = None) -> Result:
    seconds = move_memory.stood_still_s(args) if stood_still_s is None else stood_still_s
    if seconds is None:
        return {"handed_over": True}  # who saw it stop was another machine, or this one before its last start
    return {"handed_over": True, "downtime_s": round(seconds, 3)}


def _refuse_twice(ctx: StepContext, args: Args) -> None:
    """It must not run at the source, and its file must be the newest there is of it."""
    here = look_at(ctx.host, args)
    if here.is_active:
        raise WrongState(
            f"it runs at {printable(args['source_name'])} again: somebody started it there",
            about=args["name"],
            remedy="What it had in memory when it was saved is out of date: roll the job back, then move it anew",
        )


def _fitted_image(ctx: StepContext, args: Args) -> str | None:
    """The XML that the guest gets at the target; None for the one in the file."""
    with at_target(ctx, args).calls("look at the saved memory of", args["name"]) as connection:
        text = move_memory.whole_image(connection, args["target_path"])
    if not text:
        raise NotFound(
            f"its saved memory is not at {printable(args['target_name'])}, or not whole", about=args["name"],
            remedy=f"Restart the job when {printable(args['target_path'])} can be read there",
        )  # fmt: skip
    if not args["copies"] and not args["emptied"]:
        return None
    return fitted(text, args["copies"], emptied=args["emptied"])


def _wait_for_a_restore(ctx: StepContext, args: Args) -> Side:
    """Wait until libvirt at the target has ended what was asked for. A guest that was only loaded, by a libvirtd that
    died, is removed: it never ran."""
    until_s, loading_until_s = time.monotonic() + _PATIENCE_S, time.monotonic() + _NEVER_RAN_S
    while True:
        there = _look_at_target(ctx, args)
        if not there.is_active or not _is_loading(ctx, args):
            return there
        if not _has_job(ctx, args) and time.monotonic() > loading_until_s:
            if move_memory.has_lived(args):
                return there
            with at_target(ctx, args).calls("end what never ran of", args["name"]) as connection:
                _look_up(connection, args).destroy()
        if time.monotonic() > until_s:
            raise Busy(f"{printable(args['target_name'])} is still restoring it", about=args["name"],
                       remedy="Wait, then restart the job", keeps=True)  # fmt: skip
        ctx.progress(None, f"{printable(args['target_name'])} is restoring it")
        time.sleep(_POLL_S)


def _is_loading(ctx: StepContext, args: Args) -> bool:
    with at_target(ctx, args).calls("look at", args["name"]) as connection:
        domain = or_none(connection.lookupByUUIDString, args["uuid"], missing=NO_DOMAIN)
        if domain is None:
            return False
        state, reason = domain.state(0)
        if args.get("is_paused") and not statistics_of(domain):
            return False  # it is to be paused, and libvirt is done with it
        return bool(state == libvirt.VIR_DOMAIN_PAUSED and reason in _LOADING)


def _has_job(ctx: StepContext, args: Args) -> bool:
    with at_target(ctx, args).calls("look at", args["name"]) as connection:
        domain = or_none(connection.lookupByUUIDString, args["uuid"], missing=NO_DOMAIN)
        return domain is not None and bool(statistics_of(domain))


def _look_at_target(ctx: StepContext, args: Args) -> Side:
    try:
        return look_at(ctx.peer(args["target"]), args)
    except ConnectionLost as lost:
        target, source = printable(args["target_name"]), printable(args["source_name"])
        cause = f"whether it runs at {target} cannot be told ({lost.cause}), so it is not started at {source}"
        remedy = f"When {target} answers again, restart the job or roll it back. Its memory is in {args['path']}"
        raise ConnectionLost(cause, about=args["name"], remedy=remedy) from lost


def _is_at_target(args: Args) -> WrongState:
    return WrongState(
        f"it is at {printable(args['target_name'])} already, and must not run twice",
        about=args["name"],
        remedy="Restart the job: it completes the move",
    )


def _refuse_rollback(ctx: StepContext, args: Args, result: Result | None) -> None:
    settle(result)
    if _wait_for_a_restore(ctx, args).is_active or move_memory.has_lived(args):
        raise _is_at_target(args)


# The end


def _drop(ctx: StepContext, args: Args) -> Result:
    """Remove the file: the guest was seen running at the target."""
    with behind_the_hand_over():
        move_memory.remove_file(ctx, args["path"], mark=args["mark"])
        if not args["is_common"]:
            move_memory.remove_file(at_target(ctx, args), args["target_path"], mark=args["mark"])
    move_memory.forget_stop(args)
    return {}


for _verb in (
    StepVerb("move.save", _save, _bring_back, lambda _args, _result: None),
    StepVerb("move.carry", _carry, _drop_carried, lambda _args, _result: None),
    StepVerb(
        "move.restore",
        _restore,
        _refuse_rollback,
        lambda args, _result: f"move it back to {args['source_name']}",
        hands_over=lambda result: result.get("handed_over") is True,
    ),
    StepVerb("move.drop-save", _drop, None, lambda _args, _result: None, without_vm=True),
):
    register(_verb)
