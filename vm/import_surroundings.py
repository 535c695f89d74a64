"""What a host offers to a VM from elsewhere: machine types, CPUs, firmware, networks, devices. Reads only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element

import libvirt

from host.connection import Host
from host.facts import GuestDefaults, best_cpu_mode
from vm.domain_xml import parse


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What is there. Empty sets mean that the driver does not tell, and then nothing is refused for it; `bridges` is
    None where they cannot be seen from here."""

    architecture: str = "x86_64"
    virtualization: str = "kvm"  # kvm, qemu or test: what works here
    why_emulated: str = ""
    emulator: str = ""
    best_cpu_mode: str = ""
    machines: frozenset[str] = frozenset()
    cpu_modes: frozenset[str] = frozenset()
    cpu_models: frozenset[str] = frozenset()
    loaders: frozenset[str] = frozenset()
    firmware: frozenset[str] = frozenset()  # bios, uefi
    secure_boot: bool = False
    graphics: frozenset[str] = frozenset()
    video_models: frozenset[str] = frozenset()
    tpm_models: tuple[str, ...] = ()
    vcpus_max: int = 0
    cpus: int = 0
    nodes: int = 1
    networks: Mapping[str, bool] = field(default_factory=dict)  # whether each is active
    filters: frozenset[str] = frozenset()
    bridges: frozenset[str] | None = None
    interfaces: frozenset[str] | None = None
    secrets: frozenset[str] = frozenset()


def read_surroundings(
    host: Host, connection: Any, defaults: GuestDefaults, *, architecture: str, machine: str
) -> Surroundings:
    """What `host` offers to a guest of that architecture and, where it has it, that machine type. Raises
    libvirtError when the connection is lost."""
    kind = defaults.virtualization
    capabilities = _capabilities(connection, architecture, machine, kind) or _capabilities(
        connection, architecture, "", kind
    )
    modes = _names(capabilities, "cpu/mode[@supported='yes']", "name")
    information = connection.getInfo()
    secure = "yes" in _values(capabilities, "os/loader/enum[@name='secure']")
    uefi = "efi" in _values(capabilities, "os/enum[@name='firmware']")
    tpm = capabilities.find("devices/tpm[@supported='yes']") if capabilities is not None else None
    vcpu = capabilities.find("vcpu") if capabilities is not None else None
    return Surroundings(
        architecture=architecture if capabilities is not None else defaults.architecture,
        virtualization=kind,
        why_emulated=defaults.accelerator.reason if defaults.accelerator.is_emulated else "",
        emulator=capabilities.findtext("path", "") if capabilities is not None else defaults.emulator,
        best_cpu_mode=best_cpu_mode(kind, tuple(modes)),
        machines=_machines(connection, architecture),
        cpu_modes=modes,
        cpu_models=_usable_models(capabilities),
        loaders=_values(capabilities, "os/loader"),
        firmware=frozenset(defaults.firmware) if not uefi else frozenset({*defaults.firmware, "uefi"}),
        secure_boot=secure,
        graphics=_values(capabilities, "devices/graphics/enum[@name='type']"),
        video_models=_values(capabilities, "devices/video/enum[@name='modelType']"),
        tpm_models=tuple(sorted(_values(capabilities, "devices/tpm/enum[@name='model']"))) if tpm is not None else (),
        vcpus_max=int(vcpu.get("max", "0")) if vcpu is not None else defaults.vcpus_max,
        cpus=int(information[2]),
        nodes=max(int(information[4]), 1),
        networks={each.name(): bool(each.isActive()) for each in connection.listAllNetworks(0)},
        filters=frozenset(_list(connection.listAllNWFilters, lambda each: each.name())),
        bridges=_local(host, "bridge"),
        interfaces=_local(host, ""),
        secrets=frozenset(_list(connection.listAllSecrets, lambda each: each.UUIDString())),
    )


def _capabilities(connection: Any, architecture: str, machine: str, virtualization: str) -> Element | None:
    try:
        xml = connection.getDomainCapabilities(None, architecture, machine or None, virtualization, 0)
    except libvirt.libvirtError as error:
        _raise_if_lost(error)
        return None
    return parse(xml, root="domainCapabilities")


def _machines(connection: Any, architecture: str) -> frozenset[str]:
    """Also those that QEMU calls deprecated: they work."""
    root = parse(connection.getCapabilities(), root="capabilities")
    found = root.findall(f"guest/arch[@name='{architecture}']") if architecture.isalnum() or "_" in architecture else []
    names = (machine.text or "" for arch in found for machine in arch.iter("machine"))
    aliases = (machine.get("canonical", "") for arch in found for machine in arch.iter("machine"))
    return frozenset(name for name in (*names, *aliases) if name)


def _usable_models(capabilities: Element | None) -> frozenset[str]:
    found = capabilities.findall("cpu/mode[@name='custom']/model") if capabilities is not None else []
    return frozenset(model.text or "" for model in found if model.get("usable") != "no")


def _values(root: Element | None, path: str) -> frozenset[str]:
    return frozenset(each.text or "" for each in root.findall(f"{path}/value")) if root is not None else frozenset()


def _names(root: Element | None, path: str, attribute: str) -> frozenset[str]:
    return frozenset(each.get(attribute, "") for each in root.findall(path)) if root is not None else frozenset()


def _list(call: Any, read: Any) -> list[str]:
    """What the driver lists; nothing where it does not know such things."""
    try:
        return [read(each) for each in call(0)]
    except libvirt.libvirtError as error:
        _raise_if_lost(error)
        return []


def _raise_if_lost(error: libvirt.libvirtError) -> None:
    if error.get_error_domain() == libvirt.VIR_FROM_RPC:
        raise error


def _local(host: Host, kind: str) -> frozenset[str] | None:
    """The interfaces of this machine, or those of a kind; None for another one."""
    if not host.is_local or host.is_simulated:
        return None
    try:
        return frozenset(each.name for each in Path("/sys/class/net").iterdir() if (each / kind).exists())
    except OSError:
        return None
