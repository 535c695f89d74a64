"""The step verbs that make a VM paravirtual: add what needs the drivers, see that they are there, switch.

The small disk has the plan's mark in its name and its serial number, the card a MAC address that the plan chose: what
has them is this job's own. Devices are switched by what they are (a disk's name and bus, a card's MAC address), so that
doing it again, or back, is harmless.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from typing import Any
from xml.etree.ElementTree import Element, SubElement

import libvirt

from host import volumes
from host.errors import Conflict, HvtuiError, TimedOut, WrongState
from host.plan import Step
from host.steps import Args, Result, StepContext, StepVerb, register, verb_named
from vm.create_steps import or_none, settle, volume_xml
from vm.domain_xml import disk_source, parse, to_text

SERIAL = "hvtui-drv-"  # virtio's serial numbers have at most 20 characters
ALIAS = f"ua-{SERIAL}"
SHUTDOWN_TIMEOUT_S = 300.0
_POLL_S = 1.0
_PATIENCE_S = 3  # below the interval of keepalive (host.connection)
_SETTLED_S = 60.0  # for a guest that is asked to shut down while its job is taken back
_CONFIG = libvirt.VIR_DOMAIN_AFFECT_CONFIG
_INACTIVE = libvirt.VIR_DOMAIN_XML_INACTIVE
_SECURE = _INACTIVE | libvirt.VIR_DOMAIN_XML_SECURE
_NO_DOMAIN = frozenset({libvirt.VIR_ERR_NO_DOMAIN})
_NO_POOL = frozenset({libvirt.VIR_ERR_NO_STORAGE_POOL})
_NO_VOLUME = frozenset({libvirt.VIR_ERR_NO_STORAGE_VOL})


# Changing devices (pure)


def change_devices(root: Element, changes: Args, *, back: bool = False) -> bool:
    """Give disks and cards of the domain `root` their new buses and models, or with `back` their old ones; True when
    something changed."""
    old, new = ("to", "from") if back else ("from", "to")
    changed = False
    for change in changes["disks"]:
        for disk in root.findall("devices/disk"):
            target = disk.find("target")
            if target is not None and _is(target, change[old]):
                target.set("dev", change[new]["dev"])
                target.set("bus", change[new]["bus"])
                _forget_address(disk)
                changed = True
    for change in changes["nics"]:
        for nic in root.findall("devices/interface"):
            if nic.find(f"mac[@address='{change['mac']}']") is not None and _set_model(nic, change[old], change[new]):
                changed = True
    if changed and changes.get("boot"):
        _keep_booting(root, changes["boot"], back=back)
    return changed


def _keep_booting(root: Element, boot: Args, *, back: bool) -> None:
    """libvirt sorts disks by their names, and "the first disk" would be another: name the one that is meant."""
    os_element = root.find("os")
    for disk in root.iterfind("devices/disk"):
        target = disk.find("target")
        if target is not None and target.get("dev") in {boot["from"], boot["to"]}:
            for order in disk.findall("boot"):
                disk.remove(order)
            if not back:
                SubElement(disk, "boot", order="1")
    if os_element is None:
        return
    for element in os_element.findall("boot"):
        os_element.remove(element)
    for device in boot["was"] if back else []:
        SubElement(os_element, "boot", dev=device)


def _is(target: Element, wanted: Args) -> bool:
    return bool(target.get("dev") == wanted["dev"] and target.get("bus") == wanted["bus"])


def _forget_address(device: Element) -> None:
    for address in device.findall("address"):
        device.remove(address)


def _set_model(nic: Element, old: str, new: str) -> bool:
    """The card keeps its place: a guest names it by that."""
    model = nic.find("model")
    if (model.get("type", "") if model is not None else "") != old:
        return False
    if model is not None and not new:
        nic.remove(model)
    else:
        (model if model is not None else SubElement(nic, "model")).set("type", new)
    return True


def probes_of(root: Element) -> tuple[Element, ...]:
    """The small disks and the cards that such jobs have put into a VM."""
    disks = (disk for disk in root.iterfind("devices/disk") if disk.findtext("serial", "").startswith(SERIAL))
    nics = (nic for nic in root.iterfind("devices/interface") if _alias(nic).startswith(ALIAS))
    return (*disks, *nics)


def _alias(device: Element) -> str:
    alias = device.find("alias")
    return "" if alias is None else alias.get("name", "")


def _take_out(root: Element) -> None:
    devices = root.find("devices")
    for device in probes_of(root):
        if devices is not None:
            devices.remove(device)


# What needs the drivers


def _probe(ctx: StepContext, args: Args) -> Result:
    _refuse_running(ctx, args)
    if args["volume"]:
        with ctx.calls("make the small disk", args["volume"]) as connection:
            pool = connection.storagePoolLookupByName(args["pool"])
            if or_none(pool.storageVolLookupByName, args["volume"], missing=_NO_VOLUME) is None:
                volume = {"name": args["volume"], "capacity_bytes": args["size_bytes"], "format": "raw"}
                pool.createXML(volume_xml(volume), 0)
    with ctx.calls("add devices to", args["name"]) as connection:
        domain = connection.lookupByUUIDString(args["uuid"])
        root = parse(domain.XMLDesc(_INACTIVE))
        if args["disk"] and not _has_disk(root, f"{SERIAL}{args['mark']}"):
            domain.attachDeviceFlags(args["disk"], _CONFIG)
        if args["nic"] and not _has_nic(root, _mac_of(args["nic"])):
            domain.attachDeviceFlags(args["nic"], _CONFIG)
    return {}


def _has_disk(root: Element, serial: str) -> bool:
    return any(disk.findtext("serial") == serial for disk in root.iterfind("devices/disk"))


def _has_nic(root: Element, mac: str) -> bool:
    return root.find(f"devices/interface/mac[@address='{mac}']") is not None


def _mac_of(nic: str) -> str:
    mac = parse(nic, root="interface").find("mac")
    return "" if mac is None else mac.get("address", "")


def _remove_probe(ctx: StepContext, args: Args, result: Result | None) -> None:
    settle(result)
    _redefine(ctx, args, _take_out)
    _remove_volume(ctx, args["pool"], args["volume"])


def _remove_volume(ctx: StepContext, pool_name: str, name: str) -> None:
    if not name:
        return
    with ctx.calls("remove the small disk", name) as connection:
        pool = or_none(connection.storagePoolLookupByName, pool_name, missing=_NO_POOL)
        volume = or_none(pool.storageVolLookupByName, name, missing=_NO_VOLUME) if pool is not None else None
        if volume is not None:
            volumes.delete(volume)


def _redefine(ctx: StepContext, args: Args, change: Any) -> None:
    """Change the definition for the next start. Unknown elements and secrets stay."""
    with ctx.calls("change the devices of", args["name"]) as connection:
        domain = or_none(connection.lookupByUUIDString, args["uuid"], missing=_NO_DOMAIN)
        if domain is None:
            return
        root = parse(domain.XMLDesc(_SECURE))
        before = to_text(root)
        change(root)
        after = to_text(root)
        if after != before:
            connection.defineXMLFlags(after, libvirt.VIR_DOMAIN_DEFINE_VALIDATE)


def _refuse_running(ctx: StepContext, args: Args) -> None:
    with ctx.calls("look at", args["name"]) as connection:
        domain = connection.lookupByUUIDString(args["uuid"])
        if domain.isActive() or domain.hasManagedSaveImage(0):
            raise WrongState("it is not off", about=args["name"], remedy="Shut it down, then restart the job")


# Seeing that the drivers are there


@dataclass(frozen=True, slots=True)
class _Seen:
    """What the guest's agent tells: None where it does not answer to that."""

    disk: bool | None = None
    nic: bool | None = None

    def lacks(self, *, wants_disk: bool, wants_nic: bool) -> str:
        """What is missing, in words; empty when nothing is."""
        if self.disk is None and self.nic is None:
            return "its agent does not answer"
        missing = [name for name, wanted, seen in (("disk", wants_disk, self.disk), ("card", wants_nic, self.nic))
                   if wanted and not seen]  # fmt: skip
        return f"its agent sees no new {' and no new '.join(missing)}" if missing else ""


