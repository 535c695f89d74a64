"""Which hypervisors a command means: --connect, --host, --group, --all-hosts, the environment, the configuration, else
this machine."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from host.connection import default_uri
from host.errors import NotFound, UsageError

if TYPE_CHECKING:
    from host.host_list import HostEntry
    from hvtui.config import Config

ENVIRONMENT = ("HVTUI_URI", "LIBVIRT_DEFAULT_URI")
LOCAL = "local"


def choose_target(uri: str | None, name: str | None, config: Callable[[], Config]) -> tuple[str, str | None]:
    """The URI and the name of the host. Raises UsageError when both are given, NotFound for an unknown name."""
    if uri and name:
        raise UsageError("--host and --connect both name a host", remedy="Give one of them")
    if uri:
        return uri, None
    if name and name != LOCAL:
        return entry_named(name, config()).uri, name
    return (default_uri(), LOCAL) if name else (implied_uri(), None)


def implied_uri() -> str:
    """The hypervisor that a command means without --connect and --host."""
    chosen = (os.environ.get(variable) for variable in ENVIRONMENT)
    return next(filter(None, chosen), None) or default_uri()


def entry_named(name: str, config: Config) -> HostEntry:
    """The host of that name, `local` among them. Raises NotFound with the names there are."""
    from host.host_list import local_entry

    found = next((entry for entry in config.hosts if entry.name == name), None)
    if found is not None:
        return found
    if name == LOCAL:
        return local_entry()
    names = ", ".join([LOCAL, *sorted(entry.name for entry in config.hosts)])
    raise NotFound("no such host", about=name, remedy=f"Known hosts: {names}; --connect takes any libvirt URI")


def all_entries(config: Config) -> tuple[HostEntry, ...]:
    """Every configured host; this machine where none is configured."""
    if config.hosts:
        return config.hosts
    from host.host_list import HostEntry

    return (HostEntry(LOCAL, implied_uri()),)


def choose_entries(
    names: Sequence[str], groups: Sequence[str], config: Config, *, everything: bool = False
) -> tuple[HostEntry, ...]:
    """The hosts of those names and groups, or all of them, each once and in the order of the configuration where a
    group or all were asked for. Raises NotFound for an unknown name or group."""
    if everything:
        return all_entries(config)
    named = [entry_named(name, config) for name in names]
    known = sorted({group for entry in config.hosts for group in entry.groups})
    for group in groups:
        if group not in known:
            shown = ", ".join(known) or "none; name them in [[host]] groups"
            raise NotFound("no such group of hosts", about=group, remedy=f"Known groups: {shown}")
    of_groups = [entry for entry in config.hosts if set(entry.groups) & set(groups)]
    return tuple(dict.fromkeys([*named, *of_groups]))


def library_of(name: str | None, uri: str, config: Config | None) -> str:
    """The storage pool of templates of a host: what its entry in the configuration says (the one of its name, else the
    one of its URI), else the usual one. Both front ends ask here; a Host has the name and the URI."""
    from host.host_list import DEFAULT_LIBRARY

    entries = config.hosts if config is not None else ()
    found = [entry for entry in entries if entry.name == name] or [entry for entry in entries if entry.uri == uri]
    return found[0].library if found else DEFAULT_LIBRARY
