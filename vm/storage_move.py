"""Plans a move of a VM's disks to another storage pool of its host, running or not. Changes nothing.

A disk that builds on another image goes on building on it: that image stays where it is, and only what the disk itself
holds is copied. What cannot be seen from inside the guest (checkpoints in the image, backup marks) would be lost, and
blocks the move.
"""

from __future__ import annotations

import uuid as uuids
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any
from xml.etree.ElementTree import Element

import libvirt

from host.connection import Host
from host.plan import Blocker, Json, Plan, Step
from host.text import printable
from host.units import MIB, format_bytes
from vm import storage_move_steps  # noqa: F401 - registers the verbs
from vm.commands import hint, host_blockers, identity, virsh, words
from vm.disk_uses import DiskUse, chosen, disk_uses
from vm.domain_xml import parse
from vm.model import Vm
from vm.move_copies import marked_name

FILE_POOLS = frozenset({"dir", "fs", "netfs"})
_INACTIVE = libvirt.VIR_DOMAIN_XML_INACTIVE
_SLACK_BYTES = 16 * MIB
_FORMATS = frozenset({"qcow2", "raw"})


@dataclass(slots=True)
class _Findings:
    """What speaks against it, and what to say."""

    blockers: list[Blocker] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def block(self, reason: str, remedy: str = "", *, exit_code: int = 4) -> None:
        self.blockers.append(Blocker(reason, remedy, exit_code=exit_code))


@dataclass(frozen=True, slots=True)
class _Image:
    """A disk as its definition and its volume describe it. Sizes are bytes."""

    use: DiskUse
    format: str
    capacity_bytes: int
    backing: str
    backing_format: str


def plan_storage_move(
    host: Host, vm: Vm, pool: str, disks: Collection[str] = (), *, command: Sequence[str] = ()
) -> Plan:
    """The plan that moves the disks named (by target, path or source; all without a name) of `vm` to `pool`; long.
    Raises NotFound, UsageError for a disk that it has not, ConnectionLost."""
    findings = _Findings()
    uses = disk_uses(host, vm)
    named = chosen(uses, disks) if disks else _movable(uses, pool, findings)
    mark = str(uuids.uuid4())[:8]
    with host.calls("plan to move the disks of", vm.name) as connection:
        domain = connection.lookupByUUIDString(vm.uuid)
        is_active = bool(domain.isActive())
        _check_vm(domain, vm, findings, is_active=is_active)
        directory = _check_pool(connection, pool, findings)
        roots = [parse(domain.XMLDesc(flags)) for flags in (0, _INACTIVE)]
        images = [_read(connection, roots, use, findings) for use in named]
        free_bytes = int(connection.storagePoolLookupByName(pool).info()[3]) if directory else 0
    found = [image for image in images if image is not None]
    for image in found:
        _check_image(image, pool, findings)
    _check_space(found, pool, free_bytes, findings)
    if not found and not findings.blockers:
        findings.block(f"all its disks are in the storage pool {printable(pool, limit=60)} already")
    moves = [_disk_args(image, pool, directory, mark) for image in found]
    return _plan(host, vm, pool, moves, findings, mark=mark, is_active=is_active,
                 command=tuple(command) or _command(vm, pool, disks))  # fmt: skip


def _plan(
    host: Host,
    vm: Vm,
    pool: str,
    moves: list[dict[str, Any]],
    findings: _Findings,
    *,
    mark: str,
    is_active: bool,
    command: tuple[str, ...],
) -> Plan:
    blockers = (*host_blockers(host), *findings.blockers)
    names, shown = ", ".join(move["target"] for move in moves), printable(pool, limit=60)
    args: dict[str, Json] = {**identity(vm), "mark": mark, "disks": moves}
    how = "while it runs: QEMU mirrors them, then switches over" if is_active else "it is off: the host copies them"
    steps = (
        Step("storage.move", f"Move {names} to {shown} ({how})", args, tuple(_commands(host, vm, moves, is_active))),
        Step("storage.forget", "Remove the old ones, those that nobody else uses", args,
             tuple(f"virsh -c {host.uri} vol-delete --vol {move['path']}" for move in moves)),
    )  # fmt: skip
    return Plan(
        title=f"Move disks of {vm.name} to {shown}",
        host_uri=host.uri,
        steps=() if blockers else steps,
        command=command,
        vm_uuid=vm.uuid,
        vm_name=vm.name,
        warnings=tuple(findings.warnings),
        blockers=blockers,
        notes=tuple(findings.notes),
        long=True,
    )


