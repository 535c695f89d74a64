"""Disk images on the local host: what a file really is, how much room there is, and whether QEMU may open it.

A file is told by its content, with `qemu-img info` under limits, because the file may be hostile: it gets 1 GiB of
memory, 10 s of CPU and 20 s of time. Backing files are followed here, one file at a time and only to local paths, so
that a crafted image makes qemu-img open neither a network address nor a device. This module changes nothing.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from host.errors import Conflict, Denied, HvtuiError, NotFound, TimedOut, Unsupported, UsageError
from host.file_access import Access, User, may, walk
from host.text import printable

QEMU_CONFIGURATION = Path("/etc/libvirt/qemu.conf")
QEMU_USERS = ("libvirt-qemu", "qemu")  # Debian and its family; Fedora and its family
RAW_ENDINGS = frozenset({".raw", ".img", ".iso", ".bin"})

_MEMORY_LIMIT_BYTES = 1024**3
_CPU_LIMIT_S = 10
_TIMEOUT_S = 20.0
_LONGEST_CHAIN = 32
_MOST_TOLD = 2
_ISO_MAGIC = (32769, b"CD001")  # ECMA-119, 8.1: the identifier of the first volume descriptor, in sector 16


@dataclass(frozen=True, slots=True)
class ImageInfo:
    """What a disk image is. `format` is QEMU's name (raw, qcow2, vmdk, ...); an ISO 9660 image is raw with `is_iso`.

    `backing` are the files it builds on, nearest first; all of them exist.
    """

    path: Path
    format: str
    virtual_size_bytes: int
    actual_size_bytes: int
    is_iso: bool = False
    is_encrypted: bool = False
    is_corrupt: bool = False
    backing: tuple[Path, ...] = ()


def inspect(path: Path | str, *, format_name: str | None = None) -> ImageInfo:
    """What the file or block device at `path` is, by its content; QEMU's `format_name` takes its word for the format.

    Raises NotFound (also for a missing backing file), Denied, TimedOut, Unsupported (no qemu-img), and UsageError for
    a damaged image and for one that hvtui does not trust: a file named as raw whose content makes QEMU open other
    files, a backing file without its format, one that is not a local file, a circle.
    """
    top = Path(path).absolute()
    found = _qemu_info(top, format_name)
    _refuse_hidden_backing(top, found)
    return ImageInfo(
        path=top,
        format=str(found.get("format", "raw")),
        virtual_size_bytes=int(found.get("virtual-size", 0)),
        actual_size_bytes=int(found.get("actual-size", 0)),
        is_iso=found.get("format") == "raw" and _is_iso(top),
        is_encrypted=bool(found.get("encrypted")),
        is_corrupt=bool(_specific(found).get("corrupt")),
        backing=_backing_chain(top, found),
    )


def free_bytes(directory: Path | str) -> int:
    """The room that this user has in the file system of `directory`, in bytes; of the nearest directory above it when
    it does not exist yet. Raises Denied."""
    place = Path(directory).absolute()
    for each in (place, *place.parents):
        try:
            status = os.statvfs(each)
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:
            raise Denied(f"cannot see the free space: {error.strerror}", about=str(each)) from error
        return status.f_bavail * status.f_frsize
    return 0


def path_problems(path: Path | str, *, user: User | None = None, write: bool = False) -> tuple[str, ...]:
    """Why QEMU could not open `path`, each with its remedy; empty when nothing is in the way.

    `user` is whom QEMU runs as; None takes the system's QEMU user (`qemu_user`). libvirt gives the file itself to
    that user when a VM starts, unless qemu.conf switches dynamic_ownership off: only then, or for another user than
    that one, its own permissions count. The directories always do.
    """
    visited = walk(Path(path))
    problems = [visited.obstacle] if visited.obstacle else []
    who = user or qemu_user()
    problems += [
        f"{who.name} may not pass through {directory}. Allow it: setfacl -m u:{who.name}:x {directory}"
        for directory in visited.directories
        if not _may_quietly(who, directory, Access.TRAVERSE)
    ]
    if visited.obstacle or (user is None and _gives_files_to_qemu()):
        return tuple(problems)
    return (*problems, *_file_problem(who, visited.end, write=write))


def _file_problem(user: User, file: Path, *, write: bool) -> tuple[str, ...]:
    wanted, letters = (Access.READ | Access.WRITE, "rw") if write else (Access.READ, "r")
    if _may_quietly(user, file, wanted):
        return ()
    deed = "read and write" if write else "read"
    return (f"{user.name} may not {deed} {file}. Allow it: setfacl -m u:{user.name}:{letters} {file}",)


def _may_quietly(user: User, path: Path, wanted: Access) -> bool:
    try:
        return may(user, path, wanted)
    except OSError:
        return True  # what cannot be seen is the obstacle that the walk told already


def qemu_user(uri: str = "qemu:///system") -> User:
    """Whom QEMU runs as under the local libvirt of `uri`: this user for a session, else the user in qemu.conf, else
    the distribution's. Root when none of these exists."""
    import pwd

    if uri.endswith("/session"):
        return User(pwd.getpwuid(os.geteuid()).pw_name, os.geteuid(), frozenset({os.getegid(), *os.getgroups()}))
    for name in (_qemu_setting("user").lstrip("+"), *QEMU_USERS):
        try:
            entry = pwd.getpwuid(int(name)) if name.isdecimal() else pwd.getpwnam(name)
        except KeyError:
            continue
        groups = frozenset({entry.pw_gid, *os.getgrouplist(entry.pw_name, entry.pw_gid)})
        return User(entry.pw_name, entry.pw_uid, groups)
    return User("root", 0, frozenset({0}))


