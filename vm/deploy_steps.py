"""The step verbs that a deployment needs besides those of vm.create_steps: a disk from a template's, the seed, its end.

What they make has a name that the plan chose and that holds eight digits of the new VM's uuid: whatever has it is this
job's own, whole or half made. The happy path of a disk is one call that looks nothing up first: fifty VMs are made as
fast as by a script. What the seed says is a secret (host.secrets): it is on the seed's volume only, until that is gone.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from collections.abc import Set as AbstractSet
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any
from xml.etree.ElementTree import Element, SubElement

import libvirt

from host.errors import HvtuiError, NotFound
from host.job_model import HELD_UP
from host.plan import Step
from host.steps import Args, Result, StepContext, StepVerb, register
from vm.create_steps import delete_volume, or_none, settle, upload_bytes, volume_xml
from vm.domain_xml import parse, to_text

_POLL_S = 0.3
_UNPLUG_S = 20.0  # a guest that is busy booting may let go of a drive late
_BUSY_S = 600.0  # as long as libvirt may copy what a killed process asked for
_NO_POOL = frozenset({libvirt.VIR_ERR_NO_STORAGE_POOL})
_NO_VOLUME = frozenset({libvirt.VIR_ERR_NO_STORAGE_VOL})
_NO_DOMAIN = frozenset({libvirt.VIR_ERR_NO_DOMAIN})
_LIVE, _CONFIG = libvirt.VIR_DOMAIN_AFFECT_LIVE, libvirt.VIR_DOMAIN_AFFECT_CONFIG
_FORCE = libvirt.VIR_DOMAIN_DEVICE_MODIFY_FORCE


# Disks


def disk_xml(args: Args) -> str:
    """The XML of a new disk with the name, capacity and format of `args`, on the image `backing` if there is one.

    Without a word about it libvirt makes the qcow2 of 2010, which knows no zero clusters: copying takes five times as
    long, and what the guest discards stays on the host.
    """
    root = parse(volume_xml(args), root="volume")
    target = root.find("target")
    if args["format"] == "qcow2" and target is not None:
        SubElement(target, "compat").text = "1.1"
    if backing := args.get("backing"):
        element = SubElement(root, "backingStore")
        SubElement(element, "path").text = backing["path"]
        SubElement(element, "format", type=backing["format"])
    return to_text(root)


def _make_disk(ctx: StepContext, args: Args) -> Result:
    if args.get("source"):
        return _copy_disk(ctx, args)
    with ctx.calls("make the disk", args["name"]) as connection:
        pool = connection.storagePoolLookupByName(args["pool"])
        _make_anew(ctx, pool, args["name"], lambda: pool.createXML(disk_xml(args), 0))
    return {}


def _make_anew(ctx: StepContext, pool: Any, name: str, make: Callable[[], object]) -> None:
    """Call `make`; when a volume of this job's name is there, perhaps half made and never used, remove it before."""
    try:
        make()
    except libvirt.libvirtError as error:
        if not _is_there_already(error):
            raise
        _remove_if_there(ctx, pool, name, refresh=True)
        make()


def _is_there_already(error: libvirt.libvirtError) -> bool:
    """libvirt has a code for a volume that it knows where one is made, and only words for one that is copied to, or for
    a file that it does not know."""
    code, message = error.get_error_code(), error.get_error_message() or ""
    return code == libvirt.VIR_ERR_STORAGE_VOL_EXIST or "already exists" in message or "already in use" in message


def _copy_disk(ctx: StepContext, args: Args) -> Result:
    """One call of libvirt copies: nothing can interrupt it, so whoever cancels waits until it is over."""
    if ctx.host.is_simulated:
        _copy(ctx, args)
        return {}
    with ThreadPoolExecutor(1, "copy") as pool:
        copying = pool.submit(_copy, ctx, args)
        _watch_copy(ctx, args, copying)
    copying.result()
    ctx.raise_if_cancelled()
    return {}


def _copy(ctx: StepContext, args: Args) -> None:
    with ctx.calls("copy the template's disk", args["name"]) as connection:
        source_pool = connection.storagePoolLookupByName(args["source"]["pool"])
        source = source_pool.storageVolLookupByName(args["source"]["volume"])
        pool = connection.storagePoolLookupByName(args["pool"])
        _make_anew(ctx, pool, args["name"], lambda: pool.createXMLFrom(disk_xml(args), source, 0))
    # A block of its own: the connection of so long a call is not used again (host.connection).
    with ctx.calls("grow the disk", args["name"]) as connection:
        pool = connection.storagePoolLookupByName(args["pool"])
        volume = pool.storageVolLookupByName(args["name"])
        if volume.info()[1] < args["capacity_bytes"]:  # a copy has the size of what was copied, whatever was asked for
            volume.resize(args["capacity_bytes"], 0)


