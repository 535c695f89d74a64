"""The user's configuration: a TOML file read into frozen dataclasses. docs/configuration.md explains each key.

A missing file means the defaults. Everything else that is wrong (an unknown key, a wrong type, a value out of range)
is one UsageError that names the file, the key and what is allowed. This module checks what it can know by itself;
whether an action id of [keys] exists is told by the part that has the actions.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

from host.errors import UsageError
from host.host_list import HostEntry
from host.paths import configuration_file
from host.toml_tables import Table, parse_toml
from hvtui.choices import COLUMNS, SHORT_THEMES, THEMES

ACCELERATORS = ("auto", "kvm", "qemu")
CONFIRMATIONS = ("auto", "always")
REFRESH_RANGE_S = (0.5, 3600.0)
MOVES_RANGE = (1, 64)
JOBS_KEPT_RANGE = (1, 1_000_000)
GOALS = ("balance", "consolidate")  # vm.placement_model's
RESOURCES = ("cpu", "memory", "disk", "network")
WEIGHTS_RANGE = (0.0, 100.0)
TABLES = ("accelerator", "ui", "keys", "host", "jobs", "moves", "placement")
LOCAL = "local"  # the name of this machine, which no entry needs
GROUP = re.compile(r"[\w.-]+")
ADDRESS = re.compile(r"[\w.:%-]+|\[[0-9a-fA-F:.%\w]+\]")


@dataclass(frozen=True, slots=True)
class Ui:
    """[ui]. Empty `theme` and `columns` mean the program's own; `ascii` None means by the terminal's locale.

    `confirm` is auto (a harmless plan without warnings runs at once) or always (every plan is shown first).
    """

    theme: str = ""
    ascii: bool | None = None
    columns: tuple[str, ...] = ()
    refresh_s: float = 2.0
    confirm: str = "auto"


@dataclass(frozen=True, slots=True)
class Jobs:
    """[jobs]. `keep` is the number of ended jobs that the journal keeps."""

    keep: int = 1000


@dataclass(frozen=True, slots=True)
class Moves:
    """[moves]. How many moves of VMs run at once on one host, and over the way from one host to another."""

    per_host: int = 2
    per_link: int = 2


@dataclass(frozen=True, slots=True)
class Placement:
    """[placement]. What the stars of hosts are given for: empty `goal` and missing weights stand for the usual ones
    (vm.placement_model)."""

    goal: str = ""
    weights: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))


@dataclass(frozen=True, slots=True)
class Config:
    """Everything of `file`. `keys` maps an action's id to its key, or to several with commas between them."""

    ui: Ui = field(default_factory=Ui)
    keys: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    hosts: tuple[HostEntry, ...] = ()
    jobs: Jobs = field(default_factory=Jobs)
    moves: Moves = field(default_factory=Moves)
    placement: Placement = field(default_factory=Placement)
    accelerator: str = "auto"
    file: str = field(default="", compare=False)  # for errors that only the part concerned can find


def load_config(path: Path | None = None) -> Config:
    """The configuration of `path`, else of the file in force (host.paths), else the defaults. Raises UsageError."""
    file = path or configuration_file()
    if file is None:
        return Config()
    try:
        text = file.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise UsageError("the configuration file is not UTF-8 text", about=str(file)) from error
    except OSError as error:
        raise UsageError(
            f"cannot read the configuration file: {error.strerror}",
            about=str(file),
            remedy="HVTUI_CONFIG names it: unset it, or name another file" if os.environ.get("HVTUI_CONFIG") else "",
        ) from error
    return parse_config(text, file=str(file))


def parse_config(text: str, *, file: str) -> Config:
    """The configuration in `text`; `file` is named in errors. Raises UsageError."""
    top = Table(file, "", parse_toml(text, file=file), known=TABLES)
    return Config(
        ui=_read_ui(top.table("ui", known=("theme", "ascii", "columns", "refresh_s", "confirm"))),
        keys=_read_keys(top.table("keys")),
        hosts=_read_hosts(top),
        jobs=Jobs(keep=int(top.table("jobs", known=("keep",)).number("keep", Jobs().keep, limits=JOBS_KEPT_RANGE))),
        moves=_read_moves(top.table("moves", known=("per_host", "per_link"))),
        placement=_read_placement(top.table("placement", known=("goal", *RESOURCES))),
        accelerator=top.choice("accelerator", "auto", ACCELERATORS),
        file=file,
    )


