"""Connects the network cards of an imported VM to what the host has. Pure functions on parsed XML."""

from __future__ import annotations

import re
from collections.abc import Mapping
from xml.etree.ElementTree import Element

from host.errors import NotFound, UsageError
from host.text import printable
from vm.import_report import Findings
from vm.import_surroundings import Surroundings
from vm.new_domain_xml import new_mac

_SOURCES = {"network": "network", "bridge": "bridge", "direct": "dev"}
_HOST_BOUND = ("target", "script", "downscript", "backend", "guest", "actual")
_BRIDGE = re.compile(r"[^\s/]{1,15}")


def fit_nics(
    root: Element, around: Surroundings, wanted: Mapping[str, str], findings: Findings, *, uuid_of_copy: str = ""
) -> None:
    """Connect each card. `wanted` maps a network, bridge or device of the old host (or a kind, such as "user") to what
    takes its place. A copy gets new addresses, which follow from `uuid_of_copy`. Raises UsageError for a key of
    `wanted` that no card has."""
    devices = root.find("devices")
    nics = devices.findall("interface") if devices is not None else []
    unused = set(wanted)
    for index, nic in enumerate(nics):
        name, kind = source_of(nic), nic.get("type", "")
        key = next((each for each in (name, f"{kind}:{name}", kind) if each and each in wanted), "")
        unused.discard(key)
        for tag in _HOST_BOUND:
            for child in nic.findall(tag):
                nic.remove(child)
        if uuid_of_copy:
            _renew(nic, new_mac(uuid_of_copy, index))
        _fit_filter(nic, around, findings)
        if key:
            _connect(root, nic, wanted[key], around, findings)
        else:
            _check(kind, name, around, findings)
    if unused:
        has = ", ".join(printable(source_of(nic) or nic.get("type", ""), limit=40) for nic in nics) or "none"
        raise UsageError(f"no card is connected to {printable(min(unused), limit=40)!r}", remedy=f"Its networks: {has}")
    if uuid_of_copy and nics:
        findings.changed("its network cards have new addresses (MAC)")


def source_of(nic: Element) -> str:
    """The network, bridge or device that a card is connected to; empty where it names none."""
    source = nic.find("source")
    return "" if source is None else source.get(_SOURCES.get(nic.get("type", ""), "dev"), "")


def _renew(nic: Element, mac: str) -> None:
    element = nic.find("mac")
    if element is None:
        element = Element("mac")
        nic.insert(0, element)
    element.attrib.clear()
    element.set("address", mac)


def _fit_filter(nic: Element, around: Surroundings, findings: Findings) -> None:
    for each in nic.findall("filterref"):
        name = each.get("filter", "")
        if name not in around.filters:
            nic.remove(each)
            findings.changed(f"its card is not filtered: there is no network filter {printable(name, limit=40)} here")


def _check(kind: str, name: str, around: Surroundings, findings: Findings) -> None:
    shown = printable(name, limit=60)
    if kind == "user":
        findings.ok("a card on QEMU's own address translation")
    elif kind == "network" and name in around.networks:
        findings.ok(f"the network {shown} is there" + ("" if around.networks[name] else ", and not active yet"))
    elif kind == "bridge" and name and (around.bridges is None or name in around.bridges):
        findings.ok(f"the bridge {shown} is there" if around.bridges is not None else f"it needs the bridge {shown}")
    elif kind == "direct" and name and (around.interfaces is None or name in around.interfaces):
        findings.ok(f"the network device {shown} is there" if around.interfaces is not None else f"it needs {shown}")
    else:
        what = {"network": "network", "bridge": "bridge", "direct": "network device"}.get(kind)
        reason = (
            f"there is no {what} {shown} here"
            if what
            else f"its card of the kind {printable(kind, limit=20)} is bound to its old host"
        )
        known = ", ".join(printable(each, limit=60) for each in sorted(around.networks)) or "none"
        key = printable(name or kind, limit=60)
        remedy = f"Say what takes its place: --network {key}=NEW. Networks here: {known}; also bridge:NAME, user, none"
        findings.block(reason, remedy, exit_code=NotFound.exit_code)


def _connect(root: Element, nic: Element, wanted: str, around: Surroundings, findings: Findings) -> None:
    old = printable(source_of(nic) or nic.get("type", ""), limit=60)
    if wanted == "none":
        devices = root.find("devices")
        if devices is not None:
            devices.remove(nic)
        findings.changed(f"its card on {old} is left out, as asked")
        return
    kind, name = _kind_of(wanted)
    if kind == "network" and name not in around.networks:
        known = ", ".join(printable(each, limit=60) for each in sorted(around.networks)) or "none"
        findings.block(f"there is no network {printable(name, limit=60)}", f"Networks here: {known}. Also: user, none, "
                       "bridge:NAME", exit_code=NotFound.exit_code)  # fmt: skip
    elif kind == "bridge" and around.bridges is not None and name not in around.bridges:
        findings.block(f"there is no bridge {printable(name, limit=60)}", exit_code=NotFound.exit_code)
    else:
        findings.changed(f"its card on {old} is connected to {printable(wanted, limit=60)}, as asked")
    nic.set("type", kind)
    for tag in ("source", "virtualport", "vlan"):
        for child in nic.findall(tag):
            nic.remove(child)
    if name:
        mac = nic.find("mac")
        nic.insert(0 if mac is None else list(nic).index(mac) + 1, Element("source", {_SOURCES[kind]: name}))


def _kind_of(wanted: str) -> tuple[str, str]:
    if wanted == "user":
        return "user", ""
    if wanted.startswith("bridge:"):
        name = wanted.removeprefix("bridge:")
        if not _BRIDGE.fullmatch(name):
            raise UsageError(f"{printable(name, limit=40)!r} is not a bridge's name", remedy="Write bridge:br0")
        return "bridge", name
    return "network", wanted