def _watch(ctx: StepContext, args: Args) -> Result:
    """Start the guest, wait until it uses the small disk and the card, and shut it down."""
    with ctx.calls("start", args["name"]) as connection:
        domain = connection.lookupByUUIDString(args["uuid"])
        if not domain.isActive():
            domain.create()
    started_s = time.monotonic()
    while lacks := _look(ctx, args).lacks(wants_disk=bool(args["volume"]), wants_nic=bool(args["mac"])):
        waited_s = time.monotonic() - started_s
        if waited_s > args["timeout_s"]:
            raise _too_late(ctx, args, lacks)
        ctx.raise_if_cancelled()
        ctx.progress(None, f"{lacks}, {waited_s:.0f} s")
        time.sleep(_POLL_S)
    verb_named("vm.stop").do(ctx, {**args, "timeout_s": SHUTDOWN_TIMEOUT_S, "force": False, "wait": True})
    return {}


def _too_late(ctx: StepContext, args: Args, lacks: str) -> TimedOut:
    remedy = (
        "Install what is missing (virtio-win.iso for Windows) and wait again with"
        f" 'hvtui job restart {ctx.job_id}'. Or look in the guest for a new disk of 1M and a new card; where both are,"
        f" shut it down and switch with 'hvtui vm paravirtual --now'. 'hvtui job rollback {ctx.job_id}' removes them"
    )
    return TimedOut(f"the drivers are not seen: {lacks}", about=args["name"], remedy=remedy, keeps=True)


