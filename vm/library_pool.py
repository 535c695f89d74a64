"""Plans the storage pool of a library where there is none yet, or where it is not active. Changes nothing."""

from __future__ import annotations

import shlex
import uuid as uuids
from pathlib import Path

from host.connection import Host
from host.errors import UsageError
from host.plan import Step
from host.text import printable
from vm import create_steps  # the step registers its verb
from vm.template_model import DEFAULT_LIBRARY, Library

__all__ = ["create_steps", "pool_steps", "pool_warnings"]

SYSTEM_DIRECTORY = Path("/var/lib/libvirt")
SESSION_DIRECTORY = Path(".local/share/libvirt")  # below the home directory
# What libvirt keeps there itself, and other pools' usual places.
_TAKEN = frozenset({"boot", "dnsmasq", "filesystems", "images", "isos", "lockd", "network", "qemu", "sanlock", "swtpm"})


def pool_steps(host: Host, library: Library) -> tuple[Step, ...]:
    """What must be done before the first volume: nothing, start the pool, or make it. To be run as steps of a plan
    that has `pool_warnings`, too."""
    if library.exists and library.is_active:
        return ()
    pool, path = library.pool, library.path or str(_new_path(host, library.pool))
    title = f"Start the storage pool {printable(pool, limit=60)}"
    verbs: list[tuple[str, ...]] = [("pool-start", "--pool", pool)]
    if not library.exists:
        title = f"Make the storage pool {printable(pool, limit=60)} in {printable(path, limit=120)}"
        define = ("pool-define-as", "--name", pool, "--type", "dir", "--target", path)
        verbs = [define, *((verb, "--pool", pool) for verb in ("pool-build", "pool-start", "pool-autostart"))]
    commands = tuple(shlex.join(["virsh", "-c", host.uri, *words]) for words in verbs)
    return (Step("create.pool", title, {"name": pool, "uuid": str(uuids.uuid4()), "path": path}, commands),)


def pool_warnings(library: Library) -> tuple[str, ...]:
    """A library of another name than the usual one may be a mistyped one: that it is made is said."""
    if library.exists or library.pool == DEFAULT_LIBRARY:
        return ()
    return (f"there is no library {printable(library.pool, limit=60)} yet: it is made",)


def _new_path(host: Host, pool: str) -> Path:
    """A directory of its name beside libvirt's images; raises UsageError for what can be no directory's name."""
    if "/" in pool or pool.startswith(".") or not pool.isprintable():
        remedy = "Use letters, digits and hyphens"
        raise UsageError(f"{printable(pool, limit=60)!r} cannot be the name of a new library", remedy=remedy)
    directory = Path.home() / SESSION_DIRECTORY if host.uri.endswith("/session") else SYSTEM_DIRECTORY
    return directory / (f"library-{pool}" if pool in _TAKEN else pool)
