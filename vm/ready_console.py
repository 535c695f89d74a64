"""Watches a VM's serial console for the line that tells that its guest is ready, without standing in anybody's way.

libvirt gives a console to one reader. This one never takes it away from another (no FORCE), and lets go of it for a
moment every second or so, when nothing comes: a person who opens it (vm.console tries for longer than that) gets it at
the first try, and `virsh console` at one of the next. Each turn is a block of calls of its own, on a thread of its own,
shorter than the interval of keepalive (host.connection).
"""

from __future__ import annotations

import contextlib
import re
import threading
import time
from types import TracebackType
from typing import Any, Self

import libvirt

from host.connection import Host
from host.errors import HvtuiError
from vm import tiny

_TURN_S = 1.2  # less than a person's console tries to open (vm.console)
_LONGEST_TURN_S = 4.0  # with output that does not end
_PAUSE_S = 0.08
_RETRY_S = 1.0
_POLL_S = 0.05
_KEPT_BYTES = 8192
CLOUD_INIT_LINE = re.compile(rb"Cloud-init v\. [^\r\n]{1,80} finished at")
ANY_LINE = re.compile(CLOUD_INIT_LINE.pattern + b"|" + re.escape(tiny.READY_MARKER.encode()))


class ConsoleWatch:
    """A context that reads in the background. `is_ready`: the line was seen; `is_taken`: somebody else has the
    console now."""

    def __init__(self, host: Host, uuid: str, name: str, *, line: re.Pattern[bytes]) -> None:
        self.is_ready = False
        self.is_taken = False
        self._host, self._uuid, self._name = host, uuid, name
        self._line = line
        self._seen = b""
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._work, name=f"console-{name}", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.release()
        self._thread.join(_LONGEST_TURN_S)

    def release(self) -> None:
        """Let go of the console for good."""
        self._over.set()

    def _work(self) -> None:
        while not self._over.is_set() and not self.is_ready:
            try:
                with self._host.calls("read the console of", self._name) as connection:
                    has_read = self._turn(connection)
            except HvtuiError:
                has_read = False  # it stopped, or the connection is lost: whoever waits finds out
            self._over.wait(_PAUSE_S if has_read else _RETRY_S)

    def _turn(self, connection: libvirt.virConnect) -> bool:
        """Read for a while; False when there is nothing to read from. Raises libvirtError."""
        stream = connection.newStream(libvirt.VIR_STREAM_NONBLOCK)
        try:
            connection.lookupByUUIDString(self._uuid).openConsole(None, stream, libvirt.VIR_DOMAIN_CONSOLE_SAFE)
        except libvirt.libvirtError as error:
            self.is_taken = "console session exists" in (error.get_error_message() or "")
            if error.get_error_domain() == libvirt.VIR_FROM_RPC:
                raise
            return False
        self.is_taken = False
        try:
            return self._read(stream)
        finally:
            with contextlib.suppress(libvirt.libvirtError):
                stream.abort()

    def _read(self, stream: Any) -> bool:
        began_s = time.monotonic()
        while not self._over.is_set() and (waited_s := time.monotonic() - began_s) < _LONGEST_TURN_S:
            try:
                chunk = stream.recv(4096)
            except libvirt.libvirtError:
                return False  # a person has taken it with force, or the VM has stopped
            if isinstance(chunk, bytes) and chunk:
                self._take(chunk)
            elif chunk == b"":
                return False
            elif self.is_ready or waited_s >= _TURN_S:
                return True
            else:
                time.sleep(_POLL_S)
        return True

    def _take(self, chunk: bytes) -> None:
        self._seen = (self._seen + chunk)[-_KEPT_BYTES:]
        if self._line.search(self._seen):
            self.is_ready = True
