"""A bundle: the directory that an export makes and an import reads, and the manifest in it (hvtui-bundle.json).

    hvtui-bundle.json   format, when, host, versions, the VM, each file with its size and SHA-256, what was left out
    domain.xml          the inactive XML with its secrets (0600)
    vda.qcow2, …        disks; nvram.fd; tpm2-00.permall; kernel, initrd of a VM that the hypervisor boots itself

What is read here may come from anybody: every value is checked, every name is a plain one in the directory, no link is
followed. This module asks no hypervisor and writes nothing but what an export step gives it.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, TypeAlias

from host.errors import Cancelled, Denied, HvtuiError, NotFound, UsageError
from host.text import printable
from host.units import MIB, format_bytes

FORMAT = 1
MANIFEST = "hvtui-bundle.json"
DOMAIN = "domain.xml"
DISK_FORMATS = ("qcow2", "raw")
LARGEST_MANIFEST_BYTES = MIB
LARGEST_DOMAIN_BYTES = MIB  # as vm.domain_xml
LARGEST_STATE_BYTES = 128 * MIB  # firmware variables of 64 MiB are usual on ARM
MOST_FILES = 200
_LARGEST_BYTES = 2**62
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_TARGET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,39}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
# The files that swtpm keeps (swtpm's src/swtpm/swtpm_nvstore.c), in libvirt's directory of the TPM's version.
TPM_FILES = re.compile(r"(tpm2/tpm2|tpm1\.2/tpm)-00\.(permall|volatilestate|savestate)")

Progress: TypeAlias = Callable[[float | None, str], None]
_CHUNK_BYTES = MIB


class Role(StrEnum):
    """What a file of a bundle is."""

    DOMAIN = "domain"
    DISK = "disk"
    NVRAM = "nvram"
    TPM = "tpm"
    KERNEL = "kernel"
    INITRD = "initrd"


@dataclass(frozen=True, slots=True)
class BundleFile:
    """One file. `target` is the disk's ("vda") or, of a TPM, the path below its directory; `size_bytes` the file's own
    size with holes, `virtual_size_bytes` what a guest sees of a disk, `sha256` of all of the file."""

    role: Role
    name: str
    size_bytes: int
    sha256: str
    target: str = ""
    format: str = ""
    virtual_size_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Bundle:
    """A bundle as its manifest tells. `left_out` are the disks that are not in it, each with the reason; `host` and
    `versions` are for people."""

    vm_name: str
    vm_uuid: str
    machine: str
    architecture: str
    virtualization: str
    files: tuple[BundleFile, ...]
    made_at: str = ""
    mark: str = ""
    host: str = ""
    libvirt_version: str = ""
    qemu_version: str = ""
    left_out: Mapping[str, str] = field(default_factory=dict)
    directory: Path = Path()

    def of(self, role: Role) -> tuple[BundleFile, ...]:
        """The files of that role, in their order."""
        return tuple(file for file in self.files if file.role is role)

    def path(self, file: BundleFile) -> Path:
        """Where it lies."""
        return self.directory / file.name


# Writing


def to_json(bundle: Bundle) -> str:
    """The manifest's text."""
    vm = {
        "name": bundle.vm_name,
        "uuid": bundle.vm_uuid,
        "machine": bundle.machine,
        "architecture": bundle.architecture,
        "virtualization": bundle.virtualization,
    }
    document = {
        "format": FORMAT,
        "made_at": bundle.made_at,
        "mark": bundle.mark,
        "host": bundle.host,
        "libvirt_version": bundle.libvirt_version,
        "qemu_version": bundle.qemu_version,
        "vm": vm,
        "files": [asdict(file) for file in bundle.files],
        "left_out": dict(bundle.left_out),
    }
    return json.dumps(document, indent=2) + "\n"


def file_to_json(file: BundleFile) -> str:
    """One file's record, as a step leaves it for the last one."""
    return json.dumps(asdict(file))