def _commands(host: Host, vm: Vm, moves: list[dict[str, Any]], is_active: bool) -> list[str]:
    if not is_active:
        return [f"qemu-img convert -O {move['format']} {move['path']} {move['new']['path']}" for move in moves]
    return [
        virsh(host.uri, "blockcopy", vm.name, "--path", move["target"], "--dest", move["new"]["path"], "--format",
              move["format"], *(("--shallow",) if move["new"]["backing"] else ()), "--transient-job", "--wait",
              "--pivot")
        for move in moves
    ]  # fmt: skip


def _command(vm: Vm, pool: str, disks: Collection[str]) -> tuple[str, ...]:
    options = [word for disk in disks for word in ("--disk", disk)]
    return words("move-storage", vm.name, "--to", pool, *options)


# Checks


def _movable(uses: Sequence[DiskUse], pool: str, findings: _Findings) -> tuple[DiskUse, ...]:
    """The disks that are meant without a name: images of this VM that are not there yet."""
    found = []
    for use in uses:
        if use.device != "disk" or not use.source:
            continue
        if use.pool == pool:
            findings.notes.append(f"{use.target} is in {printable(pool, limit=60)} already")
        elif use.path:
            found.append(use)
        else:
            findings.notes.append(f"{use.target} stays: it is no image file of this host")
    return tuple(found)


def _check_vm(domain: Any, vm: Vm, findings: _Findings, *, is_active: bool) -> None:
    if not domain.isPersistent():
        findings.block("it has no definition of its own (a transient VM)", "Define it first: virsh define")
        return
    if not is_active and domain.hasManagedSaveImage(0):
        remedy = f"Start it, or throw the memory away: {hint('discard-saved', vm.name)}"
        findings.block("it has a saved state, which names its disks where they are", remedy)
    for call, what in ((domain.snapshotNum, "checkpoint"), (domain.listAllCheckpoints, "backup mark")):
        count = _count(call)
        if count:
            shown = f"{count} {what}{'s' if count > 1 else ''}"
            findings.block(
                f"it has {shown}: what they hold is in the images, and would not be copied", "Delete them first"
            )


def _count(call: Any) -> int:
    try:
        told = call(0)
    except libvirt.libvirtError as error:
        if error.get_error_code() != libvirt.VIR_ERR_NO_SUPPORT:
            raise
        return 0
    return told if isinstance(told, int) else len(told)


def _check_pool(connection: Any, name: str, findings: _Findings) -> str:
    """The directory of the pool; empty when nothing can be moved there."""
    shown = printable(name, limit=60)
    pools = {pool.name(): pool for pool in connection.listAllStoragePools(0)}
    if name not in pools:
        known = ", ".join(printable(each, limit=60) for each in sorted(pools)) or "none"
        findings.block(f"there is no storage pool {shown}", f"Pools: {known}", exit_code=3)
        return ""
    root = parse(pools[name].XMLDesc(0), root="pool")
    if not pools[name].isActive():
        findings.block(f"the storage pool {shown} is not active", f"Start it first: virsh pool-start --pool {shown}")
        return ""
    if root.get("type") not in FILE_POOLS:
        kind = printable(root.get("type", ""), limit=20)
        findings.block(f"the storage pool {shown} ({kind}) holds no files", "Choose a directory pool", exit_code=8)
        return ""
    return root.findtext("target/path", "")


