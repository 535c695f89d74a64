"""Whether two hosts see the same files at the same path: a look that changes nothing, and a proof that writes a token.

`looks_shared` compares what both libvirts say of the same volume: a change time that is equal to the nanosecond is that
of one file, since no copy keeps it. `prove_shared` writes a token on one side and reads it on the other: steps only.
Everything goes through libvirt's storage pools, so that it works for hosts without files of their own here.
"""

from __future__ import annotations

import time
import xml.etree.ElementTree as ET
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from posixpath import dirname, normpath
from typing import Any

import libvirt

from host import volumes
from host.connection import Host
from host.errors import Busy, NotFound, WrongState
from host.text import printable

PREFIX = "hvtui-token-"
MOST_SIBLINGS = 8  # volumes beside the one in question that are compared
# Pools whose volumes are named by where they come from: equal sources are one storage, whatever the host.
SHARED_POOLS = frozenset({"netfs", "iscsi", "iscsi-direct", "rbd", "gluster"})
_TRIES, _PAUSE_S = 4, 0.5  # for a network file system to show the other side's new file
_PATIENCE_S, _POLL_S = 60.0, 0.3  # for another job that looks into the same directory
_TOKEN_MODE = "0644"  # noqa: S105 - a file's mode; the other host's root may be nobody here


@dataclass(frozen=True, slots=True)
class Likeness:
    """Whether both hosts see the same file: True, False, or None where nothing tells. `reason` is a clause."""

    is_shared: bool | None
    reason: str


@dataclass(frozen=True, slots=True)
class _Seen:
    """A volume as one host sees it; times are of the inode, in nanoseconds as text."""

    capacity_bytes: int
    modified: str
    changed: str


@dataclass(frozen=True, slots=True)
class _Place:
    """The directory's pool on one host: its source where that is on the network."""

    pool: Any
    source: str


def looks_shared(source: Host, target: Host, paths: Collection[str]) -> dict[str, Likeness]:
    """For each path of a disk, whether `target` sees the same file at the same path. Reads only, and no pool is
    refreshed: a file that the target's libvirt has not looked for yet is judged by those beside it. A source that is
    no path (rbd, iscsi, nbd, gluster: its name on the network) is the same everywhere. Raises ConnectionLost."""
    found = {path: Likeness(True, "it is on the network") for path in paths if not path.startswith("/")}
    files = [path for path in paths if path.startswith("/")]
    if files:
        with (
            source.calls("look at its disks", source.name) as here,
            target.calls("look at disks", target.name) as there,
        ):
            found |= {path: _compare(here, there, path) for path in files}
    return {path: found[path] for path in paths}


def _compare(here: Any, there: Any, path: str) -> Likeness:
    own, other = _place_of(here, dirname(path)), _place_of(there, dirname(path))
    if other is None:
        return Likeness(None, "the target has no storage pool with that directory")
    if own is None:
        return Likeness(None, "the source has no storage pool with that directory")
    if own.source and own.source == other.source:
        return Likeness(True, "both hosts have it from the same server")
    likeness = _compare_volume(lambda: _seen(own.pool, path), lambda: _seen(other.pool, path))
    return likeness if likeness is not None else _compare_siblings(own.pool, other.pool)


def _compare_volume(see_here: Callable[[], _Seen | None], see_there: Callable[[], _Seen | None]) -> Likeness | None:
    """None where one side does not know the volume. A file that a guest writes to changes between two looks: the
    target's look must then lie between two of the source's."""
    before, there, after = see_here(), see_there(), see_here()
    if before is None or there is None or after is None:
        return None
    if not there.changed or not before.changed:
        return Likeness(None, "libvirt tells no times of it")
    if there.capacity_bytes == before.capacity_bytes and _is_between(before, there, after):
        return Likeness(True, "both hosts see one file: size and time of change are equal")
    return Likeness(False, "the file of that path on the target is another one")


