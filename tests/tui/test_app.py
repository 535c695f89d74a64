"""The app and its bridge: threads, faults, jobs and the end. Real feeds on libvirt's test driver."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from host.connection import Host
from host.errors import HvtuiError, NotFound
from host.plan import Danger, Plan
from hvtui.tui.actions import Target, on_screen
from hvtui.tui.app import HvtuiApp
from hvtui.tui.screens.fleet import FleetScreen
from hvtui.tui.widgets.grid import Grid
from tests.tui.conftest import shown, until

ROOT = Path(__file__).resolve().parents[2]


async def test_the_list_shows_what_the_host_has(app_on: Callable[..., HvtuiApp], simulated: Host):
    app = app_on(simulated)
    async with app.run_test(size=(120, 40)) as pilot:
        await until(pilot, lambda: app.snapshot is not None and bool(app.snapshot.vms))
        with simulated.calls("count") as connection:
            assert len(app.screen.query_one(Grid).shown) == len(connection.listAllDomains())


async def test_a_change_made_elsewhere_appears_by_itself(app_on: Callable[..., HvtuiApp], simulated: Host):
    app = app_on(simulated)
    async with app.run_test(size=(120, 40)) as pilot:
        await until(pilot, lambda: app.snapshot is not None and bool(app.snapshot.vms))
        with simulated.calls("stop") as connection:
            domain = next(d for d in connection.listAllDomains() if d.isActive() and d.isPersistent())
            name = domain.name()
            domain.destroy()

        def is_off() -> bool:
            assert app.snapshot is not None
            return not next(vm for vm in app.snapshot.vms if vm.name == name).is_active

        await until(pilot, is_off)
        assert len(app.events) > 0


async def test_a_call_comes_back_with_its_result_or_its_own_error(app_on: Callable[..., HvtuiApp], simulated: Host):
    app = app_on(simulated)

    def missing() -> None:
        raise NotFound("there is none", about="x")

    def wrong() -> None:
        raise ZeroDivisionError("oops")

    async with app.run_test():
        assert await app.bridge.call(threading.current_thread) is not threading.current_thread()
        with pytest.raises(NotFound, match="there is none"):
            await app.bridge.call(missing)
        with pytest.raises(HvtuiError, match="internal error: ZeroDivisionError"):
            await app.bridge.call(wrong)


async def test_keys_work_and_quitting_does_not_wait_while_calls_hang(app_on: Callable[..., HvtuiApp], simulated: Host):
    app = app_on(simulated)
    release = threading.Event()
    async with app.run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: app.snapshot is not None and len(app.snapshot.vms) > 2)
        hanging = [asyncio.create_task(app.bridge.call(release.wait)) for _ in range(20)]
        grid = app.screen.query_one(Grid)
        before = grid.current
        await pilot.press("j")
        assert grid.current is not before
        began_s = time.monotonic()
        await pilot.press("q")
        assert time.monotonic() - began_s < 5
    assert all(not task.done() or task.cancelled() for task in hanging)
    release.set()


async def test_a_plan_with_a_warning_is_never_run_without_being_shown(app_on: Callable[..., HvtuiApp], simulated: Host):
    app = app_on(simulated)
    harmless = Plan(title="x", host_uri=simulated.uri, steps=(), command=("vm", "start", "x"))
    warned = Plan(title="x", host_uri=simulated.uri, steps=(), command=(), warnings=("careful",))
    disruptive = Plan(title="x", host_uri=simulated.uri, steps=(), command=(), danger=Danger.DISRUPTIVE)
    assert app._may_run_at_once([harmless])
    assert not app._may_run_at_once([harmless, warned])
    assert not app._may_run_at_once([disruptive])


async def test_a_failing_action_says_cause_and_remedy_in_one_line(app_on: Callable[..., HvtuiApp], simulated: Host):
    app = app_on(simulated)
    async with app.run_test(size=(100, 30)) as pilot:
        await until(pilot, lambda: app.snapshot is not None)

        async def failing() -> None:
            raise HvtuiError("it broke\x1b[31m", about="web", remedy="Mend it")

        def failing_at_once() -> None:
            raise HvtuiError("it broke at once")

        app.screen.late = failing  # type: ignore[attr-defined]
        app.screen.soon = failing_at_once  # type: ignore[attr-defined]
        app._handle(on_screen("soon"), Target())
        await pilot.pause()
        assert "× it broke at once" in shown(app).lines[-2]
        app._handle(on_screen("late"), Target())
        await until(pilot, lambda: "web" in shown(app).lines[-2])
        assert "× web: it broke\\e[31m. Mend it" in shown(app).lines[-2]


def _in_terminal(*, act: Callable[[int, int], None], seconds: float = 30.0) -> tuple[int, bytes]:
    """Run `hvtui --demo` on a terminal of its own, do something to it, and return its wait status and output."""
    import pty

    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(ROOT)
        os.environ.update(TERM="xterm-256color", LANG="C.UTF-8", PYTHONPATH=str(ROOT))
        os.execv(sys.executable, [sys.executable, "-m", "hvtui", "--demo"])  # noqa: S606
    output = bytearray()

    def read() -> None:
        while True:
            try:
                data = os.read(terminal, 65536)
            except OSError:
                return
            if not data:
                return
            output.extend(data)

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    end_s = time.monotonic() + seconds
    while b"build-01" not in output and time.monotonic() < end_s:
        time.sleep(0.05)
    assert b"build-01" in output, bytes(output[-2000:])
    act(pid, terminal)
    while time.monotonic() < end_s:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            reader.join(2)
            return status, bytes(output)
        time.sleep(0.05)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    raise AssertionError("it did not end")


LEAVES_ALTERNATE_SCREEN = b"\x1b[?1049l"
SHOWS_CURSOR = b"\x1b[?25h"


@pytest.mark.parametrize(("how", "code"), [("q", 0), ("ctrl+c", 0), ("SIGTERM", 143), ("SIGHUP", 129)])
def test_the_terminal_is_restored_however_it_ends(how: str, code: int):
    def act(pid: int, terminal: int) -> None:
        if how == "q":
            os.write(terminal, b"q")
        elif how == "ctrl+c":
            os.write(terminal, b"\x03")
        else:
            os.kill(pid, getattr(signal, how))

    status, output = _in_terminal(act=act)
    assert os.waitstatus_to_exitcode(status) == code
    tail = output[-600:]
    assert LEAVES_ALTERNATE_SCREEN in tail
    assert SHOWS_CURSOR in tail
    assert b"Traceback" not in output


def test_a_closed_terminal_ends_it():
    def act(_pid: int, terminal: int) -> None:
        os.close(terminal)

    _in_terminal(act=act)


def test_the_program_that_shows_the_list_loads_no_other_screen():
    code = "import sys, hvtui.tui.app; print(*[m for m in sys.modules if m.startswith('hvtui.tui.screens')])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert set(done.stdout.split()) <= {"hvtui.tui.screens", "hvtui.tui.screens.base"}


async def test_the_fleet_is_the_first_screen_and_stays_the_last(app_on: Callable[..., HvtuiApp], simulated: Host):
    app = app_on(simulated)
    async with app.run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: app.snapshot is not None)
        await pilot.press("J")
        await until(pilot, lambda: not isinstance(app.screen, FleetScreen))
        await pilot.press("F")
        await until(pilot, lambda: isinstance(app.screen, FleetScreen))
        await pilot.press("escape", "escape", "escape")
        assert isinstance(app.screen, FleetScreen)
