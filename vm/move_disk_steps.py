"""The step verbs that make a moving VM's disks at the target, and remove those that it left at the source.

Each looks at both hosts first: once the guest is at the target nothing is made or removed there any more. What is made
carries the plan's mark in its name, so that a step that runs again replaces only what its own plan made. The bytes of
an image are copied as they are, so formats, internal checkpoints and holes stay; of a chain each image is copied, and
says afterwards that it builds on the copy of the image below it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import libvirt

from host import volume_copy, volumes
from host.errors import Conflict, NotFound, UsageError, WrongState
from host.qcow2_header import HEAD_BYTES, backing_name, cluster_bytes, rebased
from host.steps import Args, Result, StepContext, StepVerb, register, verb_named
from host.text import printable
from vm import deploy_steps, host_files  # deploy_steps registers the verb of a disk
from vm.create_steps import or_none, settle
from vm.disk_uses import read_world, why_kept
from vm.domain_xml import disk_source, parse
from vm.move_model import BOOT_FILES
from vm.move_sides import behind_the_hand_over, has_left, look, look_at, wait_until_quiet

__all__ = ["at_target", "deploy_steps", "refuse_where_the_guest_is"]

_QUIET_S = 600.0
_NO_VOLUME = frozenset({libvirt.VIR_ERR_NO_STORAGE_VOL})
_NO_DOMAIN = frozenset({libvirt.VIR_ERR_NO_DOMAIN})


def at_target(ctx: StepContext, args: Args) -> StepContext:
    """The same step, working on the target."""
    return replace(ctx, host=ctx.peer(args["target"]))


def refuse_where_the_guest_is(ctx: StepContext, args: Args) -> None:
    """For rollbacks. Raises WrongState when the VM is at the target, ConnectionLost when that cannot be told."""
    here, there = look(ctx, args)
    if there.is_active or has_left(here, there):
        raise WrongState(
            f"it is at {printable(args['target_name'])} already, and what it needs there stays",
            about=args["name"],
            remedy="Restart the job: it completes the move",
            keeps=True,
        )


# Empty ones, for libvirt's own copying


def _make_disks(ctx: StepContext, args: Args) -> Result:
    _here, there = wait_until_quiet(ctx, args, patience_s=_QUIET_S)
    if there.is_active:
        return {}
    make = verb_named("deploy.disk").do
    for copy in args["copies"]:
        ctx.raise_if_cancelled()
        make(at_target(ctx, args), _new_disk(copy))
    return {}


def _new_disk(copy: Args) -> dict[str, Any]:
    """The arguments of deploy.disk for a copy (vm.move_model.DiskCopy)."""
    backing = {"path": copy["backing"], "format": copy["backing_format"]} if copy["backing"] else None
    return {
        "pool": copy["pool"],
        "name": copy["volume"],
        "path": copy["path"],
        "capacity_bytes": copy["capacity_bytes"],
        "format": copy["format"],
        "backing": backing,
    }


def _remove_disks(ctx: StepContext, args: Args, result: Result | None) -> None:
    settle(result)
    refuse_where_the_guest_is(ctx, args)
    rollback = verb_named("deploy.disk").rollback
    for copy in reversed(args["copies"]):
        if rollback is not None:
            rollback(at_target(ctx, args), {"pool": copy["pool"], "name": copy["volume"]}, None)


# Copies


def _copy_disks(ctx: StepContext, args: Args) -> Result:
    """Copy images, those below first. With `while_running` they are images that nobody writes to."""
    _here, there = look(ctx, args)
    return {} if there.is_active else copy_images(ctx, args)


def copy_images(ctx: StepContext, args: Args) -> Result:
    """Copy the images of `args`, one after the other; returns each copy's SHA-256 by its path, and how fast it went."""
    sums: dict[str, str] = {}
    sent_bytes, duration_s = 0, 0.0
    images = args["images"]
    for place, image in enumerate(images):
        ctx.raise_if_cancelled()
        if not args.get("while_running"):
            _refuse_running(ctx, args)
        copied = _copy_image(_part(ctx, place, len(images)), args, image)
        sums[image["path"]] = copied.stored.sha256
        sent_bytes, duration_s = sent_bytes + copied.sent_bytes, duration_s + copied.duration_s
    if not args.get("while_running"):
        _refuse_running(ctx, args)
    return {"sha256": sums, "bytes": sent_bytes, "bytes_s": sent_bytes / duration_s if duration_s else 0.0}


