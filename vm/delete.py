"""Plans that delete a VM: everything that goes is named, every disk stays unless it is asked for and nothing needs it.

Plain undefine fails when the VM has NVRAM, a saved state or checkpoints, so libvirt's flags are computed from what the
VM has. This module changes nothing; vm.delete_steps has the verbs.
"""

from __future__ import annotations

from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Any, TypeAlias
from xml.etree.ElementTree import Element

import libvirt

from host.connection import Host
from host.plan import Blocker, Danger, Json, Plan, Step
from host.text import printable
from host.units import format_bytes
from vm import delete_steps  # noqa: F401 - registers the verbs that these plans are made of
from vm.commands import hint, host_blockers, identity, virsh, words
from vm.delete_bases import Base, bases_of
from vm.deploy_steps import seed_drives, without_drives
from vm.disk_uses import DiskUse, World, chosen, disk_uses, file_uses, read_files
from vm.domain_xml import parse, read_config, to_text
from vm.lifecycle import effective_state, plan_off
from vm.model import Disk, Vm, VmState
from vm.unseed import pool_of, unseed_step

__all__ = ["DiskUse", "disk_uses", "file_uses", "plan_delete"]

_INACTIVE = libvirt.VIR_DOMAIN_XML_INACTIVE
_BOOT_FILES = ("kernel", "initrd")
_TPM_SINCE = 8_009_000  # VIR_DOMAIN_UNDEFINE_TPM came with libvirt 8.9.0; before, undefine always removed the state

_Part: TypeAlias = tuple[int, str, str]  # libvirt's flag, virsh's option, what is lost


@dataclass(frozen=True, slots=True)
class _Belongings:
    """What a VM has besides its disks. `flags` are those that undefining it needs; `losses` name what goes with it."""

    xml: str
    disks: tuple[Disk, ...]
    flags: int
    virsh_flags: tuple[str, ...]
    losses: tuple[str, ...]
    seeds: tuple[tuple[str, str], ...] = ()  # paths and pools: what a deployment left, which may hold secrets


def plan_delete(
    host: Host, vm: Vm, *, remove_disks: Sequence[str] = (), all_disks: bool = False, off: bool = False
) -> Plan:
    """Delete the VM's definition with what belongs to it, and the disks in `remove_disks` (targets or paths), or with
    `all_disks` every one that can go. `off` turns a running one off first. With all of its disks go the
    frozen bases of linked clones that nothing else builds on. Raises NotFound, UsageError for a disk that it does not
    have."""
    belongings = _read_belongings(host, vm)
    known, world = read_files(host, vm) if remove_disks or all_disks else ((), World())
    known = tuple(use for use in known if use.path not in {path for path, _ in belongings.seeds})
    removable = [use.target for use in known if use.removable] if all_disks else []
    uses = chosen(known, (*remove_disks, *removable))
    is_all = {use.target for use in uses} >= {use.target for use in known if use.removable}
    bases = bases_of(host, world, uses) if uses and is_all else ()
    turns_off = off and vm.is_active
    title = f"Delete {vm.name}"
    return Plan(
        title=title + (f" and {_disk_count(uses)}" if uses else ""),
        host_uri=host.uri,
        steps=(
            _check_step(vm, uses, off=off),
            *(_off_steps(host, vm) if turns_off else ()),
            *(unseed_step(host, vm, path, pool) for path, pool in belongings.seeds),
            _undefine_step(host, vm, belongings),
            *(_volume_step(host, vm, use) for use in uses),
            *(_base_step(host, vm, base) for base in bases if base.goes_with_last),
        ),
        command=words("delete", vm.name, *_disk_options(uses, all_disks=all_disks), *(("--off",) if off else ())),
        vm_uuid=vm.uuid,
        vm_name=vm.name,
        danger=Danger.DESTRUCTIVE,
        warnings=(
            *(("It is running and is turned off first: what is not on its disks is lost",) if turns_off else ()),
            *(_stays(use) for use in known if all_disks and use not in uses and use.source and use.device != "cdrom"),
        ),
        blockers=(*host_blockers(host), *_blockers(vm, off=off), *_disk_blockers(uses)),
        losses=(
            *belongings.losses,
            *map(_seed_lost, belongings.seeds),
            *(_disk_lost(use) for use in uses),
            *(_base_lost(base) for base in bases if not base.keep_reason),
        ),
        keeps=(
            *_kept(belongings.disks, {use.target for use in uses}),
            *(_base_kept(each) for each in bases if each.keep_reason),
        ),
    )


