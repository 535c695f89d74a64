"""A Unix socket between a client and a libvirtd that counts the remote procedure calls which pass.

libvirt's packets are framed by a 4-byte length that includes itself; then program, version, procedure, type, serial and
status follow, 4 bytes each, big-endian (libvirt's src/rpc/virnetprotocol.x). Keepalive is a program of its own and not
counted. Packets that carry file descriptors do not pass: lists and events have none.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections import Counter
from pathlib import Path
from types import TracebackType
from typing import Self

REMOTE_PROGRAM = 0x20008086
CALL = 0
_HEADER = struct.Struct(">IIIIIII")


class RpcProxy:
    """Listens on `path` and forwards to `server`; a context manager. `calls` holds each call's procedure number."""

    def __init__(self, path: Path, server: Path) -> None:
        self.path = path
        self.calls: list[int] = []
        self._server = server
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._open: list[socket.socket] = [self._listener]
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> Self:
        self._listener.bind(str(self.path))
        self._listener.listen()
        self._spawn(self._accept)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        for each in self._open:
            _end(each)
        for thread in self._threads:
            thread.join(5)

    def taken(self) -> Counter[int]:
        """The calls since the last time, by procedure number."""
        calls, self.calls = self.calls, []
        return Counter(calls)

    def _spawn(self, work, *arguments) -> None:
        thread = threading.Thread(target=work, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
                server.connect(str(self._server))
                self._open += [client, server]
                self._spawn(self._forward_calls, client, server)
                self._spawn(self._forward, server, client)

    def _forward(self, source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                target.sendall(data)
        _end(target)

    def _forward_calls(self, source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            buffer = b""
            while data := source.recv(1 << 16):
                buffer = self._count(buffer + data)
                target.sendall(data)
        _end(target)

    def _count(self, buffer: bytes) -> bytes:
        """Count the packets that are complete; the rest of the buffer."""
        while len(buffer) >= _HEADER.size:
            length, program, _version, procedure, kind, _serial, _status = _HEADER.unpack_from(buffer)
            if len(buffer) < length:
                break
            if program == REMOTE_PROGRAM and kind == CALL:
                self.calls.append(procedure)
            buffer = buffer[length:]
        return buffer


def _end(end: socket.socket) -> None:
    with contextlib.suppress(OSError):
        end.shutdown(socket.SHUT_RDWR)
    end.close()
