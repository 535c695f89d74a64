"""The step verbs that keep host.maintenance's notes: a host is drained, takes VMs again, a VM has left, is back.

They change no VM; the steps before them have. Each can be run again.
"""

from __future__ import annotations

from host import maintenance
from host.maintenance import Guest
from host.plan import Json, Step
from host.steps import Args, Result, StepContext, StepVerb, register

MOVED, SAVED, SHUT_DOWN = "moved", "saved", "shut down"


def mark_step(uri: str, name: str) -> Step:
    """The host is drained from now on: no VM is placed there."""
    return Step("drain.mark", f"Note that {name} is drained: no VM is placed there", {"uri": uri, "host": name})


def unmark_step(uri: str, name: str) -> Step:
    """The host takes VMs again."""
    return Step("drain.unmark", f"Note that {name} takes VMs again", {"uri": uri, "host": name})


def record_step(home: str, guest: Guest) -> Step:
    """Note what became of a VM of the host at `home`."""
    where = f" to {guest.host}" if guest.fate == MOVED else ""
    return Step("drain.record", f"Note that {guest.name} was {guest.fate}{where}", _args(home, guest))


def home_step(home: str, guest: Guest) -> Step:
    """Note that a VM is back on the host at `home`."""
    return Step("drain.home", f"Note that {guest.name} is back", _args(home, guest))


def _args(home: str, guest: Guest) -> dict[str, Json]:
    return {
        "home": home,
        "uuid": guest.uuid,
        "name": guest.name,
        "fate": guest.fate,
        "was": guest.was,
        "uri": guest.uri,
        "host": guest.host,
        "autostart": guest.autostart,
    }


def _guest(args: Args) -> Guest:
    return Guest(**{key: value for key, value in args.items() if key != "home"})


def _mark(ctx: StepContext, args: Args) -> Result:
    before = maintenance.of_host(args["uri"])
    maintenance.begin(args["uri"], args["host"], job_id=ctx.job_id)
    own = before is not None and before.job_id == ctx.job_id
    return {"was_drained": before is not None and before.is_drained and not own}


def _undo_mark(ctx: StepContext, args: Args, result: Result | None) -> None:
    found = maintenance.of_host(args["uri"])
    if found is not None and (found.job_id == ctx.job_id if result is None else not result["was_drained"]):
        maintenance.end(args["uri"])


def _unmark(_ctx: StepContext, args: Args) -> Result:
    before = maintenance.of_host(args["uri"])
    maintenance.end(args["uri"])
    return {"was_drained": before is not None and before.is_drained}


def _undo_unmark(ctx: StepContext, args: Args, result: Result | None) -> None:
    if result is not None and result["was_drained"]:
        maintenance.begin(args["uri"], args["host"], job_id=ctx.job_id)


def _record(_ctx: StepContext, args: Args) -> Result:
    maintenance.put_guest(args["home"], _guest(args))
    return {}


def _undo_record(_ctx: StepContext, args: Args, _result: Result | None) -> None:
    maintenance.drop_guest(args["home"], args["uuid"])


def _home(_ctx: StepContext, args: Args) -> Result:
    maintenance.drop_guest(args["home"], args["uuid"])
    return {}


def _undo_home(_ctx: StepContext, args: Args, _result: Result | None) -> None:
    maintenance.put_guest(args["home"], _guest(args))


def _mark_again(args: Args, result: Result) -> Step | None:
    return mark_step(args["uri"], args["host"]) if result["was_drained"] else None


def _unmark_again(args: Args, result: Result) -> Step | None:
    return None if result["was_drained"] else unmark_step(args["uri"], args["host"])


register(StepVerb("drain.mark", _mark, _undo_mark, _unmark_again, without_vm=True))
register(StepVerb("drain.unmark", _unmark, _undo_unmark, _mark_again, without_vm=True))
register(
    StepVerb(
        "drain.record", _record, _undo_record, lambda args, _: home_step(args["home"], _guest(args)), without_vm=True
    )
)
register(
    StepVerb("drain.home", _home, _undo_home, lambda args, _: record_step(args["home"], _guest(args)), without_vm=True)
)
