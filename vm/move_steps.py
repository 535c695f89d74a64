"""The step verbs that every move shares: check, share, eject, define, finish; and the functions that plan them.

Each looks at both hosts before it acts, so that running it again ends in the same state. The definition at the target
is made first, with the plan's mark and without autostart; that of the source is removed last, after the VM was seen at
the target. Once the guest has changed hosts nothing is rolled back.
"""

from __future__ import annotations

import time
from typing import Any

import libvirt

from host.errors import Conflict, HvtuiError, WrongState
from host.plan import Step
from host.steps import Args, Result, StepContext, StepVerb, register
from host.text import printable
from vm.clone_xml import target_of
from vm.commands import virsh
from vm.create_steps import or_none, settle
from vm.domain_xml import disk_source, parse, to_text
from vm.move_checks_disks import emptied
from vm.move_model import MoveDraft, MoveKind
from vm.move_sides import (
    NO_DOMAIN,
    Side,
    behind_the_hand_over,
    has_left,
    look,
    look_at,
    mark_in,
    mark_of,
    side_of,
    unmark,
    wait_until_quiet,
    with_mark,
)
from vm.move_state_places import is_shared
from vm.move_xml import fitted

QUIET_S = 120.0  # for a migration that a killed process began, and that nobody follows
SEEN_S = 30.0
_OFF_S = 3.0  # how long it is seen off before it is taken for off
_POLL_S = 0.2
_INACTIVE = libvirt.VIR_DOMAIN_XML_INACTIVE
_SECURE = libvirt.VIR_DOMAIN_XML_SECURE
_BEFORE_8_9 = (
    libvirt.VIR_DOMAIN_UNDEFINE_MANAGED_SAVE
    | libvirt.VIR_DOMAIN_UNDEFINE_SNAPSHOTS_METADATA
    | libvirt.VIR_DOMAIN_UNDEFINE_CHECKPOINTS_METADATA
    | libvirt.VIR_DOMAIN_UNDEFINE_NVRAM
)
_LEAVE_BEFORE_8_9 = (
    libvirt.VIR_DOMAIN_UNDEFINE_SNAPSHOTS_METADATA
    | libvirt.VIR_DOMAIN_UNDEFINE_CHECKPOINTS_METADATA
    | libvirt.VIR_DOMAIN_UNDEFINE_KEEP_NVRAM
)
_NO_SUCH_FLAG = frozenset({libvirt.VIR_ERR_INVALID_ARG, libvirt.VIR_ERR_ARGUMENT_UNSUPPORTED})


# Planning


def check_step(draft: MoveDraft) -> Step:
    """Look at both hosts once more, before anything is made."""
    names = f"{draft.picture.source_name} and {draft.picture.target_name}"
    return Step("move.check", f"Look at {names} once more", {**draft.identity, "kind": draft.kind.value})


def share_step(draft: MoveDraft) -> tuple[Step, ...]:
    """Prove that both hosts see the directories of the disks that are not copied."""
    if not draft.shared:
        return ()
    shown = ", ".join(printable(each, limit=60) for each in draft.shared)
    title = f"Prove that both hosts see the same {shown} (a file written there, read here)"
    return (Step("move.share", title, {**draft.identity, "directories": list(draft.shared)}),)


def eject_step(draft: MoveDraft) -> tuple[Step, ...]:
    """Take the media out of their drives that the target has not, where that was asked for."""
    drives = emptied(draft.picture.disks)
    if not drives or not draft.request.options.eject:
        return ()
    name, uri = draft.picture.vm_name, draft.picture.source_uri
    commands = tuple(virsh(uri, "change-media", name, drive, "--eject") for drive in drives)
    return (Step("move.eject", f"Eject {', '.join(drives)}", {**draft.identity, "drives": list(drives)}, commands),)


def define_step(draft: MoveDraft) -> tuple[Step, ...]:
    """Make the definition at the target, without autostart. None for a transient VM."""
    if not draft.picture.is_persistent:
        return ()
    args = {**draft.identity, **_fit_args(draft)}
    commands = (f"virsh -c {draft.picture.target_uri} define --file {printable(draft.picture.vm_name)}.xml",)
    return (Step("move.define", f"Define it on {draft.picture.target_name}", args, commands),)


def _fit_args(draft: MoveDraft) -> dict[str, Any]:
    gone = list(emptied(draft.picture.disks)) if draft.kind in {MoveKind.OFFLINE, MoveKind.DEFINITION} else []
    return {"copies": places_args(draft), "emptied": gone}


def copies_args(draft: MoveDraft) -> list[dict[str, Any]]:
    """The copies as JSON, for the arguments of steps."""
    from dataclasses import asdict

    return [asdict(copy) for copy in draft.copies]


