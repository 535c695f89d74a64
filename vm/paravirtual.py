"""Plans the switch of an imported VM from emulated disks and cards to paravirtual ones (virtio).

A system that has not yet loaded a driver for its disk does not start from it. So a small second disk and a second card
are added first, the guest is started, and its agent tells when it uses both; then the disks and cards that matter are
switched. `now` switches at once, for a guest that is known to have the drivers. The steps are those of
vm.paravirtual_steps. This module changes nothing.
"""

from __future__ import annotations

import copy
import shlex
import uuid as uuids
from dataclasses import dataclass
from typing import Any
from xml.etree.ElementTree import Element, SubElement, indent

import libvirt

from host.connection import Host
from host.errors import Conflict, NotFound
from host.plan import Blocker, Json, Plan, Step
from host.text import printable
from host.units import MIB
from vm.commands import hint, host_blockers, virsh, words
from vm.domain_xml import disk_source, parse, to_text
from vm.model import Vm, VmState
from vm.new_domain_xml import new_mac
from vm.paravirtual_steps import ALIAS, SERIAL, change_devices, probe_volumes, probes_of

__all__ = ["plan_paravirtual"]

WAIT_TIMEOUT_S = 1800.0
PROBE_BYTES = MIB
_INACTIVE = libvirt.VIR_DOMAIN_XML_INACTIVE
_EMULATED_BUSES = frozenset({"sata", "ide"})
_LETTERS = "abcdefghijklmnopqrstuvwxyz"
_OFF = frozenset({VmState.OFF, VmState.UNKNOWN})


@dataclass(frozen=True, slots=True)
class _Found:
    """What is emulated: disks and cards, as the changes that `change_devices` takes."""

    disks: tuple[dict[str, Json], ...]
    nics: tuple[dict[str, Json], ...]
    boot: dict[str, Json] | None = None  # the disk that is booted, where "the first one" would be another

    @property
    def changes(self) -> dict[str, Json]:
        return {"disks": list(self.disks), "nics": list(self.nics), "boot": self.boot}


def plan_paravirtual(host: Host, vm: Vm, *, now: bool = False, timeout_s: float = WAIT_TIMEOUT_S) -> Plan:
    """The plan that makes the disks and cards of `vm` paravirtual; long, unless `now`. `timeout_s` is how long the
    guest may take to load its drivers. A plan without steps means that everything is so already. Raises NotFound,
    ConnectionLost."""
    with host.calls("read the XML of", vm.name) as connection:
        domain = connection.lookupByUUIDString(vm.uuid)
        root = parse(domain.XMLDesc(_INACTIVE))
        found = _find(root)
        probe = None if now else _probe_place(connection, root)
        left = probe_volumes(connection, root) if now else []
    after = copy.deepcopy(root)
    change_devices(after, found.changes)
    for each in (root, after):
        indent(each)
    is_needed = bool(found.disks or found.nics)
    options = () if not now else ("--now",)
    timeout = () if now or timeout_s == WAIT_TIMEOUT_S else ("--timeout", f"{timeout_s:g}")
    steps = _steps_now(host, vm, found, left) if now else _steps(host, vm, root, found, probe, timeout_s)
    return Plan(
        title=f"Make {vm.name} paravirtual: {_summary(found)}" if is_needed else f"{vm.name} is paravirtual already",
        host_uri=host.uri,
        steps=steps if is_needed else (),
        command=words("paravirtual", vm.name, *options, *timeout),
        vm_uuid=vm.uuid,
        vm_name=vm.name,
        warnings=_warnings(vm, now=now) if is_needed else (),
        blockers=(*host_blockers(host), *_blockers(vm, root, found, probe, now=now)) if is_needed else (),
        keeps=("what is on its disks", "the addresses (MAC) of its cards"),
        xml_before=to_text(root),
        xml_after=to_text(after),
        long=not now,
    )


def _find(root: Element) -> _Found:
    used = {_dev(disk) for disk in root.iterfind("devices/disk")}
    free = iter(name for letter in _LETTERS if (name := f"vd{letter}") not in used)
    disks: list[dict[str, Json]] = []
    for disk in root.iterfind("devices/disk"):
        target = disk.find("target")
        if target is None or disk.get("device", "disk") != "disk" or not _is_emulated(root, disk):
            continue
        old = {"dev": target.get("dev", ""), "bus": target.get("bus", "")}
        disks.append({"from": old, "to": {"dev": next(free), "bus": "virtio"}})
    nics: list[dict[str, Json]] = []
    for nic in root.iterfind("devices/interface"):
        model, mac = nic.find("model"), nic.find("mac")
        kind = "" if model is None else model.get("type", "")
        if mac is not None and not kind.startswith("virtio"):
            nics.append({"mac": mac.get("address", ""), "from": kind, "to": "virtio"})
    return _Found(tuple(disks), tuple(nics), _boot(root, disks))


