"""Several hosts in one list: whose VM is whose, what a lost host greys, the tree, and where actions go."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from textual import events
from textual.pilot import Pilot

from host.connection import Host
from host.job_model import JobState
from host.journal import Journal
from hvtui.cli.session import Session
from hvtui.tui.app import HvtuiApp
from hvtui.tui.screens.fleet import FleetScreen
from hvtui.tui.screens.host import HostScreen
from hvtui.tui.screens.plan import PlanScreen
from hvtui.tui.widgets.grid import Grid
from tests.tui import fleet_scenes
from tests.tui.conftest import shown, until
from tests.tui.driving import SIZES, on_screen, picture
from tests.tui.many import app_on_many, host_named, lose, running_many, shown_vms, vm_on
from vm.model import VmState


@pytest.fixture
def many(tmp_path: Path, journal: Journal) -> HvtuiApp:
    return app_on_many(tmp_path, journal)


def fleet(app: HvtuiApp) -> FleetScreen:
    assert isinstance(app.screen, FleetScreen)
    return app.screen


async def pause(pilot: Pilot[None]) -> None:
    await pilot.press("P")
    await on_screen(pilot, PlanScreen)
    await pilot.press("enter")


@SIZES
async def test_every_host_s_vms_are_in_the_list_with_their_host(many: HvtuiApp, size: tuple[int, int]) -> None:
    async with running_many(many, size) as pilot:
        text = picture(pilot)
        assert "HOST" in text and "3 hosts" in text
        assert ("lab1", "twin") in shown_vms(many) and ("lab2", "twin") in shown_vms(many)


async def test_a_definition_that_is_on_two_hosts_is_two_rows_with_marks_of_their_own(many: HvtuiApp) -> None:
    async with running_many(many) as pilot:
        fleet(many).go_to_vm(vm_on(many, "lab2", "twin").uuid, "lab2")
        await pilot.press("space")
        marked = [vm.key for vm in fleet(many).grid.marked]
    assert marked == [vm_on(many, "lab2", "twin").key]


async def test_an_action_works_on_the_vm_s_own_host(many: HvtuiApp, journal: Journal) -> None:
    async with running_many(many) as pilot:
        fleet(many).go_to_vm(vm_on(many, "lab2", "twin").uuid, "lab2")
        await pilot.press("s")
        await until(pilot, lambda: vm_on(many, "lab2", "twin").state is VmState.RUNNING)
        assert vm_on(many, "lab1", "twin").state is VmState.OFF
        (job,) = journal.jobs()
        await until(pilot, lambda: journal.job(job.id).state is JobState.DONE)
    assert job.host_uri == host_named(many, "lab2").uri


async def test_undo_takes_back_on_the_host_of_the_job(many: HvtuiApp) -> None:
    async with running_many(many) as pilot:
        fleet(many).go_to_vm(vm_on(many, "far1", "mail").uuid, "far1")
        await pause(pilot)
        await until(pilot, lambda: vm_on(many, "far1", "mail").state is VmState.PAUSED)
        await until(pilot, lambda: bool(many.jobs) and many.jobs[0].state is JobState.DONE)
        await pilot.press("u")
        await on_screen(pilot, PlanScreen)
        await pilot.press("enter")
        await until(pilot, lambda: vm_on(many, "far1", "mail").state is VmState.RUNNING)


async def test_one_selection_of_vms_on_several_hosts_is_done_on_each(many: HvtuiApp) -> None:
    async with running_many(many) as pilot:
        for host, name in (("lab1", "web-01"), ("lab2", "db-01")):
            fleet(many).go_to_vm(vm_on(many, host, name).uuid, host)
            await pilot.press("space")
        await pilot.press("P")
        await on_screen(pilot, PlanScreen)
        text = picture(pilot)
        assert "--host lab1 vm pause web-01" in text and "--host lab2 vm pause db-01" in text
        await pilot.press("enter")
        await until(pilot, lambda: vm_on(many, "lab1", "web-01").state is VmState.PAUSED)
        await until(pilot, lambda: vm_on(many, "lab2", "db-01").state is VmState.PAUSED)


async def test_only_the_rows_of_a_lost_host_are_grey_and_the_age_is_told(many: HvtuiApp) -> None:
    async with running_many(many, (120, 40)) as pilot:
        lose(host_named(many, "lab2"))
        await until(pilot, lambda: not many.is_up(vm_on(many, "lab2", "db-01")))
        assert many.is_up(vm_on(many, "lab1", "web-01"))
        grid = fleet(many).query_one(Grid)
        rows = dict(zip(shown_vms(many), grid.lines[1:], strict=False))
        dim = {segment.style for segment in rows["lab2", "db-01"] if segment.text.strip() and segment.text != "▶"}
        bright = {segment.style for segment in rows["lab1", "web-01"] if segment.text.strip()}
        assert len(dim) == 1 and len(bright) > 1
        assert "lab2 stale" in shown(many).lines[0]
        fleet(many).go_to_vm(vm_on(many, "lab2", "db-01").uuid, "lab2")
        await pilot.press("P")
        assert "not while the connection is lost" in shown(many).text
        fleet(many).go_to_vm(vm_on(many, "lab1", "web-01").uuid, "lab1")
        await pause(pilot)
        await until(pilot, lambda: vm_on(many, "lab1", "web-01").state is VmState.PAUSED)


async def test_filters_know_hosts_and_groups(many: HvtuiApp) -> None:
    async with running_many(many) as pilot:
        await pilot.press("slash", *"group:lab", "enter")
        await until(pilot, lambda: {host for host, _ in shown_vms(many)} == {"lab1", "lab2"})
        await pilot.press("escape", "slash", *"host:far1", "enter")
        await until(pilot, lambda: shown_vms(many) == [("far1", "mail")])


@SIZES
async def test_the_tree_narrows_the_list_to_a_group_or_a_host(many: HvtuiApp, size: tuple[int, int]) -> None:
    async with running_many(many, size) as pilot:
        await pilot.press("h")
        await until(pilot, lambda: "all hosts" in shown(many).text)
        text = picture(pilot)
        assert all(word in text for word in ("lab1", "lab2", "far1", "no group"))
        await pilot.press("j")
        await until(pilot, lambda: {host for host, _ in shown_vms(many)} == {"lab1", "lab2"})
        await pilot.press("j", "j")
        await until(pilot, lambda: {host for host, _ in shown_vms(many)} == {"lab2"})
        await pilot.press("enter")
        assert (await on_screen(pilot, HostScreen)).name_shown == "lab2"
        await pilot.press("escape", "h")
        await until(pilot, lambda: len(shown_vms(many)) == 6 and "all hosts" not in shown(many).text)


async def test_keys_typed_right_after_h_are_the_trees(many: HvtuiApp) -> None:
    async with running_many(many) as pilot:
        for key in ("h", "j", "j"):
            many.post_message(events.Key(key, key))
        await until(pilot, lambda: fleet(many).target().host == "lab1")


async def test_a_host_without_vms_is_no_filter_that_matches_nothing() -> None:
    app = fleet_scenes.many_app()
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.press("h", *"jjjj")
        await until(pilot, lambda: "no VM there" in shown(app).text)
        assert "nothing matches" not in shown(app).text


async def test_in_the_tree_no_vm_is_meant(many: HvtuiApp) -> None:
    async with running_many(many) as pilot:
        await pilot.press("h")
        await pilot.pause()
        assert fleet(many).targets() == ()
        await pilot.press("tab")
        await pilot.pause()
        assert len(fleet(many).targets()) == 1


async def test_one_host_knows_nothing_of_a_tree(app_on: Callable[..., HvtuiApp], simulated: Host) -> None:
    from tests.tui.driving import running

    app = app_on(simulated)
    async with running(app) as pilot:
        assert "HOST" not in shown(app).text
        await pilot.press("h")
        assert "there is only one host" in shown(app).text


def test_what_several_hosts_need_is_not_loaded_for_one() -> None:
    code = "import sys, hvtui.tui.app, hvtui.tui.screens.fleet; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    several = {"vm.fleet", "vm.placement", "vm.whatif", "host.maintenance", "hvtui.tui.fleet_state",
               "hvtui.tui.fleet_view", "hvtui.tui.widgets.host_tree", "vm.move", "vm.drain"}  # fmt: skip
    assert not several & set(loaded)


HOSTS = """
[[host]]
name = "lab1"
uri = "test:///default"
groups = ["lab"]
[[host]]
name = "lab2"
uri = "test+unix:///default"
"""


@pytest.mark.parametrize(
    ("given", "environment", "expected"),
    [
        ({}, "", ["lab1", "lab2"]),
        ({}, "test:///default", []),
        ({"connect": "test:///default"}, "", []),
        ({"host": ("lab1",)}, "", []),
        ({"host": ("lab1", "lab2")}, "", ["lab1", "lab2"]),
        ({"group": ("lab",)}, "", []),
        ({"demo": True}, "", []),
    ],
    ids=["all of the configuration", "HVTUI_URI", "--connect", "--host", "two --host", "a group of one", "--demo"],
)
def test_which_hosts_the_console_shows(
    given: dict[str, Any], environment: str, expected: list[str], config_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config_file.write_text(HOSTS, encoding="utf-8")
    monkeypatch.setenv("HVTUI_URI", environment)
    session = Session(given=given)
    try:
        assert [host.name for host in session.console_hosts()] == expected
    finally:
        session.close()
