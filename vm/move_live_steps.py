"""The step verb move.live: libvirt's live migration, followed, steered and cancelled; and what became of it.

The call itself runs in a thread on a connection of its own, since it lasts as long as the migration does; the state is
read and wishes are granted in short blocks of calls beside it. With peer-to-peer the hosts need neither: a step that
runs again after a kill looks at both hosts, follows a migration that is still under way, and finds one that has ended.
Whatever happens, libvirt decides on which host the guest goes on; this step resumes a guest that libvirt left paused
only after the other host was asked.
"""

from __future__ import annotations

import threading
import time
from contextlib import suppress
from dataclasses import replace
from typing import Any

import libvirt

from host.errors import Busy, Cancelled, ConnectionLost, HvtuiError, WrongState
from host.steps import Args, Result, StepContext, StepVerb, register
from host.text import printable
from vm.create_steps import or_none, settle
from vm.move_figures import actual_figures
from vm.move_flags import flags_of, parameters_of
from vm.move_model import Stuck
from vm.move_progress import BANDWIDTH, DOWNTIME, POSTCOPY, QUICK, Moment, grant, moment_of, words_of
from vm.move_sides import NO_DOMAIN, Side, has_left, look, look_at, statistics_of, wait_until_quiet
from vm.move_steps import back, boot_id, refuse_after_hand_over, refuse_two

_POLL_S = 0.2
_WISHES_S = 0.5
_CANCELLED, _TOO_LONG = "by the user", "for taking too long"  # why a move was given up
_JOIN_S, _AGAIN_S = 60.0, 2.0  # how long the hosts may be out of each other's reach in post-copy
_STILL_S = 10.0
_HANGS_S = 20.0  # a QEMU that waits for a page of its guest does not answer libvirt, and libvirt's call does not end
_QUIET_S = 90.0  # libvirt notices a peer that is gone after 30 s
_FAREWELL = "End of file while reading data"  # libvirt leaving the target, which some tell instead of the reason
_CERTIFICATES = "See that both hosts' certificates for QEMU are of one authority, and name the host"
_NO_JOB = frozenset({libvirt.VIR_ERR_OPERATION_INVALID, libvirt.VIR_ERR_NO_DOMAIN})


def _live(ctx: StepContext, args: Args) -> Result:
    here, there = look(ctx, args)
    if here.is_cut:
        return _joined(ctx, args, Moment())
    if there.is_held and not here.is_migrating:
        here, there = _quiet(ctx, args)  # what a killed process began is just beginning, or ending
    refuse_two(args, here, there)
    if not here.is_migrating and there.has_guest:
        return _arrived(ctx, args, here, Moment())
    if has_left(here, there):
        return {"handed_over": True}  # and its guest has ended there
    if not here.is_active:
        raise WrongState("it is not running any more", about=args["name"], remedy="Move it offline (--kind offline)")
    if here.is_held and not here.is_migrating:
        _resume_source(ctx, args)
    before: list[str] = []
    call = None if here.is_migrating else _Call(ctx, args)
    if call is not None:  # libvirt takes its time to begin, and the guest to answer
        asking = threading.Thread(target=_ask, args=(ctx, args, before), name=f"ask-{args['name']}", daemon=True)
        asking.start()
    watch = _Watch(ctx, args, call, is_postcopy=here.is_postcopy)
    watch.until_over()
    here, there = _quiet(ctx, args)
    if here.is_cut:
        return _joined(ctx, args, watch.moment)
    _refuse_unfinished(args, here)
    refuse_two(args, here, there)
    if there.has_guest:
        return _arrived(ctx, args, here, watch.moment, before=next(iter(before), ""))
    if has_left(here, there):
        return {"handed_over": True, **_last(watch.moment)}
    return _stayed(ctx, args, here, watch, call)


def _ask(ctx: StepContext, args: Args, answers: list[str]) -> None:
    """Which boot of its guest is being moved; no answer where it has left already."""
    with suppress(HvtuiError):
        answers.append(boot_id(ctx.host, args))


def _quiet(ctx: StepContext, args: Args) -> tuple[Side, Side]:
    try:
        return wait_until_quiet(ctx, args, patience_s=_QUIET_S)
    except Busy:  # held without a job at the source: libvirt left it to us
        return look(ctx, args)
    except ConnectionLost as lost:
        where = look_at(ctx.host, args)
        state = "runs on" if where.has_guest else "is not known to run on"
        cause = f"{lost.cause}; it {state} {printable(args['source_name'])}"
        raise ConnectionLost(cause, about=args["name"], remedy=lost.remedy) from lost


