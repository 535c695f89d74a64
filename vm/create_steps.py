"""The step verbs that make a VM, and those that take one away again: storage pool, tiny guest, disk, definition, start.

What a step makes it can recognise as its own, so that it can be killed at any moment and then be run again or rolled
back: the VM and the pool have a uuid and the disk has a name that the plan chose and nobody else can have. The tiny
guest's two files are shared by all VMs made from it: they are removed only when no VM names them.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any
from xml.etree.ElementTree import Element, SubElement

import libvirt

from host.errors import Busy
from host.plan import Step
from host.steps import Args, Result, StepContext, StepVerb, register
from host.text import printable
from vm import tiny
from vm.disk_uses import read_world
from vm.domain_xml import to_text

_POLL_S = 0.1
_SETTLE_S = 0.5
_BUILDING_S = 30.0
_CHUNK_BYTES = 256 * 1024  # libvirt sends at most about 4 MiB in one message
_NO_POOL = frozenset({libvirt.VIR_ERR_NO_STORAGE_POOL})
_NO_VOLUME = frozenset({libvirt.VIR_ERR_NO_STORAGE_VOL})
_NO_DOMAIN = frozenset({libvirt.VIR_ERR_NO_DOMAIN})
_NO_SUCH_FLAG = frozenset({libvirt.VIR_ERR_INVALID_ARG, libvirt.VIR_ERR_ARGUMENT_UNSUPPORTED})
_SIMULATED = libvirt.VIR_DOMAIN_UNDEFINE_MANAGED_SAVE | libvirt.VIR_DOMAIN_UNDEFINE_SNAPSHOTS_METADATA
_BEFORE_8_9 = _SIMULATED | libvirt.VIR_DOMAIN_UNDEFINE_CHECKPOINTS_METADATA | libvirt.VIR_DOMAIN_UNDEFINE_NVRAM
# Everything that a VM may have, by what the driver knows: libvirt itself, an older one, the test driver.
_UNDEFINE_FLAGS = (_BEFORE_8_9 | libvirt.VIR_DOMAIN_UNDEFINE_TPM, _BEFORE_8_9, _SIMULATED)


def or_none(call: Any, *arguments: object, missing: frozenset[int]) -> Any | None:
    """The call's value, or None when libvirt says that the object is not there."""
    try:
        return call(*arguments)
    except libvirt.libvirtError as error:
        if error.get_error_code() in missing:
            return None
        raise


def settle(result: Result | None) -> None:
    """After an interrupted step: let libvirtd come to an end with the call that the killed process had made."""
    if result is None:
        time.sleep(_SETTLE_S)


# Storage pool


def _make_pool(ctx: StepContext, args: Args) -> Result:
    name = args["name"]
    with ctx.calls("prepare the storage pool", name) as connection:
        pool = or_none(connection.storagePoolLookupByName, name, missing=_NO_POOL)
        if pool is None:
            pool = connection.storagePoolDefineXML(pool_xml(args), 0)
        made = pool.UUIDString() == args["uuid"]
        if not pool.isActive():
            if made:
                pool.build(0)  # the directory; one that is there is left as it is
            pool.create(0)
        if made:
            pool.setAutostart(1)
    return {"made": made}


def pool_xml(args: Args) -> str:
    """The XML of a directory pool with the name, uuid and path of `args`."""
    root = Element("pool", type="dir")
    for tag in ("name", "uuid"):
        SubElement(root, tag).text = args[tag]
    SubElement(SubElement(root, "target"), "path").text = args["path"]
    return to_text(root)


def _remove_pool(ctx: StepContext, args: Args, result: Result | None = None) -> None:
    """Remove the pool's definition if this job made it and it is empty; its directory stays."""
    settle(result)
    with ctx.calls("remove the storage pool", args["name"]) as connection:
        pool = or_none(connection.storagePoolLookupByUUIDString, args["uuid"], missing=_NO_POOL)
        if pool is None or (pool.isActive() and pool.numOfVolumes()):
            return
        if pool.isActive():
            pool.destroy()
        pool.undefine()


def _inverse_pool(args: Args, result: Result) -> Step | None:
    if not result["made"]:
        return None
    return Step("create.remove-pool", f"Remove the storage pool {args['name']} if it is empty", args)


# Volumes


def _make_volume(ctx: StepContext, args: Args) -> Result:
    with ctx.calls("make the disk", args["name"]) as connection:
        pool = connection.storagePoolLookupByName(args["pool"])
        left = or_none(pool.storageVolLookupByName, args["name"], missing=_NO_VOLUME)
        if left is not None:  # of this name there is only ours: perhaps half made, and never used
            delete_volume(left)
        return {"path": pool.createXML(volume_xml(args), 0).path()}


