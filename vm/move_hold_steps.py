"""The step verbs around a definition that moves or is copied: autostart off meanwhile, the mark off a copy.

A source that restarts while the VM changes hands must not start it from its disks. This module starts and stops no VM.
"""

from __future__ import annotations

import libvirt

from host.plan import Step
from host.steps import Args, Result, StepContext, StepVerb, register
from vm.create_steps import or_none
from vm.domain_xml import parse, to_text
from vm.move_model import MoveDraft
from vm.move_sides import NO_DOMAIN, look, mark_in, unmark, with_mark

_SECURE = libvirt.VIR_DOMAIN_XML_INACTIVE | libvirt.VIR_DOMAIN_XML_SECURE


def hold_step(draft: MoveDraft) -> tuple[Step, ...]:
    """Switch off the source's autostart, where it has that; `move.finish` gives it to the target."""
    if not draft.picture.autostart:
        return ()
    title = f"Switch its autostart at {draft.picture.source_name} off, until it is at {draft.picture.target_name}"
    return (Step("move.hold", title, draft.identity),)


def copy_steps(draft: MoveDraft) -> tuple[Step, ...]:
    """Let a copied definition be its host's own."""
    title = f"Leave the definition at {draft.picture.target_name} to that host, without autostart"
    return (Step("move.own", title, draft.identity),)


def _hold(ctx: StepContext, args: Args) -> Result:
    here, there = look(ctx, args)
    if there.is_active or not here.autostart:
        return {"changed": False}
    _set_autostart(ctx, args, 0)
    return {"changed": True}


def _release(ctx: StepContext, args: Args, result: Result | None) -> None:
    if result is None or result["changed"]:
        _set_autostart(ctx, args, 1)


def _set_autostart(ctx: StepContext, args: Args, wanted: int) -> None:
    with ctx.calls("set the autostart of", args["name"]) as connection:
        domain = or_none(connection.lookupByUUIDString, args["uuid"], missing=NO_DOMAIN)
        if domain is not None and domain.isPersistent():
            domain.setAutostart(wanted)


# A copied definition


def _own(ctx: StepContext, args: Args) -> Result:
    with ctx.peer(args["target"]).calls("complete the definition of", args["name"]) as connection:
        domain = or_none(connection.lookupByUUIDString, args["uuid"], missing=NO_DOMAIN)
        if domain is not None:
            unmark(connection, domain, args["mark"])
    return {}


def _disown(ctx: StepContext, args: Args, _result: Result | None) -> None:
    """For the rollback of the definition, which removes only one with its mark."""
    with ctx.peer(args["target"]).calls("take back the definition of", args["name"]) as connection:
        domain = or_none(connection.lookupByUUIDString, args["uuid"], missing=NO_DOMAIN)
        if domain is None or domain.isActive():
            return
        root = parse(domain.XMLDesc(_SECURE))
        if not mark_in(root):
            connection.defineXML(to_text(with_mark(root, args["mark"])))


for _verb in (
    StepVerb("move.hold", _hold, _release, lambda _args, _result: None, without_vm=True),
    StepVerb("move.own", _own, _disown, lambda _args, _result: "remove the copy at the other host with 'vm delete'"),
):
    register(_verb)
