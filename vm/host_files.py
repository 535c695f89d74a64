"""Files of a host that lie in no storage pool (firmware variables, a TPM's state), reached through libvirt alone.

A transient directory pool makes a directory's files into volumes for the time of one block; it is never made over a
directory that a pool has already: then that pool serves. Its name holds the mark of the job, so that what a killed
process leaves is found by the rollback (`remove_left`). Making such a pool changes the host: only steps may do so.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element, SubElement

import libvirt

from host.connection import Host
from host.errors import Busy, HvtuiError, Unsupported, WrongState
from host.steps import StepContext
from host.text import printable
from vm.domain_xml import parse, to_text

PREFIX = "hvtui-files-"
SYSTEM_NVRAM = "/var/lib/libvirt/qemu/nvram"
SYSTEM_TPM = "/var/lib/libvirt/swtpm"
_PATIENCE_S = 120.0  # for another job that looks into the same directory
_POLL_S = 0.3
_NO_DIRECTORY = "No such file or directory"
_BUILD = libvirt.VIR_STORAGE_POOL_CREATE_WITH_BUILD


def nvram_directory(host: Host) -> str:
    """Where libvirt keeps firmware variables. Raises Unsupported for another user's session on another host."""
    return _directory(host, SYSTEM_NVRAM, "qemu/nvram")


def tpm_directory(host: Host) -> str:
    """Where libvirt keeps the state of emulated TPMs, a directory a VM. Raises Unsupported as `nvram_directory`."""
    return _directory(host, SYSTEM_TPM, "qemu/swtpm")


def _directory(host: Host, of_system: str, of_session: str) -> str:
    if not host.uri.partition("?")[0].endswith("/session"):
        return of_system
    if not host.is_local:
        raise Unsupported(
            "where a session on another host keeps its files is not known here",
            about=host.name,
            remedy="Run hvtui there",
        )
    configuration = os.environ.get("XDG_CONFIG_HOME") or str(Path.home() / ".config")
    return f"{configuration}/libvirt/{of_session}"


def pool_over(connection: Any, path: str) -> tuple[str, bool] | None:
    """The name of the pool that has the directory `path`, and whether it is active; None when none has it. One of
    hvtui's own does not count. Raises libvirtError."""
    for pool in connection.listAllStoragePools(0):
        if not pool.name().startswith(PREFIX) and _has(pool, path):
            return str(pool.name()), bool(pool.isActive())
    return None


def _has(pool: Any, path: str) -> bool:
    with suppress(libvirt.libvirtError):  # it is gone again
        found = parse(pool.XMLDesc(0), root="pool").findtext("target/path", "")
        return bool(found) and os.path.normpath(found) == os.path.normpath(path)
    return False


@contextmanager
def directory_pool(ctx: StepContext, path: str, *, mark: str, build: bool = False) -> Iterator[str | None]:
    """The name of a pool over the directory `path` while the block lasts; None when there is no such directory.
    `build` makes the directory, for its owner alone. Do not call it inside a block of calls: it waits for others.

    Raises Busy when another job does not leave the directory, WrongState for a pool over it that is not active.
    """
    path = os.path.normpath(path)
    with ctx.calls("look for a pool over", path) as connection:
        existing = pool_over(connection, path)
        if existing is not None:
            _use(connection, existing, path)
    if existing is not None:
        yield existing[0]
        return
    name = f"{PREFIX}{mark}"
    if not _make(ctx, name, path, build=build):
        yield None
        return
    try:
        yield name
    finally:
        _remove(ctx, name)


def _use(connection: Any, existing: tuple[str, bool], path: str) -> None:
    name, is_active = existing
    if not is_active:
        remedy = f"Start it first: virsh pool-start --pool {printable(name)}"
        raise WrongState(f"the storage pool {printable(name)} has this directory, and is not active", about=path,
                         remedy=remedy)  # fmt: skip
    _refresh(connection.storagePoolLookupByName(name))


def _refresh(pool: Any) -> None:
    """Let libvirt look at the files, as soon as nobody makes or copies a volume there."""
    until_s = time.monotonic() + _PATIENCE_S
    while True:
        try:
            pool.refresh(0)
        except libvirt.libvirtError as error:
            if "asynchronous jobs" not in (error.get_error_message() or "") or time.monotonic() > until_s:
                raise
            time.sleep(_POLL_S)
        else:
            return


def _make(ctx: StepContext, name: str, path: str, *, build: bool) -> bool:
    """Make the pool; False when there is no such directory. What this job left behind is removed before."""
    _remove(ctx, name)
    until_s = time.monotonic() + _PATIENCE_S
    while True:
        made = _try(ctx, name, path, flags=0)
        if made is False and build:  # building changes the mode of a directory that is there
            made = _try(ctx, name, path, flags=_BUILD)
        if made is not None:
            return made
        if time.monotonic() > until_s:
            remedy = f"Finish that job; if there is none: virsh pool-destroy {PREFIX}…, as in virsh pool-list"
            raise Busy("another job is looking into this directory", about=path, remedy=remedy)
        ctx.raise_if_cancelled()
        ctx.progress(None, f"waiting: another job is looking into {printable(path, limit=80)}")
        time.sleep(_POLL_S)


def _try(ctx: StepContext, name: str, path: str, *, flags: int) -> bool | None:
    """True when the pool was made, False when there is no such directory, None when another job is in it."""
    with ctx.calls("look into", path) as connection:
        try:
            connection.storagePoolCreateXML(_pool_xml(name, path), flags)
        except libvirt.libvirtError as error:
            message = error.get_error_message() or ""
            if _NO_DIRECTORY in message:
                return False
            if PREFIX not in message:
                raise
            return None
    return True


def _pool_xml(name: str, path: str) -> str:
    root = Element("pool", type="dir")
    SubElement(root, "name").text = name
    target = SubElement(root, "target")
    SubElement(target, "path").text = path
    SubElement(SubElement(target, "permissions"), "mode").text = "0700"  # counts only for a directory that is made
    return to_text(root)


def remove_left(ctx: StepContext, mark: str) -> None:
    """Remove what a killed process of the job with this mark left. Raises HvtuiError."""
    _remove(ctx, f"{PREFIX}{mark}")


def _remove(ctx: StepContext, name: str) -> None:
    with ctx.calls("let go of", name) as connection:
        for pool in connection.listAllStoragePools(libvirt.VIR_CONNECT_LIST_STORAGE_POOLS_ACTIVE):
            if pool.name() == name and not pool.isPersistent():
                pool.destroy()  # of a pool, not of what is in it


def exists(ctx: StepContext, path: str, *, mark: str) -> bool:
    """True when the host has the directory `path`. Raises HvtuiError."""
    with directory_pool(ctx, path, mark=mark) as name:
        return name is not None


def sizes(ctx: StepContext, pool: str) -> dict[str, int]:
    """The files of a pool by name, with their sizes in bytes. Raises HvtuiError."""
    with ctx.calls("list the files of", pool) as connection:
        found = connection.storagePoolLookupByName(pool).listAllVolumes(0)
        return {volume.name(): int(volume.info()[1]) for volume in found}


def split(path: str) -> tuple[str, str]:
    """The directory and the file name of an absolute path. Raises HvtuiError for anything else."""
    directory, _, name = path.rpartition("/")
    if not path.startswith("/") or not name:
        raise HvtuiError("this is no path of a file", about=path)
    return directory or "/", name