def _gives_files_to_qemu() -> bool:
    return _qemu_setting("dynamic_ownership") != "0"


def _qemu_setting(key: str) -> str:
    """A setting of qemu.conf without its quotes; empty when it is not set or the file (0600) is not readable."""
    try:
        lines = QEMU_CONFIGURATION.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    for line in reversed(lines):
        name, equals, value = line.partition("=")
        if equals and name.strip() == key:
            return value.partition("#")[0].strip().strip('"')
    return ""


def _qemu_info(path: Path, format_name: str | None = None) -> Mapping[str, Any]:
    import json

    _refuse_unopenable(path)
    chosen = ["-f", format_name] if format_name else []
    output = _run(["qemu-img", "info", "--output=json", "-U", *chosen, "--", str(path)], about=str(path))
    try:
        found = json.loads(output)
    except ValueError as error:
        raise HvtuiError("qemu-img gave no readable answer", about=str(path)) from error
    return found if isinstance(found, dict) else {}


def _refuse_unopenable(path: Path) -> None:
    try:
        mode = path.stat().st_mode
        if stat.S_ISREG(mode) or stat.S_ISBLK(mode):
            with path.open("rb"):
                return
    except FileNotFoundError as error:
        raise NotFound("no such file", about=str(path)) from error
    except OSError as error:
        raise Denied(f"cannot read the file: {error.strerror}", about=str(path)) from error
    raise UsageError("not a file and not a block device", about=str(path), remedy="Give a disk image")


def _run(command: list[str], *, about: str) -> bytes:
    code, told = limited(command, about=about, cpu_s=_CPU_LIMIT_S)
    if code == 0:
        return told.encode()
    raise _image_error(brief(told, about), code, about)


def brief(told: str, path: str) -> str:
    """What a tool of QEMU complained of, on one line and harmless to show: each thing once, without its own name and
    without the path, which whoever shows it says anyway."""
    lines = [re.sub(r"^(qemu-img: )?(ERROR:? )?", "", line.strip()) for line in told.splitlines()]
    said = [
        re.sub(rf"(Could not open '{re.escape(path)}'(: )?)+", r"Could not open it\2", each) for each in lines if each
    ]
    kinds: dict[str, str] = {}
    for each in said:
        kinds.setdefault(re.sub(r"0x[0-9a-f]+|\d+", "", each), each)
    first = list(kinds.values())[:_MOST_TOLD]
    more = len(said) - len(first)
    return printable("; ".join(first), limit=400) + (f" (and {more} more)" if more else "")


