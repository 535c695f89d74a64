"""The events screen: what libvirt tells of, newest first, and the way to the VM."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from host.connection import Host
from host.events import Event, EventKind
from hvtui.tui import app as app_module
from hvtui.tui.app import HvtuiApp
from hvtui.tui.messages import EventArrived
from hvtui.tui.screens.events import EventsScreen
from hvtui.tui.screens.fleet import FleetScreen
from tests.support.simulated_world import HOSTILE_NAMES, uuid_of
from tests.tui.conftest import until
from tests.tui.driving import SIZES, go_to, on_screen, picture, running, status, vm

App = Callable[..., HvtuiApp]


def event(name: str = "web-01", kind: EventKind = EventKind.STARTED, detail: str = "booted", **more: object) -> Event:
    at = more.get("at", datetime.now(UTC))
    assert isinstance(at, datetime)
    return Event(kind, uuid_of(name), name, detail, at)


@SIZES
async def test_before_anything_happened_it_says_what_will_stand_here(
    app_on: App, simulated: Host, size: tuple[int, int]
):
    async with running(app_on(simulated), size) as pilot:
        await pilot.press("E")
        await on_screen(pilot, EventsScreen)
        assert "Nothing has happened since hvtui was started." in picture(pilot)
        await pilot.press("enter")
        await until(pilot, lambda: "no event is selected" in status(pilot))
        await pilot.press("escape")
        await on_screen(pilot, FleetScreen)


@SIZES
async def test_what_happens_appears_at_the_top_while_the_screen_is_open(
    app_on: App, simulated: Host, size: tuple[int, int]
):
    app = app_on(simulated)
    async with running(app, size) as pilot:
        await pilot.press("E")
        await on_screen(pilot, EventsScreen)
        with simulated.calls("stop and start") as connection:
            domain = connection.lookupByName("web-02")
            domain.destroy()
            domain.create()
        await until(pilot, lambda: len(app.events) >= 2)
        lines = picture(pilot).splitlines()
        assert "TIME" in lines[1]
        assert all(word in lines[2] for word in ("started", "web-02", "booted"))
        assert all(word in lines[3] for word in ("stopped", "web-02"))


async def test_enter_goes_to_the_vm_of_the_event(app_on: App, simulated: Host):
    app = app_on(simulated)
    async with running(app) as pilot:
        await go_to(pilot, "files")
        app.post_message(EventArrived(event("web-02")))
        app.post_message(EventArrived(event("gone")))
        await pilot.press("E")
        await on_screen(pilot, EventsScreen)
        await pilot.press("enter")
        await until(pilot, lambda: "gone is not here any more" in status(pilot))
        await pilot.press("down", "enter")
        await on_screen(pilot, FleetScreen)
        await until(pilot, lambda: [each.name for each in app.selected().vms] == ["web-02"])
        assert vm(app, "web-02").is_active


async def test_the_cursor_stays_on_its_event_when_new_ones_arrive(app_on: App, simulated: Host):
    app = app_on(simulated)
    async with running(app) as pilot:
        for name in ("web-01", "web-02"):
            app.post_message(EventArrived(event(name)))
        await pilot.press("E")
        screen = await on_screen(pilot, EventsScreen)
        await pilot.press("down")
        assert screen.selected is not None
        assert screen.selected.vm_name == "web-01"
        for _ in range(5):
            app.post_message(EventArrived(event("files")))
        await until(pilot, lambda: len(app.events) == 7)
        assert screen.selected is not None
        assert screen.selected.vm_name == "web-01"


async def test_only_the_newest_are_kept_and_the_cursor_follows_them(app_on: App, simulated: Host):
    app = app_on(simulated)
    async with running(app) as pilot:
        await pilot.press("E")
        screen = await on_screen(pilot, EventsScreen)
        for number in range(app_module.EVENTS_KEPT + 5):
            app.events_dropped += len(app.events) == app.events.maxlen
            app.events.append(event("web-01", detail=f"number {number}"))
        app.post_message(EventArrived(event("web-02", detail="the last")))
        await until(pilot, lambda: "the last" in picture(pilot))
        assert len(app.events) == app_module.EVENTS_KEPT
        await pilot.press("home")
        await pilot.pause()
        assert screen.selected is not None
        assert screen.selected.detail == "the last"
        await pilot.press("G")
        await pilot.pause()
        assert screen.selected.detail == "number 6"


async def test_alarms_have_a_sign_and_old_events_a_date(app_on: App, simulated: Host):
    app = app_on(simulated)
    async with running(app) as pilot:
        old = datetime.now(UTC) - timedelta(days=3)
        app.post_message(EventArrived(event(at=old)))
        app.post_message(EventArrived(event(kind=EventKind.IO_ERROR, detail="enospc on vda")))
        await pilot.press("E")
        await on_screen(pilot, EventsScreen)
        lines = picture(pilot).splitlines()
        assert "! io-error" in lines[2]
        assert "enospc on vda" in lines[2]
        assert f"{old.astimezone():%m-%d %H:%M}" in lines[3]


@SIZES
async def test_hostile_names_and_details_are_harmless(app_on: App, simulated: Host, size: tuple[int, int]):
    app = app_on(simulated)
    async with running(app, size) as pilot:
        for name in HOSTILE_NAMES:
            app.post_message(EventArrived(event(name, detail=name)))
        await pilot.press("E")
        await on_screen(pilot, EventsScreen)
        assert "[red]bold[reset]" in picture(pilot)


async def test_the_heads_stand_above_their_columns_with_and_without_a_scroll_bar(app_on: App, simulated: Host):
    for width in (80, 90, 91, 92):
        app = app_on(simulated)
        async with running(app, (width, 24)) as pilot:
            await pilot.press("E")
            await on_screen(pilot, EventsScreen)
            for count in (1, 60):
                for _ in range(count):
                    app.post_message(EventArrived(event(detail="because")))
                await until(pilot, lambda: "because" in picture(pilot))
                await pilot.pause()
                head, first = picture(pilot).splitlines()[1:3]
                assert head.index("DETAIL") == first.index("because")
                assert head.index("VM") == first.index("web-01")
