"""How the tests of dialogs and screens drive the app: start it, go to a VM, wait for a screen, look at the text."""

from __future__ import annotations

import unicodedata
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import pytest
from rich.cells import cell_len
from textual.pilot import Pilot
from textual.screen import Screen

from hvtui.tui.app import HvtuiApp
from hvtui.tui.screens.fleet import FleetScreen
from tests.support.simulated_world import HOSTILE_NAMES
from tests.tui.conftest import shown, until
from vm.model import Vm

SIZES = pytest.mark.parametrize("size", [(80, 24), (120, 40)], ids=["80x24", "120x40"])
HOSTILE = pytest.mark.parametrize("name", HOSTILE_NAMES, ids=["markup", "escapes", "wide", "globs", "10 kB"])
S = TypeVar("S", bound="Screen[Any]")


@asynccontextmanager
async def running(app: HvtuiApp, size: tuple[int, int] = (80, 24)) -> AsyncIterator[Pilot[None]]:
    """The app on its host, with the list shown."""
    async with app.run_test(size=size) as pilot:
        await until(pilot, lambda: app.snapshot is not None and bool(app.snapshot.vms))
        await until(pilot, lambda: isinstance(app.screen, FleetScreen) and bool(app.screen.grid.shown))
        yield pilot


def app_of(pilot: Pilot[None]) -> HvtuiApp:
    assert isinstance(pilot.app, HvtuiApp)
    return pilot.app


def vm(app: HvtuiApp, name: str) -> Vm:
    """The VM of that name as the list has it."""
    assert app.snapshot is not None
    return next(each for each in app.snapshot.vms if each.name == name)


def names(app: HvtuiApp) -> set[str]:
    assert app.snapshot is not None
    return {each.name for each in app.snapshot.vms}


async def go_to(pilot: Pilot[None], name: str) -> None:
    """Put the cursor on a VM."""
    screen = pilot.app.screen
    assert isinstance(screen, FleetScreen)
    screen.go_to_vm(vm(app_of(pilot), name).uuid)
    await pilot.pause()
    assert [each.name for each in screen.targets()] == [name]


async def on_screen(pilot: Pilot[None], kind: type[S]) -> S:
    """Wait until that screen or dialog is shown."""
    await until(pilot, lambda: isinstance(pilot.app.screen, kind) and pilot.app.screen.is_mounted)
    await pilot.pause()
    assert isinstance(pilot.app.screen, kind)
    return pilot.app.screen


def picture(pilot: Pilot[None]) -> str:
    """The text on the screen; fails when a line is not exactly as wide as the terminal, or could control it."""
    app = app_of(pilot)
    lines = shown(app).lines
    assert len(lines) == app.size.height
    assert {cell_len(line) for line in lines} == {app.size.width}
    hidden = {char for line in lines for char in line if unicodedata.category(char) in {"Cc", "Cf", "Cs", "Co"}}
    assert not hidden, hidden
    return "\n".join(lines)


def status(pilot: Pilot[None]) -> str:
    """The status line."""
    return shown(app_of(pilot)).lines[-2]
