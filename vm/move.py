"""Plans the move of a VM to another host: looks at both, chooses how, and says what it will take.

Each kind of move has a module that lists its steps: vm.move_live, vm.move_quick, vm.move_offline. This module changes
nothing.
"""

from __future__ import annotations

import uuid as uuids
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import TypeAlias

from host.connection import Host
from host.errors import UsageError
from host.plan import Blocker, Danger, Plan, Step
from vm.commands import host_blockers
from vm.model import Vm
from vm.move_checks import examine
from vm.move_copies import boot_copies_for, copies_for, shared_directories
from vm.move_forecast import forecast, in_words
from vm.move_lanes import lanes
from vm.move_links import ASSUMED
from vm.move_model import AUTOMATIC, Check, Link, MoveDraft, MoveKind, MovePicture, MoveRequest
from vm.move_outcome import with_forecast

StepsOf: TypeAlias = Callable[[MoveDraft], tuple[Step, ...]]

# Where the steps of a kind are planned; a module is loaded when one of its kinds is chosen.
_STEPS: dict[MoveKind, tuple[str, str]] = {
    MoveKind.LIVE: ("vm.move_live", "live_steps"),
    MoveKind.LIVE_STORAGE: ("vm.move_live", "live_storage_steps"),
    MoveKind.QUICK: ("vm.move_quick", "quick_steps"),
    MoveKind.OFFLINE: ("vm.move_offline", "offline_steps"),
    MoveKind.DEFINITION: ("vm.move_offline", "definition_steps"),
}


def steps_of_kind(kind: MoveKind) -> StepsOf:
    """The function that lists a kind's steps. Raises UsageError for STORAGE, which needs no other host."""
    if kind not in _STEPS:
        raise UsageError(f"a {kind} move stays on its host", remedy="Give the VM's disks a pool: hvtui vm move-disks")
    module, name = _STEPS[kind]
    found: StepsOf = getattr(import_module(module), name)
    return found


def choose_kind(picture: MovePicture, wanted: MoveKind | None = None) -> tuple[MoveKind, tuple[str, ...]]:
    """How to move, and why each less disruptive way cannot be taken. Without `wanted` the first that can work; where
    none can, the one with the fewest obstacles (its blockers then say why not)."""
    if wanted is not None:
        return wanted, ()
    possible = [kind for kind in AUTOMATIC if _fits_state(picture, kind)]
    why_not: list[str] = []
    for kind in possible:
        obstacles = picture.blockers(kind) or picture.doubts(kind)
        if not obstacles:
            return kind, tuple(why_not)
        word = "cannot be" if picture.blockers(kind) else "may not work"
        why_not.append(f"{kind} {word}: {'; '.join(check.reason for check in obstacles)}")
    best = min(possible, key=lambda kind: len(picture.blockers(kind)))
    return best, () if picture.blockers(best) else tuple(why_not[: possible.index(best)])


def _fits_state(picture: MovePicture, kind: MoveKind) -> bool:
    return (kind is MoveKind.OFFLINE) != picture.is_running


def plan_move(
    source: Host,
    target: Host,
    vm: Vm,
    request: MoveRequest,
    *,
    link: Link = ASSUMED,
    command: tuple[str, ...] = (),
) -> Plan:
    """The plan that moves `vm` from `source` to `target`; long. `link` is what is known of the way between them
    (vm.move_links), `command` what Plan.command becomes. Reads both hosts. Raises NotFound, ConnectionLost, Denied,
    UsageError."""
    picture = examine(source, target, vm, request, link=link)
    kind, why_not = choose_kind(picture, request.kind)
    return plan_of(source, picture, kind, request, why_not=why_not, command=command)


def plan_of(
    source: Host,
    picture: MovePicture,
    kind: MoveKind,
    request: MoveRequest,
    *,
    why_not: Sequence[str] = (),
    command: tuple[str, ...] = (),
) -> Plan:
    """The plan of a kind from what was read; no calls."""
    mark = str(uuids.uuid4())[:8]
    copies = copies_for(picture, kind, mark)
    draft = MoveDraft(
        kind,
        picture,
        request,
        mark=mark,
        copies=copies,
        boot_copies=boot_copies_for(picture, kind, mark),
        shared=shared_directories(picture, kind),
    )
    blockers = tuple(_blocker(check) for check in picture.blockers(kind))
    found = forecast(picture, kind, request.options)
    verb = "Copy the definition of" if kind is MoveKind.DEFINITION else "Move"
    return Plan(
        title=f"{verb} {picture.vm_name} to {picture.target_name} ({kind})",
        host_uri=source.uri,
        steps=with_forecast(steps_of_kind(kind)(draft), found) if not blockers else (),
        command=command or _command(picture, kind),
        vm_uuid=picture.vm_uuid,
        vm_name=picture.vm_name,
        danger=Danger.DISRUPTIVE if kind is MoveKind.QUICK else Danger.NONE,
        warnings=(*(check.reason for check in picture.warnings), *_never_both(picture, kind)),
        blockers=(*host_blockers(source), *blockers),
        notes=(*why_not, *in_words(found), *_in_order(picture)),
        long=True,
        also_on=(picture.target_uri,),
        lanes=lanes(picture.source_name, picture.target_name),
    )


def _never_both(picture: MovePicture, kind: MoveKind) -> tuple[str, ...]:
    if kind is not MoveKind.DEFINITION:
        return ()
    hosts = f"{picture.source_name} and {picture.target_name}"
    return (f"{hosts} will both have a definition of it, with the same UUID, cards and disks: never run both",)


def _blocker(check: Check) -> Blocker:
    return Blocker(check.reason, check.remedy, exit_code=check.exit_code)


def _in_order(picture: MovePicture) -> tuple[str, ...]:
    return tuple(check.reason for check in picture.checks if check.ok and check.reason)


def _command(picture: MovePicture, kind: MoveKind) -> tuple[str, ...]:
    words = ("vm", "migrate", "--to", picture.target_uri, "--kind", kind.value)
    separator = ("--",) if picture.vm_name.startswith("-") else ()
    return (*words, *separator, picture.vm_name)
