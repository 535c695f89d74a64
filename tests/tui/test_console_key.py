"""The key of the serial console: the terminal is lent and comes back, on a real terminal and whatever happens.

The console itself, with a guest at its other end, is tried in tests/real.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest

from host.connection import Host
from host.errors import Busy, HvtuiError, Unsupported
from hvtui.tui import console as lending
from hvtui.tui.app import HvtuiApp
from tests.support.terminal import Terminal
from tests.tui.driving import go_to, running, status, until, vm
from vm import console
from vm.model import VmState

App = Callable[..., HvtuiApp]


@pytest.fixture
def demo() -> Iterator[Terminal]:
    """The demo, its console replaced by one that echoes, with the cursor on a running VM."""
    terminal = Terminal(sys.executable, "-m", "tests.support.console_demo")
    terminal.wait_for("backup")
    terminal.wait_until(lambda: "▶" in terminal.line_with("backup"), "the cursor")
    yield terminal
    terminal.close()


def to_console(terminal: Terminal) -> None:
    terminal.type("c")
    terminal.wait_for("console of backup ready")


def test_the_key_gives_the_terminal_to_the_console_and_the_escape_key_brings_the_list_back(demo: Terminal) -> None:
    to_console(demo)
    assert demo.raw.rindex(b"\x1b[?1049l") > demo.raw.rindex(
        b"\x1b[?1049h"
    )  # the list is gone: it is the shell's screen
    demo.type("qjd")  # none of these is a key of hvtui now
    demo.wait_for("QJD")
    demo.type("\x1d")
    demo.wait_for("console of backup: left with Ctrl+]\\e[2J")
    demo.wait_for("30 VMs")
    demo.type("j")
    demo.wait_until(lambda: "▶" in demo.line_with("build-01"), "the cursor to move")
    demo.type("q")
    assert demo.exit_code() == 0
    demo.assert_restored()


def test_what_a_guest_left_switched_on_is_switched_off(demo: Terminal) -> None:
    to_console(demo)
    demo.type("\x1d")
    demo.wait_for("console of backup: left with Ctrl+]")
    after_mess = demo.raw[demo.raw.rindex(b"\x1b]0;owned") :]
    assert after_mess.index(lending.TIDY.rstrip()) < after_mess.index(b"\x1b[?1049h")
    demo.type("q")
    assert demo.exit_code() == 0
    demo.assert_restored()


def test_each_console_begins_on_a_clean_page_and_leaves_one_to_the_shell(demo: Terminal) -> None:
    for _ in range(2):
        to_console(demo)
        assert demo.lines[0].startswith("console of backup ready")
        assert not "".join(demo.lines[1:]).strip()
        demo.type("rubbish")
        demo.wait_for("RUBBISH")
        demo.type("\x1d")
        demo.wait_for("30 VMs")
    demo.type("q")
    assert demo.exit_code() == 0
    assert "RUBBISH" not in demo.text
    demo.assert_restored()


async def test_the_console_of_a_paused_vm_says_that_it_is_paused(
    app_on: App, simulated: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = app_on(simulated)
    async with running(app):
        lent = Lent(app, monkeypatch, "left with Ctrl+]")
        lending.lend_terminal(app, replace(vm(app, "web-01"), state=VmState.PAUSED))
        assert b"web-01 is paused: its console is silent until it is resumed" in lent.written[0]


def test_a_console_that_is_refused_is_said_in_the_list(demo: Terminal) -> None:
    to_console(demo)
    demo.type("!")
    demo.wait_for("× backup: somebody else has its console open")
    demo.wait_for("30 VMs")
    demo.type("q")
    assert demo.exit_code() == 0
    demo.assert_restored()


def test_a_bug_in_the_console_leaves_the_terminal_as_it_was(demo: Terminal) -> None:
    to_console(demo)
    demo.type("#")
    assert demo.exit_code() == 1
    assert b"internal error: ZeroDivisionError" in demo.raw
    demo.assert_restored()


def test_a_kill_during_the_console_restores_the_terminal(demo: Terminal) -> None:
    to_console(demo)
    demo.signal(signal.SIGTERM)
    demo.type("\x1d")
    assert demo.exit_code() in {143, -signal.SIGTERM}
    demo.assert_restored()


def test_the_window_may_be_resized_during_the_console(demo: Terminal) -> None:
    to_console(demo)
    demo.resize(120, 40)
    demo.type("x\x1d")
    demo.wait_for("30 VMs")
    demo.wait_until(lambda: "libvirt" in demo.lines[0], "the wide header")
    demo.type("q")
    assert demo.exit_code() == 0
    demo.assert_restored()


def test_the_test_drivers_missing_console_is_explained() -> None:
    terminal = Terminal(sys.executable, "-m", "hvtui", "--demo")
    try:
        terminal.wait_for("backup")
        terminal.wait_until(lambda: "▶" in terminal.line_with("backup"), "the cursor")
        terminal.type("c")
        terminal.wait_until(lambda: "× " in terminal.lines[-2], "the reason")
        terminal.wait_for("30 VMs")
        terminal.type("q")
        assert terminal.exit_code() == 0
        terminal.assert_restored()
    finally:
        terminal.close()


class Lent:
    """Notes what happens to the app around a console."""

    def __init__(self, app: HvtuiApp, monkeypatch: pytest.MonkeyPatch, outcome: str | BaseException) -> None:
        self.noted: list[str] = []
        self.written: list[bytes] = []
        self.outcome = outcome
        monkeypatch.setattr(app, "suspend", self.suspend)
        monkeypatch.setattr(app.bridge, "set_polling", lambda on: self.noted.append(f"polling {on}"))
        monkeypatch.setattr(lending.os, "write", self.write)
        monkeypatch.setattr(console, "attach", self.attach)

    def write(self, _fd: int, text: bytes) -> int:
        self.written.append(text)
        self.noted.append("tidy" if text.startswith(lending.TIDY) else "clean page")
        return len(text)

    @contextmanager
    def suspend(self) -> Iterator[None]:
        self.noted.append("suspended")
        yield  # like Textual's own: without try, so an exception in it would leave the app suspended
        self.noted.append("resumed")

    def attach(self, host: Host, vm: object, *, stdin_fd: int, stdout_fd: int, **_rest: Any) -> str:
        self.noted.append("attached")
        if isinstance(self.outcome, BaseException):
            raise self.outcome
        return self.outcome


EXPECTED = ["polling False", "suspended", "clean page", "attached", "tidy", "resumed", "polling True"]


async def test_the_app_is_suspended_only_for_the_console(
    app_on: App, simulated: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = app_on(simulated)
    async with running(app) as pilot:
        lent = Lent(app, monkeypatch, "left with Ctrl+]")
        await go_to(pilot, "web-01")
        await pilot.press("c")
        await until(pilot, lambda: "console of web-01: left with Ctrl+]" in status(pilot))
        assert lent.noted == EXPECTED


@pytest.mark.parametrize("error", [Busy("taken"), ZeroDivisionError("a bug"), KeyboardInterrupt()])
async def test_the_app_comes_back_whatever_the_console_raises(
    app_on: App, simulated: Host, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    app = app_on(simulated)
    async with running(app):
        lent = Lent(app, monkeypatch, error)
        with pytest.raises(type(error)):
            lending.lend_terminal(app, vm(app, "web-01"))
        assert lent.noted == EXPECTED


async def test_a_terminal_that_cannot_be_lent_is_explained(app_on: App, simulated: Host) -> None:
    app = app_on(simulated)
    async with running(app):  # the driver of the pilot cannot suspend
        with pytest.raises(Unsupported, match="cannot be lent") as refused:
            lending.lend_terminal(app, vm(app, "web-01"))
        assert isinstance(refused.value, HvtuiError)


async def test_a_vm_that_is_off_has_no_console_to_open(app_on: App, simulated: Host) -> None:
    app = app_on(simulated)
    async with running(app) as pilot:
        await go_to(pilot, "build-07")
        await pilot.press("c")
        await until(pilot, lambda: "console: not while build-07 is off" in status(pilot))
