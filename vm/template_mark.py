"""What a VM's metadata say of the template that it was made from, in hvtui's own namespace beside its tags.

    <hvtui:template name="debian-12" revision="3" library="library" linked="yes"/>
    <hvtui:profiles hardware="web" guest="web"/>
    <hvtui:memory minimum="536870912" maximum="2147483648"/>
    <hvtui:set memory="1G" vcpus="2"/>

Drift is compared against it, and a template is not removed while a VM that is linked to it says so. This module parses
and edits elements only.
"""

from __future__ import annotations

from dataclasses import dataclass
from xml.etree.ElementTree import Element, SubElement

from vm.domain_xml import HVTUI_ELEMENT, HVTUI_NAMESPACE, own_metadata

_NAMES = ("template", "profiles", "memory", "set")
_TEMPLATE, _PROFILES, _MEMORY, _SET = (f"{{{HVTUI_NAMESPACE}}}{name}" for name in _NAMES)


@dataclass(frozen=True, slots=True)
class TemplateMark:
    """The template, its revision and its library at the time when the VM was made; `linked` when the VM's disks are
    overlays on the template's. Sizes are bytes, 0 where the profile said nothing. `settings` are the single values of
    the hardware that its deployment asked for in place of the profile's, as vm.profile_overrides writes them."""

    name: str
    revision: int = 1
    library: str = ""
    linked: bool = False
    hardware_profile: str = ""
    guest_profile: str = ""
    memory_minimum_bytes: int = 0
    memory_maximum_bytes: int = 0
    settings: tuple[str, ...] = ()


def set_template(root: Element, mark: TemplateMark | None) -> None:
    """Write the mark into the domain's metadata in place of one that is there; None removes it."""
    own = own_metadata(root)
    if own is not None:
        for old in [each for each in own if each.tag in {_TEMPLATE, _PROFILES, _MEMORY, _SET}]:
            own.remove(old)
    if mark is None:
        return
    own = own if own is not None else _made(root)
    linked = "yes" if mark.linked else "no"
    words = {"name": mark.name, "revision": str(mark.revision), "library": mark.library, "linked": linked}
    SubElement(own, _TEMPLATE, words)
    profiles = {"hardware": mark.hardware_profile, "guest": mark.guest_profile}
    sizes = {"minimum": mark.memory_minimum_bytes, "maximum": mark.memory_maximum_bytes}
    for tag, values in ((_PROFILES, profiles), (_MEMORY, {key: str(size) for key, size in sizes.items() if size})):
        if any(values.values()):
            SubElement(own, tag, {key: value for key, value in values.items() if value})
    if mark.settings:
        SubElement(own, _SET, {key: value for key, _, value in (each.partition("=") for each in mark.settings)})


def template_of(root: Element) -> TemplateMark | None:
    """The mark in the domain's metadata, or None for a VM that was not made from a template."""
    own = own_metadata(root)
    found = own.find(_TEMPLATE) if own is not None else None
    if own is None or found is None or not found.get("name"):
        return None
    profiles, memory = _attributes(own.find(_PROFILES)), _attributes(own.find(_MEMORY))
    return TemplateMark(
        name=found.get("name", ""),
        revision=_number(found.get("revision")),
        library=found.get("library", ""),
        linked=found.get("linked") == "yes",
        hardware_profile=profiles.get("hardware", ""),
        guest_profile=profiles.get("guest", ""),
        memory_minimum_bytes=_number(memory.get("minimum")),
        memory_maximum_bytes=_number(memory.get("maximum")),
        settings=tuple(f"{key}={value}" for key, value in _attributes(own.find(_SET)).items()),
    )


def _attributes(element: Element | None) -> dict[str, str]:
    return element.attrib if element is not None else {}


def _made(root: Element) -> Element:
    metadata = root.find("metadata")
    if metadata is None:
        metadata = Element("metadata")
        places = [place for place, each in enumerate(root) if each.tag in {"name", "uuid", "genid", "title"}]
        root.insert(places[-1] + 1 if places else 0, metadata)
    return SubElement(metadata, HVTUI_ELEMENT)


def _number(text: str | None) -> int:
    text = (text or "").strip()
    return int(text) if text.isascii() and text.isdigit() and len(text) < 20 else 0