def _read(connection: Any, roots: Sequence[Element], use: DiskUse, findings: _Findings) -> _Image | None:
    """What the definition says of the format, and the volume of its size and of what it builds on."""
    elements = (disk for root in roots for disk in root.iterfind("devices/disk"))
    own = [each for each in elements if (each.find("target") is not None) and _target(each) == use.target]
    driver = own[0].find("driver") if own else None
    image_format = "raw" if driver is None else driver.get("type", "raw")
    if not use.path:
        findings.block(f"its disk {use.target} is no image file of this host", "Choose others: --disk", exit_code=8)
        return None
    try:
        volume = connection.storageVolLookupByPath(use.path)
    except libvirt.libvirtError as error:
        if error.get_error_code() != libvirt.VIR_ERR_NO_STORAGE_VOL:
            raise
        remedy = "Make a storage pool over its directory, or refresh it: virsh pool-refresh"
        findings.block(f"no active storage pool knows its disk {use.target} ({printable(use.path)})", remedy)
        return None
    root = parse(volume.XMLDesc(0), root="volume")
    backing_format = root.find("backingStore/format")
    builds = image_format != "raw"  # what a guest wrote into a raw disk is no header, whatever it looks like
    return _Image(
        use=use,
        format=image_format,
        capacity_bytes=int(volume.info()[1]),
        backing=root.findtext("backingStore/path", "") if builds else "",
        backing_format="raw" if backing_format is None else backing_format.get("type", "raw"),
    )


def _target(disk: Element) -> str:
    found = disk.find("target")
    return "" if found is None else found.get("dev", "")


def _check_image(image: _Image, pool: str, findings: _Findings) -> None:
    use = image.use
    if use.device != "disk":
        findings.block(f"{use.target} is a {printable(use.device, limit=20)}, whose medium is changed instead",
                       "Choose others: --disk", exit_code=8)  # fmt: skip
    if use.shareable:
        findings.block(f"its disk {use.target} is shared with other VMs: only this one would get the copy")
    if use.pool == pool:
        findings.block(f"its disk {use.target} is in {printable(pool, limit=60)} already", "Leave it out")
    if image.format not in _FORMATS:
        kind = printable(image.format, limit=20)
        findings.block(f"its disk {use.target} has the format {kind}", "Convert it to qcow2 first", exit_code=8)
    if image.backing:
        findings.notes.append(
            f"{use.target} goes on building on {printable(image.backing, limit=120)}, which stays where it is"
        )
    if use.keep_reason:
        findings.notes.append(f"the old {use.target} stays: {use.keep_reason}")


def _check_space(images: Sequence[_Image], pool: str, free_bytes: int, findings: _Findings) -> None:
    needed = sum(image.use.size_bytes or 0 for image in images) + _SLACK_BYTES
    most = sum(image.capacity_bytes for image in images)
    shown = f"the storage pool {printable(pool, limit=60)} has {format_bytes(free_bytes)} free"
    if images and free_bytes and needed > free_bytes:
        findings.block(f"{shown}, and the disks take {format_bytes(needed)}", "Make room there", exit_code=9)
    elif images and free_bytes and most > free_bytes:
        findings.warnings.append(f"{shown}; the disks take {format_bytes(needed)} and may grow to {format_bytes(most)}")
    elif images and free_bytes:
        findings.notes.append(f"{shown}; the disks take {format_bytes(needed)}")


def _disk_args(image: _Image, pool: str, directory: str, mark: str) -> dict[str, Any]:
    use = image.use
    name = marked_name(PurePosixPath(use.path).name, mark)
    backing = {"path": image.backing, "format": image.backing_format} if image.backing else None
    return {
        "target": use.target,
        "source": use.source,
        "path": use.path,
        "pool": use.pool,
        "volume": use.volume,
        "format": image.format,
        "new": {
            "pool": pool,
            "name": name,
            "path": str(PurePosixPath(directory or "/") / name),
            "capacity_bytes": image.capacity_bytes,
            "format": image.format,
            "backing": backing,
            "source": {"size_bytes": use.size_bytes or 0},
        },
    }
