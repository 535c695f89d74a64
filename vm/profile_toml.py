"""Reads and writes profiles: TOML that says what hardware new VMs get, or what their guests shall be.

`kind = "hardware"` or `kind = "guest"` tells them apart. A profile's name is that of its file. Everything wrong is a
UsageError that names file, key and remedy; a plain password is refused wherever it stands. Pure.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeAlias

from host.errors import UsageError
from host.toml_tables import Table, parse_toml
from host.units import GIB, KIB, MIB
from vm import profile_values as values
from vm.create_request import Firmware, Graphics
from vm.name_patterns import expand
from vm.profile_model import GuestNetwork, GuestProfile, GuestUser, HardwareProfile, ProfileNic, Topology
from vm.user_data import LARGEST_BYTES, check_user_data

Profile: TypeAlias = HardwareProfile | GuestProfile

KINDS = ("hardware", "guest")
DISK_BUSES = ("virtio", "scsi", "sata")
NIC_MODELS = ("virtio", "e1000e", "e1000", "rtl8139")
MOST_VCPUS = 4096
MOST_NICS = 16
LEAST_MEMORY_BYTES = MIB
LARGEST_FILE_BYTES = 2 * LARGEST_BYTES
HARDWARE_KEYS = (
    *("kind", "description", "vcpus", "topology", "memory", "memory_minimum", "memory_maximum", "disk", "disk_bus"),
    *("nic", "machine", "firmware", "tpm", "cpu", "graphics", "autostart"),
)
GUEST_KEYS = (
    *("kind", "description", "name_pattern", "domain", "user", "packages", "upgrade_packages", "locale", "time_zone"),
    *("network", "run", "user_data"),
)
TOPOLOGY_KEYS = ("sockets", "cores", "threads")
NIC_KEYS = ("network", "model")
USER_KEYS = ("name", "ssh_keys", "password_hash", "groups", "sudo", "shell")
NETWORK_KEYS = ("addresses", "gateways", "nameservers", "search")
_PASSWORD_WORDS = frozenset({"password", "passwd", "plain_text_passwd", "plain_text_password"})

# Reading


def parse(text: str, file: str) -> Profile:
    """The profile in `text`, of whichever kind it says; `file` is named in errors and gives the profile its name."""
    top = _document(text, file)
    return _hardware(top) if kind_of(text, file) == "hardware" else _guest(top)


def parse_hardware(text: str, file: str) -> HardwareProfile:
    """The hardware profile in `text`. Raises UsageError naming `file`, key and remedy."""
    top = _document(text, file)
    _require(top, "hardware")
    return _hardware(top)


def parse_guest(text: str, file: str) -> GuestProfile:
    """The guest profile in `text`. Raises UsageError naming `file`, key and remedy."""
    top = _document(text, file)
    _require(top, "guest")
    return _guest(top)


def kind_of(text: str, file: str) -> str:
    """ "hardware" or "guest". Raises UsageError."""
    top = _document(text, file)
    if "kind" not in top.values:
        top.refuse("kind", "is missing", 'Write kind = "hardware" or kind = "guest"')
    return top.choice("kind", "", KINDS)


def name_in(file: str) -> str:
    """The profile's name in that of its file: "web" in /x/web.hardware.toml."""
    name = file.rpartition("/")[2].removesuffix(".toml")
    for kind in KINDS:
        name = name.removesuffix(f".{kind}")
    return name


def _document(text: str, file: str) -> Table:
    if len(text) > LARGEST_FILE_BYTES:
        raise UsageError("that is too large for a profile", about=file, remedy="Let the guest fetch large files itself")
    return Table(file, "", parse_toml(text, file=file))


def _require(top: Table, kind: str) -> None:
    found = top.choice("kind", kind, KINDS)
    if found != kind:
        top.refuse("kind", f"is {found!r}", f"A {kind} profile is wanted here")