def _refuse_running(ctx: StepContext, args: Args) -> None:
    if look_at(ctx.host, args).is_active:
        remedy = "Shut it down, or move it while it runs"
        raise WrongState("it was started in the meantime, so that its disks may not fit together", about=args["name"],
                         remedy=remedy)  # fmt: skip


def _part(ctx: StepContext, place: int, count: int) -> StepContext:
    """A context whose progress is that of one part of several."""

    def progress(fraction: float | None, note: str) -> None:
        ctx.progress(None if fraction is None else (place + fraction) / count, note)

    return replace(ctx, progress=progress)


def _copy_image(ctx: StepContext, args: Args, image: Args) -> volume_copy.Copied:
    there = at_target(ctx, args)
    target_place = (str(image["pool"]), str(image["volume"]))
    name = printable(image["volume"], limit=60)
    copying, reading_back = _part(ctx, 0, 2), _part(ctx, 1, 2)
    with volume_of(ctx, image["source_path"], mark=args["mark"]) as source_place:
        copied = volume_copy.copy(
            ctx.host,
            source_place,
            there.host,
            target_place,
            progress=lambda fraction, note: copying.progress(fraction, f"{name}: {note}"),
            is_cancelled=ctx.is_cancelled,
        )
    volume_copy.verify(
        there.host,
        *target_place,
        copied.stored,
        progress=lambda fraction, note: reading_back.progress(fraction, f"{name}: reading it back, {note}"),
        is_cancelled=ctx.is_cancelled,
    )
    if image.get("backing"):
        rebase(there, image)
    with there.calls("look at", image["volume"]) as connection:
        volumes.refresh(connection.storagePoolLookupByName(image["pool"]))  # libvirt sees its format now
    return copied


def rebase(there: StepContext, image: Args) -> None:
    """Let the copy `volume` in `pool`, on the host of the context, build on the file `backing`. Raises UsageError."""
    with there.calls("let build on its copied base", image["volume"]) as connection:
        volume = connection.storagePoolLookupByName(image["pool"]).storageVolLookupByName(image["volume"])
        head = volumes.read_head(volume, size_bytes=HEAD_BYTES)
        head = volumes.read_head(volume, size_bytes=cluster_bytes(head) or HEAD_BYTES)
        if backing_name(head) == image["backing"]:
            return
        try:
            changed = rebased(head, image["backing"])
        except UsageError as error:
            error.about = error.about or str(image["source_path"])
            raise
        stream = connection.newStream(0)
        volume.upload(stream, 0, len(changed), 0)
        sent_bytes = 0
        while sent_bytes < len(changed):
            sent_bytes += stream.send(changed[sent_bytes : sent_bytes + volumes.CHUNK_BYTES])
        stream.finish()


@contextmanager
def volume_of(ctx: StepContext, path: str, *, mark: str) -> Iterator[tuple[str, str]]:
    """The pool and the volume by which the file at `path` can be read, also one that no pool has. Raises NotFound."""
    with ctx.calls("look for", path) as connection:
        volume = or_none(connection.storageVolLookupByPath, path, missing=_NO_VOLUME)
        place = (volume.storagePoolLookupByVolume().name(), volume.name()) if volume is not None else None
    if place is not None:
        yield place
        return
    directory, name = host_files.split(path)
    with host_files.directory_pool(ctx, directory, mark=mark) as pool:
        if pool is None or name not in host_files.sizes(ctx, pool):
            raise NotFound("there is no such file on the host", about=path)
        yield pool, name


