"""The step verb that defines a VM's edited XML. libvirt validates it; on an error everything stays as it was."""

from __future__ import annotations

from typing import Any

import libvirt

from host.errors import Conflict
from host.plan import Step
from host.steps import Args, Result, StepContext, StepVerb, register
from vm.domain_xml import parse, to_text
from vm.lifecycle_steps import inverse_step, look_up
from vm.redact import extract, insert

VERB = "vm.edit"
_INACTIVE = libvirt.VIR_DOMAIN_XML_INACTIVE
_SECURE = _INACTIVE | libvirt.VIR_DOMAIN_XML_SECURE
_VALIDATE = libvirt.VIR_DOMAIN_DEFINE_VALIDATE


def _edit(ctx: StepContext, args: Args) -> Result:
    """Define the new XML, unless somebody else changed the VM since the plan was made: then put that back."""
    with ctx.calls("change the XML of", args["name"]) as connection:
        domain = look_up(connection, args)
        found, in_force = domain.XMLDesc(_INACTIVE), domain.XMLDesc(_SECURE)
        _define(connection, args["xml"], args["secrets"], in_force)
        defined = domain.XMLDesc(_INACTIVE)
        if found not in (args["before"], defined):
            connection.defineXML(in_force)
            raise Conflict(
                "its XML was changed by somebody else in the meantime",
                about=args["name"],
                remedy="Edit it again: the change is in the XML then",
            )
    return {"after": defined, "secrets_changed": sorted(args["secrets"])}


def _define(connection: libvirt.virConnect, xml: str, given: Args, in_force: str) -> None:
    kept = {**extract(parse(in_force)), **given}
    if kept:  # else the text goes as it is: writing it anew would move the declarations of namespaces
        root = parse(xml)
        insert(root, kept)
        xml = to_text(root)
    connection.defineXMLFlags(xml, _VALIDATE)


def _undo_edit(ctx: StepContext, args: Args, result: Result | None) -> None:
    """Put the old XML back where the new one still stands. An interrupted define is known by trying it again."""
    with ctx.calls("change the XML back of", args["name"]) as connection:
        domain = look_up(connection, args)
        found, in_force = domain.XMLDesc(_INACTIVE), domain.XMLDesc(_SECURE)
        if found == args["before"]:
            return
        if found == (_outcome(connection, domain, args, in_force) if result is None else result["after"]):
            _define(connection, args["before"], {}, in_force)


def _outcome(connection: libvirt.virConnect, domain: Any, args: Args, in_force: str) -> str | None:
    """What libvirt makes of the new XML; None when it refuses it. The VM is left as it is."""
    try:
        _define(connection, args["xml"], args["secrets"], in_force)
    except libvirt.libvirtError:
        return None
    outcome = str(domain.XMLDesc(_INACTIVE))
    connection.defineXML(in_force)
    return outcome


def _inverse_edit(args: Args, result: Result) -> Step | str:
    if result["secrets_changed"]:
        return "The edit changed a password; the old one is kept nowhere"
    title = f"Put the old XML of {args['name']} back"
    return inverse_step(VERB, title, args, xml=args["before"], before=result["after"], secrets={})


register(StepVerb(VERB, _edit, _undo_edit, _inverse_edit))
