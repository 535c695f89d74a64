"""What cloud-init shall make of a new guest, as the files of a NoCloud seed. Pure.

The files are JSON, which is YAML: nothing that a profile holds can end a text and begin a key. Free user data come
behind what the profile says (vm.user_data). cloud-init's own defaults stay: the root file system grows to its disk, ssh
host keys are new. The network is matched by the card's address, under whatever name the guest gives it; a static one
needs cloud-init 22.2 or newer where the guest has neither netplan nor NetworkManager.
"""

from __future__ import annotations

import ipaddress
import json
import re
from collections.abc import Sequence
from typing import Any

from host.errors import UsageError
from host.text import printable
from vm.profile_model import GuestNetwork, GuestProfile, GuestUser
from vm.user_data import CLOUD_CONFIG, Part, check_user_data, combine, kind_of

__all__ = ["check_addresses", "check_user_data", "host_name", "seed_files"]

LONGEST_LABEL = 63
# Once the seed is gone, cloud-init would take the next boot for that of a new guest wherever it does not look for a
# datasource first (ds-identify): this file has it trust what it knows. It goes with cloud-init's other state when a
# template is made of the guest. It comes first: a later command may end the shell.
_REMEMBER = "touch /var/lib/cloud/instance/manual-clean"
_NOT_IN_LABEL = re.compile(r"[^a-z0-9-]+")
# Characters that YAML takes raw or escaped, and Python's YAML only escaped; beyond U+FFFF it is the other way round.
_ESCAPED = re.compile("[\x7f-\uffff]")


def seed_files(
    guest: GuestProfile, *, vm_name: str, uuid: str, macs: Sequence[str], index: int = 0, user_data: str = ""
) -> dict[str, str]:
    """The seed's files by name: user-data, meta-data, network-config.

    `index` is the VM's place in its set, from 0: its static addresses are so much higher than the profile's. `macs` are
    those of its network cards; the first one gets the profile's network, the others DHCP. `user_data` come last.
    Raises UsageError: an address outside its network, user data that cannot be, a name no host can have.
    """
    short, full = host_name(vm_name, guest.domain)
    meta = {"instance-id": uuid, "local-hostname": short}
    return {
        "user-data": _user_data(guest, short, full, user_data),
        "meta-data": _json(meta),
        "network-config": _json(_network_config(guest.network, macs, index)),
    }


def host_name(vm_name: str, domain: str = "") -> tuple[str, str]:
    """The guest's host name and its full one, from the VM's name: what a host name cannot hold becomes a hyphen. A
    dotted name is a full one already. Raises UsageError when nothing is left."""
    name = vm_name.lower().strip(".")
    first, _, rest = name.partition(".")
    if rest.rpartition(".")[2].isdecimal():  # a version rather than a domain
        first, rest = name.replace(".", "-"), ""
    if rest and domain and rest.endswith(domain.lower()):
        rest = rest[: -len(domain)].rstrip(".")
    labels = [_label(part) for part in (first, *rest.split(".")) if part]
    if not labels or not all(labels):
        shown = printable(vm_name, limit=60)
        raise UsageError(f"no host name can be made of {shown!r}", remedy="Use letters, digits and hyphens")
    return labels[0], ".".join((*labels, *((domain.lower(),) if domain else ())))


def _label(text: str) -> str:
    return _NOT_IN_LABEL.sub("-", text).strip("-")[:LONGEST_LABEL].rstrip("-")


def _json(value: Any) -> str:
    """JSON that YAML readers of every kind read as the same."""
    text = json.dumps(value, ensure_ascii=False, indent=1)
    return _ESCAPED.sub(lambda found: f"\\u{ord(found[0]):04x}", text) + "\n"


# User data


def _user_data(guest: GuestProfile, short: str, full: str, free: str) -> str:
    own = "#cloud-config\n" + _json(_cloud_config(guest, short, full))
    parts = [Part(CLOUD_CONFIG, own, "00-hvtui")]
    for text, name, about in (
        (guest.user_data, "10-profile", "the guest profile's user data"),
        (free, "20-given", "user data"),
    ):
        if text.strip():
            parts.append(Part(kind_of(text, about=about), text, name))
    return combine(parts)


