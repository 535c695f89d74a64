"""The recipe `debian`: a small Debian that cloud-init sets up, built from this machine's own package sources.

No image is downloaded, nothing is mounted, no loop device is used: mmdebstrap installs packages, its archive becomes a
tree, the tree a disk (vm.recipe_debian_disk). It is built once in the cache, under a lock, and appears there by one
rename: a build that was killed leaves nothing that looks finished, and the next one removes what it left.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from host.errors import Cancelled, HvtuiError, NotFound, Unsupported
from host.paths import cache_directory
from vm import recipe_debian_disk, recipe_debian_files, recipe_debian_sources
from vm.recipe_debian_disk import GRUB_DIRECTORY, DiskPlan
from vm.recipe_debian_files import PACKAGES, TOLD_PACKAGES
from vm.recipe_debian_progress import Progress, Teller
from vm.recipe_process import IsCancelled, path_with_tools, run

_WORK_PREFIX = ".work-"
_IMAGE = "disk.qcow2"
_VERSIONS = "versions"
_OLD_S = 24 * 3600.0
_CODE_VERSION = 1  # of this recipe's own code: raise it when the same files and packages give another image
# Tool, and the package that has it.
_TOOLS = {
    "mmdebstrap": "mmdebstrap",
    "apt-get": "apt",
    "mke2fs": "e2fsprogs",
    "grub-mkimage": "grub-common",
    "qemu-img": "qemu-utils",
    "setpriv": "util-linux",
    "unshare": "util-linux",
    "tar": "tar",
}


@dataclass(frozen=True, slots=True)
class DebianImage:
    """A built image in the cache. `version` is the release's ("12"); `origin` tells in words what is in it."""

    key: str
    path: Path
    title: str
    version: str
    origin: str


def obstacles() -> tuple[str, ...]:
    """Why the image cannot be built here, each with its remedy; nothing when it can."""
    found = recipe_debian_sources.release()
    if found.distribution != "debian" or not found.codename:
        return (f"the recipe debian takes its packages from Debian's own sources, and this is {found.title}",)
    missing = [package for tool, package in _TOOLS.items() if _which(tool) is None]
    if not (GRUB_DIRECTORY / "boot.img").is_file():
        missing.append("grub-pc-bin")
    if os.geteuid() != 0 and _which("newuidmap") is None:
        missing.append("uidmap")
    if missing:
        words = " ".join(dict.fromkeys(missing))
        return (f"not installed: {words}. Install it: apt-get install {words}",)
    if recipe_debian_sources.may_be_root() is None:
        return (
            "it needs root, or a user with subordinate ids in a system that lets users make namespaces. "
            "Run hvtui as root, or give the user ids: usermod --add-subuids 100000-165535 --add-subgids 100000-165535",
        )
    return ()


def identity() -> str:
    """The key of the image that `build` would make now: the release, and hashes of the recipe and of the versions
    that the machine's package lists offer. Without lists, an image built before is as good as a newer one."""
    recipe = f"{recipe_debian_sources.release().codename}-{_recipe_hash()}"
    offered = recipe_debian_sources.versions(TOLD_PACKAGES)
    if not offered:
        built = sorted(_directory().glob(f"{recipe}-*"), key=lambda path: path.stat().st_mtime, reverse=True)
        if built:
            return built[0].name
    return f"{recipe}-{_hash(repr(sorted(offered.items())))}"


def find(key: str) -> DebianImage | None:
    """The image of that key if it is built, else None."""
    directory = _directory() / key
    if not (directory / _IMAGE).is_file():
        return None
    title, version, origin = (directory / _VERSIONS).read_text(encoding="utf-8").splitlines()
    return DebianImage(key, directory / _IMAGE, title, version, origin)


def build(progress: Progress, *, is_cancelled: IsCancelled = lambda: False) -> DebianImage:
    """The built image, built now if it is not in the cache yet (one to three minutes, about 120 MB to download).

    `progress` gets a fraction and words. Raises Unsupported, NotFound, Cancelled, and HvtuiError with the words of the
    tool that failed or of the file system.
    """
    with _os_errors(), _locked(progress, is_cancelled):
        key = identity()
        found = find(key)
        if found is not None:
            return found
        as_root = recipe_debian_sources.may_be_root()
        if as_root is None:
            raise Unsupported("; ".join(obstacles()))
        _remove_leftovers(as_root)
        work = _directory() / f"{_WORK_PREFIX}{os.getpid()}"
        work.mkdir()
        try:
            _build(_Build(work, as_root, Teller(progress), is_cancelled))
            (work / "result").rename(_directory() / key)
        finally:
            _remove(work, as_root)
        _remove_older(key)
    built = find(key)
    if built is None:
        raise HvtuiError("the built image vanished", remedy="Run the job again")
    return built


@dataclass(frozen=True, slots=True)
class _Build:
    work: Path
    as_root: Sequence[str]
    teller: Teller
    is_cancelled: IsCancelled

    @property
    def tree(self) -> Path:
        return self.work / "tree"