def _hardware(top: Table) -> HardwareProfile:
    top = replace(top, known=HARDWARE_KEYS)
    usual = HardwareProfile()
    nics = tuple(map(_nic, top.tables("nic", NIC_KEYS))) if "nic" in top.values else usual.nics
    profile = HardwareProfile(
        name=name_in(top.file),
        description=_checked(top, "description", values.one_line),
        vcpus=_whole(top, "vcpus", usual.vcpus, MOST_VCPUS),
        topology=_topology(top) if "topology" in top.values else None,
        memory_bytes=top.size("memory", usual.memory_bytes),
        memory_minimum_bytes=top.size("memory_minimum", 0),
        memory_maximum_bytes=top.size("memory_maximum", 0),
        disk_bytes=top.size("disk", 0),
        disk_bus=top.choice("disk_bus", "", ("", *DISK_BUSES)),
        nics=tuple(nic for nic in nics if nic.network != "none"),
        machine=_checked(top, "machine", values.hardware_word),
        firmware=firmware_of(top.choice("firmware", "auto", tuple(Firmware))),
        tpm=top.flag("tpm", usual.tpm),
        cpu_mode=_checked(top, "cpu", values.hardware_word) or usual.cpu_mode,
        graphics=Graphics(top.choice("graphics", usual.graphics, tuple(Graphics))),
        autostart=top.flag("autostart", usual.autostart),
    )
    check_hardware(profile, top.file)
    return profile


def firmware_of(word: str) -> Firmware | None:
    """None for "auto": the template's."""
    return None if word == Firmware.AUTO else Firmware(word)


def _topology(top: Table) -> Topology:
    table = top.table("topology", TOPOLOGY_KEYS)
    return Topology(*(_whole(table, key, 1, MOST_VCPUS) for key in TOPOLOGY_KEYS))


def _nic(table: Table) -> ProfileNic:
    network = _checked(table, "network", values.network_name) or ProfileNic().network
    return ProfileNic(network, table.choice("model", "", ("", *NIC_MODELS)))


def _guest(top: Table) -> GuestProfile:
    top = replace(top, known=GUEST_KEYS)
    network = top.table("network", NETWORK_KEYS)
    profile = GuestProfile(
        name=name_in(top.file),
        description=_checked(top, "description", values.one_line),
        name_pattern=_checked(top, "name_pattern", _pattern),
        domain=_checked(top, "domain", values.domain_name),
        users=tuple(_user(replace(table, name=f"user {n}")) for n, table in enumerate(_user_tables(top), 1)),
        packages=_each(top, "packages", values.package_name, '["nginx", "vim"]'),
        upgrade_packages=top.flag("upgrade_packages", False),
        locale=_checked(top, "locale", values.locale_name),
        time_zone=_checked(top, "time_zone", values.time_zone),
        network=GuestNetwork(
            addresses=_each(network, "addresses", values.network_address, '["198.51.100.10/24"]'),
            gateways=_each(network, "gateways", values.host_address, '["198.51.100.1"]'),
            nameservers=_each(network, "nameservers", values.host_address, '["198.51.100.1"]'),
            search=_each(network, "search", values.domain_name, '["example.org"]'),
        ),
        run=_each(top, "run", run_line, '["systemctl enable --now nginx"]'),
        user_data=_checked(top, "user_data", _free),
    )
    check_guest(profile, top.file)
    return profile


def _user_tables(top: Table) -> list[Table]:
    for table in top.tables("user"):
        for key in _PASSWORD_WORDS & set(table.values):
            table.refuse(
                key, "is not a key: plain passwords are not taken", f"It is password_hash. {values.HASH_REMEDY}"
            )
    return top.tables("user", known=USER_KEYS)


def _user(table: Table) -> GuestUser:
    if "name" not in table.values:
        table.refuse("name", "is missing", 'Give each user a name: name = "alice"')
    return GuestUser(
        name=_checked(table, "name", values.user_name, may_be_empty=False),
        ssh_keys=_each(table, "ssh_keys", values.ssh_key, '["ssh-ed25519 AAAA… alice"]'),
        password_hash=_checked(table, "password_hash", values.password_hash),
        groups=_each(table, "groups", values.group_name, '["adm"]'),
        sudo=_checked(table, "sudo", values.sudo_rule),
        shell=_checked(table, "shell", values.shell_path) or GuestUser("").shell,
    )


