"""A VM's serial console on this terminal: the bytes of a libvirt stream, both ways, until one side ends.

The terminal is put into raw mode and set back whatever happens: an error, the end of the VM, of libvirtd or of the
connection, SIGTERM, SIGHUP. Received bytes are the guest's and go to the terminal as they are, as on any serial line.
This module changes nothing about the VM.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import threading
import time
from collections.abc import Iterator
from types import FrameType
from typing import Any

import libvirt

from host.connection import Host
from host.errors import Busy, HvtuiError, NotFound, Unsupported, WrongState
from host.text import printable
from vm.commands import hint
from vm.domain_xml import parse
from vm.model import Vm

ESCAPE = 0x1D  # Ctrl-]
_CHUNK_BYTES = 64 * 1024
_RETRY_S = 0.02
_LOOK_S = 0.5  # a stream is told nothing when its connection dies: look
_CLOSE_S = 2.0
_GOES_OFF_S = 1.0  # the console of a QEMU that ends is closed before libvirtd has seen it end
_HANDOVER_S = 1.5  # libvirtd closes a console that somebody has just left a moment later
_READABLE = libvirt.VIR_STREAM_EVENT_READABLE
_LINE_ENDED = "the far side closed the line"
_ENDED = libvirt.VIR_STREAM_EVENT_ERROR | libvirt.VIR_STREAM_EVENT_HANGUP


def attach(host: Host, vm: Vm, *, stdin_fd: int, stdout_fd: int, escape: int = ESCAPE, force: bool = False) -> str:
    """Connect the file descriptors with the serial console of `vm`; returns, in words, why it ended.

    `escape` is the code of the key that leaves. `force` takes the console away from whoever has it. A SIGTERM or
    SIGHUP during it takes its usual effect after the terminal is set back. Raises WrongState (it does not run),
    Unsupported (it has no serial console), Busy (somebody else has the console), ConnectionLost, Denied, NotFound.
    """
    with host.calls("use the console", vm.name) as connection:  # for the whole time: a stream needs its connection
        domain = connection.lookupByUUIDString(vm.uuid)
        _check(domain, vm)
        bridge = _Bridge(connection, stdin_fd=stdin_fd, stdout_fd=stdout_fd, escape=escape)
        try:
            bridge.open(domain, vm, force=force)
            with _signals(bridge) as caught:
                _say(stdout_fd, f"Connected to the serial console of {printable(vm.name, limit=60)}.")
                _say(stdout_fd, f"Leave it with {key_name(escape)}. If nothing appears, press Enter.")
                with raw_terminal(stdin_fd):
                    reason = bridge.run()
        finally:
            bridge.close()
    if caught:
        signal.raise_signal(caught[0])
    _say(stdout_fd, "")
    return _why(host, vm) if reason == _LINE_ENDED else reason


def key_name(escape: int) -> str:
    """The name of a control key: "Ctrl+]" for 0x1d."""
    return f"Ctrl+{chr(escape + 64)}" if escape < 32 else repr(chr(escape))


def _check(domain: Any, vm: Vm) -> None:
    if not domain.isActive():
        raise WrongState(
            "it does not run, so it has no console", about=vm.name, remedy=f"Start it: {hint('start', vm.name)}"
        )
    devices = parse(domain.XMLDesc(0)).find("devices")
    if devices is None or (devices.find("serial") is None and devices.find("console") is None):
        raise Unsupported(
            "it has no serial console",
            about=vm.name,
            remedy="Add <console type='pty'/> to its devices, and console=ttyS0 to the guest's kernel command line",
        )


class _Bridge:
    """Carries bytes between two file descriptors and a non-blocking stream.

    The stream's callback runs on libvirt's event thread: it only wakes the loop in `run`, and then wants to hear
    nothing more until that loop has taken what has come; a terminal that takes nothing (Ctrl-S) must not let it spin.
    """

    def __init__(self, connection: libvirt.virConnect, *, stdin_fd: int, stdout_fd: int, escape: int) -> None:
        self._connection = connection
        self._stream: Any = None
        self._stdin_fd, self._stdout_fd, self._escape = stdin_fd, stdout_fd, escape
        self._wake_reader, self._wake_writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._lock = threading.Lock()
        self._is_open = False
        self._is_listening = False
        self._reason = ""
        self._to_send = b""

    def open(self, domain: Any, vm: Vm, *, force: bool) -> None:
        """Open the console. Raises Busy when somebody else has it, libvirtError."""
        flag = libvirt.VIR_DOMAIN_CONSOLE_FORCE if force else libvirt.VIR_DOMAIN_CONSOLE_SAFE
        until_s = time.monotonic() + _HANDOVER_S
        while True:
            stream = self._connection.newStream(libvirt.VIR_STREAM_NONBLOCK)
            try:
                domain.openConsole(None, stream, flag)
                break
            except libvirt.libvirtError as error:
                if "console session exists" not in (error.get_error_message() or ""):
                    raise
                if time.monotonic() > until_s:
                    remedy = f"Take it over: {hint('console', vm.name, '--force')}"
                    raise Busy("somebody else has its console open", about=vm.name, remedy=remedy) from error
            time.sleep(_RETRY_S)
        self._stream = stream
        self._is_open = self._is_listening = True
        stream.eventAddCallback(_READABLE | _ENDED, self._on_event, None)

    def close(self) -> None:
        """Close the console; not on this thread, because a daemon that does not answer must not keep the terminal."""
        with self._lock:
            was_open, self._is_open = self._is_open, False
            for fd in (self._wake_reader, self._wake_writer):
                os.close(fd)
        if was_open:
            closer = threading.Thread(target=_abort, args=(self._stream,), daemon=True)
            closer.start()
            closer.join(_CLOSE_S)

    def _on_event(self, stream: Any, _events: int, _opaque: Any) -> None:
        with self._lock:
            if self._is_open and self._is_listening:
                self._is_listening = False
                stream.eventUpdateCallback(0)
                self._wake()

    def stop(self, reason: str) -> None:
        """End `run` soon; safe in a signal handler."""
        self._reason = self._reason or reason
        self._wake()

    def _wake(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.write(self._wake_writer, b"w")

    def run(self) -> str:
        """Carry bytes until one side ends; returns the reason."""
        while not self._reason:
            self._show()
            self._flush()
            if self._reason:
                break
            sources = [self._wake_reader] if self._to_send else [self._wake_reader, self._stdin_fd]
            ready, _, _ = select.select(sources, [], [], _RETRY_S if self._to_send else _LOOK_S)
            if self._wake_reader in ready:
                os.read(self._wake_reader, 4096)
            if self._stdin_fd in ready:
                self._read_keys()
            if not ready and not self._connection.isAlive():
                self._reason = _LINE_ENDED
        until_s = time.monotonic() + _CLOSE_S
        while self._to_send and self._reason != _LINE_ENDED and time.monotonic() < until_s:
            self._flush()  # what was typed before the end still counts
            time.sleep(_RETRY_S if self._to_send else 0)
        return self._reason

    def _show(self) -> None:
        """Write what the guest has written; then listen again."""
        while not self._reason:
            try:
                chunk = self._stream.recv(_CHUNK_BYTES)
            except libvirt.libvirtError:
                chunk = b""
            if chunk == b"":
                self._reason = _LINE_ENDED
            elif not isinstance(chunk, bytes):
                break  # nothing more for now
            else:
                self._write(chunk)
        with self._lock:
            if not self._is_listening and not self._reason:
                self._is_listening = True
                self._stream.eventUpdateCallback(_READABLE | _ENDED)

    def _write(self, chunk: bytes) -> None:
        try:
            _write_all(self._stdout_fd, chunk)
        except OSError:
            self._reason = self._reason or "the terminal is gone"

    def _read_keys(self) -> None:
        try:
            typed = os.read(self._stdin_fd, _CHUNK_BYTES)
        except OSError:  # the terminal is gone
            typed = b""
        before, escape, _ = typed.partition(bytes([self._escape]))
        self._to_send += before
        if escape:
            self._reason = f"left with {key_name(self._escape)}"
        elif not typed:
            self._reason = "the input ended"

    def _flush(self) -> None:
        while self._to_send:
            try:
                sent = self._stream.send(self._to_send)
            except libvirt.libvirtError:
                self._reason, self._to_send = self._reason or _LINE_ENDED, b""
                return
            if sent <= 0:
                return
            self._to_send = self._to_send[sent:]


def _abort(stream: Any) -> None:
    with contextlib.suppress(libvirt.libvirtError):
        stream.eventRemoveCallback()
    with contextlib.suppress(libvirt.libvirtError):
        stream.abort()


def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        try:
            view = view[os.write(fd, view) :]
        except BlockingIOError:
            select.select([], [fd], [])


@contextlib.contextmanager
def raw_terminal(fd: int) -> Iterator[None]:
    """The terminal at `fd` in raw mode: every key goes to the guest. Nothing happens where `fd` is no terminal."""
    import termios
    import tty

    if not os.isatty(fd):
        yield
        return
    before = termios.tcgetattr(fd)
    try:
        tty.setraw(fd, termios.TCSANOW)
        yield
    finally:
        with contextlib.suppress(termios.error):  # a terminal that is gone needs no setting back
            termios.tcsetattr(fd, termios.TCSANOW, before)


@contextlib.contextmanager
def _signals(bridge: _Bridge) -> Iterator[list[int]]:
    """Note SIGTERM and SIGHUP instead of dying of them with the terminal raw. Only a main thread can."""
    caught: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield caught
        return

    def note(number: int, _frame: FrameType | None) -> None:
        caught.append(number)
        bridge.stop(f"ended by {signal.Signals(number).name}")

    before = {number: signal.signal(number, note) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield caught
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _say(fd: int, line: str) -> None:
    with contextlib.suppress(OSError):  # nobody is there to read it
        _write_all(fd, line.encode("utf-8", "replace") + b"\r\n")


def _why(host: Host, vm: Vm) -> str:
    """Why the far side of the line ended."""
    try:
        if _goes_off(host, vm):
            return "the VM stopped"
    except NotFound:
        return "the VM stopped"  # it was transient
    except HvtuiError as error:
        return f"the connection broke: {error.cause}"
    return "the console was closed: somebody else took it over, or libvirtd was restarted"


def _goes_off(host: Host, vm: Vm) -> bool:
    until_s = time.monotonic() + _GOES_OFF_S
    with host.calls("look at", vm.name) as connection:
        domain = connection.lookupByUUIDString(vm.uuid)
        while domain.isActive() and domain.state()[0] != libvirt.VIR_DOMAIN_SHUTDOWN:
            if time.monotonic() > until_s:
                return False
            time.sleep(_RETRY_S)
    return True
