"""What VM actions do when a plan alone is not enough: they ask first (a name, tags, which disks), then propose plans.

Each handler has the shape of hvtui.tui.actions.Handler. Prompts open before it returns, so that what is typed next is
theirs; the rest runs in a worker.
"""

from __future__ import annotations

from collections.abc import Awaitable, Mapping, Sequence
from typing import TYPE_CHECKING

from host.plan import Plan
from host.text import printable
from hvtui.tui.actions import Target
from hvtui.tui.screens.prompt import PromptScreen

if TYPE_CHECKING:
    from hvtui.tui.app import HvtuiApp
    from vm.model import Vm

DEBIAN = "debian"  # the recipe, and the template that it makes


def rename(app: HvtuiApp, target: Target) -> Awaitable[None]:
    """Ask for the new name of one VM."""
    from vm.names import name_problem

    vm = target.vms[0]
    hint = "its disks keep their file names" if not vm.is_active else f"it is {vm.state.value}: it must be off for that"
    taken = _names_beside(app, vm)

    def check(name: str) -> str:
        is_taken = f"there is a VM called {printable(name, limit=40)} already" if name in taken else ""
        return name_problem(name) or is_taken

    prompt = PromptScreen(f"Rename {_short(vm)}", value=_editable(vm.name), hint=hint, check=check)
    return _rename(app, vm, app.asked(prompt))


async def _rename(app: HvtuiApp, vm: Vm, asked: Awaitable[str | None]) -> None:
    from vm.settings import plan_rename

    name = await asked
    if name and name != vm.name:

        async def planned(vms: Sequence[Vm]) -> Sequence[Plan]:
            return [await app.bridge.call(plan_rename, app.host_of(each), each, name) for each in vms]

        await app.propose(await planned([vm]), done="renamed", again=planned)


def clone(app: HvtuiApp, target: Target) -> None:
    """Open the form that makes clones of one VM."""
    from hvtui.tui.screens.vm_forms import CloneScreen

    app.push_screen(CloneScreen(target.vms[0]))


def clone_linked(app: HvtuiApp, target: Target) -> None:
    """The same, with linked clones chosen."""
    from hvtui.tui.screens.vm_forms import CloneScreen

    app.push_screen(CloneScreen(target.vms[0], linked=True))


def set_size(app: HvtuiApp, target: Target) -> None:
    """Open the form with the memory and the vCPUs of one VM."""
    from hvtui.tui.screens.vm_forms import SizeScreen

    app.push_screen(SizeScreen(target.vms[0]))


def set_tags(app: HvtuiApp, target: Target) -> Awaitable[None]:
    """Ask for tags: the whole list for one VM, additions and removals for several."""
    if len(target.vms) == 1:
        now = ", ".join(target.vms[0].config.tags) if target.vms[0].config else ""
        prompt = PromptScreen(f"Tags of {_short(target.vms[0])}", value=_editable(now), hint="such as: web, prod")
    else:
        now = ""
        hint = "+web adds a tag, -old removes one; web, prod replaces all"
        prompt = PromptScreen(f"Tags of {len(target.vms)} VMs", hint=hint)
    return _set_answer(app, target.vms, "tags", now=now, asked=app.asked(prompt))


def set_title(app: HvtuiApp, target: Target) -> Awaitable[None]:
    """Ask for the one-line title of one VM."""
    vm = target.vms[0]
    now = vm.config.title if vm.config else ""
    prompt = PromptScreen(f"Title of {_short(vm)}", value=_editable(now), hint="one line that says what it is for")
    return _set_answer(app, [vm], "title", now=_editable(now), asked=app.asked(prompt))


async def _set_answer(
    app: HvtuiApp, vms: Sequence[Vm], setting: str, *, now: str, asked: Awaitable[str | None]
) -> None:
    answer = await asked
    if answer is not None and answer.strip() != now.strip():
        await _set(app, vms, {setting: answer})


