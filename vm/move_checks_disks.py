"""A moving VM's disks: which of them the target sees, where copies of the others can go, and what is in the drives.

Pure functions on what was read.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import PurePosixPath
from xml.etree.ElementTree import Element

from host.text import printable
from host.units import format_bytes
from vm.clone_xml import REMOVABLE, target_of
from vm.domain_xml import disk_source
from vm.move_kinds import ALL, MEMORY, MOVES
from vm.move_model import BOOT_FILES, Check, MoveDisk, MoveKind, MoveRequest
from vm.move_reading import PoolReading, SourceReading, TargetReading, VolumeReading

UNSUPPORTED, NOT_FOUND = 8, 3
FILE_POOLS = frozenset({"dir", "fs", "netfs"})
_COPYING = frozenset({MoveKind.LIVE_STORAGE, MoveKind.QUICK, MoveKind.OFFLINE})
_SHARED_ONLY = frozenset({MoveKind.LIVE})
_KNOWN_TYPES = frozenset({"file", "block", "volume", "network"})


def read_disks(here: SourceReading, there: TargetReading, request: MoveRequest) -> tuple[MoveDisk, ...]:
    """The VM's disks with what each host knows of them."""
    return tuple(_disk(disk, here, there, request) for disk in here.current.iterfind("devices/disk"))


def read_boot_files(here: SourceReading, there: TargetReading, request: MoveRequest) -> tuple[MoveDisk, ...]:
    """The files that the hypervisor loads itself, with what each host knows of them."""
    paths = {tag: here.current.findtext(f"os/{tag}", "") for tag in BOOT_FILES}
    return tuple(_boot_file(tag, path, here, there, request) for tag, path in paths.items() if path)


def _boot_file(tag: str, path: str, here: SourceReading, there: TargetReading, request: MoveRequest) -> MoveDisk:
    volume = here.host.volumes.get(path)
    pool = _pool_for(tag, volume, there, request)
    return MoveDisk(
        target=tag,
        device="file",
        source_path=path,
        format="raw",
        capacity_bytes=volume.capacity_bytes if volume else 0,
        is_shared=True if path in there.host.volumes else False if path_is_known(path, there.pools) else None,
        read_only=True,
        pool=volume.pool if volume else "",
        volume=volume.name if volume else "",
        target_pool=pool.name if pool else "",
        target_pool_path=pool.path if pool else "",
    )


def _disk(disk: Element, here: SourceReading, there: TargetReading, request: MoveRequest) -> MoveDisk:
    target, source, kind = target_of(disk), disk_source(disk), disk.get("type", "file")
    driver = disk.find("driver")
    volume = here.host.volumes.get(source)
    capacity, allocation = here.sizes.get(target, (0, 0))
    backing = _chain(here, volume)
    pool = _pool_for(target, volume, there, request)
    below = volume.backing if volume is not None else ""
    return MoveDisk(
        target=target,
        device=disk.get("device", "disk"),
        source_path=source,
        format="" if driver is None else driver.get("type", ""),
        capacity_bytes=capacity or (volume.capacity_bytes if volume else 0),
        allocation_bytes=allocation or (volume.allocation_bytes if volume else 0),
        is_shared=_is_shared(source, there) if kind != "network" else True,
        read_only=disk.find("readonly") is not None,
        pool=volume.pool if volume else "",
        volume=volume.name if volume else "",
        target_pool=pool.name if pool else "",
        backing=backing,
        cache="" if driver is None else driver.get("cache", ""),
        is_network=kind == "network",
        is_block=kind == "block" or (volume is not None and volume.kind == "block"),
        target_pool_path=pool.path if pool else "",
        target_backing=below if below and _is_shared(below, there) else "",
        backing_format=volume.backing_format if volume else "",
        shareable=disk.find("shareable") is not None,
    )


def _chain(here: SourceReading, volume: VolumeReading | None) -> tuple[str, ...]:
    found: list[str] = []
    while volume is not None and volume.backing and volume.backing not in found:
        found.append(volume.backing)
        if volume.backing_format == "raw":  # what was written into that one is no header, whatever it looks like
            break
        volume = here.host.volumes.get(volume.backing)
    return tuple(found)


