"""Bytes into and out of storage volumes, through libvirt's streams: the same near and far.

Memory is constant: a chunk at a time. An upload goes in bouts of a few seconds, each on a connection of its own block
(`Host.calls`) from where the last one ended: nothing comes back while it sends, so a longer one would be crossed by a
keepalive, which libvirt's client before 10.3 does not survive safely (see host.connection). The hashes are those of the
bytes as they are stored, holes read as zeros. This module knows no template and decides nothing.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import libvirt

from host.connection import KEEPALIVE_INTERVAL_S, Host
from host.errors import Cancelled, HvtuiError, NotFound, UsageError
from host.text import printable
from host.units import KIB, MIB, format_bytes

if TYPE_CHECKING:
    import hashlib

Progress: TypeAlias = Callable[[float | None, str], None]
IsCancelled: TypeAlias = Callable[[], bool]

CHUNK_BYTES = 256 * KIB  # the most that libvirt's protocol has always carried in one message
HOLE_BYTES = 64 * MIB  # of a hole at once: zeros are hashed too, which takes its time
SECTION_BYTES = 32 * MIB  # of a download at once
BOUT_S = KEEPALIVE_INTERVAL_S * 0.6
PRIVATE_MODE = "0600"  # libvirt gives a disk to QEMU's user when a VM starts
SHARED_MODE = "0644"
_AT_HOLE = -3  # virStreamRecvFlags(): VIR_STREAM_RECV_STOP_AT_HOLE stopped there
_ZEROS = bytes(MIB)
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
_BUILDING_S = 30.0
_POLL_S = 0.1
_NO_SUCH_FLAG = frozenset({libvirt.VIR_ERR_INVALID_ARG, libvirt.VIR_ERR_ARGUMENT_UNSUPPORTED})
_NO_VOLUME = libvirt.VIR_ERR_NO_STORAGE_VOL


@dataclass(frozen=True, slots=True)
class Stored:
    """What went over: `size_bytes` with holes, and the SHA-256 of all of it in hexadecimal digits."""

    size_bytes: int
    sha256: str


def find_volume(pool: Any, name: str) -> Any | None:
    """The volume of that name in a libvirt pool, or None. Raises libvirtError for anything but its absence."""
    try:
        return pool.storageVolLookupByName(name)
    except libvirt.libvirtError as error:
        if error.get_error_code() != _NO_VOLUME:
            raise
        return None


def create(pool: Any, name: str, *, size_bytes: int, mode: str = PRIVATE_MODE) -> Any:
    """A new volume of plain bytes, all zeros and taking no room yet. What is stored in it tells libvirt its format
    later. Raises libvirtError."""
    from xml.etree.ElementTree import Element, SubElement, tostring

    root = Element("volume")
    SubElement(root, "name").text = name
    SubElement(root, "capacity", unit="bytes").text = str(size_bytes)
    SubElement(root, "allocation", unit="bytes").text = "0"
    target = SubElement(root, "target")
    SubElement(target, "format", type="raw")
    SubElement(SubElement(target, "permissions"), "mode").text = mode
    return pool.createXML(tostring(root, encoding="unicode"), 0)


def delete(volume: Any) -> None:
    """Delete a volume, as soon as libvirtd is done with it: it goes on with what a killed process had asked for. One
    that is gone is fine. Raises libvirtError."""
    until_s = time.monotonic() + _BUILDING_S
    while True:
        try:
            volume.delete(0)
        except libvirt.libvirtError as error:
            if error.get_error_code() == _NO_VOLUME:
                return
            if error.get_error_code() != libvirt.VIR_ERR_OPERATION_INVALID or time.monotonic() > until_s:
                raise
            time.sleep(_POLL_S)
        else:
            return


def refresh(pool: Any) -> None:
    """Let libvirt look at the pool's files again; where it is busy making volumes it does so later by itself. Raises
    libvirtError when the connection is lost."""
    try:
        pool.refresh(0)
    except libvirt.libvirtError as error:
        if error.get_error_domain() == libvirt.VIR_FROM_RPC:
            raise


# Up


def upload(
    host: Host,
    pool: str,
    name: str,
    path: Path | str,
    *,
    mode: str = PRIVATE_MODE,
    progress: Progress = lambda _fraction, _note: None,
    is_cancelled: IsCancelled = lambda: False,
) -> Stored:
    """Store the file at `path` as the new volume `name`, its holes as holes. A volume of that name is replaced: give
    it one that is yours alone. An upload that fails leaves its volume behind, for the caller to remove.

    Raises NotFound, Denied (the file), Cancelled, ConnectionLost, NameTaken, HvtuiError (the pool is full, or the file
    changed on the way).
    """
    with _file_errors(path), Path(path).open("rb", buffering=0) as file:
        size_bytes = file.seek(0, os.SEEK_END)
        with host.calls("make the volume", name) as connection:
            found = connection.storagePoolLookupByName(pool)
            old = find_volume(found, name)
            if old is not None:
                delete(old)
            create(found, name, size_bytes=size_bytes, mode=mode)
        sending = _Sending(file.fileno(), size_bytes, progress, is_cancelled)
        while sending.position < size_bytes:
            with host.calls("upload", name) as connection:
                volume = connection.storagePoolLookupByName(pool).storageVolLookupByName(name)
                sending.bout(connection, volume)
        if file.seek(0, os.SEEK_END) != size_bytes:
            raise HvtuiError("the file changed while it was uploaded", about=str(path), remedy="Try again")
    return Stored(size_bytes, sending.digest.hexdigest())


class _Sending:
    """One file on its way: where it is, and the hash so far."""

    def __init__(self, descriptor: int, size_bytes: int, progress: Progress, is_cancelled: IsCancelled) -> None:
        self.position = 0
        self.digest = _new_digest()
        self._descriptor = descriptor
        self._size_bytes = size_bytes
        self._progress = progress
        self._is_cancelled = is_cancelled
        self._has_holes = True  # until the file system or the driver says that it knows none

    def bout(self, connection: Any, volume: Any) -> None:
        """Send for a few seconds, from where the last bout ended."""
        stream = connection.newStream(0)
        self._open(volume, stream)
        until_s = time.monotonic() + BOUT_S
        with _aborted_on_error(stream):
            while True:
                if self._is_cancelled():
                    raise Cancelled("cancelled by the user")
                self._send_next(stream)
                done, total = format_bytes(self.position), format_bytes(self._size_bytes)
                self._progress(self.position / self._size_bytes, f"{done} of {total}")
                if self.position >= self._size_bytes or time.monotonic() >= until_s:
                    break
            stream.finish()

    def _open(self, volume: Any, stream: Any) -> None:
        left_bytes = self._size_bytes - self.position
        if self._has_holes:
            try:
                volume.upload(stream, self.position, left_bytes, libvirt.VIR_STORAGE_VOL_UPLOAD_SPARSE_STREAM)
            except libvirt.libvirtError as error:
                if error.get_error_code() not in _NO_SUCH_FLAG:
                    raise
                self._has_holes = False  # the pool's driver has no sparse streams
            else:
                return
        volume.upload(stream, self.position, left_bytes, 0)

    def _send_next(self, stream: Any) -> None:
        start, end = self._next_data() if self._has_holes else (self.position, self._size_bytes)
        if start > self.position:
            hole_bytes = min(start - self.position, HOLE_BYTES)
            stream.sendHole(hole_bytes)
            _hash_zeros(self.digest, hole_bytes)
            self.position += hole_bytes
            return
        data = os.pread(self._descriptor, min(CHUNK_BYTES, end - start), start)
        if not data:
            raise HvtuiError("the file became shorter while it was uploaded", remedy="Try again")
        sent_bytes = 0
        while sent_bytes < len(data):
            sent_bytes += stream.send(data[sent_bytes:] if sent_bytes else data)
        self.digest.update(data)
        self.position += len(data)

    def _next_data(self) -> tuple[int, int]:
        """Where the next data begin and end, from the position on; both are the file's end when only a hole is left."""
        try:
            start = os.lseek(self._descriptor, self.position, os.SEEK_DATA)
            return start, os.lseek(self._descriptor, start, os.SEEK_HOLE)
        except OSError as error:
            if error.errno == errno.ENXIO:
                return self._size_bytes, self._size_bytes
            if error.errno != errno.EINVAL:
                raise
            return self.position, self._size_bytes  # a file system that knows no holes


