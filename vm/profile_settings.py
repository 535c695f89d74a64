"""Overrides single values of profiles: `memory=2G`, `user=alice`, for a command line or a form. Pure, but for
`ssh-key=@FILE`, which reads that file here.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias

from host.errors import UsageError
from host.text import did_you_mean, printable
from host.units import MIB, parse_size
from vm import profile_toml
from vm import profile_values as values
from vm.create_request import Firmware, Graphics
from vm.name_patterns import expand
from vm.profile_model import GuestProfile, GuestUser, HardwareProfile, ProfileNic, Topology

# What each setting takes and does, for help and completion. The first ones are of the hardware, the rest of the guest.
SETTINGS: Mapping[str, str] = {
    "vcpus": "Virtual CPUs: vcpus=4. A topology that does not fit any more is dropped.",
    "topology": "Sockets×cores×threads: topology=1x2x2. Empty: none.",
    "memory": "Memory to start with: memory=2G.",
    "memory-minimum": "What must stay with it when memory is short: memory-minimum=1G.",
    "memory-maximum": "What it can be given: memory-maximum=8G.",
    "disk": "The size to grow the first disk to: disk=40G.",
    "disk-bus": "virtio, scsi or sata.",
    "network": "A network's name, bridge:NAME, user, none or auto; several with commas are several cards.",
    "nic-model": "The model of every card: virtio, e1000e, e1000, rtl8139; several with commas are of several cards.",
    "machine": "A machine type: machine=q35.",
    "firmware": "bios, uefi, uefi-secure, or auto for the template's.",
    "tpm": "A virtual TPM 2.0: yes or no.",
    "cpu": "A CPU mode or model: cpu=host-model; auto is the best that can run here.",
    "graphics": "socket, loopback or none.",
    "autostart": "Start it with the host: yes or no.",
    "name-pattern": "Names of a set: name-pattern=web-{:02}.",
    "domain": "What stands behind the host's name: domain=example.org.",
    "user": "Another user, who may use sudo; the settings below are of the one named last. Empty: no users.",
    "ssh-key": "One more public key of that user: the line itself, or @FILE.",
    "password-hash": "That user's password as crypt(5) hashes it. A plain one is refused.",
    "groups": "That user's groups, with commas.",
    "sudo": "That user's rule: yes (everything, no password), no, or a rule of sudoers.",
    "shell": "That user's shell: shell=/bin/bash.",
    "package": "One more package. Empty: none.",
    "upgrade-packages": "Upgrade the packages at the first boot: yes or no.",
    "locale": "locale=en_GB.UTF-8.",
    "timezone": "timezone=Europe/Berlin.",
    "address": "Static addresses of the first VM, with commas: address=198.51.100.10/24; dhcp for none.",
    "gateway": "Its gateways, with commas, one for IPv4 and one for IPv6.",
    "nameserver": "Name servers, with commas.",
    "search": "Domains to search, with commas.",
    "run": "One more command at the first boot. Empty: none.",
}
FULL_SUDO = "ALL=(ALL) NOPASSWD:ALL"
LARGEST_KEY_FILE_BYTES = MIB
_YES = frozenset({"yes", "on", "true", "1"})
_NO = frozenset({"no", "off", "false", "0"})

Both: TypeAlias = tuple[HardwareProfile, GuestProfile]


def override(hardware: HardwareProfile, guest: GuestProfile, *settings: str) -> Both:
    """The profiles with each "key=value" of `settings` applied in order; SETTINGS says what they mean. What they say
    together is checked once all are applied. Raises UsageError naming the setting, with the nearest key."""
    for setting in settings:
        key, is_given, value = setting.partition("=")
        if not is_given:
            shown = printable(setting, limit=60)
            raise UsageError(f"{shown!r} is no KEY=VALUE", remedy=did_you_mean(key, SETTINGS))
        hardware, guest = _apply(hardware, guest, _known(key), value)
    if settings:
        profile_toml.check_hardware(hardware, "the settings together")
        profile_toml.check_guest(guest, "the settings together")
    return hardware, guest


def _known(key: str) -> str:
    """The setting that `key` means; an underscore is as good as a hyphen."""
    name = key.strip().replace("_", "-").lower()
    if name not in SETTINGS:
        raise UsageError(f"there is no setting {printable(key, limit=40)!r}", remedy=did_you_mean(name, SETTINGS))
    return name


def _apply(hardware: HardwareProfile, guest: GuestProfile, key: str, value: str) -> Both:
    try:
        if key in _HARDWARE:
            return _HARDWARE[key](hardware, value), guest
        return hardware, _GUEST[key](guest, value)
    except UsageError as error:
        raise UsageError(error.cause, about=error.about or f"{key}=", remedy=error.remedy or SETTINGS[key]) from None


def _yes(value: str) -> bool:
    word = value.strip().lower()
    if word not in _YES | _NO:
        raise UsageError(f"{printable(value, limit=40)!r} is neither yes nor no", remedy="Write yes or no")
    return word in _YES


def _listed(value: str, check: Callable[[str], str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(check(each.strip()) for each in value.split(",") if each.strip()))


def _choice(value: str, allowed: tuple[str, ...]) -> str:
    if value not in allowed:
        raise UsageError(f"{printable(value, limit=40)!r} is not known", remedy=did_you_mean(value, allowed))
    return value


def _number(value: str) -> int:
    if not (value.isascii() and value.isdecimal() and 1 <= int(value[:9]) <= profile_toml.MOST_VCPUS):
        remedy = f"Write a whole number from 1 to {profile_toml.MOST_VCPUS}"
        raise UsageError(f"{printable(value, limit=40)!r} is no number of vCPUs", remedy=remedy)
    return int(value[:9])


# Hardware


def _vcpus(hardware: HardwareProfile, value: str) -> HardwareProfile:
    count = _number(value)
    shape = hardware.topology
    fits = shape is not None and shape.sockets * shape.cores * shape.threads == count
    return replace(hardware, vcpus=count, topology=shape if fits else None)


def _topology(hardware: HardwareProfile, value: str) -> HardwareProfile:
    if not value:
        return replace(hardware, topology=None)
    parts = value.replace("×", "x").split("x")
    if len(parts) != 3:
        raise UsageError(f"{printable(value, limit=40)!r} is no topology", remedy="Write sockets×cores×threads: 1x2x2")
    return replace(hardware, topology=Topology(*map(_number, parts)))


def _networks(hardware: HardwareProfile, value: str) -> HardwareProfile:
    names = [values.network_name(each.strip()) for each in value.split(",")]
    models = [nic.model for nic in hardware.nics]
    last = models[-1] if models else ""
    kept = (models + [last] * len(names))[: len(names)]
    nics = (ProfileNic(name, model) for name, model in zip(names, kept, strict=True) if name != "none")
    return replace(hardware, nics=tuple(nics))


def _nic_model(hardware: HardwareProfile, value: str) -> HardwareProfile:
    models = [_choice(each.strip(), ("", *profile_toml.NIC_MODELS)) for each in value.split(",")]
    models += [models[-1]] * (len(hardware.nics) - len(models))
    return replace(
        hardware, nics=tuple(replace(nic, model=model) for nic, model in zip(hardware.nics, models, strict=False))
    )


def _size(field: str) -> Callable[[HardwareProfile, str], HardwareProfile]:
    def change(hardware: HardwareProfile, value: str) -> HardwareProfile:
        changes: dict[str, Any] = {field: parse_size(value) if value not in {"", "0"} else 0}
        return replace(hardware, **changes)

    return change


_HARDWARE: Mapping[str, Callable[[HardwareProfile, str], HardwareProfile]] = {
    "vcpus": _vcpus,
    "topology": _topology,
    "memory": _size("memory_bytes"),
    "memory-minimum": _size("memory_minimum_bytes"),
    "memory-maximum": _size("memory_maximum_bytes"),
    "disk": _size("disk_bytes"),
    "disk-bus": lambda old, value: replace(old, disk_bus=_choice(value, ("", *profile_toml.DISK_BUSES))),
    "network": _networks,
    "nic-model": _nic_model,
    "machine": lambda old, value: replace(old, machine=value and values.hardware_word(value)),
    "firmware": lambda old, value: replace(old, firmware=profile_toml.firmware_of(_choice(value, tuple(Firmware)))),
    "tpm": lambda old, value: replace(old, tpm=_yes(value)),
    "cpu": lambda old, value: replace(old, cpu_mode=values.hardware_word(value or "auto")),
    "graphics": lambda old, value: replace(old, graphics=Graphics(_choice(value, tuple(Graphics)))),
    "autostart": lambda old, value: replace(old, autostart=_yes(value)),
}

# Guest


def _user(guest: GuestProfile, value: str) -> GuestProfile:
    if not value:
        return replace(guest, users=())
    name = values.user_name(value)
    found = next((user for user in guest.users if user.name == name), GuestUser(name, sudo=FULL_SUDO))
    return replace(guest, users=(*(user for user in guest.users if user.name != name), found))


def _of_user(change: Callable[[GuestUser, str], GuestUser]) -> Callable[[GuestProfile, str], GuestProfile]:
    def change_last(guest: GuestProfile, value: str) -> GuestProfile:
        if not guest.users:
            raise UsageError("there is no user yet", remedy="Name one before it: user=alice")
        return replace(guest, users=(*guest.users[:-1], change(guest.users[-1], value)))

    return change_last


def _ssh_keys(user: GuestUser, value: str) -> GuestUser:
    if not value:
        return replace(user, ssh_keys=())
    lines = _key_lines(value[1:]) if value.startswith("@") else [value]
    keys = (*user.ssh_keys, *map(values.ssh_key, lines))
    return replace(user, ssh_keys=tuple(dict.fromkeys(keys)))


def _key_lines(file: str) -> list[str]:
    """The keys in a file, a line each. Raises UsageError."""
    path = Path(file).expanduser()
    try:
        with path.open("rb") as opened:
            text = opened.read(LARGEST_KEY_FILE_BYTES).decode()
    except OSError as error:
        raise UsageError(f"cannot read it: {error.strerror}", about=str(path), remedy="Name a .pub file") from error
    except UnicodeDecodeError as error:
        raise UsageError("it is no text", about=str(path), remedy="Name a .pub file") from error
    if "PRIVATE KEY" in text:
        raise UsageError("this is a private key", about=str(path), remedy="Name its public half, the file with .pub")
    lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    if not lines:
        raise UsageError("it holds no key", about=str(path), remedy="Name a .pub file")
    return lines


def _sudo(user: GuestUser, value: str) -> GuestUser:
    word = value.strip().lower()
    rule = FULL_SUDO if word in _YES else "" if word in _NO else values.sudo_rule(value)
    return replace(user, sudo=rule)


def _list_of(field: str, check: Callable[[str], str]) -> Callable[[GuestProfile, str], GuestProfile]:
    """One more of a list; an empty value empties it."""

    def change(guest: GuestProfile, value: str) -> GuestProfile:
        kept: tuple[str, ...] = getattr(guest, field)
        changes: dict[str, Any] = {field: (*kept, check(value)) if value else ()}
        return replace(guest, **changes)

    return change


def _addresses(guest: GuestProfile, value: str) -> GuestProfile:
    """New addresses keep the gateways that can be reached from them."""
    wanted = () if value.strip().lower() in {"", "dhcp"} else _listed(value, values.network_address)
    subnets = [ipaddress.ip_interface(each).network for each in wanted]
    gateways = tuple(
        each for each in guest.network.gateways if any(ipaddress.ip_address(each) in subnet for subnet in subnets)
    )
    return replace(guest, network=replace(guest.network, addresses=wanted, gateways=gateways))


def _of_network(field: str, check: Callable[[str], str]) -> Callable[[GuestProfile, str], GuestProfile]:
    def change(guest: GuestProfile, value: str) -> GuestProfile:
        changes: dict[str, Any] = {field: _listed(value, check)}
        return replace(guest, network=replace(guest.network, **changes))

    return change


def _pattern(guest: GuestProfile, value: str) -> GuestProfile:
    expand(value, 1)
    return replace(guest, name_pattern=value)


_GUEST: Mapping[str, Callable[[GuestProfile, str], GuestProfile]] = {
    "name-pattern": _pattern,
    "domain": lambda old, value: replace(old, domain=value and values.domain_name(value)),
    "user": _user,
    "ssh-key": _of_user(_ssh_keys),
    "password-hash": _of_user(
        lambda user, value: replace(user, password_hash=value and values.password_hash(value)),
    ),
    "groups": _of_user(lambda user, value: replace(user, groups=_listed(value, values.group_name))),
    "sudo": _of_user(_sudo),
    "shell": _of_user(lambda user, value: replace(user, shell=values.shell_path(value or GuestUser("").shell))),
    "package": _list_of("packages", values.package_name),
    "upgrade-packages": lambda old, value: replace(old, upgrade_packages=_yes(value)),
    "locale": lambda old, value: replace(old, locale=value and values.locale_name(value)),
    "timezone": lambda old, value: replace(old, time_zone=value and values.time_zone(value)),
    "address": _addresses,
    "gateway": _of_network("gateways", values.host_address),
    "nameserver": _of_network("nameservers", values.host_address),
    "search": _of_network("search", values.domain_name),
    "run": _list_of("run", profile_toml.run_line),
}
