"""Which disks a kind of move copies and to where, and which directories have to be proved shared. Pure functions."""

from __future__ import annotations

import re
from pathlib import PurePosixPath

from vm.clone_xml import REMOVABLE
from vm.move_model import DiskCopy, MoveDisk, MoveKind, MovePicture, MoveRequest

_OLD_MARK = re.compile(r"\.moved-[0-9a-f]{8}(?=\.|$)")
_COPYING = frozenset({MoveKind.LIVE_STORAGE, MoveKind.QUICK, MoveKind.OFFLINE})


def copied_disks(picture: MovePicture, kind: MoveKind) -> tuple[MoveDisk, ...]:
    """The disks that have to be copied: images that the target does not see at the same path."""
    if kind not in _COPYING:
        return ()
    return tuple(disk for disk in picture.disks if disk.needs_copy)


def copies_for(picture: MovePicture, kind: MoveKind, mark: str) -> tuple[DiskCopy, ...]:
    """Where the copies go. Their names carry the mark, in place of that of an earlier move."""
    disks = copied_disks(picture, kind)
    keeps_backing = kind is not MoveKind.LIVE_STORAGE or all(
        not disk.backing or disk.target_backing for disk in disks
    )  # libvirt copies either what each disk holds itself, or all of each
    return tuple(_copy(disk, mark, keeps_backing=keeps_backing) for disk in disks)


def boot_copies_for(picture: MovePicture, kind: MoveKind, mark: str) -> tuple[DiskCopy, ...]:
    """Where the files go that the VM boots from and the target has not: every kind needs them there."""
    if kind is MoveKind.DEFINITION:
        return ()
    files = (file for file in picture.boot_files if file.needs_copy and file.target_pool)
    return tuple(_copy(file, mark, keeps_backing=False) for file in files)


def is_of_a_move(path: str) -> bool:
    """Whether a move gave the file its name: it is that VM's alone."""
    return _OLD_MARK.search(PurePosixPath(path).name) is not None


def _copy(disk: MoveDisk, mark: str, *, keeps_backing: bool) -> DiskCopy:
    name = marked_name(PurePosixPath(disk.source_path).name or disk.target, mark)
    backing = disk.target_backing if keeps_backing else ""
    return DiskCopy(
        target=disk.target,
        source_path=disk.source_path,
        path=str(PurePosixPath(disk.target_pool_path or "/") / name),
        pool=disk.target_pool,
        volume=name,
        format=disk.format or "raw",
        capacity_bytes=disk.capacity_bytes,
        backing=backing,
        backing_format=disk.backing_format if backing else "",
    )


def marked_name(name: str, mark: str) -> str:
    """A volume's name with the mark of a move: web.qcow2 becomes web.moved-1a2b3c4d.qcow2."""
    path = PurePosixPath(_OLD_MARK.sub("", name))
    return f"{path.stem[:180]}.moved-{mark}{path.suffix}"


def shared_directories(picture: MovePicture, kind: MoveKind) -> tuple[str, ...]:
    """The directories that both hosts have to see as one before disks in them change hands."""
    if kind is MoveKind.DEFINITION:
        return ()
    copied = {disk.target for disk in copied_disks(picture, kind)}
    disks = (disk for disk in picture.disks if disk.is_local_file and disk.device not in REMOVABLE)
    directories = (str(PurePosixPath(disk.source_path).parent) for disk in disks if disk.target not in copied)
    return tuple(sorted(set(directories)))


def request_pool(request: MoveRequest, target: str) -> str:
    """The pool that the user chose for a disk; empty where he left it open."""
    return request.pools.get(target) or request.pools.get("", "")