def _refuse_unfinished(args: Args, here: Side) -> None:
    """What is left at the source goes when nothing of its memory is needed any more. Raises Busy."""
    if here.is_postcopy:
        remedy = "Wait until it has ended, then restart the job"
        raise Busy("the rest of its memory is still being sent", about=args["name"], remedy=remedy, keeps=True)


# Post-copy that was cut off


def _joined(ctx: StepContext, args: Args, last: Moment) -> Result:
    """Its memory is on both hosts, and neither can run it alone. QEMU sends the rest by itself where only libvirt's
    connection was lost; where its own was, it begins anew as soon as the hosts reach each other. Raises HvtuiError when
    nothing comes through for a while; then a restart of the job goes on here."""
    remaining, still_since_s, until_s = -1, time.monotonic(), time.monotonic() + _JOIN_S
    while True:
        ctx.progress(None, "post-copy was cut off: sending the rest of its memory")
        call = _Call(ctx, args, resumes=True)  # libvirt refuses while QEMU itself is sending
        watch = _Watch(ctx, args, call, is_postcopy=True)
        watch.until_over()
        last = watch.moment if watch.moment.elapsed_s else last
        here, there = _quiet(ctx, args)
        if not here.is_cut or (there.is_whole and not last.remaining_bytes):
            _refuse_unfinished(args, here)
            refuse_two(args, here, there)
            return _arrived(ctx, args, here, replace(last, is_postcopy=True))
        now_s = time.monotonic()
        if last.remaining_bytes != remaining:
            remaining, still_since_s, until_s = last.remaining_bytes, now_s, now_s + _JOIN_S
        elif now_s - still_since_s > _STILL_S:
            _hold_postcopy(ctx, args)
        if now_s > until_s:
            raise _cut_off(args) from call.problem
        time.sleep(_AGAIN_S)


def _hold_postcopy(ctx: StepContext, args: Args) -> None:
    """QEMU may not have noticed yet that nothing comes through: only what it has stopped can go on."""
    with ctx.calls("hold the move of", args["name"]) as connection:
        domain = or_none(connection.lookupByUUIDString, args["uuid"], missing=NO_DOMAIN)
        try:
            if domain is not None:
                domain.abortJobFlags(libvirt.VIR_DOMAIN_ABORT_JOB_POSTCOPY)
        except libvirt.libvirtError as error:
            if error.get_error_domain() == libvirt.VIR_FROM_RPC:
                raise


def _cut_off(args: Args) -> HvtuiError:
    source, target = printable(args["source_name"]), printable(args["target_name"])
    cause = f"post-copy was cut off: its memory is in part on {source}, in part on {target}"
    remedy = (
        "Mend the way between them, then restart the job: it sends the rest. When that goes on failing, its memory is"
        " lost: turn it off on both, and start it on one"
    )
    return HvtuiError(cause, about=args["name"], remedy=remedy, keeps=True)


# The end


def _arrived(ctx: StepContext, args: Args, here: Side, last: Moment, *, before: str = "") -> Result:
    """The guest is at the target. What is left of it at the source is paused for good, and goes."""
    target = ctx.peer(args["target"])
    if here.is_active:
        with ctx.calls("end what is left of", args["name"]) as connection:
            domain = or_none(connection.lookupByUUIDString, args["uuid"], missing=NO_DOMAIN)
            if domain is not None and domain.state(0)[0] == libvirt.VIR_DOMAIN_PAUSED:
                domain.destroy()
    figures = actual_figures(target, args, last) | ({"postcopy": True} if last.is_postcopy else {})
    after = boot_id(target, args)
    result: Result = {"handed_over": True, "boot_id": after, **figures}
    if before and after and before != after:
        result["warning"] = "its guest booted anew: its memory did not arrive whole"
    return result


