"""The library of a host: which templates are in it, what else lies there, and what is wrong. Reads only.

A library is a storage pool that holds files, reached through libvirt alone. It is read in a constant number of calls
while its index is good (vm.library_index); a manifest that the index does not know costs one call. What cannot be read
is a problem in words and never hides the rest.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import libvirt

from host import pool_room, volumes
from host.connection import Host
from host.errors import HvtuiError, NotFound, Unsupported, UsageError, WrongState
from host.text import did_you_mean, printable
from vm import template_leftovers
from vm.disk_uses import World, read_world
from vm.domain_xml import disk_source, parse
from vm.library_index import INDEX_NAME, read_index
from vm.template_manifest import LIMIT_BYTES, SUFFIX, from_document, from_toml, parse_manifest_name
from vm.template_mark import template_of
from vm.template_model import DEFAULT_LIBRARY, ImageRole, Library, Template, library_words

FILE_POOLS = frozenset({"dir", "fs", "netfs"})
_PROFILES = (".hardware.toml", ".guest.toml")  # vm.profile_store's
_NO_POOL = libvirt.VIR_ERR_NO_STORAGE_POOL


def read(host: Host, pool: str = DEFAULT_LIBRARY) -> Library:
    """The library in the storage pool of that name; one with exists=False where there is none. A constant number of
    calls with a good index. Raises Unsupported for a pool that holds no files, ConnectionLost, Denied."""
    with host.calls("read the library", pool) as connection:
        is_far = not host.is_local and not host.is_simulated and not host.read_only
        if is_far and (there := find_pool(connection, pool)) is not None:
            volumes.refresh(there)
        return read_here(connection, pool, host=host)


def read_here(connection: Any, pool: str, *, host: Host | None = None) -> Library:
    """As `read`, inside a block of calls; without `host` the room is what libvirt counted when it refreshed the pool.
    Raises libvirtError too."""
    found = find_pool(connection, pool)
    if found is None:
        return Library(pool, exists=False)
    root = parse(found.XMLDesc(0), root="pool")
    kind, path = root.get("type", ""), root.findtext("target/path", "")
    if kind not in FILE_POOLS:
        remedy = f"Choose a pool of type {', '.join(sorted(FILE_POOLS))} with --pool"
        raise Unsupported(f"a library holds files, and this pool is of type {kind}", about=pool, remedy=remedy)
    if not found.isActive():
        return Library(pool, path, is_active=False, problems=("the storage pool is not active",))
    info = found.info()
    free_bytes = pool_room.free_bytes(host, path, info) if host is not None else int(info[3])
    return _Reading({volume.name(): volume for volume in found.listAllVolumes(0)}).library(
        pool, path, free_bytes=free_bytes
    )


def find_pool(connection: Any, name: str) -> Any | None:
    """The pool of that name, or None. Raises libvirtError for anything but its absence."""
    try:
        return connection.storagePoolLookupByName(name)
    except libvirt.libvirtError as error:
        if error.get_error_code() != _NO_POOL:
            raise
        return None


@dataclass(slots=True)
class _Reading:
    """One look at a pool's volumes; used once."""

    found: Mapping[str, Any]
    problems: list[str] = field(default_factory=list)
    leftovers: list[str] = field(default_factory=list)
    documents: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def library(self, pool: str, path: str, *, free_bytes: int) -> Library:
        self.documents = read_index(self.found.get(INDEX_NAME))
        templates = tuple(each for each in map(self._newest, self._by_name()) if each is not None)
        self._look_for_images(templates)
        self._look_for_unfinished()
        used = {image.volume for template in templates for image in template.images}
        return Library(
            pool,
            path,
            templates=templates,
            others=tuple(sorted(name for name in self.found if name not in used and not _is_own(name))),
            problems=tuple(self.problems),
            free_bytes=free_bytes,
            leftovers=tuple(self.leftovers),
        )

    def _by_name(self) -> list[list[str]]:
        """The manifests' volumes: those of one template together, the newest first; templates in their order."""
        found: dict[str, list[tuple[int, str]]] = {}
        for volume in self.found:
            parsed = parse_manifest_name(volume)
            if parsed is not None:
                found.setdefault(parsed[0], []).append((parsed[1], volume))
            elif volume.endswith(SUFFIX):
                self._complain(volume, "its name is none that hvtui gives")
        return [[volume for _, volume in sorted(found[name], reverse=True)] for name in sorted(found)]

    def _newest(self, manifests: list[str]) -> Template | None:
        """The newest one that can be read. An older one beside it is a leftover, and so is one that cannot."""
        for place, name in enumerate(manifests):
            template = self._template(name)
            if template is not None:
                self.leftovers += [each for each in manifests if each != name]
                rival = parse_manifest_name(manifests[place + 1]) if place + 1 < len(manifests) else None
                if rival is not None and rival[1] == template.revision:
                    self._complain(manifests[place + 1], f"it has the revision of {template.manifest} and is not used")
                return template
        return None

    def _template(self, manifest: str) -> Template | None:
        if manifest in self.documents:
            try:
                return from_document(self.documents[manifest], manifest)
            except UsageError:
                pass  # the index is wrong, and the manifest itself may be right
        try:
            return from_toml(volumes.read_volume_text(self.found[manifest], limit_bytes=LIMIT_BYTES), manifest)
        except HvtuiError as error:
            self._complain(manifest, error.cause)
        except libvirt.libvirtError as error:
            if error.get_error_domain() == libvirt.VIR_FROM_RPC:
                raise
            if error.get_error_code() != libvirt.VIR_ERR_NO_STORAGE_VOL:  # removed in between
                self._complain(manifest, error.get_error_message() or "it cannot be read")
        return None

    def _look_for_images(self, templates: tuple[Template, ...]) -> None:
        for template in templates:
            for image in template.images:
                if image.volume not in self.found:
                    self._complain(template.name, f"its image {image.volume} is not in the pool")

    def _look_for_unfinished(self) -> None:
        for name in sorted(self.found):
            if not template_leftovers.is_record_name(name):
                continue
            record = template_leftovers.read_record(self.found[name])
            if record.is_dead:
                self.leftovers.append(name)
                self._complain(record.template, f"{record.deed} was not finished; the next change clears up after it")

    def _complain(self, about: str, problem: str) -> None:
        self.problems.append(f"{printable(about, limit=120)}: {printable(problem, limit=300)}")