def places_args(draft: MoveDraft) -> list[dict[str, Any]]:
    """As `copies_args`, with the files that the VM boots from: all that a definition has elsewhere at the target."""
    from dataclasses import asdict

    return [asdict(copy) for copy in (*draft.copies, *draft.boot_copies)]


def finish_step(draft: MoveDraft, *, running: bool = True) -> Step:
    """See the VM at the target, and remove what is left of it at the source. `running` False: it is off."""
    picture = draft.picture
    args = {
        **draft.identity,
        "running": running,
        "autostart": picture.autostart,
        "persistent": picture.is_persistent,
        "asks": draft.kind is MoveKind.QUICK,  # a live move has asked the guest already which boot of it that is
    }
    title = f"See it on {picture.target_name}, and remove its definition from {picture.source_name}"
    commands = (virsh(picture.source_uri, "undefine", picture.vm_name),) if not running else ()
    return Step("move.finish", title, args, commands)


# move.check


def _check(ctx: StepContext, args: Args) -> Result:
    here, there = wait_until_quiet(ctx, args, patience_s=QUIET_S)
    refuse_two(args, here, there)
    if there.is_active:
        return {}  # a restart: it has changed hosts already
    if not here.is_there:
        remedy = f"Look for it: hvtui --connect {printable(args['target'])} vm list"
        raise Conflict(f"it is not on {printable(args['source_name'])} any more", about=args["name"], remedy=remedy)
    wants_running = args["kind"] in {MoveKind.LIVE, MoveKind.LIVE_STORAGE, MoveKind.QUICK}
    if args["kind"] != MoveKind.DEFINITION and here.is_active != wants_running and not here.has_saved_state:
        state = "running" if here.is_active else "off"
        raise WrongState(f"it is {state} now", about=args["name"], remedy="Give the command again: the way has changed")
    if there.is_there and there.mark != args["mark"] and not there.mark:
        raise Conflict(f"{printable(args['target_name'])} has a definition of it now", about=args["name"])
    _refuse_namesake(ctx, args)
    return {}


def _refuse_namesake(ctx: StepContext, args: Args) -> None:
    with ctx.peer(args["target"]).calls("look for", args["name"]) as connection:
        other = or_none(connection.lookupByName, args["name"], missing=NO_DOMAIN)
        if other is not None and other.UUIDString() != args["uuid"] and args["kind"] != MoveKind.DEFINITION:
            cause = f"{printable(args['target_name'])} has another VM of that name now"
            raise Conflict(cause, about=args["name"], remedy="Rename one of them")


def refuse_two(args: Args, here: Side, there: Side) -> None:
    """Raises Conflict when the guest is on both hosts: nothing may be done then but by a person."""
    if here.has_guest and there.has_guest:
        cause = f"it runs on {printable(args['source_name'])} and on {printable(args['target_name'])}"
        raise Conflict(
            cause, about=args["name"], remedy="Find out which one is right, and turn the other off", keeps=True
        )


# move.share


def _share(ctx: StepContext, args: Args) -> Result:
    from host.shared_storage import prove_shared

    _here, there = look(ctx, args)
    if there.has_guest:
        return {}
    target = ctx.peer(args["target"])
    for directory in args["directories"]:
        ctx.raise_if_cancelled()
        if not prove_shared(ctx.host, target, directory, args["mark"]):
            cause = (
                f"{printable(directory)} is not the same directory on {printable(args['source_name'])} and"
                f" {printable(args['target_name'])}"
            )
            raise Conflict(cause, about=args["name"], remedy="Copy its disks along (--kind live-storage, or quick)")
    return {"proved": list(args["directories"])}


# move.eject


def _eject(ctx: StepContext, args: Args) -> Result:
    here, _there = look(ctx, args)
    if not here.is_there:
        return {"media": {}}
    with ctx.calls("eject the media of", args["name"]) as connection:
        domain = connection.lookupByUUIDString(args["uuid"])
        media = {}
        for drive in args["drives"]:
            source = _change_medium(domain, drive, None)
            if source:
                media[drive] = source
        return {"media": media}


def _change_medium(domain: Any, drive: str, path: str | None) -> str:
    """Put the file `path` into a drive, or take out what is in; returns what was in."""
    flags = libvirt.VIR_DOMAIN_AFFECT_CONFIG if domain.isPersistent() else 0
    flags |= libvirt.VIR_DOMAIN_AFFECT_LIVE if domain.isActive() else 0
    root = parse(domain.XMLDesc(0 if domain.isActive() else _INACTIVE))
    disk = next((each for each in root.iterfind("devices/disk") if target_of(each) == drive), None)
    if disk is None:
        return ""
    before = disk_source(disk)
    for tag in ("source", "backingStore", "mirror", "alias"):
        for element in disk.findall(tag):
            disk.remove(element)
    disk.set("type", "file")
    if path is not None:
        from xml.etree.ElementTree import SubElement

        SubElement(disk, "source", file=path)
    if before or path is not None:
        domain.updateDeviceFlags(to_text(disk), flags | libvirt.VIR_DOMAIN_DEVICE_MODIFY_FORCE)
    return before


