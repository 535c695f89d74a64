"""Plans the storage pool of a library where there is none yet, or where it is not active. Changes nothing."""

from __future__ import annotations

import shlex
import uuid as uuids
from pathlib import Path

from host.connection import Host
from host.errors import NotFound
from host.plan import Blocker, Step
from host.text import printable
from vm import create_steps  # the step registers its verb
from vm.template_model import DEFAULT_LIBRARY, Library

__all__ = ["create_steps", "pool_blockers", "pool_steps"]

DEFAULT_PATH = Path("/var/lib/libvirt/library")
SESSION_PATH = Path(".local/share/libvirt/library")  # below the home directory


def pool_steps(host: Host, library: Library) -> tuple[Step, ...]:
    """What must be done before the first volume: nothing, start the pool, or make the one of the usual name. To be run
    as steps of a plan that has `pool_blockers`, too."""
    if library.exists and library.is_active:
        return ()
    pool, path = library.pool, library.path or str(_new_path(host))
    title = f"Start the storage pool {printable(pool, limit=60)}"
    verbs: list[tuple[str, ...]] = [("pool-start", "--pool", pool)]
    if not library.exists:
        title = f"Make the storage pool {printable(pool, limit=60)} in {printable(path, limit=120)}"
        define = ("pool-define-as", "--name", pool, "--type", "dir", "--target", path)
        verbs = [define, *((verb, "--pool", pool) for verb in ("pool-build", "pool-start", "pool-autostart"))]
    commands = tuple(shlex.join(["virsh", "-c", host.uri, *words]) for words in verbs)
    return (Step("create.pool", title, {"name": pool, "uuid": str(uuids.uuid4()), "path": path}, commands),)


def pool_blockers(library: Library) -> tuple[Blocker, ...]:
    """Only the library of the usual name is made by itself: another name may be a mistyped one."""
    if library.exists or library.pool == DEFAULT_LIBRARY:
        return ()
    reason = f"there is no library {printable(library.pool, limit=60)}"
    return (Blocker(reason, "Make its storage pool first, or leave --library out", exit_code=NotFound.exit_code),)


def _new_path(host: Host) -> Path:
    return Path.home() / SESSION_PATH if host.uri.endswith("/session") else DEFAULT_PATH
