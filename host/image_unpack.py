"""Unpacks what an image comes in: one compressed file (xz, gz, zst), or an OVA with its disks.

The input is hostile. Nothing is written outside the directory given, and nothing but regular files with plain names;
no more than `limit_bytes` come out, in bounded memory; zeros become holes, so that a bomb of zeros takes time that can
be cancelled but no room. One layer is unpacked, not what may be packed inside. This module starts no guest and asks no
hypervisor.
"""

from __future__ import annotations

import hashlib
import lzma
import os
import tarfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TypeAlias

from host.errors import Cancelled, HvtuiError, Unsupported, UsageError
from host.image_kinds import ImageKind, recognise
from host.text import printable
from host.units import MIB, format_bytes

if TYPE_CHECKING:
    import subprocess

Progress: TypeAlias = Callable[[float | None, str], None]

CHUNK_BYTES = 1 * MIB
_HOLE_BYTES = 64 * 1024
_ZEROS = bytes(_HOLE_BYTES)
_XZ_MEMORY_BYTES = 1024 * MIB  # a dictionary of 1 GiB is more than any level of xz asks for (xz(1): 65 MiB at -9)
_MOST_MEMBERS = 64
_DESCRIPTOR_BYTES = 4 * MIB
_DAMAGED = "Is the download whole? Compare its checksum"


@dataclass(frozen=True, slots=True)
class Appliance:
    """An unpacked OVA: the text of its descriptor, and its other files by name."""

    descriptor: str
    files: dict[str, Path]


def unpack(
    path: Path,
    target: Path,
    *,
    limit_bytes: int,
    progress: Progress = lambda _fraction, _note: None,
    is_cancelled: Callable[[], bool] = lambda: False,
) -> int:
    """Write what the compressed file `path` holds to `target`, which is made anew; returns its size in bytes. Raises
    UsageError for damaged or too large content, Unsupported, Cancelled, and HvtuiError when the disk is full."""
    kind = recognise(path)
    if not kind.is_compressed:
        raise UsageError(f"it is {kind.value}, and not compressed", about=str(path))
    with _errors(path), path.open("rb") as file, _new_file(target) as output:
        chunks = {ImageKind.XZ: _xz, ImageKind.GZIP: _gzip, ImageKind.ZSTD: _zstd}[kind](file)
        total_bytes = max(path.stat().st_size, 1)

        def noted() -> Iterator[bytes]:
            for chunk in chunks:
                progress(min(file.tell() / total_bytes, 1.0), "unpacking")
                yield chunk

        return _write_sparse(noted(), output, limit_bytes=limit_bytes, is_cancelled=is_cancelled)


def unpack_appliance(
    path: Path,
    directory: Path,
    *,
    limit_bytes: int,
    progress: Progress = lambda _fraction, _note: None,
    is_cancelled: Callable[[], bool] = lambda: False,
) -> Appliance:
    """Write the files of the OVA at `path` into `directory` (which exists) and check them against its manifest, if it
    has one. Raises UsageError for an OVA that is damaged, holds anything but plain files, or is too large."""
    names: dict[str, Path] = {}
    digests: dict[str, dict[str, str]] = {}
    left_bytes, total_bytes = limit_bytes, max(path.stat().st_size, 1)
    with _errors(path), tarfile.open(path, "r:") as archive:
        for member in archive:
            _check_member(member, names, path)
            target = directory / f"{len(names):02}-{member.name}"
            content = archive.extractfile(member)
            if content is None:
                raise _untrusted(path, member.name, "is no plain file")
            hashes = {name: hashlib.new(name, usedforsecurity=False) for name in ("sha1", "sha256", "sha512")}
            with _new_file(target) as output:
                chunks = _hashed(_read(content), hashes)
                left_bytes -= _write_sparse(chunks, output, limit_bytes=left_bytes, is_cancelled=is_cancelled)
            names[member.name] = target
            digests[member.name] = {name: each.hexdigest() for name, each in hashes.items()}
            progress(min((member.offset_data + member.size) / total_bytes, 1.0), f"unpacked {printable(member.name)}")
    return _appliance(path, names, digests)


