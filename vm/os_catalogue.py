"""What is known of a guest's operating system: osinfo-db's XML, read lazily, one file and those that it derives from.

The files' names carry the systems' ids, so that a system is found without reading the others: only a short id that no
file is named after ("debianbullseye") makes a pass over all of them, once. A release that the database does not know
is told by the nearest one of the same system, and says so. No GObject, no network; nothing is written.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from enum import StrEnum
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from host.errors import NotFound, Unsupported
from host.text import did_you_mean, printable

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

_DIRECTORY = Path("/usr/share/osinfo")
_MOST_GENERATIONS = 40  # Fedora derives from the one before it, down to the first
# Virtio's devices, the transitional and the modern ones, by PCI vendor and device.
_NETWORK = ("1af4/1000", "1af4/1041")
_BLOCK = ("1af4/1001", "1af4/1042")
_SCSI = ("1af4/1004", "1af4/1048")
_BALLOON = ("1af4/1002", "1af4/1045")
_RNG = ("1af4/1005", "1af4/1044")
_CONSOLE = ("1af4/1003", "1af4/1043")
_SUCH_AS = "Give a short id such as debian12, or an id such as http://debian.org/debian/12"
# os-release's ID, and what an id of osinfo-db begins with.
_BY_RELEASE_ID = {
    "almalinux": "http://almalinux.org/almalinux/",
    "alpine": "http://alpinelinux.org/alpinelinux/",
    "arch": "http://archlinux.org/archlinux/",
    "centos": "http://centos.org/centos/",
    "debian": "http://debian.org/debian/",
    "fedora": "http://fedoraproject.org/fedora/",
    "freebsd": "http://freebsd.org/freebsd/",
    "gentoo": "http://gentoo.org/gentoo/",
    "ol": "http://oracle.com/ol/",
    "opensuse-leap": "http://opensuse.org/opensuse/",
    "opensuse-tumbleweed": "http://opensuse.org/opensuse/",
    "rhel": "http://redhat.com/rhel/",
    "rocky": "http://rockylinux.org/rocky/",
    "sles": "http://suse.com/sles/",
    "ubuntu": "http://ubuntu.com/ubuntu/",
}
_ROLLING = {"arch": "rolling", "gentoo": "rolling", "opensuse-tumbleweed": "tumbleweed", "debian": "testing"}


class SupportState(StrEnum):
    """Whether somebody still mends a release."""

    SUPPORTED = "supported"
    ENDED = "ended"
    COMING = "not released yet"
    ROLLING = "rolling"
    UNKNOWN = "unknown"  # the database has no date


@dataclass(frozen=True, slots=True)
class OsSupport:
    """One operating system as osinfo-db has it. `id` is libosinfo's, of the entry that was found.

    is_exact is False where another release tells in place of the one that was asked for, which `note` names; dates
    are None then. `firmware` are "bios" and "uefi" as far as the database knows; it knows no guest agent, only whether
    the system has a driver for the channel that one talks through. Sizes are bytes, 0 where unknown.
    """

    id: str
    short_id: str
    name: str
    version: str
    release_date: date | None = None
    end_date: date | None = None
    state: SupportState = SupportState.UNKNOWN
    virtio_disk: bool = False
    virtio_scsi: bool = False
    virtio_network: bool = False
    balloon: bool = False
    rng: bool = False
    agent_channel: bool = False
    firmware: tuple[str, ...] = ("bios",)
    minimum_memory_bytes: int = 0
    minimum_vcpus: int = 0
    minimum_disk_bytes: int = 0
    recommended_memory_bytes: int = 0
    recommended_vcpus: int = 0
    recommended_disk_bytes: int = 0
    is_exact: bool = True
    note: str = ""


def look_up(os_id: str, *, today: date | None = None) -> OsSupport:
    """What the database says of a libosinfo id ("http://debian.org/debian/11") or a short id ("debian11").

    The support state is that of `today`. Raises Unsupported where there is no database on this machine, NotFound (with
    the nearest short ids) for a system of which it knows no release at all.
    """
    directory = _database()
    path, is_exact = _find(directory, os_id)
    return _read(path, directory, asked="" if is_exact else os_id, today=today or date.today())


def guess(os_release: str) -> str:
    """The libosinfo id for the text of a guest's /etc/os-release, or "" for a system that osinfo-db has no name for.
    The database may not know the release yet: `look_up` does then as it does."""
    values: dict[str, str] = {}
    for line in os_release.splitlines():
        key, _, value = line.partition("=")
        values[key.strip()] = value.strip().strip("\"'")
    name, version = values.get("ID", ""), values.get("VERSION_ID", "")
    start = _BY_RELEASE_ID.get(name, "")
    if name == "centos" and "Stream" in values.get("NAME", ""):
        start = "http://centos.org/centos-stream/"
    if name == "alpine":
        version = ".".join(version.split(".")[:2])
    if name in _ROLLING and (not version or name == "opensuse-tumbleweed"):
        version = _ROLLING[name]
    return f"{start}{version}" if start and re.fullmatch(r"[\w.]+", version) else ""


def _database() -> Path:
    """Where libosinfo itself looks, by its own variable or its own place."""
    directory = Path(os.environ.get("OSINFO_SYSTEM_DIR") or _DIRECTORY) / "os"
    if not directory.is_dir():
        raise Unsupported(
            "there is no database of operating systems on this machine",
            about=str(directory),
            remedy="Install it: apt-get install osinfo-db",
        )
    return directory


# Finding the file


def _find(directory: Path, os_id: str) -> tuple[Path, bool]:
    """The file of a system, and whether it is the one that was asked for."""
    if os_id.startswith(("http://", "https://")):
        vendor, _, rest = os_id.partition("://")[2].partition("/")
        system, _, version = rest.rpartition("/")
        stems = _stems(directory, vendor)
        stem = rest.replace("/", "-")
        prefix = system.replace("/", "-")
    else:
        stems = _all_stems(directory)
        found = _by_short_id(directory, os_id)
        if found is not None:
            return found, True
        match = re.fullmatch(r"(.*?)-?(\d[\w.]*)", os_id)
        prefix, version = (match[1], match[2]) if match else (os_id, "")
        stem = ""
    if stem in stems:
        return stems[stem], True
    nearest = _nearest(stems, prefix, version)
    if nearest is None:
        raise NotFound(
            "osinfo-db knows no such operating system",
            about=printable(os_id, limit=100),
            remedy=did_you_mean(os_id, (each.replace("-", "") for each in _all_stems(directory)), otherwise=_SUCH_AS),
        )
    return nearest, False


def _stems(directory: Path, vendor: str) -> dict[str, Path]:
    if "/" in vendor or vendor in ("", ".", ".."):
        return {}
    return {path.stem: path for path in (directory / vendor).glob("*.xml")}


@lru_cache(maxsize=4)
def _all_stems(directory: Path) -> dict[str, Path]:
    return {path.stem: path for path in sorted(directory.glob("*/*.xml"))}


def _by_short_id(directory: Path, short_id: str) -> Path | None:
    """The file that has this short id: one named like it, or any other."""
    wanted = short_id.replace("-", "")
    for stem, path in _all_stems(directory).items():
        if stem.replace("-", "") == wanted and short_id in _short_ids(path.read_bytes()):
            return path
    return _short_id_index(directory).get(short_id)


@lru_cache(maxsize=4)
def _short_id_index(directory: Path) -> dict[str, Path]:
    """One pass over all files: needed only for names that no file has."""
    paths = _all_stems(directory).values()
    return {short_id: path for path in paths for short_id in _short_ids(path.read_bytes())}


def _short_ids(text: bytes) -> list[str]:
    return [found.decode("utf-8", "replace") for found in re.findall(rb"<short-id>([^<]*)</short-id>", text)]


def _nearest(stems: dict[str, Path], prefix: str, version: str) -> Path | None:
    """The release with the greatest version that is not above, or else the least one above; numbers alone count."""
    wanted = _numbers(version)
    releases = sorted(
        (_numbers(stem.removeprefix(f"{prefix}-")), path)
        for stem, path in stems.items()
        if stem.startswith(f"{prefix}-") and _shape(stem.removeprefix(f"{prefix}-")) == _shape(version)
    )
    if not releases:
        return None
    before = [path for numbers, path in releases if numbers <= wanted]
    return before[-1] if before else releases[0][1]


def _numbers(version: str) -> list[int]:
    return [int(part) for part in re.findall(r"\d+", version)]


def _shape(version: str) -> str:
    """A version without its numbers: 2k22 is one of 2k19's kind and not one of 11's."""
    return re.sub(r"[\d.]+", "", version)


# Reading it


def _read(path: Path, directory: Path, *, asked: str, today: date) -> OsSupport:
    generations = list(_generations(path, directory))
    own = generations[0]
    devices = _devices(generations)
    minimum, recommended = _resources(generations, "minimum"), _resources(generations, "recommended")
    released, ends = (None, None) if asked else (_date(own, "release-date"), _date(own, "eol-date"))
    name = own.findtext("name", "")
    return OsSupport(
        id=own.get("id", ""),
        short_id=own.findtext("short-id", ""),
        name=name,
        version=own.findtext("version", ""),
        release_date=released,
        end_date=ends,
        state=SupportState.UNKNOWN if asked else _state(own, released, ends, today),
        virtio_disk=not devices.isdisjoint(_BLOCK),
        virtio_scsi=not devices.isdisjoint(_SCSI),
        virtio_network=not devices.isdisjoint(_NETWORK),
        balloon=not devices.isdisjoint(_BALLOON),
        rng=not devices.isdisjoint(_RNG),
        agent_channel=not devices.isdisjoint(_CONSOLE),
        firmware=_firmware(generations),
        minimum_memory_bytes=minimum.get("ram", 0),
        minimum_vcpus=minimum.get("n-cpus", 0),
        minimum_disk_bytes=minimum.get("storage", 0),
        recommended_memory_bytes=recommended.get("ram", 0),
        recommended_vcpus=recommended.get("n-cpus", 0),
        recommended_disk_bytes=recommended.get("storage", 0),
        is_exact=not asked,
        note=f"osinfo-db does not know {printable(asked, limit=100)}: this is {name}, the nearest" if asked else "",
    )


def _generations(path: Path | None, directory: Path) -> Iterator[Element]:
    """A system and what it derives from or is a clone of, nearest first."""
    from vm.domain_xml import parse

    seen: set[Path] = set()
    while path is not None and path not in seen and len(seen) < _MOST_GENERATIONS:
        seen.add(path)
        system = parse(path.read_text(encoding="utf-8", errors="replace"), root="libosinfo").find("os")
        if system is None:
            return
        yield system
        parent = system.find("derives-from")
        parent = system.find("clones") if parent is None else parent
        path = _path_of(parent.get("id", ""), directory) if parent is not None else None


def _path_of(os_id: str, directory: Path) -> Path | None:
    vendor, _, rest = os_id.partition("://")[2].partition("/")
    return _stems(directory, vendor).get(rest.replace("/", "-"))


def _devices(generations: list[Element]) -> set[str]:
    """The PCI devices that the system drives; the nearest generation that speaks of one decides."""
    told: dict[str, bool] = {}
    for system in generations:
        for device in system.iterfind("devices/device"):
            key = "/".join(device.get("id", "").split("/")[-2:])
            told.setdefault(key, device.get("supported") != "false")
    return {key for key, is_supported in told.items() if is_supported}


def _firmware(generations: list[Element]) -> tuple[str, ...]:
    """BIOS unless it is denied, UEFI where it is told."""
    told = {"bios": True, "efi": False}
    for system in reversed(generations):
        for each in system.iterfind("firmware"):
            if each.get("arch") in ("x86_64", "all"):
                told[each.get("type", "")] = each.get("supported") != "false"
    return tuple(word for key, word in (("bios", "bios"), ("efi", "uefi")) if told[key])


def _resources(generations: list[Element], kind: str) -> dict[str, int]:
    for system in generations:
        for architecture in ("x86_64", "all"):
            found = system.find(f"resources[@arch='{architecture}']/{kind}")
            if found is not None:
                return {child.tag: int(child.text) for child in found if (child.text or "").isdecimal() and child.text}
    return {}


def _date(system: Element, tag: str) -> date | None:
    try:
        return date.fromisoformat(system.findtext(tag, ""))
    except ValueError:
        return None


def _state(system: Element, released: date | None, ends: date | None, today: date) -> SupportState:
    status = system.findtext("release-status", "released")
    if status == "rolling":
        return SupportState.ROLLING
    if status in ("prerelease", "snapshot") or (released is not None and released > today):
        return SupportState.COMING
    if ends is None:
        return SupportState.UNKNOWN
    return SupportState.ENDED if ends < today else SupportState.SUPPORTED
