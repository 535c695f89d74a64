"""VMs that a job holds: a plan says which job it is before it is accepted, and a waiting shutdown gives way to force
off."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest
from textual.pilot import Pilot

from host import jobs
from host.connection import Host
from host.job_model import JobState, StepState
from host.journal import Journal
from hvtui import holders
from hvtui.tui.app import HvtuiApp
from hvtui.tui.job_text import job_rows
from hvtui.tui.screens.fleet import FleetScreen
from hvtui.tui.screens.plan import PlanScreen
from hvtui.tui.widgets.footer import job_spans
from hvtui.tui.widgets.page import hanging
from tests.support.fake_verbs import make_step, plan_of
from tests.tui import scenes
from tests.tui.conftest import until
from tests.tui.driving import app_of, go_to, on_screen, picture, running, status, vm
from vm import inventory, lifecycle, lifecycle_steps

App = Callable[..., HvtuiApp]


@pytest.fixture
def deaf(monkeypatch: pytest.MonkeyPatch) -> None:
    """Guests hear no request to shut down."""
    silent = replace(lifecycle_steps._SHUTDOWN, agent=_nothing, acpi=_nothing, plain=_nothing)
    monkeypatch.setattr(lifecycle_steps, "_SHUTDOWN", silent)


def _nothing(_domain: Any) -> None:
    return None


@pytest.fixture
def waiting(simulated: Host, journal: Journal, deaf: None) -> Iterator[int]:
    """The job of another process that waits for the guest of web-02 to shut down."""
    plan = lifecycle.plan_stop(simulated, inventory.find(simulated, "web-02"))
    with Journal(journal.path) as other:
        job = jobs.create(plan, other)
        runner = threading.Thread(target=jobs.run, args=(job.id, simulated, other))
        runner.start()
        yield job.id
        if not other.job(job.id).state.is_over:
            jobs.cancel(job.id, other)
        runner.join()


@asynccontextmanager
async def on_web_02(app: HvtuiApp, key: str) -> AsyncIterator[Pilot[None]]:
    async with running(app) as pilot:
        await until(pilot, lambda: " of 120 s" in status(pilot))
        await go_to(pilot, "web-02")
        await pilot.press(key)
        await on_screen(pilot, PlanScreen)
        yield pilot


async def test_a_second_shutdown_says_at_once_which_job_waits_and_offers_force_off(
    app_on: App, simulated: Host, journal: Journal, waiting: int
):
    app = app_on(simulated)
    async with on_web_02(app, "S") as pilot:
        told = " ".join(picture(pilot).split())
        assert f"× job {waiting} (Shut down web-02) of" in told
        assert " of 120 s" in told.partition("Shut down web-02) of")[2]
        assert f"Wait for it with J (job {waiting}), or stop it with x" in told
        assert "O force off" in told
        assert "enter do it" not in told
        await pilot.press("O")
        await until(pilot, lambda: isinstance(app.screen, PlanScreen) and app.screen.plans[0].command[1] == "off")
        assert f"! job {waiting} (Shut down web-02) only waits" in " ".join(picture(pilot).split())
        await pilot.press("escape")
        await until(pilot, lambda: isinstance(app.screen, PlanScreen) and app.screen.plans[0].command[1] == "stop")
        assert len(app.screen.plans[0].blockers) == 1  # type: ignore[attr-defined]
        await pilot.press("O")
        await until(pilot, lambda: isinstance(app.screen, PlanScreen) and app.screen.plans[0].command[1] == "off")
        await pilot.press("enter")
        await until(pilot, lambda: not vm(app, "web-02").is_active)
        await until(pilot, lambda: "turned off web-02" in status(pilot))
        assert isinstance(app.screen, FleetScreen)  # it is off: nothing is asked again
    assert [(job.command[1], job.state) for job in journal.jobs()] == [
        ("off", JobState.DONE),
        ("stop", JobState.CANCELLED),
    ]


async def test_force_off_ends_a_waiting_shutdown_first(app_on: App, simulated: Host, journal: Journal, waiting: int):
    async with on_web_02(app_on(simulated), "O") as pilot:
        await pilot.press("enter")
        await until(pilot, lambda: not vm(app_of(pilot), "web-02").is_active)
    assert journal.job(waiting).state is JobState.CANCELLED


async def test_of_several_vms_only_the_held_ones_are_blocked(app_on: App, simulated: Host, waiting: int):
    app = app_on(simulated)
    async with running(app, (120, 40)) as pilot:
        for name in ("web-02", "files"):
            await go_to(pilot, name) if name == "web-02" else app.screen.go_to_vm(vm(app, name).uuid)  # type: ignore[attr-defined]
            await pilot.press("space")
        await pilot.press("S")
        dialog = await on_screen(pilot, PlanScreen)
        assert [plan.vm_name for plan in dialog.runnable] == ["files"]
        assert f"job {waiting} (Shut down web-02)" in picture(pilot)
        assert "O force off web-02" in picture(pilot)


def test_only_a_shutdown_gives_way_and_only_to_off(simulated: Host, journal: Journal):
    found = inventory.find(simulated, "web-02")
    off, stop, pause = (
        make(simulated, found) for make in (lifecycle.plan_off, lifecycle.plan_stop, lifecycle.plan_pause)
    )
    shutdown = jobs.create(stop, journal)
    other = replace(shutdown, plan=replace(plan_of([make_step("x")], uri=simulated.uri), vm_uuid=found.uuid))
    assert holders.giving_way([off, pause], [shutdown]) == [shutdown.id]
    assert holders.giving_way([off], [other]) == []
    assert [bool(plan.blockers) for plan in holders.with_holders([off, pause], [shutdown])] == [False, True]
    assert holders.with_holders([pause], [shutdown])[0].blockers[0].action_id is None
    assert holders.with_holders([off, stop], [other])[0].blockers[0].exit_code == 4
    elsewhere = replace(shutdown, host_uri="qemu+ssh://lab2/system")
    assert holders.with_holders([stop], [elsewhere]) == (stop,)


def test_the_job_line_has_room_for_the_note_of_a_step_whose_end_nobody_knows():
    stop = scenes.job(7, JobState.RUNNING, scenes.stop_plan())
    step = replace(stop.steps[0], state=StepState.RUNNING, note="asked ACPI 23 times, 114 of 120 s")
    line = "".join(text for text, _role in job_spans([replace(stop, steps=(step,))], 80))
    assert line.rstrip() == " job 7  Shut down web-01   asked ACPI 23 times, 114 of 120 s"
    details = "\n".join(each.plain for each in hanging(job_rows(replace(stop, steps=(step,)), now=scenes.NOW), 200))
    assert f"{step.title}   asked ACPI 23 times" in details  # "preparing" would say less
    assert "▓" in "".join(text for text, _role in job_spans([scenes.jobs()[0]], 80))