def file_from_json(text: str) -> BundleFile:
    """The record of `file_to_json`. Raises UsageError."""
    return _file(_object(_parsed(text)))


# Reading


def read(directory: Path) -> Bundle:
    """The bundle in `directory`, its manifest checked, its files only named. Raises NotFound where there is none,
    Denied, and UsageError for what no export writes."""
    text = read_text(directory, MANIFEST, limit_bytes=LARGEST_MANIFEST_BYTES)
    try:
        document = _object(_parsed(text))
        if _number(document, "format") != FORMAT:
            raise UsageError("it is of another version of the bundle format", remedy="Use a newer hvtui")
        return _bundle(document, directory)
    except UsageError as error:
        raise UsageError(f"{MANIFEST}: {error.cause}", about=str(directory), remedy=error.remedy) from error


def read_text(directory: Path, name: str, *, limit_bytes: int) -> str:
    """The text of a small file of the bundle. Raises NotFound, Denied, UsageError."""
    about = str(directory / name)
    try:
        descriptor = open_plain(directory, name)
        with os.fdopen(descriptor, "rb") as file:
            data = file.read(limit_bytes + 1)
    except FileNotFoundError as error:
        remedy = "Give the directory that 'hvtui vm export' made"
        raise NotFound(f"there is no {name} in it", about=str(directory), remedy=remedy) from error
    except OSError as error:
        raise Denied(f"cannot read it: {error.strerror}", about=about) from error
    if len(data) > limit_bytes:
        raise UsageError(f"it is longer than {format_bytes(limit_bytes)}", about=about)
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise UsageError("it is no text in UTF-8", about=about) from error


def open_plain(directory: Path, name: str) -> int:
    """A descriptor of the plain file `name` in `directory`; no link, no device, nothing elsewhere. Raises OSError, and
    UsageError."""
    if not _NAME.fullmatch(name):
        raise UsageError(f"{printable(name, limit=80)!r} is no plain file name", about=str(directory))
    path = directory / name
    if path.is_symlink():
        raise UsageError(f"{name} is a link, and a bundle has plain files only", about=str(directory))
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise UsageError(f"{name} is no plain file", about=str(directory))
    return descriptor


def problem_of(bundle: Bundle, file: BundleFile) -> str:
    """Why a file cannot be the one that was exported, by its size; empty when it may be. Its hash is another matter."""
    try:
        descriptor = open_plain(bundle.directory, file.name)
    except FileNotFoundError:
        return f"{file.name} is missing"
    except OSError as error:
        return f"{file.name} cannot be read: {error.strerror}"
    except UsageError as error:
        return error.cause
    try:
        size_bytes = os.fstat(descriptor).st_size
    finally:
        os.close(descriptor)
    if size_bytes != file.size_bytes:
        return f"{file.name} has {size_bytes} bytes and should have {file.size_bytes}: the bundle is not whole"
    return ""


def sha256_of(
    directory: Path,
    name: str,
    *,
    progress: Progress = lambda _fraction, _note: None,
    is_cancelled: Callable[[], bool] = lambda: False,
) -> str:
    """The SHA-256 of a file of the bundle. Raises OSError, UsageError, Cancelled."""
    digest = hashlib.sha256()
    with os.fdopen(open_plain(directory, name), "rb", buffering=0) as file:
        size_bytes = max(os.fstat(file.fileno()).st_size, 1)
        done_bytes = 0
        while chunk := file.read(_CHUNK_BYTES):
            if is_cancelled():
                raise Cancelled("cancelled by the user")
            digest.update(chunk)
            done_bytes += len(chunk)
            progress(done_bytes / size_bytes, f"checked {format_bytes(done_bytes)}")
    return digest.hexdigest()


def mismatch(file: BundleFile, directory: Path) -> HvtuiError:
    """The error for a file whose bytes are not those that were exported."""
    remedy = "Copy the bundle again, or export the VM again"
    return HvtuiError(f"{file.name} is damaged: its SHA-256 is not the manifest's", about=str(directory), remedy=remedy)