def _pattern(text: str) -> str:
    expand(text, 1)
    return text


def _free(text: str) -> str:
    check_user_data(text)
    return text


def run_line(text: str) -> str:
    """A command for the guest's shell; it may have several lines."""
    if not text.strip() or "\0" in text:
        raise UsageError("a command is empty", remedy="Leave it out")
    return text


def _checked(table: Table, key: str, check: Callable[[str], str], *, may_be_empty: bool = True) -> str:
    """A text that passes `check`, or an empty one."""
    text = table.text(key, "")
    return text if not text and may_be_empty else _pass(table, key, check, text)


def _each(table: Table, key: str, check: Callable[[str], str], example: str) -> tuple[str, ...]:
    """A list of texts that pass `check`, each once."""
    found = (_pass(table, key, check, text) for text in table.texts(key, f"a list of texts, such as {example}"))
    return tuple(dict.fromkeys(found))


def _pass(table: Table, key: str, check: Callable[[str], str], text: str) -> str:
    try:
        return check(text)
    except UsageError as error:
        table.refuse(key, f"is wrong: {error.cause}", error.remedy)


def _whole(table: Table, key: str, usual: int, most: int) -> int:
    return int(table.number(key, usual, limits=(1, most)))


# What several keys say together


def check_hardware(profile: HardwareProfile, about: str = "") -> None:
    """Raise UsageError unless the values fit each other: topology and vCPUs, the three sizes of memory."""
    memory, least, most = profile.memory_bytes, profile.memory_minimum_bytes, profile.memory_maximum_bytes
    shape = profile.topology
    problem, remedy = "", ""
    if shape is not None and shape.sockets * shape.cores * shape.threads != profile.vcpus:
        product = f"{shape.sockets} × {shape.cores} × {shape.threads}"
        problem = f"the topology is of {product} vCPUs, and vcpus is {profile.vcpus}"
        remedy = "Make sockets × cores × threads the number of vCPUs"
    elif memory < LEAST_MEMORY_BYTES:
        problem, remedy = f"memory is {size_text(memory)}", "Give 128M or more"
    elif least > memory:
        problem = f"memory_minimum ({size_text(least)}) is more than memory ({size_text(memory)})"
        remedy = "It is what must stay: at most memory"
    elif most and most < memory:
        problem = f"memory_maximum ({size_text(most)}) is less than memory ({size_text(memory)})"
        remedy = "It is what can be added up to: at least memory"
    elif 0 < profile.disk_bytes < MIB:
        problem, remedy = f"disk is {size_text(profile.disk_bytes)}", "Give 1G or more, or leave it out"
    elif len(profile.nics) > MOST_NICS:
        problem, remedy = f"{len(profile.nics)} network cards", f"At most {MOST_NICS}"
    if problem:
        raise UsageError(problem, about=about, remedy=remedy)


def check_guest(profile: GuestProfile, about: str = "") -> None:
    """Raise UsageError unless the values fit each other: users once each, gateways within the addresses' networks."""
    names = [user.name for user in profile.users]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise UsageError(f"the user {twice!r} is there twice", about=about, remedy="Name each user once")
    problem, remedy = gateway_problem(profile.network)
    if problem:
        raise UsageError(problem, about=about, remedy=remedy)