def delete_volume(volume: Any) -> None:
    """Delete it, as soon as libvirtd has made it: it goes on with what a killed process asked for."""
    until_s = time.monotonic() + _BUILDING_S
    while True:
        try:
            or_none(volume.delete, 0, missing=_NO_VOLUME)
        except libvirt.libvirtError as error:
            if error.get_error_code() != libvirt.VIR_ERR_OPERATION_INVALID or time.monotonic() > until_s:
                raise
            time.sleep(_POLL_S)
        else:
            return


def volume_xml(args: Args) -> str:
    """The XML of a volume with the name, capacity and format of `args`; it takes room as it fills."""
    root = Element("volume")
    SubElement(root, "name").text = args["name"]
    SubElement(root, "capacity", unit="bytes").text = str(args["capacity_bytes"])
    SubElement(root, "allocation", unit="bytes").text = "0"
    target = SubElement(root, "target")
    SubElement(target, "format", type=args["format"])
    if args.get("mode"):
        SubElement(SubElement(target, "permissions"), "mode").text = args["mode"]
    return to_text(root)


def _remove_volume(ctx: StepContext, args: Args, result: Result | None = None) -> None:
    settle(result)
    _remove_volumes(ctx, args["pool"], [args["name"]], keep_used=False)


def _remove_volumes(ctx: StepContext, pool_name: str, names: Iterable[str], *, keep_used: bool) -> None:
    """Remove volumes that are this job's own. Raises Busy for one that another VM uses, unless `keep_used`."""
    with ctx.calls("remove a disk", pool_name) as connection:
        pool = or_none(connection.storagePoolLookupByName, pool_name, missing=_NO_POOL)
        if pool is None or not pool.isActive():
            return
        world = read_world(connection, ctx.host, without_uuid="")
        for name in names:
            volume = or_none(pool.storageVolLookupByName, name, missing=_NO_VOLUME)
            if volume is None:
                continue
            users = (*world.look_up(world.users, volume.path()), *world.look_up(world.builders, volume.path()))
            if not users:
                delete_volume(volume)
            elif not keep_used:
                who = ", ".join(printable(user, limit=80) for user in users[:3])
                raise Busy(f"the disk is used by {who}", about=volume.path(), remedy="Take it away there first")


def _inverse_volume(args: Args, result: Result) -> Step:
    loss = f"the disk {result['path']} and everything written to it"
    return Step("create.remove-volume", f"Remove the disk {args['name']}", args, losses=(loss,))


# The tiny guest


def tiny_volume_names(key: str) -> tuple[str, str]:
    """The names of the kernel's and the initial RAM disk's volumes."""
    return f"hvtui-tiny-{key}.vmlinuz", f"hvtui-tiny-{key}.initrd"


def _make_tiny(ctx: StepContext, args: Args) -> Result:
    guest = tiny.build(
        lambda fraction, note: ctx.progress(fraction and fraction * 0.9, note),
        key=args["key"],
        is_cancelled=ctx.is_cancelled,
    )
    made = []
    with tiny.locked(), ctx.calls("upload the tiny guest", args["pool"]) as connection:
        pool = connection.storagePoolLookupByName(args["pool"])
        for name, path in zip(tiny_volume_names(args["key"]), (guest.kernel, guest.initrd), strict=True):
            ctx.raise_if_cancelled()
            data = path.read_bytes()
            volume = or_none(pool.storageVolLookupByName, name, missing=_NO_VOLUME)
            if volume is None or not _holds(connection, volume, data):
                if volume is not None:
                    delete_volume(volume)  # half uploaded by a job that was killed
                made.append(name)
                upload_bytes(connection, pool, name, data)
        ctx.progress(1.0, guest.note or "ready to boot")
    return {"made": made, "note": guest.note}


def _holds(connection: libvirt.virConnect, volume: Any, data: bytes) -> bool:
    if volume.info()[1] != len(data):
        return False
    got: list[bytes] = []
    stream = connection.newStream(0)
    volume.download(stream, 0, len(data), 0)
    stream.recvAll(lambda _stream, chunk, _opaque: got.append(chunk), None)
    stream.finish()
    return b"".join(got) == data


def upload_bytes(connection: libvirt.virConnect, pool: Any, name: str, data: bytes, *, mode: str = "0644") -> None:
    """Make a volume with these contents. `mode` is that of its file."""
    xml = volume_xml({"name": name, "capacity_bytes": len(data), "format": "raw", "mode": mode})
    volume = pool.createXML(xml, 0)
    view = memoryview(data)
    sent = 0

    def source(_stream: Any, wanted_bytes: int, _opaque: Any) -> bytes:
        nonlocal sent
        chunk = bytes(view[sent : sent + min(wanted_bytes, _CHUNK_BYTES)])
        sent += len(chunk)
        return chunk

    stream = connection.newStream(0)
    volume.upload(stream, 0, len(data), 0)
    stream.sendAll(source, None)
    stream.finish()


