"""u in the list: the last job of the VM under the cursor, all of its set, or the last one of all."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from textual.pilot import Pilot

from host import jobs
from host.connection import Host
from host.journal import Journal
from hvtui.tui.app import HvtuiApp
from hvtui.tui.screens.choice import ChoiceScreen
from hvtui.tui.screens.plan import PlanScreen
from tests.support import fake_library
from tests.support.fake_library import TINY
from tests.tui.conftest import until
from tests.tui.driving import SIZES, go_to, on_screen, picture, running, status
from tests.tui.driving import vm as vm_of
from vm import deploy, inventory, settings
from vm.deploy_request import DeployRequest
from vm.profile_model import GuestProfile, HardwareProfile

App = Callable[..., HvtuiApp]
WEB = ("web-01", "web-02", "web-03")


@pytest.fixture
def host(open_world: Callable[[str], Host], monkeypatch: pytest.MonkeyPatch, journal: Journal) -> Host:
    """A host with old-shop, and three VMs that one deployment made."""
    from host import job_sets

    fake_library.install(monkeypatch, TINY)
    opened = fake_library.furnished(open_world)
    made = deploy.plan_deploy(opened, DeployRequest("tiny", WEB, HardwareProfile(), GuestProfile(), start=False))
    created = job_sets.create(made, journal)
    ended = job_sets.run_set(created[0].set_id or 0, opened, journal)
    assert {job.error for job in ended} == {""}
    return opened


def tag(host: Host, journal: Journal, name: str) -> None:
    vm = inventory.find(host, name)
    (vm,) = inventory.read_configs(host, (vm,))
    assert jobs.submit(settings.plan_set(host, vm, {"title": f"title of {name}"}), host, journal).error == ""


def flat(pilot: Pilot[None]) -> str:
    return " ".join(picture(pilot).replace("│", " ").split())


async def jobs_read(pilot: Pilot[None], app: HvtuiApp, journal: Journal) -> None:
    await until(pilot, lambda: app.jobs == journal.jobs() and all(job.state.is_over for job in app.jobs))


@SIZES
async def test_of_a_member_of_a_set_only_it_or_the_whole_set_is_taken_back(
    app_on: App, host: Host, journal: Journal, size: tuple[int, int]
):
    app = app_on(host)
    async with running(app, size) as pilot:
        await jobs_read(pilot, app, journal)
        await go_to(pilot, "web-02")
        await pilot.press("u")
        await on_screen(pilot, ChoiceScreen)
        assert "▶ only web-02 job 2: Deploy web-02" in flat(pilot)
        assert "all 3 of the set set 1:" in flat(pilot)
        assert "the last of all" not in flat(pilot)
        await pilot.press("enter")
        dialog = await on_screen(pilot, PlanScreen)
        assert [plan.vm_name for plan in dialog.plans] == ["web-02"]
        await pilot.press("escape")
        await until(pilot, lambda: not isinstance(app.screen, PlanScreen))
        await pilot.press("u")
        await on_screen(pilot, ChoiceScreen)
        await pilot.press("down", "enter")
        dialog = await on_screen(pilot, PlanScreen)
        assert sorted(plan.vm_name or "" for plan in dialog.plans) == list(WEB)
        await pilot.press(*(dialog.must_type or ""), "enter")
        await until(pilot, lambda: app.snapshot is not None and {vm.name for vm in app.snapshot.vms} == {"old-shop"})
        await until(pilot, lambda: "took back" in status(pilot))


async def test_another_vms_newer_job_is_offered_besides(app_on: App, host: Host, journal: Journal):
    tag(host, journal, "web-01")
    tag(host, journal, "old-shop")
    app = app_on(host)
    async with running(app) as pilot:
        await jobs_read(pilot, app, journal)
        await go_to(pilot, "web-01")
        await pilot.press("u")
        await on_screen(pilot, ChoiceScreen)
        assert "▶ web-01 job 4" in flat(pilot)
        assert "the last of all job 5: " in flat(pilot)
        await pilot.press("enter")
        await on_screen(pilot, PlanScreen)
        await pilot.press("enter")
        await until(pilot, lambda: (config := vm_of(app, "web-01").config) is not None and not config.title)
        await jobs_read(pilot, app, journal)
        config = vm_of(app, "old-shop").config
        assert config is not None
        assert config.title == "title of old-shop"
        await go_to(pilot, "old-shop")
        await pilot.press("u")
        await on_screen(pilot, PlanScreen)  # it is the last of all, too: nothing to choose
        await pilot.press("enter")
        await until(pilot, lambda: (config := vm_of(app, "old-shop").config) is not None and not config.title)


async def test_of_several_marked_vms_the_last_job_of_each_is_taken_back(app_on: App, host: Host, journal: Journal):
    tag(host, journal, "web-01")
    app = app_on(host)
    async with running(app) as pilot:
        await jobs_read(pilot, app, journal)
        await pilot.press("asterisk", "u")
        dialog = await on_screen(pilot, PlanScreen)
        assert {plan.vm_name: plan.undoes_job for plan in dialog.plans} == {"web-01": 4, "web-02": 2, "web-03": 3}
        assert "1 left out: nothing of theirs can be taken back" in flat(pilot)
