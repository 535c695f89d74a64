"""What draining a host is described with: each VM's fate, and the set of plans. Data only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from host.plan import Plan, PlanSet


class WithoutTarget(StrEnum):
    """What to do with a running VM that no other host can take."""

    SAVE = "save"  # its memory to the disk; it goes on when the host is back
    SHUTDOWN = "shutdown"
    STAY = "stay"


SAVE, SHUT_DOWN, STAY = "save", "shut down", "stay"  # fates besides the kinds of move


@dataclass(frozen=True, slots=True)
class Fate:
    """What becomes of one VM: `fate` is a kind of move (live, quick …), save, shut down or stay; `host` is the target's
    name, empty without one. `predicted_s` is how long it takes by itself."""

    vm: str
    uuid: str
    fate: str
    why: str
    is_active: bool = True
    host: str = ""
    stars: float = 0.0
    predicted_s: float = 0.0
    plan: Plan | None = None

    @property
    def could_not_leave(self) -> bool:
        """True for a VM that runs on, on a host that is to be taken down."""
        return self.is_active and self.fate == STAY


@dataclass(frozen=True, slots=True)
class DrainPlan:
    """The fates in the order in which they are begun, and the set that carries them out. `predicted_s` regards how many
    moves run at once."""

    host: str
    fates: tuple[Fate, ...]
    plan_set: PlanSet
    predicted_s: float

    @property
    def staying(self) -> tuple[Fate, ...]:
        """The running VMs that could not leave."""
        return tuple(fate for fate in self.fates if fate.could_not_leave)


def total_s(fates: Sequence[Fate], limits: Mapping[str, int], *, source: str) -> float:
    """How long the fates take together: each begins as soon as its hosts have room, in their order. `limits` is how
    many moves a host takes at once (by name)."""
    busy: dict[str, list[float]] = {}
    latest = 0.0
    for fate in fates:
        names = [source, fate.host] if fate.host else []
        ends = [sorted(busy.get(name, ())) for name in names]
        full = [those[-limits.get(name, 1)] for name, those in zip(names, ends, strict=True)
                if len(those) >= limits.get(name, 1)]  # fmt: skip
        end_s = max(full, default=0.0) + fate.predicted_s
        for name in names:
            busy.setdefault(name, []).append(end_s)
        latest = max(latest, end_s)
    return latest