def _remove_copies(ctx: StepContext, args: Args, result: Result | None) -> None:
    settle(result)
    refuse_where_the_guest_is(ctx, args)
    remove_images(ctx, args)


def remove_images(ctx: StepContext, args: Args) -> None:
    """Remove what `copy_images` made, whole or not."""
    rollback = verb_named("deploy.disk").rollback
    for image in reversed(args["images"]):
        if rollback is not None:
            rollback(at_target(ctx, args), {"pool": image["pool"], "name": image["volume"]}, None)
    host_files.remove_left(ctx, args["mark"])


# The source's own, when the VM is whole at the target


def _forget_disks(ctx: StepContext, args: Args) -> Result:
    with behind_the_hand_over():
        return _forget_each(ctx, args)


def _forget_each(ctx: StepContext, args: Args) -> Result:
    _refuse_unless_whole(ctx, args)
    removed: list[str] = []
    kept: dict[str, str] = {}
    for path in args["paths"]:
        reason = _forget(ctx, args, path)
        if reason is None:
            removed.append(path)
        elif reason:
            kept[path] = reason
    told = "; ".join(f"{printable(path, limit=100)} stays at {printable(args['source_name'])}: {reason}"
                     for path, reason in kept.items())  # fmt: skip
    return {"removed": removed, "kept": kept, **({"warning": told} if told else {})}


def _refuse_unless_whole(ctx: StepContext, args: Args) -> None:
    """The source's disks are the last copies of the VM's data, unless it is at the target with copies of its own."""
    if look_at(ctx.host, args).is_there:
        raise Conflict(f"it is still defined at {printable(args['source_name'])}", about=args["name"],
                       remedy="Restart the job once that is mended")  # fmt: skip
    with ctx.peer(args["target"]).calls("look for", args["name"]) as connection:
        domain = or_none(connection.lookupByUUIDString, args["uuid"], missing=_NO_DOMAIN)
        if domain is None:
            raise NotFound(
                f"it is not at {printable(args['target_name'])}, and its disks at"
                f" {printable(args['source_name'])} stay as they are", about=args["name"],
            )  # fmt: skip
        texts = {domain.XMLDesc(0), domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE)}
        roots = [parse(text) for text in texts]
        used = {disk_source(disk) for root in roots for disk in root.iterfind("devices/disk")}
        used |= {root.findtext(f"os/{tag}", "") for root in roots for tag in BOOT_FILES}
        missing = [copy for copy in args["copies"] if copy["path"] not in used or not _is_there(connection, copy)]
    if missing:
        cause = f"it does not use its copied disk {printable(missing[0]['path'])}, and the disks it left stay"
        raise Conflict(cause, about=args["name"], remedy="See what became of it; then remove them by hand")


def _is_there(connection: Any, copy: Args) -> bool:
    pool = connection.storagePoolLookupByName(copy["pool"])
    return or_none(pool.storageVolLookupByName, copy["volume"], missing=_NO_VOLUME) is not None


def _forget(ctx: StepContext, args: Args, path: str) -> str | None:
    """None when the image was removed, else why it was not; empty when it is gone already."""
    with ctx.calls("remove a disk of", args["name"]) as connection:
        world = read_world(connection, ctx.host, without_uuid="")
        volume = or_none(connection.storageVolLookupByPath, path, missing=_NO_VOLUME)
        if volume is None:
            return "no storage pool knows it" if path in args.get("outside", ()) else ""
        reason = why_kept(world, path)
        if not reason:
            volumes.delete(volume)
        return reason or None


for _verb in (
    StepVerb("move.make-disks", _make_disks, _remove_disks, lambda _args, _result: None),
    StepVerb("move.copy-disks", _copy_disks, _remove_copies, lambda _args, _result: None),
    StepVerb(
        "move.forget-disks",
        _forget_disks,
        None,
        lambda _args, result: "the disks that it left are removed for good" if result["removed"] else None,
        without_vm=True,
    ),
):
    register(_verb)
