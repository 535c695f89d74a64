"""What if a host died now: where each of its running VMs would fit, and what would not. Pure functions.

Nothing can be copied from a dead host: a VM comes up elsewhere only where its disks are seen. The largest VMs are
placed first, each on the host with most room, as one would do by hand in such an hour.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from vm.placement import can_be, others, with_vm
from vm.placement_model import APART, Demand, HostPicture, steering

MOST_TOLD = 3  # hosts of which it is said why a VM does not fit there


@dataclass(frozen=True, slots=True)
class WhatIf:
    """The loss of `host`: where each of its active VMs (by name) would go, and why each of the others nowhere."""

    host: str
    placed: Mapping[str, str]
    unplaced: Mapping[str, str]

    @property
    def is_ok(self) -> bool:
        return not self.unplaced


@dataclass(frozen=True, slots=True)
class NMinusOne:
    """Whether the hosts could take the loss of any one of them. `losses` are those that would leave VMs without a
    place, `unknown` the hosts that did not answer: nobody can tell what runs there."""

    hosts: int
    losses: tuple[WhatIf, ...] = ()
    unknown: tuple[str, ...] = ()

    @property
    def is_ok(self) -> bool:
        return self.hosts > 1 and not self.losses and not self.unknown

    @property
    def text(self) -> str:
        """One line for a light: "N-1: any host may fail", "N-1: without lab2 3 VMs have no place"."""
        if self.hosts < 2:
            return "N-1: there is only one host"
        if self.losses:
            worst = max(self.losses, key=lambda loss: len(loss.unplaced))
            count = len(worst.unplaced)
            more = f" (and {len(self.losses) - 1} more hosts)" if len(self.losses) > 1 else ""
            return f"N-1: without {worst.host} {count} VM{'s have' if count > 1 else ' has'} no place{more}"
        if self.unknown:
            return f"N-1: not known, {', '.join(self.unknown)} did not answer"
        return "N-1: any host may fail"


def whatif(pictures: Sequence[HostPicture], name: str) -> WhatIf:
    """The loss of the host of that name. Raises KeyError when there is none."""
    lost = {picture.name: picture for picture in pictures}[name]
    left = _Room(picture for picture in pictures if picture.name != name)
    placed: dict[str, str] = {}
    unplaced: dict[str, str] = {}
    active = sorted((vm for vm in lost.vms if vm.is_active), key=lambda vm: (-vm.memory_bytes, vm.name))
    for vm in active:
        demand = replace(vm, needs_its_disks=True)
        target = left.place(demand)
        if target:
            placed[vm.name] = target
        else:
            unplaced[vm.name] = _why(demand, left.pictures)
    return WhatIf(name, placed, unplaced)


def n_minus_1(pictures: Sequence[HostPicture]) -> NMinusOne:
    """The loss of each of the hosts, one at a time."""
    found = (whatif(pictures, picture.name) for picture in pictures if picture.is_reachable)
    return NMinusOne(
        hosts=len(pictures),
        losses=tuple(loss for loss in found if not loss.is_ok),
        unknown=tuple(picture.name for picture in pictures if not picture.is_reachable),
    )


class _Room:
    """The hosts that are left, the one with most room for memory first."""

    def __init__(self, pictures: Iterable[HostPicture]) -> None:
        self.pictures = sorted(pictures, key=_fullness)

    def place(self, demand: Demand) -> str:
        """The host that takes the VM (empty: none does), which has less room from then on."""
        second_best = None
        steer = any(tag.startswith(APART) for tag in steering(demand.tags))
        for index, picture in enumerate(self.pictures):
            if can_be(demand, picture):
                if not steer or not _is_beside_others(demand, picture):
                    return self._take(demand, index)
                second_best = index if second_best is None else second_best
        return "" if second_best is None else self._take(demand, second_best)

    def _take(self, demand: Demand, index: int) -> str:
        picture = with_vm(self.pictures.pop(index), demand)
        insort(self.pictures, picture, key=_fullness)
        return picture.name


def _fullness(picture: HostPicture) -> tuple[int, str]:
    room = picture.memory_bytes - picture.reserve_memory_bytes - picture.memory_promised_bytes
    return -room, picture.name


def _is_beside_others(demand: Demand, picture: HostPicture) -> bool:
    return any(others(tag, demand, picture) for tag in demand.tags if tag.startswith(APART))


def _why(demand: Demand, pictures: Sequence[HostPicture]) -> str:
    from vm.placement_reasons import obstacles

    if not pictures:
        return "there is no other host"
    told = [f"{picture.name}: {obstacles(demand, picture)[0]}" for picture in pictures[:MOST_TOLD]]
    more = f"; and {len(pictures) - MOST_TOLD} more" if len(pictures) > MOST_TOLD else ""
    return "; ".join(told) + more
