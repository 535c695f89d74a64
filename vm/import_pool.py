"""The storage pool that an import puts its disks into: whether it is there and has room, and the step that makes or
starts it. Reads only."""

from __future__ import annotations

import shlex
import uuid as uuids
from pathlib import Path
from typing import Any

from host import images, pool_room
from host.connection import Host
from host.errors import NotFound, Unsupported
from host.plan import Step
from host.text import printable
from host.units import format_bytes
from vm.deploy_checks import FILE_POOLS, Target
from vm.domain_xml import parse
from vm.import_report import Findings


def read_pool(host: Host, connection: Any, name: str, findings: Findings) -> Target:
    """The pool as it is; one with exists=False where it has to be made, which only the pool `default` is. Raises
    libvirtError."""
    from vm.create import DEFAULT_POOL, DEFAULT_POOL_PATH

    pools = {pool.name(): pool for pool in connection.listAllStoragePools(0)}
    shown = printable(name, limit=60)
    if name in pools:
        root = parse(pools[name].XMLDesc(0), root="pool")
        path, is_active = root.findtext("target/path", ""), bool(pools[name].isActive())
        kind = root.get("type", "")
        if kind not in FILE_POOLS:
            reason = f"the storage pool {shown} holds no files ({printable(kind, limit=20)})"
            findings.block(reason, "Choose a directory pool", exit_code=Unsupported.exit_code)
        room = pool_room.free_bytes(host, path, pools[name].info()) if is_active else _free_bytes(host, path)
        findings.ok(f"the storage pool {shown} is there" + ("" if is_active else ", and is started"))
        return Target(name, path, kind, is_active=is_active, free_bytes=room)
    if name != DEFAULT_POOL:
        known = ", ".join(printable(each, limit=60) for each in sorted(pools)) or "none"
        findings.block(f"there is no storage pool {shown}", f"Pools here: {known}", exit_code=NotFound.exit_code)
    is_session = host.uri.partition("?")[0].endswith("/session")
    path = str(Path.home() / ".local/share/libvirt/images" if is_session else DEFAULT_POOL_PATH)
    return Target(name, path, exists=False, is_active=False, free_bytes=_free_bytes(host, path))


def _free_bytes(host: Host, path: str) -> int | None:
    """Where there is no active pool to be asked: what the file system says, where it is this machine's."""
    return images.free_bytes(path) if path.startswith("/") and host.is_local and not host.is_simulated else None


def pool_steps(host: Host, pool: Target) -> tuple[Step, ...]:
    """The step that makes or starts the pool, if it is needed."""
    if pool.is_active:
        return ()
    args = {"name": pool.name, "uuid": str(uuids.uuid4()), "path": pool.path}
    start = _virsh(host, "pool-start", "--pool", pool.name)
    if pool.exists:
        return (Step("create.pool", f"Start the storage pool {pool.name}", args, (start,)),)
    define = _virsh(host, "pool-define-as", "--name", pool.name, "--type", "dir", "--target", pool.path)
    build = _virsh(host, "pool-build", "--pool", pool.name)
    title = f"Make the storage pool {pool.name} in {pool.path}"
    return (Step("create.pool", title, args, (define, build, start)),)


def _virsh(host: Host, *arguments: str) -> str:
    return shlex.join(["virsh", "-c", host.uri, *arguments])


def check_room(pool: Target, *, now_bytes: int, most_bytes: int, findings: Findings) -> None:
    """Is there room for what is copied now, and for what the guest may write later?"""
    if pool.free_bytes is None:
        return
    shown, free = printable(pool.name, limit=60), format_bytes(pool.free_bytes)
    if pool.free_bytes < now_bytes:
        reason = f"the pool {shown} has {free} free, and the disks take {format_bytes(now_bytes)}"
        findings.block(reason, "Make room, or choose another pool with --pool")
    elif pool.free_bytes < most_bytes:
        most = format_bytes(most_bytes)
        findings.changed(f"its disks may grow to {most}, and the pool {shown} has {free} free: a full pool pauses it")
    else:
        findings.ok(f"the pool {shown} has {free} free")
