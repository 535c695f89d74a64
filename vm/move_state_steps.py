"""The step verbs that take along what libvirt keeps beside a VM: checkpoints, firmware variables, its TPM's state.

Files go through libvirt's streams, from and to the hosts' own directories. What is at the target before is somebody
else's: `move.look-for-state` refuses it before any of this job's own is there. Where both hosts have one directory,
nothing is copied and nothing removed. The disks hold what internal checkpoints say; here only libvirt's knowledge of
them goes along.
"""

from __future__ import annotations

from typing import Any
from xml.etree.ElementTree import Element

import libvirt

from host import volume_copy
from host.errors import Conflict, Unsupported
from host.plan import Step
from host.steps import Args, Result, StepContext, StepVerb, register
from host.text import printable
from vm import host_files
from vm.bundle import TPM_FILES
from vm.create_steps import settle
from vm.domain_xml import parse, to_text
from vm.move_disk_steps import at_target, refuse_where_the_guest_is
from vm.move_memory import remove_file
from vm.move_model import MoveDraft
from vm.move_reading import is_external
from vm.move_sides import look
from vm.move_state_places import is_common, nvram_path, tpm_path
from vm.move_steps import places_args
from vm.move_xml import fitted

_REDEFINE = libvirt.VIR_DOMAIN_SNAPSHOT_CREATE_REDEFINE
_CURRENT = libvirt.VIR_DOMAIN_SNAPSHOT_CREATE_CURRENT
_SNAPSHOT_XML = libvirt.VIR_DOMAIN_SNAPSHOT_XML_SECURE
_TOPOLOGICAL = libvirt.VIR_DOMAIN_SNAPSHOT_LIST_TOPOLOGICAL


# Planning


def checkpoint_steps(draft: MoveDraft) -> tuple[Step, ...]:
    """Tell the target's libvirt of the VM's checkpoints."""
    names = draft.picture.checkpoints
    if not names:
        return ()
    shown = ", ".join(printable(name, limit=40) for name in names[:3]) + (" …" if len(names) > 3 else "")
    title = f"Tell {draft.picture.target_name} of its checkpoints ({shown})"
    return (Step("move.checkpoints", title, {**draft.identity, "copies": places_args(draft)}),)


def look_for_state_steps(draft: MoveDraft) -> tuple[Step, ...]:
    """See that the target keeps no firmware variables or TPM state of this identity."""
    args = _state_args(draft)
    if not args["nvram"] and not args["tpm"]:
        return ()
    title = f"See that {draft.picture.target_name} keeps nothing of this identity"
    return (Step("move.look-for-state", title, args),)


def state_steps(draft: MoveDraft) -> tuple[Step, ...]:
    """Copy firmware variables and TPM state, of a VM that is off."""
    args, target = _state_args(draft), draft.picture.target_name
    nvram = (Step("move.nvram", f"Copy its firmware variables to {target}", args),) if args["nvram"] else ()
    tpm = (Step("move.tpm", f"Copy its TPM's state to {target}", args),) if args["tpm"] else ()
    return (*nvram, *tpm)


def _state_args(draft: MoveDraft) -> dict[str, Any]:
    root = parse(draft.picture.inactive_xml)
    backend = root.find("devices/tpm/backend[@type='emulator']")
    version = "" if backend is None else "tpm1.2" if backend.get("version") == "1.2" else "tpm2"
    has_nvram = root.find("os/nvram") is not None or root.find("os[@firmware='efi']") is not None
    return {**draft.identity, "nvram": has_nvram, "tpm": version}


# Checkpoints


def _checkpoints(ctx: StepContext, args: Args) -> Result:
    here, there = look(ctx, args)
    if there.is_active or not here.is_there:
        return {}
    with ctx.calls("read the checkpoints of", args["name"]) as connection:
        domain = connection.lookupByUUIDString(args["uuid"])
        snapshots = [
            (_fitted(snapshot.getXMLDesc(_SNAPSHOT_XML), args), bool(snapshot.isCurrent(0)))
            for snapshot in domain.listAllSnapshots(_TOPOLOGICAL)
        ]
        marks = [each.getXMLDesc(libvirt.VIR_DOMAIN_CHECKPOINT_XML_SECURE) for each in _backup_marks(domain)]
    with ctx.peer(args["target"]).calls("tell of the checkpoints of", args["name"]) as connection:
        domain = connection.lookupByUUIDString(args["uuid"])
        for xml, is_current in snapshots:
            domain.snapshotCreateXML(xml, _REDEFINE | (_CURRENT if is_current else 0))
        for xml in marks:
            domain.checkpointCreateXML(xml, libvirt.VIR_DOMAIN_CHECKPOINT_CREATE_REDEFINE)
    return {"checkpoints": len(snapshots) + len(marks)}


def _backup_marks(domain: Any) -> list[Any]:
    found: list[Any] = domain.listAllCheckpoints(libvirt.VIR_DOMAIN_CHECKPOINT_LIST_TOPOLOGICAL)
    return found


