"""What VM actions do when a plan alone is not enough: they ask first (a name, tags, which disks), then propose plans.

Each handler has the shape of hvtui.tui.actions.Handler and is called from a worker.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from host.plan import Plan
from host.text import printable
from hvtui.tui.actions import Target
from hvtui.tui.screens.prompt import PromptScreen

if TYPE_CHECKING:
    from hvtui.tui.app import HvtuiApp
    from vm.model import Vm


async def rename(app: HvtuiApp, target: Target) -> None:
    """Ask for the new name of one VM."""
    from vm.settings import plan_rename

    vm = target.vms[0]
    hint = "the VM must be off; disks keep their file names"
    name = await app.push_screen_wait(PromptScreen(f"Rename {_short(vm)}", value=vm.name, hint=hint))
    if name and name != vm.name:
        plan = await app.bridge.call(plan_rename, app.services.host, vm, name)
        await app.propose([plan], done="renamed")


async def set_tags(app: HvtuiApp, target: Target) -> None:
    """Ask for tags: the whole list for one VM, additions and removals for several."""
    if len(target.vms) == 1:
        tags = ", ".join(target.vms[0].config.tags) if target.vms[0].config else ""
        prompt = PromptScreen(f"Tags of {_short(target.vms[0])}", value=tags, hint="web, prod")
    else:
        prompt = PromptScreen(f"Tags of {len(target.vms)} VMs", hint="+web adds, -old removes, web, prod replaces")
    answer = await app.push_screen_wait(prompt)
    if answer is not None:
        await _set(app, target.vms, {"tags": answer})


async def set_title(app: HvtuiApp, target: Target) -> None:
    """Ask for the one-line title of one VM."""
    vm = target.vms[0]
    title = vm.config.title if vm.config else ""
    answer = await app.push_screen_wait(PromptScreen(f"Title of {_short(vm)}", value=printable(title)))
    if answer is not None:
        await _set(app, [vm], {"title": answer})


async def edit_xml(app: HvtuiApp, target: Target) -> None:
    """Open the XML editor on one VM."""
    from vm.edit import editable_xml

    from hvtui.tui.screens.xml_editor import XmlEditorScreen

    vm = target.vms[0]
    xml = await app.bridge.call(editable_xml, app.services.host, vm)
    app.push_screen(XmlEditorScreen(vm, xml))


async def delete(app: HvtuiApp, target: Target) -> None:
    """One VM: ask which disks go too. Several: disks are kept."""
    from vm.delete import disk_uses, plan_delete

    from hvtui.tui.screens.delete import DeleteScreen

    host = app.services.host
    if len(target.vms) == 1:
        vm = target.vms[0]
        uses = await app.bridge.call(disk_uses, host, vm)
        chosen = await app.push_screen_wait(DeleteScreen(vm, uses)) if uses else ()
        if chosen is None:
            return
        plans: Sequence[Plan] = [await app.bridge.call(plan_delete, host, vm, remove_disks=chosen)]
    else:
        plans = await app.bridge.call(lambda: tuple(plan_delete(host, vm) for vm in target.vms))
    await app.propose(plans, done="deleted")


async def undo_last(app: HvtuiApp, _target: Target) -> None:
    """Take back the newest finished job that was not taken back yet; the plan is shown first."""
    from host.jobs import plan_undo

    from host.job_model import JobState

    job = next((job for job in app.jobs if job.state is JobState.DONE and job.undone_by is None), None)
    if job is None:
        app.say("there is nothing to undo")
        return
    plan = await app.bridge.call(plan_undo, job, app.services.host)
    await app.propose([plan], done="undone:")


async def open_console(app: HvtuiApp, target: Target) -> None:
    """Give the terminal to the VM's serial console until the escape key; the screen comes back whatever happens."""
    from vm.console import attach

    vm = target.vms[0]
    with app.suspend():
        os.write(sys.stdout.fileno(), b"\x1b[2J\x1b[H")
        why = attach(app.services.host, vm, stdin_fd=sys.stdin.fileno(), stdout_fd=sys.stdout.fileno())
    app.refresh(layout=True)
    app.say(f"console of {_short(vm)}: {printable(why, limit=200)}")


async def _set(app: HvtuiApp, vms: Sequence[Vm], changes: Mapping[str, str]) -> None:
    from vm.settings import plan_set

    host = app.services.host
    plans = await app.bridge.call(lambda: tuple(plan_set(host, vm, changes) for vm in vms))
    await app.propose(plans, done="changed")


def _short(vm: Vm) -> str:
    return printable(vm.name, limit=40)
