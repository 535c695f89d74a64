"""A VM's differences from its template: shown with both values, aligned by the plan dialog, one or all."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from textual.pilot import Pilot

from host import jobs
from host.connection import Host
from host.journal import Journal
from host.units import MIB
from hvtui.tui.app import HvtuiApp
from hvtui.tui.screens.choice import ChoiceScreen
from hvtui.tui.screens.drift import DriftScreen
from hvtui.tui.screens.fleet import FleetScreen
from hvtui.tui.screens.plan import PlanScreen
from hvtui.tui.widgets.choice_list import ChoiceList
from hvtui.tui.widgets.page import Page
from tests.support import fake_library
from tests.support.fake_library import DEBIAN, TINY
from tests.tui.conftest import until
from tests.tui.driving import SIZES, go_to, on_screen, picture, running, status
from vm import deploy
from vm.deploy_request import DeployRequest
from vm.domain_xml import parse, to_text
from vm.profile_model import GuestProfile, HardwareProfile

App = Callable[..., HvtuiApp]


@pytest.fixture
def host(open_world: Callable[[str], Host], monkeypatch: pytest.MonkeyPatch, journal: Journal) -> Host:
    """A host with web-01, deployed from `tiny`."""
    fake_library.install(monkeypatch, TINY)
    opened = fake_library.furnished(open_world)
    request = DeployRequest("tiny", ("web-01",), HardwareProfile(), GuestProfile(), start=False)
    for plan in deploy.plan_deploy(opened, request).plans:
        assert jobs.submit(plan, opened, journal).error == ""
    return opened


def change(host: Host, **texts: str) -> None:
    with host.calls("change") as connection:
        root = parse(connection.lookupByName("web-01").XMLDesc(0))
        for tag, text in texts.items():
            root.find(tag).text = text
        connection.defineXML(to_text(root))


async def open_drift(pilot: Pilot[None], name: str = "web-01") -> DriftScreen:
    await go_to(pilot, name)
    await pilot.press("equals_sign")
    screen = await on_screen(pilot, DriftScreen)
    await until(pilot, lambda: "comparing" not in detail(pilot))
    return screen


def detail(pilot: Pilot[None]) -> str:
    return " ".join(pilot.app.screen.query_one("#text", Page).plain.split())


def keys(screen: DriftScreen) -> list[str]:
    return [each.key for each in screen.drift.differences] if screen.drift is not None else ["?"]


async def test_a_vm_that_is_as_it_was_made_says_so(app_on: App, host: Host):
    async with running(app_on(host)) as pilot:
        await open_drift(pilot)
        assert "It is as its template and profile say." in picture(pilot)
        await pilot.press("A")
        await until(pilot, lambda: "nothing here can be aligned" in status(pilot))
        await pilot.press("escape")
        await on_screen(pilot, FleetScreen)


@SIZES
async def test_differences_are_shown_and_aligned_after_a_plan(app_on: App, host: Host, size: tuple[int, int]):
    change(host, vcpu="3", memory="524288", currentMemory="524288")
    async with running(app_on(host), size) as pilot:
        screen = await open_drift(pilot)
        assert {"vcpus", "memory"} <= set(keys(screen))
        line = next(each for each in picture(pilot).splitlines() if "512M" in each)
        assert "1.0G" in line
        rows = screen.query_one("#rows", ChoiceList)
        rows.highlighted = keys(screen).index("vcpus")
        await pilot.pause()
        assert "expected 1 found 3" in detail(pilot)
        await pilot.press("enter")
        dialog = await on_screen(pilot, PlanScreen)
        assert [plan.command for plan in dialog.plans] == [("vm", "align", "--only", "vcpus", "web-01")]
        assert "Align web-01 with tiny" in picture(pilot)
        await pilot.press("enter")
        await until(pilot, lambda: pilot.app.screen is screen and "vcpus" not in keys(screen))
        assert "memory" in keys(screen)
        await pilot.press("A")
        await on_screen(pilot, PlanScreen)
        await pilot.press("enter")
        await until(pilot, lambda: pilot.app.screen is screen and keys(screen) == [])
    with host.calls("look") as connection:
        assert connection.lookupByName("web-01").maxMemory() * 1024 == 1024 * MIB


async def test_what_cannot_be_aligned_says_why(app_on: App, host: Host):
    with host.calls("change") as connection:
        root = parse(connection.lookupByName("web-01").XMLDesc(0))
        disk = parse("<domain><disk type='file'><source file='/x'/><target dev='vdx' bus='virtio'/></disk></domain>")
        root.find("devices").append(disk.find("disk"))
        connection.defineXML(to_text(root))
    async with running(app_on(host), (120, 40)) as pilot:
        screen = await open_drift(pilot)
        screen.query_one("#rows", ChoiceList).highlighted = keys(screen).index("disks")
        await pilot.pause()
        assert "it stays: " in detail(pilot)
        await pilot.press("enter")
        await until(pilot, lambda: "cannot be aligned" in status(pilot))
        assert pilot.app.screen is screen


async def test_a_vm_of_no_template_has_nothing_to_compare_with(app_on: App, host: Host):
    async with running(app_on(host)) as pilot:
        await open_drift(pilot, "old-shop")
        assert "it was not made from a template" in detail(pilot)


async def test_the_go_line_compares_a_vm_by_its_name(app_on: App, host: Host):
    async with running(app_on(host)) as pilot:
        await go_to(pilot, "old-shop")
        await pilot.press("colon", *"diff web-01", "enter")
        screen = await on_screen(pilot, DriftScreen)
        assert screen.vm.name == "web-01"


async def test_w_compares_with_a_template_of_ones_choice_and_aligns_with_that_one(
    app_on: App, host: Host, monkeypatch: pytest.MonkeyPatch
):
    fake_library.install(monkeypatch, TINY, DEBIAN)
    async with running(app_on(host)) as pilot:
        screen = await open_drift(pilot)
        assert keys(screen) == []
        await pilot.press("w")
        await on_screen(pilot, ChoiceScreen)
        assert "tiny its own" in " ".join(picture(pilot).split())
        await pilot.press("k", "enter")
        await until(pilot, lambda: "against debian revision 3, not its own" in " ".join(picture(pilot).split()))
        assert keys(screen)
        await pilot.press("A")
        dialog = await on_screen(pilot, PlanScreen)
        assert [plan.command[:4] for plan in dialog.plans] == [("vm", "align", "--with", "debian")]
        await pilot.press("escape")
        await on_screen(pilot, DriftScreen)
        await pilot.press("w")
        await on_screen(pilot, ChoiceScreen)
        await pilot.press("j", "enter")
        await until(pilot, lambda: keys(screen) == [])


async def test_a_vm_of_no_template_is_compared_with_a_chosen_one(app_on: App, host: Host):
    async with running(app_on(host)) as pilot:
        screen = await open_drift(pilot, "old-shop")
        assert "w compares it with a template of your choice" in detail(pilot)
        await pilot.press("w")
        await on_screen(pilot, ChoiceScreen)
        await pilot.press("enter")
        await until(pilot, lambda: screen.drift is not None and screen.drift.template == "tiny")
