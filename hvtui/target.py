"""Which hypervisor a command means: --connect, --host, the environment, the configuration, else this machine."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING

from host.connection import default_uri
from host.errors import NotFound, UsageError

if TYPE_CHECKING:
    from hvtui.config import Config

ENVIRONMENT = ("HVTUI_URI", "LIBVIRT_DEFAULT_URI")


def choose_target(uri: str | None, name: str | None, config: Callable[[], Config]) -> tuple[str, str | None]:
    """The URI and the name of the host. Raises UsageError when both are given, NotFound for an unknown name."""
    if uri and name:
        raise UsageError("--host and --connect both name a host", remedy="Give one of them")
    if uri:
        return uri, None
    if name and name != "local":
        return _configured(name, config()), name
    return (default_uri(), "local") if name else (implied_uri(), None)


def implied_uri() -> str:
    """The hypervisor that a command means without --connect and --host."""
    chosen = (os.environ.get(variable) for variable in ENVIRONMENT)
    return next(filter(None, chosen), None) or default_uri()


def _configured(name: str, config: Config) -> str:
    known = {host.name: host.uri for host in config.hosts}
    if name in known:
        return known[name]
    names = ", ".join(["local", *sorted(known)])
    raise NotFound("no such host", about=name, remedy=f"Known hosts: {names}; --connect takes any libvirt URI")
