"""The step verbs of a clone: copies of its disks, its firmware variables, and the frozen base of linked clones.

What they make has a name that the plan chose and that holds eight digits of the clone's uuid (of the plan's mark, for
the origin's new overlay): whatever has it is this job's own. The origin's own disks are only read; while it runs they
are frozen under temporary overlays (vm.clone_live), which are merged back whatever becomes of the copies.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from xml.etree.ElementTree import Element

import libvirt

from host import volumes
from host.errors import HvtuiError, UsageError, WrongState
from host.plan import Step
from host.steps import Args, Result, StepContext, StepVerb, register, verb_named
from host.text import printable
from host.units import MIB
from vm import clone_live, deploy_steps, host_files  # deploy_steps registers the verb of a disk
from vm.clone_xml import CloneDisk, replace_disk, target_of
from vm.create_steps import or_none, settle, volume_xml
from vm.disk_uses import read_world
from vm.domain_xml import disk_source, parse, to_text

__all__ = ["deploy_steps"]

_NO_DOMAIN = frozenset({libvirt.VIR_ERR_NO_DOMAIN})
_NO_VOLUME = frozenset({libvirt.VIR_ERR_NO_STORAGE_VOL})
_INACTIVE = libvirt.VIR_DOMAIN_XML_INACTIVE
_SECURE = _INACTIVE | libvirt.VIR_DOMAIN_XML_SECURE
_MAGIC = b"QFI\xfb"
_LARGEST_TABLE_BYTES = 32 * MIB


# Copies of the disks


def _copy_disks(ctx: StepContext, args: Args) -> Result:
    """Copy all disks as they are at one moment: the VM is off, or its disks are frozen meanwhile."""
    if args["live"]:
        _take_back_overlays(ctx, args)
    if not _is_active(ctx, args):
        _refuse_unless_off(ctx, args)
        _copy_all(ctx, args)
        _refuse_unless_off(ctx, args)
        return {}
    if not args["live"]:
        remedy = "Shut it down again, or give the command again: a running one is cloned from frozen disks"
        raise WrongState("it was started in the meantime", about=args["name"], remedy=remedy)
    with clone_live.frozen(ctx, args) as is_quiet:
        _copy_all(ctx, args)
    return {"quiet": is_quiet}


def _take_back_overlays(ctx: StepContext, args: Args) -> None:
    """An earlier attempt was killed: end its copies before its overlays are merged into what they read."""
    with ctx.calls("look at", args["name"]) as connection:
        domain = or_none(connection.lookupByUUIDString, args["uuid"], missing=_NO_DOMAIN)
        text = domain.XMLDesc(0) if domain is not None else ""
    if any(disk["overlay"] in text for disk in args["disks"]):
        _remove_copies(ctx, args)
    clone_live.thaw(ctx, args)


def _is_active(ctx: StepContext, args: Args) -> bool:
    with ctx.calls("look at", args["name"]) as connection:
        return bool(connection.lookupByUUIDString(args["uuid"]).isActive())


def _refuse_unless_off(ctx: StepContext, args: Args) -> None:
    with ctx.calls("look at", args["name"]) as connection:
        domain = connection.lookupByUUIDString(args["uuid"])
        if domain.isActive() or domain.hasManagedSaveImage(0):
            remedy = "Shut it down, then clone it again"
            raise WrongState("it is not off any more, so that its disks may not fit together", about=args["name"],
                             remedy=remedy)  # fmt: skip
        clone_live.refuse_moved(parse(domain.XMLDesc(_INACTIVE)), args)


def _copy_all(ctx: StepContext, args: Args) -> None:
    for disk in args["disks"]:
        ctx.raise_if_cancelled()
        copy_disk(ctx, disk, mark=args["mark"])


def copy_disk(ctx: StepContext, disk: Args, *, mark: str) -> None:
    """Copy an image of the host, with all that it builds on, to the volume `new` (arguments of deploy.disk). Raises
    UsageError when its content is not of the format that its VM's definition says."""
    with volume_of(ctx, disk, mark=mark) as (pool, name):
        found = _format_of(ctx, pool, name)
        if not ctx.host.is_simulated and found != disk["format"]:
            cause = f"its VM's definition says {printable(disk['format'])}, its content {printable(found)}"
            raise UsageError(cause, about=disk["path"], remedy="What a guest wrote there is not believed")
        source = {**disk["new"]["source"], "pool": pool, "volume": name}
        verb_named("deploy.disk").do(ctx, {**disk["new"], "source": source})


@contextmanager
def volume_of(ctx: StepContext, disk: Args, *, mark: str) -> Iterator[tuple[str, str]]:
    """The pool and the volume that a file of the host can be read by. Raises HvtuiError."""
    if disk["pool"]:
        yield disk["pool"], disk["volume"]
        return
    directory, name = host_files.split(disk["path"])
    with host_files.directory_pool(ctx, directory, mark=mark) as pool:
        if pool is None:
            raise HvtuiError("there is no such directory on the host", about=directory)
        yield pool, name