# Checking


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"it is no JSON: {printable(str(error), limit=120)}") from error


def _object(value: Any) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise UsageError("an object was expected")
    return value


def _text(table: Mapping[str, Any], key: str, pattern: re.Pattern[str] | None = None, *, longest: int = 200) -> str:
    value = table.get(key, "")
    if not isinstance(value, str) or len(value) > longest or (pattern is not None and not pattern.fullmatch(value)):
        raise UsageError(f"{key} is {printable(repr(value), limit=80)}, which no export writes")
    return value


def _number(table: Mapping[str, Any], key: str) -> int:
    value = table.get(key, 0)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= _LARGEST_BYTES:
        raise UsageError(f"{key} is {printable(repr(value)[:200], limit=40)}, which no export writes")
    return value


def _bundle(document: Mapping[str, Any], directory: Path) -> Bundle:
    vm = _object(document.get("vm"))
    listed = document.get("files")
    if not isinstance(listed, list) or len(listed) > MOST_FILES:
        raise UsageError(f"files is no list of at most {MOST_FILES}")
    files = tuple(_file(_object(each)) for each in listed)
    left_out = _object(document.get("left_out", {}))
    bundle = Bundle(
        vm_name=_text(vm, "name", longest=1000),
        vm_uuid=_text(vm, "uuid", _UUID),
        machine=_text(vm, "machine"),
        architecture=_text(vm, "architecture"),
        virtualization=_text(vm, "virtualization"),
        files=files,
        made_at=_text(document, "made_at"),
        mark=_text(document, "mark"),
        host=_text(document, "host", longest=1000),
        libvirt_version=_text(document, "libvirt_version"),
        qemu_version=_text(document, "qemu_version"),
        left_out={str(key)[:80]: _text(left_out, key, longest=1000) for key in list(left_out)[:MOST_FILES]},
        directory=directory,
    )
    _check_together(bundle)
    return bundle


def _check_together(bundle: Bundle) -> None:
    names = [file.name for file in bundle.files]
    if len(set(names)) != len(names) or MANIFEST in names:
        raise UsageError("it names a file twice")
    for role in (Role.DOMAIN, Role.NVRAM, Role.KERNEL, Role.INITRD):
        if len(bundle.of(role)) > 1:
            raise UsageError(f"it has several files of the role {role}")
    if [file.name for file in bundle.of(Role.DOMAIN)] != [DOMAIN]:
        raise UsageError(f"it does not name {DOMAIN}")
    targets = [(file.role, file.target) for file in bundle.files if file.role in {Role.DISK, Role.TPM}]
    if len(set(targets)) != len(targets):
        raise UsageError("it names a disk twice")


def _file(table: Mapping[str, Any]) -> BundleFile:
    role = _text(table, "role")
    if role not in set(Role):
        raise UsageError(f"it names a file of the role {printable(role, limit=40)!r}, which hvtui does not know")
    file = BundleFile(
        role=Role(role),
        name=_text(table, "name", _NAME),
        size_bytes=_number(table, "size_bytes"),
        sha256=_text(table, "sha256", _SHA256),
        target=_text(table, "target"),
        format=_text(table, "format"),
        virtual_size_bytes=_number(table, "virtual_size_bytes"),
    )
    if file.role is Role.DISK and (file.format not in DISK_FORMATS or not _TARGET.fullmatch(file.target)):
        raise UsageError(f"{file.name} is a disk of the format {printable(file.format, limit=40)!r}, not qcow2 or raw")
    if file.role is Role.TPM and not TPM_FILES.fullmatch(file.target):
        raise UsageError(f"{file.name} is no state of a TPM")
    if file.role in {Role.NVRAM, Role.TPM} and file.size_bytes > LARGEST_STATE_BYTES:
        raise UsageError(f"{file.name} is larger than {format_bytes(LARGEST_STATE_BYTES)}")
    return file