def _is_own(name: str) -> bool:
    is_manifest = parse_manifest_name(name) is not None
    return is_manifest or name == INDEX_NAME or name.endswith(_PROFILES) or template_leftovers.is_record_name(name)


def find(host: Host, name: str, pool: str = DEFAULT_LIBRARY) -> tuple[Library, Template]:
    """The template of that name with its library. Raises NotFound with the nearest name, WrongState for a pool that is
    not active, and what `read` does."""
    library = read(host, pool)
    check_usable(library)
    for template in library.templates:
        if template.name == name:
            return library, template
    known = [template.name for template in library.templates]
    empty = f"The {library_words(pool)} is empty: 'hvtui template add' fills it, --library names another"
    otherwise = "" if known else empty
    shown = printable(name, limit=60)
    remedy = did_you_mean(name, known, otherwise=otherwise)
    broken = next((each for each in library.problems if each.startswith(f"{shown}.r")), "")
    raise NotFound(
        f"there is no template {shown!r}" + (f" that can be read ({broken})" if broken else ""), remedy=remedy
    )


def check_usable(library: Library) -> None:
    """Raises NotFound where there is no such pool, WrongState where it is not active."""
    if not library.exists:
        there = "" if library.pool == DEFAULT_LIBRARY else f" --library {printable(library.pool, limit=60)}"
        remedy = f"The first 'hvtui template add{there}' makes it; another one is named with --library"
        raise NotFound("there is no such library", about=library.pool, remedy=remedy)
    if not library.is_active:
        remedy = f"Start it: virsh pool-start --pool {printable(library.pool)}"
        raise WrongState("the library's storage pool is not active", about=library.pool, remedy=remedy)


# Who needs a template


def linked_vms(host: Host, library: Library, template: Template) -> tuple[str, ...]:
    """The names of the VMs that need the template's images: they are overlays on them, or load its kernel. An overlay
    that no VM uses is told by its path. Reads every VM and every active pool. Raises ConnectionLost, Denied."""
    with host.calls("see who uses the template", template.name) as connection:
        return linked_here(connection, host, library.pool, template)


def overlaid_vms(host: Host, library: Library, template: Template) -> tuple[str, ...]:
    """Those of `linked_vms` whose disks are overlays on the template's disks; others load its kernel alone. Raises
    ConnectionLost, Denied."""
    disks = replace(template, images=tuple(each for each in template.images if each.role is ImageRole.DISK))
    return tuple(name for name in linked_vms(host, library, disks) if not name.startswith("/"))


def linked_here(connection: Any, host: Host, pool: str, template: Template) -> tuple[str, ...]:
    """As `linked_vms`, inside a block of calls. Raises libvirtError too."""
    world = read_world(connection, host, without_uuid="", refresh=not host.read_only)
    found = {who for image in template.images for who in users(world, pool, image.volume)}
    found |= _claimed(connection, world, pool, template.name)
    return tuple(sorted(found))


def users(world: World, pool: str, volume: str) -> set[str]:
    """The VMs that need a volume of the pool, and the paths of overlays on it that no VM uses."""
    known = world.by_name.get((pool, volume))
    if known is None:
        return set()
    found = set(world.look_up(world.users, known.path))
    for overlay in world.look_up(world.builders, known.path):
        found |= set(world.look_up(world.users, overlay))
        if not world.look_up(world.users, overlay) and not world.look_up(world.builders, overlay):
            found.add(overlay)
    return found


def _claimed(connection: Any, world: World, pool: str, template: str) -> set[str]:
    """VMs that say of themselves that they are linked, where their disks are in no active pool and cannot be looked
    at."""
    found = set()
    for domain in connection.listAllDomains(0):
        try:
            root = parse(domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE))
        except libvirt.libvirtError:
            continue  # it was removed in between
        mark = template_of(root)
        if mark is None or not mark.linked or (mark.library or pool, mark.name) != (pool, template):
            continue
        paths = [disk_source(disk) for disk in root.iterfind("devices/disk[@device='disk']")]
        if any(path.startswith("/") and world.volume_at(path) is None for path in paths):
            found.add(domain.name())
    return found