def _build(parts: _Build) -> None:
    found = recipe_debian_sources.release()
    identifier = str(uuid.uuid4())
    _install(parts, found)
    _lay_over(parts, found, identifier)
    result = parts.work / "result"
    result.mkdir()
    parts.teller.at(0.84, "making the disk")
    disk = DiskPlan(parts.tree, identifier, parts.work, parts.as_root)
    recipe_debian_disk.make_qcow2(disk, result / _IMAGE, is_cancelled=parts.is_cancelled)
    versions = recipe_debian_sources.installed_versions(parts.tree, TOLD_PACKAGES)
    told = ", ".join(f"{name} {version}" for name, version in versions.items())
    lines = (found.title, found.version, f"built by the recipe debian from {found.title} ({found.codename}): {told}")
    (result / _VERSIONS).write_text("\n".join(lines) + "\n", encoding="utf-8")
    parts.teller.at(1.0, f"built from {found.title}")


def _install(parts: _Build, found: recipe_debian_sources.Release) -> None:
    """Install the packages into the tree: mmdebstrap's archive goes through a pipe into tar."""
    parts.teller.at(0.0, "reading the distribution's package lists")
    sources = parts.work / "sources.list"
    sources.write_text(recipe_debian_sources.sources(found), encoding="utf-8")
    early = parts.work / "early.tar"
    early.write_bytes(recipe_debian_files.archive(recipe_debian_files.early_files()))
    early.chmod(0o644)
    parts.tree.mkdir()
    exclude = [f"--exclude={pattern}" for pattern in recipe_debian_files.not_kept()]
    environment = {} if parts.as_root else {"TMPDIR": str(parts.work)}  # a namespace's root may not come this far
    run(
        [
            *("mmdebstrap", "--verbose", "--variant=minbase", "--format=tar"),
            *("--mode=unshare" if parts.as_root else "--mode=root", "--architectures=amd64"),
            f"--include={','.join(PACKAGES)}",
            '--aptopt=Acquire::Languages "none"',
            "--extract-hook=tar-in early.tar /",
            *("--", found.codename, "-", "sources.list"),
        ],
        into=[*parts.as_root, "tar", "-x", "-C", "tree", "--anchored", "--numeric-owner", *exclude],
        isolated=not parts.as_root,  # a user's mmdebstrap does that itself
        directory=parts.work,
        environment=environment,
        on_line=parts.teller.hear,
        is_cancelled=parts.is_cancelled,
    )


def _lay_over(parts: _Build, found: recipe_debian_sources.Release, identifier: str) -> None:
    """Put the recipe's own files over the installed system."""
    units = ("usr/lib/systemd/system", "lib/systemd/system")
    loads_itself_once = any((parts.tree / each / "cloud-init-main.service").exists() for each in units)
    files = recipe_debian_files.final_files(title=found.title, uuid=identifier, stages=not loads_itself_once)
    archive = parts.work / "final.tar"
    archive.write_bytes(recipe_debian_files.archive(files))
    run(
        [*parts.as_root, "tar", "-x", "-C", "tree", "--numeric-owner", "-f", "final.tar"],
        directory=parts.work,
        is_cancelled=parts.is_cancelled,
    )


def _recipe_hash() -> str:
    files = recipe_debian_files.final_files(title="", uuid="", stages=True) | recipe_debian_files.early_files()
    lists = (PACKAGES, recipe_debian_files.not_kept(), recipe_debian_disk.layout(), _CODE_VERSION)
    return _hash(repr((sorted((path, repr(file)) for path, file in files.items()), lists)))


def _hash(text: str) -> str:
    import hashlib

    return hashlib.sha256(text.encode()).hexdigest()[:8]


def _directory() -> Path:
    directory = cache_directory() / "debian"
    directory.mkdir(mode=0o700, exist_ok=True)
    return directory


@contextlib.contextmanager
def _locked(progress: Progress, is_cancelled: IsCancelled) -> Iterator[None]:
    """One builder at a time on this machine; the kernel frees the lock of a process that dies."""
    import fcntl
    import time

    with (_directory() / ".lock").open("w") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                progress(None, "waiting for another process that builds the same image")
                if is_cancelled():
                    raise Cancelled("cancelled by the user") from None
                time.sleep(0.2)
        yield


def _remove_leftovers(as_root: Sequence[str]) -> None:
    for path in _directory().glob(f"{_WORK_PREFIX}*"):
        _remove(path, as_root)


def _remove_older(key: str) -> None:
    """Remove the images of this release that a newer recipe or newer packages replaced, once no job reads them."""
    import time

    for path in _directory().glob(f"{key.partition('-')[0]}-*"):
        if path.name != key and time.time() - path.stat().st_mtime > _OLD_S:
            shutil.rmtree(path, ignore_errors=True)


def _remove(path: Path, as_root: Sequence[str]) -> None:
    with contextlib.suppress(HvtuiError):
        run([*as_root, "rm", "-rf", "--one-file-system", "--", str(path)])


def _which(tool: str) -> str | None:
    return shutil.which(tool, path=path_with_tools())


@contextlib.contextmanager
def _os_errors() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise HvtuiError(
            f"cannot build the image: {error.strerror or error}",
            about=str(error.filename or ""),
            remedy="Give the cache directory (HVTUI_CACHE_DIR) 1.5 GB of space that you may write",
        ) from error
    except NotFound as error:
        raise NotFound(f"cannot build the image: {error.cause}", remedy=error.remedy) from error
