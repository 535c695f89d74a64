"""Declares the actions of the whole program, of VMs and of the fleet, and registers all actions once.

The service functions are imported when a VM action is first planned, so that the list shows before they are loaded.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from importlib import import_module
from typing import TYPE_CHECKING, Any

from host.plan import Danger, Plan
from hvtui.tui import actions
from hvtui.tui.actions import (
    Action,
    Handler,
    Target,
    any_vm,
    can_open,
    no_vm_at_all,
    on_screen,
    one_host,
    one_vm,
    several_hosts,
    some_vm_there,
)
from vm.model import Vm, VmState

if TYPE_CHECKING:
    from host.connection import Host
    from hvtui.tui.app import HvtuiApp

_STARTABLE = frozenset({VmState.OFF, VmState.SAVED, VmState.CRASHED, VmState.UNKNOWN})
_PAUSED = frozenset({VmState.PAUSED, VmState.SUSPENDED})
_loaded = False


def load() -> None:
    """Register every action; safe to call often."""
    global _loaded
    if not _loaded:
        from hvtui.tui.screen_actions import SCREEN_ACTIONS
        from hvtui.tui.view_actions import VIEW_ACTIONS

        _loaded = True
        actions.register((*VM_ACTIONS, *FLEET_ACTIONS, *VIEW_ACTIONS, *SCREEN_ACTIONS, *APP_ACTIONS))


def _service(module: str, function: str, **options: Any) -> Callable[[Host, Vm], Plan]:
    def plan(host: Host, vm: Vm) -> Plan:
        made: Plan = getattr(import_module(module), function)(host, vm, **options)
        return made

    return plan


def _lifecycle(function: str, **options: Any) -> Callable[[Host, Vm], Plan]:
    return _service("vm.lifecycle", function, **options)


def _can_start(vm: Vm) -> bool:
    return vm.state in _STARTABLE


def _is_active(vm: Vm) -> bool:
    return vm.is_active


def _is_running(vm: Vm) -> bool:
    return vm.state is VmState.RUNNING


def _pause_or_resume(host: Host, vm: Vm) -> Plan:
    name = "plan_resume" if vm.state in _PAUSED else "plan_pause"
    return _lifecycle(name)(host, vm)


def _toggle_autostart(host: Host, vm: Vm) -> Plan:
    return _lifecycle("plan_autostart", enabled=not vm.autostart)(host, vm)


def _go(name: str) -> Handler:
    return lambda app, _target: app.go(name)


def _refresh(app: HvtuiApp, _target: Target) -> None:
    app.bridge.refresh()


async def _try_tiny(app: HvtuiApp, _target: Target) -> None:
    """Make and start the first VM; the plan is shown first."""
    from vm.create import plan_create
    from vm.create_request import tiny_request

    plan = await app.bridge.call(plan_create, app.current_host, tiny_request("tiny"))
    await app.propose([plan], done="made", ask=True)


def _asking(function: str, module: str = "vm_handlers") -> Handler:
    """A handler of that module of hvtui.tui: it asks before it proposes."""

    def handler(app: HvtuiApp, target: Target) -> Awaitable[None]:
        rest: Awaitable[None] = getattr(import_module(f"hvtui.tui.{module}"), function)(app, target)
        return rest

    return handler


def _whatif(app: HvtuiApp, target: Target) -> None:
    from hvtui.tui.drain_handlers import show_whatif

    show_whatif(app, target)


def _vm(verb: str, key: str, title: str, **rest: Any) -> Action:
    keys = (key,) if key else ()
    rest.setdefault("when", any_vm)
    return Action(id=f"vm.{verb}", keys=keys, title=title, noun="vm", **rest)


VM_ACTIONS: tuple[Action, ...] = (
    _vm("start", "s", "start", fits=_can_start, plan=_lifecycle("plan_start"), done="started", footer=10,
        command="vm start {name}", help="boot it, or restore its saved state"),
    _vm("stop", "S", "shut down", fits=_is_active, plan=_lifecycle("plan_stop"), done="shut down", footer=11,
        danger=Danger.DISRUPTIVE, command="vm stop {name}", help="ask the guest: by its agent, else by ACPI"),
    _vm("restart", "R", "restart", fits=_is_active, plan=_lifecycle("plan_restart"), done="restarted", footer=22,
        danger=Danger.DISRUPTIVE, command="vm restart {name}", help="shut the guest down and start it again"),
    _vm("off", "O", "force off", fits=_is_active, plan=_lifecycle("plan_off"), done="turned off", footer=24,
        danger=Danger.DESTRUCTIVE, command="vm off {name}", help="pull the plug: unwritten data is lost"),
    _vm("pause", "P", "pause/resume", fits=_is_active, plan=_pause_or_resume, done="paused or resumed", footer=23,
        command="vm pause {name}", help="freeze the guest's CPUs, or let them go on"),
    _vm("save", "z", "save", fits=_is_active, plan=_lifecycle("plan_save"), done="saved", footer=25,
        danger=Danger.DISRUPTIVE, command="vm save {name}", help="write its memory to disk and stop it"),
    _vm("discard", "Z", "discard saved state", fits=lambda vm: vm.has_saved_state,
        plan=_lifecycle("plan_discard_saved"), done="discarded the saved state of", danger=Danger.DESTRUCTIVE,
        command="vm start --discard-saved {name}", help="forget the saved memory: the next start boots"),
    _vm("reset", "", "reset", fits=_is_running, plan=_lifecycle("plan_reset"), done="reset",
        danger=Danger.DESTRUCTIVE, command="vm reset {name}", help="press the reset button"),
    _vm("autostart", "a", "autostart", plan=_toggle_autostart, done="switched autostart of", footer=30,
        command="vm set {name} autostart=yes", help="start it with the host, or no longer"),
    _vm("console", "c", "console", when=one_vm, fits=_is_active, handler=_asking("open_console"), footer=12,
        command="vm console {name}", help="the serial console in this terminal"),
    _vm("edit", "e", "edit XML", when=one_vm, handler=_asking("edit_xml"), footer=27, command="vm edit {name}"),
    _vm("tags", "t", "tags", handler=_asking("set_tags"), footer=26, command="vm set {name} tags=a,b"),
    _vm("title", "ctrl+t", "title", when=one_vm, handler=_asking("set_title"), command="vm set {name} title=TEXT"),
    _vm("clone", "", "clone", when=one_vm, handler=_asking("clone"), aliases=("clone",),
        command="vm clone {name} NEW", help="whole copies, also of one that runs; twin-{} makes several"),
    _vm("clone_linked", "", "clone linked", when=one_vm, handler=_asking("clone_linked"),
        command="vm clone --linked {name} NEW", help="in no time; its disks become the base of both"),
    _vm("size", "V", "memory, vCPUs", when=one_vm, handler=_asking("set_size"), aliases=("memory", "vcpus", "size"),
        footer=28, command="vm set {name} memory=2G vcpus=2", help="give it more or less, where it can while it runs"),
    _vm("rename", "r", "rename", when=one_vm, handler=_asking("rename"), footer=29, command="vm rename {name} NEW"),
    _vm("diff", "equals_sign", "diff", when=one_vm, handler=_asking("show_drift"), command="vm diff {name}",
        help="where it departs from its template and profile, and the way back"),
    _vm("export", "X", "export", when=one_vm, handler=_asking("export", "outside_handlers"),
        command="vm export {name} --to DIR", help="to a bundle: definition, disks, firmware variables, TPM, checksums"),
    _vm("capture", "L", "capture as template", when=one_vm, handler=_asking("capture", "outside_handlers"),
        aliases=("template capture",), command="template capture TEMPLATE --from {name}",
        help="into the library, its guest's identity taken out of the copy"),
    _vm("paravirtual", "", "virtio", handler=_asking("paravirtual", "outside_handlers"), aliases=("paravirtual",),
        command="vm paravirtual {name}", help="virtio disks and cards, once its guest has shown its drivers"),
    _vm("paravirtual_now", "", "virtio now", handler=_asking("paravirtual_now", "outside_handlers"),
        command="vm paravirtual --now {name}", help="the same at once: its guest is known to have the drivers"),
    _vm("move", "m", "move", handler=_asking("move", "move_handlers"), aliases=("migrate",), footer=13,
        command="vm migrate {name} --to HOST", help="to another host: stars, forecast and plan are shown first"),
    _vm("move_disks", "", "move disks", handler=_asking("move_disks", "move_handlers"), aliases=("move-storage",),
        command="vm move-storage {name} --to POOL", help="to another storage pool of its host, running or not"),
    _vm("delete", "D", "delete", handler=_asking("delete"), footer=31, danger=Danger.DESTRUCTIVE,
        command="vm delete {name}", help="disks are kept unless you say otherwise"),
)  # fmt: skip


def _sort_by_place(place: int) -> Handler:
    def sort(app: HvtuiApp, _target: Target) -> None:
        from hvtui.tui.screens.fleet import FleetScreen

        if isinstance(app.screen, FleetScreen):
            app.screen.sort_by_place(place)

    return sort


def _fleet(verb: str, keys: str, title: str, method: str, **rest: Any) -> Action:
    return Action(
        id=f"fleet.{verb}", keys=tuple(keys.split()), title=title, noun="list", handler=on_screen(method), **rest
    )


FLEET_ACTIONS: tuple[Action, ...] = (
    Action(id="fleet.tiny", keys=("t",), title="try a tiny VM", noun="list", when=no_vm_at_all, handler=_try_tiny,
           footer=1, command="vm create tiny --from tiny", help="a tiny Linux made from this system's own kernel"),
    Action(id="fleet.debian", keys=("d",), title="deploy Debian", noun="list", when=no_vm_at_all,
           handler=_asking("deploy_debian"), footer=2, command="template add debian --from debian",
           help="make a Debian template, and deploy VMs from it"),
    _fleet("down", "j down", "down", "cursor_down"),
    _fleet("up", "k up", "up", "cursor_up"),
    _fleet("page_down", "pagedown ctrl+f", "page down", "page_down"),
    _fleet("page_up", "pageup ctrl+b", "page up", "page_up"),
    _fleet("first", "g home", "first", "cursor_first"),
    _fleet("last", "G end", "last", "cursor_last"),
    _fleet("mark", "space", "mark", "mark", footer=16, help="mark it; actions then work on all marked VMs"),
    _fleet("mark_all", "asterisk", "mark all shown", "mark_all", help="again: unmark all"),
    _fleet("filter", "slash", "filter", "open_filter", footer=14, help="state:running tag:web cpu>50 text"),
    _fleet("open", "enter", "open", "open_vm", when=can_open, footer=17,
           help="the VM on the whole screen; in the tree, the host"),
    _fleet("tree", "h", "hosts", "toggle_tree", when=several_hosts, footer=18,
           help="the tree of groups and hosts: the chosen one narrows the list"),
    _fleet("other_pane", "tab", "list or hosts", "other_pane", when=several_hosts),
    _fleet("details", "d", "details", "toggle_details", when=some_vm_there, help="show or hide the details pane"),
    _fleet("back", "escape", "back", "back", help="close, clear the filter, then the marks"),
    _fleet("sort", "o", "sort", "say_sort_keys", footer=30, help="then 1-9: sort by that column, again: reversed"),
    _fleet("columns", "C", "columns", "choose_columns", help="which of them the list shows, and in what order"),
    *(
        Action(id=f"fleet.sort_{n}", keys=(str(n),), title=f"sort by column {n}", noun="list",
               handler=_sort_by_place(n))
        for n in range(1, 10)
    ),
)  # fmt: skip

APP_ACTIONS: tuple[Action, ...] = (
    Action(id="app.command", keys=("colon",), title="go", handler=on_screen("open_command"), footer=15,
           help="go to a VM or a screen, run any action by its name"),
    Action(id="app.fleet", keys=("F",), title="VMs", handler=_go("fleet"), aliases=("vms", "fleet", "vm list"),
           command="vm list"),
    Action(id="app.create", keys=("n",), title="new VM", handler=_go("create"), footer=13, command="vm create NAME",
           aliases=("create", "new"), help="from an ISO, a disk image, or this system's own kernel"),
    Action(id="app.deploy", keys=("N",), title="deploy", handler=_go("deploy"), aliases=("vm deploy",), footer=44,
           command="vm deploy TEMPLATE NAME", help="make VMs from a template, many at once"),
    Action(id="app.import", keys=("i",), title="import", handler=_go("import"), aliases=("vm import",),
           command="vm import SOURCE", help="a bundle, an OVA, or a disk of Hyper-V, VMware or VirtualBox"),
    Action(id="app.templates", keys=("T",), title="templates", handler=_go("templates"), footer=45,
           aliases=("template", "library"), command="template list", help="what VMs are deployed from"),
    Action(id="app.jobs", keys=("J",), title="jobs", handler=_go("jobs"), aliases=("job",), footer=40,
           command="job list"),
    Action(id="app.events", keys=("E",), title="events", handler=_go("events"), aliases=("event",), footer=41,
           command="host events"),
    Action(id="app.host", keys=("H",), title="host", handler=_go("host"), footer=42, command="host show"),
    Action(id="app.drain", keys=("M",), title="drain/resume", noun="host", when=one_host, footer=9,
           handler=_asking("drain_or_resume", "drain_handlers"), danger=Danger.DISRUPTIVE,
           aliases=("host drain", "host resume", "maintenance"), command="host drain NAME",
           help="empty a host for maintenance, each VM's fate is shown first; or bring its VMs home"),
    Action(id="app.home", keys=(), title="bring home", noun="host", when=one_host,
           handler=_asking("come_home", "drain_handlers"), command="host resume NAME",
           help="the VMs that left when the host was drained and are not back yet"),
    Action(id="app.whatif", keys=("W",), title="what if", when=several_hosts, handler=_whatif, aliases=("n-1",),
           command="host whatif", help="a host died now: where each of its VMs would come up (the N-1 light)"),
    Action(id="app.undo", keys=("u",), title="undo", handler=_asking("undo_last", "undo_handlers"), footer=43,
           command="job undo ID", help="take back the last job: of the VM under the cursor, of its set, or of all"),
    Action(id="app.refresh", keys=("f5", "ctrl+r"), title="read again", handler=_refresh),
    Action(id="app.theme", keys=("f2",), title="next theme", handler=lambda app, _t: app.next_theme(),
           help="dark, light, high contrast, the terminal's own 16 colours"),
    Action(id="app.palette", keys=("ctrl+p",), title="palette", handler=lambda app, _t: app.open_palette()),
    Action(id="app.help", keys=("question_mark", "f1"), title="help", handler=_go("help")),
    Action(id="app.back", keys=("escape",), title="back", handler=lambda app, _t: app.back(), help="to the list"),
    Action(id="app.quit", keys=("q", "ctrl+q", "ctrl+c"), title="quit", handler=lambda app, _t: app.leave(), footer=50,
           help="jobs that run go on by themselves"),
)  # fmt: skip