def _is_shared(path: str, there: TargetReading) -> bool | None:
    """Whether the target sees the same file at the path; None where nobody can tell."""
    if not path.startswith("/"):
        return None if path else False
    told = there.likeness.get(path)
    if told is None and path not in there.host.volumes and path_is_known(path, there.pools):
        return False
    return told


def path_is_known(path: str, pools: Iterable[PoolReading]) -> bool:
    """Whether an active pool lists the directory of `path`: a file that it does not know is not there."""
    parent = str(PurePosixPath(path).parent)
    return any(pool.is_active and pool.path == parent for pool in pools)


def _pool_for(
    target: str, volume: VolumeReading | None, there: TargetReading, request: MoveRequest
) -> PoolReading | None:
    """Where a copy would go: the pool that was asked for, else the one of the same name, else at the same place, else
    the only one there is."""
    usable = {pool.name: pool for pool in there.pools if pool.is_active and pool.kind in FILE_POOLS}
    wanted = request.pools.get(target) or request.pools.get("", "")
    if wanted:
        return usable.get(wanted)
    if volume is not None and volume.pool in usable:
        return usable[volume.pool]
    parent = str(PurePosixPath(volume.path).parent) if volume is not None else ""
    beside = next((pool for pool in usable.values() if parent and pool.path == parent), None)
    return beside or usable.get("default") or (next(iter(usable.values())) if len(usable) == 1 else None)


# Checks


def check_disks(
    here: SourceReading,
    there: TargetReading,
    request: MoveRequest,
    disks: Sequence[MoveDisk],
    boot_files: Sequence[MoveDisk] = (),
) -> Iterator[Check]:
    """Every check of the disks."""
    yield from _types(here)
    for disk in disks:
        if disk.device in REMOVABLE:
            yield from _medium(disk, there, request)
        elif disk.source_path:
            yield from _image(disk, there, request)
    yield from _something_to_copy(disks)
    yield from _space(there, (*disks, *boot_files))
    for file in boot_files:
        yield from _boot_file_check(file, there)
    wanted = {name for name in request.pools.values() if name}
    for name in sorted(wanted - {pool.name for pool in there.pools}):
        known = ", ".join(printable(pool.name, limit=60) for pool in there.pools) or "none"
        reason = f"{there.host.name} has no storage pool {printable(name, limit=60)}"
        yield Check("pool", False, reason, f"Pools there: {known}", _COPYING, NOT_FOUND)


def _types(here: SourceReading) -> Iterator[Check]:
    for disk in here.current.iterfind("devices/disk"):
        kind, name = disk.get("type", "file"), printable(target_of(disk), limit=20)
        if kind not in _KNOWN_TYPES and disk_source(disk):
            reason = f"its disk {name} is of the type {printable(kind, limit=20)}, which is bound to this host"
            yield Check("disk", False, reason, "Detach it first", MEMORY, UNSUPPORTED)
        source = disk.find("source")
        host = source.find("host") if source is not None and kind == "network" else None
        if host is not None and (host.get("socket") or host.get("name") in {"localhost", "127.0.0.1", "::1"}):
            reason = f"its disk {name} is reached through this very host ({printable(disk_source(disk), limit=80)})"
            yield Check("disk", False, reason, "Give it an address that both hosts reach", MOVES, UNSUPPORTED)


def _image(disk: MoveDisk, there: TargetReading, request: MoveRequest) -> Iterator[Check]:
    name, path, target = printable(disk.target, limit=20), printable(disk.source_path, limit=120), there.host.name
    if disk.is_shared:
        if not disk.is_network:
            yield Check("disk", True, f"{target} has its disk {name} at the same path ({path})")
        yield from _cache(disk)
        return
    if disk.is_shared is None:
        reason = f"whether {target} sees its disk {name} ({path}) cannot be told: a live move proves it, others copy it"
        yield Check("disk", False, reason, doubts=_SHARED_ONLY)
        yield from _cache(disk)
    else:
        reason = f"{target} does not see its disk {name} ({path})"
        yield Check("disk", False, reason, "Copy it along (--kind live-storage), or put it on storage that both share",
                    _SHARED_ONLY)  # fmt: skip
    if not disk.target_pool:
        wanted = request.pools.get(disk.target) or request.pools.get("", "")
        what = (
            f"the storage pool {printable(wanted, limit=60)} is no active directory" if wanted else "no pool is alike"
        )
        reason = f"{target} has no place for a copy of its disk {name}: {what}"
        yield Check(
            "pool", False, reason, "Name an active directory pool of that host: --pool POOL", _COPYING, NOT_FOUND
        )
    blocked = MOVES if disk.is_shared is False else _COPYING
    if disk.shareable:
        reason = f"its disk {name} is shared with other VMs: a copy would be another disk"
        yield Check("disk", False, reason, "Put it on storage that both hosts share", blocked)
    if disk.device == "lun":
        reason = f"its disk {name} is a device of this host given to the guest"
        yield Check("disk", False, reason, "Detach it first", blocked, UNSUPPORTED)