def gateway_problem(network: GuestNetwork) -> tuple[str, str]:
    """What is wrong with the gateways and what to do; empty texts when nothing is."""
    subnets = [ipaddress.ip_interface(each).network for each in network.addresses]
    gateways = [ipaddress.ip_address(each) for each in network.gateways]
    if gateways and not subnets:
        return "a gateway without an address", "DHCP tells the gateway: give addresses too, or leave it out"
    for gateway in gateways:
        fitting = [subnet for subnet in subnets if subnet.version == gateway.version]
        if not gateway.is_link_local and not any(gateway in subnet for subnet in fitting):
            return (
                f"the gateway {gateway} is in no network of the addresses",
                "It is reached directly: check the prefix",
            )
    if len({gateway.version for gateway in gateways}) < len(gateways):
        return "two gateways of one kind", "Give one for IPv4 and one for IPv6"
    return "", ""


# Writing


def to_toml(profile: Profile) -> str:
    """The profile as TOML, which reads back as the same but for its name; what is as usual is left out."""
    import tomli_w

    entries = _hardware_entries(profile) if isinstance(profile, HardwareProfile) else _guest_entries(profile)
    may_span_lines = "\r" not in str(entries)  # TOML takes either line end in a text of several lines for one
    return tomli_w.dumps(entries, multiline_strings=may_span_lines)


def to_document(profile: Profile) -> dict[str, Any]:
    """The profile as its TOML has it, for JSON."""
    return _hardware_entries(profile) if isinstance(profile, HardwareProfile) else _guest_entries(profile)


def size_text(size_bytes: int) -> str:
    """A size exactly, in the largest unit that divides it: "1536M"."""
    for factor, unit in ((GIB, "G"), (MIB, "M"), (KIB, "K")):
        if size_bytes and size_bytes % factor == 0:
            return f"{size_bytes // factor}{unit}"
    return f"{size_bytes}B"


def _hardware_entries(profile: HardwareProfile) -> dict[str, Any]:
    usual = HardwareProfile()
    shape = profile.topology
    entries: dict[str, Any] = {
        "description": profile.description,
        "memory_minimum": _size_entry(profile.memory_minimum_bytes),
        "memory_maximum": _size_entry(profile.memory_maximum_bytes),
        "disk": _size_entry(profile.disk_bytes),
        "disk_bus": profile.disk_bus,
        "machine": profile.machine,
        "firmware": profile.firmware.value if profile.firmware else "",
        "tpm": profile.tpm,
        "cpu": profile.cpu_mode if profile.cpu_mode != usual.cpu_mode else "",
        "graphics": profile.graphics.value if profile.graphics is not usual.graphics else "",
        "autostart": profile.autostart,
        "topology": {key: getattr(shape, key) for key in TOPOLOGY_KEYS} if shape else {},
    }
    always = {"kind": "hardware", "vcpus": profile.vcpus, "memory": size_text(profile.memory_bytes)}
    nics = [_filled({"network": nic.network, "model": nic.model}) for nic in profile.nics]
    return {**always, **_filled(entries), **({"nic": nics} if profile.nics != usual.nics else {})}


def _size_entry(size_bytes: int) -> str:
    return size_text(size_bytes) if size_bytes else ""


def _guest_entries(profile: GuestProfile) -> dict[str, Any]:
    network = profile.network
    entries: dict[str, Any] = {
        "description": profile.description,
        "name_pattern": profile.name_pattern,
        "domain": profile.domain,
        "packages": list(profile.packages),
        "upgrade_packages": profile.upgrade_packages,
        "locale": profile.locale,
        "time_zone": profile.time_zone,
        "run": list(profile.run),
        "user_data": profile.user_data,
        "network": _filled({key: list(getattr(network, key)) for key in NETWORK_KEYS}),
        "user": [_user_entry(user) for user in profile.users],
    }
    return {"kind": "guest", **_filled(entries)}


def _user_entry(user: GuestUser) -> dict[str, Any]:
    entries: dict[str, Any] = {key: getattr(user, key) for key in USER_KEYS}
    return _filled({key: list(value) if isinstance(value, tuple) else value for key, value in entries.items()})


def _filled(entries: dict[str, Any]) -> dict[str, Any]:
    """Without what is empty or false, which reads back as the same."""
    return {key: value for key, value in entries.items() if value}
