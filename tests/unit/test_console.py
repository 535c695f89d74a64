"""What the console does without a guest; with one: tests/real/test_console_real.py."""

from __future__ import annotations

import os
import pty
import signal
import termios
import threading

import pytest

from host.errors import NotFound, Unsupported, WrongState
from vm import console, inventory
from vm.model import VmState


@pytest.fixture
def terminal():
    outer, inner = pty.openpty()
    yield outer, inner
    for fd in (outer, inner):
        os.close(fd)


def vm_in(host, state):
    return next(vm for vm in inventory.read(host) if vm.state is state)


def attach(host, vm, terminal):
    return console.attach(host, vm, stdin_fd=terminal[1], stdout_fd=terminal[1])


def test_a_vm_that_is_off_has_no_console(simulated, terminal):
    with pytest.raises(WrongState, match="does not run"):
        attach(simulated, vm_in(simulated, VmState.OFF), terminal)


def test_a_driver_without_consoles_says_so_and_the_terminal_is_as_before(simulated, terminal):
    before = termios.tcgetattr(terminal[1])
    with pytest.raises(Unsupported):
        attach(simulated, vm_in(simulated, VmState.RUNNING), terminal)
    assert termios.tcgetattr(terminal[1]) == before


def test_a_vm_that_is_gone_is_not_found(simulated, terminal):
    from dataclasses import replace

    gone = replace(vm_in(simulated, VmState.OFF), uuid="00000000-0000-4000-8000-000000000000")
    with pytest.raises(NotFound):
        attach(simulated, gone, terminal)
    assert console._why(simulated, gone) == "the VM stopped"


def test_why_the_line_ended_is_asked_of_the_host(simulated):
    assert console._why(simulated, vm_in(simulated, VmState.OFF)) == "the VM stopped"
    assert "took it over" in console._why(simulated, vm_in(simulated, VmState.RUNNING))
    vm = vm_in(simulated, VmState.OFF)
    simulated.close()
    assert "the connection broke" in console._why(simulated, vm)


def test_the_terminal_is_set_back_after_an_error(terminal):
    before = termios.tcgetattr(terminal[1])
    with pytest.raises(RuntimeError), console.raw_terminal(terminal[1]):
        assert termios.tcgetattr(terminal[1]) != before
        raise RuntimeError
    assert termios.tcgetattr(terminal[1]) == before


def test_what_is_no_terminal_is_left_alone():
    reader, writer = os.pipe()
    with console.raw_terminal(reader):
        pass
    os.close(reader)
    os.close(writer)


@pytest.mark.parametrize(("escape", "name"), [(0x1D, "Ctrl+]"), (0x01, "Ctrl+A"), (ord("~"), "'~'")])
def test_the_key_that_leaves_has_a_name(escape, name):
    assert console.key_name(escape) == name


def test_output_to_a_terminal_that_is_gone_is_no_error():
    reader, writer = os.pipe()
    os.close(reader)
    before = signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    console._say(writer, "hello")
    signal.signal(signal.SIGPIPE, before)
    os.close(writer)


def test_a_slow_terminal_gets_everything():
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    got = bytearray()

    def read() -> None:
        while len(got) < 200_000:
            got.extend(os.read(reader, 4096))

    thread = threading.Thread(target=read, daemon=True)
    thread.start()
    console._write_all(writer, b"x" * 200_000)
    thread.join(20)
    assert len(got) == 200_000
    os.close(reader)
    os.close(writer)


class Stream:
    """A non-blocking libvirt stream as far as the bridge uses one: `coming` is what each recv gives."""

    def __init__(self, coming=(), takes=None):
        self.coming = list(coming)
        self.takes = list(takes or [])
        self.sent = b""
        self.asked_for = []

    def recv(self, _size):
        if not self.coming:
            return -2
        chunk = self.coming.pop(0)
        if isinstance(chunk, Exception):
            raise chunk
        return chunk

    def send(self, data):
        limit = self.takes.pop(0) if self.takes else len(data)
        if isinstance(limit, Exception):
            raise limit
        self.sent += data[: max(limit, 0)]
        return limit

    def eventUpdateCallback(self, events):  # noqa: N802
        self.asked_for.append(events)

    def eventRemoveCallback(self):  # noqa: N802
        raise console.libvirt.libvirtError("no callback")

    def abort(self):
        raise console.libvirt.libvirtError("the daemon is gone")


class Connection:
    def isAlive(self):  # noqa: N802
        return False


@pytest.fixture
def bridge_on():
    made = []

    def make(stream, stdin_fd, stdout_fd):
        bridge = console._Bridge(Connection(), stdin_fd=stdin_fd, stdout_fd=stdout_fd, escape=0x1D)
        bridge._stream, bridge._is_open = stream, True
        made.append(bridge)
        return bridge

    yield make
    for bridge in made:
        bridge.close()


def test_what_a_busy_stream_does_not_take_is_sent_later(terminal, bridge_on):
    stream = Stream(takes=[-2, 2, -2, -2])
    os.write(terminal[0], b"abcd\x1dmore\n")
    with console.raw_terminal(terminal[1]):
        assert bridge_on(stream, terminal[1], terminal[1]).run() == "left with Ctrl+]"
    assert stream.sent == b"abcd", "what follows the escape key is not the guest's"


def test_a_connection_that_died_silently_ends_the_session(terminal, bridge_on):
    assert bridge_on(Stream(), terminal[1], terminal[1]).run() == console._LINE_ENDED


@pytest.mark.parametrize("ending", [b"", console.libvirt.libvirtError("stream had I/O failure")])
def test_the_far_end_ends_the_session_after_its_last_words(terminal, bridge_on, ending):
    bridge = bridge_on(Stream([b"last words", ending]), terminal[1], terminal[1])
    assert bridge.run() == console._LINE_ENDED
    assert os.read(terminal[0], 100) == b"last words"


def test_a_stream_that_takes_nothing_any_more_ends_the_session(terminal, bridge_on):
    reader, writer = os.pipe()
    os.write(writer, b"typed")
    bridge = bridge_on(Stream(takes=[console.libvirt.libvirtError("broken")]), reader, terminal[1])
    assert bridge.run() == console._LINE_ENDED
    os.close(reader)
    os.close(writer)


def test_a_terminal_that_is_gone_ends_the_session(bridge_on):
    reader, writer = os.pipe()
    os.close(reader)
    bridge = bridge_on(Stream([b"words"]), writer, writer)
    assert bridge.run() == "the terminal is gone"
    os.close(writer)


def test_a_wake_up_listens_again_once_everything_is_shown(terminal, bridge_on):
    stream = Stream()
    bridge = bridge_on(stream, terminal[1], terminal[1])
    bridge._is_listening = True
    bridge._on_event(stream, 1, None)
    bridge._on_event(stream, 1, None)
    assert stream.asked_for == [0]
    bridge._show()
    assert stream.asked_for[1:] == [console._READABLE | console._ENDED]
    for _ in range(70_000):
        bridge._wake()  # a full pipe is awake enough
    bridge.stop("enough")
    assert bridge.run() == "enough"
