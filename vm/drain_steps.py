"""The step verbs that keep host.maintenance's notes: a host is drained, takes VMs again, a VM has left, is back.

They change no VM; the steps before them have. Each can be run again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from host import maintenance
from host.maintenance import Guest
from host.plan import Json, Step
from host.steps import Args, Result, StepContext, StepVerb, register

if TYPE_CHECKING:
    from host.connection import Host

MOVED, SAVED, SHUT_DOWN = "moved", "saved", "shut down"


def mark_step(host: Host, name: str) -> Step:
    """The host is drained from now on: no VM is placed there. Raises ConnectionLost, Denied."""
    return _mark_step({"uri": host.uri, "identity": host.identity, "host": name})


def unmark_step(host: Host, name: str) -> Step:
    """The host takes VMs again. Raises ConnectionLost, Denied."""
    return _unmark_step({"uri": host.uri, "identity": host.identity, "host": name})


def record_step(home: Host, guest: Guest) -> Step:
    """Note what became of a VM of the host `home`. Raises ConnectionLost, Denied."""
    return _record_step(_args(home, guest))


def home_step(home: Host, guest: Guest) -> Step:
    """Note that a VM is back on the host `home`. Raises ConnectionLost, Denied."""
    return _home_step(_args(home, guest))


def _mark_step(args: Args) -> Step:
    return Step("drain.mark", f"Note that {args['host']} is drained: no VM is placed there", dict(args))


def _unmark_step(args: Args) -> Step:
    return Step("drain.unmark", f"Note that {args['host']} takes VMs again", dict(args))


def _record_step(args: Args) -> Step:
    where = f" to {args['host']}" if args["fate"] == MOVED else ""
    return Step("drain.record", f"Note that {args['name']} was {args['fate']}{where}", dict(args))


def _home_step(args: Args) -> Step:
    return Step("drain.home", f"Note that {args['name']} is back", dict(args))


def _args(home: Host, guest: Guest) -> dict[str, Json]:
    return {
        "home": home.uri,
        "home_identity": home.identity,
        "uuid": guest.uuid,
        "name": guest.name,
        "fate": guest.fate,
        "was": guest.was,
        "uri": guest.uri,
        "host": guest.host,
        "autostart": guest.autostart,
        "identity": guest.identity,
    }


def _guest(args: Args) -> Guest:
    return Guest(**{key: value for key, value in args.items() if key not in {"home", "home_identity"}})


def _identity(args: Args) -> str:
    """Of the host that the note is of; jobs of older versions know none."""
    return str(args.get("home_identity" if "home" in args else "identity", ""))


def _mark(ctx: StepContext, args: Args) -> Result:
    before = maintenance.of_host(args["uri"], identity=_identity(args))
    maintenance.begin(args["uri"], args["host"], identity=_identity(args), job_id=ctx.job_id)
    own = before is not None and before.job_id == ctx.job_id
    return {"was_drained": before is not None and before.is_drained and not own}


def _undo_mark(ctx: StepContext, args: Args, result: Result | None) -> None:
    found = maintenance.of_host(args["uri"], identity=_identity(args))
    if found is not None and (found.job_id == ctx.job_id if result is None else not result["was_drained"]):
        maintenance.end(args["uri"], identity=_identity(args))


def _unmark(_ctx: StepContext, args: Args) -> Result:
    before = maintenance.of_host(args["uri"], identity=_identity(args))
    maintenance.end(args["uri"], identity=_identity(args))
    return {"was_drained": before is not None and before.is_drained}


def _undo_unmark(ctx: StepContext, args: Args, result: Result | None) -> None:
    if result is not None and result["was_drained"]:
        maintenance.begin(args["uri"], args["host"], identity=_identity(args), job_id=ctx.job_id)


def _record(_ctx: StepContext, args: Args) -> Result:
    maintenance.put_guest(args["home"], _guest(args), identity=_identity(args))
    return {}


def _undo_record(_ctx: StepContext, args: Args, _result: Result | None) -> None:
    maintenance.drop_guest(args["home"], args["uuid"], identity=_identity(args))


def _home(_ctx: StepContext, args: Args) -> Result:
    maintenance.drop_guest(args["home"], args["uuid"], identity=_identity(args))
    return {}


def _undo_home(_ctx: StepContext, args: Args, _result: Result | None) -> None:
    maintenance.put_guest(args["home"], _guest(args), identity=_identity(args))


def _mark_again(args: Args, result: Result) -> Step | None:
    return _mark_step(args) if result["was_drained"] else None


def _unmark_again(args: Args, result: Result) -> Step | None:
    return None if result["was_drained"] else _unmark_step(args)


register(StepVerb("drain.mark", _mark, _undo_mark, _unmark_again, without_vm=True))
register(StepVerb("drain.unmark", _unmark, _undo_unmark, _mark_again, without_vm=True))
register(StepVerb("drain.record", _record, _undo_record, lambda args, _: _home_step(args), without_vm=True))
register(StepVerb("drain.home", _home, _undo_home, lambda args, _: _record_step(args), without_vm=True))
