"""Whether a host answers, with what versions, and how many VMs it has: a line of the list of hosts. Reads only."""

from __future__ import annotations

from dataclasses import dataclass

from host.connection import Host
from host.facts import version_text


@dataclass(frozen=True, slots=True)
class HostBrief:
    """What a host says of itself in a few calls. Versions are empty where the driver has none."""

    host_name: str
    driver: str
    hypervisor_version: str
    libvirt_version: str
    vms: int
    active: int


def read_brief(host: Host) -> HostBrief:
    """A host's name, versions and number of VMs, in six calls. Raises ConnectionLost, Denied."""
    with host.calls("ask the host", host.name) as connection:
        active = connection.numOfDomains()
        return HostBrief(
            host_name=connection.getHostname(),
            driver=connection.getType(),
            hypervisor_version=version_text(connection.getVersion()),
            libvirt_version=version_text(connection.getLibVersion()),
            vms=active + connection.numOfDefinedDomains(),
            active=active,
        )
