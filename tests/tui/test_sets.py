"""Sets of jobs in the terminal interface: their dialog, their row and its members, the status line, the keys."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from textual.pilot import Pilot

from host import job_sets, jobs, runner
from host.connection import Host, open_host
from host.job_model import Job, JobSet, JobState, StepState
from host.journal import Journal
from host.plan import Blocker, Plan, PlanSet
from hvtui.tui import bridge, catalogue, job_text
from hvtui.tui.app import HvtuiApp
from hvtui.tui.screens.fleet import FleetScreen
from hvtui.tui.screens.jobs import JobsScreen
from hvtui.tui.screens.plan import PlanScreen, PlanSetScreen
from hvtui.tui.widgets.page import Page
from tests.support import fake_verbs
from tests.support.fake_verbs import make_step, plan_of
from tests.support.waiting import wait_for
from tests.tui import scenes
from tests.tui.conftest import until
from tests.tui.driving import HOSTILE, SIZES, app_of, on_screen, picture, running, status

App = Callable[..., HvtuiApp]
WORKER = (sys.executable, "-m", "tests.support.job_worker", "set")


def names(count: int) -> list[str]:
    return [f"web-{number:02}" for number in range(1, count + 1)]


def making(work: Path, uri: str, name: str, **args: str) -> Plan:
    steps = [make_step(work / f"{name}-disk"), make_step(work / name, **args)]
    return plan_of(steps, vm=name, title=f"Make {name}", uri=uri)


def set_of(work: Path, uri: str, count: int = 3, failing: str = "", **rest: object) -> PlanSet:
    plans = [making(work, uri, name, **({"fail": "no space"} if name == failing else {})) for name in names(count)]
    values: dict[str, object] = {"title": "Deploy web-*", "plans": tuple(plans), "command": ("vm", "deploy", "web-*")}
    return PlanSet(**(values | rest))  # type: ignore[arg-type]


def base(work: Path, uri: str) -> tuple[Plan, ...]:
    return (plan_of([make_step(work / "base")], vm=None, title="Make the base", uri=uri),)


def pause(work: Path, *paused: str) -> None:
    for name in paused:
        (work / f"{name}.pause").touch()


def go_on(work: Path, *paused: str) -> None:
    for name in paused:
        (work / f"{name}.pause").unlink()


def done_set(plan_set: PlanSet, host: Host, journal: Journal) -> tuple[Job, ...]:
    """The jobs of a set that was run to its end."""
    set_id = job_sets.create(plan_set, journal)[0].id
    return job_sets.run_set(set_id, host, journal)


async def open_jobs(pilot: Pilot[None]) -> JobsScreen:
    await pilot.press("J")
    screen = await on_screen(pilot, JobsScreen)
    await until(pilot, lambda: len(app_of(pilot).jobs) == len(app_of(pilot).services.journal.jobs()))
    return screen


def detail(pilot: Pilot[None]) -> str:
    return " ".join(pilot.app.screen.query_one("#text", Page).plain.split())


def states(journal: Journal) -> list[str]:
    return [job.state.value for job in journal.members(1)]


@SIZES
async def test_the_dialog_shows_a_set_as_one_thing(app_on: App, simulated: Host, tmp_path: Path, size: tuple[int, int]):
    app = app_on(simulated)
    uri = simulated.uri
    plan_set = set_of(tmp_path, uri, 20, preparations=base(tmp_path, uri), warnings=("more than there is",))
    slow = tuple(replace(plan, warnings=("slow",)) for plan in plan_set.plans[:2])
    async with running(app, size) as pilot:
        app.run_worker(app.propose_set(replace(plan_set, plans=(*slow, *plan_set.plans[2:]))))
        await on_screen(pilot, PlanSetScreen)
        shown = picture(pilot)
        assert "Deploy web-*" in shown
        assert "!  more than there is" in shown
        assert "!  web-01, web-02: slow" in shown
        assert "first: Make the base" in shown
        assert "20 VMs, a few at a time: Make web-01" in shown
        assert "2  Make web-01" in shown
        assert "and 19 more like it: web-02, web-03" in shown
        assert "same as" in shown
        assert "Make web-07" not in shown
        await pilot.press("d")
        await pilot.pause()
        assert "Make web-07" in detail(pilot)
        await pilot.press("y")
        assert app.clipboard == "hvtui --headless vm deploy 'web-*'"
        await pilot.press("escape")
        await on_screen(pilot, FleetScreen)
        assert app.services.journal.jobs() == ()


@SIZES
async def test_a_blocked_set_names_the_vms_and_cannot_be_run(
    app_on: App, simulated: Host, tmp_path: Path, size: tuple[int, int]
):
    app = app_on(simulated)
    plan_set = set_of(tmp_path, simulated.uri)
    taken = [replace(plan, blockers=(Blocker("its name is taken", "Choose another"),)) for plan in plan_set.plans[1:]]
    async with running(app, size) as pilot:
        app.run_worker(app.propose_set(replace(plan_set, plans=(plan_set.plans[0], *taken))))
        await on_screen(pilot, PlanSetScreen)
        shown = picture(pilot)
        assert "×  web-02, web-03: its name is taken" in shown
        assert "Choose another" in shown
        assert "enter do it" not in shown
        await pilot.press("enter")
        assert isinstance(app.screen, PlanSetScreen)
        assert app.services.journal.jobs() == ()


async def test_an_accepted_set_runs_and_its_end_is_said(app_on: App, simulated: Host, journal: Journal, tmp_path: Path):
    app = app_on(simulated)
    results: list[bool] = []

    async def propose() -> None:
        results.append(await app.propose_set(set_of(tmp_path, simulated.uri), done="deployed"))

    async with running(app) as pilot:
        app.run_worker(propose())
        await on_screen(pilot, PlanSetScreen)
        await pilot.press("enter")
        await until(pilot, lambda: "deployed 3 VMs · set 1" in status(pilot))
        assert results == [True]
        assert states(journal) == ["done"] * 3
        assert app.bridge.running_here == 0


async def test_one_that_fails_is_said_and_the_others_are_done(
    app_on: App, simulated: Host, journal: Journal, tmp_path: Path
):
    app = app_on(simulated)
    async with running(app, (120, 40)) as pilot:
        app.run_worker(app.propose_set(set_of(tmp_path, simulated.uri, failing="web-02"), ask=False))
        await until(pilot, lambda: "1 of 3 failed: web-02: no space · job 2" in status(pilot))
        assert states(journal) == ["done", "failed", "done"]


@SIZES
async def test_a_set_is_one_row_that_opens_to_its_members_and_one_bar(
    app_on: App, simulated: Host, journal: Journal, tmp_path: Path, size: tuple[int, int]
):
    app = app_on(simulated)
    pause(tmp_path, "web-02", "web-03")
    plan_set = set_of(tmp_path, simulated.uri, preparations=base(tmp_path, simulated.uri))
    async with running(app, size) as pilot:
        app.run_worker(app.propose_set(plan_set, ask=False))
        await until(pilot, lambda: "set 1  Deploy web-*   1 of 3" in status(pilot))
        assert "▓" in status(pilot)
        await open_jobs(pilot)
        await until(pilot, lambda: JobSet(journal.members(1)).counts[JobState.RUNNING] == 2)
        await until(pilot, lambda: "1 of 3  ▓" in picture(pilot))
        shown = picture(pilot)
        assert "→ Deploy web-*" in shown
        assert "Make web-03" not in shown.split("Deploy web-*")[0]
        assert "running 1/3 done" in detail(pilot)
        assert "✓ Make the base" in detail(pilot)
        assert "◐ web-02 2 of 2 Make web-02 50% half" in detail(pilot)
        await pilot.press("enter")
        await pilot.pause()
        lines = picture(pilot).splitlines()
        assert any("↓ Deploy web-*" in line for line in lines)
        members = [line for line in lines if line.startswith(("    2  ", "    3  ", "    4  "))]
        assert ["✓" in line for line in members] == [True, False, False]
        await pilot.press("j", "j", "j")
        await pilot.pause()
        screen = app.screen
        assert isinstance(screen, JobsScreen)
        assert screen.selected is not None
        assert screen.selected.vm_name == "web-02"
        assert "◐ Make web-02" in detail(pilot)
        await pilot.press("escape")
        await pilot.pause()
        assert screen.selected_set is not None
        assert "→ Deploy web-*" in picture(pilot)
        go_on(tmp_path, "web-02", "web-03")
        await until(pilot, lambda: "3 of 3" in picture(pilot))
        await until(pilot, lambda: "✓ done" in picture(pilot))
        await pilot.press("escape")
        await on_screen(pilot, FleetScreen)


@SIZES
async def test_x_on_a_set_cancels_what_is_not_over_and_r_completes_it(
    app_on: App, simulated: Host, journal: Journal, tmp_path: Path, size: tuple[int, int]
):
    app = app_on(simulated)
    pause(tmp_path, *names(6)[1:])
    async with running(app, size) as pilot:
        app.run_worker(app.propose_set(set_of(tmp_path, simulated.uri, 6), ask=False))
        await until(pilot, lambda: sum((tmp_path / f"{name}.paused").exists() for name in names(6)) == 4)
        await open_jobs(pilot)
        await pilot.press("x")
        await on_screen(pilot, PlanScreen)
        assert "Cancel set 1: Deploy web-*" in picture(pilot)
        assert "kept what is done: web-01" in detail(pilot)
        assert "Do not begin the 1 that wait" in detail(pilot)
        await pilot.press("enter")
        await until(pilot, lambda: states(journal) == ["done"] + ["cancelled"] * 5)
        await until(pilot, lambda: "1 of 6" in picture(pilot) and "– cancelled" in picture(pilot))
        go_on(tmp_path, *names(6)[1:])
        await until(pilot, lambda: app.bridge.running_here == 0)
        await pilot.press("R")
        await on_screen(pilot, PlanScreen)
        assert "Complete set 1: Deploy web-*" in picture(pilot)
        assert "Make web-02" in detail(pilot)
        assert "Make web-01" not in detail(pilot)
        await pilot.press("enter")
        await until(pilot, lambda: states(journal) == ["done"] * 6)
        await until(pilot, lambda: "done: 6 VMs · set 1" in status(pilot))
        await pilot.press("R")
        await until(pilot, lambda: "restart: set 1 is done" in status(pilot))


@SIZES
async def test_b_on_a_set_takes_back_what_its_members_left(
    app_on: App, simulated: Host, journal: Journal, tmp_path: Path, size: tuple[int, int]
):
    created = job_sets.create(set_of(tmp_path, simulated.uri, failing="web-02"), journal, keep_failed=True)
    job_sets.run_set(created[0].id, simulated, journal)
    async with running(app_on(simulated), size) as pilot:
        await open_jobs(pilot)
        assert "× failed" in picture(pilot)
        assert "web-02: no space" in detail(pilot)
        assert "R restart: run all of it that is not done" in detail(pilot)
        assert "b roll back: take back what was left halfway" in detail(pilot)
        await pilot.press("b")
        await on_screen(pilot, PlanScreen)
        await pilot.press(*"web-02", "enter")
        await until(pilot, lambda: states(journal) == ["done", "rolled back", "done"])
        await until(pilot, lambda: "rolled back web-02 · set 1" in status(pilot))
        assert not (tmp_path / "web-02-disk").exists()


async def test_u_on_a_set_takes_back_every_vm_that_is_done(
    app_on: App, simulated: Host, journal: Journal, tmp_path: Path
):
    done_set(set_of(tmp_path, simulated.uri, 2, preparations=base(tmp_path, simulated.uri)), simulated, journal)
    async with running(app_on(simulated)) as pilot:
        await open_jobs(pilot)
        await pilot.press("u")
        await on_screen(pilot, PlanScreen)
        await pilot.press(*"undo 2", "enter")
        await until(pilot, lambda: not (tmp_path / "web-01").exists() and not (tmp_path / "web-02").exists())
        await until(pilot, lambda: "← undone" in picture(pilot))
        assert (tmp_path / "base").exists()
        screen = pilot.app.screen
        assert isinstance(screen, JobsScreen)
        await until(pilot, lambda: screen.selected_set is not None)
        await pilot.press("u")
        await until(pilot, lambda: "nothing of it is done, or all was taken back" in status(pilot))


async def test_the_keys_on_a_member_mean_that_member_alone(
    app_on: App, simulated: Host, journal: Journal, tmp_path: Path
):
    done_set(set_of(tmp_path, simulated.uri, failing="web-02"), simulated, journal)
    async with running(app_on(simulated)) as pilot:
        await open_jobs(pilot)
        await pilot.press("enter", "j", "j", "R")
        await on_screen(pilot, PlanScreen)
        assert "Restart job 2: Make web-02" in picture(pilot)
        await pilot.press("escape", "k", "u")
        await on_screen(pilot, PlanScreen)
        assert "Undo job 1: Make web-01" in picture(pilot)


async def test_a_set_whose_runner_was_killed_stands_out_and_r_completes_it(
    app_on: App, journal: Journal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, simulated: Host
):
    monkeypatch.setattr(runner, "SET_PROGRAM", WORKER)
    elsewhere = open_host(fake_verbs.URI)  # a host whose jobs get a process of their own
    pause(tmp_path, "web-02")
    app = app_on(simulated)
    async with running(app, (120, 40)) as pilot:
        job_sets.start_detached_set(set_of(tmp_path, elsewhere.uri), elsewhere, journal)
        wait_for((tmp_path / "web-02.paused").exists)
        await until(pilot, lambda: "set 1  Deploy web-*" in status(pilot))  # of another process
        os.kill(int(journal._claim_of(2).split(" ")[1]), signal.SIGKILL)
        await open_jobs(pilot)
        await until(pilot, lambda: "! interrupted" in picture(pilot))
        assert "R restart" in picture(pilot)
        go_on(tmp_path, "web-02")
        app.bridge._services = replace(app.services, host=elsewhere)
        await pilot.press("R")
        await on_screen(pilot, PlanScreen)
        await pilot.press("enter")
        await until(pilot, lambda: states(journal) == ["done"] * 3, 30)
        await until(pilot, lambda: "done: 3 VMs · set 1" in status(pilot))


async def test_a_set_that_a_busy_vm_keeps_from_beginning_is_told(
    app_on: App, simulated: Host, journal: Journal, tmp_path: Path
):
    holder = jobs.create(making(tmp_path, simulated.uri, "web-02"), journal)
    app = app_on(simulated)
    async with running(app, (120, 40)) as pilot:
        app._work(app.propose_set(set_of(tmp_path, simulated.uri), ask=False))
        await until(pilot, lambda: f"web-02: job {holder.id}" in status(pilot))
        assert journal.jobs() == (holder,)


async def test_a_set_that_the_limit_of_shown_jobs_cuts_is_shown_whole(
    app_on: App, simulated: Host, journal: Journal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(bridge, "JOBS_SHOWN", 2)
    done_set(set_of(tmp_path, simulated.uri, 4), simulated, journal)
    app = app_on(simulated)
    async with running(app) as pilot:
        await until(pilot, lambda: [job.id for job in app.jobs] == [4, 3, 2, 1])
        await pilot.press("J")
        await on_screen(pilot, JobsScreen)
        await until(pilot, lambda: "4 of 4" in picture(pilot))


@SIZES
@HOSTILE
async def test_hostile_text_in_a_set_is_harmless(name: str, size: tuple[int, int]):
    members = tuple(
        replace(
            job, id=300 + place, set_id=300, set_title=name, set_command=("vm", name), title=name, vm_name=name,
            error=name, user=name, steps=tuple(replace(step, title=name, note=name) for step in job.steps),
        )
        for place, job in enumerate(scenes.jobs()[:3])
    )  # fmt: skip
    app = scenes.still_app(shown_jobs=tuple(reversed(members)))
    async with app.run_test(size=size) as pilot:
        await until(pilot, lambda: bool(app.jobs))
        picture(pilot)
        await pilot.press("J")
        await on_screen(pilot, JobsScreen)
        picture(pilot)
        await pilot.press("enter")
        await pilot.pause()
        picture(pilot)
        await pilot.press("R" if JobSet(members).state.is_over else "x")
        await on_screen(pilot, PlanScreen)
        picture(pilot)


@SIZES
@HOSTILE
async def test_hostile_names_in_the_dialog_of_a_set_are_harmless(
    app_on: App, simulated: Host, tmp_path: Path, name: str, size: tuple[int, int]
):
    app = app_on(simulated)
    plan_set = set_of(tmp_path, simulated.uri)
    bad = tuple(replace(plan, vm_name=name, title=name, warnings=(name,)) for plan in plan_set.plans)
    async with running(app, size) as pilot:
        app.run_worker(app.propose_set(PlanSet(name, bad, ("vm", name), warnings=(name,))))
        await on_screen(pilot, PlanSetScreen)
        picture(pilot)
        await pilot.press("d")
        await pilot.pause()
        picture(pilot)


def test_the_line_of_a_set_is_exactly_as_wide_as_asked_for():
    catalogue.load()
    for states_of in ((JobState.RUNNING, JobState.QUEUED), (JobState.DONE, JobState.FAILED), (JobState.DONE,) * 2):
        members = tuple(
            replace(job, id=300 + place, set_id=300, set_title="Deploy web-*", state=state)
            for place, (job, state) in enumerate(zip(scenes.jobs(), states_of, strict=False))
        )
        for width in (60, 78, 118):
            for is_open in (False, True):
                line = job_text.set_line(JobSet(members), width=width, now=scenes.NOW, is_open=is_open)
                assert line.cell_length == width, line.plain


def test_the_bar_of_a_set_tells_the_steps_of_all_its_members():
    job = scenes.jobs()[0]
    half = tuple(
        replace(step, state=StepState.DONE if step.index < len(job.steps) // 2 else StepState.PENDING)
        for step in job.steps
    )
    queued = replace(job, state=JobState.QUEUED, steps=tuple(replace(s, state=StepState.PENDING) for s in job.steps))
    members = (replace(job, state=JobState.RUNNING, steps=half), queued)
    assert JobSet(members).progress == pytest.approx((len(job.steps) // 2) / (2 * len(job.steps)))
