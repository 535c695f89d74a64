"""Fixtures of the terminal interface's tests: the app on a real simulated host, and how to wait for what it does."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest
from textual.pilot import Pilot

from host.connection import Host
from host.journal import Journal
from hvtui.config import Config
from hvtui.tui.app import HvtuiApp, Services
from tests.tui.scenes import DARK


@pytest.fixture
def journal(private_directories: None) -> Iterator[Journal]:
    """A journal of the test's own."""
    with Journal() as opened:
        yield opened


@pytest.fixture(autouse=True)
def usual_host(monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands mean the host of the scenes, whoever runs the tests."""
    monkeypatch.setenv("HVTUI_URI", "qemu:///system")


@pytest.fixture
def app_on(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> Callable[..., HvtuiApp]:
    """A function that makes the app for a host (not yet running), which commands mean as well."""

    def make(host: Host, config: Config = DARK) -> HvtuiApp:
        monkeypatch.setenv("HVTUI_URI", host.uri)
        return HvtuiApp(Services(host=host, journal=journal, config=config))

    return make


@dataclass
class Screenful:
    """What the terminal shows, line by line."""

    lines: list[str]

    @property
    def text(self) -> str:
        return "\n".join(self.lines)

    def line_with(self, text: str) -> str:
        return next((line for line in self.lines if text in line), "")


def shown(app: HvtuiApp) -> Screenful:
    """The text on the screen now, as the terminal gets it."""
    strips = app.screen._compositor.render_strips(app.size)
    return Screenful(["".join(segment.text for segment in strip) for strip in strips])


async def until(pilot: Pilot[None], condition: Callable[[], bool], timeout_s: float = 60.0) -> None:
    """Wait until `condition` holds; fails when it does not."""
    for _ in range(int(timeout_s / 0.02)):
        if condition():
            await pilot.pause()
            return
        await asyncio.sleep(0.02)
    raise AssertionError(f"never happened; the screen:\n{shown(pilot.app).text}")  # type: ignore[arg-type]
