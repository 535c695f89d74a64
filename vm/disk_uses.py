"""Who else needs a VM's disks: other VMs that name them, and images whose backing chain holds them.

Every other VM's XML is read (running, next start, saved state, checkpoints), every active pool, and, on this machine,
the images that no pool knows. A path named anywhere in another VM's XML counts as used: too many users keep a disk, too
few lose it. What cannot be looked at makes a disk's state unknown, and an unknown one is kept. This module changes
nothing.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any
from xml.etree.ElementTree import Element

import libvirt

from host.connection import Host
from host.errors import HvtuiError, NotFound, UsageError
from host.text import printable
from vm.domain_xml import disk_source, parse
from vm.model import Vm

_INACTIVE = libvirt.VIR_DOMAIN_XML_INACTIVE
_IMAGE_TYPES = frozenset({"file", "volume"})
_SPLIT = re.compile(r"[,=]")  # QEMU's own arguments: file=/path,format=raw
_IMPORTED = re.compile(r"-[0-9a-f]{8}-(kernel|initrd)$")  # as vm.import_bundle names what came with a VM


@dataclass(frozen=True, slots=True)
class DiskUse:
    """A disk of a VM and who else needs it. `path` is its absolute path on the host, empty where it has none;
    `size_bytes` is what it takes on disk, None when not known. `keep_reason` says why it must not be removed."""

    target: str
    device: str
    source: str
    source_type: str
    path: str = ""
    pool: str = ""
    volume: str = ""
    size_bytes: int | None = None
    read_only: bool = False
    shareable: bool = False
    used_by: tuple[str, ...] = ()
    built_on_by: tuple[str, ...] = ()
    keep_reason: str = ""

    @property
    def removable(self) -> bool:
        """True when nothing else uses it and its pool can remove it."""
        return not self.keep_reason


@dataclass(frozen=True, slots=True)
class Volume:
    """A volume of an active pool. `kind` is libvirt's: file, block, network, ..."""

    pool: str
    name: str
    path: str
    kind: str
    format: str
    size_bytes: int
    backing: str


@dataclass(slots=True)
class World:
    """Everything on a host that names images. Paths are compared by `_Identity`, never as text alone."""

    volumes: dict[str, Volume] = field(default_factory=dict)
    by_name: dict[tuple[str, str], Volume] = field(default_factory=dict)
    users: dict[str, list[str]] = field(default_factory=dict)  # identity -> names of VMs
    builders: dict[str, list[str]] = field(default_factory=dict)  # identity -> paths of overlays
    unknown: list[str] = field(default_factory=list)
    files_are_here: bool = False

    def identities(self, path: str) -> tuple[str, ...]:
        """What makes `path` the same file as another path: its text, and here also its target and its inode."""
        names = [os.path.normpath(path)]
        if self.files_are_here:
            names.append(os.path.realpath(path))
            try:
                status = os.stat(path)  # noqa: PTH116 - follows symbolic links, which is the point
                names.append(f"inode {status.st_dev} {status.st_ino}")
            except OSError:
                pass  # a file that is not there, or that this user may not see, has its path only
        return tuple(dict.fromkeys(names))

    def add(self, volume: Volume) -> None:
        """A volume's own path wins over a link of another volume to the same file."""
        self.by_name[volume.pool, volume.name] = volume
        own, *others = self.identities(volume.path)
        self.volumes[own] = volume
        for other in others:
            self.volumes.setdefault(other, volume)

    def note(self, index: dict[str, list[str]], path: str, who: str) -> None:
        for identity in self.identities(path):
            index.setdefault(identity, []).append(who)

    def look_up(self, index: dict[str, list[str]], path: str) -> tuple[str, ...]:
        return tuple(dict.fromkeys(who for each in self.identities(path) for who in index.get(each, ())))

    def volume_at(self, path: str) -> Volume | None:
        return next((self.volumes[each] for each in self.identities(path) if each in self.volumes), None)