# Down


def download(
    host: Host,
    pool: str,
    name: str,
    write: Callable[[bytes], object],
    *,
    skip: Callable[[int], object] | None = None,
    size_bytes: int = 0,
    progress: Progress = lambda _fraction, _note: None,
    is_cancelled: IsCancelled = lambda: False,
) -> Stored:
    """Give the bytes of a volume to `write`, a chunk at a time; with `skip`, holes go there as their lengths, where the
    pool's driver has sparse streams. `size_bytes` is what is expected, for the progress only.

    Raises NotFound, Cancelled, ConnectionLost, and what `write` and `skip` raise.
    """
    receiving = _Receiving(write, skip, size_bytes, progress, is_cancelled)
    while not receiving.is_over:
        with host.calls("download", name) as connection:
            volume = connection.storagePoolLookupByName(pool).storageVolLookupByName(name)
            receiving.bout(connection, volume)
    return Stored(receiving.position, receiving.digest.hexdigest())


def download_file(
    host: Host,
    pool: str,
    name: str,
    path: Path,
    *,
    size_bytes: int = 0,
    progress: Progress = lambda _fraction, _note: None,
    is_cancelled: IsCancelled = lambda: False,
) -> Stored:
    """As `download`, into a new private file with the volume's holes. Raises HvtuiError when the disk is full."""
    with _file_errors(path), os.fdopen(os.open(path, _NEW_FILE, 0o600), "wb") as file:
        stored = download(
            host,
            pool,
            name,
            file.write,
            skip=lambda length: file.seek(length, os.SEEK_CUR),
            size_bytes=size_bytes,
            progress=progress,
            is_cancelled=is_cancelled,
        )
        file.truncate(stored.size_bytes)
    return stored