def _watch_copy(ctx: StepContext, args: Args, copying: Future[None]) -> None:
    total_bytes = args["source"]["size_bytes"]
    while not copying.done():
        note = HELD_UP if ctx.is_cancelled() else "copying"
        ctx.progress(min(_copied_bytes(ctx, args) / total_bytes, 1.0) if total_bytes else None, note)
        wait([copying], _POLL_S)


def _copied_bytes(ctx: StepContext, args: Args) -> int:
    try:
        with ctx.calls("see how far the copy is", args["name"]) as connection:
            pool = connection.storagePoolLookupByName(args["pool"])
            return int(pool.storageVolLookupByName(args["name"]).info()[2])
    except HvtuiError:
        return 0  # it has not begun; what goes wrong the copy itself will tell


def _remove_volume(ctx: StepContext, args: Args, result: Result | None = None) -> None:
    settle(result)
    with ctx.calls("remove", args["name"]) as connection:
        pool = or_none(connection.storagePoolLookupByName, args["pool"], missing=_NO_POOL)
        if pool is not None and pool.isActive():
            _remove_if_there(ctx, pool, args["name"], refresh=result is None)


def _remove_if_there(ctx: StepContext, pool: Any, name: str, *, refresh: bool) -> None:
    """Remove this job's own volume. `refresh`: it may be a file that libvirt has not noticed yet."""
    volume = or_none(pool.storageVolLookupByName, name, missing=_NO_VOLUME)
    if volume is None and refresh:
        _when_idle(ctx, lambda: pool.refresh(0))
        volume = or_none(pool.storageVolLookupByName, name, missing=_NO_VOLUME)
    if volume is not None:
        _when_idle(ctx, lambda: delete_volume(volume))


def _when_idle(ctx: StepContext, call: Callable[[], object]) -> None:
    """Call, as soon as libvirtd has come to an end with what a process that is gone asked it to copy."""
    until_s = time.monotonic() + _BUSY_S
    while True:
        try:
            call()
        except libvirt.libvirtError as error:
            message = error.get_error_message() or ""
            is_busy = "asynchronous jobs" in message or "still being allocated" in message or "in use" in message
            if not is_busy or time.monotonic() > until_s:
                raise
            ctx.progress(None, "waiting until libvirt is done with it")
            time.sleep(_POLL_S)
        else:
            return


def _inverse_disk(args: Args, _result: Result) -> Step:
    loss = f"the disk {args['path']} and everything written to it"
    names = {"pool": args["pool"], "name": args["name"]}
    return Step("create.remove-volume", f"Remove the disk {args['name']}", names, losses=(loss,))


# The seed


def _make_seed(ctx: StepContext, args: Args) -> Result:
    from vm import seed_image

    image = seed_image.build(json.loads(args["files"]))
    with ctx.calls("make the seed", args["name"]) as connection:
        pool = connection.storagePoolLookupByName(args["pool"])
        if ctx.host.is_simulated:  # the test driver keeps no contents
            empty = {"name": args["name"], "capacity_bytes": len(image), "format": "raw"}
            _make_anew(ctx, pool, args["name"], lambda: pool.createXML(volume_xml(empty), 0))
        else:
            _make_anew(
                ctx, pool, args["name"], lambda: upload_bytes(connection, pool, args["name"], image, mode="0600")
            )
    return {}


def _inverse_seed(args: Args, _result: Result) -> Step:
    names = {"pool": args["pool"], "name": args["name"]}
    return Step("deploy.remove-seed", f"Remove the seed {args['name']} if it is still there", names)


def _remove_seed(ctx: StepContext, args: Args) -> Result:
    _remove_volume(ctx, args, {})
    return {}