def _cache(disk: MoveDisk) -> Iterator[Check]:
    if disk.cache == "unsafe" and not disk.is_network:
        name = printable(disk.target, limit=20)
        reason = f"its disk {name} has the cache mode 'unsafe': the other host might read old data"
        remedy = "Give it the cache mode 'none' (hvtui vm edit, then a restart), or copy it along"
        yield Check("cache", False, reason, remedy, frozenset({MoveKind.LIVE, MoveKind.QUICK}))


def _something_to_copy(disks: Sequence[MoveDisk]) -> Iterator[Check]:
    if not any(disk.needs_copy for disk in disks):
        yield Check("copies", False, "there is no disk to copy: all are there already", "Take the kind 'live'",
                    frozenset({MoveKind.LIVE_STORAGE}))  # fmt: skip


def _medium(disk: MoveDisk, there: TargetReading, request: MoveRequest) -> Iterator[Check]:
    if not disk.source_path:
        return
    what = "CD" if disk.device == "cdrom" else "floppy"
    path, target = printable(disk.source_path, limit=120), there.host.name
    if request.options.eject:
        yield Check("medium", True, f"the {what} {path} is ejected first")
    elif disk.is_shared:
        yield Check("medium", True, f"{target} has the {what} at the same path ({path})")
    elif disk.is_shared is None:
        yield Check(
            "medium", False, f"whether {target} has the {what} {path} cannot be told: without it the move fails"
        )
    else:
        reason = f"a {what} is in its drive {printable(disk.target, limit=20)} that {target} has not ({path})"
        yield Check(
            "medium", False, reason, "Eject it first (--eject does), or put it there", ALL - {MoveKind.DEFINITION}
        )


def _space(there: TargetReading, disks: Sequence[MoveDisk]) -> Iterator[Check]:
    for pool in there.pools:
        those = [disk for disk in disks if disk.needs_copy and disk.target_pool == pool.name]
        needed = sum(min(disk.allocation_bytes, disk.capacity_bytes) or disk.capacity_bytes for disk in those)
        most = sum(disk.capacity_bytes for disk in those)
        shown = (
            f"the pool {printable(pool.name, limit=60)} of {there.host.name} has {format_bytes(pool.free_bytes)} free"
        )
        if needed > pool.free_bytes:
            reason = f"{shown}, and the copies need {format_bytes(needed)}"
            yield Check("space", False, reason, "Make room there, or choose another pool (--pool)", _COPYING)
        elif most > pool.free_bytes:
            yield Check("space", False, f"{shown}, and the copies may grow to {format_bytes(most)}")
        elif those:
            yield Check("space", True, f"{shown}; the copies need {format_bytes(needed)}")


def _boot_file_check(file: MoveDisk, there: TargetReading) -> Iterator[Check]:
    """One that the target's pools do not know is copied. Where they do not look nobody can tell."""
    name, shown = there.host.name, printable(file.source_path, limit=120)
    if file.is_shared is None:
        yield Check(
            "boot-files", False, f"whether {name} has the {file.target} that it boots from ({shown}) cannot be told"
        )
    elif not file.is_shared:
        reason = f"{name} has not the {file.target} that it boots from ({shown})"
        kinds = frozenset({MoveKind.DEFINITION}) if file.target_pool else ALL
        yield Check("boot-files", False, reason, "Copy it there, to the same path", kinds, NOT_FOUND)


def emptied(disks: Iterable[MoveDisk]) -> tuple[str, ...]:
    """The drives whose media the target has not."""
    return tuple(disk.target for disk in disks if disk.device in REMOVABLE and disk.source_path and not disk.is_shared)
