"""From what a template is made of to files that can be uploaded: checked, unpacked and converted on this machine.

Everything happens in one directory of the cache that belongs to one change. What came of it is written there last, in
one piece, so that a step that was killed starts anew and the next step finds the whole or nothing. The images are
hostile: host.image_kinds, host.image_unpack and host.image_convert say how they are handled. No hypervisor is asked.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

from host.errors import Cancelled, HvtuiError, UsageError
from host.image_kinds import ImageKind, recognise
from host.paths import cache_directory
from host.text import printable
from host.units import MIB
from vm.template_model import ImageRole

Progress: TypeAlias = Callable[[float | None, str], None]
IsCancelled: TypeAlias = Callable[[], bool]

_CHUNK_BYTES = 4 * MIB
_OLD_S = 7 * 24 * 3600.0
_MOST_LAYERS = 2  # an OVA in a gz
# What a guest of another hypervisor is sure to have a driver for.
_FOREIGN = {"disk_bus": "sata", "nic_model": "e1000e"}
_NATIVE = frozenset({ImageKind.QCOW2, ImageKind.RAW, ImageKind.UNKNOWN})


@dataclass(frozen=True, slots=True)
class PreparedFile:
    """A file to be stored as an image of the template; `volume` instead of `path` for one in the library already."""

    role: ImageRole
    format: str
    virtual_size_bytes: int
    path: str = ""
    volume: str = ""


@dataclass(frozen=True, slots=True)
class Prepared:
    """The files of a template, and what is known of it: values of vm.template_model.Template's fields by name."""

    files: tuple[PreparedFile, ...]
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Means:
    """What preparing works with: its own directory, the largest disk it accepts, whom it tells and who stops it.
    `is_raw`: somebody said that a disk without any mark of its own is raw."""

    directory: Path
    limit_bytes: int
    progress: Progress
    is_cancelled: IsCancelled
    is_raw: bool = False

    @property
    def how(self) -> dict[str, Any]:
        """What the modules of host take by these names."""
        return {"limit_bytes": self.limit_bytes, "progress": self.progress, "is_cancelled": self.is_cancelled}


# The directory of one change


def work_directory(mark: str) -> Path:
    """Where the change with that mark works; it need not exist."""
    return cache_directory() / "templates" / mark


def remove_work(mark: str) -> None:
    """Remove the change's directory with everything in it."""
    import shutil

    shutil.rmtree(work_directory(mark), ignore_errors=True)


def fresh_directory(mark: str) -> Path:
    """The change's directory, empty; those that others left a week ago are removed."""
    remove_work(mark)
    directory = work_directory(mark)
    with _errors(directory):
        directory.mkdir(mode=0o700, parents=True)
        for other in directory.parent.iterdir():
            with suppress(OSError):
                if time.time() - other.stat().st_mtime > _OLD_S:
                    remove_work(other.name)
    return directory


def save(mark: str, name: str, values: Mapping[str, Any]) -> None:
    """Write JSON into the change's directory, in one piece. Raises HvtuiError when the disk is full."""
    import json

    directory = work_directory(mark)
    with _errors(directory):
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        part = directory / f"{name}.part"
        part.write_text(json.dumps(values), encoding="utf-8")
        part.rename(directory / name)


