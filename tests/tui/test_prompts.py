"""One-line questions: names, tags and titles, with what is wrong said at each key."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from textual import events
from textual.widgets import Input

from host.connection import Host
from host.journal import Journal
from hvtui.tui.app import HvtuiApp
from hvtui.tui.screens.fleet import FleetScreen
from hvtui.tui.screens.prompt import PromptScreen
from tests.tui.conftest import until
from tests.tui.driving import HOSTILE, SIZES, go_to, names, on_screen, picture, running, status, vm

App = Callable[..., HvtuiApp]


async def tags_are(app: HvtuiApp, *names_: str, tags: tuple[str, ...]) -> None:
    assert all(config is not None and config.tags == tags for config in (vm(app, each).config for each in names_))


@SIZES
async def test_a_vm_that_is_off_is_renamed(app_on: App, simulated: Host, size: tuple[int, int]):
    app = app_on(simulated)
    async with running(app, size) as pilot:
        await go_to(pilot, "build-07")
        await pilot.press("r")
        await on_screen(pilot, PromptScreen)
        assert "Rename build-07" in picture(pilot)
        await pilot.press("ctrl+u", *"build-09", "enter")
        await until(pilot, lambda: "build-09" in names(app) and "build-07" not in names(app))
        await until(pilot, lambda: "renamed" in status(pilot))


async def test_a_name_that_cannot_be_is_said_at_once_and_not_taken(app_on: App, simulated: Host):
    app = app_on(simulated)
    async with running(app) as pilot:
        await go_to(pilot, "build-07")
        await pilot.press("r")
        await on_screen(pilot, PromptScreen)
        await pilot.press("slash")
        await until(pilot, lambda: "it holds a slash" in picture(pilot))
        await pilot.press("enter")
        await pilot.pause()
        assert isinstance(app.screen, PromptScreen)
        await pilot.press("backspace", "escape")
        await on_screen(pilot, FleetScreen)
        assert "build-07" in names(app)


async def test_tags_of_one_vm_are_shown_and_replaced(app_on: App, simulated: Host):
    app = app_on(simulated)
    async with running(app) as pilot:
        await until(pilot, lambda: vm(app, "web-01").config is not None)
        await go_to(pilot, "web-01")
        await pilot.press("t")
        screen = await on_screen(pilot, PromptScreen)
        assert screen.query_one(Input).value == "web, prod"
        await pilot.press("ctrl+u", *"blue,green", "enter")
        await until(pilot, lambda: getattr(vm(app, "web-01").config, "tags", ()) == ("blue", "green"))


async def test_tags_of_several_vms_are_added_and_removed(app_on: App, simulated: Host):
    app = app_on(simulated)
    async with running(app) as pilot:
        for name in ("web-01", "web-02"):
            await until(pilot, lambda name=name: vm(app, name).config is not None)
            app.screen.go_to_vm(vm(app, name).uuid)  # type: ignore[attr-defined]
            await pilot.press("space")
        await pilot.press("t")
        await on_screen(pilot, PromptScreen)
        assert "Tags of 2 VMs" in picture(pilot)
        await pilot.press("plus", *"new", "comma", "minus", *"web", "enter")
        await until(pilot, lambda: getattr(vm(app, "web-02").config, "tags", ()) == ("new",))
        await until(pilot, lambda: getattr(vm(app, "web-01").config, "tags", ()) == ("prod", "new"))


@pytest.mark.parametrize("key", ["r", "t", "ctrl+t"])
async def test_an_answer_that_changes_nothing_does_nothing(app_on: App, simulated: Host, journal: Journal, key: str):
    app = app_on(simulated)
    async with running(app) as pilot:
        await until(pilot, lambda: vm(app, "build-07").config is not None)
        await go_to(pilot, "build-07")
        await pilot.press(key)
        await on_screen(pilot, PromptScreen)
        await pilot.press("enter")
        await on_screen(pilot, FleetScreen)
        await pilot.pause()
        assert journal.jobs() == ()


async def test_no_answer_for_several_vms_keeps_their_tags(app_on: App, simulated: Host, journal: Journal):
    app = app_on(simulated)
    async with running(app) as pilot:
        await pilot.press("asterisk", "t")
        await on_screen(pilot, PromptScreen)
        await pilot.press("enter")
        await on_screen(pilot, FleetScreen)
        assert journal.jobs() == ()


async def test_a_title_is_set(app_on: App, simulated: Host):
    app = app_on(simulated)
    async with running(app) as pilot:
        await go_to(pilot, "build-07")
        await pilot.press("ctrl+t")
        await on_screen(pilot, PromptScreen)
        await pilot.press(*"nightly", "enter")
        await until(pilot, lambda: getattr(vm(app, "build-07").config, "title", "") == "nightly")


@SIZES
@HOSTILE
async def test_hostile_names_are_harmless_in_questions(app_on: App, simulated: Host, name: str, size: tuple[int, int]):
    app = app_on(simulated)
    async with running(app, size) as pilot:
        for key in ("r", "t", "ctrl+t"):
            await go_to(pilot, name)
            await pilot.press(key)
            screen = await on_screen(pilot, PromptScreen)
            picture(pilot)
            screen.query_one(Input).value = name + "\x1b[2J"
            await pilot.pause()
            picture(pilot)
            await pilot.press("escape")
            await on_screen(pilot, FleetScreen)


@pytest.mark.parametrize("key", ["t", "ctrl+t", "r"])
async def test_what_is_typed_in_one_go_after_a_prompts_key_is_the_answer(app_on: App, simulated: Host, key: str):
    app = app_on(simulated)
    async with running(app) as pilot:
        await go_to(pilot, "build-07")
        for character in (key, *"Jx"):
            app.post_message(events.Key(character, character))
        prompt = await on_screen(pilot, PromptScreen)
        await until(pilot, lambda: prompt.query_one(Input).value.endswith("Jx"))


async def test_a_taken_name_is_told_in_the_prompt_and_keeps_what_was_typed(app_on: App, simulated: Host):
    async with running(app_on(simulated)) as pilot:
        await go_to(pilot, "build-07")
        await pilot.press("r")
        screen = await on_screen(pilot, PromptScreen)
        await pilot.press("ctrl+u", *"web-01", "enter")
        await until(pilot, lambda: "there is a VM called web-01 already" in picture(pilot))
        assert pilot.app.screen is screen


async def test_a_running_vm_says_before_typing_that_it_must_be_off(app_on: App, simulated: Host):
    async with running(app_on(simulated)) as pilot:
        await go_to(pilot, "web-01")
        await pilot.press("r")
        await on_screen(pilot, PromptScreen)
        assert "it is running: it must be off for that" in picture(pilot)
