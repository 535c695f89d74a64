"""What the disks of a VM that is deleted build on: bases that only hvtui's own linked clones have, and that go with the
last VM on them.

A linked clone freezes its origin's disk, which no VM names any more from then on. Only an image whose name hvtui gave
is such a base, and never a template's. This module changes nothing; vm.delete_steps removes, and asks it again then.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from host.connection import Host
from host.errors import HvtuiError
from host.text import printable
from vm import library as libraries
from vm.disk_uses import DiskUse, World, why_kept

# NAME-MARK.qcow2, NAME-MARK-vda.qcow2, NAME-MARK-2.qcow2: as hvtui names what it makes.
_MADE = re.compile(r".-[0-9a-f]{8}(-[a-z0-9]{1,8})?\.(qcow2|raw)$")
_LONGEST_CHAIN = 200


@dataclass(frozen=True, slots=True)
class Base:
    """An image that a removed disk builds on. `keep_reason` is why it stays for now; `goes_with_last`: once nothing
    builds on it any more, it goes."""

    path: str
    pool: str
    volume: str
    size_bytes: int
    keep_reason: str = ""
    goes_with_last: bool = True


def bases_of(host: Host, world: World, uses: Sequence[DiskUse]) -> tuple[Base, ...]:
    """What the disks in `uses`, all of which are removed, build on, nearest first; a template's image ends the chain
    and is not told. Raises ConnectionLost, Denied."""
    found: dict[str, Base] = {}
    removed = {use.path for use in uses}
    with host.calls("see what its disks build on") as connection:
        for use in uses:
            for base in _chain(connection, world, use.path, removed):
                found.setdefault(base.path, base)
                removed |= {base.path} if not base.keep_reason else set()
    return tuple(found.values())


def _chain(connection: Any, world: World, path: str, removed: set[str]) -> Iterable[Base]:
    here = world.volume_at(path)
    for _ in range(_LONGEST_CHAIN):
        base = world.volume_at(here.backing) if here is not None and here.backing else None
        if base is None or base.kind != "file" or is_of_template(connection, base.pool, base.name):
            return
        reason = keep_reason(world, base.path, removed)
        is_made = bool(_MADE.search(base.name))
        if not is_made:
            reason = reason or "it is none of hvtui's making"
        yield Base(base.path, base.pool, base.name, base.size_bytes, reason, is_made)
        if not is_made:
            return
        here = base


def keep_reason(world: World, path: str, removed: Iterable[str] = ()) -> str:
    """Why the base must stay, with the VMs in place of their disks; empty when nothing builds on it but `removed`."""
    builders = [each for each in world.look_up(world.builders, path) if each not in set(removed)]
    if not builders:
        return why_kept(world, path, without=removed)
    names = dict.fromkeys(name for each in builders for name in world.look_up(world.users, each) or (each,))
    shown = [printable(name, limit=120) for name in names]
    more = f" and {len(shown) - 3} more" if len(shown) > 3 else ""
    return f"{', '.join(shown[:3])}{more} {'builds' if len(shown) == 1 else 'build'} on it"


def is_of_template(connection: Any, pool: str, volume: str) -> bool:
    """True when a template of that pool has the volume as an image, and where that cannot be told. Raises
    libvirtError."""
    try:
        library = libraries.read_here(connection, pool)
    except HvtuiError:
        return True
    if any(volume == image.volume for template in library.templates for image in template.images):
        return True
    return bool(library.problems)