def _disk_options(uses: Sequence[DiskUse], *, all_disks: bool) -> tuple[str, ...]:
    if all_disks:
        return ("--all-disks", *(word for use in uses if not use.removable for word in ("--disk", _name(use))))
    return tuple(word for use in uses for word in ("--disk", _name(use)))


def _name(use: DiskUse) -> str:
    return use.path or use.source or use.target


def _stays(use: DiskUse) -> str:
    return f"The disk {printable(_name(use), limit=200)} stays: {use.keep_reason}"


def _disk_count(uses: Sequence[DiskUse]) -> str:
    count = sum(use.device not in _BOOT_FILES for use in uses)
    return "1 disk" if count == 1 else f"{count} disks"


# What belongs to it


def _read_belongings(host: Host, vm: Vm) -> _Belongings:
    with host.calls("look at", vm.name) as connection:
        domain = connection.lookupByUUIDString(vm.uuid)
        xml = domain.XMLDesc(_INACTIVE)
        root = parse(xml)
        seeds = tuple((path, pool_of(connection, path)) for path in seed_drives(root, vm.uuid))
        seeds = tuple((path, pool) for path, pool in seeds if pool)
        found = _saved_parts(domain, vm.persistent)
        if connection.getType() == "QEMU":  # other drivers have no such files and refuse the flags
            found += _backup_parts(domain) + _firmware_parts(connection, root)
    if seeds:  # an undo brings the VM back without them
        xml = to_text(without_drives(root, {path for path, _ in seeds}))
    return _Belongings(
        xml=xml,
        disks=read_config(xml).disks,
        flags=sum(flag for flag, _, _ in found),
        virsh_flags=tuple(option for _, option, _ in found if option),
        losses=(f"the VM {vm.name}: its configuration", *(loss for _, _, loss in found)),
        seeds=seeds,
    )


def _saved_parts(domain: Any, persistent: bool) -> list[_Part]:
    """What libvirt keeps of the VM's past."""
    parts = []
    if persistent and domain.hasManagedSaveImage(0):
        loss = "its saved state: what its programs had in memory"
        parts.append((libvirt.VIR_DOMAIN_UNDEFINE_MANAGED_SAVE, "--managed-save", loss))
    checkpoints = domain.listAllSnapshots(0)
    if checkpoints:
        loss = f"{_counted(checkpoints, 'checkpoint')}: nothing can go back to them any more"
        parts.append((libvirt.VIR_DOMAIN_UNDEFINE_SNAPSHOTS_METADATA, "--snapshots-metadata", loss))
    return parts


def _backup_parts(domain: Any) -> list[_Part]:
    marks = domain.listAllCheckpoints(0)
    if not marks:
        return []
    loss = f"{_counted(marks, 'backup mark')}: the next backup is a full one"
    return [(libvirt.VIR_DOMAIN_UNDEFINE_CHECKPOINTS_METADATA, "--checkpoints-metadata", loss)]


def _counted(things: Sequence[Any], word: str) -> str:
    names = sorted(printable(thing.getName(), limit=40) for thing in things)[:3]
    more = ", …" if len(things) > 3 else ""
    return f"{len(things)} {word}{'' if len(things) == 1 else 's'} ({', '.join(names)}{more})"


def _firmware_parts(connection: libvirt.virConnect, root: Element) -> list[_Part]:
    parts = []
    nvram = root.findtext("os/nvram", "").strip()
    if nvram or _keeps_uefi_variables(root):
        where = f" in {nvram}" if nvram else ""
        loss = f"its UEFI variables{where}: boot entries and enrolled keys"
        parts.append((libvirt.VIR_DOMAIN_UNDEFINE_NVRAM, "--nvram", loss))
    if root.find("devices/tpm/backend[@type='emulator']") is not None:
        flag, option = 0, ""
        if hasattr(libvirt, "VIR_DOMAIN_UNDEFINE_TPM") and connection.getLibVersion() >= _TPM_SINCE:
            flag, option = libvirt.VIR_DOMAIN_UNDEFINE_TPM, "--tpm"
        parts.append((flag, option, "its TPM's state: disks that the guest sealed with it cannot be opened any more"))
    return parts


