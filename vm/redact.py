"""Keeps secrets of domain XML out of plans, journals and dialogs: VNC and SPICE passwords, cookies of network disks.

libvirt shows them only to VIR_DOMAIN_XML_SECURE, and defining XML without them would lose them: `insert` puts the ones
in force back at define time. A secret is known by where it stands ("graphics/vnc/0/passwd"). Pure functions.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

from host.errors import UsageError
from vm.domain_xml import to_text


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a secret is or could be: an attribute of `element`, or a child of it (`child` is true)."""

    key: str
    element: Element
    name: str
    is_child: bool = False

    def read(self) -> str | None:
        if not self.is_child:
            return self.element.get(self.name)
        child = self.element.find(self.name)
        return None if child is None else to_text(child)

    def remove(self) -> None:
        if not self.is_child:
            self.element.attrib.pop(self.name, None)
            return
        for child in self.element.findall(self.name):
            self.element.remove(child)

    def write(self, value: str) -> None:
        if not self.is_child:
            self.element.set(self.name, value)
            return
        try:
            child = ElementTree.fromstring(value)  # noqa: S314 - written by `read`, from XML that was parsed safely
        except ElementTree.ParseError as error:
            raise UsageError(f"the secret {self.key} is not XML") from error
        self.element.append(child)


def _places(root: Element) -> Iterator[_Place]:
    counts: dict[str, int] = {}
    for graphics in root.iterfind("devices/graphics"):
        kind = graphics.get("type", "")
        index = counts[kind] = counts.get(kind, -1) + 1
        yield _Place(f"graphics/{kind}/{index}/passwd", graphics, "passwd")
    for disk in root.iterfind("devices/disk"):
        target = disk.find("target")
        name = "" if target is None else target.get("dev", "")
        for depth, source in enumerate(disk.iter("source")):
            yield _Place(f"disk/{name}/{depth}/cookies", source, "cookies", is_child=True)


def extract(root: Element) -> dict[str, str]:
    """Take the secrets out of a domain's XML; returns them by where they stood."""
    found: dict[str, str] = {}
    for place in list(_places(root)):
        value = place.read()
        if value is not None:
            found[place.key] = value
            place.remove()
    return found


def insert(root: Element, secrets: Mapping[str, str]) -> None:
    """Put each secret where it belongs and none stands yet; one whose place is gone is left out."""
    for place in list(_places(root)):
        if place.key in secrets and place.read() is None:
            place.write(secrets[place.key])
