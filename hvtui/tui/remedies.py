"""What removes the blockers of plans: which key, for which VMs only, and the plans that do it. Changes nothing."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from host.connection import Host
from host.plan import Plan
from hvtui.holders import is_shutdown
from hvtui.tui import keymap, plan_text
from hvtui.tui.actions import Action
from vm.model import Vm


@dataclass(frozen=True, slots=True)
class Remedy:
    """One action that removes blockers. `uuids` are the VMs that it belongs to, never the others of a selection;
    `blocker_id` is the action as the blocker names it."""

    action: Action
    blocker_id: str
    words: str
    uuids: tuple[str, ...]

    def plan(self, host: Host, vm: Vm) -> Plan:
        """The plan for one of its VMs. Where the key does either of two things, it is the one that was offered,
        whatever became of the VM meanwhile. Raises HvtuiError."""
        if self.blocker_id == "vm.resume":
            from vm.lifecycle import plan_resume

            return plan_resume(host, vm)
        if self.action.plan is None:
            raise ValueError(f"{self.action.id} is no remedy: it asks before it plans")
        return self.action.plan(host, vm)


def remedies(plans: Sequence[Plan]) -> dict[str, Remedy]:
    """What removes the plans' blockers: Textual's name of the key -> remedy, those without a key left out."""
    found: dict[str, Remedy] = {}
    for action, blocker_id in _removing(plans):
        words = plan_text.remedy_words(blocker_id, plans)
        uuids = tuple(plan.vm_uuid for plan in plan_text.blocked_by(blocker_id, plans) if plan.vm_uuid)
        for key in keymap.keys_of(action):
            found.setdefault(key, Remedy(action, blocker_id, words, uuids))
    return found


def is_removed(remedy: Remedy, plans: Iterable[Plan]) -> bool:
    """True when none of the plans is blocked by what the remedy removes."""
    return not plan_text.blocked_by(remedy.blocker_id, plans)


def is_fulfilled(remedy: Remedy, plan: Plan) -> bool:
    """True for a shutdown in whose place the VM was turned off: there is nothing left to come back to."""
    return remedy.blocker_id == "vm.off" and plan.vm_uuid in remedy.uuids and is_shutdown(plan)


def _removing(plans: Iterable[Plan]) -> Iterable[tuple[Action, str]]:
    blockers = {blocker.action_id: blocker for plan in plans for blocker in plan.blockers if blocker.action_id}
    for blocker_id, blocker in blockers.items():
        action = plan_text.remover(blocker)
        if blocker_id is not None and action is not None and action.plan is not None:
            yield action, blocker_id