def read_world(connection: libvirt.virConnect, host: Host, *, without_uuid: str, refresh: bool = True) -> World:
    """Look at every VM but one, every active pool, and the chains of the images that they name."""
    world = World(files_are_here=host.is_local and not host.is_simulated)
    for pool in connection.listAllStoragePools(libvirt.VIR_CONNECT_LIST_STORAGE_POOLS_ACTIVE):
        _read_pool(world, pool, refresh=refresh)
    images: list[tuple[str, str, str]] = []  # path, format, VM
    for domain in connection.listAllDomains(0):
        own = domain.UUIDString() == without_uuid
        for root in _descriptions(domain):
            images += _images(world, root, domain.name())
            for path in () if own else _mentioned(world, root):
                world.note(world.users, path, domain.name())
    _read_chains(world, images, can_look_outside=not host.is_simulated)
    return world


def _read_pool(world: World, pool: Any, *, refresh: bool) -> None:
    if refresh:
        _try(pool.refresh)  # libvirt knows of no image that another program made since
    for volume in _try(pool.listAllVolumes) or ():
        xml = _try(volume.XMLDesc)
        if xml is None:
            continue  # it was removed in between
        found = _volume(pool.name(), parse(xml, root="volume"))
        world.add(found)


def _volume(pool: str, root: Element) -> Volume:
    image_format = root.find("target/format")
    size = root.findtext("allocation", "").strip()
    return Volume(
        pool=pool,
        name=root.findtext("name", ""),
        path=root.findtext("target/path", ""),
        kind=root.get("type", "file"),
        format="" if image_format is None else image_format.get("type", ""),
        size_bytes=int(size) if size.isdigit() else 0,
        backing=root.findtext("backingStore/path", ""),
    )


def _try(call: Any, *arguments: Any) -> Any | None:
    """The call's value, or None when libvirt cannot: the object is gone, is busy, or the driver lacks the call."""
    try:
        return call(*(arguments or (0,)))
    except libvirt.libvirtError:
        return None


def _descriptions(domain: Any) -> Iterator[Element]:
    """Every XML of a VM that may name an image."""
    texts = [_try(domain.XMLDesc, 0), _try(domain.XMLDesc, _INACTIVE)]
    if _try(domain.hasManagedSaveImage):
        texts.append(_try(domain.managedSaveGetXMLDesc))
    for text in dict.fromkeys(text for text in texts if text):
        yield parse(text)
    for checkpoint in _try(domain.listAllSnapshots) or ():
        text = _try(checkpoint.getXMLDesc)
        if text:
            yield parse(text, root="domainsnapshot")


def _images(world: World, root: Element, vm_name: str) -> Iterator[tuple[str, str, str]]:
    """Path, format and VM of each disk image."""
    for disk in root.iter("disk"):
        driver = disk.find("driver")
        path = _path_of(world, disk)
        if path:
            yield path, "" if driver is None else driver.get("type", ""), vm_name


def _path_of(world: World, disk: Element) -> str:
    """The path that a <disk> reads; empty when it has none on the host, or when no active pool knows its volume."""
    source = disk_source(disk)
    if disk.get("type") != "volume":
        return source if source.startswith("/") else ""
    pool, _, name = source.partition("/")
    volume = world.by_name.get((pool, name))
    return volume.path if volume is not None else ""


def _mentioned(world: World, root: Element) -> Iterator[str]:
    """Every absolute path in a VM's XML, and the path of every volume."""
    for element in root.iter():
        texts = [*element.attrib.values(), element.text or ""]
        for text in texts:
            yield from (part for part in (text.strip(), *_SPLIT.split(text.strip())) if part.startswith("/"))
        volume = world.by_name.get((element.get("pool", ""), element.get("volume", "")))
        if volume is not None:
            yield volume.path


