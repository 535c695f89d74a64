"""The status line: what became of jobs, what others run, and that what is said is seen whichever screen is open."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from host import jobs
from host.connection import Host
from host.journal import Journal
from hvtui.tui import bridge
from hvtui.tui.app import HvtuiApp
from hvtui.tui.screens.events import EventsScreen
from hvtui.tui.screens.fleet import FleetScreen
from hvtui.tui.screens.jobs import JobsScreen
from hvtui.tui.widgets import footer
from tests.support.fake_verbs import make_step, plan_of
from tests.tui import scenes
from tests.tui.conftest import until
from tests.tui.driving import SIZES, on_screen, picture, running, status

App = Callable[..., HvtuiApp]


async def test_a_job_that_the_user_cancels_is_not_told_as_failed(
    app_on: App, simulated: Host, journal: Journal, tmp_path: Path
):
    app = app_on(simulated)
    (tmp_path / "two.pause").touch()
    plans = [plan_of([make_step(tmp_path / name)], vm=name, uri=simulated.uri) for name in ("one", "two")]
    async with running(app, (120, 40)) as pilot:
        app.run_worker(app.propose(plans))
        await until(pilot, (tmp_path / "two.paused").exists)
        jobs.cancel(next(job.id for job in journal.jobs() if job.vm_name == "two"), journal)
        await until(pilot, lambda: "! 1 done, 1 cancelled: cancelled by the user · job" in status(pilot))


async def test_a_job_of_another_process_is_shown_in_the_list_by_itself(
    app_on: App, simulated: Host, journal: Journal, tmp_path: Path
):
    app = app_on(simulated)
    pause = tmp_path / "one.pause"
    pause.touch()
    plan = plan_of([make_step(tmp_path / "one")], title="From elsewhere", uri=simulated.uri)

    def submit() -> None:
        with Journal(journal.path) as other:
            jobs.submit(plan, simulated, other)

    async with running(app) as pilot:
        await until(pilot, lambda: app.bridge._watcher is not None and app.bridge._watcher.done())
        elsewhere = threading.Thread(target=submit)
        elsewhere.start()
        await until(pilot, lambda: "From elsewhere" in status(pilot))
        pause.unlink()
        await until(pilot, lambda: "From elsewhere" not in status(pilot))
        elsewhere.join()
        assert [job.state.value for job in app.jobs] == ["done"]


async def test_a_journal_into_which_nobody_writes_is_not_read_again(
    app_on: App, simulated: Host, journal: Journal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    jobs.submit(plan_of([make_step(tmp_path / "one")], uri=simulated.uri), simulated, journal)
    monkeypatch.setattr(bridge, "JOURNAL_LOOK_S", 0.01)
    looks, reads = [], []
    stamp, read = journal.stamp, journal.jobs
    monkeypatch.setattr(journal, "stamp", lambda: looks.append(1) or stamp())
    monkeypatch.setattr(journal, "jobs", lambda **how: reads.append(1) or read(**how))
    app = app_on(simulated)
    async with running(app) as pilot:
        await until(pilot, lambda: len(app.jobs) == 1 and len(looks) > 50)
    assert len(reads) == 1


async def test_what_is_said_is_seen_on_the_screen_that_is_open_and_forgotten_on_all(monkeypatch: pytest.MonkeyPatch):
    app = scenes.still_app()
    async with app.run_test(size=(100, 30)) as pilot:
        await pilot.press("E")
        await on_screen(pilot, EventsScreen)
        fleet = app.screen_stack[1]
        assert isinstance(fleet, FleetScreen)
        fleet.say("done it", "good")  # what the list began ends while the events are shown
        await until(pilot, lambda: "done it" in status(pilot))
        await pilot.press("escape")
        await on_screen(pilot, FleetScreen)
        await until(pilot, lambda: "done it" in status(pilot))
        monkeypatch.setattr(footer, "SAID_S", 0.2)
        app.say("done more", "good")
        await pilot.press("E")
        await on_screen(pilot, EventsScreen)
        await until(pilot, lambda: "done more" not in status(pilot))
        await pilot.press("escape")
        await on_screen(pilot, FleetScreen)
        assert "done" not in status(pilot)


async def test_what_went_wrong_stays_until_another_screen_is_opened(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(footer, "SAID_S", 0.1)
    app = scenes.still_app()
    async with app.run_test(size=(100, 30)) as pilot:
        app.say("it broke", "bad")
        await pilot.pause(0.3)
        assert "× it broke" in status(pilot)
        await pilot.press("E")
        await on_screen(pilot, EventsScreen)
        assert "it broke" not in status(pilot)


async def test_what_is_said_is_seen_beside_running_jobs_which_are_shown_again_after_it(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(footer, "SAID_S", 1.0)
    app = scenes.still_app(shown_jobs=scenes.jobs())
    async with app.run_test(size=(100, 30)) as pilot:
        await until(pilot, lambda: "job 196  Create web-11" in status(pilot))
        app.say("done it", "good")
        await until(pilot, lambda: "done it" in status(pilot))
        assert "1 running" in status(pilot)
        await until(pilot, lambda: "job 196  Create web-11" in status(pilot))


async def test_what_belongs_to_the_line_being_typed_goes_with_it():
    app = scenes.still_app()
    async with app.run_test(size=(100, 30)) as pilot:
        await pilot.press("colon", "j")
        await until(pilot, lambda: "jobs" in status(pilot))
        app.say("done it", "good")
        await pilot.pause()
        assert "jobs" in status(pilot)
        await pilot.press("escape")
        await until(pilot, lambda: "done it" in status(pilot))


@SIZES
async def test_jobs_beyond_those_that_run_at_once_are_seen_to_wait_and_can_be_cancelled(
    app_on: App, simulated: Host, journal: Journal, tmp_path: Path, size: tuple[int, int]
):
    app = app_on(simulated)
    names = [f"vm-{number}" for number in range(bridge.PARALLEL_JOBS + 2)]
    for name in names:
        (tmp_path / f"{name}.pause").touch()
    plans = [plan_of([make_step(tmp_path / name)], vm=name, title=f"Make {name}", uri=simulated.uri) for name in names]
    async with running(app, size) as pilot:
        app.run_worker(app.propose(plans))
        await until(pilot, lambda: f"+{bridge.PARALLEL_JOBS - 1} more, 2 wait" in status(pilot))
        await pilot.press("J")
        await on_screen(pilot, JobsScreen)
        await until(pilot, lambda: picture(pilot).count("waits for a free slot") >= 2)
        assert app.bridge.running_here == len(names)
        waiting = [job for job in journal.jobs() if job.state.value == "queued"]
        assert len(waiting) == 2
        jobs.cancel(waiting[0].id, journal)
        await until(pilot, lambda: "is cancelled in its turn" in picture(pilot))
        for name in names:
            (tmp_path / f"{name}.pause").unlink()
        await until(pilot, lambda: all(job.state.is_over for job in journal.jobs()))
        assert sorted(job.state.value for job in journal.jobs()) == ["cancelled", *["done"] * (len(names) - 1)]
        assert not (tmp_path / (waiting[0].vm_name or "")).exists()
        await until(pilot, lambda: app.bridge.running_here == 0)
