"""Hardware and guest profiles: what a new VM is made of, and what its guest shall be. Data only.

vm.profiles reads them from TOML and overrides single values; vm.profile_store keeps them in the library.
"""

from __future__ import annotations

from dataclasses import dataclass

from host.units import GIB
from vm.create_request import Firmware, Graphics


@dataclass(frozen=True, slots=True)
class Topology:
    """How the guest sees its vCPUs; the product is their number."""

    sockets: int = 1
    cores: int = 1
    threads: int = 1


@dataclass(frozen=True, slots=True)
class ProfileNic:
    """A network card. `network` is as in CreateRequest.network; an empty `model` takes the template's."""

    network: str = "auto"
    model: str = ""


@dataclass(frozen=True, slots=True)
class HardwareProfile:
    """kind = "hardware". Sizes are bytes (written "2G" in TOML); 0 or "" leave the choice to the template or the host.

    memory_bytes is what the guest starts with, memory_maximum_bytes what it can be given, memory_minimum_bytes what
    must stay with it (kept in the VM's metadata). disk_bytes: the size to grow the first disk to, never smaller than
    the template's; disk_bus: virtio, scsi or sata.
    """

    name: str = ""
    description: str = ""
    vcpus: int = 1
    topology: Topology | None = None
    memory_bytes: int = 1 * GIB
    memory_minimum_bytes: int = 0
    memory_maximum_bytes: int = 0
    disk_bytes: int = 0
    disk_bus: str = ""
    nics: tuple[ProfileNic, ...] = (ProfileNic(),)
    machine: str = ""
    firmware: Firmware | None = None
    tpm: bool = False
    cpu_mode: str = "auto"
    graphics: Graphics = Graphics.SOCKET
    autostart: bool = False


@dataclass(frozen=True, slots=True)
class GuestUser:
    """A user of the guest. `password_hash` is crypt(5)'s ($6$…, $y$…); a plain password is refused."""

    name: str
    ssh_keys: tuple[str, ...] = ()
    password_hash: str = ""
    groups: tuple[str, ...] = ()
    sudo: str = ""
    shell: str = "/bin/bash"


@dataclass(frozen=True, slots=True)
class GuestNetwork:
    """The first card's addresses. `addresses` ("198.51.100.10/24") are those of the first VM of a set; each further VM
    gets the next one. Empty: DHCP."""

    addresses: tuple[str, ...] = ()
    gateways: tuple[str, ...] = ()
    nameservers: tuple[str, ...] = ()
    search: tuple[str, ...] = ()

    @property
    def is_static(self) -> bool:
        return bool(self.addresses)


@dataclass(frozen=True, slots=True)
class GuestProfile:
    """kind = "guest". `name_pattern` is such as "web-{:02}"; the host name is the VM's name, with `domain` behind it.

    run are command lines for the guest's shell at the first boot; user_data is free cloud-init user data, which comes
    after what the rest of the profile makes of it.
    """

    name: str = ""
    description: str = ""
    name_pattern: str = ""
    domain: str = ""
    users: tuple[GuestUser, ...] = ()
    packages: tuple[str, ...] = ()
    upgrade_packages: bool = False
    locale: str = ""
    time_zone: str = ""
    network: GuestNetwork = GuestNetwork()
    run: tuple[str, ...] = ()
    user_data: str = ""
