"""Memory and vCPUs by a key: what it has, what it can have without a restart, the plan, and the change."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from textual.pilot import Pilot
from textual.widgets import Input

from host.connection import Host
from host.errors import UsageError
from host.units import GIB
from hvtui.tui import vm_forms
from hvtui.tui.app import HvtuiApp
from hvtui.tui.form_fields import NotYet
from hvtui.tui.screens.fleet import FleetScreen
from hvtui.tui.screens.plan import PlanScreen
from hvtui.tui.screens.vm_forms import SizeScreen
from hvtui.tui.widgets.page import Page
from tests.tui import scenes
from tests.tui.conftest import until
from tests.tui.driving import SIZES, go_to, on_screen, picture, running, status
from tests.tui.driving import vm as vm_of

App = Callable[..., HvtuiApp]
WEB = next(vm for vm in scenes.varied_vms() if vm.name == "web-01")


def preview(pilot: Pilot[None]) -> str:
    return " ".join(pilot.app.screen.query_one("#plan", Page).plain.split())


def test_only_what_was_changed_is_set():
    now = vm_forms.sizes_of(WEB)
    assert vm_forms.size_changes(WEB, now | {"memory": " 8G "}) == {"memory": "8G"}
    assert vm_forms.size_changes(WEB, {"memory": "8G", "vcpus": "8"}) == {"memory": "8G", "vcpus": "8"}
    with pytest.raises(NotYet):
        vm_forms.size_changes(WEB, now)
    for wrong, about in (({"memory": "lots"}, "memory"), ({"vcpus": "0"}, "vCPUs"), ({"vcpus": ""}, "vCPUs")):
        with pytest.raises(UsageError) as caught:
            vm_forms.size_changes(WEB, now | wrong)
        assert caught.value.about == about


def test_the_form_begins_with_what_the_next_start_gets():
    waiting = replace(WEB, config=replace(WEB.config, next_memory_bytes=6 * GIB, next_vcpus=3))
    assert vm_forms.sizes_of(waiting) == {"memory": "6.0G", "vcpus": "3"}


@SIZES
async def test_memory_and_vcpus_are_changed_by_a_key(app_on: App, simulated: Host, size: tuple[int, int]):
    app = app_on(simulated)
    async with running(app, size) as pilot:
        await go_to(pilot, "build-07")
        await pilot.press("V")
        form = await on_screen(pilot, SizeScreen)
        assert "Memory and vCPUs of build-07" in picture(pilot)
        assert "It has 4.0G of memory" in preview(pilot)
        await pilot.press("ctrl+s")
        await until(pilot, lambda: "nothing is changed" in status(pilot))
        form.query_one("#memory", Input).value = "3G"
        form.query_one("#vcpus", Input).value = "1"
        await until(pilot, lambda: "vm set build-07 memory=3G" in preview(pilot))
        await pilot.press("ctrl+s")
        await on_screen(pilot, PlanScreen)
        await pilot.press("enter")
        await on_screen(pilot, FleetScreen)
        await until(pilot, lambda: "u undo" in status(pilot))
        await until(pilot, lambda: vm_of(app, "build-07").memory_bytes == 3 * GIB)
        await pilot.press("u")
        await on_screen(pilot, PlanScreen)
        await pilot.press("enter")
        await until(pilot, lambda: vm_of(app, "build-07").memory_bytes == 4 * GIB)
