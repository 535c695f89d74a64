"""The actions of the screens other than the fleet: jobs, events, host, create and the XML editor. Data only."""

from __future__ import annotations

from host.plan import Danger
from hvtui.tui.actions import Action, on_screen

SCREEN_ACTIONS: tuple[Action, ...] = (
    Action(
        "jobs.cancel", ("x",), "cancel", noun="job", help="stop the job; what it made is rolled back",
        danger=Danger.DISRUPTIVE, handler=on_screen("cancel_job"), footer=1, command="job cancel",
    ),
    Action(
        "jobs.restart", ("R",), "restart", noun="job", help="continue with the first step that is not done",
        handler=on_screen("restart_job"), footer=2, command="job restart",
    ),
    Action(
        "jobs.rollback", ("b",), "roll back", noun="job", help="remove what an interrupted job made",
        danger=Danger.DISRUPTIVE, handler=on_screen("roll_back_job"), footer=3, command="job rollback",
    ),
    Action(
        "jobs.undo", ("u",), "undo", noun="job", help="take a finished job back; the plan is shown first",
        handler=on_screen("undo_job"), footer=4, command="job undo",
    ),
    Action(
        "create.submit", ("ctrl+s",), "create", noun="vm", help="show the plan and make the VM",
        handler=on_screen("submit"), footer=1, command="vm create",
    ),
    Action("create.leave", ("escape",), "back", noun="vm", handler=on_screen("leave"), footer=2),
    Action(
        "xml.save", ("ctrl+s",), "show what changes", noun="vm", handler=on_screen("save"), footer=1, command="vm edit",
    ),
    Action("xml.leave", ("escape",), "back", noun="vm", handler=on_screen("leave"), footer=2),
)  # fmt: skip
