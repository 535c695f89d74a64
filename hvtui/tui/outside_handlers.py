"""What VM actions do that carry a VM out of or into this host's own kind of VM: export, capture, paravirtual devices.

Each handler has the shape of hvtui.tui.actions.Handler.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from host.plan import Plan
from host.text import printable
from hvtui.tui.actions import Target

if TYPE_CHECKING:
    from hvtui.tui.app import HvtuiApp
    from hvtui.tui.screens.form import FormScreen
    from vm.model import Vm


async def export(app: HvtuiApp, target: Target) -> None:
    """Ask where the bundle of one VM goes; one that runs is shut down first, when that is wanted."""
    from hvtui.tui.screens.vm_forms import ExportScreen

    await _open_when_off(app, target.vms[0], ExportScreen, "exported")


async def capture(app: HvtuiApp, target: Target) -> None:
    """Ask what the template made from one VM is called; one that runs is shut down first, when that is wanted."""
    from hvtui.tui.screens.vm_forms import CaptureScreen

    await _open_when_off(app, target.vms[0], CaptureScreen, "captured")


async def _open_when_off(app: HvtuiApp, vm: Vm, form: Callable[[Vm], FormScreen[Plan]], done: str) -> None:
    name = printable(vm.name, limit=40)
    shown = app.screen
    if vm.is_active:
        from vm.lifecycle import plan_stop

        why = f"{name} is {vm.state.value}: only a VM that is off can be {done}"
        plan = await app.bridge.call(plan_stop, app.host_of(vm), vm)
        if not await app.propose([plan], done="shut down", ask=True, left=why):
            return
        app.say(f"shut down {name}", "good")
        if app.screen is not shown:
            return  # it took a while, and something else is looked at now
    app.push_screen(form(vm))


async def paravirtual(app: HvtuiApp, target: Target) -> None:
    """Switch disks and cards to virtio, once the guest has shown that it has the drivers."""
    await _paravirtual(app, target, now=False)


async def paravirtual_now(app: HvtuiApp, target: Target) -> None:
    """Switch disks and cards to virtio at once."""
    await _paravirtual(app, target, now=True)


async def _paravirtual(app: HvtuiApp, target: Target, *, now: bool) -> None:
    from vm.paravirtual import plan_paravirtual

    async def planned(vms: Sequence[Vm]) -> Sequence[Plan]:
        return await app.bridge.call(lambda: tuple(plan_paravirtual(app.host_of(vm), vm, now=now) for vm in vms))

    plans = [plan for plan in await planned(target.vms) if plan.steps or plan.blockers]
    if not plans:
        what = printable(target.vms[0].name, limit=40) if len(target.vms) == 1 else f"all {len(target.vms)} VMs"
        app.say(f"{what}: paravirtual already")
        return
    rest = len(target.vms) - len(plans)
    left = f"{rest} left out: paravirtual already" if rest else ""
    await app.propose(plans, done="made paravirtual:", again=planned, ask=True, left=left)