def _cloud_config(guest: GuestProfile, short: str, full: str) -> dict[str, Any]:
    config: dict[str, Any] = {
        "hostname": short,
        "fqdn": full,
        "manage_etc_hosts": "localhost",  # sudo asks for the host's own name
        "ssh_pwauth": any(user.password_hash for user in guest.users),
    }
    if guest.users:
        config["users"] = [_user(user) for user in guest.users]
        config["chpasswd"] = {"expire": False}
        config["disable_root"] = all(user.name != "root" for user in guest.users)
    if guest.packages:
        config["packages"] = list(guest.packages)
    if guest.packages or guest.upgrade_packages:
        config["package_update"] = True
    if guest.upgrade_packages:
        config["package_upgrade"] = True
    if guest.locale:
        config["locale"] = guest.locale
    if guest.time_zone:
        config["timezone"] = guest.time_zone
    config["runcmd"] = [_REMEMBER, *guest.run]
    return config


def _user(user: GuestUser) -> dict[str, Any]:
    made: dict[str, Any] = {"name": user.name, "lock_passwd": not user.password_hash}
    if user.password_hash:
        made["hashed_passwd"] = user.password_hash  # also for a user whom the image has already
    if user.ssh_keys:
        made["ssh_authorized_keys"] = list(user.ssh_keys)
    if user.groups:
        made["groups"] = list(user.groups)
    if user.sudo:
        made["sudo"] = user.sudo
    if user.shell:
        made["shell"] = user.shell
    return made


# Network


def check_addresses(network: GuestNetwork, count: int) -> None:
    """Raise UsageError unless each VM of a set of `count` gets addresses of its own within the profile's networks."""
    seen: dict[str, int] = {}
    for index in range(count if network.is_static else 0):
        for address in _addresses(network, index):
            if address in seen:
                problem = f"VMs {seen[address] + 1} and {index + 1} of the set would both be {address}"
                raise UsageError(problem, remedy="Give addresses further apart, or one for each network")
            seen[address] = index


def _network_config(network: GuestNetwork, macs: Sequence[str], index: int) -> dict[str, Any]:
    cards: dict[str, Any] = {}
    for number, mac in enumerate(macs):
        card: dict[str, Any] = {"match": {"macaddress": mac.lower()}}
        if number == 0 and network.is_static:
            card |= {"dhcp4": False, "dhcp6": False, "addresses": list(_addresses(network, index))}
            card |= _gateways(network)
        else:
            card["dhcp4"] = True
        if number == 0 and (network.nameservers or network.search):
            card["nameservers"] = {"addresses": list(network.nameservers), "search": list(network.search)}
        cards[f"nic{number}"] = card
    return {"version": 2, "ethernets": cards}


def _gateways(network: GuestNetwork) -> dict[str, str]:
    """gateway4 and gateway6: netplan has a newer word for them, which older versions of cloud-init do not know."""
    return {f"gateway{ipaddress.ip_address(each).version}": each for each in network.gateways}


def _addresses(network: GuestNetwork, index: int) -> tuple[str, ...]:
    """The addresses of the VM at that place in its set, with their prefixes. Raises UsageError."""
    return tuple(_advanced(text, index, network) for text in network.addresses)


def _advanced(text: str, index: int, network: GuestNetwork) -> str:
    first = ipaddress.ip_interface(text)
    number = int(first.ip) + index
    subnet = first.network
    has_broadcast = subnet.version == 4 and subnet.prefixlen < 31
    last = int(subnet.broadcast_address) - (1 if has_broadcast else 0)
    if number > last:
        problem = (
            f"VM {index + 1} of the set has no address: {subnet} ends after {last - int(first.ip) + 1} from {first.ip}"
        )
        raise UsageError(problem, remedy="Begin at a lower address, take a larger network, or deploy fewer VMs")
    address = type(first.ip)(number)
    if str(address) in {str(ipaddress.ip_address(each)) for each in (*network.gateways, *network.nameservers)}:
        problem = f"VM {index + 1} of the set would be {address}, which is the gateway or a name server"
        raise UsageError(problem, remedy="Begin at an address after it, or deploy fewer VMs")
    return f"{address}/{subnet.prefixlen}"
