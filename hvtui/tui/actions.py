"""The one registry of everything a person can do: it feeds key bindings, footer, palette, `:` line and help.

An Action is data. A `plan` action is planned for every target VM and proposed; a `handler` action runs by itself.
A key means the same thing on every screen, so an id is never bound twice in scopes that are shown together. The
actions themselves are declared in catalogue.py (whole program, VMs, fleet) and screen_actions.py (other screens).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, TypeAlias

from host.connection import Host
from host.job_model import Job, JobSet
from host.plan import Danger, Plan
from host.text import printable
from vm.model import Vm

if TYPE_CHECKING:
    from hvtui.tui.app import HvtuiApp
    from vm.template_model import Template


@dataclass(frozen=True, slots=True)
class Target:
    """What an action works on: the marked VMs, or the one under the cursor (on the jobs screen: the job, or the set of
    jobs). `is_live` is False on a lost link; `vms_there` counts all that the host has. `host` names the host that is
    meant itself: on its own screen, or where the tree of hosts has the focus; `hosts_there` counts those shown."""

    vms: tuple[Vm, ...] = ()
    is_live: bool = True
    read_only: bool = False
    job: Job | None = None
    vms_there: int = 0
    job_set: JobSet | None = None
    template: Template | None = None
    host: str = ""
    hosts_there: int = 1
    is_in_tree: bool = False  # the tree of hosts has the focus: no VM is meant


Handler: TypeAlias = Callable[["HvtuiApp", Target], Awaitable[None] | None]
When: TypeAlias = Callable[[Target], bool]


def always(_target: Target) -> bool:
    """For actions that apply whatever is selected."""
    return True


def no_vm_at_all(target: Target) -> bool:
    """The host has none; a filter that hides all of them is another thing."""
    return not target.vms and not target.vms_there


def some_vm_there(target: Target) -> bool:
    """The host has a VM, whether a filter hides it or not."""
    return not no_vm_at_all(target)


def several_hosts(target: Target) -> bool:
    """More than one host is shown."""
    return target.hosts_there > 1


def one_host(target: Target) -> bool:
    """A host is meant itself."""
    return bool(target.host)


def can_open(target: Target) -> bool:
    """A VM is under the cursor, or a row of the tree of hosts."""
    return bool(target.vms) or target.is_in_tree


def any_vm(target: Target) -> bool:
    """At least one VM is marked or under the cursor."""
    return bool(target.vms)


def one_template(target: Target) -> bool:
    """A template is under the cursor."""
    return target.template is not None


def one_vm(target: Target) -> bool:
    """Exactly one VM is meant."""
    return len(target.vms) == 1


@dataclass(frozen=True, slots=True)
class Action:
    """One thing to do. `id` is "scope.verb"; the scope says on which screens the key works (Screen.SCOPES).

    `keys` are Textual key names, the first one is shown. `done` is the past tense for the status line. `footer` is
    its place in the footer (1 first, 0 not shown). `fits` says which VMs it can work on: the others of a selection
    are left out. `command` is the hvtui line it equals, with {name} for a VM.
    """

    id: str
    keys: tuple[str, ...]
    title: str
    noun: str = "app"
    help: str = ""
    danger: Danger = Danger.NONE
    when: When = always
    fits: Callable[[Vm], bool] | None = None
    plan: Callable[[Host, Vm], Plan] | None = None
    handler: Handler | None = None
    done: str = ""
    footer: int = 0
    command: str = ""
    aliases: tuple[str, ...] = field(default=())  # other words the `:` line takes

    @property
    def scope(self) -> str:
        return self.id.partition(".")[0]

    def narrowed(self, target: Target) -> Target:
        """The target without the VMs that this action cannot work on."""
        if self.fits is None:
            return target
        return replace(target, vms=tuple(vm for vm in target.vms if self.fits(vm)))

    def applies(self, target: Target) -> bool:
        """True when the action can do something with the target."""
        if self.noun == "vm" and target.vms and not target.is_live:
            return False  # what is shown may be long gone
        narrowed = self.narrowed(target)
        return self.when(narrowed) and (self.fits is None or bool(narrowed.vms))


def why_not(action: Action, target: Target) -> str:
    """Why an action does not apply to what is selected, in one line."""
    if action.noun == "job":
        job, job_set = target.job, target.job_set
        if job_set is not None:
            return f"{action.title}: set {job_set.id} is {job_set.state.value}"
        return f"{action.title}: {f'job {job.id} is {job.state.value}' if job else 'no job is selected'}"
    if action.noun == "template":
        return f"{action.title}: no template is selected"
    if action.noun == "host":
        return f"{action.title}: choose a host in the tree of hosts first"
    if action.when is several_hosts:
        return f"{action.title}: there is only one host"
    if not target.vms:
        return f"{action.title}: no VM is selected"
    if not target.is_live:
        return f"{action.title}: not while the connection is lost"
    if len(target.vms) > 1:
        return (
            f"{action.title}: not for {len(target.vms)} VMs at once"
            if action.narrowed(target).vms
            else f"{action.title}: none of the marked VMs can"
        )
    vm = target.vms[0]
    return f"{action.title}: not while {printable(vm.name, limit=40)} is {vm.state.value}"


_ACTIONS: dict[str, Action] = {}


def register(actions: Iterable[Action]) -> None:
    """Make actions known. An id is taken once: two actions of one id are a programming error."""
    for action in actions:
        if action.id in _ACTIONS:
            raise ValueError(f"action {action.id} is registered twice")
        _ACTIONS[action.id] = action


def all_actions() -> tuple[Action, ...]:
    """Every action, in the order of registration."""
    return tuple(_ACTIONS.values())


def action_named(action_id: str) -> Action | None:
    return _ACTIONS.get(action_id)


def actions_for(scopes: Iterable[str]) -> tuple[Action, ...]:
    """The actions of the given scopes, the scopes' order first."""
    return tuple(action for scope in scopes for action in _ACTIONS.values() if action.scope == scope)


def on_screen(method: str) -> Handler:
    """A handler that calls the method `method` (no arguments; plain or async) of the screen that is shown."""

    def call(app: HvtuiApp, _target: Target) -> Awaitable[None] | None:
        function: Callable[[], Awaitable[None] | None] | None = getattr(app.screen, method, None)
        return function() if function is not None else None

    return call