def _insert(ctx: StepContext, args: Args, result: Result | None) -> None:
    media = (result or {}).get("media")
    if not isinstance(media, dict):
        return
    with ctx.calls("put the media back into", args["name"]) as connection:
        domain = or_none(connection.lookupByUUIDString, args["uuid"], missing=NO_DOMAIN)
        for drive, path in media.items() if domain is not None else ():
            _change_medium(domain, drive, str(path))


# move.define


def _define(ctx: StepContext, args: Args) -> Result:
    """Also after a kill in the middle: a definition with the plan's mark is this step's own."""
    here, there = look(ctx, args)
    if there.is_active or not here.is_there:
        return {"made": there.mark == args["mark"]}
    if there.is_there and not there.mark:
        raise Conflict(f"{printable(args['target_name'])} has a definition of it already", about=args["name"])
    with ctx.calls("read", args["name"]) as connection:
        domain = connection.lookupByUUIDString(args["uuid"])
        if not domain.isPersistent():
            return {"made": False}
        xml = domain.XMLDesc(_INACTIVE | _SECURE)
    text = fitted(xml, args["copies"], emptied=args["emptied"], mark=args["mark"])
    with ctx.peer(args["target"]).calls("define", args["name"]) as connection:
        made = connection.defineXML(text)
        if made.autostart():
            made.setAutostart(0)
    return {"made": True}


def _undefine(ctx: StepContext, args: Args, result: Result | None) -> None:
    settle(result)
    refuse_after_hand_over(ctx, args)
    with ctx.peer(args["target"]).calls("remove the definition of", args["name"]) as connection:
        domain = or_none(connection.lookupByUUIDString, args["uuid"], missing=NO_DOMAIN)
        if domain is None or domain.isActive() or mark_of(domain) != args["mark"]:
            return
    keeps = is_shared(ctx, args)
    with ctx.peer(args["target"]).calls("remove the definition of", args["name"]) as connection:
        domain = or_none(connection.lookupByUUIDString, args["uuid"], missing=NO_DOMAIN)
        if domain is not None and not domain.isActive():
            undefine(domain, keep_nvram=keeps)


def undefine(domain: Any, *, keep_nvram: bool = False) -> None:
    """Remove a definition that is not running, with everything that libvirt keeps beside it; the disks stay, and with
    `keep_nvram` firmware variables and TPM state as well."""
    old = _LEAVE_BEFORE_8_9 if keep_nvram else _BEFORE_8_9
    new = libvirt.VIR_DOMAIN_UNDEFINE_KEEP_TPM if keep_nvram else libvirt.VIR_DOMAIN_UNDEFINE_TPM
    try:
        domain.undefineFlags(old | new)
    except libvirt.libvirtError as error:
        if error.get_error_code() not in _NO_SUCH_FLAG:
            raise
        domain.undefineFlags(old)


def refuse_after_hand_over(ctx: StepContext, args: Args) -> None:
    """For rollbacks. Raises WrongState when the VM is at the target: nothing is taken back then."""
    here, there = look(ctx, args)
    if there.has_guest or has_left(here, there):
        raise WrongState(
            f"it has been moved: it is on {printable(args['target_name'])}",
            about=args["name"],
            remedy="Restart the job: it completes the move",
            keeps=True,
        )


# move.finish


def _finish(ctx: StepContext, args: Args) -> Result:
    if not args["running"]:  # it changes hands in here: before that, a rollback gives it back to the source
        return _finished(ctx, args)
    with behind_the_hand_over():
        return _finished(ctx, args)


def _finished(ctx: StepContext, args: Args) -> Result:
    here, there = wait_until_quiet(ctx, args, patience_s=QUIET_S)
    refuse_two(args, here, there)
    there = _seen(ctx, args, here)
    if here.is_active:
        raise lost_between(args, "libvirt still shows it at the source", keeps=True)
    if args["persistent"]:
        _settle_target(ctx, args)
        _remove_source(ctx, args)
    if args["running"] and not there.is_active:
        return {"boot_id": "", "warning": f"it is off: its guest ended on {printable(args['target_name'])}"}
    asks = args["running"] and args.get("asks", True)
    return {"boot_id": boot_id(ctx.peer(args["target"]), args)} if asks else {}