class _Receiving:
    """One volume on its way: how far it is, and the hash so far."""

    def __init__(
        self,
        write: Callable[[bytes], object],
        skip: Callable[[int], object] | None,
        size_bytes: int,
        progress: Progress,
        is_cancelled: IsCancelled,
    ) -> None:
        self.position = 0
        self.is_over = False
        self.digest = _new_digest()
        self._write = write
        self._skip = skip
        self._size_bytes = size_bytes
        self._progress = progress
        self._is_cancelled = is_cancelled
        self._has_holes = skip is not None  # until the driver says that it knows none

    def bout(self, connection: Any, volume: Any) -> None:
        """Take one section after the other for a few seconds. libvirt's client keeps what comes faster than it is
        taken, without a limit: of a section, that is no more than the section."""
        until_s = time.monotonic() + BOUT_S
        while True:
            started_at = self.position
            self._section(connection.newStream(0), volume)
            self.is_over = self.position - started_at < SECTION_BYTES
            if self.is_over or time.monotonic() >= until_s:
                break

    def _section(self, stream: Any, volume: Any) -> None:
        self._open(volume, stream)
        with _aborted_on_error(stream):
            while True:
                if self._is_cancelled():
                    raise Cancelled("cancelled by the user")
                stop = libvirt.VIR_STREAM_RECV_STOP_AT_HOLE
                piece = stream.recvFlags(CHUNK_BYTES, stop) if self._has_holes else stream.recv(CHUNK_BYTES)
                if piece == _AT_HOLE:
                    self._take_hole(int(stream.recvHole()))
                elif piece:
                    self._take(piece)
                else:
                    break
            stream.finish()

    def _take(self, piece: bytes) -> None:
        self.digest.update(piece)
        self._write(piece)
        self._go_on(len(piece))

    def _take_hole(self, length: int) -> None:
        _hash_zeros(self.digest, length)
        if self._skip is not None:
            self._skip(length)
        self._go_on(length)

    def _go_on(self, length: int) -> None:
        self.position += length
        fraction = min(self.position / self._size_bytes, 1.0) if self._size_bytes else None
        self._progress(fraction, format_bytes(self.position))

    def _open(self, volume: Any, stream: Any) -> None:
        if self._has_holes:
            try:
                volume.download(stream, self.position, SECTION_BYTES, libvirt.VIR_STORAGE_VOL_DOWNLOAD_SPARSE_STREAM)
            except libvirt.libvirtError as error:
                if error.get_error_code() not in _NO_SUCH_FLAG:
                    raise
                self._has_holes = False
            else:
                return
        volume.download(stream, self.position, SECTION_BYTES, 0)


