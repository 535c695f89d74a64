"""The help: made from the action registry, for the screen below."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from host.connection import Host
from hvtui.config import Config, Ui
from hvtui.tui import catalogue, keymap
from hvtui.tui.actions import actions_for, all_actions
from hvtui.tui.app import HvtuiApp
from hvtui.tui.screens.fleet import FleetScreen
from hvtui.tui.screens.help import HelpScreen, help_rows
from hvtui.tui.widgets.page import Page
from tests.tui.conftest import until
from tests.tui.driving import SIZES, go_to, on_screen, picture, running

App = Callable[..., HvtuiApp]


def help_text(app: HvtuiApp) -> str:
    return app.screen.query_one("#text", Page).plain


@SIZES
async def test_every_action_of_the_list_is_explained_with_its_key(app_on: App, simulated: Host, size: tuple[int, int]):
    app = app_on(simulated)
    async with running(app, size) as pilot:
        await pilot.press("question_mark")
        await on_screen(pilot, HelpScreen)
        lines = help_text(app).splitlines()
        for action in actions_for(("vm", "fleet", "app")):
            if action.id.startswith("fleet.sort_"):
                continue
            key = keymap.shown_key(action) or f":{action.title}"
            assert any(each.strip().startswith(f"{key} ") and f" {action.title} " in f"{each} " for each in lines), (
                action.id
            )
        assert "1 … 9" in help_text(app)
        assert "Virtual machines" in picture(pilot)
        await pilot.press("end")
        await pilot.pause()
        assert "quit" in picture(pilot)


@pytest.mark.parametrize(
    ("key", "title", "absent"),
    [
        ("J", "Jobs", "force off"),
        ("E", "Events", "force off"),
        ("H", "Host", "force off"),
        ("n", "New virtual", "mark"),
    ],
)
async def test_help_is_about_the_screen_below(app_on: App, simulated: Host, key: str, title: str, absent: str):
    app = app_on(simulated)
    async with running(app) as pilot:
        await pilot.press(key)
        await until(pilot, lambda: not isinstance(app.screen, FleetScreen))
        await pilot.press("f1")
        await on_screen(pilot, HelpScreen)
        assert title in help_text(app).splitlines()[0]
        assert absent not in help_text(app)
        await pilot.press("escape")
        await until(pilot, lambda: not isinstance(app.screen, HelpScreen))
        assert not isinstance(app.screen, FleetScreen)


async def test_help_in_the_xml_editor(app_on: App, simulated: Host):
    app = app_on(simulated)
    async with running(app) as pilot:
        await go_to(pilot, "build-07")
        await pilot.press("e")
        await until(pilot, lambda: not isinstance(app.screen, FleetScreen))
        await pilot.press("f1")
        await on_screen(pilot, HelpScreen)
        assert "ctrl+s" in help_text(app)
        assert "show what changes" in help_text(app)


@pytest.mark.parametrize("key", ["escape", "q", "question_mark", "f1"])
async def test_every_way_out_of_the_help(app_on: App, simulated: Host, key: str):
    async with running(app_on(simulated)) as pilot:
        await pilot.press("question_mark")
        await on_screen(pilot, HelpScreen)
        await pilot.press(key)
        await on_screen(pilot, FleetScreen)


async def test_keys_of_the_configuration_are_the_ones_shown(app_on: App, simulated: Host):
    config = Config(ui=Ui(theme="dark", ascii=False), keys={"vm.stop": "f7"})
    app = app_on(simulated, config)
    async with running(app) as pilot:
        await pilot.press("question_mark")
        await on_screen(pilot, HelpScreen)
        line = next(each for each in help_text(app).splitlines() if " shut down " in each)
        assert line.split()[0] == "f7"
    keymap.rebind({})


async def test_the_configuration_ids_are_shown_where_there_is_room(app_on: App, simulated: Host):
    app = app_on(simulated)
    async with running(app, (120, 40)) as pilot:
        await pilot.press("question_mark")
        await on_screen(pilot, HelpScreen)
        assert "vm.stop" in picture(pilot)
        await pilot.resize_terminal(80, 24)
        await until(pilot, lambda: app.size.width == 80)
        await pilot.pause()
        assert "vm.stop" not in help_text(app)


def test_every_screen_with_keys_of_its_own_has_a_place_in_the_help():
    catalogue.load()
    for scope in {action.scope for action in all_actions()}:
        rows = help_rows((scope, "app"), with_ids=True)
        assert rows[0].text.plain not in {scope, ""}, scope
