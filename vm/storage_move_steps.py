"""The step verb that moves disks of a VM to another pool of its host, and the one that removes what they leave.

A running VM's disks are mirrored by QEMU and switched over when all mirrors are ready; those of one that is off are
copied by the host and its definition changed. The step looks first at each disk: a mirror that a killed process began
goes on in QEMU and is found again. New volumes carry the plan's mark in their names. Until the first switch-over a
rollback ends the mirrors and removes the new volumes; afterwards what was switched stays, whole, where it is.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing
from typing import Any
from xml.etree.ElementTree import Element, SubElement

import libvirt

from host import volume_copy, volumes
from host.connection import open_host
from host.errors import Conflict, HvtuiError, WrongState
from host.steps import Args, Result, StepContext, StepVerb, register, verb_named
from host.text import printable
from vm import clone_steps  # registers the verb of a disk
from vm.clone_xml import target_of
from vm.create_steps import or_none, settle
from vm.disk_uses import read_world, why_kept
from vm.domain_xml import disk_source, parse, to_text
from vm.move_disk_steps import rebase, volume_of
from vm.move_xml import fitted

_POLL_S = 0.3
_ENDING_S = 60.0
_NO_DOMAIN = frozenset({libvirt.VIR_ERR_NO_DOMAIN})
_NO_VOLUME = frozenset({libvirt.VIR_ERR_NO_STORAGE_VOL})
_INACTIVE = libvirt.VIR_DOMAIN_XML_INACTIVE
_SECURE = _INACTIVE | libvirt.VIR_DOMAIN_XML_SECURE
_PIVOT = libvirt.VIR_DOMAIN_BLOCK_JOB_ABORT_PIVOT
_COPY = libvirt.VIR_DOMAIN_BLOCK_COPY_REUSE_EXT | libvirt.VIR_DOMAIN_BLOCK_COPY_TRANSIENT_JOB


# Move


def _move(ctx: StepContext, args: Args) -> Result:
    if _is_active(ctx, args):
        _mirror(ctx, args)
    else:
        _copy(ctx, args)
    _check_both(ctx, args)
    return {}


def _is_active(ctx: StepContext, args: Args) -> bool:
    with ctx.calls("look at", args["name"]) as connection:
        return bool(connection.lookupByUUIDString(args["uuid"]).isActive())


def _elements(domain: Any, flags: int) -> dict[str, Element]:
    return {target_of(disk): disk for disk in parse(domain.XMLDesc(flags)).iterfind("devices/disk")}


def _check_both(ctx: StepContext, args: Args) -> None:
    """Both definitions, of now and of the next start, must read the new disks. Raises HvtuiError that keeps them."""
    with ctx.calls("look at the disks of", args["name"]) as connection:
        domain = connection.lookupByUUIDString(args["uuid"])
        for flags in (0, _INACTIVE):
            there = {target: disk_source(disk) for target, disk in _elements(domain, flags).items()}
            wrong = [disk for disk in args["disks"] if there.get(disk["target"]) != disk["new"]["path"]]
            if wrong:
                raise HvtuiError(
                    f"its disk {wrong[0]['target']} is not at its new place in every definition of it",
                    about=args["name"], remedy="Restart the job", keeps=True,
                )  # fmt: skip


# While it runs


def _mirror(ctx: StepContext, args: Args) -> None:
    for disk in args["disks"]:
        ctx.raise_if_cancelled()
        _begin(ctx, args, disk)
    while not _all_ready(ctx, args):
        ctx.raise_if_cancelled()
        time.sleep(_POLL_S)
    ctx.raise_if_cancelled()
    for disk in args["disks"]:
        _switch(ctx, args, disk)


def _begin(ctx: StepContext, args: Args, disk: Args) -> None:
    """Begin to mirror a disk, unless that is under way or over."""
    new = disk["new"]
    with ctx.calls("look at", args["name"]) as connection:
        element = _elements(connection.lookupByUUIDString(args["uuid"]), 0).get(disk["target"])
        if element is not None and (disk_source(element) == new["path"] or _mirror_path(element) == new["path"]):
            return
        _refuse_moved(args, disk, element)
    empty = {key: value for key, value in new.items() if key != "source"}
    verb_named("deploy.disk").do(ctx, empty)  # made anew: nothing of an earlier attempt is in it
    with ctx.calls("mirror a disk of", args["name"]) as connection:
        shallow = libvirt.VIR_DOMAIN_BLOCK_COPY_SHALLOW if new["backing"] else 0
        domain = connection.lookupByUUIDString(args["uuid"])
        domain.blockCopy(disk["target"], _mirror_xml(new), {}, _COPY | shallow)


def _refuse_moved(args: Args, disk: Args, element: Element | None) -> None:
    if element is None or disk_source(element) != disk["source"]:
        shown = printable(disk_source(element), limit=120) if element is not None else "none"
        cause = f"its disk {disk['target']} is another one now ({shown})"
        raise Conflict(cause, about=args["name"], remedy="Give the command again")
    if element.find("mirror") is not None:
        raise Conflict(f"its disk {disk['target']} is being moved or merged by somebody else", about=args["name"],
                       remedy="Wait until that is over")  # fmt: skip


def _mirror_path(element: Element) -> str:
    source = element.find("mirror/source")
    return "" if source is None else source.get("file") or source.get("dev") or ""


def _mirror_xml(new: Args) -> str:
    disk = Element("disk", type="file")
    SubElement(disk, "driver", type=new["format"])
    SubElement(disk, "source", file=new["path"])
    return to_text(disk)


def _all_ready(ctx: StepContext, args: Args) -> bool:
    """Whether every disk is at its new place, or mirrored and ready to switch. Raises WrongState when it went off."""
    done_bytes = end_bytes = 0
    ready = True
    with ctx.calls("look at the mirrors of", args["name"]) as connection:
        domain = connection.lookupByUUIDString(args["uuid"])
        if not domain.isActive():
            raise WrongState("it went off while its disks were mirrored", about=args["name"],
                             remedy="Restart the job: it copies them as they are now")  # fmt: skip
        elements = _elements(domain, 0)
        for disk in args["disks"]:
            element = elements.get(disk["target"])
            if element is not None and disk_source(element) == disk["new"]["path"]:
                continue
            if element is None or _mirror_path(element) != disk["new"]["path"]:
                raise HvtuiError(
                    f"the mirror of its disk {disk['target']} has ended: see whether the new pool is full, and QEMU's"
                    " log", about=args["name"], remedy="Make room, then restart the job",
                )  # fmt: skip
            mirror = element.find("mirror")
            ready = ready and mirror is not None and mirror.get("ready") == "yes"
            information = domain.blockJobInfo(disk["target"], 0) or {}
            done_bytes, end_bytes = done_bytes + information.get("cur", 0), end_bytes + information.get("end", 0)
    ctx.progress(done_bytes / end_bytes if end_bytes else None, "copying" if end_bytes else "preparing")
    return ready


def _switch(ctx: StepContext, args: Args, disk: Args) -> None:
    ctx.progress(None, f"switching {disk['target']} over")
    with ctx.calls("switch a disk of", args["name"]) as connection:
        domain = connection.lookupByUUIDString(args["uuid"])
        element = _elements(domain, 0).get(disk["target"])
        if element is not None and disk_source(element) != disk["new"]["path"]:
            domain.blockJobAbort(disk["target"], _PIVOT)
        _follow(connection, domain, disk)


def _follow(connection: Any, domain: Any, disk: Args) -> None:
    """Let the definition of the next start follow, where libvirt has not done so itself."""
    element = _elements(domain, _INACTIVE).get(disk["target"])
    if domain.isPersistent() and element is not None and disk_source(element) == disk["source"]:
        connection.defineXML(fitted(domain.XMLDesc(_SECURE), [_place(disk)]))


def _place(disk: Args) -> dict[str, str]:
    return {"target": disk["target"], "path": disk["new"]["path"], "format": disk["new"]["format"]}


# While it is off


def _copy(ctx: StepContext, args: Args) -> None:
    left = list(_not_switched(ctx, args))
    for disk in left:
        ctx.raise_if_cancelled()
        _refuse_used(ctx, args)
        if disk["new"]["backing"]:
            _copy_as_it_is(ctx, args, disk)
        else:
            clone_steps.copy_disk(ctx, disk, mark=args["mark"])
    ctx.raise_if_cancelled()
    with ctx.calls("switch the disks of", args["name"]) as connection:
        domain = connection.lookupByUUIDString(args["uuid"])
        before = domain.XMLDesc(_SECURE)
        _refuse_started(domain, args)
        connection.defineXML(fitted(before, [_place(disk) for disk in left]))
        if domain.isActive():  # started just before, on its disks as they were
            connection.defineXML(before)
            _refuse_started(domain, args)


def _copy_as_it_is(ctx: StepContext, args: Args, disk: Args) -> None:
    """Copy an image that builds on another, byte by byte: the host itself would put all of both into the copy."""
    new = disk["new"]
    place = (str(new["pool"]), str(new["name"]))
    with volume_of(ctx, disk["path"], mark=args["mark"]) as source, closing(open_host(ctx.host.uri)) as other:
        copied = volume_copy.copy(ctx.host, source, other, place, progress=ctx.progress, is_cancelled=ctx.is_cancelled)
    volume_copy.verify(ctx.host, *place, copied.stored, is_cancelled=ctx.is_cancelled)
    rebase(ctx, {**new, "volume": new["name"], "backing": new["backing"]["path"], "source_path": disk["path"]})
    with ctx.calls("look at", new["name"]) as connection:
        volumes.refresh(connection.storagePoolLookupByName(new["pool"]))


def _not_switched(ctx: StepContext, args: Args) -> Iterator[Args]:
    with ctx.calls("look at", args["name"]) as connection:
        elements = _elements(connection.lookupByUUIDString(args["uuid"]), _INACTIVE)
    for disk in args["disks"]:
        element = elements.get(disk["target"])
        if element is not None and disk_source(element) == disk["new"]["path"]:
            continue
        _refuse_moved(args, disk, element)
        yield disk


def _refuse_used(ctx: StepContext, args: Args) -> None:
    with ctx.calls("look at", args["name"]) as connection:
        _refuse_started(connection.lookupByUUIDString(args["uuid"]), args)


def _refuse_started(domain: Any, args: Args) -> None:
    if domain.isActive() or domain.hasManagedSaveImage(0):
        remedy = "Give the command again: the disks of a running VM are mirrored"
        raise WrongState("it is not off any more", about=args["name"], remedy=remedy)


# Take back


def _take_back(ctx: StepContext, args: Args, result: Result | None) -> None:
    """End the mirrors, and remove each new volume that the VM does not use."""
    settle(result)
    for disk in args["disks"]:
        _end_mirror(ctx, args, disk)
    kept = []
    for disk in args["disks"]:
        if _uses(ctx, args, disk["new"]["path"]):
            kept.append(disk["target"])
            continue
        rollback = verb_named("deploy.disk").rollback
        if rollback is not None:
            rollback(ctx, disk["new"], None)
    if kept:
        ctx.progress(1.0, f"{', '.join(kept)}: it is at its new place already, and stays there")


def _end_mirror(ctx: StepContext, args: Args, disk: Args) -> None:
    until_s = time.monotonic() + _ENDING_S
    while True:
        with ctx.calls("end a mirror of", args["name"]) as connection:
            domain = or_none(connection.lookupByUUIDString, args["uuid"], missing=_NO_DOMAIN)
            if domain is None or not domain.isActive():
                return
            element = _elements(domain, 0).get(disk["target"])
            if element is None or _mirror_path(element) != disk["new"]["path"]:
                return
            try:
                domain.blockJobAbort(disk["target"], 0)
            except libvirt.libvirtError as error:
                if error.get_error_domain() == libvirt.VIR_FROM_RPC or time.monotonic() > until_s:
                    raise
        time.sleep(_POLL_S)


def _uses(ctx: StepContext, args: Args, path: str) -> bool:
    with ctx.calls("look at", args["name"]) as connection:
        domain = or_none(connection.lookupByUUIDString, args["uuid"], missing=_NO_DOMAIN)
        if domain is None:
            return False
        return any(
            source.get("file") == path
            for flags in (0, _INACTIVE)
            for source in parse(domain.XMLDesc(flags)).iterfind("devices/disk//source")
        )


# What they leave


def _forget(ctx: StepContext, args: Args) -> Result:
    """Remove the old volume of each disk, where nobody uses it."""
    _check_both(ctx, args)
    removed, kept = [], {}
    for disk in args["disks"]:
        reason = _remove_old(ctx, args, disk["path"])
        if reason is None:
            removed.append(disk["path"])
        elif reason:
            kept[disk["path"]] = reason
    told = "; ".join(f"{printable(path, limit=100)} stays: {reason}" for path, reason in kept.items())
    return {"removed": removed, "kept": kept, **({"warning": told} if told else {})}


def _remove_old(ctx: StepContext, args: Args, path: str) -> str | None:
    """None when the image was removed, else why it was not; empty when it is gone already."""
    with ctx.calls("remove an old disk of", args["name"]) as connection:
        world = read_world(connection, ctx.host, without_uuid="")
        volume = or_none(connection.storageVolLookupByPath, path, missing=_NO_VOLUME)
        if volume is None:
            return ""
        reason = why_kept(world, path)
        if not reason:
            volumes.delete(volume)
        return reason or None


def _inverse_move(args: Args, _result: Result) -> str:
    pools = ", ".join(dict.fromkeys(printable(disk["pool"] or disk["path"], limit=60) for disk in args["disks"]))
    return f"move its disks back instead: hvtui vm move-storage --to POOL (they were in {pools})"


for _verb in (
    StepVerb("storage.move", _move, _take_back, _inverse_move),
    StepVerb(
        "storage.forget",
        _forget,
        None,
        lambda _args, result: "the old disks are removed for good" if result["removed"] else None,
    ),
):
    register(_verb)