def _boot(root: Element, disks: list[dict[str, Json]]) -> dict[str, Json] | None:
    """The first disk, where its new name comes after that of another."""
    was = [boot.get("dev", "") for boot in root.iterfind("os/boot")]
    present = [disk for disk in root.iterfind("devices/disk") if disk.get("device", "disk") == "disk"]
    has_virtio = any(target.get("bus") == "virtio" for disk in present for target in disk.findall("target"))
    if "hd" not in was or not has_virtio or any(disk.find("boot") is not None for disk in present):
        return None
    first = _dev(present[0])
    for change in disks:
        old: Any = change["from"]
        new: Any = change["to"]
        if old["dev"] == first:
            return {"from": first, "to": new["dev"], "was": was}
    return None


def _dev(disk: Element) -> str:
    target = disk.find("target")
    return "" if target is None else target.get("dev", "")


def _is_emulated(root: Element, disk: Element) -> bool:
    target, address = disk.find("target"), disk.find("address")
    bus = "" if target is None else target.get("bus", "")
    if bus != "scsi":
        return bus in _EMULATED_BUSES
    index = "0" if address is None else address.get("controller", "0")
    controller = root.find(f"devices/controller[@type='scsi'][@index='{index}']")
    return controller is not None and not controller.get("model", "virtio-scsi").startswith("virtio")


def _summary(found: _Found) -> str:
    parts = [f"{len(found.disks)} disk{'s' if len(found.disks) > 1 else ''}"] if found.disks else []
    parts += [f"{len(found.nics)} card{'s' if len(found.nics) > 1 else ''}"] if found.nics else []
    return " and ".join(parts)


def _probe_place(connection: Any, root: Element) -> tuple[str, str] | None:
    """The name and path of a pool of files for the small disk: that of a disk of the VM, else `default`."""
    for disk in root.iterfind("devices/disk"):
        try:
            pool = connection.storageVolLookupByPath(disk_source(disk)).storagePoolLookupByVolume()
        except libvirt.libvirtError as error:
            _raise_if_lost(error)
            continue
        if (place := _file_pool(pool)) is not None:
            return place
    try:
        return _file_pool(connection.storagePoolLookupByName("default"))
    except libvirt.libvirtError as error:
        _raise_if_lost(error)
        return None


def _file_pool(pool: Any) -> tuple[str, str] | None:
    root = parse(pool.XMLDesc(0), root="pool")
    is_fit = root.get("type") in {"dir", "fs", "netfs"} and pool.isActive()
    return (pool.name(), root.findtext("target/path", "")) if is_fit else None


def _raise_if_lost(error: libvirt.libvirtError) -> None:
    if error.get_error_domain() == libvirt.VIR_FROM_RPC:
        raise error


# What stands in the way, and what there is to know


def _blockers(vm: Vm, root: Element, found: _Found, probe: tuple[str, str] | None, *, now: bool) -> tuple[Blocker, ...]:
    blockers = []
    if vm.state is VmState.SAVED:
        remedy = f"Start it and shut it down, or throw the memory away: {hint('discard-saved', vm.name)}"
        blockers.append(Blocker.wrong_state("it has a saved state, which fits only to its devices", remedy=remedy))
    elif vm.state not in _OFF:
        remedy = f"Shut it down first: {hint('stop', vm.name)}"
        blockers.append(Blocker.wrong_state(f"it is {vm.state}", remedy=remedy, action_id="vm.stop"))
    if not now and probes_of(root):
        remedy = f"Go on with that job (hvtui job list), or switch at once: {hint('paravirtual', vm.name, '--now')}"
        reason = "an earlier job has put a small disk into it, and waits for its drivers"
        blockers.append(Blocker(reason, remedy, exit_code=Conflict.exit_code))
    elif not now and found.disks and probe is None:
        reason = "there is no active storage pool of files for the small disk that shows its drivers"
        blockers.append(Blocker(reason, "Start the pool 'default'", exit_code=NotFound.exit_code))
    return tuple(blockers)


def _warnings(vm: Vm, *, now: bool) -> tuple[str, ...]:
    if now:
        return (
            "a guest without drivers for virtio does not start after that; 'hvtui job undo' switches it back",
            "a guest that names its disks /dev/sda in its /etc/fstab will not find them: UUIDs and labels stay",
        )
    has_channel = vm.config is None or vm.config.has_agent_channel
    look = "Without one, look in it for a new disk of 1M and a new card, install what is missing (virtio-win.iso), shut"
    agent = "" if has_channel else "it has no channel for an agent; "
    return (f"{agent}its guest agent tells when the drivers are there. {look} it down and use --now",)


