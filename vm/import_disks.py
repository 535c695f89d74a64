"""Puts the bundle's disks in place of those that the definition of an imported VM names. Pure functions."""

from __future__ import annotations

from collections.abc import Mapping
from xml.etree.ElementTree import Element

from host.text import printable
from vm.domain_xml import disk_source
from vm.import_report import Findings

_HOST_BOUND = ("backingStore", "mirror", "encryption", "auth", "reservations", "source")
_MEDIA = frozenset({"cdrom", "floppy"})


def fit_disks(
    root: Element, places: Mapping[str, tuple[str, str]], left_out: Mapping[str, str], findings: Findings
) -> None:
    """Let each disk of the domain `root` be read from its place: `places` has a path and a format for each target of
    the bundle. Drives are left empty; a disk that is not in the bundle goes."""
    devices = root.find("devices")
    if devices is None:
        return
    seen = set()
    for disk in devices.findall("disk"):
        target = disk.find("target")
        name = "" if target is None else target.get("dev", "")
        if disk.get("device", "disk") in _MEDIA:
            _empty(disk, name, findings)
        elif name in places and name not in seen:
            seen.add(name)
            set_source(disk, *places[name])
        else:
            devices.remove(disk)
            why = left_out.get(name) or disk_source(disk) or "no source"
            findings.changed(f"the disk {printable(name, limit=40)} is left out, as by its export: "
                             f"{printable(why, limit=120)}")  # fmt: skip
    for missing in sorted(set(places) - seen):
        findings.block(f"its definition has no disk {missing}, and the bundle has one")
    if places:
        findings.ok(f"{len(places)} disk{'s' if len(places) > 1 else ''}: {', '.join(sorted(places))}")


def _empty(disk: Element, name: str, findings: Findings) -> None:
    source = disk_source(disk)
    for tag in _HOST_BOUND:
        for child in disk.findall(tag):
            disk.remove(child)
    disk.set("type", "file")
    if source:
        shown = printable(source, limit=120)
        findings.changed(f"the drive {printable(name, limit=40)} is empty: its medium {shown} is not in the bundle")


def set_source(disk: Element, path: str, image_format: str) -> None:
    """Let the disk be the image file at `path`; how it hangs on the VM stays."""
    for tag in _HOST_BOUND:
        for child in disk.findall(tag):
            disk.remove(child)
    for attribute in ("sgio", "rawio", "snapshot"):
        disk.attrib.pop(attribute, None)
    disk.set("type", "file")
    disk.set("device", "disk")
    driver = disk.find("driver")
    if driver is None:
        driver = Element("driver")
        disk.insert(0, driver)
    driver.set("name", "qemu")
    driver.set("type", image_format)
    source = Element("source", file=path)
    disk.insert(list(disk).index(driver) + 1, source)