def _is_between(before: _Seen, there: _Seen, after: _Seen) -> bool:
    return all(
        _number(getattr(before, key)) <= _number(getattr(there, key)) <= _number(getattr(after, key))
        for key in ("modified", "changed")
    )


def _number(timestamp: str) -> tuple[int, int]:
    """Seconds and nanoseconds of libvirt's "1700000000.123456789"."""
    whole, _, fraction = timestamp.partition(".")
    return int(whole or 0), int(fraction.ljust(9, "0")[:9])


def _compare_siblings(own: Any, other: Any) -> Likeness:
    """By the volumes of the same name that both know of the directory."""
    theirs = {volume.name(): volume for volume in other.listAllVolumes(0)}
    both = [(volume, theirs[volume.name()]) for volume in own.listAllVolumes(0) if volume.name() in theirs]
    told = [each for mine, its in both[:MOST_SIBLINGS] if (each := _compare_two(mine, its)) is not None]
    if any(likeness.is_shared for likeness in told):
        return Likeness(True, "both hosts see the same files beside it")
    if told:
        return Likeness(False, "the target has another directory at that path")
    return Likeness(None, "the target's pool does not know the file, and no other to compare")


def _compare_two(mine: Any, its: Any) -> Likeness | None:
    return _compare_volume(lambda: _read(mine), lambda: _read(its))


def _place_of(connection: Any, directory: str) -> _Place | None:
    """The active pool with that directory."""
    for pool in connection.listAllStoragePools(libvirt.VIR_CONNECT_LIST_STORAGE_POOLS_ACTIVE):
        root = _pool_xml(pool)
        if root is not None and normpath(root.findtext("target/path", "")) == normpath(directory):
            return _Place(pool, _network_source(root))
    return None


def _pool_xml(pool: Any) -> ET.Element | None:
    try:
        return ET.fromstring(pool.XMLDesc(0))  # noqa: S314  libvirt wrote it
    except libvirt.libvirtError as error:
        if error.get_error_code() != libvirt.VIR_ERR_NO_STORAGE_POOL:
            raise
        return None


def _network_source(root: ET.Element) -> str:
    """Server and path of a pool on the network; empty for any other."""
    source = root.find("source")
    if root.get("type") not in SHARED_POOLS or source is None:
        return ""
    hosts = sorted(f"{host.get('name')}:{host.get('port', '')}" for host in source.findall("host"))
    place = [f"{part.tag}={part.get('path') or part.text or ''}" for part in source if part.tag in _PLACES]
    return " ".join([str(root.get("type")), *hosts, *place])


_PLACES = frozenset({"dir", "device", "name"})


def _seen(pool: Any, path: str) -> _Seen | None:
    volume = volumes.find_volume(pool, path.rpartition("/")[2])
    return _read(volume) if volume is not None else None


def _read(volume: Any) -> _Seen | None:
    """libvirt looks at the file again for its XML. None for one that is gone."""
    try:
        root = ET.fromstring(volume.XMLDesc(0))  # noqa: S314  libvirt wrote it
    except libvirt.libvirtError as error:
        if error.get_error_domain() == libvirt.VIR_FROM_RPC:
            raise
        return None
    times = "target/timestamps"
    return _Seen(
        int(root.findtext("capacity", "0")), root.findtext(f"{times}/mtime", ""), root.findtext(f"{times}/ctime", "")
    )


# The proof


def prove_shared(source: Host, target: Host, directory: str, mark: str) -> bool:
    """True when a token that is written into `directory` at the source is read there at the target. For steps: it makes
    a file, and where no pool has the directory a pool for as long; both are gone afterwards, and one that a killed
    step of the same `mark` left is removed first.

    Raises NotFound where the source has no such directory, WrongState for a pool over it that is not active, Busy.
    """
    import secrets

    name, token = f"{PREFIX}{mark}", secrets.token_hex(32)
    with _pool_over(source, directory, name) as own:
        if own is None:
            raise NotFound("there is no such directory", about=f"{printable(directory)} on {source.name}")
        with _pool_over(target, directory, name) as other:
            if other is None:
                return False
            try:
                with source.calls("write a token", directory) as connection:
                    volumes.write_text(connection, own, name, token, mode=_TOKEN_MODE)
                return _reads(target, other, name, token)
            finally:
                _forget(source, own, name)
                with target.calls("forget the token", other) as connection:
                    _refresh(connection.storagePoolLookupByName(other))


