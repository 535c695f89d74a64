"""Steering jobs: the queue (pause, resume, put first), and a live move that is under way.

A move's step grants wishes a few times a second (vm.move_progress): what came of one is in its note.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from host.errors import UsageError
from host.job_model import Job, JobState
from host.plan import Danger, Plan, Step
from hvtui.tui.actions import Target
from hvtui.tui.screens.prompt import PromptScreen

if TYPE_CHECKING:
    from hvtui.tui.app import HvtuiApp


async def pause(app: HvtuiApp, target: Target) -> None:
    """Pass waiting jobs over, or let them have their turn again."""
    from host import job_queue

    waiting = _waiting(target)
    is_pause = not all(job.is_paused for job in waiting)
    change = job_queue.pause if is_pause else job_queue.resume
    await app.bridge.call(change, app.services.journal, *(job.id for job in waiting))
    app.say(f"{'paused' if is_pause else 'resumed'} {_named(waiting)}")
    app.bridge.watch_jobs()


async def put_first(app: HvtuiApp, target: Target) -> None:
    """Put waiting jobs before all others."""
    from host import job_queue

    waiting = _waiting(target)
    await app.bridge.call(job_queue.put_first, app.services.journal, *(job.id for job in waiting))
    app.say(f"{_named(waiting)} {'is' if len(waiting) == 1 else 'are'} first now")
    app.bridge.watch_jobs()


def _waiting(target: Target) -> tuple[Job, ...]:
    jobs = target.job_set.jobs if target.job_set is not None else (target.job,) if target.job is not None else ()
    return tuple(job for job in jobs if job.state is JobState.QUEUED)


def _named(jobs: tuple[Job, ...]) -> str:
    return f"job {jobs[0].id}" if len(jobs) == 1 else f"{len(jobs)} jobs"


def bandwidth(app: HvtuiApp, target: Target) -> Awaitable[None]:
    """Ask for the most that the move may send a second."""
    from vm.move_progress import bytes_a_second

    return _ask(app, target, "bandwidth", "Bandwidth at most", "such as 100M, bytes a second", bytes_a_second)


def downtime(app: HvtuiApp, target: Target) -> Awaitable[None]:
    """Ask how long the guest may stand still at the end."""
    from vm.move_progress import milliseconds

    return _ask(app, target, "downtime", "The guest may stand still for", "such as 500ms or 2s", milliseconds)


def _ask(
    app: HvtuiApp, target: Target, wish: str, question: str, hint: str, read: Callable[[str], int]
) -> Awaitable[None]:
    def check(text: str) -> str:
        try:
            read(text)
        except UsageError as error:
            return str(error)
        return ""

    asked = app.asked(PromptScreen(question, hint=hint, check=check))
    return _wish(app, target, wish, asked)


async def _wish(app: HvtuiApp, target: Target, wish: str, asked: Awaitable[str | None]) -> None:
    answer = await asked
    if answer and target.job is not None:
        await _tell(app, target.job, wish, answer.strip())


async def postcopy(app: HvtuiApp, target: Target) -> None:
    """Run the guest at the target now; the plan says what that means."""
    steps = "Run the guest at the target now", "Fetch the rest of its memory as it is needed"
    warning = "until all of it is there, the loss of the way between the hosts is the loss of the guest's memory"
    await _agreed(app, target, "postcopy", steps, warning)


async def quick(app: HvtuiApp, target: Target) -> None:
    """Give the live move up for Quick Migration; the plan says what that means."""
    steps = ("Give the live migration up", "Save the guest's memory here, and restore it at the target")
    await _agreed(app, target, "quick", steps, "the guest stands still meanwhile")


async def _agreed(app: HvtuiApp, target: Target, wish: str, steps: tuple[str, ...], warning: str) -> None:
    from hvtui.tui.screens.plan import PlanScreen

    job = target.job
    if job is None:
        return
    shown = Plan(
        title=f"Job {job.id}: {job.title}",
        host_uri=job.host_uri,
        steps=tuple(Step("", each) for each in steps),
        command=("job", "tune", str(job.id), f"--{wish}"),
        vm_uuid=job.vm_uuid,
        vm_name=job.vm_name,
        danger=Danger.DISRUPTIVE,
        warnings=(warning,),
    )
    if await app.push_screen_wait(PlanScreen([shown])):
        await _tell(app, job, wish, "yes")


async def _tell(app: HvtuiApp, job: Job, wish: str, value: str) -> None:
    from host import jobs

    await app.bridge.call(lambda: jobs.wish(job.id, app.services.journal, **{wish: value}))
    app.say(f"job {job.id} was told: {wish} {'' if value == 'yes' else value}".rstrip())
    app.bridge.watch_jobs()