def load(mark: str, name: str) -> Any | None:
    """What `save` wrote; None when it is not there."""
    import json

    try:
        return json.loads((work_directory(mark) / name).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def save_prepared(mark: str, prepared: Prepared) -> None:
    """Keep what was prepared for the next step."""
    save(mark, "prepared.json", {"files": [asdict(each) for each in prepared.files], "facts": dict(prepared.facts)})


def load_prepared(mark: str) -> Prepared:
    """What the step before prepared. Raises HvtuiError when it is gone."""
    found = load(mark, "prepared.json")
    if found is None:
        remedy = "Give the command again"
        raise HvtuiError("what was prepared for the upload is gone", about=str(work_directory(mark)), remedy=remedy)
    files = tuple(PreparedFile(**{**each, "role": ImageRole(each["role"])}) for each in found["files"])
    return Prepared(files, found["facts"])


# From a file


def check_sum(path: Path, sha256: str, *, progress: Progress, is_cancelled: IsCancelled) -> None:
    """Compare the file with the SHA-256 that was given for it. Raises UsageError when it is another, Cancelled."""
    import hashlib

    with _errors(path):
        total_bytes = max(path.stat().st_size, 1)
        digest = hashlib.sha256()
        with path.open("rb", buffering=0) as file:
            buffer = bytearray(_CHUNK_BYTES)
            view = memoryview(buffer)
            while got_bytes := file.readinto(buffer):
                if is_cancelled():
                    raise Cancelled("cancelled by the user")
                digest.update(view[:got_bytes])
                progress(file.tell() / total_bytes, "comparing the checksum")
    refuse_other_sum(path.name, digest.hexdigest(), sha256)


def refuse_other_sum(what: str, found: str, wanted: str) -> None:
    """Raises UsageError unless both are the same SHA-256."""
    if found != wanted.strip().lower():
        cause = f"its SHA-256 is {found}, and not {printable(wanted, limit=80)}"
        raise UsageError(cause, about=what, remedy="Was it downloaded whole, and from where it should be?")


def from_file(path: Path, means: Means) -> Prepared:
    """The images in a file, by its content: unpacked and converted where they need be. Raises UsageError for what is
    no image or cannot be trusted, Unsupported for a missing tool, Cancelled, HvtuiError."""
    from host.image_unpack import unpack

    kind = recognise(path)
    for layer in range(_MOST_LAYERS):
        if kind.is_compressed:
            target = means.directory / f"unpacked-{layer}"
            unpack(path, target, **means.how)
            if path.parent == means.directory:
                path.unlink()  # an outer layer: room for both is not needed any more
            path, kind = target, recognise(target)
    if kind is ImageKind.OVA:
        return _from_appliance(path, means)
    return Prepared((_disk(path, 1, means),), {} if kind in _NATIVE else _FOREIGN)


def _from_appliance(path: Path, means: Means) -> Prepared:
    from host.image_unpack import unpack_appliance
    from vm import ovf

    inside = means.directory / "appliance"
    with _errors(inside):
        inside.mkdir(mode=0o700)
    appliance = unpack_appliance(path, inside, **means.how)
    machine = ovf.read(appliance.descriptor)
    missing = [disk.file for disk in machine.disks if disk.file not in appliance.files]
    if missing:
        raise UsageError(f"its disk {printable(missing[0], limit=80)!r} is not in it", about=str(path))
    files = tuple(_disk(appliance.files[disk.file], place, means) for place, disk in enumerate(machine.disks, 1))
    facts = {**_FOREIGN, "firmware": machine.firmware.value}
    return Prepared(files, {**facts, "origin": f"the OVA of {machine.name}"} if machine.name else facts)


def _disk(path: Path, number: int, means: Means) -> PreparedFile:
    """One disk as a qcow2: the file itself where it is one that stands alone, else a conversion."""
    from host.image_convert import check_source, to_qcow2

    kind = disk_kind(path, is_raw=means.is_raw)
    if kind is ImageKind.QCOW2:
        means.progress(None, "checking the image")
        info = check_source(path, kind, limit_bytes=means.limit_bytes)
        return PreparedFile(ImageRole.DISK, "qcow2", info.virtual_size_bytes, str(path))
    target = means.directory / f"disk-{number}.qcow2"
    info = to_qcow2(path, target, kind, **means.how)
    if means.directory in path.parents:
        path.unlink()
    return PreparedFile(ImageRole.DISK, "qcow2", info.virtual_size_bytes, str(target))


def disk_kind(path: Path, *, is_raw: bool) -> ImageKind:
    """The kind of a file that must hold a disk. Raises UsageError with what to do for any other."""
    kind = recognise(path)
    if kind.is_disk:
        return kind
    about = printable(str(path), limit=200)
    if kind is ImageKind.UNKNOWN and is_raw:
        return ImageKind.RAW
    if kind is ImageKind.UNKNOWN:
        remedy = "If you know that it is a raw disk, say so with --raw"
        raise UsageError("nothing in it says what it is", about=about, remedy=remedy)
    if kind is ImageKind.ISO:
        remedy = "Install a VM from it: hvtui vm create NAME --from FILE"
        raise UsageError("this is an installation medium, not a disk", about=about, remedy=remedy)
    raise UsageError(f"this is {kind.value}, not a disk", about=about)


# From a recipe


def from_recipe(name: str, means: Means) -> Prepared:
    """What the built-in recipe of that name makes. Raises what vm.recipes raises."""
    from vm import recipes

    built = recipes.build(recipes.RECIPES[name], means.directory, means.progress, means.is_cancelled)
    return Prepared(tuple(_built(each.role, Path(each.path)) for each in built.files), dict(built.facts))


def _built(role: ImageRole, path: Path) -> PreparedFile:
    from host.image_convert import check_source

    if role is not ImageRole.DISK:
        return PreparedFile(role, "raw", path.stat().st_size, str(path))
    info = check_source(path, ImageKind.QCOW2, limit_bytes=2**63 - 1)
    return PreparedFile(role, "qcow2", info.virtual_size_bytes, str(path))


@contextmanager
def _errors(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        remedy = "Make room there, or set HVTUI_CACHE_DIR to a place that has it"
        raise HvtuiError(error.strerror or str(error), about=str(error.filename or path), remedy=remedy) from error