def _reads(target: Host, pool: str, name: str, token: str) -> bool:
    for attempt in range(_TRIES):
        if attempt:
            time.sleep(_PAUSE_S)
        with target.calls("read the token", pool) as connection:
            found = connection.storagePoolLookupByName(pool)
            _refresh(found)
            volume = volumes.find_volume(found, name)
            if volume is not None:
                return bool(volumes.read_head(volume, size_bytes=len(token)) == token.encode())
    return False


def _forget(host: Host, pool: str, name: str) -> None:
    with host.calls("remove the token", pool) as connection:
        volume = volumes.find_volume(connection.storagePoolLookupByName(pool), name)
        if volume is not None:
            volumes.delete(volume)


@contextmanager
def _pool_over(host: Host, directory: str, name: str) -> Iterator[str | None]:
    """The name of a pool over the directory while the block lasts, a transient one where there is none; None when there
    is no such directory."""
    _remove(host, name)
    existing = _existing(host, directory)
    if existing is not None:
        yield existing
        return
    if not _make(host, directory, name):
        yield None
        return
    try:
        yield name
    finally:
        _remove(host, name)


def _existing(host: Host, directory: str) -> str | None:
    with host.calls("look for a pool over", directory) as connection:
        for pool in connection.listAllStoragePools(0):
            root = _pool_xml(pool)
            if root is None or normpath(root.findtext("target/path", "")) != normpath(directory):
                continue
            if pool.isActive() and pool.isPersistent():
                return str(pool.name())
            if pool.isPersistent():
                shown = printable(pool.name())
                raise WrongState(
                    f"the storage pool {shown} of {host.name} has this directory, and is not active",
                    about=directory,
                    remedy=f"Start it first: virsh -c {host.uri} pool-start --pool {shown}",
                )
    return None


def _make(host: Host, directory: str, name: str) -> bool:
    """A transient pool; False when there is no such directory. It waits for one that another job has over it."""
    root = ET.Element("pool", type="dir")
    ET.SubElement(root, "name").text = name
    ET.SubElement(ET.SubElement(root, "target"), "path").text = normpath(directory)
    until_s = time.monotonic() + _PATIENCE_S
    while True:
        with host.calls("look into", directory) as connection:
            try:
                connection.storagePoolCreateXML(ET.tostring(root, encoding="unicode"), 0)
            except libvirt.libvirtError as error:
                message = error.get_error_message() or ""
                if "No such file or directory" in message:
                    return False
                if "hvtui-" not in message:
                    raise
                if time.monotonic() > until_s:
                    raise Busy("another job is looking into this directory", about=directory) from error
            else:
                return True
        time.sleep(_POLL_S)


def _remove(host: Host, name: str) -> None:
    with host.calls("let go of", name) as connection, _suppress_missing():
        pool = connection.storagePoolLookupByName(name)
        if not pool.isPersistent():
            pool.destroy()  # of a pool, not of what is in it


@contextmanager
def _suppress_missing() -> Iterator[None]:
    """Ignore that a pool is gone already."""
    try:
        yield
    except libvirt.libvirtError as error:
        if error.get_error_code() != libvirt.VIR_ERR_NO_STORAGE_POOL:
            raise


def _refresh(pool: Any) -> None:
    """Let libvirt look at the files; where it is just making volumes there, the next try does."""
    with suppress(libvirt.libvirtError):
        volumes.refresh(pool)