def _keeps_uefi_variables(root: Element) -> bool:
    """True when libvirt keeps UEFI variables for the VM, or will from its first start on."""
    loader, os_element = root.find("os/loader"), root.find("os")
    by_name = os_element is not None and os_element.get("firmware") == "efi"
    return by_name or (loader is not None and loader.get("type") == "pflash")


# Steps


def _check_step(vm: Vm, uses: Sequence[DiskUse], *, off: bool) -> Step:
    args: dict[str, Json] = {**identity(vm), "off": off, "disks": [use.path for use in uses]}
    return Step("vm.check-delete", f"Check again that {vm.name} can go, and who uses its disks", args)


def _off_steps(host: Host, vm: Vm) -> tuple[Step, ...]:
    return plan_off(host, vm).steps


def _undefine_step(host: Host, vm: Vm, belongings: _Belongings) -> Step:
    args: dict[str, Json] = {
        **identity(vm),
        "flags": belongings.flags,
        "xml": belongings.xml,
        "autostart": vm.autostart,
        "lost": list(belongings.losses[1:]),
    }
    command = virsh(host.uri, "undefine", vm.name, *belongings.virsh_flags)
    return Step("vm.undefine", f"Remove the definition of {vm.name}", args, (command,))


def _volume_step(host: Host, vm: Vm, use: DiskUse) -> Step:
    import shlex

    args: dict[str, Json] = {**identity(vm), "path": use.path, "pool": use.pool, "volume": use.volume}
    command = shlex.join(["virsh", "-c", host.uri, "vol-delete", "--pool", use.pool, "--vol", use.volume])
    what = use.device if use.device in _BOOT_FILES else "disk"
    title = f"Remove the {what} {_name(use)}, if still nothing uses it"
    return Step("vm.remove-disk", title, args, (command,) if use.volume else ())


def _base_step(host: Host, vm: Vm, base: Base) -> Step:
    import shlex

    args: dict[str, Json] = {**identity(vm), "path": base.path, "pool": base.pool, "volume": base.volume}
    command = shlex.join(["virsh", "-c", host.uri, "vol-delete", "--pool", base.pool, "--vol", base.volume])
    title = f"Remove the base {base.path} that its disk was built on, if nothing builds on it any more"
    return Step("vm.remove-base", title, args, (command,) if not base.keep_reason else ())


# What is in the way, what goes, what stays


def _blockers(vm: Vm, *, off: bool) -> tuple[Blocker, ...]:
    if not vm.persistent:
        reason = "it is transient: there is no definition to remove, and it vanishes when it stops"
        return (Blocker.wrong_state(reason, remedy="Turn it off instead", action_id="vm.off"),)
    state = effective_state(vm)
    if off or state in {VmState.OFF, VmState.SAVED, VmState.UNKNOWN}:
        return ()
    remedy = f"Stop it first ({hint('stop', vm.name)}), or let the deletion turn it off (--off)"
    return (Blocker.wrong_state(f"it is {state}", remedy=remedy, action_id="vm.off"),)


def _disk_blockers(uses: Sequence[DiskUse]) -> tuple[Blocker, ...]:
    remedy = "Delete the VM without this disk: it stays"
    return tuple(
        Blocker(f"the disk {printable(use.source or use.target, limit=200)} must stay: {use.keep_reason}", remedy)
        for use in uses
        if not use.removable
    )


def _seed_lost(seed: tuple[str, str]) -> str:
    return f"its seed {seed[0]}, which its guest may not have read yet"


def _disk_lost(use: DiskUse) -> str:
    size = "" if use.size_bytes is None else f", {format_bytes(use.size_bytes)}"
    what = use.device if use.device in _BOOT_FILES else "disk"
    return f"the {what} {use.path}{size}, {'used by nothing else' if use.removable else 'but ' + use.keep_reason}"


def _base_lost(base: Base) -> str:
    return f"the base {base.path}, {format_bytes(base.size_bytes)}, which linked clones left, and nothing builds on now"


def _base_kept(base: Base) -> str:
    last = "; it goes with the last of them" if base.goes_with_last else ""
    return f"the base {base.path}: {base.keep_reason}{last}"


def _kept(disks: Sequence[Disk], removed_targets: AbstractSet[str]) -> tuple[str, ...]:
    return tuple(
        f"the {disk.device if disk.device != 'lun' else 'disk'} {disk.source}"
        for disk in disks
        if disk.source and disk.target not in removed_targets
    )