def _look(ctx: StepContext, args: Args) -> _Seen:
    with ctx.calls("ask the guest of", args["name"]) as connection:
        domain = connection.lookupByUUIDString(args["uuid"])
        if not domain.isActive():
            remedy = f"Start it again and go on waiting: 'hvtui job restart {ctx.job_id}'"
            raise WrongState("it was turned off before its drivers were seen", about=args["name"], remedy=remedy,
                             keeps=True)  # fmt: skip
        disks = _ask(domain, "guest-get-disks") if args["volume"] else None
    with ctx.calls("ask the guest of", args["name"]) as connection:
        domain = connection.lookupByUUIDString(args["uuid"])
        nics = _ask(domain, "guest-network-get-interfaces") if args["mac"] else None
    return _Seen(_tells_disk(disks, f"{SERIAL}{args['mark']}"), _tells_nic(nics, args["mac"]))


def _ask(domain: Any, command: str) -> Any:
    """The agent's answer; None when it does not give one. Raises libvirtError when the connection is lost."""
    import libvirt_qemu

    try:
        answer = json.loads(libvirt_qemu.qemuAgentCommand(domain, json.dumps({"execute": command}), _PATIENCE_S, 0))
    except libvirt.libvirtError as error:
        if error.get_error_domain() == libvirt.VIR_FROM_RPC:
            raise
        return None
    except (ValueError, RecursionError):
        return None
    return answer.get("return") if isinstance(answer, dict) else None


def _tells_disk(told: Any, serial: str) -> bool | None:
    """Does it see the disk with this serial number? An agent that tells no serial numbers tells the bus."""
    if not isinstance(told, list):
        return None
    places = [disk["address"] for disk in told if isinstance(disk, dict) and isinstance(disk.get("address"), dict)]
    return any(place.get("serial") == serial or place.get("bus-type") == "virtio" for place in places)


