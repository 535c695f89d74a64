"""Plans the export of a VM: a bundle (vm.bundle) on this machine, whatever host the VM is on.

Only a VM that is off is exported: its disks, firmware variables and TPM belong together then. What cannot be exported
(network disks, devices of the host) is said before, and needs a word. The steps are those of vm.export_steps. This
module changes nothing.
"""

from __future__ import annotations

import hashlib
import os
import shlex
import uuid as uuids
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element

import libvirt

from host import images, pool_room
from host.connection import Host
from host.errors import Conflict, Denied, HvtuiError, NotFound, Unsupported, UsageError
from host.plan import Blocker, Json, Plan, Step
from host.text import printable
from host.units import format_bytes
from vm import export_steps, host_files  # the steps register their verbs
from vm.commands import hint, host_blockers, virsh
from vm.domain_xml import disk_source, parse
from vm.model import Vm, VmState

__all__ = ["export_steps", "plan_export"]

PARTIAL = ".hvtui-partial-"
MARGIN_BYTES = 1024**2
_INACTIVE = libvirt.VIR_DOMAIN_XML_INACTIVE
_REMOVABLE = frozenset({"cdrom", "floppy"})
_LONGEST_CHAIN = 32
_READY = frozenset({VmState.OFF, VmState.CRASHED, VmState.UNKNOWN})  # of an unknown one the step sees more


@dataclass(frozen=True, slots=True)
class _Source:
    """A disk to export. `size_bytes` is what it and all that it builds on take; None where that is not known."""

    target: str
    format: str
    path: str
    pool: str = ""
    volume: str = ""
    size_bytes: int | None = None
    is_built_on: bool = False
    free_bytes: int | None = None  # in its pool


@dataclass(slots=True)
class _Findings:
    sources: list[_Source] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)
    blockers: list[Blocker] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def plan_export(host: Host, vm: Vm, directory: Path, *, leave_out: Collection[str] = ()) -> Plan:
    """The plan that makes the bundle `directory`, which is not there yet; long. `leave_out` names disks (by target,
    "vdb") that shall not be in it. Raises UsageError for a disk that the VM has not, NotFound, ConnectionLost."""
    directory = directory.expanduser().absolute()
    mark = str(uuids.uuid4())[:8]
    findings = _Findings(blockers=list(_state_blockers(vm)))
    with host.calls("plan the export of", vm.name) as connection:
        domain = connection.lookupByUUIDString(vm.uuid)
        text = domain.XMLDesc(_INACTIVE)
        root = parse(text)
        _check_names(root, leave_out)
        for disk in root.iterfind("devices/disk"):
            _read_disk(connection, host, disk, leave_out, findings)
    _check_target(directory, findings)
    _check_space(directory, findings)
    _check_rest(host, vm, root, findings)
    identity: dict[str, Json] = {
        "uuid": vm.uuid,
        "name": vm.name,
        "mark": mark,
        "directory": str(directory),
        "partial": str(directory.with_name(f"{directory.name[:150]}{PARTIAL}{mark}")),
        "xml_sha256": hashlib.sha256(text.encode()).hexdigest(),
    }
    return Plan(
        title=f"Export {vm.name} to {directory}",
        host_uri=host.uri,
        steps=_steps(host, vm, root, findings, identity),
        command=("vm", "export", *_name(vm.name), "--to", str(directory), *_options(leave_out)),
        vm_uuid=vm.uuid,
        vm_name=vm.name,
        warnings=tuple(findings.warnings),
        blockers=(*host_blockers(host), *findings.blockers),
        keeps=("the VM and its disks stay as they are",),
        long=True,
    )


def _name(name: str) -> tuple[str, ...]:
    return ("--", name) if name.startswith("-") else (name,)


def _options(leave_out: Collection[str]) -> tuple[str, ...]:
    return tuple(word for target in leave_out for word in ("--leave-out", target))