async def edit_xml(app: HvtuiApp, target: Target) -> None:
    """Open the XML editor on one VM."""
    from hvtui.tui.screens.xml_editor import XmlEditorScreen
    from vm.edit import editable_xml

    vm = target.vms[0]
    xml = await app.bridge.call(editable_xml, app.host_of(vm), vm)
    app.push_screen(XmlEditorScreen(vm, xml))


def show_drift(app: HvtuiApp, target: Target) -> None:
    """Show where one VM departs from its template."""
    from hvtui.tui.screens.drift import DriftScreen

    app.push_screen(DriftScreen(target.vms[0]))


async def deploy_debian(app: HvtuiApp, _target: Target) -> None:
    """Make the template `debian` where there is none yet, and open the form that deploys from it."""
    from hvtui.tui.screens.deploy import DeployScreen
    from hvtui.tui.screens.fleet import FleetScreen
    from vm import library
    from vm.template_add import AddRequest, OriginKind, plan_add

    host, call = app.current_host, app.bridge.call
    pool = app.library_at(host)
    found = await call(library.read, host, pool)
    if all(template.name != DEBIAN for template in found.templates):
        plan = await call(plan_add, host, AddRequest(DEBIAN, DEBIAN, kind=OriginKind.RECIPE, library=pool))
        if not await app.propose([plan], done="added", ask=True):
            return
    if isinstance(app.screen, FleetScreen):  # else it took minutes, and something else is looked at now
        app.push_screen(DeployScreen(DEBIAN, pool))


async def delete(app: HvtuiApp, target: Target) -> None:
    """One VM: ask which disks go too, and whether to turn it off. Several: disks are kept."""
    from hvtui.tui.screens.delete import DeleteScreen, Deletion
    from vm.delete import file_uses, plan_delete

    if len(target.vms) > 1:

        async def kept(vms: Sequence[Vm]) -> Sequence[Plan]:
            return await app.plan_each(plan_delete, Target(vms=tuple(vms)))

        await app.propose(await kept(target.vms), done="deleted", again=kept)
        return
    vm = target.vms[0]
    uses = await app.bridge.call(file_uses, app.host_of(vm), vm)
    asks = bool(uses) or (vm.is_active and vm.persistent)
    wanted = await app.push_screen_wait(DeleteScreen(vm, uses)) if asks else Deletion()
    if wanted is not None:
        disks, off = wanted.disks, wanted.off

        async def planned(vms: Sequence[Vm]) -> Sequence[Plan]:
            return [
                await app.bridge.call(plan_delete, app.host_of(each), each, remove_disks=disks, off=off) for each in vms
            ]

        await app.propose(await planned([vm]), done="deleted", again=planned)


async def open_console(app: HvtuiApp, target: Target) -> None:
    """Give the terminal to the VM's serial console until the escape key; the screen comes back whatever happens."""
    from hvtui.tui.console import lend_terminal

    vm = target.vms[0]
    app.say(f"console of {_short(vm)}: {lend_terminal(app, vm)}")


async def _set(app: HvtuiApp, vms: Sequence[Vm], changes: Mapping[str, str]) -> None:
    from vm.settings import plan_set

    plans: Sequence[Plan] = await app.bridge.call(lambda: tuple(plan_set(app.host_of(vm), vm, changes) for vm in vms))
    await app.propose(plans, done=f"changed {' and '.join(changes)} of")


def _names_beside(app: HvtuiApp, vm: Vm) -> set[str]:
    """The names of the other VMs on its host."""
    vms = app.snapshot.vms if app.snapshot is not None else ()
    return {other.name for other in vms if other.host == vm.host and other.uuid != vm.uuid}


def _short(vm: Vm) -> str:
    return printable(vm.name, limit=40)


def _editable(text: str) -> str:
    """`text` as the start of an answer; empty when nobody could edit it (hidden characters, very long)."""
    return text if len(text) <= 200 and printable(text) == text else ""
