"""The jobs screen on a real journal and real runs: progress, details, cancel, restart, roll back, undo."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from textual.pilot import Pilot

from host import jobs
from host.connection import Host
from host.job_model import Job, JobState
from host.journal import Journal
from host.plan import Plan, Step
from hvtui.tui import catalogue, job_text
from hvtui.tui.app import HvtuiApp
from hvtui.tui.screens.fleet import FleetScreen
from hvtui.tui.screens.jobs import JobsScreen
from hvtui.tui.screens.plan import PlanScreen
from hvtui.tui.widgets.page import Page, hanging
from tests.support.fake_verbs import make_step, plan_of
from tests.support.simulated_world import HOSTILE_NAMES
from tests.tui import scenes
from tests.tui.conftest import until
from tests.tui.driving import SIZES, app_of, go_to, on_screen, picture, running, status, vm

App = Callable[..., HvtuiApp]


def making(directory: Path, host: Host, *names: str, title: str = "Make it") -> Plan:
    """A plan that makes files, one a step."""
    return plan_of([make_step(directory / name) for name in names], uri=host.uri, title=title)


def interrupted(directory: Path, host: Host, journal: Journal) -> Job:
    """A job that made one file and then lost its connection for good."""
    counter = directory / "counter"
    counter.write_text("3")
    flicker = Step("fake.flicker", "Ask the host", {"path": str(counter)})
    plan = plan_of([make_step(directory / "one"), flicker], uri=host.uri, title="Make and ask")
    job = jobs.submit(plan, host, journal)
    assert job.state is JobState.INTERRUPTED
    return job


async def open_jobs(pilot: Pilot[None]) -> JobsScreen:
    await pilot.press("J")
    screen = await on_screen(pilot, JobsScreen)
    await until(pilot, lambda: app_of(pilot).jobs == tuple(app_of(pilot).services.journal.jobs()))
    return screen


def detail(pilot: Pilot[None]) -> str:
    """The job's details, or the dialog's text, without its line breaks."""
    return " ".join(pilot.app.screen.query_one("#text", Page).plain.split())


async def accept(pilot: Pilot[None]) -> None:
    await on_screen(pilot, PlanScreen)
    await pilot.press("enter")


@SIZES
async def test_an_empty_journal_says_what_will_stand_here(app_on: App, simulated: Host, size: tuple[int, int]):
    async with running(app_on(simulated), size) as pilot:
        await open_jobs(pilot)
        assert "No job yet." in picture(pilot)
        for key in ("x", "R", "b", "u", "enter"):
            await pilot.press(key)
            await pilot.pause()
        assert isinstance(pilot.app.screen, JobsScreen)
        assert "no job is selected" in status(pilot)
        await pilot.press("escape")
        await on_screen(pilot, FleetScreen)


@SIZES
async def test_the_progress_of_a_running_job_moves_and_x_stops_it(
    app_on: App, simulated: Host, journal: Journal, tmp_path: Path, size: tuple[int, int]
):
    app = app_on(simulated)
    pause = tmp_path / "two.pause"
    pause.touch()
    async with running(app, size) as pilot:
        app.run_worker(app.propose([making(tmp_path, simulated, "one", "two", title="Make two files")]))
        await until(pilot, (tmp_path / "two.paused").exists)
        await until(pilot, lambda: "Make two files" in status(pilot))  # also in the list
        await open_jobs(pilot)
        await until(pilot, lambda: app.jobs[0].progress == 0.75)
        await pilot.pause()
        shown = picture(pilot)
        assert "◐ running" in shown
        assert " 75%" in shown
        assert "✓ Make one ◐ Make two ▓▓▓▓▓▓▓░░░░░░░ 50% half" in detail(pilot)
        await pilot.press("x")
        await on_screen(pilot, PlanScreen)
        assert "Ask it to stop" in picture(pilot)
        assert "2 End halfway, and take back what it made so far: Make two 3 Take back: Make one" in detail(pilot)
        await pilot.press("enter")
        await until(pilot, lambda: app.jobs[0].state is JobState.CANCELLED)
        await until(pilot, lambda: "– cancelled" in picture(pilot))
        assert not (tmp_path / "one").exists()
        assert not (tmp_path / "two").exists()


@SIZES
async def test_an_interrupted_job_stands_out_and_says_what_to_press(
    app_on: App, simulated: Host, journal: Journal, tmp_path: Path, size: tuple[int, int]
):
    interrupted(tmp_path, simulated, journal)
    async with running(app_on(simulated), size) as pilot:
        await open_jobs(pilot)
        shown = picture(pilot)
        assert "! interrupted" in shown
        assert "R restart  b roll back" in shown
        assert "✓  Make one" in shown or size[0] < 120  # beside the list where there is room
        assert "R restart: go on with the first step that is not done" in detail(pilot)
        assert "b roll back: take back what it made" in detail(pilot)
        assert "x cancel: give it up" in detail(pilot)
        assert "✓ Make one" in detail(pilot)
        assert "× Ask the host" in detail(pilot)


async def test_restart_goes_on_where_an_interrupted_job_stopped(
    app_on: App, simulated: Host, journal: Journal, tmp_path: Path
):
    job = interrupted(tmp_path, simulated, journal)
    async with running(app_on(simulated)) as pilot:
        await open_jobs(pilot)
        await pilot.press("R")
        await on_screen(pilot, PlanScreen)
        assert f"Restart job {job.id}: Make and ask" in picture(pilot)
        assert detail(pilot).startswith("1 Ask the host same as")
        await pilot.press("escape")
        await pilot.pause()
        assert journal.job(job.id).state is JobState.INTERRUPTED
        await pilot.press("R")
        await accept(pilot)
        await until(pilot, lambda: journal.job(job.id).state is JobState.DONE)
        await until(pilot, lambda: f"job {job.id} done" in status(pilot))


async def test_b_takes_back_what_an_interrupted_job_made(
    app_on: App, simulated: Host, journal: Journal, tmp_path: Path
):
    job = interrupted(tmp_path, simulated, journal)
    async with running(app_on(simulated)) as pilot:
        await open_jobs(pilot)
        await pilot.press("b")
        await on_screen(pilot, PlanScreen)
        assert f"lost  {tmp_path}"[:40] in picture(pilot)  # the VM's name is asked for
        await pilot.press(*"web", "enter")
        await until(pilot, lambda: journal.job(job.id).state is JobState.ROLLED_BACK)
        assert not (tmp_path / "one").exists()
        await until(pilot, lambda: "← rolled back" in picture(pilot))


async def test_x_gives_an_interrupted_job_up_and_keeps_what_it_made(
    app_on: App, simulated: Host, journal: Journal, tmp_path: Path
):
    job = interrupted(tmp_path, simulated, journal)
    async with running(app_on(simulated)) as pilot:
        await open_jobs(pilot)
        await pilot.press("x")
        await on_screen(pilot, PlanScreen)
        assert "kept  what it made: Make one" in picture(pilot)
        await pilot.press("enter")
        await until(pilot, lambda: journal.job(job.id).state is JobState.CANCELLED)
        assert (tmp_path / "one").exists()


@pytest.mark.parametrize("key", ["x", "R", "b"])
async def test_a_key_that_does_not_apply_says_why_and_does_nothing(
    app_on: App, simulated: Host, journal: Journal, tmp_path: Path, key: str
):
    job = jobs.submit(making(tmp_path, simulated, "one"), simulated, journal)
    async with running(app_on(simulated)) as pilot:
        await open_jobs(pilot)
        await pilot.press(key)
        await until(pilot, lambda: "job 1 is done" in status(pilot))
        assert isinstance(pilot.app.screen, JobsScreen)
        assert journal.job(job.id) == job


async def test_u_takes_a_finished_job_back_after_showing_how(app_on: App, simulated: Host):
    app = app_on(simulated)
    async with running(app) as pilot:
        await go_to(pilot, "build-07")
        await pilot.press("a")
        await until(pilot, lambda: vm(app, "build-07").autostart)
        await open_jobs(pilot)
        await pilot.press("u")
        await on_screen(pilot, PlanScreen)
        assert "Undo job 1" in picture(pilot)
        await pilot.press("enter")
        await until(pilot, lambda: not vm(app, "build-07").autostart)
        await until(pilot, lambda: [job.state.value for job in app.jobs] == ["done", "done"])
        await until(pilot, lambda: "undone by job 2" in detail(pilot))  # the cursor stayed on its job
        lines = picture(pilot).splitlines()
        assert any(line.startswith("▶   1  ← undone") for line in lines)
        head = next(line for line in lines if line.startswith("  JOB "))
        undone = next(line for line in lines if "← undone" in line)
        assert head.index("STATE") == undone.index("undone")
        assert head.index("WHAT") == undone.index("Turn" if "Turn" in undone else "Start")


async def test_u_never_means_another_job_than_the_selected_one(
    app_on: App, simulated: Host, journal: Journal, tmp_path: Path
):
    jobs.submit(making(tmp_path, simulated, "done"), simulated, journal)
    job = interrupted(tmp_path, simulated, journal)
    async with running(app_on(simulated)) as pilot:
        await open_jobs(pilot)
        await pilot.press("u")
        await on_screen(pilot, PlanScreen)
        shown = picture(pilot)
        assert f"Undo job {job.id}" in shown
        assert f"only a job that is done can be undone; job {job.id} is interrupted" in " ".join(shown.split())


async def test_u_in_the_list_takes_back_the_last_change_and_again_the_one_before(app_on: App, simulated: Host):
    app = app_on(simulated)
    async with running(app) as pilot:
        for name in ("build-07", "web-02"):
            await go_to(pilot, name)
            await pilot.press("a")
            await until(pilot, lambda name=name: vm(app, name).autostart)
        await until(pilot, lambda: len(app.jobs) == 2 and all(job.state.is_over for job in app.jobs))
        for name in ("web-02", "build-07"):
            await pilot.press("u")
            await accept(pilot)
            await until(pilot, lambda name=name: not vm(app, name).autostart)
            await until(pilot, lambda: all(job.state.is_over for job in app.jobs))
            await until(pilot, lambda: app.jobs == tuple(app.services.journal.jobs()))
        await pilot.press("u")
        await until(pilot, lambda: "there is nothing to undo" in status(pilot))


@SIZES
async def test_enter_gives_a_job_the_whole_screen_and_a_long_one_scrolls(
    app_on: App, simulated: Host, journal: Journal, tmp_path: Path, size: tuple[int, int]
):
    jobs.submit(making(tmp_path, simulated, *(f"file-{n}" for n in range(60))), simulated, journal)
    async with running(app_on(simulated), size) as pilot:
        await open_jobs(pilot)
        await pilot.press("enter")
        await pilot.pause()
        assert f"{1:>4}  ✓ done" not in picture(pilot)
        assert "Make file-0 " in picture(pilot)
        await pilot.press("end")
        await pilot.pause()
        assert "Make file-59" in picture(pilot)
        await pilot.press("enter")
        await pilot.pause()
        assert f"{1:>4}  ✓ done" in picture(pilot)
        await pilot.press("enter", "escape")
        await pilot.pause()
        assert isinstance(pilot.app.screen, JobsScreen)
        await pilot.press("escape")
        await on_screen(pilot, FleetScreen)


async def test_a_job_of_another_process_appears_by_itself(
    app_on: App, simulated: Host, journal: Journal, tmp_path: Path
):
    async with running(app_on(simulated)) as pilot:
        await open_jobs(pilot)
        with Journal(journal.path) as other:
            jobs.submit(making(tmp_path, simulated, "one", title="From elsewhere"), simulated, other)
        await until(pilot, lambda: "From elsewhere" in picture(pilot))


@SIZES
async def test_jobs_in_every_state_are_shown_each_with_a_sign_and_a_word(size: tuple[int, int]):
    app = scenes.still_app(shown_jobs=scenes.jobs())
    async with app.run_test(size=size) as pilot:
        await until(pilot, lambda: bool(app.jobs))
        await pilot.press("J")
        await on_screen(pilot, JobsScreen)
        shown = picture(pilot)
        for words in ("◐ running", "✓ done", "× failed", "! interrupted", "– cancelled"):
            assert words in shown
        await pilot.press("j", "j")
        await pilot.pause()
        assert "Put the disk image back" in detail(pilot)
        await pilot.press("G")
        await pilot.pause()
        assert app.screen.selected == scenes.jobs()[-1]  # type: ignore[attr-defined]


@SIZES
@pytest.mark.parametrize("name", HOSTILE_NAMES, ids=["markup", "escapes", "wide", "globs", "10 kB"])
async def test_hostile_titles_users_and_errors_are_harmless(name: str, size: tuple[int, int]):
    plain = scenes.jobs()[2]
    steps = tuple(replace(step, title=name, error=name, note=name) for step in plain.steps)
    bad = replace(plain, title=name, user=name, error=name, remedy=name, command=("vm", name), steps=steps)
    app = scenes.still_app(shown_jobs=(bad, *scenes.jobs()))
    async with app.run_test(size=size) as pilot:
        await until(pilot, lambda: bool(app.jobs))
        await pilot.press("J")
        await on_screen(pilot, JobsScreen)
        picture(pilot)
        await pilot.press("enter", "end")
        await pilot.pause()
        picture(pilot)
        await pilot.press("enter", "u")
        await on_screen(pilot, PlanScreen)
        picture(pilot)


def test_a_line_is_exactly_as_wide_as_asked_for():
    catalogue.load()
    for width in (20, 40, 79, 119, 200):
        for job in scenes.jobs():
            for title in ("x", *HOSTILE_NAMES):
                line = job_text.job_line(replace(job, title=title), width=width, now=scenes.NOW)
                assert line.cell_length == max(width, line.cell_length if width < 60 else 0), (width, line.plain)


def test_the_remedy_of_the_command_line_is_not_repeated_where_keys_do_it():
    catalogue.load()
    job = scenes.jobs()[3]
    rows = job_text.job_rows(
        replace(job, remedy=f"Complete it with 'hvtui --headless job restart {job.id}'"), now=scenes.NOW
    )
    shown = "\n".join(line.plain for line in hanging(rows, 80))
    assert "R restart" in shown


async def test_u_passes_over_a_job_that_cannot_be_taken_back_and_says_so(app_on: App, simulated: Host):
    app = app_on(simulated)
    async with running(app, (120, 40)) as pilot:
        await go_to(pilot, "build-07")
        await pilot.press("a")
        await until(pilot, lambda: "job 1" in status(pilot))
        await go_to(pilot, "build-08")
        await pilot.press("D")
        await on_screen(pilot, PlanScreen)
        await pilot.press(*"build-08", "enter")
        await until(pilot, lambda: "deleted build-08" in status(pilot))
        await until(pilot, lambda: len(app.jobs) == 2 and all(job.state.is_over for job in app.jobs))
        await pilot.press("u")
        await on_screen(pilot, PlanScreen)
        assert "Undo job" in picture(pilot)
        assert "job 2 cannot be taken back; this is job 1" in picture(pilot)
        await pilot.press("enter")
        await until(pilot, lambda: any(job.undone_by is not None for job in app.jobs))
        await pilot.press("J")
        await until(pilot, lambda: "← undone" in picture(pilot))