def _state_blockers(vm: Vm) -> tuple[Blocker, ...]:
    if vm.state is VmState.SAVED or vm.has_saved_state:
        remedy = f"Start it and shut it down, or throw the memory away: {hint('discard-saved', vm.name)}"
        return (
            Blocker.wrong_state("it has a saved state, whose memory fits only to the disks as they are", remedy=remedy),
        )
    if vm.state not in _READY:
        remedy = f"Shut it down first: {hint('stop', vm.name)}"
        return (Blocker.wrong_state(f"it is {vm.state}, and only a VM that is off can be exported", remedy=remedy,
                                    action_id="vm.stop"),)  # fmt: skip
    return ()


# Disks


def _target(disk: Element) -> str:
    target = disk.find("target")
    return "" if target is None else target.get("dev", "")


def _check_names(root: Element, leave_out: Collection[str]) -> None:
    known = [_target(disk) for disk in root.iterfind("devices/disk")]
    for name in leave_out:
        if name not in known:
            remedy = f"Its disks: {', '.join(map(printable, known)) or 'none'}"
            raise UsageError(f"the VM has no disk {printable(name, limit=40)!r}", remedy=remedy)


def _read_disk(connection: Any, host: Host, disk: Element, leave_out: Collection[str], findings: _Findings) -> None:
    target, source = _target(disk), disk_source(disk)
    if target in leave_out:
        findings.left_out[target] = f"{source or 'an empty drive'}, as asked"
        findings.warnings.append(f"the disk {printable(target)} ({printable(source, limit=120)}) is not in the bundle")
    elif disk.get("device", "disk") in _REMOVABLE:
        if source:
            findings.left_out[target] = f"{source}, a medium in a drive"
    elif problem := _kind_problem(disk):
        reason = f"the disk {printable(target)} cannot be exported: {problem}"
        remedy = f"Leave it out: --leave-out {shlex.quote(printable(target))}"
        findings.blockers.append(Blocker(reason, remedy, exit_code=Unsupported.exit_code))
    else:
        _add_source(connection, host, disk, findings)


def _kind_problem(disk: Element) -> str:
    kind, shown = disk.get("type", "file"), printable(disk_source(disk), limit=120)
    if disk.get("device") == "lun":
        return f"it is a device of the host given to the guest ({shown})"
    if kind not in {"file", "block", "volume"}:
        return f"it is no disk of this host ({kind} {shown})"
    if disk.find("encryption") is not None or disk.find("source/encryption") is not None:
        return "it is encrypted with a secret of its host"
    if not shown:
        return "it has no source"
    return ""


def _add_source(connection: Any, host: Host, disk: Element, findings: _Findings) -> None:
    driver = disk.find("driver")
    image_format = "raw" if driver is None else driver.get("type", "raw")
    target, source = _target(disk), disk_source(disk)
    try:
        if disk.get("type") == "volume":
            pool, _, name = source.partition("/")
            volume = connection.storagePoolLookupByName(pool).storageVolLookupByName(name)
        else:
            volume = connection.storageVolLookupByPath(source)
    except libvirt.libvirtError as error:
        if error.get_error_domain() == libvirt.VIR_FROM_RPC:
            raise
        _add_outside(host, disk, image_format, findings)
        return
    pool = volume.storagePoolLookupByVolume()
    size_bytes, is_built_on = _chain(connection, volume)
    findings.sources.append(
        _Source(
            target,
            image_format,
            volume.path(),
            pool.name(),
            volume.name(),
            size_bytes=size_bytes,
            is_built_on=is_built_on and image_format != "raw",
            free_bytes=pool_room.free_bytes(host, _path(pool), pool.info()),
        )
    )


def _path(pool: Any) -> str:
    return parse(pool.XMLDesc(0), root="pool").findtext("target/path", "")


def _chain(connection: Any, volume: Any) -> tuple[int | None, bool]:
    """What a volume and its backing files take, as far as pools know them, and whether it has any."""
    total_bytes: int | None = 0
    here, is_built_on = volume, False
    for _ in range(_LONGEST_CHAIN):
        total_bytes = (total_bytes or 0) + int(here.info()[2])
        backing = parse(here.XMLDesc(0), root="volume").findtext("backingStore/path", "")
        if not backing:
            return total_bytes, is_built_on
        is_built_on = True
        try:
            here = connection.storageVolLookupByPath(backing)
        except libvirt.libvirtError as error:
            if error.get_error_domain() == libvirt.VIR_FROM_RPC:
                raise
            return None, True
    return None, True


