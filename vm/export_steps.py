"""The step verbs that make a bundle: a partial directory, each disk and state into it, then one rename.

The partial directory and whatever is made on the host have the plan's mark in their names: what has it is this job's
own, whole or half made. Each file leaves a record beside it, which the last step makes the manifest of. A disk's format
is what the VM's definition says: what its content looks like is the guest's word. The VM and its disks are only read.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import libvirt

from host import volumes
from host.errors import Conflict, HvtuiError, NotFound, UsageError, WrongState
from host.facts import version_text
from host.job_model import HELD_UP
from host.plan import Step
from host.steps import Args, Result, StepContext, StepVerb, register
from host.text import printable
from vm import bundle, host_files
from vm.bundle import Bundle, BundleFile, Role
from vm.create_steps import or_none, settle
from vm.deploy_steps import disk_xml
from vm.domain_xml import parse

RECORD = ".hvtui-record"
_POLL_S = 0.3
_BUSY_S = 600.0  # as long as libvirt may copy what a killed process asked for
_INACTIVE = libvirt.VIR_DOMAIN_XML_INACTIVE
_SECURE = _INACTIVE | libvirt.VIR_DOMAIN_XML_SECURE
_NO_VOLUME = frozenset({libvirt.VIR_ERR_NO_STORAGE_VOL})
_NO_POOL = frozenset({libvirt.VIR_ERR_NO_STORAGE_POOL})


# The directory


def _begin(ctx: StepContext, args: Args) -> Result:
    _refuse_changed(ctx, args)
    Path(args["partial"]).mkdir(mode=0o700, exist_ok=True)
    return {}


def _remove_partial(_ctx: StepContext, args: Args, _result: Result | None) -> None:
    with suppress(FileNotFoundError):
        shutil.rmtree(args["partial"])  # its name holds the plan's mark: it is this job's own


def _refuse_changed(ctx: StepContext, args: Args) -> str:
    """The VM's inactive XML with its secrets. Raises WrongState when it is not off, Conflict when it was changed since
    the plan was made."""
    with ctx.calls("look at", args["name"]) as connection:
        domain = connection.lookupByUUIDString(args["uuid"])
        is_off = not domain.isActive() and not domain.hasManagedSaveImage(0)
        text, secure = domain.XMLDesc(_INACTIVE), str(domain.XMLDesc(_SECURE))
    if not is_off:
        remedy = "Shut it down, then export it again"
        raise WrongState("it is not off any more, so that its disks may not fit together", about=args["name"],
                         remedy=remedy)  # fmt: skip
    if hashlib.sha256(text.encode()).hexdigest() != args["xml_sha256"]:
        raise Conflict("its definition was changed in the meantime", about=args["name"], remedy="Export it again")
    return secure


# Disks


def _disk(ctx: StepContext, args: Args) -> Result:
    _refuse_changed(ctx, args)
    with _volume(ctx, args) as (pool, name):
        found = _read_volume(ctx, pool, name)
        needs_copy = args["format"] != "raw" and (found["backing"] or args["format"] not in bundle.DISK_FORMATS)
        if not needs_copy:
            return _download(ctx, args, pool, name, args["format"], found)
        if found["format"] != args["format"]:
            raise UsageError(
                f"its definition says {printable(args['format'])}, its content {printable(found['format'])}",
                about=args["path"],
            )
        flat = _flat_name(args)
        _remove_flat(ctx, pool, flat)
        try:
            _flatten(ctx, args, pool, name, found)
            ctx.raise_if_cancelled()
            return _download(ctx, args, pool, flat, "qcow2", _read_volume(ctx, pool, flat))
        finally:
            _remove_flat(ctx, pool, flat)


@contextmanager
def _volume(ctx: StepContext, args: Args) -> Iterator[tuple[str, str]]:
    """The pool and the volume that a file of the host can be read by."""
    if args.get("pool"):
        yield args["pool"], args["volume"]
        return
    directory, name = host_files.split(args["path"])
    with host_files.directory_pool(ctx, directory, mark=args["mark"]) as pool:
        if pool is None or name not in host_files.sizes(ctx, pool):
            raise NotFound("there is no such file on the host", about=args["path"])
        yield pool, name


def _read_volume(ctx: StepContext, pool: str, name: str) -> dict[str, Any]:
    with ctx.calls("look at", name) as connection:
        volume = connection.storagePoolLookupByName(pool).storageVolLookupByName(name)
        root = parse(volume.XMLDesc(0), root="volume")
        _kind, capacity_bytes, allocation_bytes = volume.info()
    found = root.find("target/format")
    physical = root.findtext("physical", "").strip()
    return {
        "format": "raw" if found is None else found.get("type", "raw"),
        "backing": root.findtext("backingStore/path", ""),
        "capacity_bytes": int(capacity_bytes),
        "allocation_bytes": int(allocation_bytes),
        "physical_bytes": int(physical) if physical.isdigit() else 0,
    }


def _download(ctx: StepContext, args: Args, pool: str, name: str, image_format: str, found: dict[str, Any]) -> Result:
    file = f"{args['target']}.{image_format}"
    path = Path(args["partial"]) / file
    expected = found["capacity_bytes"] if image_format == "raw" else found["physical_bytes"]
    stored = volumes.download_file(
        ctx.host, pool, name, path, size_bytes=expected, progress=ctx.progress, is_cancelled=ctx.is_cancelled
    )
    _synchronise(path)
    virtual_bytes = stored.size_bytes if image_format == "raw" else found["capacity_bytes"]
    record = BundleFile(Role.DISK, file, stored.size_bytes, stored.sha256, args["target"], image_format, virtual_bytes)
    _record(args, record)
    return {"size_bytes": stored.size_bytes}


def _synchronise(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _record(args: Args, file: BundleFile) -> None:
    path = Path(args["partial"]) / f"{file.name}{RECORD}"
    path.write_text(bundle.file_to_json(file), encoding="utf-8")


# Images that build on others


def _flat_name(args: Args) -> str:
    return f"hvtui-export-{args['mark']}-{args['target']}.qcow2"


def _flatten(ctx: StepContext, args: Args, pool: str, name: str, found: dict[str, Any]) -> None:
    """One call of libvirt copies: nothing can interrupt it, so whoever cancels waits until it is over."""
    with ThreadPoolExecutor(1, "flatten") as thread:
        copying = thread.submit(_copy, ctx, args, pool, name, found)
        _watch(ctx, copying)
    copying.result()


def _copy(ctx: StepContext, args: Args, pool: str, name: str, found: dict[str, Any]) -> None:
    whole = {"name": _flat_name(args), "capacity_bytes": found["capacity_bytes"], "format": "qcow2"}
    with ctx.calls("make whole", name) as connection:
        place = connection.storagePoolLookupByName(pool)
        place.createXMLFrom(disk_xml(whole), place.storageVolLookupByName(name), 0)


def _watch(ctx: StepContext, copying: Future[None]) -> None:
    while not copying.done():
        ctx.progress(None, HELD_UP if ctx.is_cancelled() else "making it whole")
        time.sleep(_POLL_S)


def _remove_flat(ctx: StepContext, pool: str, name: str) -> None:
    """Remove the copy that was made for this export, as soon as libvirtd has come to an end with it."""
    until_s = time.monotonic() + _BUSY_S
    while not _is_removed(ctx, pool, name, is_last=time.monotonic() > until_s):
        ctx.progress(None, "waiting until libvirt is done with it")
        time.sleep(_POLL_S)


def _is_removed(ctx: StepContext, pool: str, name: str, *, is_last: bool) -> bool:
    with ctx.calls("remove", name) as connection:
        place = or_none(connection.storagePoolLookupByName, pool, missing=_NO_POOL)
        if place is None or not place.isActive():
            return True
        try:
            volume = or_none(place.storageVolLookupByName, name, missing=_NO_VOLUME)
            if volume is None:  # libvirt may have been killed with it, and know it no more
                place.refresh(0)
                volume = or_none(place.storageVolLookupByName, name, missing=_NO_VOLUME)
            if volume is not None:
                or_none(volume.delete, 0, missing=_NO_VOLUME)
        except libvirt.libvirtError as error:
            message = error.get_error_message() or ""
            is_busy = "asynchronous jobs" in message or "still being allocated" in message or "in use" in message
            if is_last or not is_busy:
                raise
            return False
    return True


def _leave_disk(ctx: StepContext, args: Args, result: Result | None) -> None:
    """What an export of a disk may have left on the host: a copy, and a pool over a directory."""
    settle(result)
    if result is not None:
        return
    if args["format"] != "raw":
        _leave_flat(ctx, args)
    host_files.remove_left(ctx, args["mark"])


def _leave_flat(ctx: StepContext, args: Args) -> None:
    if args["pool"]:
        _remove_flat(ctx, args["pool"], _flat_name(args))
        return
    directory, _ = host_files.split(args["path"])
    with host_files.directory_pool(ctx, directory, mark=args["mark"]) as pool:
        if pool is not None:
            _remove_flat(ctx, pool, _flat_name(args))


# Other files


def _file(ctx: StepContext, args: Args) -> Result:
    role = Role(args["role"])
    directory, name = host_files.split(args["path"])
    with host_files.directory_pool(ctx, directory, mark=args["mark"]) as pool:
        if pool is None or name not in host_files.sizes(ctx, pool):
            if args["optional"]:
                ctx.progress(1.0, "it has none yet: it was never started")
                return {"missing": True}
            raise NotFound(f"there is no such file on the host, and the VM has it as its {role}", about=args["path"])
        own = "nvram.fd" if role is Role.NVRAM else role.value
        _fetch(ctx, args, pool, name, BundleFile(role, own, 0, ""))
    return {}


def _tpm(ctx: StepContext, args: Args) -> Result:
    version = args["path"].rpartition("/")[2]
    with host_files.directory_pool(ctx, args["path"], mark=args["mark"]) as pool:
        found = host_files.sizes(ctx, pool) if pool is not None else {}
        names = [name for name in found if bundle.TPM_FILES.fullmatch(f"{version}/{name}")]
        for name in names:
            _fetch(ctx, args, str(pool), name, BundleFile(Role.TPM, name, 0, "", f"{version}/{name}"))
    if not names:
        ctx.progress(1.0, "it has none yet: it was never started")
    return {"files": names}


def _fetch(ctx: StepContext, args: Args, pool: str, name: str, file: BundleFile) -> None:
    path = Path(args["partial"]) / file.name
    stored = volumes.download_file(ctx.host, pool, name, path, progress=ctx.progress, is_cancelled=ctx.is_cancelled)
    _synchronise(path)
    _record(args, BundleFile(file.role, file.name, stored.size_bytes, stored.sha256, file.target))


def _leave_file(ctx: StepContext, args: Args, result: Result | None) -> None:
    settle(result)
    host_files.remove_left(ctx, args["mark"])


# The end


def _finish(ctx: StepContext, args: Args) -> Result:
    partial, directory = Path(args["partial"]), Path(args["directory"])
    if not partial.exists() and _is_ours(args):
        return {}
    secure = _refuse_changed(ctx, args)
    domain = _write(partial / bundle.DOMAIN, secure)
    records = sorted(partial.glob(f"*{RECORD}"))
    files = [bundle.file_from_json(path.read_text(encoding="utf-8")) for path in records]
    made = _describe(ctx, args, secure, (domain, *files))
    _write(partial / bundle.MANIFEST, bundle.to_json(made))
    for record in records:
        record.unlink()
    try:
        partial.rename(directory)
    except OSError as error:
        raise Conflict(f"cannot give the bundle its name: {error.strerror}", about=str(directory),
                       remedy="Give another directory")  from error  # fmt: skip
    _synchronise(directory.parent)
    return {}


def _write(path: Path, text: str) -> BundleFile:
    data = text.encode("utf-8")
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
    with os.fdopen(os.open(path, flags, 0o600), "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    return BundleFile(Role.DOMAIN, path.name, len(data), hashlib.sha256(data).hexdigest())


def _describe(ctx: StepContext, args: Args, text: str, files: tuple[BundleFile, ...]) -> Bundle:
    root = parse(text)
    kind = root.find("os/type")
    with ctx.calls("read the versions of", ctx.host.name) as connection:
        name, versions = connection.getHostname(), (connection.getLibVersion(), connection.getVersion())
    return Bundle(
        vm_name=args["name"],
        vm_uuid=args["uuid"],
        machine="" if kind is None else kind.get("machine", ""),
        architecture="" if kind is None else kind.get("arch", ""),
        virtualization=root.get("type", ""),
        files=files,
        made_at=datetime.now(UTC).isoformat(timespec="seconds"),
        mark=args["mark"],
        host=name,
        libvirt_version=version_text(versions[0]),
        qemu_version=version_text(versions[1]),
        left_out=dict(args["left_out"]),
    )


def _is_ours(args: Args) -> bool:
    """True when the directory is the bundle that this job made."""
    try:
        return bool(bundle.read(Path(args["directory"])).mark == args["mark"])
    except HvtuiError:
        return False


def _remove_bundle(_ctx: StepContext, args: Args, _result: Result | None = None) -> None:
    """Remove the files of this job's bundle, and its directory when nothing else was put there."""
    if not _is_ours(args):
        return
    directory = Path(args["directory"])
    for file in bundle.read(directory).files:
        (directory / file.name).unlink(missing_ok=True)
    (directory / bundle.MANIFEST).unlink()
    with suppress(OSError):  # something of somebody else's is in it
        directory.rmdir()


def _remove(ctx: StepContext, args: Args) -> Result:
    _remove_bundle(ctx, args)
    return {}


def _inverse_finish(args: Args, _result: Result) -> Step:
    identity = {key: args[key] for key in ("uuid", "name", "mark", "directory")}
    loss = f"the bundle {args['directory']}"
    return Step("export.remove", f"Remove the bundle {args['directory']}", identity, losses=(loss,))


for _verb in (
    StepVerb("export.begin", _begin, _remove_partial, lambda _args, _result: None),
    StepVerb("export.disk", _disk, _leave_disk, lambda _args, _result: None),
    StepVerb("export.file", _file, _leave_file, lambda _args, _result: None),
    StepVerb("export.tpm", _tpm, _leave_file, lambda _args, _result: None),
    StepVerb("export.finish", _finish, _remove_bundle, _inverse_finish),
    StepVerb("export.remove", _remove, None, lambda _args, _result: "the bundle is gone for good", without_vm=True),
):
    register(_verb)
