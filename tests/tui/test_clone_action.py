"""Cloning from the console: a name is asked for, the plan is shown, and the clone is there."""

from __future__ import annotations

from collections.abc import Callable

from host.connection import Host
from hvtui.tui.app import HvtuiApp
from hvtui.tui.screens.plan import PlanSetScreen
from hvtui.tui.screens.prompt import PromptScreen
from tests.support import simulated_world
from tests.tui.conftest import until
from tests.tui.driving import go_to, names, on_screen, picture, running

App = Callable[..., HvtuiApp]


async def test_a_vm_is_cloned_by_the_command_line_after_its_plan_was_shown(
    app_on: App, open_world: Callable[[str], Host]
) -> None:
    app = app_on(open_world(f"<node>{simulated_world.domain('bare')}</node>"))
    async with running(app, (120, 40)) as pilot:
        await go_to(pilot, "bare")
        await pilot.press("colon", *"clone", "enter")
        await on_screen(pilot, PromptScreen)
        assert "Name of the clone of bare" in picture(pilot)
        await pilot.press(*"bare", "enter")
        await until(pilot, lambda: "there is a VM called bare already" in picture(pilot))
        await pilot.press(*"-2", "enter")
        await on_screen(pilot, PlanSetScreen)
        assert "Clone bare as bare-2" in picture(pilot)
        await pilot.press("enter")
        await until(pilot, lambda: "bare-2" in names(app))
