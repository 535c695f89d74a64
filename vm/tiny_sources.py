"""Where the parts of the tiny guest come from: this host's own kernel, busybox and guest agent, or else the
distribution's packages, downloaded by apt-get and unpacked beside. Nothing is installed, no root is needed.
"""

from __future__ import annotations

import os
import re
import shutil
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from host.errors import Cancelled, HvtuiError, NotFound, TimedOut, Unsupported
from host.text import printable
from vm import tiny_initramfs

KERNEL_PACKAGE = "linux-image-cloud-amd64"
BUSYBOX_PACKAGE = "busybox-static"
AGENT_PACKAGE = "qemu-guest-agent"
_QUICK_S = 60.0
_DOWNLOAD_S = 900.0
_PT_INTERP = 3

Progress = Callable[[float | None, str], None]
IsCancelled = Callable[[], bool]
_Found = TypeVar("_Found")


@dataclass(frozen=True, slots=True)
class Kernel:
    """A kernel image and its /lib/modules/RELEASE."""

    image: Path
    modules: Path
    release: str


@dataclass(frozen=True, slots=True)
class Agent:
    """The guest agent and the libraries that it loads, by the absolute path where its loader looks for them."""

    program: bytes
    libraries: dict[str, bytes]


def run(
    command: list[str],
    *,
    timeout_s: float = _QUICK_S,
    directory: Path | None = None,
    is_cancelled: IsCancelled = lambda: False,
    tick: Callable[[], None] = lambda: None,
) -> str:
    """The output of a command. Raises Unsupported when there is no such program, HvtuiError with its last words when
    it fails, TimedOut, Cancelled; `tick` is called twice a second while it runs."""
    import subprocess
    import time

    environment = {**os.environ, "LC_ALL": "C", "DEBIAN_FRONTEND": "noninteractive"}
    try:
        process = subprocess.Popen(
            command,
            cwd=directory,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
        )
    except OSError as error:
        raise Unsupported(f"cannot run {command[0]}: {error.strerror}") from error
    ends_s = time.monotonic() + timeout_s
    with process:
        while True:
            try:
                output, complaint = process.communicate(timeout=0.5)
                break
            except subprocess.TimeoutExpired:
                tick()
                if is_cancelled():
                    process.kill()
                    raise Cancelled("cancelled by the user") from None
                if time.monotonic() > ends_s:
                    process.kill()
                    raise TimedOut(f"{command[0]} took more than {timeout_s:.0f} s") from None
    if process.returncode:
        last = (complaint.strip() or output.strip() or f"exit code {process.returncode}").splitlines()[-1]
        raise HvtuiError(f"{command[0]} failed: {printable(last, limit=300)}")
    return output


def host_kernel(boot: Path = Path("/boot"), libraries: Path = Path("/lib/modules")) -> Kernel | None:
    """The newest kernel of this host that can drive the guest's devices and that this user may read, or None."""
    for image in sorted(boot.glob("vmlinuz-*"), key=_version_key, reverse=True):
        release = image.name.removeprefix("vmlinuz-")
        kernel = Kernel(image, libraries / release, release)
        if os.access(image, os.R_OK) and _can_drive(kernel):
            return kernel
    return None


def _version_key(path: Path) -> list[tuple[int, str]]:
    return [(int(part) if part.isdecimal() else -1, part) for part in re.split(r"(\d+)", path.name)]


def _can_drive(kernel: Kernel) -> bool:
    try:
        tiny_initramfs.modules_in_order(kernel.modules)
    except (NotFound, OSError, EOFError):
        return False
    return True


def is_static(program: Path) -> bool:
    """True for an ELF program that needs no loader (no PT_INTERP header). False too for what cannot be read."""
    try:
        with program.open("rb") as file:
            head = file.read(64)
            if len(head) < 64 or head[:6] != b"\x7fELF\x02\x01":
                return False
            offset, size, count = struct.unpack_from("<Q", head, 32)[0], *struct.unpack_from("<HH", head, 54)
            file.seek(offset)
            table = file.read(size * count)
    except OSError:
        return False
    types = [struct.unpack_from("<I", table, index)[0] for index in range(0, len(table), size or 1)]
    return bool(types) and _PT_INTERP not in types


def host_program(*names: str) -> Path | None:
    """The first of these programs on PATH or in /usr/sbin, or None."""
    path = os.environ.get("PATH", "") + ":/usr/sbin:/sbin:/usr/bin:/bin"
    for name in names:
        found = shutil.which(name, path=path)
        if found:
            return Path(found)
    return None


def host_busybox() -> Path | None:
    """A statically linked busybox of this host, or None."""
    found = host_program("busybox")
    return found if found and is_static(found) else None


