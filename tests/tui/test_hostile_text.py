"""Text of guests and of other people on every screen and in every dialog: harmless, never interpreted, never wider than
it claims to be. `picture` fails where a character could control the terminal or a line is not as wide as the screen.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
from textual.events import Paste
from textual.pilot import Pilot

from host.connection import Host
from host.errors import HvtuiError
from host.events import Event, EventKind
from host.job_model import JobState
from host.journal import Journal
from host.text import printable
from hvtui.tui.app import HvtuiApp
from hvtui.tui.messages import EventArrived, SnapshotChanged
from hvtui.tui.screens.fleet import FleetScreen
from tests.support.simulated_world import (
    ESCAPE_NAME,
    EVIL,
    LONG_NAME,
    MARKUP_NAME,
    WIDE_NAME,
    hostile_domains,
    world,
)
from tests.tui import scenes
from tests.tui.conftest import shown, until
from tests.tui.driving import HOSTILE, SIZES, app_of, go_to, names, on_screen, picture, running

App = Callable[..., HvtuiApp]
WORLDS = pytest.mark.parametrize("size", [(20, 5), (120, 40)], ids=["20x5", "120x40"])
DIALOG_KEYS = ["S", "O", "z", "s", "a", "D", "r", "t", "ctrl+t", "e", "R", "P"]
SCREEN_KEYS = ["J", "E", "H", "n", "question_mark", "colon", "slash", "ctrl+p"]


@pytest.fixture
def hostile(open_world: Callable[[str], Host]) -> Host:
    """A host of whose VMs every text is hostile."""
    return open_world(world(hostile_domains()))


async def back(pilot: Pilot[None]) -> None:
    """To the list, whatever is open."""
    for _ in range(6):
        await pilot.press("escape")
        await pilot.pause()
        if isinstance(pilot.app.screen, FleetScreen):
            return
    raise AssertionError(f"no way back from {pilot.app.screen}:\n{shown(app_of(pilot)).text}")


@WORLDS
async def test_every_dialog_about_every_hostile_vm_is_harmless(app_on: App, hostile: Host, size: tuple[int, int]):
    async with running(app_on(hostile), size) as pilot:
        for name in (ESCAPE_NAME, LONG_NAME, "plain"):
            await go_to(pilot, name)
            picture(pilot)
            for key in DIALOG_KEYS:
                if name not in names(app_of(pilot)):
                    break
                await go_to(pilot, name)
                await pilot.press(key)
                await pilot.pause(0.05)
                picture(pilot)
                await pilot.press("d")
                await pilot.pause()
                picture(pilot)
                await back(pilot)


@WORLDS
async def test_every_screen_is_harmless_on_a_hostile_host(app_on: App, hostile: Host, size: tuple[int, int]):
    async with running(app_on(hostile), size) as pilot:
        await pilot.press("asterisk")
        for key in SCREEN_KEYS:
            await pilot.press(key)
            await pilot.pause(0.05)
            picture(pilot)
            await back(pilot)


PASTED = pytest.mark.parametrize(
    "text",
    [ESCAPE_NAME, WIDE_NAME * 1000, f"a\x1b[31m\n\x00{EVIL}\ud800"],
    ids=["escapes", "wide", "controls"],
)


@PASTED
async def test_hostile_text_can_be_pasted_everywhere(app_on: App, hostile: Host, text: str):
    async with running(app_on(hostile), (80, 24)) as pilot:
        for key in ("slash", "colon", "n", "r", "t", "ctrl+t", "e", "ctrl+p"):
            await go_to(pilot, "plain")
            await pilot.press(key)
            await pilot.pause(0.1)
            assert pilot.app.focused is not None
            pilot.app.focused.post_message(Paste(text))
            await pilot.pause(0.05)
            picture(pilot)
            await pilot.press("enter")
            await pilot.pause(0.1)
            picture(pilot)
            await back(pilot)


async def test_markup_is_shown_as_it_is_written(app_on: App, hostile: Host):
    async with running(app_on(hostile), (200, 60)) as pilot:
        assert MARKUP_NAME in picture(pilot)
        assert WIDE_NAME in picture(pilot)
        assert printable(ESCAPE_NAME) in picture(pilot)
        await go_to(pilot, MARKUP_NAME)
        await pilot.press("D")
        await until(pilot, lambda: not isinstance(pilot.app.screen, FleetScreen))
        assert f"Delete {MARKUP_NAME}" in picture(pilot)


@HOSTILE
async def test_a_job_on_a_hostile_vm_runs_and_is_told_harmlessly(
    app_on: App, hostile: Host, journal: Journal, name: str
):
    async with running(app_on(hostile), (80, 24)) as pilot:
        await go_to(pilot, name)
        await pilot.press("a")
        await until(pilot, lambda: bool(journal.jobs()) and journal.jobs()[0].state.is_over)
        assert journal.jobs()[0].state is JobState.DONE
        assert journal.jobs()[0].vm_name == name
        await until(pilot, lambda: "job 1" in shown(app_of(pilot)).lines[-2])
        picture(pilot)
        await pilot.press("J")
        await pilot.pause(0.1)
        picture(pilot)


@SIZES
async def test_a_hostile_error_is_one_harmless_line(app_on: App, simulated: Host, size: tuple[int, int]):
    async with running(app_on(simulated), size) as pilot:
        error = HvtuiError(f"{EVIL}\n{'c' * 20_000}", about=EVIL, remedy=f"{EVIL}\n")
        for text in (str(error), f"{EVIL}\r\n\t{'x' * 20_000}"):
            app_of(pilot).say(text, "bad")
            await pilot.pause()
            picture(pilot)


@SIZES
async def test_a_hostile_host_name_link_and_event_are_harmless(app_on: App, simulated: Host, size: tuple[int, int]):
    async with running(app_on(simulated), size) as pilot:
        app = app_of(pilot)
        app.bridge.stop()
        still = scenes.snapshot(host_name=EVIL + "h" * 5000, uri=EVIL)
        lost = scenes.lost(still)
        for snapshot in (still, scenes.replace(lost, link=scenes.replace(lost.link, error=f"{EVIL}\n{'e' * 5000}"))):
            app.post_message(SnapshotChanged(snapshot))
            await pilot.pause()
            picture(pilot)
        app.post_message(EventArrived(Event(EventKind.IO_ERROR, "u", EVIL * 500, f"{EVIL}\n" * 50, scenes.NOW)))
        await pilot.press("E")
        await pilot.pause()
        picture(pilot)
        assert await on_screen(pilot, type(pilot.app.screen)) is not None
