"""The create form: fields, suggestions, the live preview of real plans, errors by field, and the VM it makes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from textual.pilot import Pilot
from textual.widgets import Input

from host.connection import Host
from host.errors import UsageError
from hvtui.tui.app import HvtuiApp
from hvtui.tui.create_form import FIELDS, SUGGESTED, request_from
from hvtui.tui.screens.create import CreateScreen
from hvtui.tui.screens.fleet import FleetScreen
from hvtui.tui.screens.plan import PlanScreen
from hvtui.tui.widgets.chooser import Chooser
from hvtui.tui.widgets.page import Page
from tests.support.simulated_world import HOSTILE_NAMES
from tests.tui.conftest import until
from tests.tui.driving import SIZES, names, on_screen, picture, running, status, vm
from vm import demo
from vm.create_request import Firmware, Graphics, SourceKind

App = Callable[..., HvtuiApp]
MIB = 1024**2


@pytest.fixture
def demo_host() -> Iterator[Host]:
    """The host of `hvtui --demo`."""
    host = demo.demo_host()
    yield host
    host.close()


async def open_form(pilot: Pilot[None]) -> CreateScreen:
    await pilot.press("n")
    return await on_screen(pilot, CreateScreen)


def preview(pilot: Pilot[None]) -> str:
    """What will be done, without its line breaks."""
    return " ".join(pilot.app.screen.query_one("#plan", Page).plain.split())


def values(**changes: str) -> dict[str, str]:
    return {field.key: field.value for field in FIELDS} | changes


def visible(screen: CreateScreen) -> list[str]:
    return [field.key for field in FIELDS if screen.query_one(f"#row-{field.key}").display]


@SIZES
async def test_a_tiny_vm_needs_a_name_and_two_keys(app_on: App, demo_host: Host, size: tuple[int, int]):
    app = app_on(demo_host)
    async with running(app, size) as pilot:
        screen = await open_form(pilot)
        assert "Give it a name" in preview(pilot)
        assert screen.focused is screen.query_one("#name")
        await pilot.press(*"shop")
        await until(pilot, lambda: "Define shop" in preview(pilot))
        assert "same as hvtui --headless vm create" in preview(pilot)
        picture(pilot)
        await pilot.press("ctrl+s")
        await on_screen(pilot, PlanScreen)
        assert "Create shop (tiny, 1 vCPU, 128M)" in picture(pilot)
        await pilot.press("enter")
        await on_screen(pilot, FleetScreen)
        await until(pilot, lambda: "shop" in names(app))
        assert vm(app, "shop").memory_max_bytes == 128 * MIB
        await until(pilot, lambda: "made shop" in status(pilot))


async def test_what_is_typed_survives_a_refused_plan(app_on: App, simulated: Host):
    app = app_on(simulated)
    async with running(app) as pilot:
        screen = await open_form(pilot)
        await pilot.press(*"shop", "ctrl+s")
        await on_screen(pilot, PlanScreen)
        await pilot.press("escape")
        await on_screen(pilot, CreateScreen)
        assert screen.query_one("#name", Input).value == "shop"
        assert "shop" not in names(app)
        await pilot.press("escape", "escape")
        await on_screen(pilot, FleetScreen)


@SIZES
async def test_each_source_has_its_fields_and_its_suggestions(app_on: App, simulated: Host, size: tuple[int, int]):
    async with running(app_on(simulated), size) as pilot:
        screen = await open_form(pilot)
        await pilot.press("down")
        assert screen.focused is screen.query_one("#source")
        seen = {}
        for _ in SourceKind:
            await pilot.pause()
            seen[SourceKind(screen.query_one("#source", Chooser).value)] = visible(screen)
            picture(pilot)
            await pilot.press("right")
        assert set(seen) == set(SourceKind)
        assert "iso" in seen[SourceKind.ISO]
        assert "image" in seen[SourceKind.IMAGE]
        assert {"kernel", "initrd", "kernel_arguments"} <= set(seen[SourceKind.KERNEL])
        assert "firmware" not in seen[SourceKind.TINY]
        assert "disk" in seen[SourceKind.EMPTY]
        await pilot.press("right")
        assert screen.query_one("#memory", Input).value == SUGGESTED[SourceKind.ISO]["memory"]
        await pilot.press("left")
        assert screen.query_one("#memory", Input).value == SUGGESTED[SourceKind.TINY]["memory"]


async def test_a_suggestion_never_overwrites_what_was_typed(app_on: App, simulated: Host):
    async with running(app_on(simulated)) as pilot:
        screen = await open_form(pilot)
        memory = screen.query_one("#memory", Input)
        memory.focus()
        await pilot.press("ctrl+u", *"3G")
        await pilot.pause()
        screen.query_one("#source", Chooser).focus()
        await pilot.press("right")
        await pilot.pause()
        assert memory.value == "3G"
        assert screen.query_one("#vcpus", Input).value == SUGGESTED[SourceKind.ISO]["vcpus"]


@pytest.mark.parametrize(
    ("key", "typed", "words"),
    [
        ("memory", "lots", "memory: 'lots' is not a size"),
        ("memory", "12", "Write it with a unit: 12M or 12G"),
        ("vcpus", "two", "vCPUs: 'two' is not a number of at least 1"),
        ("name", "a/b", "holds a slash"),
    ],
)
async def test_an_error_names_its_field_and_the_remedy(app_on: App, simulated: Host, key: str, typed: str, words: str):
    async with running(app_on(simulated)) as pilot:
        screen = await open_form(pilot)
        await pilot.press(*"shop")
        screen.query_one(f"#{key}", Input).value = typed
        await until(pilot, lambda: words in preview(pilot))
        screen.query_one("#tags").focus()
        await pilot.press("ctrl+s")
        await until(pilot, lambda: status(pilot).strip() != "")
        assert isinstance(pilot.app.screen, CreateScreen)
        if key != "name":
            assert screen.focused is screen.query_one(f"#{key}")
            assert screen.query_one(f"#row-{key}").has_class("-wrong")


async def test_what_blocks_the_plan_is_said_and_nothing_is_made(app_on: App, simulated: Host, tmp_path: Path):
    app = app_on(simulated)
    async with running(app) as pilot:
        await open_form(pilot)
        await pilot.press(*"web-01")
        await until(pilot, lambda: "there is a VM called web-01 already" in preview(pilot))
        await pilot.press("ctrl+s")
        await until(pilot, lambda: "cannot be made yet" in status(pilot))
        assert isinstance(app.screen, CreateScreen)


async def test_tab_goes_to_the_next_field_and_shift_tab_back(app_on: App, simulated: Host):
    async with running(app_on(simulated)) as pilot:
        screen = await open_form(pilot)
        await pilot.press("tab")
        assert screen.focused is screen.query_one("#source")
        await pilot.press("tab")
        assert screen.focused is screen.query_one("#vcpus")
        await pilot.press("shift+tab", "shift+tab")
        assert screen.focused is screen.query_one("#name")
        await pilot.press("enter")
        assert screen.focused is screen.query_one("#source")


async def test_a_filled_form_is_given_up_only_at_the_second_press(app_on: App, simulated: Host):
    async with running(app_on(simulated)) as pilot:
        screen = await open_form(pilot)
        await pilot.press("s", "escape")
        await until(pilot, lambda: "not made yet: esc again gives the form up" in status(pilot))
        assert pilot.app.screen is screen
        await pilot.press("h", "escape")  # what was typed since was not warned of
        await pilot.pause()
        assert pilot.app.screen is screen
        await pilot.press("escape")
        await on_screen(pilot, FleetScreen)


async def test_an_untouched_form_is_left_at_once(app_on: App, simulated: Host):
    async with running(app_on(simulated)) as pilot:
        await open_form(pilot)
        await pilot.press("tab", "tab", "escape")
        await on_screen(pilot, FleetScreen)


@pytest.mark.parametrize("key", ["ctrl+c", "ctrl+q"])
async def test_quitting_from_a_filled_form_asks_once(app_on: App, simulated: Host, key: str):
    app = app_on(simulated)
    async with running(app) as pilot:
        screen = await open_form(pilot)
        await pilot.press("s", key)
        await until(pilot, lambda: "not made yet" in status(pilot))
        assert app.screen is screen
        assert app._exit is False
        await pilot.press(key)
        await until(pilot, lambda: app._exit)


async def test_a_missing_path_is_asked_for(app_on: App, simulated: Host):
    async with running(app_on(simulated)) as pilot:
        screen = await open_form(pilot)
        await pilot.press(*"shop", "down", "right")
        await until(pilot, lambda: "ISO: give its path on the host" in preview(pilot))
        await pilot.press("ctrl+s")
        await until(pilot, lambda: screen.focused is screen.query_one("#iso"))


async def test_letters_are_text_everywhere_in_the_form(app_on: App, simulated: Host):
    """No key of the list may work in a form: q would quit, D delete."""
    app = app_on(simulated)
    async with running(app) as pilot:
        screen = await open_form(pilot)
        for key in ("name", "source", "memory", "graphics", "start"):
            screen.query_one(f"#{key}").focus()
            await pilot.press("q", "J", "D", "n", "u", "colon", "question_mark")
            await pilot.pause()
            assert app.screen is screen
            assert app.is_running
        assert screen.query_one("#name", Input).value == "qJDnu:?"


async def test_the_footer_shows_only_keys_that_work_in_a_form(app_on: App, simulated: Host):
    async with running(app_on(simulated)) as pilot:
        await open_form(pilot)
        footer = picture(pilot).splitlines()[-1]
        assert footer.split("  ")[0] == " ctrl+s create it"
        assert "f1 help" in footer
        assert "J jobs" not in footer


@SIZES
async def test_hostile_answers_are_harmless(app_on: App, simulated: Host, size: tuple[int, int]):
    async with running(app_on(simulated), size) as pilot:
        screen = await open_form(pilot)
        for name in (*HOSTILE_NAMES, "a\x1b[31mb", "c\nd"):
            for key in ("name", "network", "tags"):
                screen.query_one(f"#{key}", Input).value = name
            await pilot.pause(0.3)
            picture(pilot)
            await pilot.press("ctrl+s")
            await pilot.pause(0.1)
            picture(pilot)
            if not isinstance(pilot.app.screen, CreateScreen):
                await pilot.press("escape")
                await on_screen(pilot, CreateScreen)


def test_the_form_makes_the_request_that_it_shows():
    request = request_from(
        values(name=" shop ", source="iso", iso="/srv/debian.iso", vcpus="4", memory="2G", disk="30G", network="none",
               firmware="uefi", tpm="yes", graphics="none", tags="web, prod", start="no")
    )  # fmt: skip
    assert (request.name, request.source, request.iso) == ("shop", SourceKind.ISO, "/srv/debian.iso")
    assert (request.vcpus, request.memory_bytes, request.disk_bytes) == (4, 2048 * MIB, 30720 * MIB)
    assert (request.network, request.firmware, request.tpm) == ("none", Firmware.UEFI, True)
    assert (request.graphics, request.tags, request.start) == (Graphics.NONE, ("web", "prod"), False)


def test_fields_of_another_source_do_not_reach_the_request():
    request = request_from(values(name="shop", source="tiny", iso="/srv/left-over.iso", tpm="yes", firmware="uefi"))
    assert (request.iso, request.tpm, request.firmware) == ("", False, Firmware.AUTO)


def test_a_vm_without_a_name_is_refused():
    with pytest.raises(UsageError, match="give the new VM a name"):
        request_from(values(name="  "))


async def test_the_cursor_goes_to_the_vm_that_was_made(app_on: App, demo_host: Host):
    app = app_on(demo_host)
    async with running(app) as pilot:
        await open_form(pilot)
        await pilot.press(*"shop")
        await until(pilot, lambda: "Define shop" in preview(pilot))
        await pilot.press("ctrl+s")
        await on_screen(pilot, PlanScreen)
        await pilot.press("enter")
        await until(pilot, lambda: "shop" in names(app))
        fleet = await on_screen(pilot, FleetScreen)
        await until(pilot, lambda: fleet.grid.current is not None and fleet.grid.current.name == "shop")
