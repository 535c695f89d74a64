"""The user's configuration: a TOML file read into frozen dataclasses. docs/configuration.md explains each key.

A missing file means the defaults. Everything else that is wrong (an unknown key, a wrong type, a value out of range)
is one UsageError that names the file, the key and what is allowed. This module checks what it can know by itself;
whether an action id of [keys] exists is told by the part that has the actions.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

from host.errors import UsageError
from host.paths import configuration_file
from host.toml_tables import Table, parse_toml
from hvtui.choices import COLUMNS, SHORT_THEMES, THEMES

ACCELERATORS = ("auto", "kvm", "qemu")
CONFIRMATIONS = ("auto", "always")
REFRESH_RANGE_S = (0.5, 3600.0)
JOBS_KEPT_RANGE = (1, 1_000_000)


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
class ConfiguredHost:
    """[[host]]: a hypervisor that --host knows by name."""

    name: str
    uri: str


@dataclass(frozen=True, slots=True)
class Jobs:
    """[jobs]. `keep` is the number of ended jobs that the journal keeps."""

    keep: int = 1000


@dataclass(frozen=True, slots=True)
class Config:
    """Everything of `file`. `keys` maps an action's id to its key, or to several with commas between them."""

    ui: Ui = field(default_factory=Ui)
    keys: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    hosts: tuple[ConfiguredHost, ...] = ()
    jobs: Jobs = field(default_factory=Jobs)
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
    top = Table(file, "", parse_toml(text, file=file), known=("accelerator", "ui", "keys", "host", "jobs"))
    return Config(
        ui=_read_ui(top.table("ui", known=("theme", "ascii", "columns", "refresh_s", "confirm"))),
        keys=_read_keys(top.table("keys")),
        hosts=_read_hosts(top),
        jobs=Jobs(keep=int(top.table("jobs", known=("keep",)).number("keep", Jobs().keep, limits=JOBS_KEPT_RANGE))),
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


def _read_keys(table: Table) -> Mapping[str, str]:
    return MappingProxyType({action_id: table.text(action_id, "") for action_id in table.values})


def _read_hosts(top: Table) -> tuple[ConfiguredHost, ...]:
    hosts: dict[str, ConfiguredHost] = {}
    for table in top.tables("host", known=("name", "uri")):
        uri = table.text("uri", "")
        if not uri:
            table.refuse("uri", "is missing", 'Give a libvirt URI: uri = "qemu+ssh://root@lab2/system"')
        name = table.text("name", "") or _name_in(uri)
        if name == "local" or name in hosts:
            table.refuse(
                "name", f"{name!r} is taken already", "Give each host a name of its own; local is this machine"
            )
        hosts[name] = ConfiguredHost(name, uri)
    return tuple(hosts.values())


def _name_in(uri: str) -> str:
    """The host name in a URI; the URI itself when it has none."""
    from urllib.parse import urlsplit

    try:
        return urlsplit(uri).hostname or uri
    except ValueError:
        return uri