def _unseed(ctx: StepContext, args: Args) -> Result:
    """Take the seed's drive out of the VM, running and for the next start, then delete its volume."""
    with ctx.calls("take the seed away from", args["name"]) as connection:
        domain = or_none(connection.lookupByUUIDString, args["uuid"], missing=_NO_DOMAIN)
        if domain is None:
            raise NotFound("the VM is gone", about=args["name"], remedy="Take the job back: its seed goes with it")
        _forget_drive(ctx, domain, args["path"])
    warning = "" if ctx.host.is_simulated else _unplug(ctx, args)
    with ctx.calls("delete the seed of", args["name"]) as connection:
        pool = connection.storagePoolLookupByName(args["pool"])
        _remove_if_there(ctx, pool, args["volume"], refresh=False)
    return {"warning": warning} if warning else {}


def _forget_drive(ctx: StepContext, domain: Any, path: str) -> None:
    """The next start shall not have the drive."""
    root = parse(domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE | libvirt.VIR_DOMAIN_XML_SECURE))
    drive = _drive_with(root, path)
    devices = root.find("devices")
    if drive is None or devices is None:
        return
    if ctx.host.is_simulated:  # the test driver detaches nothing
        devices.remove(drive)
        domain.connect().defineXMLFlags(to_text(root), 0)
    else:
        domain.detachDeviceFlags(to_text(drive), _CONFIG)


def _drive_with(root: Element, path: str) -> Element | None:
    for disk in root.iterfind("devices/disk"):
        source = disk.find("source")
        if source is not None and path in {source.get("file"), source.get("dev")}:
            return disk
    return None


def _unplug(ctx: StepContext, args: Args) -> str:
    """Take the drive out of the running guest. Returns what there is to tell when the guest holds on to it."""
    until_s = time.monotonic() + _UNPLUG_S
    while _is_still_plugged(ctx, args):
        ctx.raise_if_cancelled()
        if time.monotonic() > until_s:
            return "the guest holds on to the seed's drive until it is shut down; its volume is deleted already"
        ctx.progress(None, "taking the seed out of the running guest")
        time.sleep(_POLL_S)
    return ""


def _is_still_plugged(ctx: StepContext, args: Args) -> bool:
    """Ask once more, and see whether the drive is still there. A block of its own: libvirt may wait for the guest."""
    with ctx.calls("unplug the seed of", args["name"]) as connection:
        domain = connection.lookupByUUIDString(args["uuid"])
        drive = _drive_with(parse(domain.XMLDesc(0)), args["path"]) if domain.isActive() else None
        if drive is not None and drive.get("device") == "cdrom":
            _eject(domain, drive)
        elif drive is not None:
            _ask_to_unplug(domain, drive)
        return drive is not None


def _eject(domain: Any, drive: Element) -> None:
    """A CD drive on SATA cannot be taken out of a running VM: it stays there, empty, until the VM is shut down."""
    for source in drive.findall("source"):
        drive.remove(source)
    domain.updateDeviceFlags(to_text(drive), _LIVE | _FORCE)


def _ask_to_unplug(domain: Any, drive: Element) -> None:
    try:
        domain.detachDeviceFlags(to_text(drive), _LIVE)
    except libvirt.libvirtError as error:
        if error.get_error_domain() == libvirt.VIR_FROM_RPC:
            raise
        # The guest is still thinking about the last request, or has let go in between: the XML tells which.


def seed_drives(root: Element, uuid: str) -> tuple[str, ...]:
    """The paths of the seeds that a VM's XML still has: what this module named for the VM."""
    ending = seed_ending(uuid)
    sources = (source for source in root.iterfind("devices/disk/source"))
    paths = (source.get("file") or source.get("dev") or "" for source in sources)
    return tuple(path for path in paths if path.endswith(ending))


def without_drives(root: Element, paths: AbstractSet[str]) -> Element:
    """The VM's XML without the drives that read `paths`."""
    devices = root.find("devices")
    for path in paths:
        drive = _drive_with(root, path)
        if drive is not None and devices is not None:
            devices.remove(drive)
    return root


def seed_ending(uuid: str) -> str:
    """How the name of a VM's seed ends."""
    return f"-{uuid[:8]}.seed.iso"


def _inverse_unseed(_args: Args, _result: Result) -> None:
    return None


for _verb in (
    StepVerb("deploy.disk", _make_disk, _remove_volume, _inverse_disk),
    StepVerb("deploy.seed", _make_seed, _remove_volume, _inverse_seed),
    StepVerb("deploy.unseed", _unseed, None, _inverse_unseed),
    StepVerb("deploy.remove-seed", _remove_seed, None, lambda _args, _result: "it is gone for good", without_vm=True),
):
    register(_verb)
