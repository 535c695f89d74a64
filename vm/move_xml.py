"""Fits a VM's definition to the host that it moves to: the paths of copied disks, media left behind, the move's mark.

Pure functions on parsed XML; what they do not know stays as it is.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any
from xml.etree.ElementTree import Element

from vm.clone_xml import REMOVABLE, target_of
from vm.domain_xml import disk_source, parse, to_text
from vm.move_model import BOOT_FILES
from vm.move_sides import with_mark, without_mark


def fitted(xml: str, copies: Sequence[Any], *, emptied: Collection[str] = (), mark: str | None = None) -> str:
    """`xml` (migratable or inactive) as the target gets it: what `copies` (mappings with target, path, format, backing)
    name at its new place, disks and, with a target of BOOT_FILES, files that it boots from; the drives `emptied` (by
    target) without their media; with `mark` "" no mark is left, with another it is put in."""
    root = parse(xml)
    for disk in root.iterfind("devices/disk"):
        copy = next((each for each in copies if each["target"] == target_of(disk)), None)
        if copy is not None:
            _replace_source(disk, copy["path"], copy["format"])
        elif target_of(disk) in emptied and disk.get("device") in REMOVABLE:
            _empty(disk)
    for copy in copies:
        element = root.find(f"os/{copy['target']}") if copy["target"] in BOOT_FILES else None
        if element is not None:
            element.text = copy["path"]
    if mark is not None:
        without_mark(root)
    if mark:
        with_mark(root, mark)
    return to_text(root)


def _replace_source(disk: Element, path: str, image_format: str) -> None:
    source = disk.find("source")
    if source is None:
        return
    for name in ("file", "dev", "pool", "volume", "name", "protocol", "mode", "index", "startupPolicy"):
        source.attrib.pop(name, None)
    for child in [each for each in source if each.tag in {"host", "slices", "privateData"}]:
        source.remove(child)
    disk.set("type", "file")
    source.set("file", path)
    driver = disk.find("driver")
    if driver is not None and image_format:
        driver.set("type", image_format)
    for tag in ("backingStore", "mirror"):  # libvirt reads the chain anew at the target
        for element in disk.findall(tag):
            disk.remove(element)


def _empty(disk: Element) -> None:
    for tag in ("source", "backingStore"):
        for element in disk.findall(tag):
            disk.remove(element)
    disk.set("type", "file")


def sources(xml: str) -> dict[str, str]:
    """What each disk of a definition reads, by target."""
    return {target_of(disk): disk_source(disk) for disk in parse(xml).iterfind("devices/disk")}
