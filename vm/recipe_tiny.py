"""The recipe `tiny`: the guest of vm.tiny as a template. Its VMs boot the kernel and the initial RAM disk directly and
have a small disk each, so that they can be deployed linked, many within seconds.
"""

from __future__ import annotations

import platform
from dataclasses import dataclass
from pathlib import Path

from host.units import MIB
from vm import tiny
from vm.recipe_process import IsCancelled, run
from vm.tiny_sources import Progress

DISK_BYTES = 64 * MIB
_DISK = "tiny.qcow2"


@dataclass(frozen=True, slots=True)
class TinyImages:
    """The guest's files; `origin` tells in words what they were made from."""

    kernel: Path
    initrd: Path
    disk: Path
    has_agent: bool
    origin: str


def obstacles() -> tuple[str, ...]:
    """Why the guest cannot be built here; nothing when it can."""
    import shutil

    problem = tiny.obstacle(platform.machine())
    if not problem and shutil.which("qemu-img") is None:
        problem = "not installed: qemu-utils. Install it: apt-get install qemu-utils"
    return (problem,) if problem else ()


def build(directory: Path, progress: Progress, *, is_cancelled: IsCancelled = lambda: False) -> TinyImages:
    """The guest from the cache, built there if need be, and a new empty disk in `directory`. Raises as tiny.build."""
    guest = tiny.build(progress, is_cancelled=is_cancelled)
    disk = directory / _DISK
    run(["qemu-img", "create", "-q", "-f", "qcow2", "--", str(disk), str(DISK_BYTES)], is_cancelled=is_cancelled)
    words = f"built by the recipe tiny ({guest.key})"
    return TinyImages(guest.kernel, guest.initrd, disk, guest.has_agent, f"{words}; {guest.note}".rstrip("; "))
