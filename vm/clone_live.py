"""Holds the disks of a running VM still while they are copied: a temporary overlay for each, merged back afterwards.

The guest goes on and writes to the overlays; its disks are frozen below them at one moment. `thaw` merges the overlays
back, whatever state a killed process left: it looks at the VM first, goes on with a merge that was begun, and removes
an overlay only when neither the running VM nor its definition names it. A VM that was shut down meanwhile is started
without running its guest, since only QEMU merges; it ends with this process (AUTODESTROY), whatever becomes of that.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from xml.etree.ElementTree import Element, SubElement

import libvirt

from host.errors import Busy, Conflict, HvtuiError
from host.paths import state_directory
from host.steps import Args, StepContext
from host.text import printable
from vm import host_files
from vm.clone_xml import target_of
from vm.create_steps import or_none
from vm.domain_xml import disk_source, parse, to_text

MARK = ".hvtui-clone-"
_POLL_S = 0.2
_PATIENCE_S = 600.0  # libvirtd may still be copying what a killed process asked for, and holds the images
_NO_DOMAIN = frozenset({libvirt.VIR_ERR_NO_DOMAIN})
_NO_VOLUME = frozenset({libvirt.VIR_ERR_NO_STORAGE_VOL})
_INACTIVE = libvirt.VIR_DOMAIN_XML_INACTIVE
_SNAPSHOT = (
    libvirt.VIR_DOMAIN_SNAPSHOT_CREATE_DISK_ONLY
    | libvirt.VIR_DOMAIN_SNAPSHOT_CREATE_ATOMIC
    | libvirt.VIR_DOMAIN_SNAPSHOT_CREATE_NO_METADATA
)
_START = libvirt.VIR_DOMAIN_START_PAUSED | libvirt.VIR_DOMAIN_START_AUTODESTROY
_SHALLOW = libvirt.VIR_DOMAIN_BLOCK_COMMIT_SHALLOW  # into the disk below, not into what that builds on
_PIVOT = libvirt.VIR_DOMAIN_BLOCK_JOB_ABORT_PIVOT


def overlay_path(path: str, mark: str) -> str:
    """Where the temporary overlay of the disk at `path` is."""
    directory, _, name = path.rpartition("/")
    return f"{directory}/{name[:180]}{MARK}{mark}"


@contextmanager
def frozen(ctx: StepContext, args: Args) -> Iterator[bool]:
    """The disks of the running VM are frozen while the block lasts; yields True when its guest had written everything
    out before. Raises Busy, Conflict, HvtuiError."""
    with _alone(ctx, args["uuid"]):
        thaw(ctx, args)
        try:
            yield _freeze(ctx, args)
        finally:
            thaw(ctx, args)


@contextmanager
def _alone(ctx: StepContext, uuid: str) -> Iterator[None]:
    """One clone of a running VM at a time: overlays on overlays would be merged in the wrong order."""
    directory = state_directory() / "locks"
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    handle = os.open(directory / f"clone-{uuid}", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        while not _locked(handle):
            ctx.raise_if_cancelled()
            ctx.progress(None, "waiting: another clone of it is being copied")
            time.sleep(_POLL_S)
        yield
    finally:
        os.close(handle)


def _locked(handle: int) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


# Freeze


def _freeze(ctx: StepContext, args: Args) -> bool:
    ctx.raise_if_cancelled()
    ctx.progress(None, "freezing its disks")
    with ctx.calls("freeze the disks of", args["name"]) as connection:
        domain = connection.lookupByUUIDString(args["uuid"])
        root = parse(domain.XMLDesc(0))
        refuse_moved(root, args)
        if any(disk.find("mirror") is not None for disk in root.iterfind("devices/disk")):
            raise Busy("its disks are being moved or merged", about=args["name"], remedy="Wait until that is over")
        xml = _snapshot_xml(root, args)
        if _agent_answers(root):
            try:
                domain.snapshotCreateXML(xml, _SNAPSHOT | libvirt.VIR_DOMAIN_SNAPSHOT_CREATE_QUIESCE)
            except libvirt.libvirtError as error:
                if error.get_error_domain() == libvirt.VIR_FROM_RPC or any(_overlays(domain, args)):
                    raise
            else:
                return True
        domain.snapshotCreateXML(xml, _SNAPSHOT)
    return False


def refuse_moved(root: Element, args: Args) -> None:
    """Raises Conflict unless the VM's disks are where the plan saw them."""
    there = {target_of(disk): disk_source(disk) for disk in root.iterfind("devices/disk")}
    for disk in args["disks"]:
        if there.get(disk["target"]) != disk["source"]:
            cause = f"its disk {disk['target']} is another one now ({printable(there.get(disk['target'], 'none'))})"
            raise Conflict(cause, about=args["name"], remedy="Give the command again")


def _agent_answers(root: Element) -> bool:
    channel = root.find("devices/channel/target[@name='org.qemu.guest_agent.0']")
    return channel is not None and channel.get("state") == "connected"


def _snapshot_xml(root: Element, args: Args) -> str:
    overlays = {disk["target"]: disk["overlay"] for disk in args["disks"]}
    snapshot = Element("domainsnapshot")
    disks = SubElement(snapshot, "disks")
    for disk in root.iterfind("devices/disk"):
        target = target_of(disk)
        if target not in overlays:
            SubElement(disks, "disk", name=target, snapshot="no")
            continue
        element = SubElement(disks, "disk", name=target, snapshot="external", type="file")
        SubElement(element, "driver", type="qcow2")
        SubElement(element, "source", file=overlays[target])
    return to_text(snapshot)