def _format_of(ctx: StepContext, pool: str, name: str) -> str:
    with ctx.calls("look at", name) as connection:
        root = parse(connection.storagePoolLookupByName(pool).storageVolLookupByName(name).XMLDesc(0), root="volume")
    found = root.find("target/format")
    kind = "raw" if found is None else found.get("type", "raw")
    return kind if root.get("type", "file") == "file" else "raw"


def _remove_copies(ctx: StepContext, args: Args) -> None:
    rollback = verb_named("deploy.disk").rollback
    for disk in args["disks"]:
        if rollback is not None:
            rollback(ctx, disk["new"], None)


def _uncopy(ctx: StepContext, args: Args, result: Result | None) -> None:
    settle(result)
    _remove_copies(ctx, args)  # first: a copy that libvirt still makes holds what the overlays are merged into
    if args["live"]:
        clone_live.thaw(ctx, args)


def _inverse_copy(args: Args, _result: Result) -> Step:
    names = ", ".join(str(disk["new"]["name"]) for disk in args["disks"])
    losses = tuple(f"the disk {disk['new']['path']} and everything written to it" for disk in args["disks"])
    given = {"uuid": args["uuid"], "name": args["name"], "disks": args["disks"], "live": False}
    return Step("clone.remove-copies", f"Remove {names}", given, losses=losses)


def _remove(ctx: StepContext, args: Args) -> Result:
    _remove_copies(ctx, args)
    return {}


# Firmware variables


def _copy_nvram(ctx: StepContext, args: Args) -> Result:
    """Copy the origin's firmware variables beside them, under the clone's name; libvirt makes new ones where the
    origin has none yet."""
    directory, name = host_files.split(args["source"])
    new = host_files.split(args["path"])[1]
    with host_files.directory_pool(ctx, directory, mark=args["mark"]) as pool:
        if pool is None or name not in host_files.sizes(ctx, pool):
            return {"missing": True}
        with ctx.calls("copy the firmware variables of", args["name"]) as connection:
            found = connection.storagePoolLookupByName(pool)
            left = or_none(found.storageVolLookupByName, new, missing=_NO_VOLUME)
            if left is not None:
                volumes.delete(left)  # of this name there is only ours
            source = found.storageVolLookupByName(name)
            wanted = {"name": new, "capacity_bytes": source.info()[1], "format": "raw", "mode": volumes.PRIVATE_MODE}
            found.createXMLFrom(volume_xml(wanted), source, 0)
    return {}


def _remove_nvram(ctx: StepContext, args: Args, result: Result | None) -> None:
    settle(result)
    directory, name = host_files.split(args["path"])
    with host_files.directory_pool(ctx, directory, mark=args["mark"]) as pool:
        if pool is None:
            return
        with ctx.calls("remove the firmware variables of", args["name"]) as connection:
            found = connection.storagePoolLookupByName(pool)
            volume = or_none(found.storageVolLookupByName, name, missing=_NO_VOLUME)
            if volume is not None:
                volumes.delete(volume)


def _nothing(_args: Args, _result: Result) -> None:
    return  # they go with the VM's definition


# The base of linked clones


def _freeze(ctx: StepContext, args: Args) -> Result:
    """Give the origin overlays of its own, so that its disks so far are never written again."""
    if _is_switched(ctx, args):
        return {}  # and never made anew: the origin may have written to them
    make = verb_named("deploy.disk").do
    for disk in args["disks"]:
        ctx.raise_if_cancelled()
        make(ctx, disk["new"])
    with ctx.calls("switch the disks of", args["name"]) as connection:
        domain = connection.lookupByUUIDString(args["uuid"])
        _refuse_used(domain, args)
        clone_live.refuse_moved(parse(domain.XMLDesc(_INACTIVE)), args)
        before = domain.XMLDesc(_SECURE)
        connection.defineXMLFlags(_switched(before, args), 0)
        if domain.isActive():  # it was started just before, on its disks as they were
            connection.defineXMLFlags(before, 0)
            _refuse_used(domain, args)
    return {}


def _is_switched(ctx: StepContext, args: Args) -> bool:
    with ctx.calls("look at", args["name"]) as connection:
        domain = or_none(connection.lookupByUUIDString, args["uuid"], missing=_NO_DOMAIN)
        return domain is not None and _is_on_overlays(domain, args)


def _is_on_overlays(domain: Any, args: Args) -> bool:
    wanted = {str(disk["new"]["path"]) for disk in args["disks"]}
    texts = (domain.XMLDesc(_INACTIVE), domain.XMLDesc(0))
    return any(disk_source(disk) in wanted for text in texts for disk in parse(text).iterfind("devices/disk"))


def _refuse_used(domain: Any, args: Args) -> None:
    if domain.isActive() or domain.hasManagedSaveImage(0):
        raise WrongState("it is not off any more", about=args["name"], remedy="Shut it down, then clone it again")


