"""The step verbs of an import: volumes with their checksums, the definition with its secrets, firmware variables, TPM.

Volumes and the firmware variables' file have names with the plan's mark, and the definition a uuid that was free: what
has them is this job's own. A TPM's state has the name that its emulator wants; it is put only where nothing was. What
is imported is read once more before it is trusted: a plan may have been made long ago.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import libvirt

from host import image_convert, volumes
from host.errors import Conflict
from host.image_kinds import ImageKind
from host.plan import Step
from host.steps import Args, Result, StepContext, StepVerb, register, verb_named
from host.text import printable
from vm import bundle, host_files
from vm.bundle import BundleFile, Role
from vm.create_steps import or_none, settle
from vm.domain_xml import parse, to_text
from vm.redact import insert

_MADE_TO_BOOT = re.compile(r"-(kernel|initrd)$")
_NO_VOLUME = frozenset({libvirt.VIR_ERR_NO_STORAGE_VOL})
_NO_POOL = frozenset({libvirt.VIR_ERR_NO_STORAGE_POOL})
SHARED = (Role.KERNEL, Role.INITRD)  # QEMU reads them as its own user, and libvirt gives them to nobody


# Volumes


def _volume(ctx: StepContext, args: Args) -> Result:
    """Upload a file of the bundle as a volume; what arrives must be what was exported."""
    directory, file = Path(args["directory"]), _file_of(args)
    _check_disk(directory, file, args["limit_bytes"])
    mode = volumes.SHARED_MODE if file.role in SHARED else volumes.PRIVATE_MODE
    stored = volumes.upload(
        ctx.host,
        args["pool"],
        args["name"],
        _plain(directory, file.name),
        mode=mode,
        progress=ctx.progress,
        is_cancelled=ctx.is_cancelled,
    )
    if stored.sha256 != file.sha256:
        raise bundle.mismatch(file, directory)
    with ctx.calls("look at", args["name"]) as connection:
        volumes.refresh(connection.storagePoolLookupByName(args["pool"]))  # libvirt sees its format now
    return {"size_bytes": stored.size_bytes}


def _file_of(args: Args) -> BundleFile:
    return bundle.file_from_json(args["file"])


def _plain(directory: Path, name: str) -> Path:
    """The path of a file of the bundle that is no link. Raises UsageError, OSError."""
    os.close(bundle.open_plain(directory, name))
    return directory / name


def _check_disk(directory: Path, file: BundleFile, limit_bytes: int) -> None:
    if file.role is Role.DISK and file.format == "qcow2":
        image_convert.check_source(_plain(directory, file.name), ImageKind.QCOW2, limit_bytes=limit_bytes)


def remove_volume(ctx: StepContext, args: Args, result: Result | None = None) -> None:
    """Remove a volume of this job's own."""
    settle(result)
    with ctx.calls("remove", args["name"]) as connection:
        pool = or_none(connection.storagePoolLookupByName, args["pool"], missing=_NO_POOL)
        if pool is None or not pool.isActive():
            return
        volume = or_none(pool.storageVolLookupByName, args["name"], missing=_NO_VOLUME)
        if volume is None and result is None:
            volumes.refresh(pool)
            volume = or_none(pool.storageVolLookupByName, args["name"], missing=_NO_VOLUME)
        if volume is not None:
            volumes.delete(volume)


def inverse_volume(args: Args, _result: Result) -> Step:
    """The step that removes the volume, unless a VM uses it."""
    loss = f"the disk {args['name']} and everything written to it"
    if _MADE_TO_BOOT.search(args["name"]):
        loss = f"the {args['name'].rpartition('-')[2]} {args['name']}"
    names = {"pool": args["pool"], "name": args["name"]}
    return Step("create.remove-volume", f"Remove {args['name']}", names, losses=(loss,))


