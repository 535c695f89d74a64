"""The built-in guest `tiny`: a Linux of about 20 MB made from the distribution's own kernel, busybox and guest agent.

It is built once in the cache directory, under a lock, and appears there by one rename: a build that was killed
leaves nothing that looks finished. Getting it to where a hypervisor may read it is the work of vm.create_steps.
"""

from __future__ import annotations

import contextlib
import os
import platform
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from host.errors import Cancelled, HvtuiError
from host.paths import cache_directory
from vm import tiny_initramfs, tiny_sources
from vm.tiny_initramfs import READY_MARKER
from vm.tiny_sources import IsCancelled, Progress

__all__ = ["READY_MARKER", "TinyGuest", "build", "identity", "kernel_arguments", "obstacle"]

_WORK_PREFIX = ".work-"


@dataclass(frozen=True, slots=True)
class TinyGuest:
    """A built guest in the cache. `has_agent` is False when the guest agent was not to be had; `note` says why."""

    key: str
    kernel: Path
    initrd: Path
    has_agent: bool
    note: str = ""


def obstacle(architecture: str) -> str:
    """Why a host of that architecture cannot have the tiny guest, or "" when it can."""
    if architecture != "x86_64":
        return f"the tiny guest is made for x86_64 hosts, this one is {architecture}"
    if platform.machine() != "x86_64":
        return f"the tiny guest is built from this machine's kernel, and this machine is {platform.machine()}"
    if tiny_sources.host_kernel() is None and not shutil.which("apt-get"):
        return "there is no readable kernel with virtio modules in /boot, and no apt-get to download one"
    return ""


def identity() -> str:
    """The key of the guest that `build` would make now: a hash of the recipe and of the kernel it starts from.

    Without a kernel in /boot, a guest built before from the distribution's package is as good as a newer one.
    """
    recipe = _hash(tiny_initramfs.recipe())
    kernel = tiny_sources.host_kernel()
    if kernel is not None:
        return f"{recipe}-{_hash(f'{kernel.release} {kernel.image.stat().st_size}')}"
    built = sorted(_directory().glob(f"{recipe}-*"), key=lambda path: path.stat().st_mtime, reverse=True)
    if built:
        return built[0].name
    package = tiny_sources.KERNEL_PACKAGE
    return f"{recipe}-{_hash(f'{package} {tiny_sources.package_version(package)}')}"


def kernel_arguments(vm_name: str) -> str:
    """The kernel's command line: the serial console, and the VM's name as host name where it can be one."""
    # no_timer_check: emulated on a busy host the kernel may see no tick of its timer while it tests it, and hangs with
    # "8254 timer not connected to IO-APIC". Under KVM it leaves that test out by itself.
    words = ["no_timer_check", "console=tty0", "console=ttyS0", "quiet", "panic=-1"]
    if vm_name.isascii() and vm_name.replace("-", "").isalnum() and len(vm_name) <= 63:
        words.append(f"tiny.hostname={vm_name}")
    return " ".join(words)


def find(key: str) -> TinyGuest | None:
    """The guest of that key if it is built, else None."""
    directory = _directory() / key
    if not (directory / "initrd").is_file():
        return None
    note = (directory / "note").read_text(encoding="utf-8")
    return TinyGuest(key, directory / "vmlinuz", directory / "initrd", has_agent=not note, note=note)


def build(
    progress: Progress = lambda _fraction, _note: None,
    *,
    key: str = "",
    is_cancelled: IsCancelled = lambda: False,
) -> TinyGuest:
    """The built guest, built now if it is not in the cache yet (5 s, or as long as 27 MB take to download).

    Without the guest agent's package the guest is built without it and `note` says so. Raises Unsupported, NotFound,
    TimedOut, Cancelled, and HvtuiError with the words of the tool that failed or of the file system.
    """
    key = key or identity()
    with _os_errors(), locked():
        _remove_leftovers()
        found = find(key)
        if found is not None:
            return found
        work = _directory() / f"{_WORK_PREFIX}{os.getpid()}"
        work.mkdir()
        try:
            _build(work, progress, is_cancelled)
            (work / "result").rename(_directory() / key)
        finally:
            shutil.rmtree(work, ignore_errors=True)
    built = find(key)
    if built is None:
        raise HvtuiError("the tiny guest vanished while it was built", remedy="Run the job again")
    return built


def _build(work: Path, progress: Progress, is_cancelled: IsCancelled) -> None:
    packages = tiny_sources.Packages(work, lambda part, note: progress(part and part * 0.6, note), is_cancelled)
    kernel = tiny_sources.find_kernel(packages)
    busybox = tiny_sources.find_busybox(packages)
    agent, note = _agent(packages)
    if is_cancelled():
        raise Cancelled("cancelled by the user")
    progress(0.7, "packing the initial RAM disk")
    entries = tiny_initramfs.tree(
        busybox=busybox.read_bytes(),
        modules=tiny_initramfs.modules_in_order(kernel.modules),
        agent=agent.program if agent else None,
        libraries=agent.libraries if agent else {},
    )
    result = work / "result"
    result.mkdir()
    (result / "note").write_text(note, encoding="utf-8")
    shutil.copyfile(kernel.image, result / "vmlinuz")
    (result / "initrd").write_bytes(tiny_initramfs.archive(entries))
    progress(1.0, f"built from Linux {kernel.release}")


def _agent(packages: tiny_sources.Packages) -> tuple[tiny_sources.Agent | None, str]:
    try:
        return tiny_sources.find_agent(packages), ""
    except Cancelled:
        raise
    except (HvtuiError, OSError) as error:
        return None, f"built without the guest agent: {error}"


def _directory() -> Path:
    directory = cache_directory() / "tiny"
    directory.mkdir(mode=0o700, exist_ok=True)
    return directory


@contextlib.contextmanager
def locked() -> Iterator[None]:
    """One builder and one uploader at a time on this machine; the kernel frees the lock of a process that dies."""
    import fcntl

    with (_directory() / ".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _remove_leftovers() -> None:
    for path in _directory().glob(f"{_WORK_PREFIX}*"):
        shutil.rmtree(path, ignore_errors=True)


@contextlib.contextmanager
def _os_errors() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise HvtuiError(
            f"cannot build the tiny guest: {error.strerror or error}",
            about=str(error.filename or ""),
            remedy="Give the cache directory (HVTUI_CACHE_DIR) 250 MB of space that you may write",
        ) from error


def _hash(text: str) -> str:
    import hashlib

    return hashlib.sha256(text.encode()).hexdigest()[:8]
