"""The actions of the screens other than the fleet: jobs, events, create and the XML editor. Data only."""

from __future__ import annotations

from collections.abc import Callable

from host.job_model import Job, JobSet
from host.plan import Danger
from hvtui.tui import job_text
from hvtui.tui.actions import Action, Target, When, on_screen


def _job_that(test: Callable[[Job | JobSet], bool]) -> When:
    def applies(target: Target) -> bool:
        chosen = target.job_set or target.job
        return chosen is not None and test(chosen)

    return applies


SCREEN_ACTIONS: tuple[Action, ...] = (
    Action(
        "jobs.cancel", ("x",), "cancel", noun="job", help="stop it: what it made is rolled back",
        danger=Danger.DISRUPTIVE, when=_job_that(job_text.can_cancel), handler=on_screen("cancel_job"), footer=1,
        command="job cancel ID",
    ),
    Action(
        "jobs.restart", ("R",), "restart", noun="job", help="go on with the first step that is not done",
        when=_job_that(job_text.can_restart), handler=on_screen("restart_job"), footer=2, command="job restart ID",
    ),
    Action(
        "jobs.rollback", ("b",), "roll back", noun="job", help="take back what an interrupted job made",
        danger=Danger.DISRUPTIVE, when=_job_that(job_text.can_roll_back), handler=on_screen("roll_back_job"), footer=3,
        command="job rollback ID",
    ),
    Action(  # it always applies: on this screen the key must never reach app.undo, which means another job
        "jobs.undo", ("u",), "undo", noun="job", help="take this job back; the plan is shown first",
        handler=on_screen("undo_job"), footer=4, command="job undo ID",
    ),
    Action("jobs.open", ("enter",), "details", noun="job", help="the job on the whole screen, or the list again",
           when=_job_that(lambda _job: True), handler=on_screen("open_job"), footer=5, command="job show ID"),
    Action("jobs.back", ("escape",), "back", noun="job", handler=on_screen("back"), footer=6),
    Action("events.open", ("enter",), "to the VM", noun="event", handler=on_screen("open_vm"), footer=1),
    Action("events.back", ("escape",), "back", noun="event", handler=on_screen("leave"), footer=2),
    Action("host.back", ("escape",), "back", noun="host", handler=on_screen("leave"), footer=1),
    Action(
        "create.submit", ("ctrl+s",), "create it", noun="vm", help="show the plan, then make the VM",
        handler=on_screen("submit"), footer=1, command="vm create NAME",
    ),
    Action("create.leave", ("escape",), "back", noun="vm", handler=on_screen("leave"), footer=2),
    Action(
        "xml.save", ("ctrl+s",), "show what changes", noun="vm", help="check it, show the differences, then change it",
        handler=on_screen("save"), footer=1, command="vm edit NAME",
    ),
    Action("xml.leave", ("escape",), "back", noun="vm", handler=on_screen("leave"), footer=2),
)  # fmt: skip