# Small ones


def read_head(volume: Any, *, size_bytes: int) -> bytes:
    """The first bytes of a volume, at most `size_bytes`: one call. Raises libvirtError."""
    stream = volume.connect().newStream(0)
    volume.download(stream, 0, size_bytes, 0)
    parts: list[bytes] = []
    with _aborted_on_error(stream):
        while part := stream.recv(CHUNK_BYTES):
            parts.append(part)
        stream.finish()
    return b"".join(parts)


def read_volume_text(volume: Any, *, limit_bytes: int) -> str:
    """The text that a libvirt volume holds, in one call. Raises UsageError for one that is longer than `limit_bytes`
    or no UTF-8, libvirtError."""
    data = read_head(volume, size_bytes=limit_bytes + 1)
    if len(data) > limit_bytes:
        raise UsageError(f"it is longer than {format_bytes(limit_bytes)}", about=volume.name())
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise UsageError("it is no text in UTF-8", about=volume.name()) from error


def read_text(connection: Any, pool: str, name: str, *, limit_bytes: int) -> str:
    """As `read_volume_text`, of a volume by name. Raises libvirtError too, where pool or volume are not there."""
    volume = connection.storagePoolLookupByName(pool).storageVolLookupByName(name)
    return read_volume_text(volume, limit_bytes=limit_bytes)


def write_text(connection: Any, pool: str, name: str, text: str, *, mode: str = PRIVATE_MODE) -> None:
    """Store `text` as the volume `name`; one of that name is replaced, and is missing or shorter for a moment. Raises
    libvirtError."""
    data = text.encode("utf-8")
    found = connection.storagePoolLookupByName(pool)
    old = find_volume(found, name)
    if old is not None:
        delete(old)
    volume = create(found, name, size_bytes=len(data), mode=mode)
    if not data:
        return
    stream = connection.newStream(0)
    volume.upload(stream, 0, len(data), 0)
    with _aborted_on_error(stream):
        for start in range(0, len(data), CHUNK_BYTES):
            part = data[start : start + CHUNK_BYTES]
            while part:
                part = part[stream.send(part) :]
        stream.finish()


def _new_digest() -> hashlib._Hash:
    import hashlib  # here: reading the library hashes nothing

    return hashlib.sha256()


def _hash_zeros(digest: hashlib._Hash, length: int) -> None:
    whole, rest = divmod(length, len(_ZEROS))
    for _ in range(whole):
        digest.update(_ZEROS)
    digest.update(_ZEROS[:rest])


@contextmanager
def _aborted_on_error(stream: Any) -> Iterator[None]:
    """libvirtd must not wait for the rest of a stream that nobody sends or takes any more."""
    try:
        yield
    except BaseException:
        with suppress(libvirt.libvirtError):
            stream.abort()
        raise


@contextmanager
def _file_errors(path: Path | str) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        raise NotFound("no such file", about=printable(str(path))) from error
    except OSError as error:
        remedy = "Make room" if error.errno in {errno.ENOSPC, errno.EDQUOT} else ""
        raise HvtuiError(f"{error.strerror or error}", about=printable(str(path)), remedy=remedy) from error