class Packages:
    """The distribution's packages, downloaded and unpacked below `directory`.

    The host's own package lists are used; where they are missing or out of date, fresh ones are fetched once into
    `directory`, which needs no root and leaves the host's own as they are.
    """

    def __init__(self, directory: Path, progress: Progress, is_cancelled: IsCancelled) -> None:
        self._directory = directory
        self._progress = progress
        self._is_cancelled = is_cancelled
        self._options: list[str] = []

    def unpack(self, package: str) -> Path:
        """The root of the unpacked package. Raises HvtuiError, TimedOut, Unsupported, Cancelled."""
        return self._retried(lambda: self._unpack(package))

    def dependency(self, package: str) -> str:
        """The first package that `package` depends on: the real kernel behind its metapackage. Raises as `unpack`."""
        return self._retried(lambda: self._dependency(package))

    def _retried(self, act: Callable[[], _Found]) -> _Found:
        try:
            return act()
        except (Cancelled, Unsupported, TimedOut):
            raise
        except HvtuiError:
            if self._options:
                raise
            self._fetch_lists()
            return act()

    def _fetch_lists(self) -> None:
        self._progress(None, "reading the distribution's package lists")
        lists, cache = self._directory / "lists", self._directory / "cache"
        for path in (lists / "partial", cache / "archives/partial"):
            path.mkdir(parents=True, exist_ok=True)
        options = ["-o", f"Dir::State::Lists={lists}", "-o", f"Dir::Cache={cache}", "-o", "APT::Sandbox::User=root"]
        run(["apt-get", *options, "update"], timeout_s=_DOWNLOAD_S, is_cancelled=self._is_cancelled)
        self._options = options

    def _dependency(self, package: str) -> str:
        output = run(["apt-cache", *self._options, "depends", "--important", "--", package])
        for line in output.splitlines():
            kind, _, name = line.strip().partition(": ")
            if kind == "Depends" and name and "<" not in name:
                return name
        raise NotFound(f"the package {package} depends on nothing")

    def _unpack(self, package: str) -> Path:
        target = self._directory / package
        if target.exists():
            return target
        download = self._directory / f"{package}.download"
        download.mkdir(exist_ok=True)
        total_bytes = self._size(package)
        self._progress(0.0 if total_bytes else None, f"downloading {package}")

        def tick() -> None:
            got_bytes = sum(path.stat().st_size for path in download.iterdir())
            self._progress(min(got_bytes / total_bytes, 1.0) if total_bytes else None, f"downloading {package}")

        command = ["apt-get", *self._options, "download", "--", package]
        run(command, timeout_s=_DOWNLOAD_S, directory=download, is_cancelled=self._is_cancelled, tick=tick)
        archive = next(download.glob("*.deb"), None)
        if archive is None:
            raise NotFound(f"apt-get downloaded nothing for {package}")
        self._progress(1.0, f"unpacking {package}")
        part = self._directory / f"{package}.part"
        run(["dpkg-deb", "-x", str(archive), str(part)], timeout_s=_DOWNLOAD_S, is_cancelled=self._is_cancelled)
        part.rename(target)
        archive.unlink()
        return target

    def _size(self, package: str) -> int:
        output = run(["apt-get", *self._options, "download", "--print-uris", "--", package])
        words = output.split()
        return int(words[2]) if len(words) > 2 and words[2].isdecimal() else 0


def package_version(package: str) -> str:
    """The version that the host's package lists offer, or "" when they name none (or there is no apt)."""
    try:
        output = run(["apt-cache", "show", "--no-all-versions", "--", package])
    except HvtuiError:
        return ""
    found = re.search(r"^Version: (\S+)$", output, re.MULTILINE)
    return found[1] if found else ""


def find_kernel(packages: Packages) -> Kernel:
    """This host's kernel, else the one of the distribution's cloud package. Raises as Packages.unpack, NotFound."""
    kernel = host_kernel()
    if kernel is not None:
        return kernel
    root = packages.unpack(packages.dependency(KERNEL_PACKAGE))
    kernel = host_kernel(root / "boot", root / "lib/modules") or host_kernel(root / "boot", root / "usr/lib/modules")
    if kernel is None:
        raise NotFound(f"the package {KERNEL_PACKAGE} has no kernel with the modules that the guest needs")
    return kernel


def find_busybox(packages: Packages) -> Path:
    """A static busybox. Raises as Packages.unpack, NotFound."""
    found = host_busybox()
    if found is not None:
        return found
    root = packages.unpack(BUSYBOX_PACKAGE)
    for name in ("bin/busybox", "usr/bin/busybox"):
        if is_static(root / name):
            return root / name
    raise NotFound(f"the package {BUSYBOX_PACKAGE} has no static busybox")


def find_agent(packages: Packages) -> Agent:
    """The guest agent with its libraries. Raises as Packages.unpack; NotFound when a library is missing here."""
    program = host_program("qemu-ga") or packages.unpack(AGENT_PACKAGE) / "usr/sbin/qemu-ga"
    libraries = {path: Path(path).read_bytes() for path in library_paths(run(["ldd", str(program)]))}
    return Agent(program.read_bytes(), libraries)


def library_paths(ldd_output: str) -> list[str]:
    """The files in ldd's answer, the loader among them. Raises NotFound for a library that this host lacks."""
    paths = []
    for line in ldd_output.splitlines():
        name, _, rest = line.strip().partition(" => ")
        if rest.startswith("not found"):
            raise NotFound(f"this host lacks the library {printable(name)} that the guest agent needs")
        found = re.match(r"(/\S+) \(0x", rest or name)
        if found:
            paths.append(found[1])
    return paths