def _verify(ctx: StepContext, args: Args) -> Result:
    """A file that is used where it lies: is it what was exported?"""
    directory, file = Path(args["directory"]), _file_of(args)
    _check_disk(directory, file, args["limit_bytes"])
    found = bundle.sha256_of(directory, file.name, progress=ctx.progress, is_cancelled=ctx.is_cancelled)
    if found != file.sha256:
        raise bundle.mismatch(file, directory)
    return {}


# The definition


def _define(ctx: StepContext, args: Args) -> Result:
    root = parse(args["xml"])
    insert(root, args["secrets"])
    with ctx.calls("define", args["name"]) as connection:
        connection.defineXMLFlags(to_text(root), libvirt.VIR_DOMAIN_DEFINE_VALIDATE)
    return {}


def undefine(ctx: StepContext, args: Args, result: Result | None = None) -> None:
    """Remove the VM of this job's own with its state."""
    rollback = verb_named("create.define").rollback
    if rollback is not None:
        rollback(ctx, args, result)


def inverse_define(args: Args, _result: Result) -> Step:
    """The step that removes the VM."""
    loss = f"the VM {args['name']} with its firmware variables, TPM state, saved state and checkpoints"
    identity = {"uuid": args["uuid"], "name": args["name"]}
    return Step("create.undefine", f"Remove {args['name']}", identity, losses=(loss,))


# Firmware variables and TPM


def _nvram(ctx: StepContext, args: Args) -> Result:
    directory, name = host_files.split(args["path"])
    with host_files.directory_pool(ctx, directory, mark=args["mark"], build=True) as pool:
        _put(ctx, args, str(pool), name)
    return {}


def _put(ctx: StepContext, args: Args, pool: str, name: str) -> None:
    directory, file = Path(args["directory"]), _file_of(args)
    path = _plain(directory, file.name)
    stored = volumes.upload(ctx.host, pool, name, path, is_cancelled=ctx.is_cancelled)
    if stored.sha256 != file.sha256:
        raise bundle.mismatch(file, directory)


def _remove_nvram(ctx: StepContext, args: Args, result: Result | None) -> None:
    settle(result)
    directory, name = host_files.split(args["path"])
    with host_files.directory_pool(ctx, directory, mark=args["mark"]) as pool:
        if pool is not None:
            remove_volume(ctx, {"pool": pool, "name": name}, {})


def _look_for_tpm(ctx: StepContext, args: Args) -> Result:
    """Before the VM is defined: a TPM of this identity that is there is somebody's, and a rollback would remove it."""
    if host_files.exists(ctx, args["path"], mark=args["mark"]):
        raise Conflict(
            f"the host keeps a TPM of this identity already, in {printable(args['path'])}",
            about=args["name"],
            remedy="Import it as a copy, or remove that directory if no VM needs it",
        )
    return {}


def _tpm(ctx: StepContext, args: Args) -> Result:
    """Put the TPM's state where its emulator looks. The definition's rollback removes it with the VM."""
    for text in args["files"]:
        file = bundle.file_from_json(text)
        version, _, name = file.target.partition("/")
        with host_files.directory_pool(ctx, f"{args['path']}/{version}", mark=args["mark"], build=True) as pool:
            _put(ctx, {**args, "file": text}, str(pool), name)
    return {}


def _let_go(ctx: StepContext, args: Args, result: Result | None) -> None:
    settle(result)
    host_files.remove_left(ctx, args["mark"])


def nothing(_args: Any, _result: Any) -> None:
    """For what leaves nothing to take back."""
    return


for _verb in (
    StepVerb("import.volume", _volume, remove_volume, inverse_volume),
    StepVerb("import.verify", _verify, None, nothing),
    StepVerb("import.look-for-tpm", _look_for_tpm, _let_go, nothing),
    StepVerb("import.define", _define, undefine, inverse_define),
    StepVerb("import.nvram", _nvram, _remove_nvram, nothing),
    StepVerb("import.tpm", _tpm, _let_go, nothing),
):
    register(_verb)
