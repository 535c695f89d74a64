"""The step verbs that delete a VM: look again, undefine, remove disks, and define again for an undo.

Each removal looks once more at who uses the disk, in the moment before it removes it. A disk that is gone already is
done. This module asks nobody.
"""

from __future__ import annotations

from typing import Any

import libvirt

from host import secrets
from host.errors import Conflict, WrongState
from host.plan import Step
from host.steps import Args, Result, StepContext, StepVerb, register
from vm.delete_bases import is_of_template, keep_reason
from vm.disk_uses import read_world, why_kept
from vm.domain_xml import parse, to_text
from vm.lifecycle_steps import inverse_step, look_up
from vm.redact import extract, insert

_SECURE = libvirt.VIR_DOMAIN_XML_INACTIVE | libvirt.VIR_DOMAIN_XML_SECURE


# Look again


def _check(ctx: StepContext, args: Args) -> Result:
    with ctx.calls("delete", args["name"]) as connection:
        domain = look_up(connection, args)
        if domain.isActive() and not args["off"]:
            raise _is_running(args)
        if args["disks"]:
            world = read_world(connection, ctx.host, without_uuid=args["uuid"])
            for path in args["disks"]:
                _refuse_needed(path, why_kept(world, path))
    return {}


def _is_running(args: Args) -> WrongState:
    return WrongState("it was started in the meantime", about=args["name"], remedy="Stop it and delete it again")


def _refuse_needed(path: str, reason: str) -> None:
    if reason:
        raise Conflict(f"the disk must stay: {reason}", about=path, remedy="Delete the VM without this disk")


# Undefine


def _undefine(ctx: StepContext, args: Args) -> Result:
    with ctx.calls("delete", args["name"]) as connection:
        domain = _find(connection, args)
        if domain is None:
            return {"changed": False, "secrets": {}}
        if domain.isActive():
            raise _is_running(args)
        kept = extract(parse(domain.XMLDesc(_SECURE)))
        stored = {key: secrets.save(value, job_id=ctx.job_id) for key, value in kept.items()}
        domain.undefineFlags(args["flags"])
    return {"changed": True, "secrets": stored}


def _find(connection: libvirt.virConnect, args: Args) -> Any | None:
    try:
        return look_up(connection, args)
    except libvirt.libvirtError as error:
        if error.get_error_code() != libvirt.VIR_ERR_NO_DOMAIN:
            raise
        return None


def _undo_undefine(ctx: StepContext, args: Args, result: Result | None) -> None:
    _define_again(ctx, args, (result or {}).get("secrets", {}))


def _define_again(ctx: StepContext, args: Args, kept: Any) -> bool:
    with ctx.calls("define again", args["name"]) as connection:
        if _find(connection, args) is not None:
            return False
        domain = connection.defineXML(_with_secrets(args["xml"], kept))
        if args["autostart"]:
            domain.setAutostart(1)
    return True


def _with_secrets(xml: str, kept: Any) -> str:
    """The XML with its secrets; without any, the text as it is: writing it anew would change its layout."""
    if not kept:
        return xml
    root = parse(xml)
    insert(root, kept)
    return to_text(root)


def _inverse_undefine(args: Args, result: Result) -> Step | str | None:
    if not result["changed"]:
        return None
    if args["lost"]:
        return f"gone with the VM: {'; '.join(args['lost'])}"
    if result["secrets"]:
        return "the VM's password was kept nowhere"
    title = f"Define {args['name']} again"
    return inverse_step("vm.define-again", title, args, xml=args["xml"], autostart=args["autostart"])


def _define(ctx: StepContext, args: Args) -> Result:
    return {"changed": _define_again(ctx, args, {})}


def _undo_define(ctx: StepContext, args: Args, result: Result | None) -> None:
    if result and result["changed"]:
        with ctx.calls("delete", args["name"]) as connection:
            domain = _find(connection, args)
            if domain is not None:
                domain.undefine()


# Remove disks


def _remove_disk(ctx: StepContext, args: Args) -> Result:
    with ctx.calls("remove a disk of", args["name"]) as connection:
        world = read_world(connection, ctx.host, without_uuid=args["uuid"])
        volume = _volume(connection, args["pool"], args["volume"])
        if volume is None:
            return {"changed": False}
        if volume.path() != args["path"]:
            raise Conflict("its volume is another file now", about=args["path"], remedy="Delete the VM without it")
        _refuse_needed(args["path"], why_kept(world, args["path"]))
        volume.delete(0)
    return {"changed": True}


def _remove_base(ctx: StepContext, args: Args) -> Result:
    """Only the last VM that goes removes it: deletions that run side by side each look after their own disk is gone."""
    with ctx.calls("remove a base of", args["name"]) as connection:
        world = read_world(connection, ctx.host, without_uuid=args["uuid"])
        volume = _volume(connection, args["pool"], args["volume"])
        if volume is None or volume.path() != args["path"]:
            return {"changed": False}
        kept = keep_reason(world, args["path"])
        if kept or is_of_template(connection, args["pool"], args["volume"]):
            return {"changed": False, "kept": kept or "it is a template's"}
        try:
            volume.delete(0)
        except libvirt.libvirtError as error:
            if error.get_error_code() != libvirt.VIR_ERR_NO_STORAGE_VOL:
                raise
    return {"changed": True}


def _volume(connection: libvirt.virConnect, pool: str, name: str) -> Any | None:
    try:
        return connection.storagePoolLookupByName(pool).storageVolLookupByName(name)
    except libvirt.libvirtError as error:
        if error.get_error_code() != libvirt.VIR_ERR_NO_STORAGE_VOL:
            raise
        return None


for _verb in (
    StepVerb("vm.check-delete", _check, None, lambda _args, _result: None),
    StepVerb("vm.undefine", _undefine, _undo_undefine, _inverse_undefine),
    StepVerb(
        "vm.define-again",
        _define,
        _undo_define,
        lambda args, _result: f"delete {args['name']} again with 'vm delete'",
        without_vm=True,
    ),
    StepVerb(
        "vm.remove-disk",
        _remove_disk,
        None,
        lambda args, result: f"the disk {args['path']} is removed for good" if result["changed"] else None,
    ),
    StepVerb(
        "vm.remove-base",
        _remove_base,
        None,
        lambda args, result: f"the base {args['path']} is removed for good" if result["changed"] else None,
    ),
):
    register(_verb)