def _switched(text: str, args: Args, *, back: bool = False) -> str:
    root = parse(text)
    disks = {disk["target"]: disk for disk in args["disks"]}
    for element in root.iterfind("devices/disk"):
        disk = disks.get(target_of(element))
        if disk is not None and back:
            _put_back(element, parse(disk["element"], root="disk"))
        elif disk is not None:
            replace_disk(element, CloneDisk(disk["new"]["path"], "qcow2"))
    return to_text(root)


def _put_back(element: Element, before: Element) -> None:
    """The source and the driver as they were; the rest may have been changed since."""
    element.set("type", before.get("type", "file"))
    for tag in ("driver", "source", "backingStore"):
        for child in element.findall(tag):
            element.remove(child)
        for place, child in enumerate(before.findall(tag)):
            element.insert(place, child)


def _unfreeze(ctx: StepContext, args: Args, result: Result | None = None) -> str:
    """Give the origin its disks back, if it wrote nothing to its overlays and nobody else builds on the disks. Returns
    why it keeps the overlays otherwise: that is safe for it and for every clone."""
    settle(result)
    if _is_switched(ctx, args):
        reason = _switch_back(ctx, args)
        if reason:
            return reason
    rollback = verb_named("deploy.disk").rollback
    for disk in args["disks"]:
        if rollback is not None and not _is_used(ctx, disk["new"]["path"]) and not _was_written(ctx, disk["new"]):
            rollback(ctx, disk["new"], {})
    return ""


def _switch_back(ctx: StepContext, args: Args) -> str:
    for disk in args["disks"]:
        if _is_used(ctx, disk["path"], but=disk["new"]["path"]) or _is_used(ctx, disk["new"]["path"], but=args["name"]):
            return "others build on its disk"
    with ctx.calls("switch the disks back of", args["name"]) as connection:
        domain = connection.lookupByUUIDString(args["uuid"])
        if domain.isActive() or domain.hasManagedSaveImage(0):
            return "it is not off"
        for disk in args["disks"]:
            pool = connection.storagePoolLookupByName(disk["new"]["pool"])
            if _is_written(ctx, pool.storageVolLookupByName(disk["new"]["name"])):
                return "it has written to it since"
        now = domain.XMLDesc(_SECURE)
        connection.defineXMLFlags(_switched(now, args, back=True), 0)
        if domain.isActive():  # started just before: it runs on its overlays, and goes on with them
            connection.defineXMLFlags(now, 0)
            return "it is not off"
    return ""


def _is_used(ctx: StepContext, path: str, *, but: str = "") -> bool:
    with ctx.calls("see who builds on", path) as connection:
        world = read_world(connection, ctx.host, without_uuid="")
        who = {*world.look_up(world.builders, path), *world.look_up(world.users, path)}
        through = {user for each in {but} for user in world.look_up(world.users, each)}
        return bool(who - {but} - (through if but.startswith("/") else set()))


def _was_written(ctx: StepContext, new: Args) -> bool:
    """True for an overlay that was in use; whatever names it now, it may hold somebody's data."""
    with ctx.calls("look at", new["name"]) as connection:
        pool = connection.storagePoolLookupByName(new["pool"])
        volume = or_none(pool.storageVolLookupByName, new["name"], missing=_NO_VOLUME)
        return volume is not None and _is_written(ctx, volume)


def _is_written(ctx: StepContext, volume: Any) -> bool:
    """False for a qcow2 that nothing was ever written to: its first table of clusters is all zeros."""
    if ctx.host.is_simulated:
        return False
    header = volumes.read_head(volume, size_bytes=104)
    if len(header) < 48 or header[:4] != _MAGIC:
        return False  # half made: no VM ever had it
    entries, offset = struct.unpack(">IQ", header[36:48])
    if offset + entries * 8 > _LARGEST_TABLE_BYTES:
        return True
    return any(volumes.read_head(volume, size_bytes=offset + entries * 8)[offset:])


def _undo_freeze(ctx: StepContext, args: Args) -> Result:
    reason = _unfreeze(ctx, args, {})
    return {"warning": f"{printable(args['name'])} keeps its overlay: {reason}"} if reason else {}


def _rollback_freeze(ctx: StepContext, args: Args, result: Result | None) -> None:
    reason = _unfreeze(ctx, args, result)
    if reason:
        ctx.progress(1.0, f"it keeps its overlay: {reason}")


def _inverse_freeze(args: Args, _result: Result) -> Step:
    return Step("clone.unfreeze", f"Give {args['name']} its disks back, if it wrote nothing since", args)


for _verb in (
    StepVerb("clone.disks", _copy_disks, _uncopy, _inverse_copy),
    StepVerb("clone.nvram", _copy_nvram, _remove_nvram, _nothing),
    StepVerb("clone.freeze", _freeze, _rollback_freeze, _inverse_freeze),
    StepVerb("clone.unfreeze", _undo_freeze, None, lambda _args, _result: "the clones' base is in use again"),
    StepVerb(
        "clone.remove-copies", _remove, None, lambda _args, _result: "what was removed is gone for good",
        without_vm=True,
    ),
):  # fmt: skip
    register(_verb)