def limited(
    command: list[str],
    *,
    about: str,
    memory_bytes: int = _MEMORY_LIMIT_BYTES,
    cpu_s: int | None = None,
    timeout_s: float = _TIMEOUT_S,
) -> tuple[int, str]:
    """Run a qemu-img command on a file that may be hostile: its exit code (negative: a signal's number), and what it
    printed, or complained of when it failed. Raises TimedOut, and Unsupported when a tool is missing."""
    import subprocess

    limits = [f"--as={memory_bytes}", "--core=0", *([f"--cpu={cpu_s}"] if cpu_s else [])]
    try:
        done = subprocess.run(
            ["prlimit", *limits, "--", *command],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=timeout_s,
            check=False,
            env={**os.environ, "LC_ALL": "C"},
        )
    except FileNotFoundError as error:
        raise Unsupported("prlimit is not installed", remedy="Install util-linux") from error
    except subprocess.TimeoutExpired as error:
        raise TimedOut(f"qemu-img gave no answer within {timeout_s:.0f} s", about=about) from error
    told = (done.stderr if done.returncode else done.stdout).decode("utf-8", "replace").strip()
    if "failed to execute" in told:
        raise Unsupported("qemu-img is not installed", remedy="Install it: apt-get install qemu-utils")
    return done.returncode, told


def _image_error(message: str, code: int, about: str) -> HvtuiError:
    if code < 0 or "Cannot allocate memory" in message:
        return UsageError("qemu-img needs too much memory or time for this image", about=about)
    if "Permission denied" in message:
        return Denied(f"qemu-img cannot open it: {message}", about=about)
    if "Failed to get" in message and "lock" in message:
        return Conflict(f"the image is in use: {message}", about=about)
    return UsageError(f"qemu-img cannot read it: {message}", about=about, remedy="Is it a disk image, and undamaged?")


def _specific(found: Mapping[str, Any]) -> Mapping[str, Any]:
    data = found.get("format-specific", {}).get("data", {})
    return data if isinstance(data, dict) else {}


def _backing_chain(top: Path, found: Mapping[str, Any]) -> tuple[Path, ...]:
    chain: list[Path] = []
    here = top
    while True:
        _refuse_data_file(here, found)
        following = _backing_file(here, found)
        if following is None:
            return tuple(chain)
        seen = [os.path.realpath(each) for each in (top, *chain)]
        if os.path.realpath(following) in seen or len(chain) >= _LONGEST_CHAIN:
            raise UsageError(
                f"its backing files form a circle, or a chain of over {_LONGEST_CHAIN}", about=printable(str(top))
            )
        chain.append(following)
        found = _qemu_info(following, str(found["backing-filename-format"]))
        here = following


def _refuse_hidden_backing(path: Path, found: Mapping[str, Any]) -> None:
    if found.get("backing-filename") and path.suffix.lower() in RAW_ENDINGS:
        raise UsageError(
            f"the file is named as a raw image, but its content is {found.get('format')} with a backing file",
            about=str(path),
            remedy="A guest can write such a header to read the host's files. If you made it so, name it *.qcow2",
        )


def _refuse_data_file(path: Path, found: Mapping[str, Any]) -> None:
    data_file = _specific(found).get("data-file")
    if data_file:
        raise UsageError(f"it keeps its data in another file, {printable(str(data_file))}", about=str(path))


def _backing_file(path: Path, found: Mapping[str, Any]) -> Path | None:
    name = found.get("backing-filename")
    if not name:
        return None
    if ":" in name.split("/", 1)[0]:
        raise UsageError(f"its backing file is not a local file: {printable(name, limit=200)}", about=str(path))
    if not found.get("backing-filename-format"):
        raise UsageError(
            f"it does not say which format its backing file {printable(name, limit=200)} has",
            about=str(path),
            remedy=f"Write it into the image: qemu-img rebase -u -F FORMAT -b BACKING -- {path}",
        )
    return Path(os.path.normpath(path.resolve().parent / name))


def _is_iso(path: Path) -> bool:
    offset, magic = _ISO_MAGIC
    try:
        with path.open("rb") as file:
            file.seek(offset)
            return file.read(len(magic)) == magic
    except OSError:
        return False
