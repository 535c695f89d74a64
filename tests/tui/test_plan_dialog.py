"""The confirm dialog: what it shows of real plans, which keys work, and that nothing runs without it."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from host.connection import Host
from host.journal import Journal
from host.plan import Blocker, Danger, Plan, Step
from hvtui.tui import catalogue, keymap, plan_text
from hvtui.tui.app import HvtuiApp
from hvtui.tui.screens.delete import DeleteScreen
from hvtui.tui.screens.fleet import FleetScreen
from hvtui.tui.screens.plan import PlanScreen
from hvtui.tui.screens.prompt import PromptScreen
from hvtui.tui.widgets.page import hanging
from tests.support.simulated_world import HOSTILE_NAMES
from tests.tui.conftest import until
from tests.tui.driving import HOSTILE, SIZES, go_to, names, on_screen, picture, running, status, vm
from vm import inventory, lifecycle, settings

App = Callable[..., HvtuiApp]


def plan(title: str = "Do it", **changes: object) -> Plan:
    values: dict[str, object] = {"host_uri": "test:///x", "steps": (Step("x", title),), "command": ("vm", "x", "web")}
    return Plan(title=title, **(values | changes))  # type: ignore[arg-type]


def text(rows: list[plan_text.Row], width: int = 78) -> str:
    return "\n".join(line.plain for line in hanging(rows, width))


@SIZES
async def test_what_blocks_a_plan_stands_first_with_the_key_that_removes_it(
    app_on: App, simulated: Host, size: tuple[int, int]
):
    app = app_on(simulated)
    async with running(app, size) as pilot:
        await go_to(pilot, "web-02")
        await pilot.press("r")
        await on_screen(pilot, PromptScreen)
        await pilot.press("x", "enter")
        await on_screen(pilot, PlanScreen)
        lines = picture(pilot).splitlines()
        frame = next(index for index, line in enumerate(lines) if "Rename web-02 to web-02x" in line)
        assert "×  it is running" in lines[frame + 1]
        assert "S  shut down" in lines[frame + 3]
        assert not any("enter" in line and "do it" in line for line in lines[frame:])
        await pilot.press("S")
        await until(pilot, lambda: isinstance(app.screen, PlanScreen) and app.screen.plans[0].command[1] == "stop")
        await pilot.press("enter")
        await until(pilot, lambda: not vm(app, "web-02").is_active)


@SIZES
async def test_a_deletion_names_its_losses_and_wants_the_name_typed(
    app_on: App, simulated: Host, size: tuple[int, int]
):
    app = app_on(simulated)
    async with running(app, size) as pilot:
        await go_to(pilot, "build-08")
        await pilot.press("D")
        await on_screen(pilot, PlanScreen)  # it has no disk to ask about
        shown = picture(pilot)
        assert "lost  the VM build-08: its configuration" in shown
        assert "lost  its saved state: what its programs had in memory" in shown
        assert "type build-08 to do it:" in shown
        await pilot.press("enter")
        await pilot.press(*"build", "enter")
        assert isinstance(app.screen, PlanScreen)
        assert "type build-08 first" in picture(pilot)
        assert "build-08" in names(app)
        await pilot.press("minus", "0", "8", "enter")
        await until(pilot, lambda: "build-08" not in names(app))
        await until(pilot, lambda: "deleted build-08" in status(pilot))


async def test_other_keys_work_beside_the_typed_name(app_on: App, simulated: Host):
    app = app_on(simulated)
    async with running(app) as pilot:
        await go_to(pilot, "build-08")
        await pilot.press("D")
        await on_screen(pilot, PlanScreen)
        await pilot.press("tab", "d")
        await pilot.pause()
        assert "undefine" in picture(pilot)
        await pilot.press("y")
        assert app.clipboard == "hvtui --headless vm delete build-08"
        await pilot.press("tab", *"build-08", "enter")
        await until(pilot, lambda: "build-08" not in names(app))


@pytest.mark.parametrize("key", ["escape", "q"])
async def test_leaving_the_dialog_changes_nothing(app_on: App, simulated: Host, journal: Journal, key: str):
    app = app_on(simulated)
    async with running(app) as pilot:
        await go_to(pilot, "web-02")
        await pilot.press("S")
        await on_screen(pilot, PlanScreen)
        await pilot.press(key)
        await pilot.pause()
        assert not isinstance(app.screen, PlanScreen)
        assert journal.jobs() == ()
        assert vm(app, "web-02").is_active


@SIZES
async def test_many_plans_show_reasons_once_and_run_the_others(app_on: App, simulated: Host, size: tuple[int, int]):
    app = app_on(simulated)
    async with running(app, size) as pilot:
        for name in ("web-02", "files", "build-07", "build-08"):
            await go_to(pilot, name) if name == "web-02" else app.screen.go_to_vm(vm(app, name).uuid)  # type: ignore[attr-defined]
            await pilot.press("space")
        await pilot.press("D")
        await on_screen(pilot, PlanScreen)
        shown = picture(pilot)
        assert "Delete 2 VMs" in shown  # those that can go
        assert "2 of 4 cannot be done" in shown
        assert shown.count("it is running: ") == 1
        assert "enter do the other 2" in shown
        assert "type delete 2 to do it:" in shown
        assert "lost in all, with 2 VMs" in shown
        assert "2 × the VM …: its configuration" in " ".join(shown.split())
        await pilot.press("2", "enter")
        await until(pilot, lambda: "type delete 2 first" in picture(pilot))
        await pilot.press("ctrl+u", *"delete 2", "enter")
        await until(pilot, lambda: not {"build-07", "build-08"} & names(app))
        assert {"web-02", "files"} <= names(app)


async def test_details_show_the_commands_and_the_difference_in_the_xml(app_on: App, simulated: Host):
    app = app_on(simulated)
    async with running(app) as pilot:
        before, after = "<domain>\n  <title>old</title>\n</domain>", "<domain>\n  <title>new</title>\n</domain>"
        steps = (Step("x", "Change it", commands=("virsh edit --domain web-01",)),)
        app.push_screen(PlanScreen([plan("Change web-01", steps=steps, xml_before=before, xml_after=after)]))
        await on_screen(pilot, PlanScreen)
        assert "virsh" not in picture(pilot)
        assert "<title>new</title>" in picture(pilot)  # who edits XML wants to see the difference at once
        await pilot.press("d")
        await pilot.pause()
        shown = picture(pilot)
        assert "virsh edit --domain web-01" in shown
        assert "-   <title>old</title>" in shown
        assert "+   <title>new</title>" in shown
        await pilot.press("d")
        await pilot.pause()
        assert "virsh" not in picture(pilot)


@SIZES
async def test_a_plan_longer_than_the_screen_scrolls_between_its_title_and_its_keys(
    app_on: App, simulated: Host, size: tuple[int, int]
):
    app = app_on(simulated)
    async with running(app, size) as pilot:
        steps = tuple(Step("x", f"Step number {number}") for number in range(1, 101))
        app.push_screen(PlanScreen([plan("A long one", steps=steps, vm_name="web", danger=Danger.DESTRUCTIVE)]))
        await on_screen(pilot, PlanScreen)
        first = picture(pilot)
        assert "A long one" in first
        assert "Step number 1 " in first
        assert "type web to do it:" in first
        assert "↑↓ scroll" in first
        assert "Step number 100" not in first
        await pilot.press("tab", "end")
        await pilot.pause()
        last = picture(pilot)
        assert "A long one" in last
        assert "Step number 100" in last
        assert "same as" in last
        assert "esc back" in last
        await pilot.press("k", "pageup", "j")
        await pilot.pause()
        assert "Step number 100" not in picture(pilot)


@SIZES
@HOSTILE
async def test_hostile_names_are_harmless_in_the_dialog(app_on: App, simulated: Host, name: str, size: tuple[int, int]):
    app = app_on(simulated)
    async with running(app, size) as pilot:
        await go_to(pilot, name)
        target = vm(app, name)
        await pilot.press("O" if target.is_active else "D")
        await on_screen(pilot, PlanScreen)
        shown = picture(pilot)
        await pilot.press("tab", "d")
        await pilot.pause()
        assert "virsh" in picture(pilot)
        await pilot.press("escape")
        await pilot.pause()
        if name.startswith("[red]"):
            assert name in shown


def test_the_title_says_what_is_done_to_how_many():
    plans = [plan(f"Start {name}", command=("vm", "start", name), vm_name=name) for name in ("a", "b c")]
    other = plan("Stop d", command=("vm", "stop", "d"), vm_name="d")
    assert plan_text.title_of([*plans, other]) == "3 changes"
    assert plan_text.title_of(plans) == "Start 2 VMs"
    blocked = plan("Start e", command=("vm", "start", "e"), vm_name="e", blockers=(Blocker("it runs"),))
    assert plan_text.title_of([plans[0], blocked]) == "Start a"


def test_what_all_plans_lose_is_said_once():
    plans = [
        plan(f"Off {name}", vm_name=name, warnings=("like pulling the plug", f"{name} is busy")) for name in ("a", "b")
    ]
    shown = text(plan_text.plans_rows(plans))
    assert shown.count("like pulling the plug") == 1
    assert "a is busy" in shown
    assert "b is busy" in shown


def test_the_details_of_many_plans_number_their_steps_through_and_leave_blocked_ones_out():
    plans = [
        plan(vm_name=name, blockers=blockers, steps=(Step("x", f"Stop {name}"), Step("x", f"Remove {name}")))
        for name, blockers in (("a", ()), ("b", (Blocker("it sleeps"),)), ("c", ()))
    ]
    lines = [line.split() for line in text(plan_text.details_rows(plans)).splitlines() if line.strip()]
    assert lines == [["1", "Stop", "a"], ["2", "Remove", "a"], ["3", "Stop", "c"], ["4", "Remove", "c"]]
    assert text(plan_text.details_rows([plans[1]])).split() == ["1", "Stop", "b", "2", "Remove", "b"]


def test_keys_that_do_not_fit_are_left_out_as_a_whole_but_never_the_way_out():
    hints = [("enter", "do it"), ("d", "details"), ("y", "copy command"), ("esc", "back")]
    assert plan_text.fitting(hints, 80) == hints
    assert plan_text.fitting(hints, 40) == [hints[0], hints[1], hints[3]]
    assert plan_text.fitting(hints, 3) == [hints[3]]


def test_a_name_that_nobody_can_type_is_confirmed_with_a_plain_word():
    def typed(*names: str) -> str | None:
        return plan_text.typed_confirmation([plan(vm_name=name, danger=Danger.DESTRUCTIVE) for name in names])

    assert typed("web-01") == "web-01"
    assert [typed(name) for name in HOSTILE_NAMES[1:3]] == ["yes", "yes"]
    assert typed(HOSTILE_NAMES[4]) == "yes"
    assert typed("a", "b", "c") == f"{plan().title.split()[0].lower()} 3"
    assert plan_text.typed_confirmation([plan(danger=Danger.DISRUPTIVE)]) is None


def test_a_blocked_plan_says_what_it_would_do_but_offers_no_way_to_do_it():
    catalogue.load()
    blocked = plan(blockers=(Blocker("it sleeps", "Wake it", "vm.resume"), Blocker("no space", "Buy a disk")))
    lines = text(plan_text.plan_rows(blocked)).splitlines()
    assert [line.strip() for line in lines[:5]] == [
        "×  it sleeps", "Wake it", "P  resume", "×  no space", "Buy a disk",
    ]  # fmt: skip
    assert "What it would do after that:" in "\n".join(lines)


def test_every_action_that_removes_a_blocker_is_known(simulated: Host):
    """The service layer names actions by id: each must lead to a key or a name for the : line."""
    catalogue.load()
    named = set()
    for each in inventory.read_configs(simulated, inventory.read(simulated)):
        for function in lifecycle.__dict__.values():
            if callable(function) and getattr(function, "__name__", "").startswith("plan_"):
                arguments = {"enabled": True} if function is lifecycle.plan_autostart else {}
                named |= {b.action_id for b in function(simulated, each, **arguments).blockers}
        named |= {b.action_id for b in settings.plan_rename(simulated, each, "free-name").blockers}
    assert len(named - {None}) >= 4
    for action_id in named - {None}:
        action = plan_text.remover(Blocker("x", action_id=action_id))
        assert action is not None, action_id
        assert keymap.shown_key(action) or action.title


async def test_the_disks_dialog_leads_to_the_plan(app_on: App, simulated: Host):
    app = app_on(simulated)
    async with running(app) as pilot:
        await go_to(pilot, "build-07")
        await pilot.press("D")
        await on_screen(pilot, DeleteScreen)
        await pilot.press("enter")
        await on_screen(pilot, PlanScreen)
        assert "kept  the disk /img/build-07.qcow2" in picture(pilot)


async def test_a_remedy_is_for_the_blocked_vms_only_and_leads_back(app_on: App, simulated: Host, journal: Journal):
    app = app_on(simulated)
    async with running(app, (120, 40)) as pilot:
        for name in ("web-02", "files", "db-01"):
            app.screen.go_to_vm(vm(app, name).uuid)  # type: ignore[attr-defined]
            await pilot.press("space")
        await pilot.press("S")
        await on_screen(pilot, PlanScreen)
        shown = picture(pilot)
        assert "1 of 3 cannot be done" in shown
        assert "P resume db-01" in shown
        await pilot.press("P")
        await until(pilot, lambda: [job.title for job in journal.jobs()] == ["Resume db-01"])
        await until(pilot, lambda: isinstance(app.screen, PlanScreen) and len(app.screen.runnable) == 3)
        assert vm(app, "web-02").state.value == "running"
        await pilot.press("enter")
        await until(pilot, lambda: not any(vm(app, name).is_active for name in ("web-02", "files", "db-01")))


async def test_who_does_not_want_the_remedy_comes_back_to_the_plans(app_on: App, simulated: Host, journal: Journal):
    app = app_on(simulated)
    async with running(app) as pilot:
        await go_to(pilot, "web-02")
        await pilot.press("r")
        await on_screen(pilot, PromptScreen)
        await pilot.press("x", "enter")
        await on_screen(pilot, PlanScreen)
        await pilot.press("S")
        await until(pilot, lambda: isinstance(app.screen, PlanScreen) and app.screen.plans[0].command[1] == "stop")
        await pilot.press("escape")
        await until(pilot, lambda: isinstance(app.screen, PlanScreen) and app.screen.plans[0].command[1] == "rename")
        await pilot.press("escape")
        await pilot.pause()
        assert not isinstance(app.screen, PlanScreen)
        assert journal.jobs() == ()


async def test_a_bulk_action_tells_whom_it_leaves_out(app_on: App, simulated: Host):
    app = app_on(simulated)
    async with running(app, (120, 40)) as pilot:
        for name in ("web-02", "files", "build-07", "build-08"):
            app.screen.go_to_vm(vm(app, name).uuid)  # type: ignore[attr-defined]
            await pilot.press("space")
        await pilot.press("S")
        await on_screen(pilot, PlanScreen)
        assert "2 left out: 1 off, 1 saved" in picture(pilot)
        await pilot.press("escape")
        await on_screen(pilot, FleetScreen)
        await pilot.press("s")
        await until(pilot, lambda: "started 2 VMs" in status(pilot) and "2 left out: 2 running" in status(pilot))


async def test_the_status_line_says_which_of_two_things_was_done(app_on: App, simulated: Host):
    app = app_on(simulated)
    async with running(app, (100, 30)) as pilot:
        await go_to(pilot, "web-02")
        await pilot.press("P")
        await on_screen(pilot, PlanScreen)
        await pilot.press("enter")
        await until(pilot, lambda: "paused web-02 · job" in status(pilot))
        await until(pilot, lambda: vm(app, "web-02").state.value == "paused")
        await pilot.press("P")
        await until(pilot, lambda: "resumed web-02 · job" in status(pilot))
        wanted = "off" if vm(app, "web-02").autostart else "on"
        await pilot.press("a")
        await until(pilot, lambda: f"autostart {wanted}: web-02 · job" in status(pilot))


async def test_the_plans_of_a_bulk_action_are_in_the_order_of_the_rows(app_on: App, simulated: Host):
    app = app_on(simulated)
    async with running(app, (120, 40)) as pilot:
        await pilot.press("1", "asterisk", "S")  # by name, the other way round
        dialog = await on_screen(pilot, PlanScreen)
        fleet = app.screen_stack[1]
        assert isinstance(fleet, FleetScreen)
        rows = [each.name for each in fleet.grid.shown if each.is_active]
        assert [plan.vm_name for plan in dialog.plans] == rows
        assert rows != [each.name for each in app.snapshot.vms if each.is_active]  # type: ignore[union-attr]