# Thaw


def thaw(ctx: StepContext, args: Args) -> None:
    """Merge every overlay of this job back into its disk and remove it; nothing to do where there is none. Raises
    HvtuiError that says so when the VM has to stay on one."""
    until_s = time.monotonic() + _PATIENCE_S
    while not _tried(lambda: _merge_all(ctx, args), args, is_last=time.monotonic() > until_s):
        ctx.progress(None, "waiting until libvirt lets its disks go")
        time.sleep(_POLL_S)
    while not _tried(lambda: _remove_overlays(ctx, args), args, is_last=time.monotonic() > until_s):
        ctx.progress(None, "waiting until libvirt is done with the pool")
        time.sleep(_POLL_S)


def _tried(call: Callable[[], None], args: Args, *, is_last: bool) -> bool:
    """Call; False when libvirt is busy with something else. Raises what is left after all patience."""
    try:
        call()
    except HvtuiError as error:
        cause = error.__cause__
        if not isinstance(cause, libvirt.libvirtError) or cause.get_error_domain() == libvirt.VIR_FROM_RPC:
            raise
        if is_last or not _is_busy(cause):
            raise _stuck(args, error.cause) from error
        return False
    return True


def _is_busy(error: libvirt.libvirtError) -> bool:
    message = error.get_error_message() or ""
    is_locked = "lock" in message and "Failed to get" in message
    is_locked = is_locked or "asynchronous jobs" in message or "still being allocated" in message
    return is_locked or error.get_error_code() == libvirt.VIR_ERR_OPERATION_TIMEOUT


def _stuck(args: Args, why: str) -> HvtuiError:
    cause = f"a temporary overlay of its disk could not be merged back or removed: {why}"
    return HvtuiError(cause, about=args["name"], remedy="Its data are whole; roll the job back once that is mended")


def _merge_all(ctx: StepContext, args: Args) -> None:
    with ctx.calls("merge the disks of", args["name"]) as connection:
        domain = or_none(connection.lookupByUUIDString, args["uuid"], missing=_NO_DOMAIN)
        if domain is None:
            return
        was_active = bool(domain.isActive())
        if was_active:
            _let_calls_end(domain, args)
        if not any(_overlays(domain, args)):
            return
        if not was_active:
            domain.createWithFlags(_START)
        try:
            for disk in args["disks"]:
                _merge(ctx, domain, disk)
        finally:
            if not was_active and domain.isActive():
                domain.destroy()


def _let_calls_end(domain: Any, args: Args) -> None:
    """Wait for a call that a killed process made (a freeze takes seconds): libvirt does one change of a VM at a time,
    and refuses this one when its turn comes, as there is no such image."""
    try:
        domain.blockCommit(args["disks"][0]["target"], None, f"/no-such-image{MARK}", 0, 0)
    except libvirt.libvirtError as error:
        if error.get_error_domain() == libvirt.VIR_FROM_RPC or _is_busy(error):
            raise


def _overlays(domain: Any, args: Args) -> Iterator[str]:
    """The overlays of this job that the VM runs on, or would start on."""
    wanted = {disk["overlay"] for disk in args["disks"]}
    for flags in (0, _INACTIVE):
        for source in parse(domain.XMLDesc(flags)).iterfind("devices/disk//source"):
            if source.get("file") in wanted:
                yield str(source.get("file"))


def _merge(ctx: StepContext, domain: Any, disk: Args) -> None:
    while True:
        element = _disk(domain, disk["target"])
        if element is None or disk_source(element) != disk["overlay"]:
            return
        mirror = element.find("mirror")
        if mirror is None:
            domain.blockCommit(disk["target"], None, None, 0, libvirt.VIR_DOMAIN_BLOCK_COMMIT_ACTIVE | _SHALLOW)
        elif mirror.get("ready") == "yes":
            domain.blockJobAbort(disk["target"], _PIVOT)
        else:
            _tell(ctx, domain, disk["target"])
            time.sleep(_POLL_S)


def _disk(domain: Any, target: str) -> Element | None:
    root = parse(domain.XMLDesc(0))
    return next((disk for disk in root.iterfind("devices/disk") if target_of(disk) == target), None)


def _tell(ctx: StepContext, domain: Any, target: str) -> None:
    information = domain.blockJobInfo(target, 0)
    end = information.get("end") if information else 0
    ctx.progress(information["cur"] / end if end else None, "merging what its guest wrote meanwhile")


def _remove_overlays(ctx: StepContext, args: Args) -> None:
    with ctx.calls("look at", args["name"]) as connection:
        domain = or_none(connection.lookupByUUIDString, args["uuid"], missing=_NO_DOMAIN)
        if domain is None or any(_overlays(domain, args)):
            return
    for disk in args["disks"]:
        directory, name = host_files.split(disk["overlay"])
        with host_files.directory_pool(ctx, directory, mark=args["mark"]) as pool:
            if pool is not None:
                _remove_overlay(ctx, pool, name)


def _remove_overlay(ctx: StepContext, pool: str, name: str) -> None:
    with ctx.calls("remove the overlay", name) as connection:
        found = connection.storagePoolLookupByName(pool)
        volume = or_none(found.storageVolLookupByName, name, missing=_NO_VOLUME)
        if volume is not None:
            or_none(volume.delete, 0, missing=_NO_VOLUME)