def _stayed(ctx: StepContext, args: Args, here: Side, watch: _Watch, call: _Call | None) -> Result:
    """The guest did not change hosts: say why, or leave it to the quick way."""
    if here.is_held:
        _resume_source(ctx, args)
    source = printable(args["source_name"])
    if not here.is_active:
        cause = f"its guest was shut down while it was moved: it is off on {source}"
        raise WrongState(cause, about=args["name"], remedy="Move it offline (--kind offline), or start it")
    if watch.given_up == _CANCELLED:
        raise Cancelled(f"cancelled by the user: it runs on {source}", about=args["name"])
    if watch.given_up == QUICK:
        return {"handed_over": False, "given_up": "for Quick Migration", **_last(watch.moment)}
    if watch.given_up == _TOO_LONG:
        cause = f"the guest writes faster than its memory can be copied: given up after {args['patience_s']:g} s"
        raise HvtuiError(f"{cause}; it runs on {source}", about=args["name"],
                         remedy="Try --kind quick, --postcopy, or a higher --bandwidth and --downtime")  # fmt: skip
    problem = call.problem if call is not None else None
    if isinstance(problem, ConnectionLost) or problem is None:
        cause = problem.cause if problem is not None else "the migration ended before its time"
        remedy = "Try the way between the hosts: hvtui host test"
        remedy += f". {_CERTIFICATES}" if args["tls"] else ""
        raise HvtuiError(f"{cause}; it runs on {source}", about=args["name"], remedy=remedy) from problem
    cause, remedy = problem.cause, problem.remedy
    if _FAREWELL in cause:
        cause = "libvirt did not say why the migration failed"
        remedy = f"See what libvirtd's journal of that time says on {source}"
    if args["tls"] and not remedy:
        remedy = _CERTIFICATES
    raise type(problem)(f"{cause}; it runs on {source}", about=args["name"], remedy=remedy) from problem


def _last(moment: Moment) -> dict[str, Any]:
    return {"sent_bytes": moment.done_bytes, "dirty_bytes_s": moment.dirty_bytes_s}


def _resume_source(ctx: StepContext, args: Args) -> None:
    """Let the guest go on where it was, after the target said that it has none."""
    if look_at(ctx.peer(args["target"]), args).is_active:
        raise Busy("the target still shows it", about=args["name"], remedy="Restart the job a little later", keeps=True)
    with ctx.calls("resume", args["name"]) as connection:
        domain = connection.lookupByUUIDString(args["uuid"])
        if tuple(domain.state(0)) == (libvirt.VIR_DOMAIN_PAUSED, libvirt.VIR_DOMAIN_PAUSED_MIGRATION):
            domain.resume()


# libvirt's call


class _Call:
    """libvirt's migration, on a thread of its own; `problem` is why it failed, when it is over."""

    def __init__(self, ctx: StepContext, args: Args, *, resumes: bool = False) -> None:
        self.problem: HvtuiError | None = None
        self._ctx, self._args = ctx, args
        self._more = libvirt.VIR_MIGRATE_POSTCOPY_RESUME if resumes else 0
        self._thread = threading.Thread(target=self._run, name=f"move-{args['name']}", daemon=True)
        self._thread.start()

    def wait(self, timeout_s: float) -> bool:
        """Whether it has ended, after at most so long."""
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _run(self) -> None:
        try:
            self._migrate()
        except HvtuiError as error:
            self.problem = error

    def _migrate(self) -> None:
        args, source = self._args, self._ctx.host
        with source.long_calls("move", args["name"]) as connection:
            domain = connection.lookupByUUIDString(args["uuid"])
            flags, parameters = flags_of(args) | self._more, parameters_of(args, domain)
            if args["peer_to_peer"]:
                domain.migrateToURI3(args["peer"], parameters, flags | libvirt.VIR_MIGRATE_PEER2PEER)
                return
            with self._ctx.peer(args["target"]).long_calls("move", args["name"]) as other:
                domain.migrate3(other, parameters, flags | libvirt.VIR_MIGRATE_CHANGE_PROTECTION)


# Beside it