def _tells_nic(told: Any, mac: str) -> bool | None:
    if not isinstance(told, list):
        return None
    found = [nic.get("hardware-address") for nic in told if isinstance(nic, dict)]
    return any(isinstance(each, str) and each.lower() == mac.lower() for each in found)


def _calm_down(ctx: StepContext, args: Args, result: Result | None) -> None:
    """A guest that this job started is asked to shut down; one that does not react keeps running."""
    settle(result)
    stop = {**args, "timeout_s": _SETTLED_S, "force": False, "wait": True}
    try:
        verb_named("vm.stop").do(ctx, stop)
    except TimedOut:
        ctx.progress(None, "it does not react to being shut down, and runs on")
    except HvtuiError as error:
        if not isinstance(error, Conflict):
            raise


# The switch


def _switch(ctx: StepContext, args: Args) -> Result:
    _refuse_running(ctx, args)
    left = _left_by_others(ctx, args)

    def change(root: Element) -> None:
        _take_out(root)
        change_devices(root, args["changes"])

    _redefine(ctx, args, change)
    for pool, volume in {*left, *_planned(args), (args["pool"], args["volume"])}:
        _remove_volume(ctx, pool, volume)
    return {}


def probe_volumes(connection: Any, root: Element) -> list[tuple[str, str]]:
    """The volumes of the small disks that are in the domain `root`, by pool and name. Raises libvirtError."""
    found = []
    for path in (disk_source(probe) for probe in probes_of(root) if probe.tag == "disk"):
        volume = or_none(connection.storageVolLookupByPath, path, missing=_NO_VOLUME)
        if volume is not None:
            found.append((volume.storagePoolLookupByVolume().name(), volume.name()))
    return found


def _left_by_others(ctx: StepContext, args: Args) -> list[tuple[str, str]]:
    with ctx.calls("look at", args["name"]) as connection:
        domain = or_none(connection.lookupByUUIDString, args["uuid"], missing=_NO_DOMAIN)
        return probe_volumes(connection, parse(domain.XMLDesc(_INACTIVE))) if domain is not None else []


def _planned(args: Args) -> set[tuple[str, str]]:
    """The small disks of earlier attempts that were in the VM when it was planned: a killed switch may have taken them
    out of its definition, which then names them no more."""
    return {(pool, volume) for pool, volume in args.get("left", ())}


def _switch_back(ctx: StepContext, args: Args, result: Result | None = None) -> None:
    settle(result)
    for pool, volume in _planned(args).difference(_left_by_others(ctx, args)):
        _remove_volume(ctx, pool, volume)
    _redefine(ctx, args, lambda root: change_devices(root, args["changes"], back=True))


def _do_switch_back(ctx: StepContext, args: Args) -> Result:
    _refuse_running(ctx, args)
    _switch_back(ctx, args, {})
    return {}


def _redo(ctx: StepContext, args: Args, result: Result | None) -> None:
    settle(result)
    _redefine(ctx, args, lambda root: change_devices(root, args["changes"]))


def _other_way(verb: str, title: str) -> Any:
    def inverse(args: Args, _result: Result) -> Step:
        identity = {"uuid": args["uuid"], "name": args["name"], "changes": args["changes"], "pool": "", "volume": ""}
        return Step(verb, f"{title} {args['name']}", identity)

    return inverse


for _verb in (
    StepVerb("paravirtual.probe", _probe, _remove_probe, lambda _args, _result: None),
    StepVerb("paravirtual.watch", _watch, _calm_down, lambda _args, _result: None),
    StepVerb("paravirtual.switch", _switch, _switch_back,
             _other_way("paravirtual.switch-back", "Give their emulated devices back to")),
    StepVerb("paravirtual.switch-back", _do_switch_back, _redo,
             _other_way("paravirtual.switch", "Switch the devices again of")),
):  # fmt: skip
    register(_verb)
