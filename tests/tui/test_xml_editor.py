"""The XML editor on real configurations: the difference, refusals with their line, leaving, hostile text."""

from __future__ import annotations

from collections.abc import Callable

from textual.pilot import Pilot

from host.connection import Host
from hvtui.tui.app import HvtuiApp
from hvtui.tui.screens.fleet import FleetScreen
from hvtui.tui.screens.plan import PlanScreen
from hvtui.tui.screens.xml_editor import XmlEditorScreen
from hvtui.tui.widgets.page import Page
from hvtui.tui.widgets.xml_text import XmlText
from tests.support.simulated_world import ESCAPE_NAME, HOSTILE_NAMES
from tests.tui.conftest import until
from tests.tui.driving import SIZES, go_to, on_screen, picture, running, status

App = Callable[..., HvtuiApp]


async def edit(pilot: Pilot[None], name: str) -> XmlEditorScreen:
    await go_to(pilot, name)
    await pilot.press("e")
    return await on_screen(pilot, XmlEditorScreen)


def put(screen: XmlEditorScreen, old: str, new: str) -> None:
    """Replace text in the editor."""
    assert old in screen.text
    screen.query_one(XmlText).text = screen.text.replace(old, new, 1)


@SIZES
async def test_a_change_is_shown_as_a_difference_and_then_made(app_on: App, simulated: Host, size: tuple[int, int]):
    app = app_on(simulated)
    async with running(app, size) as pilot:
        screen = await edit(pilot, "build-07")
        assert "XML of build-07" in picture(pilot)
        put(screen, "<name>build-07</name>", "<name>build-07</name>\n  <title>new title</title>")
        await pilot.press("ctrl+s")
        await on_screen(pilot, PlanScreen)
        assert "+   <title>new title</title>" in picture(pilot)
        await pilot.press("enter")
        await on_screen(pilot, FleetScreen)
        with simulated.calls("look") as connection:
            assert "<title>new title</title>" in connection.lookupByName("build-07").XMLDesc(0)


async def test_refusing_the_difference_goes_back_to_the_text(app_on: App, simulated: Host):
    async with running(app_on(simulated)) as pilot:
        screen = await edit(pilot, "build-07")
        put(screen, "<name>", "<!-- mine --><name>")
        await pilot.press("ctrl+s")
        await on_screen(pilot, PlanScreen)
        await pilot.press("escape")
        assert await on_screen(pilot, XmlEditorScreen) is screen
        assert "mine" in screen.text


@SIZES
async def test_malformed_text_is_refused_with_its_line_and_kept(app_on: App, simulated: Host, size: tuple[int, int]):
    async with running(app_on(simulated), size) as pilot:
        screen = await edit(pilot, "build-07")
        put(screen, "</name>", "</nam>")
        line = screen.text.splitlines().index(next(each for each in screen.text.splitlines() if "</nam>" in each))
        await pilot.press("ctrl+s")
        await until(pilot, lambda: f"malformed XML at line {line + 1}" in picture(pilot))
        assert screen.query_one(XmlText).cursor_location[0] == line
        assert "not changed" in status(pilot)
        put(screen, "</nam>", "</name>")
        await pilot.press("ctrl+s")
        await until(pilot, lambda: "nothing was changed" in status(pilot))
        assert "malformed" not in picture(pilot)


@SIZES
async def test_the_line_that_a_complaint_names_is_on_the_screen(app_on: App, simulated: Host, size: tuple[int, int]):
    async with running(app_on(simulated), size) as pilot:
        screen = await edit(pilot, "build-07")
        text = screen.query_one(XmlText)
        for wrong_line in range(size[1] - 8, size[1] + 3):
            text.text = "<domain>\n" + "  <a/>\n" * (wrong_line - 2) + "  <wrong></b>\n" + "  <a/>\n" * 40 + "</domain>"
            text.move_cursor((0, 0))
            screen.query_one("#title", Page).show(screen._title())  # the complaint appears anew, and moves the text
            await pilot.pause()
            await pilot.press("ctrl+s")
            await until(pilot, lambda: f"line {wrong_line}" in screen.query_one("#title", Page).plain)  # noqa: B023
            await until(pilot, lambda: "<wrong></b>" in picture(pilot), timeout_s=2.0)


async def test_another_uuid_and_another_root_are_refused(app_on: App, simulated: Host):
    async with running(app_on(simulated)) as pilot:
        screen = await edit(pilot, "build-07")
        put(screen, "<uuid>", "<uuid>0")
        await pilot.press("ctrl+s")
        await until(pilot, lambda: "the uuid must stay" in picture(pilot))
        screen.query_one(XmlText).text = "<network/>"
        await pilot.press("ctrl+s")
        await until(pilot, lambda: "the XML's root element is <network>, not <domain>" in picture(pilot))


async def test_leaving_with_changes_takes_two_presses(app_on: App, simulated: Host):
    async with running(app_on(simulated)) as pilot:
        screen = await edit(pilot, "build-07")
        await pilot.press("x", "escape")
        await until(pilot, lambda: "not saved" in status(pilot))
        assert pilot.app.screen is screen
        await pilot.press("y", "escape")  # what was typed since was not warned of
        await pilot.pause()
        assert pilot.app.screen is screen
        await pilot.press("escape")
        await on_screen(pilot, FleetScreen)


async def test_leaving_without_changes_takes_one(app_on: App, simulated: Host):
    async with running(app_on(simulated)) as pilot:
        await edit(pilot, "build-07")
        await pilot.press("down", "escape")
        await on_screen(pilot, FleetScreen)


@SIZES
async def test_hostile_xml_is_harmless_on_the_screen_and_true_in_the_text(
    app_on: App, simulated: Host, size: tuple[int, int]
):
    async with running(app_on(simulated), size) as pilot:
        for name in HOSTILE_NAMES:
            screen = await edit(pilot, name)
            picture(pilot)
            await pilot.press("down", "down", "end")
            await pilot.pause()
            picture(pilot)
            if name == ESCAPE_NAME:
                assert "\u009b" in screen.text
                put(screen, "</name>", "</name><title>\u202e[red]\u009b2J</title>")
                await pilot.press("ctrl+s")
                await on_screen(pilot, PlanScreen)
                assert "+   <name>evil\\u202etxt\\x9b31m</name>" in picture(pilot)
                await pilot.press("escape", "escape")
            await pilot.press("escape")
            await on_screen(pilot, FleetScreen)
