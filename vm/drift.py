"""Where a VM departs from the template and the profile that it was made from, and the plan that aligns it again.

What is expected is what a deployment would define today (vm.deploy), compared aspect by aspect (vm.drift_aspects).
Settings that were given when it was deployed are in its metadata and come before its profile's: they are no departures.
This module changes nothing; aligning is an edit of the XML (vm.edit) and, for autostart, a step of vm.lifecycle.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from xml.etree.ElementTree import Element

import libvirt

from host.connection import Host
from host.errors import UsageError
from host.facts import read_defaults
from host.plan import Plan
from host.text import did_you_mean, printable
from vm import create_checks, deploy_checks, deploy_defaults, drift_aspects, edit, lifecycle, profile_overrides
from vm.commands import hint, words
from vm.create_checks import Findings
from vm.deploy import find_template
from vm.deploy_request import DeployRequest
from vm.deploy_xml import Choices, deployed_xml, with_machine
from vm.domain_xml import parse, to_text
from vm.drift_aspects import Difference
from vm.model import Vm
from vm.new_domain_xml import NewDisk
from vm.origin import backing_of
from vm.profile_model import GuestProfile, HardwareProfile
from vm.template_mark import TemplateMark, template_of
from vm.template_model import DEFAULT_LIBRARY, ImageRole, Library, Template

__all__ = ["Difference", "Drift", "compare", "plan_align"]

AUTOSTART = "autostart"
_ASPECT_OF = {"network": "nics", "nic-model": "nics", "disk-bus": "disk"}  # setting -> key of a difference
_INACTIVE = libvirt.VIR_DOMAIN_XML_INACTIVE


@dataclass(frozen=True, slots=True)
class Drift:
    """How a VM stands to its template. `notes` are what is not a difference but worth knowing; `expected_xml` is what
    a deployment would define for it; `settings` are those of its own deployment, over the profile ("memory=192M")."""

    template: str
    revision: int
    profile: str
    differences: tuple[Difference, ...]
    notes: tuple[str, ...] = ()
    expected_xml: str = ""
    settings: tuple[str, ...] = ()
    other: str = ""  # the template that was asked for, where it is not the VM's own


def compare(
    host: Host, vm: Vm, *, template: str = "", library: str = "", usual_library: str = DEFAULT_LIBRARY
) -> Drift:
    """Compare the VM's next start with its template, or with the `template` named, of that `library`, else of the VM's
    own, else of the host's usual one. Raises UsageError for a VM that was
    made from none, NotFound for a template that is gone, ConnectionLost."""
    found, mark = _read(host, vm)
    if mark is None and not template:
        remedy = f"Compare it with one: {hint('diff', vm.name, '--with', 'TEMPLATE')}"
        raise UsageError("it was not made from a template", about=vm.name, remedy=remedy)
    own = mark or TemplateMark(template)
    there, known = find_template(host, template or own.name, library or own.library or usual_library)
    hardware, settings, notes = _profile(host, there, known, own)
    expected = _expected(host, vm, there, known, hardware, own)
    root = parse(expected)
    return Drift(
        template=known.name,
        revision=known.revision,
        profile=hardware.name,
        differences=_marked((*drift_aspects.differences(found, root), *_autostart(vm, hardware)), settings),
        notes=(*notes, *_notes(host, found, own, known)),
        expected_xml=expected,
        settings=settings,
        other=template if mark is None or template != mark.name else "",
    )


def plan_align(host: Host, vm: Vm, drift: Drift, keys: Collection[str] = ()) -> Plan:
    """Make the VM as its template says, in all that can be aligned or in the aspects of `keys`. Raises UsageError for
    a key that is no difference of it, or cannot be aligned."""
    found, _ = _read(host, vm)
    chosen = _chosen(vm, drift, keys)
    needed = drift_aspects.needed_with(found, parse(drift.expected_xml), chosen)
    more = {each.key: needed[each.key] for each in drift.differences if each.key in needed and each.key not in chosen}
    chosen |= frozenset(more)
    plan = _edit_plan(host, vm, drift, found, chosen - {AUTOSTART})
    if AUTOSTART in chosen:
        switched = lifecycle.plan_autostart(host, vm, enabled=not vm.autostart)
        steps = (*(plan.steps if plan else ()), *switched.steps)
        plan = replace(plan or switched, steps=steps)
    if plan is None:
        raise UsageError("nothing about it can be aligned", about=vm.name, remedy=f"It is as {drift.template} says")
    left = [each for each in drift.differences if each.key not in chosen]
    return replace(
        plan,
        title=f"Align {vm.name} with {printable(drift.template, limit=60)}",
        command=words("align", vm.name, *_options(drift, keys)),
        warnings=(*plan.warnings, *(f"{key} is aligned too: {why}" for key, why in more.items())),
        keeps=tuple(f"{each.title}: {each.found}" + (f" ({each.why_not})" if each.why_not else "") for each in left),
    )


def _options(drift: Drift, keys: Collection[str]) -> tuple[str, ...]:
    other = ("--with", drift.other) if drift.other else ()
    return (*(word for key in sorted(keys) for word in ("--only", key)), *other)


def _edit_plan(host: Host, vm: Vm, drift: Drift, found: Element, keys: frozenset[str]) -> Plan | None:
    if not keys:
        return None
    return edit.plan_edit(host, vm, to_text(drift_aspects.aligned(found, parse(drift.expected_xml), keys)))


def _chosen(vm: Vm, drift: Drift, keys: Collection[str]) -> frozenset[str]:
    by_key = {each.key: each for each in drift.differences}
    for key in keys:
        if key not in by_key:
            shown = printable(key, limit=40)
            as_it_says = f"It is as {printable(drift.template, limit=60)} says"
            remedy = did_you_mean(key, by_key, otherwise="" if by_key else as_it_says)
            raise UsageError(f"{shown!r} is no difference of it", about=vm.name, remedy=remedy)
        if not by_key[key].can_align:
            raise UsageError(f"{key} cannot be aligned: {by_key[key].why_not}", about=vm.name)
    return frozenset(keys) or frozenset(key for key, each in by_key.items() if each.can_align)


def _read(host: Host, vm: Vm) -> tuple[Element, TemplateMark | None]:
    with host.calls("compare", vm.name) as connection:
        root = parse(connection.lookupByUUIDString(vm.uuid).XMLDesc(_INACTIVE))
    return root, template_of(root)


def _profile(
    host: Host, library: Library, template: Template, mark: TemplateMark
) -> tuple[HardwareProfile, tuple[str, ...], list[str]]:
    """What it was made with: the profile, else the template's own, else the default one, and its own settings over it.
    Returns the settings that count, and what is worth knowing."""
    base, is_there = deploy_defaults.base_hardware(host, template, library.pool, mark.hardware_profile)
    notes = []
    if not is_there:
        name = printable(mark.hardware_profile or template.hardware_profile, limit=60)
        notes.append(f"its hardware profile {name} is not in the library: compared with defaults")
    told = ", ".join(map(profile_overrides.in_words, mark.settings))
    try:
        hardware = profile_overrides.applied(base, mark.settings)
    except UsageError as error:
        return base, (), [*notes, f"{told} (set at its deployment) does not fit its profile any more: {error.cause}"]
    if told:
        notes.append(f"{told} (set at its deployment)")
    return hardware, mark.settings, notes


def _marked(found: tuple[Difference, ...], settings: tuple[str, ...]) -> tuple[Difference, ...]:
    """The differences with a word on those values that its own deployment asked for."""
    keys = {_ASPECT_OF.get(key, key) for key in (each.partition("=")[0] for each in settings)}
    return tuple(
        replace(each, expected=f"{each.expected} (set at its deployment)") if each.key in keys else each
        for each in found
    )


def _expected(
    host: Host, vm: Vm, library: Library, template: Template, hardware: HardwareProfile, mark: TemplateMark
) -> str:
    request = DeployRequest(
        template.name, (vm.name,), hardware, GuestProfile(mark.guest_profile), library.pool, linked=mark.linked
    )
    defaults = with_machine(read_defaults(host), hardware.machine)
    ignored = Findings()  # what stands in the way of a new VM does not matter to one that is there
    with host.calls("compare", vm.name) as connection:
        video = create_checks.read_choices(connection, defaults).video_models
        nics = [deploy_checks.read_nic(host, connection, nic, template, ignored) for nic in hardware.nics]
        version = connection.getLibVersion()
    choices = Choices(
        defaults=defaults,
        firmware=deploy_checks.resolve_firmware(request, template, defaults),
        nics=tuple(nic for nic in nics if nic is not None),
        video_model="virtio" if "virtio" in video or not video else "vga",
        libvirt_version=version,
        library=library,
        template=template,
    )
    bus = hardware.disk_bus or template.disk_bus
    count = len(deploy_checks.disk_bytes(hardware, template))
    disks = [NewDisk(f"/disk-{number}", "qcow2", bus=bus) for number in range(count)]
    return deployed_xml(request, vm.name, vm.uuid, disks, choices)


def _autostart(vm: Vm, hardware: HardwareProfile) -> tuple[Difference, ...]:
    if vm.autostart == hardware.autostart:
        return ()
    expected, found = ("on" if wanted else "off" for wanted in (hardware.autostart, vm.autostart))
    return (Difference(AUTOSTART, "start with the host", expected, found, can_align=True),)


def _notes(host: Host, found: Element, mark: TemplateMark, template: Template) -> tuple[str, ...]:
    notes = []
    name = printable(template.name, limit=60)
    if mark.revision and mark.name == template.name and mark.revision != template.revision:
        notes.append(f"made from revision {mark.revision} of {name}, which is at revision {template.revision} now")
    image = template.image(ImageRole.DISK)
    files = drift_aspects.disk_files(found)
    if mark.linked and image is not None and files:
        with host.calls("look at the disk", files[0]) as connection:
            backing = backing_of(connection, files[0])
        if backing is not None and backing.rpartition("/")[2] != image.volume:
            told = printable(backing, limit=120) or "nothing"
            notes.append(f"its first disk builds on {told}, not on {name}'s {image.volume}")
    if any("-seed" in file.rpartition("/")[2] for file in files):
        notes.append("its seed is still there, and may hold secrets: take it away with 'hvtui vm unseed'")
    return tuple(notes)