def read_descriptor(path: Path) -> str:
    """The text of the descriptor in the OVA at `path`, of which nothing is unpacked. Raises what `unpack_appliance`
    does."""
    names: dict[str, Path] = {}
    found: list[str] = []
    with _errors(path), tarfile.open(path, "r:") as archive:
        for member in archive:
            _check_member(member, names, path)
            names[member.name] = path
            if not member.name.lower().endswith(".ovf"):
                continue
            content = archive.extractfile(member)
            if content is None or member.size > _DESCRIPTOR_BYTES:
                raise UsageError(f"its descriptor is longer than {format_bytes(_DESCRIPTOR_BYTES)}", about=str(path))
            found.append(content.read(_DESCRIPTOR_BYTES).decode("utf-8", "replace"))
    if len(found) != 1:
        raise UsageError(f"an OVA has one descriptor (.ovf), this one has {len(found)}", about=str(path))
    return found[0]


def _appliance(path: Path, names: dict[str, Path], digests: dict[str, dict[str, str]]) -> Appliance:
    descriptors = [name for name in names if name.lower().endswith(".ovf")]
    if len(descriptors) != 1:
        raise UsageError(f"an OVA has one descriptor (.ovf), this one has {len(descriptors)}", about=str(path))
    for name in names:
        if name.lower().endswith(".mf"):
            _check_manifest(path, _text(names[name]), digests)
    files = {name: file for name, file in names.items() if not name.lower().endswith((".ovf", ".mf", ".cert"))}
    return Appliance(_text(names[descriptors[0]]), files)


def _text(path: Path) -> str:
    if path.stat().st_size > _DESCRIPTOR_BYTES:
        raise UsageError(f"its text is longer than {format_bytes(_DESCRIPTOR_BYTES)}", about=path.name)
    return path.read_text(encoding="utf-8", errors="replace")


def _check_manifest(path: Path, text: str, digests: dict[str, dict[str, str]]) -> None:
    """Lines such as "SHA256(disk.vmdk)= 12ab…" (DMTF DSP0243, 7.1)."""
    for line in text.splitlines():
        algorithm, bracket, rest = line.partition("(")
        name, closed, digest = rest.partition(")=")
        known = digests.get(name.strip(), {}).get(algorithm.strip().lower())
        if bracket and closed and known is not None and known != digest.strip().lower():
            raise UsageError(
                f"{printable(name, limit=80)} does not match the manifest's checksum", about=str(path), remedy=_DAMAGED
            )


def _check_member(member: tarfile.TarInfo, names: dict[str, Path], path: Path) -> None:
    name = member.name
    if not member.isfile():
        raise _untrusted(path, name, "is no plain file")
    if "/" in name or "\\" in name or name in {"", ".", ".."} or printable(name) != name or len(name.encode()) > 200:
        raise _untrusted(path, name, "is no plain file name")
    if name in names:
        raise _untrusted(path, name, "is there twice")
    if len(names) >= _MOST_MEMBERS:
        raise UsageError(f"it holds more than {_MOST_MEMBERS} files", about=str(path))


def _untrusted(path: Path, name: str, why: str) -> UsageError:
    shown = printable(name, limit=80)
    return UsageError(f"its member {shown!r} {why}: such an OVA is not unpacked", about=str(path))


# Compressed files, in chunks


def _read(file: Any) -> Iterator[bytes]:
    while chunk := file.read(CHUNK_BYTES):
        yield chunk


def _hashed(chunks: Iterator[bytes], hashes: dict[str, Any]) -> Iterator[bytes]:
    for chunk in chunks:
        for each in hashes.values():
            each.update(chunk)
        yield chunk