class _Watch:
    """Shows the progress of a migration, grants wishes, and gives it up when asked to. `given_up` says for what."""

    def __init__(self, ctx: StepContext, args: Args, call: _Call | None, *, is_postcopy: bool = False) -> None:
        self.moment = Moment()
        self.given_up = ""
        self._ctx, self._args, self._call = ctx, args, call
        self._granted: dict[str, str] = {}
        self._said = ""
        self._looked_at_s = float("-inf")
        self._sending_since_s: float | None = None
        self._is_postcopy = is_postcopy
        self._cut_since_s: float | None = None

    def until_over(self) -> None:
        """Returns when libvirt's call has ended, or the migration that somebody else began, or when post-copy was cut
        off and libvirt's call hangs."""
        while not self._is_over() and not self._hangs():
            statistics = self._read()
            if statistics:
                self.moment = replace(moment_of(statistics), is_postcopy=self._is_postcopy)
                self._steer()
            self._ctx.progress(self.moment.fraction, self._words())

    def _hangs(self) -> bool:
        if not self._is_postcopy or not look_at(self._ctx.host, self._args).is_cut:
            self._cut_since_s = None
            return False
        self._cut_since_s = self._cut_since_s or time.monotonic()
        return time.monotonic() - self._cut_since_s > _HANGS_S

    def _is_over(self) -> bool:
        """Looks again after a while, or as soon as libvirt's call has ended."""
        if self._call is not None:
            return self._call.wait(_POLL_S)
        time.sleep(_POLL_S)
        return self._has_ended()

    def _words(self) -> str:
        words = words_of(self.moment)
        return f"{words}; {self._said}" if self._said else words

    def _has_ended(self) -> bool:
        return not look_at(self._ctx.host, self._args).is_migrating

    def _read(self) -> dict[str, Any]:
        with self._ctx.calls("look at the move of", self._args["name"]) as connection:
            domain = or_none(connection.lookupByUUIDString, self._args["uuid"], missing=NO_DOMAIN)
            return dict(statistics_of(domain)) if domain is not None else {}

    def _steer(self) -> None:
        if self._ctx.is_cancelled() and not self._is_postcopy:
            self._give_up(_CANCELLED)
        now_s = time.monotonic()
        if now_s - self._looked_at_s >= _WISHES_S:
            self._looked_at_s = now_s
            self._grant_wishes()
        if self._sending_since_s is None and not self.moment.is_preparing:
            self._sending_since_s = now_s
        if self._sending_since_s is not None and now_s - self._sending_since_s > self._args["patience_s"]:
            self._stuck()

    def _grant_wishes(self) -> None:
        wishes = dict(self._ctx.wishes())
        if self._args["downtime_ms"] is not None:
            wishes.setdefault(DOWNTIME, f"{self._args['downtime_ms']}ms")
        for name, value in wishes.items():
            if self._granted.get(name) == value:
                continue
            self._granted[name] = value
            if name == QUICK:
                self._wish_quick()
            elif name == POSTCOPY:
                self._begin_postcopy()
            elif name in {BANDWIDTH, DOWNTIME}:
                self._said = self._on_domain(lambda domain, n=name, v=value: grant(domain, n, v))

    def _wish_quick(self) -> None:
        if self._args["quick_follows"]:
            self._give_up(QUICK)
        else:
            self._said = "Quick Migration cannot follow this move"

    def _begin_postcopy(self) -> None:
        if self._is_postcopy:
            return
        self._said = self._on_domain(lambda domain: grant(domain, POSTCOPY, ""))
        self._is_postcopy = self._said == "post-copy begun"

    def _stuck(self) -> None:
        match Stuck(self._args["stuck"]):
            case Stuck.QUICK:
                self._give_up(QUICK)
            case Stuck.POSTCOPY:
                self._begin_postcopy()
            case Stuck.CANCEL:
                self._give_up(_TOO_LONG)
            case Stuck.ASK:
                ways = (
                    "--quick, --postcopy or --downtime" if self._args["quick_follows"] else "--postcopy or --downtime"
                )
                self._said = f"it does not come to an end: hvtui job tune {self._ctx.job_id} {ways}"

    def _give_up(self, why: str) -> None:
        """Ask libvirt to end it; again until it has, since the first may come before there is anything to end."""
        if self._is_postcopy:
            return
        self.given_up = why
        self._said = "going back to the source" if why == _CANCELLED else "giving it up"
        self._on_domain(abort)

    def _on_domain(self, change: Any) -> Any:
        with self._ctx.calls("steer the move of", self._args["name"]) as connection:
            domain = or_none(connection.lookupByUUIDString, self._args["uuid"], missing=NO_DOMAIN)
            return change(domain) if domain is not None else ""


def abort(domain: Any) -> None:
    """End libvirt's job; there may be none any more."""
    try:
        domain.abortJob()
    except libvirt.libvirtError as error:
        if error.get_error_code() not in _NO_JOB:
            raise


# Rollback


def _stay(ctx: StepContext, args: Args, result: Result | None) -> None:
    """Back to the source, as long as the guest has not changed hosts."""
    settle(result)
    here, _there = look(ctx, args)
    if here.is_migrating:
        with ctx.calls("end the move of", args["name"]) as connection:
            domain = or_none(connection.lookupByUUIDString, args["uuid"], missing=NO_DOMAIN)
            if domain is not None:
                abort(domain)
    here, _there = _quiet(ctx, args)
    refuse_after_hand_over(ctx, args)
    if here.is_held:
        _resume_source(ctx, args)


def _hands_over(result: Result) -> bool:
    return result.get("handed_over") is True


register(StepVerb("move.live", _live, _stay, back, without_vm=True, hands_over=_hands_over))
