"""Which disks go with a VM: kept by default, removed only when asked for and when nothing else needs them."""

from __future__ import annotations

from collections.abc import Callable

from textual.pilot import Pilot

from host.connection import Host
from hvtui.tui.app import HvtuiApp
from hvtui.tui.screens.delete import DeleteScreen, Deletion
from hvtui.tui.screens.fleet import FleetScreen
from hvtui.tui.screens.plan import PlanScreen
from tests.support.simulated_world import HOSTILE_NAMES
from tests.tui import scenes
from tests.tui.conftest import until
from tests.tui.driving import SIZES, go_to, names, on_screen, picture, running
from vm import demo
from vm.disk_uses import DiskUse

App = Callable[..., HvtuiApp]

FREE = DiskUse("vda", "disk", "/img/a.qcow2", "file", "/img/a.qcow2", "default", "a.qcow2", 3 * 1024**3)
BASE = DiskUse("vdb", "disk", "/img/b.qcow2", "file", "/img/b.qcow2", keep_reason="images of web-02 build on it")


async def ask(pilot: Pilot[None], *uses: DiskUse, active: bool = False) -> list[Deletion | None]:
    """Show the dialog; the list gets its answer."""
    answers: list[Deletion | None] = []
    vm = scenes.running("web", 1, cpu=1) if active else scenes.resting("web", 1)
    pilot.app.push_screen(DeleteScreen(vm, uses), answers.append)
    await on_screen(pilot, DeleteScreen)
    return answers


async def test_disks_are_kept_unless_they_are_marked(app_on: App, simulated: Host):
    async with running(app_on(simulated)) as pilot:
        answers = await ask(pilot, FREE, BASE)
        shown = picture(pilot)
        assert "[ ]  remove the disk vda  /img/a.qcow2  3.0G" in shown
        assert "used by nothing else; it stays unless you mark it" in shown
        await pilot.press("enter")
        await pilot.pause()
        assert answers == [Deletion()]


async def test_space_marks_and_unmarks(app_on: App, simulated: Host):
    async with running(app_on(simulated)) as pilot:
        answers = await ask(pilot, FREE)
        await pilot.press("space")
        await pilot.pause()
        assert "[✓]  remove the disk vda" in picture(pilot)
        await pilot.press("space", "space", "enter")
        await pilot.pause()
        assert answers == [Deletion(("vda",))]


async def test_a_disk_that_others_need_cannot_be_marked(app_on: App, simulated: Host):
    async with running(app_on(simulated)) as pilot:
        answers = await ask(pilot, FREE, BASE)
        assert "stays: images of web-02 build on it" in picture(pilot)
        await pilot.press("down", "space")
        await pilot.pause()
        assert "this disk stays" in picture(pilot)
        await pilot.press("k", "j", "enter")
        await pilot.pause()
        assert answers == [Deletion()]


async def test_a_running_vm_can_be_turned_off_first(app_on: App, simulated: Host):
    async with running(app_on(simulated)) as pilot:
        answers = await ask(pilot, FREE, active=True)
        assert "it is running; what is not on its disks is lost" in picture(pilot)
        await pilot.press("space", "up", "space", "enter")
        await pilot.pause()
        assert answers == [Deletion(("vda",), off=True)]


async def test_leaving_deletes_nothing(app_on: App, simulated: Host):
    async with running(app_on(simulated)) as pilot:
        for key in ("escape", "q"):
            answers = await ask(pilot, FREE)
            await pilot.press("space", key)
            await pilot.pause()
            assert answers == [None]


@SIZES
async def test_many_disks_and_hostile_paths_fit_and_scroll(app_on: App, simulated: Host, size: tuple[int, int]):
    async with running(app_on(simulated), size) as pilot:
        uses = [
            DiskUse(f"vd{n}", "disk", name, "file", f"/img/{name}", keep_reason=name if n % 2 else "")
            for n, name in enumerate(HOSTILE_NAMES * 8)
        ]
        await ask(pilot, *uses)
        picture(pilot)
        for _ in range(10):
            await pilot.press("down")
        await pilot.pause()
        assert "▶" in picture(pilot)
        await pilot.press("up", "up", "up", "up", "up", "up", "up", "up", "up", "up", "up")
        await pilot.pause()
        assert "▶" in picture(pilot)  # wrapped to the last one


@SIZES
async def test_a_running_demo_vm_goes_with_its_disk(app_on: App, size: tuple[int, int]):
    host = demo.demo_host()
    app = app_on(host)
    async with running(app, size) as pilot:
        await go_to(pilot, "web-01")
        await pilot.press("D")
        await on_screen(pilot, DeleteScreen)
        picture(pilot)
        await pilot.press("space", "down", "space", "enter")
        await on_screen(pilot, PlanScreen)
        shown = " ".join(picture(pilot).split())
        assert "Delete web-01 and 1 disk" in shown
        assert "used by nothing else" in shown
        await pilot.press(*"web", "minus", "0", "1", "enter")
        await on_screen(pilot, FleetScreen)
        await until(pilot, lambda: "web-01" not in names(app))
        with host.calls("look") as connection:
            assert "web-01.qcow2" not in connection.storagePoolLookupByName("default").listVolumes()
    host.close()