def _fitted(xml: str, args: Args) -> str:
    """A checkpoint's XML with the VM's disks where they are at the target. Raises Unsupported for one whose disks are
    in files of their own."""
    root = parse(xml, root="domainsnapshot")
    if is_external(root):
        raise Unsupported(
            f"its checkpoint {printable(root.findtext('name', ''), limit=60)} is in files of its own",
            about=args["name"],
            remedy="Merge or delete that checkpoint first",
        )
    for tag in ("domain", "inactiveDomain"):
        for place, child in enumerate(list(root)):
            if child.tag == tag:
                root[place] = _fitted_domain(child, args)
    return to_text(root)


def _fitted_domain(element: Element, args: Args) -> Element:
    tag, element.tag = element.tag, "domain"
    made = parse(fitted(to_text(element), args["copies"]))
    made.tag = tag
    return made


# Files


def _look_for_state(ctx: StepContext, args: Args) -> Result:
    _here, there = look(ctx, args)
    if there.is_active:
        return {}
    target = at_target(ctx, args)
    directory, name = host_files.split(nvram_path(ctx, args))
    if args["nvram"] and not is_common(ctx, args, directory):
        with host_files.directory_pool(target, directory, mark=args["mark"]) as pool:
            if pool is not None and name in host_files.sizes(target, pool):
                raise _is_foreign(args, "firmware variables", f"{directory}/{name}")
    if args["tpm"]:
        path = tpm_path(target, args)
        if not is_common(ctx, args, host_files.tpm_directory(ctx.host)):
            with host_files.directory_pool(target, f"{path}/{args['tpm']}", mark=args["mark"]) as pool:
                if pool is not None and host_files.sizes(target, pool):
                    raise _is_foreign(args, "a TPM's state", path)
    return {}


def _is_foreign(args: Args, what: str, path: str) -> Conflict:
    return Conflict(
        f"{printable(args['target_name'])} keeps {what} of this identity already, in {printable(path)}",
        about=args["name"],
        remedy="Move that away first if no VM needs it",
    )


def _nvram(ctx: StepContext, args: Args) -> Result:
    _here, there = look(ctx, args)
    directory, name = host_files.split(nvram_path(ctx, args))
    if there.is_active or is_common(ctx, args, directory):
        return {"copied": []}
    return {"copied": _copy_files(ctx, args, directory, directory, [name])}


def _tpm(ctx: StepContext, args: Args) -> Result:
    _here, there = look(ctx, args)
    if there.is_active or is_common(ctx, args, host_files.tpm_directory(ctx.host)):
        return {"copied": []}
    source = f"{tpm_path(ctx, args)}/{args['tpm']}"
    target = f"{tpm_path(at_target(ctx, args), args)}/{args['tpm']}"
    return {"copied": _copy_files(ctx, args, source, target, None)}


def _copy_files(ctx: StepContext, args: Args, source: str, target: str, names: list[str] | None) -> list[str]:
    """Copy files of one directory to another, those named or all of a TPM; returns which there were. A VM that was
    never started has none."""
    there = at_target(ctx, args)
    with host_files.directory_pool(ctx, source, mark=args["mark"]) as pool:
        found = host_files.sizes(ctx, pool) if pool is not None else {}
        wanted = [each for each in found if TPM_FILES.fullmatch(f"{args['tpm']}/{each}")] if names is None else names
        present = [name for name in wanted if name in found]
        if pool is None or not present:
            return []
        with host_files.directory_pool(there, target, mark=args["mark"], build=True) as own:
            for name in present:
                place = (str(own), name)
                copied = volume_copy.copy(ctx.host, (pool, name), there.host, place, is_cancelled=ctx.is_cancelled)
                volume_copy.verify(there.host, *place, copied.stored)
    return present


def _remove_nvram(ctx: StepContext, args: Args, result: Result | None) -> None:
    settle(result)
    refuse_where_the_guest_is(ctx, args)
    path = nvram_path(ctx, args)
    if not is_common(ctx, args, host_files.split(path)[0]):
        remove_file(at_target(ctx, args), path, mark=args["mark"])
    _let_go(ctx, args)


def _remove_tpm(ctx: StepContext, args: Args, result: Result | None) -> None:
    settle(result)
    refuse_where_the_guest_is(ctx, args)
    there = at_target(ctx, args)
    directory = f"{tpm_path(there, args)}/{args['tpm']}"
    if not is_common(ctx, args, host_files.tpm_directory(ctx.host)):
        with host_files.directory_pool(there, directory, mark=args["mark"]) as pool:
            names = list(host_files.sizes(there, pool)) if pool is not None else []
        for name in names:
            remove_file(there, f"{directory}/{name}", mark=args["mark"])
    _let_go(ctx, args)


def _let_go(ctx: StepContext, args: Args, _result: Result | None = None) -> None:
    host_files.remove_left(ctx, args["mark"])
    host_files.remove_left(at_target(ctx, args), args["mark"])


for _verb in (
    StepVerb("move.checkpoints", _checkpoints, None, lambda _args, _result: None, without_vm=True),
    StepVerb("move.look-for-state", _look_for_state, _let_go, lambda _args, _result: None),
    StepVerb("move.nvram", _nvram, _remove_nvram, lambda _args, _result: None),
    StepVerb("move.tpm", _tpm, _remove_tpm, lambda _args, _result: None),
):
    register(_verb)
