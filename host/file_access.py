"""Whether another user (the one QEMU runs as) may reach a file: the permission bits and ACLs of a whole path.

Only stat and the ACL attribute are read, so it works without becoming that user. What else may refuse (AppArmor,
SELinux, a mount option) is not seen here. This module changes no permission.
"""

from __future__ import annotations

import os
import stat
import struct
from dataclasses import dataclass
from enum import IntFlag
from pathlib import Path

_ACL_ATTRIBUTE = "system.posix_acl_access"
_ACL_VERSION = 2
# Tags of linux/posix_acl.h
_ACL_USER_OBJECT, _ACL_USER, _ACL_GROUP_OBJECT, _ACL_GROUP, _ACL_MASK, _ACL_OTHER = 0x01, 0x02, 0x04, 0x08, 0x10, 0x20
_MOST_LINKS = 40  # as the kernel: ELOOP


class Access(IntFlag):
    """Permission bits, as in a file's mode."""

    TRAVERSE = 1
    WRITE = 2
    READ = 4


@dataclass(frozen=True, slots=True)
class User:
    """A user of this system with all the groups it is in."""

    name: str
    uid: int
    gids: frozenset[int]

    @property
    def is_root(self) -> bool:
        """Root passes every permission bit."""
        return self.uid == 0


AclEntry = tuple[int, int, int]  # tag, permission bits, user or group id


def may(user: User, path: Path, wanted: Access) -> bool:
    """Whether `user` has `wanted` on `path` itself, whatever the directories above say. Raises OSError."""
    if user.is_root:
        return True
    status = path.stat()
    return (_granted(user, status, read_acl(path)) & wanted) == wanted


def _granted(user: User, status: os.stat_result, acl: tuple[AclEntry, ...]) -> int:
    mode = status.st_mode
    if user.uid == status.st_uid:
        return (mode >> 6) & 7
    if acl:
        return _granted_by_acl(user, status, acl)
    return (mode >> 3) & 7 if status.st_gid in user.gids else mode & 7


def _granted_by_acl(user: User, status: os.stat_result, acl: tuple[AclEntry, ...]) -> int:
    """The access check of acl(5) for a user who is not the owner."""
    mask = next((bits for tag, bits, _ in acl if tag == _ACL_MASK), 7)
    for tag, bits, number in acl:
        if tag == _ACL_USER and number == user.uid:
            return bits & mask
    in_groups = [
        bits
        for tag, bits, number in acl
        if (tag == _ACL_GROUP and number in user.gids) or (tag == _ACL_GROUP_OBJECT and status.st_gid in user.gids)
    ]
    if in_groups:
        granted = 0
        for bits in in_groups:
            granted |= bits
        return granted & mask
    return next((bits for tag, bits, _ in acl if tag == _ACL_OTHER), 0)


def read_acl(path: Path) -> tuple[AclEntry, ...]:
    """The access ACL of `path`; empty where it has none (its mode says all)."""
    try:
        data = os.getxattr(path, _ACL_ATTRIBUTE)
    except OSError:
        return ()
    if len(data) < 4 or struct.unpack_from("<I", data)[0] != _ACL_VERSION:
        return ()
    return tuple(struct.iter_unpack("<HHI", data[4 : 4 + (len(data) - 4) // 8 * 8]))


@dataclass(frozen=True, slots=True)
class Visited:
    """What opening a path goes through: the directories, in order, and where it ends. `obstacle` says why the walk
    did not get to the end (a missing file, a directory that this user may not look into)."""

    directories: tuple[Path, ...]
    end: Path
    obstacle: str = ""


def walk(path: Path) -> Visited:
    """Follow `path` as the kernel does, symbolic links included."""
    directories: dict[Path, None] = {}
    rest = list(reversed(path.absolute().parts[1:]))
    here = Path("/")
    links = 0
    while rest:
        directories[here] = None
        part = rest.pop()
        following = here.parent if part == ".." else here / part
        try:
            mode = following.lstat().st_mode
        except OSError as error:
            why = "does not exist" if isinstance(error, FileNotFoundError) else f"cannot be looked at: {error.strerror}"
            return Visited(tuple(directories), following, f"{following} {why}")
        if not stat.S_ISLNK(mode):
            here = following
            continue
        links += 1
        if links > _MOST_LINKS:
            return Visited(tuple(directories), following, f"{following} is part of a circle of symbolic links")
        target = following.readlink()
        rest.extend(reversed([part for part in target.parts if part != "/"]))
        here = Path("/") if target.is_absolute() else here
    return Visited(tuple(directories), here)
