"""A Plan: what is going to be changed, in plain words and as data, before anything is changed.

`plan_*` functions of the service layer only read and return a frozen Plan. The terminal interface shows it in its
confirm dialog, the command line prints it for --dry-run, and both hand it to host.jobs, the only runner. Nothing
changes a host or a VM but a step of a plan. This module holds data only; it runs nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TypeAlias

from host.errors import Blocked, Denied, HvtuiError, NotFound, Unsupported, UsageError, WrongState

MOST_NAMES = 5  # of VMs in one sentence

Json: TypeAlias = bool | int | float | str | Sequence["Json"] | Mapping[str, "Json"] | None


class Danger(StrEnum):
    """How much a plan can hurt. `DESTRUCTIVE` loses data: it asks for confirmation everywhere."""

    NONE = "none"
    DISRUPTIVE = "disruptive"  # interrupts the guest's service
    DESTRUCTIVE = "destructive"  # something is lost for good


@dataclass(frozen=True, slots=True)
class Step:
    """One idempotent action: a verb known to host.steps and its JSON arguments.

    `title` is a plain sentence; `commands` are the equivalent virsh or qemu-img lines, each ready to paste. `losses`
    name what the step loses for good; a verb's inverse fills it in, since nobody plans an undo by hand.
    """

    verb: str
    title: str
    args: Mapping[str, Json] = field(default_factory=dict)
    commands: tuple[str, ...] = ()
    losses: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Blocker:
    """Why a plan cannot run, what to do about it, and the id of the action (if any) that removes it.

    `exit_code` is that of the error which the blocker stands for: 3 for what was named and is not there, 4 for a wrong
    state, 8 for what this host cannot do.
    """

    reason: str
    remedy: str = ""
    action_id: str | None = None
    exit_code: int = Blocked.exit_code

    @classmethod
    def wrong_state(cls, reason: str, *, remedy: str = "", action_id: str | None = None) -> Blocker:
        """A blocker that goes away with the VM's state; alone, it makes the plan raise WrongState."""
        return cls(reason, remedy, action_id, WrongState.exit_code)


# What a plan raises whose blockers all have that exit code; Blocked for any other or a mixture.
_RAISED: dict[int, type[HvtuiError]] = {
    kind.exit_code: kind for kind in (UsageError, NotFound, WrongState, Denied, Unsupported)
}


@dataclass(frozen=True, slots=True)
class Lane:
    """Something that only so many jobs may use at once, whoever runs them: a host that VMs move from or to, say.

    `name` is a kind and whose: `host:lab1`, `link:lab1>lab2`. Each job obeys the `limit` (1 or more) of its own plan.
    """

    name: str
    limit: int


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything a person needs to decide, and everything the runner needs to act.

    `command` is the argument list of the equivalent `hvtui` call, without the program's name and --headless.
    `losses` name what is lost for good, `keeps` what a reader may fear for but stays,
    `notes` what was looked at and found in order. `also_on` are the URIs of the other hosts on which it changes the VM:
    the job holds it there as well. It begins only when each of its `lanes` has room (host.job_queue). A `long` plan may
    run for more than a few seconds: the front ends give it a runner process of its own that survives the loss of the
    terminal.
    """

    title: str
    host_uri: str
    steps: tuple[Step, ...]
    command: tuple[str, ...]
    vm_uuid: str | None = None
    vm_name: str | None = None
    danger: Danger = Danger.NONE
    warnings: tuple[str, ...] = ()
    blockers: tuple[Blocker, ...] = ()
    losses: tuple[str, ...] = ()
    keeps: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    xml_before: str | None = None
    xml_after: str | None = None
    long: bool = False
    undoes_job: int | None = None
    also_on: tuple[str, ...] = ()
    lanes: tuple[Lane, ...] = ()

    def raise_if_blocked(self) -> None:
        """Raise with every blocker's reason when the plan cannot run: UsageError (a damaged file, say), NotFound,
        WrongState, Denied or Unsupported when all its blockers are of that kind, else Blocked."""
        if self.blockers:
            raise _blocked(self.blockers, "; ".join(blocker.reason for blocker in self.blockers), self.vm_name or "")


def _blocked(blockers: Sequence[Blocker], causes: str, about: str) -> HvtuiError:
    remedies = "; ".join(dict.fromkeys(blocker.remedy for blocker in blockers if blocker.remedy))
    codes = {blocker.exit_code for blocker in blockers}
    kind = _RAISED.get(codes.pop(), Blocked) if len(codes) == 1 else Blocked
    return kind(causes, about=about, remedy=remedies)


@dataclass(frozen=True, slots=True)
class PlanSet:
    """Several plans that one request made, each a job of its own: they run beside each other, one that fails rolls back
    only itself, and restarting the set does what is not done yet (host.job_sets).

    `preparations` run first, one after the other; when one fails nothing else begins. Warnings and blockers that stand
    for all of them are here, those of one VM in its plan; the set is blocked when any of them is.
    """

    title: str
    plans: tuple[Plan, ...]
    command: tuple[str, ...]
    preparations: tuple[Plan, ...] = ()
    warnings: tuple[str, ...] = ()
    blockers: tuple[Blocker, ...] = ()

    @property
    def all_blockers(self) -> tuple[Blocker, ...]:
        """The set's own blockers, then each plan's, without repetitions."""
        own = (plan.blockers for plan in (*self.preparations, *self.plans))
        return tuple(dict.fromkeys((*self.blockers, *(blocker for blockers in own for blocker in blockers))))

    @property
    def blocked_names(self) -> dict[str, tuple[str, ...]]:
        """Each blocker's reason once, with the VMs that it is true for; without names where it is the set's own."""
        names: dict[str, list[str]] = {blocker.reason: [] for blocker in self.blockers}
        for plan in (*self.preparations, *self.plans):
            for blocker in plan.blockers:
                names.setdefault(blocker.reason, []).append(plan.vm_name or plan.title)
        return {reason: tuple(those) for reason, those in names.items()}

    def raise_if_blocked(self) -> None:
        """Raise as `Plan.raise_if_blocked` does, with every reason and the VMs that it is true for."""
        if self.all_blockers:
            told = [
                f"{', '.join(those[:MOST_NAMES])}{' …' if len(those) > MOST_NAMES else ''}: {reason}"
                if those
                else reason
                for reason, those in self.blocked_names.items()
            ]
            raise _blocked(self.all_blockers, "; ".join(told), "")
