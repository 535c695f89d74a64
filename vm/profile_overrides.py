"""In which single settings a hardware profile departs from another, as vm.profiles.override takes them: "memory=192M".

A deployment writes them beside the profile's name into the VM's metadata, so that what was asked for there is no drift.
Pure functions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from host.text import printable
from host.units import GIB, KIB, MIB
from vm.create_request import Firmware
from vm.profile_model import GuestProfile, HardwareProfile
from vm.profile_settings import override


def departures(base: HardwareProfile, wanted: HardwareProfile) -> tuple[str, ...]:
    """The settings that make `base` what `wanted` is, in an order in which they can be applied."""
    pairs = ((key, tell(base), tell(wanted)) for key, tell in _TOLD.items())
    return tuple(f"{key}={text}" for key, before, text in pairs if before != text)


def applied(base: HardwareProfile, settings: Iterable[str]) -> HardwareProfile:
    """`base` with the settings of a VM's metadata over it. Raises UsageError where they do not fit it any more."""
    known = [each for each in settings if each.partition("=")[0] in _TOLD]
    hardware, _ = override(base, GuestProfile(), *known)
    return hardware


def in_words(setting: str) -> str:
    """ "memory 192M" of "memory=192M", harmless to show."""
    key, _, value = setting.partition("=")
    return printable(f"{key} {value or 'none'}", limit=120)


def _size(size_bytes: int) -> str:
    if not size_bytes:
        return "0"
    for unit, factor in (("G", GIB), ("M", MIB), ("K", KIB)):
        if size_bytes % factor == 0:
            return f"{size_bytes // factor}{unit}"
    return f"{size_bytes}B"


def _topology(profile: HardwareProfile) -> str:
    shape = profile.topology
    return f"{shape.sockets}x{shape.cores}x{shape.threads}" if shape is not None else ""


def _yes(value: bool) -> str:
    return "yes" if value else "no"


_TOLD: Mapping[str, Callable[[HardwareProfile], str]] = {
    "vcpus": lambda each: str(each.vcpus),
    "topology": _topology,
    "memory": lambda each: _size(each.memory_bytes),
    "memory-minimum": lambda each: _size(each.memory_minimum_bytes),
    "memory-maximum": lambda each: _size(each.memory_maximum_bytes),
    "disk": lambda each: _size(each.disk_bytes),
    "disk-bus": lambda each: each.disk_bus,
    "network": lambda each: ",".join(nic.network for nic in each.nics) or "none",
    "nic-model": lambda each: ",".join(nic.model for nic in each.nics),
    "machine": lambda each: each.machine,
    "firmware": lambda each: (each.firmware or Firmware.AUTO).value,
    "tpm": lambda each: _yes(each.tpm),
    "cpu": lambda each: each.cpu_mode,
    "graphics": lambda each: each.graphics.value,
    "autostart": lambda each: _yes(each.autostart),
}
