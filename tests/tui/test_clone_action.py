"""Cloning from the console: the form shows the plan, and the clones are there; u takes the right thing back."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from textual.pilot import Pilot
from textual.widgets import Input

from host.connection import Host
from host.errors import UsageError
from host.journal import Journal
from hvtui.tui import vm_forms
from hvtui.tui.app import HvtuiApp
from hvtui.tui.form_fields import NotYet
from hvtui.tui.screens.choice import ChoiceScreen
from hvtui.tui.screens.plan import PlanScreen, PlanSetScreen
from hvtui.tui.screens.vm_forms import CloneScreen
from hvtui.tui.undo_handlers import choices, concerns
from hvtui.tui.widgets.chooser import Chooser
from hvtui.tui.widgets.page import Page
from tests.support import new_vms, simulated_world
from tests.tui.conftest import until
from tests.tui.driving import SIZES, go_to, names, on_screen, picture, running, status
from tests.tui.driving import vm as vm_of

App = Callable[..., HvtuiApp]
SOURCE = "<volume><name>web.qcow2</name><capacity>1048576</capacity><target><format type='qcow2'/></target></volume>"
DISK = """<disk type='file' device='disk'><driver name='qemu' type='qcow2'/><source file='{path}'/>
<target dev='vda'/></disk>"""


@pytest.fixture
def host(open_world: Callable[[str], Host]) -> Host:
    """A host with the VM bare, which is off and has a disk in the pool default."""
    opened = open_world(new_vms.WORLD.format(body=new_vms.POOL))
    with opened.calls("prepare") as connection:
        path = connection.storagePoolLookupByName("default").createXML(SOURCE, 0).path()
        connection.defineXML(simulated_world.domain("bare", devices=DISK.format(path=path)))
    return opened


def preview(pilot: Pilot[None]) -> str:
    return " ".join(pilot.app.screen.query_one("#plan", Page).plain.split())


def values(**changes: str) -> dict[str, str]:
    return {field.key: field.value for field in vm_forms.CLONE_FIELDS} | changes


def test_a_pattern_and_a_count_make_many_as_the_command_does():
    wish = vm_forms.clone_wish("web", values(name=" twin-{:02} ", count="3", first="7", disks="linked", pool="fast"))
    assert wish.names == ("twin-07", "twin-08", "twin-09")
    assert wish.command == (
        *("vm", "clone", "-n", "3", "--first", "7", "--pool", "fast", "--linked", "web", "twin-{:02}"),
    )
    assert vm_forms.clone_wish("-x", values(name="y")).command == ("vm", "clone", "--", "-x", "y")
    with pytest.raises(NotYet):
        vm_forms.clone_wish("web", values())
    for wrong in (values(name="twin", count="2"), values(name="a{b}"), values(name="{}", count="0")):
        with pytest.raises(UsageError) as caught:
            vm_forms.clone_wish("web", wrong)
        assert caught.value.about in {"name", "how many"}


@SIZES
async def test_a_vm_is_cloned_after_its_plan_was_shown(app_on: App, host: Host, size: tuple[int, int]):
    app = app_on(host)
    async with running(app, size) as pilot:
        await go_to(pilot, "bare")
        await pilot.press("colon", *"clone", "enter")
        form = await on_screen(pilot, CloneScreen)
        assert "Clone bare" in picture(pilot)
        await pilot.press(*"bare")
        await until(pilot, lambda: "there is a VM called bare" in preview(pilot) or "bare is taken" in preview(pilot))
        form.query_one("#name", Input).value = "bare-{}"
        form.query_one("#count", Input).value = "2"
        await until(pilot, lambda: "vm clone -n 2 bare 'bare-{}'" in preview(pilot))
        await pilot.press("ctrl+s")
        await on_screen(pilot, PlanSetScreen)
        await pilot.press("enter")
        await until(pilot, lambda: {"bare", "bare-1", "bare-2"} == names(app))
        await until(pilot, lambda: "cloned 2 VMs · set 1 · u undo" in status(pilot))


async def test_u_after_linked_clones_means_the_clones_and_not_what_was_prepared(
    app_on: App, host: Host, journal: Journal
):
    app = app_on(host)
    async with running(app, (120, 40)) as pilot:
        await go_to(pilot, "bare")
        await pilot.press("colon", *"clone linked", "enter")
        form = await on_screen(pilot, CloneScreen)
        assert form.query_one("#disks", Chooser).value == "linked"
        form.query_one("#name", Input).value = "twin"
        await until(pilot, lambda: "vm clone --linked bare twin" in preview(pilot))
        await pilot.press("ctrl+s")
        await on_screen(pilot, PlanSetScreen)
        await pilot.press("enter")
        await until(pilot, lambda: {"bare", "twin"} == names(app))
        await until(pilot, lambda: "cloned twin · set 1 · u undo" in status(pilot))
        await until(pilot, lambda: app.jobs == journal.jobs() and all(job.state.is_over for job in app.jobs))
        await go_to(pilot, "bare")  # its own disks are those that became the base
        assert concerns(app.jobs[0], vm_of(app, "bare"))
        await pilot.press("u")
        dialog = await on_screen(pilot, PlanScreen)
        assert [plan.undoes_job for plan in dialog.plans] == [app.jobs[0].id]
        await pilot.press("escape")
        await until(pilot, lambda: not isinstance(app.screen, PlanScreen))
        await pilot.press("colon", *"clone linked", "enter")
        form = await on_screen(pilot, CloneScreen)
        form.query_one("#name", Input).value = "more-{}"
        form.query_one("#count", Input).value = "2"
        await until(pilot, lambda: "more-{}" in preview(pilot))
        await pilot.press("ctrl+s")
        await on_screen(pilot, PlanSetScreen)
        await pilot.press("enter")
        await until(pilot, lambda: {"bare", "twin", "more-1", "more-2"} == names(app))
        await until(pilot, lambda: app.jobs == journal.jobs() and all(job.state.is_over for job in app.jobs))
        await go_to(pilot, "bare")
        await pilot.press("u")
        await until(pilot, lambda: isinstance(app.screen, PlanScreen | ChoiceScreen))
        assert "Freeze" not in picture(pilot)
        assert isinstance(app.screen, PlanScreen)
        assert sorted(plan.vm_name or "" for plan in app.screen.plans) == ["more-1", "more-2"]


def test_nothing_is_offered_that_was_not_done():
    assert choices(None, (), None) == []
