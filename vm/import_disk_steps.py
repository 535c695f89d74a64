"""The step verbs that make a VM of another product's disks: unpack, convert, upload, define, tidy.

They work in a directory of hvtui's cache whose name is the new VM's mark, so that it is this job's own. What is packed
is recognised when it is unpacked, with the same care as what was not. Where the plan could not see how the disk boots,
the definition follows from the converted disk.
"""

from __future__ import annotations

import json
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any

import libvirt

from host import image_convert, image_unpack, volumes
from host.errors import Unsupported, UsageError
from host.image_kinds import ImageKind, recognise
from host.steps import Args, Result, StepContext, StepVerb, register
from host.text import printable
from vm import boot_sector
from vm.import_steps import inverse_define, inverse_volume, nothing, remove_volume, undefine

_FILES = "files.json"


def _work(args: Args) -> Path:
    path = Path(args["work"])
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    return path


def _remove_work(_ctx: StepContext, args: Args, _result: Result | None = None) -> None:
    with suppress(FileNotFoundError):
        shutil.rmtree(args["work"])


# Here


def _unpack(ctx: StepContext, args: Args) -> Result:
    """Unpack an OVA."""
    work = _work(args)
    directory = work / "appliance"
    with suppress(FileNotFoundError):
        shutil.rmtree(directory)  # half unpacked by a process that was killed
    directory.mkdir()
    found = image_unpack.unpack_appliance(
        Path(args["source"]),
        directory,
        limit_bytes=args["limit_bytes"],
        progress=ctx.progress,
        is_cancelled=ctx.is_cancelled,
    )
    names = {name: str(path) for name, path in found.files.items()}
    (work / _FILES).write_text(json.dumps(names), encoding="utf-8")
    return {"files": len(names)}


def _convert(ctx: StepContext, args: Args) -> Result:
    """Make a disk a qcow2 of hvtui's own, and see how it boots."""
    work, index = _work(args), args["index"]
    source = _source(work, args)
    kind = ImageKind(args["kind"]) if args["kind"] else recognise(source)
    if kind.is_compressed:
        unpacked = work / f"{index}.unpacked"
        image_unpack.unpack(
            source, unpacked, limit_bytes=args["limit_bytes"], progress=ctx.progress, is_cancelled=ctx.is_cancelled
        )
        source, kind = unpacked, recognise(unpacked)
    if kind is ImageKind.UNKNOWN and args["is_raw"]:
        kind = ImageKind.RAW
    if not kind.is_disk:
        shown = printable(args["member"] or args["source"], limit=200)
        remedy = "If it is a raw disk without a partition table, say so with --raw"
        raise UsageError("what is in it is no disk image that hvtui knows", about=shown, remedy=remedy)
    target = work / f"{index}.qcow2"
    info = image_convert.to_qcow2(
        source,
        target,
        kind,
        limit_bytes=args["limit_bytes"],
        progress=ctx.progress,
        is_cancelled=ctx.is_cancelled,
    )
    if source.is_relative_to(work):
        source.unlink()
    look = boot_sector.look(boot_sector.read_head(target, ImageKind.QCOW2))
    _look_file(work, index).write_text(json.dumps({"firmware": look.firmware.value, "why": look.why}))
    return {"virtual_size_bytes": info.virtual_size_bytes, "kind": kind.value}


def _look_file(work: Path, index: int) -> Path:
    return work / f"{index}.json"


def _source(work: Path, args: Args) -> Path:
    if not args["member"]:
        return Path(args["source"])
    files = json.loads((work / _FILES).read_text(encoding="utf-8"))
    if args["member"] not in files:
        shown = printable(args["member"], limit=120)
        raise UsageError(f"its descriptor names the disk {shown}, which is not in it", remedy="Is the OVA whole?")
    return Path(files[args["member"]])


# On the host


def _upload(ctx: StepContext, args: Args) -> Result:
    path = Path(args["work"]) / f"{args['index']}.qcow2"
    stored = volumes.upload(
        ctx.host, args["pool"], args["name"], path, progress=ctx.progress, is_cancelled=ctx.is_cancelled
    )
    with ctx.calls("look at", args["name"]) as connection:
        volumes.refresh(connection.storagePoolLookupByName(args["pool"]))  # libvirt sees its format now
    return {"size_bytes": stored.size_bytes}


def _define(ctx: StepContext, args: Args) -> Result:
    choices: Any = args["xml"]
    chosen, why = next(iter(choices)), ""
    if len(choices) > 1:
        look = json.loads(_look_file(Path(args["work"]), 0).read_text(encoding="utf-8"))
        chosen, why = look["firmware"], look["why"]
    if chosen not in choices:
        remedy = "Install it (apt-get install ovmf), or choose another with --firmware"
        raise Unsupported(f"its disk boots by {chosen} ({why}), and this host has no such firmware", remedy=remedy)
    with ctx.calls("define", args["name"]) as connection:
        connection.defineXMLFlags(choices[chosen], libvirt.VIR_DOMAIN_DEFINE_VALIDATE)
    return {"firmware": chosen, "why": why}


def _tidy(ctx: StepContext, args: Args) -> Result:
    _remove_work(ctx, args)
    return {}


for _verb in (
    StepVerb("import.unpack", _unpack, _remove_work, nothing),
    StepVerb("import.convert", _convert, _remove_work, nothing),
    StepVerb("import.upload", _upload, remove_volume, inverse_volume),
    StepVerb("import.define-disk", _define, undefine, inverse_define),
    StepVerb("import.tidy", _tidy, None, nothing),
):
    register(_verb)