def _seen(ctx: StepContext, args: Args, here: Side) -> Side:
    """The VM at the target as it shall be there, or off where its guest has ended since it changed hosts. Raises
    HvtuiError when it is not."""
    began_s = time.monotonic()
    until_s, off_until_s = began_s + SEEN_S, began_s + (_OFF_S if args["running"] else 0.0)
    while True:
        there = look_at(ctx.peer(args["target"]), args)
        if args["running"] and there.has_guest:
            return there
        is_off = there.is_persistent and not there.is_active and not here.is_active
        if is_off and time.monotonic() >= off_until_s:
            return there
        if not args["running"] and there.is_persistent:
            return there
        if time.monotonic() > until_s:
            raise lost_between(args, "it was not seen there", keeps=True)
        time.sleep(_POLL_S)


def lost_between(args: Args, cause: str, *, keeps: bool) -> HvtuiError:
    """The error of a move whose end cannot be told; nothing is removed then."""
    where = f"{printable(args['source_name'])} and {printable(args['target_name'])}"
    return HvtuiError(cause, about=args["name"], remedy=f"Look at {where}, then restart the job", keeps=keeps)


def _settle_target(ctx: StepContext, args: Args) -> None:
    """Its definition there is its own from now on: without the mark, and with autostart where it had that."""
    with ctx.peer(args["target"]).calls("complete the definition of", args["name"]) as connection:
        domain = connection.lookupByUUIDString(args["uuid"])
        if not domain.isPersistent():
            raise lost_between(args, "it has no definition there", keeps=True)
        unmark(connection, domain, args["mark"])
        if args["autostart"] and not domain.autostart():
            domain.setAutostart(1)


def _unfinish(ctx: StepContext, args: Args, result: Result | None) -> None:
    """The definition at the target is the move's again, for the rollback of `move.define`."""
    settle(result)
    refuse_after_hand_over(ctx, args)
    with ctx.peer(args["target"]).calls("take back the definition of", args["name"]) as connection:
        domain = or_none(connection.lookupByUUIDString, args["uuid"], missing=NO_DOMAIN)
        if domain is None or domain.isActive():
            return
        if domain.autostart():
            domain.setAutostart(0)
        root = parse(domain.XMLDesc(_INACTIVE | _SECURE))
        if not mark_in(root):
            connection.defineXML(to_text(with_mark(root, args["mark"])))


def _remove_source(ctx: StepContext, args: Args) -> None:
    keeps = is_shared(ctx, args)  # firmware variables and TPM state that the target's VM has, too
    with ctx.calls("remove the definition of", args["name"]) as connection:
        domain = or_none(connection.lookupByUUIDString, args["uuid"], missing=NO_DOMAIN)
        if domain is None:
            return
        if side_of(domain).is_active:
            raise lost_between(args, "it was started at the source again", keeps=True)
        undefine(domain, keep_nvram=keeps)


def boot_id(host: Any, args: Args) -> str:
    """Which boot of its guest that is, as its agent tells; empty when no agent answers."""
    import json

    import libvirt_qemu

    path = "/proc/sys/kernel/random/boot_id"
    with host.calls("ask the guest of", args["name"]) as connection:
        domain = or_none(connection.lookupByUUIDString, args["uuid"], missing=NO_DOMAIN)
        try:
            opened = _agent(libvirt_qemu, json, domain, "guest-file-open", {"path": path, "mode": "r"})
            read = _agent(libvirt_qemu, json, domain, "guest-file-read", {"handle": opened, "count": 64})
            _agent(libvirt_qemu, json, domain, "guest-file-close", {"handle": opened})
        except (libvirt.libvirtError, ValueError, KeyError) as error:
            if isinstance(error, libvirt.libvirtError) and error.get_error_domain() == libvirt.VIR_FROM_RPC:
                raise
            return ""
    import base64

    return base64.b64decode(read["buf-b64"]).decode("ascii", "replace").strip()[:36]


def _agent(libvirt_qemu: Any, json: Any, domain: Any, command: str, arguments: dict[str, Any]) -> Any:
    text = json.dumps({"execute": command, "arguments": arguments})
    return json.loads(libvirt_qemu.qemuAgentCommand(domain, text, 3, 0))["return"]


# Undo


def back(args: Args, _result: Result) -> str:
    """Why a done move has no undo of its own."""
    source, target = printable(args["source_name"]), printable(args["target_name"])
    return f"it is on {target} now: move it back from there (hvtui vm migrate --to {source})"


def _nothing(_args: Args, _result: Result) -> None:
    return None


register(StepVerb("move.check", _check, None, _nothing, without_vm=True))
register(StepVerb("move.share", _share, None, _nothing, without_vm=True))
register(StepVerb("move.eject", _eject, _insert, _nothing, without_vm=True))
register(StepVerb("move.define", _define, _undefine, back, without_vm=True))
register(StepVerb("move.finish", _finish, _unfinish, back, without_vm=True, hands_over=lambda _result: True))