# Steps


def _steps_now(host: Host, vm: Vm, found: _Found, left: list[tuple[str, str]]) -> tuple[Step, ...]:
    args: dict[str, Json] = {"uuid": vm.uuid, "name": vm.name, "changes": found.changes, "pool": "", "volume": ""}
    args["left"] = [[pool, volume] for pool, volume in left]
    return (Step("paravirtual.switch", _switch_title(found), args, (virsh(host.uri, "edit", vm.name),)),)


def _switch_title(found: _Found) -> str:
    parts = []
    for disk in found.disks:
        old: Any = disk["from"]
        new: Any = disk["to"]
        parts.append(f"the disk {printable(old['dev'])} ({printable(old['bus'])}) to {new['dev']} (virtio)")
    parts += [f"the card {printable(str(nic['mac']))} from {printable(str(nic['from']))}" for nic in found.nics]
    return f"Switch {', '.join(parts)}"


def _steps(
    host: Host, vm: Vm, root: Element, found: _Found, probe: tuple[str, str] | None, timeout_s: float
) -> tuple[Step, ...]:
    pool, path = probe or ("", "")
    mark = str(uuids.uuid4())[:8]
    volume = f"{vm.name}-{mark}-virtio.raw" if found.disks else ""
    identity: dict[str, Json] = {"uuid": vm.uuid, "name": vm.name, "mark": mark, "pool": pool, "volume": volume}
    mac = new_mac(str(uuids.uuid4())) if found.nics else ""
    target = str(_last_target(found))
    args: dict[str, Json] = {
        **identity,
        "disk": _probe_disk(f"{path}/{volume}", target, mark) if volume else "",
        "nic": _probe_nic(root, found, mac, mark) if mac else "",
        "size_bytes": PROBE_BYTES,
    }
    watch: dict[str, Json] = {**identity, "mac": mac, "timeout_s": timeout_s, "persistent": True}
    last: dict[str, Json] = {**identity, "changes": found.changes, "mac": mac}
    boot = (virsh(host.uri, "start", vm.name), virsh(host.uri, "shutdown", vm.name, "--mode", "agent,acpi"))
    waiting = f"Start it, wait until its guest uses them (at most {timeout_s:.0f} s), and shut it down"
    switching = f"{_switch_title(found)}, and remove what was added"
    lines = _attach_lines(host, vm, pool, f"{path}/{volume}" if volume else "", target, has_nic=bool(mac))
    return (
        Step("paravirtual.probe", f"Add what needs the drivers beside {_summary(found)}", args, lines),
        Step("paravirtual.watch", waiting, watch, boot),
        Step("paravirtual.switch", switching, last, (virsh(host.uri, "edit", vm.name),)),
    )


def _attach_lines(host: Host, vm: Vm, pool: str, path: str, target: str, *, has_nic: bool) -> tuple[str, ...]:
    lines = []
    if path:
        make = ["vol-create-as", "--pool", pool, path.rpartition("/")[2], "1M", "--format", "raw"]
        lines.append(shlex.join(["virsh", "-c", host.uri, *make]))
        lines.append(virsh(host.uri, "attach-disk", vm.name, path, target, "--config"))
    if has_nic:
        lines.append(virsh(host.uri, "attach-interface", vm.name, "--model", "virtio", "--config"))
    return tuple(lines)


def _last_target(found: _Found) -> Json:
    """A name after those that the disks get."""
    if not found.disks:
        return ""
    last: Any = found.disks[-1]["to"]
    letter = last["dev"][-1]
    return f"vd{_LETTERS[min(_LETTERS.index(letter) + 1, len(_LETTERS) - 1)]}"


def _probe_disk(path: str, target: str, mark: str) -> str:
    disk = Element("disk", type="file", device="disk")
    SubElement(disk, "driver", name="qemu", type="raw")
    SubElement(disk, "source", file=path)
    SubElement(disk, "target", dev=target, bus="virtio")
    SubElement(disk, "serial").text = f"{SERIAL}{mark}"
    return to_text(disk)


def _probe_nic(root: Element, found: _Found, mac: str, mark: str) -> str:
    """A card beside the first that is switched, its cable not plugged in: it shall only be seen."""
    like = next(
        nic
        for nic in root.iterfind("devices/interface")
        if nic.find(f"mac[@address='{found.nics[0]['mac']}']") is not None
    )
    nic = Element("interface", type=like.get("type", "user"))
    SubElement(nic, "mac", address=mac)
    nic.extend(copy.deepcopy(like.findall("source")))
    SubElement(nic, "model", type="virtio")
    SubElement(nic, "link", state="down")
    SubElement(nic, "alias", name=f"{ALIAS}{mark}")
    return to_text(nic)