def _read_chains(world: World, images: Iterable[tuple[str, str, str]], *, can_look_outside: bool) -> None:
    for volume in dict.fromkeys(world.volumes.values()):
        _follow(world, volume.path)
    outside = {path: (kind, vm) for path, kind, vm in images if world.volume_at(path) is None}
    for path, (kind, vm_name) in outside.items() if can_look_outside else ():
        if kind != "raw":
            _inspect_outside(world, path, vm_name)


def _follow(world: World, path: str) -> None:
    """Note `path` as a builder on each image of its chain, from pool to pool and on into plain files."""
    here, seen = world.volume_at(path), {path}
    while here is not None and here.backing and here.backing not in seen:
        seen.add(here.backing)
        world.note(world.builders, here.backing, path)
        following = world.volume_at(here.backing)
        if following is None and here.backing.startswith("/"):
            _inspect_outside(world, here.backing, path)
        here = following


def _inspect_outside(world: World, path: str, needed_by: str) -> None:
    """The chain of an image that no active pool knows: only this machine's own files can be looked at."""
    from host.images import inspect

    if not world.files_are_here:
        world.unknown.append(f"{printable(path, limit=120)} of {printable(needed_by, limit=60)}")
        return
    try:
        backing = inspect(path).backing
    except NotFound:
        return  # no file, no chain
    except HvtuiError:
        world.unknown.append(f"{printable(path, limit=120)} of {printable(needed_by, limit=60)}")
        return
    for each in backing:
        world.note(world.builders, str(each), path)


# The disks of one VM


def disk_uses(host: Host, vm: Vm) -> tuple[DiskUse, ...]:
    """Each disk of the VM with its size, who else uses it, and why it must be kept, if so. Reads every other VM and
    every active pool: some calls for each. Raises NotFound, ConnectionLost."""
    roots, world = _read(host, vm)
    return _disk_uses(roots, world)


def file_uses(host: Host, vm: Vm) -> tuple[DiskUse, ...]:
    """As `disk_uses`, and the kernel and the initrd that an import made for this VM (device "kernel", "initrd"); those
    that somebody else made, or that VMs share, are nobody's to remove with it."""
    return read_files(host, vm)[0]


def read_files(host: Host, vm: Vm) -> tuple[tuple[DiskUse, ...], World]:
    """As `file_uses`, with the world that they were found in."""
    roots, world = _read(host, vm)
    paths = ((tag, root.findtext(f"os/{tag}", "").strip()) for root in roots for tag in ("kernel", "initrd"))
    imported = dict.fromkeys((tag, path) for tag, path in paths if _IMPORTED.search(path))
    return (*_disk_uses(roots, world), *(_file_use(world, tag, path) for tag, path in imported)), world


def _read(host: Host, vm: Vm) -> tuple[list[Element], World]:
    with host.calls("look at the disks of", vm.name) as connection:
        domain = connection.lookupByUUIDString(vm.uuid)
        roots = [parse(text) for text in dict.fromkeys((domain.XMLDesc(_INACTIVE), domain.XMLDesc(0)))]
        return roots, read_world(connection, host, without_uuid=vm.uuid, refresh=not host.read_only)


def _file_use(world: World, device: str, path: str) -> DiskUse:
    volume = world.volume_at(path)
    return DiskUse(
        target=device,
        device=device,
        source=path,
        source_type="file",
        path=path,
        pool=volume.pool if volume is not None else "",
        volume=volume.name if volume is not None else "",
        size_bytes=_size(world, path, volume),
        used_by=world.look_up(world.users, path),
        keep_reason=why_kept(world, path),
    )


def _disk_uses(roots: list[Element], world: World) -> tuple[DiskUse, ...]:
    disks: dict[tuple[str, str], DiskUse] = {}
    for root in roots:
        for disk in root.iterfind("devices/disk"):
            use = _disk_use(world, disk)
            disks.setdefault((use.target, use.source), use)
    return tuple(disks.values())