def _add_outside(host: Host, disk: Element, image_format: str, findings: _Findings) -> None:
    """A file that no active pool knows: libvirt reaches it through a pool that the step makes for the time."""
    target, path = _target(disk), disk_source(disk)
    shown = printable(path, limit=200)
    if disk.get("type") != "file" or not path.startswith("/"):
        reason = f"the disk {printable(target)} ({shown}) is in no active storage pool"
        remedy = f"Start its pool, or leave the disk out: --leave-out {shlex.quote(printable(target))}"
        findings.blockers.append(Blocker(reason, remedy, exit_code=NotFound.exit_code))
        return
    size_bytes, is_built_on = None, False
    if host.is_local and not host.is_simulated:
        try:
            info = images.inspect(path) if image_format != "raw" else None
            size_bytes = os.stat(path).st_blocks * 512  # noqa: PTH116 - follows symbolic links
            is_built_on = bool(info and info.backing)
        except NotFound as error:
            findings.blockers.append(Blocker(f"the disk {printable(target)}: {error}", exit_code=error.exit_code))
        except (HvtuiError, OSError):
            pass  # libvirt may reach what this user cannot: the step will see
    findings.sources.append(_Source(target, image_format, path, size_bytes=size_bytes, is_built_on=is_built_on))


# Here


def _check_target(directory: Path, findings: _Findings) -> None:
    parent = directory.parent
    shown = printable(str(directory), limit=200)
    if os.path.lexists(directory) and not (directory.is_dir() and not any(directory.iterdir())):
        remedy = f"Give a new one, such as {printable(str(_free_sibling(directory)), limit=200)}"
        findings.blockers.append(Blocker(f"{shown} is there already", remedy, exit_code=Conflict.exit_code))
    elif not parent.is_dir():
        reason = f"there is no directory {printable(str(parent), limit=200)}"
        findings.blockers.append(Blocker(reason, f"Make it: mkdir -p {parent}", exit_code=NotFound.exit_code))
    elif not os.access(parent, os.W_OK | os.X_OK):
        reason = f"you may not write to {printable(str(parent), limit=200)}"
        findings.blockers.append(Blocker(reason, "Choose another directory", exit_code=Denied.exit_code))


def _free_sibling(directory: Path) -> Path:
    numbered = (directory.with_name(f"{directory.name}-{number}") for number in range(2, 1000))
    return next((each for each in numbered if not os.path.lexists(each)), directory.with_name("another"))


def _check_space(directory: Path, findings: _Findings) -> None:
    known = [source.size_bytes for source in findings.sources if source.size_bytes is not None]
    wanted_bytes = sum(known) + MARGIN_BYTES
    try:
        free_bytes = images.free_bytes(directory.parent)
    except HvtuiError:
        return  # the check of the directory has said so
    if free_bytes < wanted_bytes:
        reason = f"the bundle needs {format_bytes(wanted_bytes)}, and {directory.parent} has {format_bytes(free_bytes)}"
        findings.blockers.append(Blocker(f"{reason} free", "Make room, or choose another directory"))
    if len(known) < len(findings.sources):
        findings.warnings.append("how large the bundle gets cannot be seen from here")
    for source in findings.sources:
        if source.is_built_on and None not in {source.free_bytes, source.size_bytes}:
            _check_room_to_flatten(source, findings)


def _check_room_to_flatten(source: _Source, findings: _Findings) -> None:
    size_bytes, free_bytes = source.size_bytes or 0, source.free_bytes or 0
    if size_bytes > free_bytes:
        reason = (
            f"the disk {source.target} builds on another image, and is made whole in its pool {printable(source.pool)}"
            f" first: that needs {format_bytes(size_bytes)}, and {format_bytes(free_bytes)} are free"
        )
        findings.blockers.append(Blocker(reason, "Make room in the pool"))