def _rollback_tiny(ctx: StepContext, args: Args, result: Result | None) -> None:
    settle(result)
    made: Any = tiny_volume_names(args["key"]) if result is None else result["made"]
    with tiny.locked():  # other jobs of a set may be taken back at the same time, and share these volumes
        _remove_volumes(ctx, args["pool"], [name for name in made if name not in args["existed"]], keep_used=True)


def _remove_tiny(ctx: StepContext, args: Args, _result: Result | None = None) -> None:
    with tiny.locked():
        _remove_volumes(ctx, args["pool"], args["names"], keep_used=True)


def _inverse_tiny(args: Args, result: Result) -> Step | None:
    if not result["made"]:
        return None
    title = "Remove the tiny guest's kernel unless another VM uses it"
    return Step("create.remove-tiny", title, {"pool": args["pool"], "names": result["made"]})


# The VM itself


def _define(ctx: StepContext, args: Args) -> Result:
    with ctx.calls("define", args["name"]) as connection:
        flags = (
            0 if args.get("is_valid") else libvirt.VIR_DOMAIN_DEFINE_VALIDATE
        )  # the schema takes a tenth of a second
        domain = connection.defineXMLFlags(args["xml"], flags)
        if args["autostart"]:
            domain.setAutostart(1)
    return {}


def _undefine(ctx: StepContext, args: Args, result: Result | None = None) -> None:
    settle(result)
    with ctx.calls("remove", args["name"]) as connection:
        domain = or_none(connection.lookupByUUIDString, args["uuid"], missing=_NO_DOMAIN)
        if domain is None:
            return
        if domain.isActive():
            domain.destroy()  # started by somebody while its making failed
        _undefine_all(domain)
    _stop(ctx, args, {})  # a start that was still under way leaves a VM that runs without a definition


def _undefine_all(domain: Any) -> None:
    for flags in _UNDEFINE_FLAGS:
        try:
            domain.undefineFlags(flags)
        except libvirt.libvirtError as error:
            if error.get_error_code() not in _NO_SUCH_FLAG or flags == _UNDEFINE_FLAGS[-1]:
                raise
        else:
            return


def _inverse_define(args: Args, _result: Result) -> Step:
    loss = f"the VM {args['name']} with its firmware variables, saved state and checkpoints"
    return Step("create.undefine", f"Remove {args['name']}", _identity(args), losses=(loss,))


def _start(ctx: StepContext, args: Args) -> Result:
    until_s = time.monotonic() + _BUILDING_S
    with ctx.calls("start", args["name"]) as connection:
        domain = connection.lookupByUUIDString(args["uuid"])
        while _is_starting(domain):  # libvirtd goes on with what a killed process asked for
            ctx.raise_if_cancelled()
            if time.monotonic() > until_s:  # it was killed itself, and nobody goes on: no guest has run yet
                domain.destroy()
            time.sleep(_POLL_S)
        if not domain.isActive():
            domain.create()
    return {}


def _is_starting(domain: Any) -> bool:
    state, reason = domain.state()
    return bool(state == libvirt.VIR_DOMAIN_PAUSED and reason == libvirt.VIR_DOMAIN_PAUSED_STARTING_UP)


def _stop(ctx: StepContext, args: Args, result: Result | None = None) -> None:
    settle(result)
    with ctx.calls("stop", args["name"]) as connection:
        domain = or_none(connection.lookupByUUIDString, args["uuid"], missing=_NO_DOMAIN)
        if domain is not None and domain.isActive():
            domain.destroy()


def _inverse_start(args: Args, _result: Result) -> Step:
    loss = "what the guest has in memory"
    return Step("create.stop", f"Turn {args['name']} off", _identity(args), losses=(loss,))


def _identity(args: Args) -> dict[str, Any]:
    return {"uuid": args["uuid"], "name": args["name"]}


# Undo: each of these removes something for good, so there is no way back from it.


def _undo_verb(name: str, remove: Any) -> StepVerb:
    def do(ctx: StepContext, args: Args) -> Result:
        remove(ctx, args, {})
        return {}

    return StepVerb(name, do, None, lambda _args, _result: "what was removed is gone for good", without_vm=True)


for _verb in (
    StepVerb("create.pool", _make_pool, _remove_pool, _inverse_pool),
    StepVerb("create.volume", _make_volume, _remove_volume, _inverse_volume),
    StepVerb("create.tiny", _make_tiny, _rollback_tiny, _inverse_tiny),
    StepVerb("create.define", _define, _undefine, _inverse_define),
    StepVerb("create.start", _start, _stop, _inverse_start),
    _undo_verb("create.remove-pool", _remove_pool),
    _undo_verb("create.remove-volume", _remove_volume),
    _undo_verb("create.remove-tiny", _remove_tiny),
    _undo_verb("create.undefine", _undefine),
    _undo_verb("create.stop", _stop),
):
    register(_verb)
