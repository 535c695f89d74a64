"""`hvtui vm`: start, stop and the other verbs that change a VM's state. Each is one plan_* of vm.lifecycle."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from hvtui.cli.change import change_vms
from hvtui.cli.chosen import chosen_vms, named_exactly
from hvtui.cli.grammar import Verb, names_argument, option, verb
from hvtui.cli.session import Session
from vm import lifecycle

if TYPE_CHECKING:
    from host.connection import Host
    from host.plan import Plan
    from vm.model import Vm

ABRUPT = frozenset({"off", "reset"})  # the guests are not asked: for more than one VM, the person is


@verb(
    "start",
    names_argument(),
    option("--paused", is_flag=True, text="Start with the virtual CPUs standing still."),
    option("--discard-saved", is_flag=True, text="Boot afresh; the saved state is lost."),
    text="Start VMs; a saved one goes on from where it was.",
)
def start(session: Session, names: tuple[str, ...], paused: bool, discard_saved: bool) -> int:
    def plan(host: Host, vm: Vm) -> Plan:
        return lifecycle.plan_start(host, vm, paused=paused, discard_saved=discard_saved)

    return _change_state(session, names, "start", plan)


def _change_state(
    session: Session, names: tuple[str, ...], verb_name: str, plan: Callable[[Host, Vm], Plan], **how: Any
) -> int:
    """`change_vms` on the VMs of `names`. Those that a glob or a filter matched, and that already are what is wanted,
    are no failure: nothing is done to them."""
    vms = chosen_vms(session, names)
    exact = named_exactly(vms, names)
    action_id = f"vm.{verb_name}"
    reached = {vm.uuid for vm in vms if vm.uuid not in exact and lifecycle.is_reached(vm, action_id)}
    ask = verb_name in ABRUPT and (len(vms) > 1 or not exact)
    return change_vms(session, vms, plan, unchanged=reached, ask=ask, **how)


def _asking_verb(name: str, plan_one: Callable[..., Plan], text: str, force_text: str) -> Verb:
    """A verb that asks the guest and waits for it: --timeout and --no-wait are the plan's own."""

    def act(session: Session, names: tuple[str, ...], force: bool) -> int:
        timeout_s = session.timeout_s or lifecycle.SHUTDOWN_TIMEOUT_S

        def plan(host: Host, vm: Vm) -> Plan:
            return plan_one(host, vm, timeout_s=timeout_s, force=force, wait=session.wait)

        done_word = "done" if session.wait else "asked"
        return _change_state(session, names, name, plan, own_waiting=True, done_word=done_word)

    return verb(name, names_argument(), option("--force", is_flag=True, text=force_text), text=text)(act)


stop = _asking_verb(
    "stop",
    lifecycle.plan_stop,
    "Shut guests down: the agent is asked first, then ACPI. --timeout says how long to wait for them (120 s).",
    "Turn a guest off that has not reacted in time.",
)
restart = _asking_verb(
    "restart",
    lifecycle.plan_restart,
    "Restart guests: the agent is asked first, then ACPI. --timeout says how long to wait for them (120 s).",
    "Reset a guest that has not reacted in time.",
)


def _plain_verb(name: str, plan: Callable[[Host, Vm], Plan], text: str) -> Verb:
    """A verb with nothing but names: one function of vm.lifecycle for each VM."""

    def act(session: Session, names: tuple[str, ...]) -> int:
        return _change_state(session, names, name, plan)

    return verb(name, names_argument(), text=text)(act)


reset = _plain_verb(
    "reset",
    lifecycle.plan_reset,
    "Press the reset button: the guest is not asked. More than one VM, or a glob, wants a confirmation.",
)
off = _plain_verb(
    "off",
    lifecycle.plan_off,
    "Cut the power: the guest is not asked, its unsaved data are lost. "
    "More than one VM, or a glob, wants a confirmation.",
)
pause = _plain_verb("pause", lifecycle.plan_pause, "Let the virtual CPUs stand still; the memory stays in use.")
resume = _plain_verb("resume", lifecycle.plan_resume, "Let paused VMs go on.")
save = _plain_verb("save", lifecycle.plan_save, "Save the memory to disk and stop; start goes on from there.")
discard_saved = _plain_verb(
    "discard-saved", lifecycle.plan_discard_saved, "Throw a saved state away; the next start boots afresh."
)


@verb(
    "autostart",
    click.Argument(["setting"], type=click.Choice(["on", "off"])),
    names_argument(),
    text="Start VMs together with the host (on), or no more (off): hvtui vm autostart on 'web-*'.",
)
def autostart(session: Session, setting: str, names: tuple[str, ...]) -> int:
    def plan(host: Host, vm: Vm) -> Plan:
        return lifecycle.plan_autostart(host, vm, setting == "on")

    return change_vms(session, chosen_vms(session, names), plan)
