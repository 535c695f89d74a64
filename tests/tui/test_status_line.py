"""The status line: what became of jobs, what others run, and that what is said is seen whichever screen is open."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from host import jobs
from host.connection import Host
from host.journal import Journal
from hvtui.tui.app import HvtuiApp
from tests.support.fake_verbs import make_step, plan_of
from tests.tui.conftest import until
from tests.tui.driving import running, status

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