def _disk_use(world: World, disk: Element) -> DiskUse:
    target = disk.find("target")
    path = _path_of(world, disk)
    volume = world.volume_at(path) if path else None
    use = DiskUse(
        target="" if target is None else target.get("dev", ""),
        device=disk.get("device", "disk"),
        source=disk_source(disk),
        source_type=disk.get("type", "file"),
        path=path,
        pool=volume.pool if volume is not None else "",
        volume=volume.name if volume is not None else "",
        size_bytes=_size(world, path, volume),
        read_only=disk.find("readonly") is not None,
        shareable=disk.find("shareable") is not None,
        used_by=world.look_up(world.users, path) if path else (),
        built_on_by=world.look_up(world.builders, path) if path else (),
    )
    return replace(use, keep_reason=_keep_reason_by_kind(use) or why_kept(world, path))


def _size(world: World, path: str, volume: Volume | None) -> int | None:
    if volume is not None:
        return volume.size_bytes
    if not path or not world.files_are_here:
        return None
    try:
        return os.stat(path).st_blocks * 512  # noqa: PTH116 - follows symbolic links
    except OSError:
        return None


def _keep_reason_by_kind(use: DiskUse) -> str:
    if not use.source:
        return "the drive is empty"
    if use.device in {"cdrom", "floppy"}:
        return "it is an installation medium"
    if use.source_type == "block" or use.device == "lun":
        return "it is a block device of the host"
    if use.source_type not in _IMAGE_TYPES:
        return f"it is no image file of this host ({printable(use.source_type, limit=20)})"
    if use.shareable:
        return "it is marked as shared with other VMs"
    if use.read_only:
        return "the VM only reads it"
    return ""


def why_kept(world: World, path: str, *, without: Iterable[str] = ()) -> str:
    """Why the image at `path` must not be removed; empty when it may. Images in `without` go before it."""
    volume = world.volume_at(path) if path else None
    users, builders = (world.look_up(index, path) if path else () for index in (world.users, world.builders))
    builders = tuple(each for each in builders if each not in set(without))
    if users:
        return f"{_names(users)} {'uses' if len(users) == 1 else 'use'} it too"
    if builders:
        return f"{_names(builders)} {'builds' if len(builders) == 1 else 'build'} on it"
    if volume is None:
        return "no active storage pool knows it"
    if volume.kind != "file":
        return f"it is a {volume.kind} volume, not an image file"
    if volume.format == "iso":
        return "it is an ISO image"
    if world.files_are_here and _has_other_names(volume.path):
        return "the file has another name too (a link)"
    if world.unknown:
        return f"it cannot be told whether other images build on it: {_names(world.unknown)} cannot be looked at"
    return ""


def _has_other_names(path: str) -> bool:
    try:
        return os.path.islink(path) or os.stat(path).st_nlink > 1  # noqa: PTH114, PTH116 - paths are text here
    except OSError:
        return False  # the pool knows the file, so libvirt sees it where this user does not


def _names(names: Iterable[str]) -> str:
    shown = [printable(name, limit=120) for name in names]
    return ", ".join(shown[:3]) + (f" and {len(shown) - 3} more" if len(shown) > 3 else "")


def chosen(uses: tuple[DiskUse, ...], wanted: Iterable[str]) -> tuple[DiskUse, ...]:
    """The disks named by target ("vda"), path or source. Raises UsageError for a name that is none of them."""
    known: Mapping[str, DiskUse] = {
        name: use for use in reversed(uses) for name in (use.target, use.source, use.path) if name
    }
    found: dict[str, DiskUse] = {}
    for name in wanted:
        if name not in known:
            remedy = f"Its disks: {_names(use.target for use in uses) or 'none'}"
            raise UsageError(f"the VM has no disk {printable(name, limit=80)!r}", remedy=remedy)
        found[known[name].target] = known[name]
    return tuple(found.values())