def _check_rest(host: Host, vm: Vm, root: Element, findings: _Findings) -> None:
    if host.is_simulated:
        reason = "a simulated host keeps no contents that could be exported"
        findings.blockers.append(Blocker(reason, exit_code=Unsupported.exit_code))
    if vm.checkpoints:
        findings.warnings.append(
            f"its {vm.checkpoints} checkpoints are not in the bundle, only the disks as they are now"
        )
    for device in root.iterfind("devices/hostdev"):
        findings.warnings.append(f"a {printable(device.get('type', ''))} device of the host stays with the host")
    if root.find("devices/tpm/backend/encryption") is not None:
        findings.warnings.append("its TPM is encrypted with a secret of this host, without which it cannot be restored")


# Steps


def _steps(host: Host, vm: Vm, root: Element, findings: _Findings, identity: dict[str, Json]) -> tuple[Step, ...]:
    directory = shlex.quote(str(identity["directory"]))
    begin = Step("export.begin", "Make the bundle's directory", identity, (f"mkdir -m 0700 -- {directory}",))
    steps = [begin, *(_disk_step(host, source, identity) for source in findings.sources)]
    uri = host.uri
    if (nvram := nvram_path(host, vm, root)) is not None:
        args: dict[str, Json] = {**identity, "role": "nvram", "path": nvram, "optional": True}
        steps.append(Step("export.file", "Copy its firmware variables", args, (_copy_line(nvram, directory),)))
    if (tpm := tpm_path(host, vm, root)) is not None:
        steps.append(
            Step("export.tpm", "Copy its TPM's state", {**identity, "path": tpm}, (_copy_line(f"{tpm}/.", directory),))
        )
    for role in ("kernel", "initrd"):
        path = root.findtext(f"os/{role}", "").strip()
        if path:
            args = {**identity, "role": role, "path": path, "optional": False}
            steps.append(Step("export.file", f"Copy the {role} that it boots", args, (_copy_line(path, directory),)))
    dump = f"{virsh(uri, 'dumpxml', vm.name, '--inactive', '--security-info')} > {directory}/domain.xml"
    finish: dict[str, Json] = {**identity, "left_out": dict(findings.left_out)}
    return (*steps, Step("export.finish", "Write its definition and the manifest", finish, (dump,)))


def _copy_line(path: str, directory: str) -> str:
    return f"cp -r -- {shlex.quote(path)} {directory}"


def _disk_step(host: Host, source: _Source, identity: dict[str, Json]) -> Step:
    args: dict[str, Json] = {
        **identity,
        "target": source.target,
        "format": source.format,
        "path": source.path,
        "pool": source.pool,
        "volume": source.volume,
    }
    size = f" ({format_bytes(source.size_bytes)})" if source.size_bytes is not None else ""
    title = f"Download the disk {source.target}{size}"
    if source.is_built_on:
        title += ", made whole first: it builds on another image"
    if source.pool:
        words = ("vol-download", "--sparse", "--pool", source.pool, "--vol", source.volume, "--file", source.target)
        return Step("export.disk", title, args, (shlex.join(["virsh", "-c", host.uri, *words]),))
    return Step("export.disk", title, args, (_copy_line(source.path, shlex.quote(str(identity["directory"]))),))


def nvram_path(host: Host, vm: Vm, root: Element) -> str | None:
    """Where the firmware's variables of a VM are; None for one that has none in a file."""
    element = root.find("os/nvram")
    if element is not None:
        source = element.find("source")
        found = (element.text or "").strip() or ("" if source is None else source.get("file", ""))
        if found:
            return found
    os_element = root.find("os")
    if os_element is None or os_element.get("firmware") != "efi":
        return None
    # libvirt before 9.2 chooses the firmware at each start, and this name for its variables (virQEMUDriverConfig).
    return f"{host_files.nvram_directory(host)}/{vm.name}_VARS.fd"


def tpm_path(host: Host, vm: Vm, root: Element) -> str | None:
    """The directory of the state of a VM's emulated TPM; None for a VM without one."""
    backend = root.find("devices/tpm/backend[@type='emulator']")
    if backend is None:
        return None
    version = "tpm1.2" if backend.get("version") == "1.2" else "tpm2"
    return f"{host_files.tpm_directory(host)}/{vm.uuid}/{version}"
