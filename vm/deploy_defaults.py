"""What a deployment is made of when little is said: the template's own profiles, those named, and single settings.

Both front ends come to a complete DeployRequest through here. Reads only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from host.connection import Host
from host.errors import NotFound
from vm import library as libraries
from vm import profile_store
from vm.create_request import TINY_MEMORY_BYTES
from vm.profile_model import GuestProfile, HardwareProfile
from vm.profiles import override
from vm.template_model import DEFAULT_LIBRARY, ImageRole, Library, Template


@dataclass(frozen=True, slots=True)
class Parts:
    """A template with the profiles that its new VMs get."""

    library: Library
    template: Template
    hardware: HardwareProfile
    guest: GuestProfile


def read_parts(
    host: Host,
    template_name: str,
    *,
    library: str = DEFAULT_LIBRARY,
    profiles: Sequence[str] = (),
    settings: Sequence[str] = (),
) -> Parts:
    """The template, its default profiles in place of which come the named ones (names or files), and the settings
    ("memory=2G") over them. Raises NotFound, UsageError, ConnectionLost, Denied."""
    found, template = libraries.find(host, template_name, library)
    named = [profile_store.load(host, library, each) for each in profiles]
    hardware = next((each for each, _ in reversed(named) if each is not None), None)
    guest = next((each for _, each in reversed(named) if each is not None), None)
    hardware = hardware or default_hardware(host, template, library)
    guest = guest or default_guest(host, template, library)
    hardware, guest = override(hardware, guest, *settings)
    return Parts(found, template, hardware, guest)


def base_hardware(host: Host, template: Template, library: str, profile: str) -> tuple[HardwareProfile, bool]:
    """What a VM that names `profile` is compared with: that profile, the template's own, or the default one; and False
    where the library does not have the named one (it was a file, or is gone). Raises ConnectionLost, Denied."""
    if profile and not profile_store.is_path(profile):  # a name from a VM's metadata reaches no file here
        try:
            found, _ = profile_store.load(host, library, profile)
        except NotFound:
            found = None
        if found is not None:
            return found, True
    try:
        return default_hardware(host, template, library), not profile
    except NotFound:
        return _plain_hardware(template), False


def default_hardware(host: Host, template: Template, library: str) -> HardwareProfile:
    """What the template names; else a small machine, the smallest for one that has no disk."""
    if template.hardware_profile:
        found, _ = profile_store.load(host, library, template.hardware_profile)
        if found is not None:
            return found
    return _plain_hardware(template)


def _plain_hardware(template: Template) -> HardwareProfile:
    if template.image(ImageRole.DISK) is None:
        return replace(HardwareProfile(), memory_bytes=TINY_MEMORY_BYTES)
    return HardwareProfile()


def default_guest(host: Host, template: Template, library: str) -> GuestProfile:
    """What the template names; else, where the guest can be told, the built-in profile, so that somebody can log in."""
    if template.guest_profile:
        _, found = profile_store.load(host, library, template.guest_profile)
        if found is not None:
            return found
    return profile_store.suggested_guest() if template.takes_seed else GuestProfile()
