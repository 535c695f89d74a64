"""Turns a disk image of any known format into a qcow2 that hvtui made, and says first what is wrong with it.

The input is hostile: QEMU is told its format and never guesses, an image that names other files (a backing file, a data
file, extents elsewhere) is refused, and qemu-img runs under limits. A damaged image is refused too: QEMU would read
what is missing as zeros. This module asks no hypervisor.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from host import image_extent, images
from host.errors import Cancelled, HvtuiError, Unsupported, UsageError
from host.image_kinds import VMDK_DESCRIPTOR, ImageKind
from host.text import printable
from host.units import MIB, format_bytes

if TYPE_CHECKING:
    import subprocess

Progress: TypeAlias = Callable[[float | None, str], None]

_MEMORY_BYTES = 2048 * MIB
_CHECK_TIMEOUT_S = 1800.0
_POLL_S = 0.2
_LEAKS = 3  # qemu-img(1): leaked clusters, but not corrupted
_NO_CHECK = 63  # qemu-img(1): the format has no consistency checks
_EXTENT = re.compile(rb'^(?:RW|RDONLY|NOACCESS)\s+(\d+)\s+(\w+)(?:\s+"([^"\r\n]*)")?', re.MULTILINE)
_DESCRIPTOR_BYTES = 64 * 1024
_VMDK_SECTOR_BYTES = 512
_PERCENT = re.compile(rb"\((\d+(?:\.\d+)?)/100%\)")


def check_source(path: Path, kind: ImageKind, *, limit_bytes: int) -> images.ImageInfo:
    """What the disk image is, once nothing speaks against taking it. Raises UsageError for one that is damaged,
    encrypted, too large, or that names other files; and what host.images.inspect raises."""
    if kind is ImageKind.VMDK:
        _check_extents(path)
    info = images.inspect(path, format_name=kind.qemu_format)
    if info.backing:
        remedy = "Make it whole first: qemu-img convert -O qcow2 -- IMAGE NEW.qcow2"
        raise UsageError(f"it builds on another file, {info.backing[0]}", about=str(path), remedy=remedy)
    if info.is_encrypted:
        raise UsageError("the image is encrypted, and hvtui has no key for it", about=str(path))
    if info.is_corrupt:
        raise _damaged(path, "it is marked as corrupt")
    if info.virtual_size_bytes > limit_bytes:
        size, limit = format_bytes(info.virtual_size_bytes), format_bytes(limit_bytes)
        remedy = "If you trust it, allow more with --max-size"
        raise UsageError(f"its disk of {size} is larger than {limit}", about=str(path), remedy=remedy)
    if info.virtual_size_bytes == 0:
        raise UsageError("it is empty", about=str(path))
    _check_whole(path, kind)
    return info


def to_qcow2(
    source: Path,
    target: Path,
    kind: ImageKind,
    *,
    limit_bytes: int,
    progress: Progress = lambda _fraction, _note: None,
    is_cancelled: Callable[[], bool] = lambda: False,
) -> images.ImageInfo:
    """Write the disk of `source` as a qcow2 to `target`; returns what that is. Raises what `check_source` does,
    Cancelled, and HvtuiError with qemu-img's own words."""
    check_source(source, kind, limit_bytes=limit_bytes)
    target.unlink(missing_ok=True)
    command = ["qemu-img", "convert", "-p", "-m", "4", "-W", "-f", kind.qemu_format, "-O", "qcow2"]
    _run([*command, "-o", "compat=1.1", "--", str(source), str(target)], source, progress, is_cancelled)
    return images.inspect(target, format_name="qcow2")


def _check_extents(path: Path) -> None:
    """A VMDK's descriptor may name any file of the host as its extent."""
    with path.open("rb") as file:
        head = file.read(_DESCRIPTOR_BYTES)
    if not head.startswith(VMDK_DESCRIPTOR):
        return
    for sectors, _kind, name in _EXTENT.findall(head):
        text = os.fsdecode(name)
        extent = path.parent / text
        if not text or "/" in text or ":" in text or extent.is_symlink() or not extent.is_file():
            shown = printable(text, limit=120)
            raise UsageError(f"it takes its data from {shown!r}, which is no file beside it", about=str(path))
        if _kind == b"FLAT" and extent.stat().st_size < int(sectors) * _VMDK_SECTOR_BYTES:
            raise _damaged(extent, "it is shorter than its descriptor says")


def _check_whole(path: Path, kind: ImageKind) -> None:
    size_bytes = _size(path)
    least_bytes = image_extent.least_bytes(path, kind)
    if size_bytes < least_bytes:
        raise _damaged(path, f"it has {size_bytes} bytes and should have at least {least_bytes}")
    command = ["qemu-img", "check", "-q", "-U", "-f", kind.qemu_format, "--", str(path)]
    code, told = images.limited(command, about=str(path), memory_bytes=_MEMORY_BYTES, timeout_s=_CHECK_TIMEOUT_S)
    if code not in {0, _LEAKS, _NO_CHECK}:
        raise _damaged(path, told)


def _size(path: Path) -> int:
    with path.open("rb") as file:
        return file.seek(0, os.SEEK_END)  # of a block device too


def _damaged(path: Path, why: str) -> UsageError:
    shown = images.brief(why, str(path))
    return UsageError(f"the image is damaged: {shown}", about=str(path), remedy="Is the download whole?")


def _run(command: list[str], source: Path, progress: Progress, is_cancelled: Callable[[], bool]) -> None:
    import subprocess
    import tempfile

    with tempfile.TemporaryFile() as told:
        limited = ["prlimit", f"--as={_MEMORY_BYTES}", "--core=0", "--", *command]
        try:
            process = subprocess.Popen(
                limited,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=told,
                env={**os.environ, "LC_ALL": "C"},
            )
        except FileNotFoundError as error:
            raise Unsupported("prlimit is not installed", remedy="Install util-linux") from error
        try:
            _follow(process, progress, is_cancelled)
        finally:
            if process.poll() is None:
                process.kill()
            process.wait()
        if process.returncode:
            told.seek(0)
            raise _failure(images.brief(told.read(4096).decode("utf-8", "replace"), str(source)), source)


def _follow(process: subprocess.Popen[bytes], progress: Progress, is_cancelled: Callable[[], bool]) -> None:
    import select

    assert process.stdout is not None  # noqa: S101 - a pipe was asked for
    while True:
        if is_cancelled():
            raise Cancelled("cancelled by the user")
        if not select.select([process.stdout], [], [], _POLL_S)[0]:
            continue
        text = os.read(process.stdout.fileno(), 4096)
        if not text:
            return
        if shown := _PERCENT.findall(text):
            progress(float(shown[-1]) / 100, "converting to qcow2")


def _failure(told: str, source: Path) -> HvtuiError:
    if "failed to execute" in told:
        return Unsupported("qemu-img is not installed", remedy="Install it: apt-get install qemu-utils")
    if "No space left" in told:
        return HvtuiError(f"cannot convert it: {told}", about=str(source), remedy="Make room")
    return UsageError(f"qemu-img cannot convert it: {told}", about=str(source), remedy="Is it undamaged?")