def _xz(file: BinaryIO) -> Iterator[bytes]:
    """Several streams may follow each other, with zeros between them (the .xz format, 2.2)."""
    data = file.read(CHUNK_BYTES)
    while data:
        stream = lzma.LZMADecompressor(format=lzma.FORMAT_XZ, memlimit=_XZ_MEMORY_BYTES)
        while not stream.eof:
            yield stream.decompress(data, max_length=CHUNK_BYTES)
            if stream.needs_input and not stream.eof:
                data = file.read(CHUNK_BYTES)
                if not data:
                    raise EOFError
            else:
                data = b""
        data = stream.unused_data.lstrip(b"\0")
        while not data and (more := file.read(CHUNK_BYTES)):
            data = more.lstrip(b"\0")


def _gzip(file: BinaryIO) -> Iterator[bytes]:
    """Several members may follow each other (RFC 1952, 2.2); what comes after them and is none is ignored, as by
    gzip."""
    data = file.read(CHUNK_BYTES)
    while data[:2] == b"\x1f\x8b":
        member = zlib.decompressobj(31)
        while not member.eof:
            yield member.decompress(data, CHUNK_BYTES)
            data = member.unconsumed_tail
            if not data and not member.eof:
                data = file.read(CHUNK_BYTES)
                if not data:
                    raise EOFError
        data = member.unused_data or file.read(CHUNK_BYTES)
        if len(data) < len(b"\x1f\x8b"):
            data += file.read(CHUNK_BYTES)


def _zstd(file: BinaryIO) -> Iterator[bytes]:
    """By the program: Python 3.11 has no zstd of its own."""
    import subprocess

    command = ["zstd", "--decompress", "--stdout", "--quiet", "--memory=1024MB"]
    try:
        process = subprocess.Popen(command, stdin=file, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    except FileNotFoundError as error:
        raise Unsupported("zstd is not installed", remedy="Install it: apt-get install zstd") from error
    try:
        assert process.stdout is not None  # noqa: S101 - a pipe was asked for
        yield from _read(process.stdout)
        _finish(process)
    finally:
        process.kill()
        process.communicate()


def _finish(process: subprocess.Popen[bytes]) -> None:
    _, told = process.communicate()
    if process.returncode:
        raise lzma.LZMAError(printable(told.decode("utf-8", "replace").strip(), limit=300))


# Output


@contextmanager
def _new_file(path: Path) -> Iterator[BinaryIO]:
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with os.fdopen(handle, "wb", buffering=0) as file:
        yield file


def _write_sparse(
    chunks: Iterator[bytes], output: BinaryIO, *, limit_bytes: int, is_cancelled: Callable[[], bool]
) -> int:
    written = 0
    for chunk in chunks:
        if is_cancelled():
            raise Cancelled("cancelled by the user")
        if written + len(chunk) > limit_bytes:
            remedy = "If you trust it, allow more with --max-size"
            raise UsageError(f"unpacked it is larger than {format_bytes(limit_bytes)}", remedy=remedy)
        for start in range(0, len(chunk), _HOLE_BYTES):
            piece = memoryview(chunk)[start : start + _HOLE_BYTES]
            if piece == _ZEROS[: len(piece)]:
                output.seek(len(piece), os.SEEK_CUR)
            else:
                _write_all(output, piece)
        written += len(chunk)
    output.truncate(written)
    return written


def _write_all(output: BinaryIO, piece: memoryview) -> None:
    while piece:
        piece = piece[output.write(piece) :]


@contextmanager
def _errors(path: Path) -> Iterator[None]:
    try:
        yield
    except (EOFError, lzma.LZMAError, zlib.error, tarfile.TarError) as error:
        why = "it ends too early" if isinstance(error, EOFError) else printable(str(error), limit=300)
        raise UsageError(f"it is damaged: {why}", about=str(path), remedy=_DAMAGED) from error
    except OSError as error:
        about = str(error.filename or path)
        raise HvtuiError(f"cannot unpack it: {error.strerror or error}", about=about, remedy="Make room") from error