def _read_ui(table: Table) -> Ui:
    usual = Ui()
    return Ui(
        theme=table.choice("theme", usual.theme, ("", *THEMES, *SHORT_THEMES)),
        ascii=table.value("ascii", bool, usual.ascii, "true or false"),
        columns=table.choices("columns", usual.columns, COLUMNS),
        refresh_s=float(table.number("refresh_s", usual.refresh_s, limits=REFRESH_RANGE_S)),
        confirm=table.choice("confirm", usual.confirm, CONFIRMATIONS),
    )


def _read_moves(table: Table) -> Moves:
    usual = Moves()
    return Moves(
        per_host=int(table.number("per_host", usual.per_host, limits=MOVES_RANGE)),
        per_link=int(table.number("per_link", usual.per_link, limits=MOVES_RANGE)),
    )


def _read_placement(table: Table) -> Placement:
    given = [resource for resource in RESOURCES if resource in table.values]
    weights = {resource: float(table.number(resource, 0.0, limits=WEIGHTS_RANGE)) for resource in given}
    if len(given) == len(RESOURCES) and not any(weights.values()):
        table.refuse("memory", "and all other weights are 0", "Something must count: give one of them more")
    return Placement(table.choice("goal", "", ("", *GOALS)), MappingProxyType(weights))


def _read_keys(table: Table) -> Mapping[str, str]:
    return MappingProxyType({action_id: table.text(action_id, "") for action_id in table.values})


HOST_KEYS = ("name", "uri", "groups", "migration_address", "peer_uri", "library", "reserve_memory")


def _read_hosts(top: Table) -> tuple[HostEntry, ...]:
    hosts: dict[str, HostEntry] = {}
    for table in top.tables("host", known=HOST_KEYS):
        entry = _read_host(table)
        if entry.name == LOCAL or entry.name in hosts:
            table.refuse(
                "name", f"{entry.name!r} is taken already", "Give each host a name of its own; local is this machine"
            )
        hosts[entry.name] = entry
    return tuple(hosts.values())


def _read_host(table: Table) -> HostEntry:
    uri = table.text("uri", "")
    if not uri:
        table.refuse("uri", "is missing", 'Give a libvirt URI: uri = "qemu+ssh://root@lab2/system"')
    usual = HostEntry("", uri)
    return HostEntry(
        name=table.text("name", "") or _name_in(uri),
        uri=uri,
        groups=_read_groups(table),
        migration_address=_read_address(table),
        peer_uri=_read_peer(table),
        library=table.text("library", usual.library) or usual.library,
        reserve_memory_bytes=table.size("reserve_memory", usual.reserve_memory_bytes),
    )


def _read_groups(table: Table) -> tuple[str, ...]:
    groups = table.texts("groups", 'a list of texts, such as ["lab"]')
    for group in groups:
        if not GROUP.fullmatch(group):
            table.refuse("groups", f"holds {group[:60]!r}", "A group is letters, digits, '-', '_' and '.'")
    return tuple(dict.fromkeys(groups))


def _read_address(table: Table) -> str:
    address = table.text("migration_address", "")
    if address and not ADDRESS.fullmatch(address):
        remedy = "It must be a host name or an address alone: 192.0.2.7"
        table.refuse("migration_address", f"is {address[:60]!r}", remedy)
    return address


def _read_peer(table: Table) -> str:
    uri = table.text("peer_uri", "")
    if uri and "://" not in uri:
        table.refuse("peer_uri", f"is {uri[:60]!r}", "It must be a libvirt URI: qemu+ssh://root@lab2/system")
    return uri


def _name_in(uri: str) -> str:
    """The host name in a URI; the URI itself when it has none."""
    from urllib.parse import urlsplit

    try:
        return urlsplit(uri).hostname or uri
    except ValueError:
        return uri
