"""What [ui] of the configuration changes in the running interface; test_fleet has theme and symbols."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from host.connection import Host
from host.journal import Journal
from hvtui.config import Config, Ui
from hvtui.tui.app import HvtuiApp
from hvtui.tui.screens.plan import PlanScreen
from tests.tui.conftest import until
from tests.tui.driving import go_to, on_screen, running, vm

UI = Ui(theme="dark", ascii=False)


async def test_confirm_always_shows_a_harmless_plan_first(
    app_on: Callable[..., HvtuiApp], simulated: Host, journal: Journal
):
    app = app_on(simulated, Config(ui=replace(UI, confirm="always")))
    async with running(app) as pilot:
        await go_to(pilot, "build-07")
        await pilot.press("s")
        await on_screen(pilot, PlanScreen)
        assert journal.jobs() == ()
        await pilot.press("enter")
        await until(pilot, lambda: vm(app, "build-07").is_active)


async def test_confirm_auto_runs_a_harmless_plan_at_once(
    app_on: Callable[..., HvtuiApp], simulated: Host, journal: Journal
):
    app = app_on(simulated, Config(ui=replace(UI, confirm="auto")))
    async with running(app) as pilot:
        await go_to(pilot, "build-07")
        await pilot.press("s")
        await until(pilot, lambda: vm(app, "build-07").is_active)
        assert not isinstance(app.screen, PlanScreen)


@pytest.mark.parametrize("refresh_s", [0.5, 30.0])
async def test_rates_are_read_as_often_as_configured(
    app_on: Callable[..., HvtuiApp], simulated: Host, refresh_s: float
):
    app = app_on(simulated, Config(ui=replace(UI, refresh_s=refresh_s)))
    async with running(app):
        assert app.bridge._feed is not None
        assert app.bridge._feed._interval_s == refresh_s
