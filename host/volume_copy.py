"""Copies the bytes of a volume of one host into a new volume of another, through this machine, a chunk at a time.

Nothing but libvirt's streams is needed, so that it works wherever both hosts can be driven from; memory is constant,
and holes stay holes. Both directions go in bouts that no keepalive crosses (host.volumes says why). This module knows
no VM and decides nothing.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import libvirt

from host import volumes
from host.connection import Host
from host.errors import HvtuiError
from host.volumes import IsCancelled, Progress, Stored


@dataclass(frozen=True, slots=True)
class Copied:
    """What was read, how many bytes of it were sent (without the holes), and in how many seconds."""

    stored: Stored
    sent_bytes: int
    duration_s: float


_NO_SUCH_FLAG = frozenset({libvirt.VIR_ERR_INVALID_ARG, libvirt.VIR_ERR_ARGUMENT_UNSUPPORTED})


def copy(
    source: Host,
    source_place: tuple[str, str],
    target: Host,
    target_place: tuple[str, str],
    *,
    mode: str = volumes.PRIVATE_MODE,
    progress: Progress = lambda _fraction, _note: None,
    is_cancelled: IsCancelled = lambda: False,
) -> Copied:
    """Copy a volume (pool and name) to a new one (pool and name), byte by byte; a volume of that name is replaced: give
    it one that is yours alone. A copy that fails leaves its volume behind, for the caller to remove; `verify` says
    whether what was read is what was stored.

    Raises NotFound, Cancelled, ConnectionLost, HvtuiError (the pool is full).
    """
    size_bytes = stored_bytes(source, *source_place)
    pool, name = target_place
    with target.calls("make the volume", name) as connection:
        found = connection.storagePoolLookupByName(pool)
        old = volumes.find_volume(found, name)
        if old is not None:
            volumes.delete(old)
        volumes.create(found, name, size_bytes=size_bytes, mode=mode)
    started_s = time.monotonic()
    with _Storing(target, pool, name) as storing:
        stored = volumes.download(
            source,
            *source_place,
            storing.write,
            skip=storing.skip,
            size_bytes=size_bytes,
            progress=progress,
            is_cancelled=is_cancelled,
        )
    return Copied(stored, storing.sent_bytes, time.monotonic() - started_s)


def verify(
    host: Host,
    pool: str,
    name: str,
    expected: Stored,
    *,
    progress: Progress = lambda _fraction, _note: None,
    is_cancelled: IsCancelled = lambda: False,
) -> None:
    """Read a copy back. Raises HvtuiError unless it is what was read at its source."""
    found = volumes.download(
        host,
        pool,
        name,
        _forget,
        skip=_forget,
        size_bytes=expected.size_bytes,
        progress=progress,
        is_cancelled=is_cancelled,
    )
    if found != expected:
        raise HvtuiError("the copy is not what was read at its source", about=name, remedy="Try again")


def _forget(_data: object) -> None:
    return


def stored_bytes(host: Host, pool: str, name: str) -> int:
    """How many bytes a volume's file has, holes among them. Raises NotFound, ConnectionLost."""
    from xml.etree import ElementTree

    with host.calls("look at", name) as connection:
        volume = connection.storagePoolLookupByName(pool).storageVolLookupByName(name)
        root = ElementTree.fromstring(volume.XMLDesc(0))  # noqa: S314 - made by libvirt itself
        capacity_bytes = int(volume.info()[1])
    physical = root.findtext("physical", "").strip()
    found = root.find("target/format")
    is_plain = found is None or found.get("type", "raw") == "raw"
    return capacity_bytes if is_plain or not physical.isdigit() else int(physical)


class _Storing:
    """The far end of a copy: takes what comes, in bouts of a few seconds each."""

    def __init__(self, host: Host, pool: str, name: str) -> None:
        self._host, self._pool, self._name = host, pool, name
        self.sent_bytes = 0
        self._position = 0
        self._has_holes = True  # until the driver says that it knows none
        self._stack = ExitStack()
        self._stream: Any = None
        self._until_s = 0.0

    def __enter__(self) -> _Storing:
        return self

    def __exit__(self, kind: object, error: BaseException | None, _traceback: object) -> None:
        if error is None:
            with self._errors():
                self._end_bout()
        else:
            self._give_up(error)

    def write(self, data: bytes) -> None:
        """Store data at the position."""
        with self._errors():
            self._in_bout()
            sent_bytes = 0
            while sent_bytes < len(data):
                sent_bytes += self._stream.send(data[sent_bytes:] if sent_bytes else data)
            self._position += len(data)
            self.sent_bytes += len(data)

    def skip(self, length: int) -> None:
        """Leave a hole: the volume is all zeros so far."""
        with self._errors():
            if self._has_holes and self._stream is not None:
                self._stream.sendHole(length)
            elif self._stream is not None:
                self._end_bout()  # the next one begins behind the hole
            self._position += length

    def _in_bout(self) -> None:
        if self._stream is not None and time.monotonic() >= self._until_s:
            self._end_bout()
        if self._stream is None:
            connection = self._stack.enter_context(self._host.calls(f"store on {self._host.name}", self._name))
            volume = connection.storagePoolLookupByName(self._pool).storageVolLookupByName(self._name)
            self._stream = connection.newStream(0)
            self._open(volume)
            self._until_s = time.monotonic() + volumes.BOUT_S

    def _open(self, volume: Any) -> None:
        if self._has_holes:
            try:
                volume.upload(self._stream, self._position, 0, libvirt.VIR_STORAGE_VOL_UPLOAD_SPARSE_STREAM)
            except libvirt.libvirtError as error:
                if error.get_error_code() not in _NO_SUCH_FLAG:
                    raise
                self._has_holes = False
            else:
                return
        volume.upload(self._stream, self._position, 0, 0)

    def _end_bout(self) -> None:
        stream, self._stream = self._stream, None
        if stream is not None:
            stream.finish()
        self._stack.close()

    def _give_up(self, error: BaseException) -> None:
        """libvirtd must not wait for the rest; the block of calls tells what the error was. Raises that error."""
        stream, self._stream = self._stream, None
        if stream is not None:
            with suppress(libvirt.libvirtError):
                stream.abort()
        stack, self._stack = self._stack, ExitStack()
        stack.__exit__(type(error), error, error.__traceback__)

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except BaseException as error:
            self._give_up(error)
            raise
