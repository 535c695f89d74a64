"""The actions of the screens other than the fleet: jobs, events, templates, drift, forms, XML editor. Data only."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from host.job_model import Job, JobSet
from host.plan import Danger
from hvtui.tui import job_text
from hvtui.tui.actions import Action, Handler, Target, When, always, on_screen, one_template

if TYPE_CHECKING:
    from hvtui.tui.app import HvtuiApp


def _job_that(test: Callable[[Job | JobSet], bool]) -> When:
    def applies(target: Target) -> bool:
        chosen = target.job_set or target.job
        return chosen is not None and test(chosen)

    return applies


def _tuning(function: str) -> Handler:
    """A handler of hvtui.tui.tune_handlers."""

    def handler(app: HvtuiApp, target: Target) -> Awaitable[None]:
        from hvtui.tui import tune_handlers

        rest: Awaitable[None] = getattr(tune_handlers, function)(app, target)
        return rest

    return handler


def _template(verb: str, key: str, title: str, method: str, **rest: Any) -> Action:
    rest.setdefault("when", one_template)
    return Action(f"templates.{verb}", (key,), title, noun="template", handler=on_screen(method), **rest)


def _form(scope: str, title: str, *, command: str, help_text: str, noun: str) -> tuple[Action, ...]:
    """The two keys of a form."""
    return (
        Action(f"{scope}.submit", ("ctrl+s",), title, noun=noun, help=help_text, handler=on_screen("submit"), footer=1,
               command=command),
        Action(f"{scope}.leave", ("escape",), "back", noun=noun, handler=on_screen("leave"), footer=2),
    )  # fmt: skip


SCREEN_ACTIONS: tuple[Action, ...] = (
    _template("deploy", "d", "deploy", "deploy", footer=1, help="make VMs from it, many at once",
              command="vm deploy TEMPLATE NAME"),
    _template("add", "a", "add", "add", when=always, footer=2, command="template add NAME --from WHAT",
              help="tiny in seconds, debian in minutes, an image file, or a volume"),
    _template("edit", "e", "edit", "edit", footer=3, command="template edit NAME KEY=VALUE",
              help="what it says of itself; VMs made from it stay as they are"),
    _template("verify", "v", "verify", "verify", footer=4, command="template verify NAME",
              help="read its images again and compare; once more stops it"),
    _template("remove", "D", "remove", "remove_template", footer=5, danger=Danger.DESTRUCTIVE,
              command="template remove NAME", help="with its images; refused while VMs need them"),
    _template("library", "l", "library", "choose_library", when=always, footer=8,
              command="template list --library POOL", help="look at another storage pool of templates"),
    _template("open", "enter", "details", "open_template", footer=6, command="template show NAME",
              help="on the whole screen, or the list again"),
    _template("refresh", "f5", "read again", "read_again", when=always),
    _template("back", "escape", "back", "back", when=always, footer=7),
    *_form("deploy", "deploy", noun="template", command="vm deploy TEMPLATE NAME",
           help_text="show the plan, then make the VMs"),
    *_form("newtemplate", "add it", noun="template", command="template add NAME --from WHAT",
           help_text="show the plan, then add the template"),
    *_form("edittemplate", "change it", noun="template", command="template edit NAME KEY=VALUE",
           help_text="show the plan, then store it"),
    *_form("import", "import it", noun="vm", command="vm import SOURCE", help_text="show the plan, then import the VM"),
    *_form("export", "export it", noun="vm", command="vm export NAME --to DIR",
           help_text="show the plan, then make the bundle"),
    *_form("capture", "capture it", noun="vm", command="template capture TEMPLATE --from NAME",
           help_text="show the plan, then make the template"),
    *_form("clone", "clone it", noun="vm", command="vm clone NAME NEW",
           help_text="show the plan, then make the clones"),
    *_form("size", "change it", noun="vm", command="vm set NAME memory=2G vcpus=2",
           help_text="show the plan, then change it"),
    Action("drift.align", ("enter",), "align", noun="drift", handler=on_screen("align_one"), footer=1,
           command="vm align NAME --only KEY", help="make it so again; the plan is shown first"),
    Action("drift.align_all", ("A",), "align all", noun="drift", handler=on_screen("align_all"), footer=2,
           command="vm align NAME", help="all that loses nothing by it"),
    Action("drift.template", ("w",), "with another", noun="drift", handler=on_screen("choose_template"), footer=3,
           command="vm diff NAME --with TEMPLATE", help="compare it with another template than its own"),
    Action("drift.refresh", ("f5",), "compare again", noun="drift", handler=on_screen("read_again")),
    Action("drift.back", ("escape",), "back", noun="drift", handler=on_screen("leave"), footer=4),
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
    Action("jobs.pause", ("p",), "pause/resume", noun="job", help="pass a waiting job over until it is resumed",
           when=_job_that(job_text.can_pause), handler=_tuning("pause"), footer=6, command="job pause ID"),
    Action("jobs.first", ("f",), "put first", noun="job", help="begin a waiting job before all others",
           when=_job_that(job_text.can_pause), handler=_tuning("put_first"), footer=7, command="job first ID"),
    Action("jobs.bandwidth", ("w",), "bandwidth", noun="job", help="limit how fast a move under way may send",
           when=_job_that(job_text.is_live_move), handler=_tuning("bandwidth"), footer=1,
           command="job tune ID --bandwidth RATE"),
    Action("jobs.downtime", ("l",), "downtime limit", noun="job", help="how long the guest may stand still at the end",
           when=_job_that(job_text.is_live_move), handler=_tuning("downtime"), footer=1,
           command="job tune ID --downtime TIME"),
    Action("jobs.postcopy", ("o",), "post-copy", noun="job", danger=Danger.DISRUPTIVE,
           help="run the guest at the target now, and fetch the rest of its memory",
           when=_job_that(job_text.can_postcopy), handler=_tuning("postcopy"), footer=1,
           command="job tune ID --postcopy"),
    Action("jobs.quick", ("Q",), "quick now", noun="job", danger=Danger.DISRUPTIVE,
           help="give a live move up and take Quick Migration",
           when=_job_that(job_text.can_go_quick), handler=_tuning("quick"), footer=1, command="job tune ID --quick"),
    Action("jobs.open", ("enter",), "details", noun="job", help="the job on the whole screen, or the list again",
           when=_job_that(lambda _job: True), handler=on_screen("open_job"), footer=5, command="job show ID"),
    Action("jobs.back", ("escape",), "back", noun="job", handler=on_screen("back"), footer=6),
    Action("events.open", ("enter",), "to the VM", noun="event", handler=on_screen("open_vm"), footer=1),
    Action("events.back", ("escape",), "back", noun="event", handler=on_screen("leave"), footer=2),
    Action("whatif.refresh", ("f5",), "look again", noun="host", handler=on_screen("read_again"), footer=1),
    Action("whatif.back", ("escape",), "back", noun="host", handler=on_screen("leave"), footer=2),
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
