"""A host as the list of hosts knows it: its name, how it is reached from here and from other hosts, and its groups.

The configuration makes the entries (hvtui.config); this module reads no file and opens no connection.
"""

from __future__ import annotations

from dataclasses import dataclass

from host.connection import default_uri

DEFAULT_LIBRARY = "library"
# Parameters of a URI that name files or habits of this machine: another host has its own.
_OF_THIS_MACHINE = frozenset({"command", "keyfile", "known_hosts", "known_hosts_verify", "no_tty", "sshauth"})


@dataclass(frozen=True, slots=True)
class HostEntry:
    """One host of the list. `uri` is how it is reached from here, `peer_uri` how other hosts reach it (empty: derived,
    see `peer`), `migration_address` where they send a VM's memory to. `library` is its pool of templates,
    `reserve_memory_bytes` what placement leaves to the host itself."""

    name: str
    uri: str
    groups: tuple[str, ...] = ()
    migration_address: str = ""
    peer_uri: str = ""
    library: str = DEFAULT_LIBRARY
    reserve_memory_bytes: int = 0

    @property
    def address(self) -> str:
        """The name or address that other hosts find it under; empty when only this machine can reach it."""
        return self.migration_address or _host_in(self.peer_uri) or _host_in(self.uri)

    @property
    def peer(self) -> str:
        """The URI under which other hosts reach its libvirt; empty when none is known."""
        if self.peer_uri:
            return self.peer_uri
        if _host_in(self.uri):
            return _without_own_parameters(self.uri)
        return f"qemu+ssh://root@{_bracketed(self.migration_address)}/system" if self.migration_address else ""


def local_entry() -> HostEntry:
    """This machine, as a command without --host means it."""
    return HostEntry("local", default_uri())


def _host_in(uri: str) -> str:
    from urllib.parse import urlsplit

    try:
        return urlsplit(uri).hostname or ""
    except ValueError:
        return ""


def _without_own_parameters(uri: str) -> str:
    from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

    parts = urlsplit(uri)
    kept = [(key, value) for key, value in parse_qsl(parts.query) if key not in _OF_THIS_MACHINE]
    return urlunsplit(parts._replace(query=urlencode(kept, safe="/")))


def _bracketed(address: str) -> str:
    """An IPv6 address as a URI wants it."""
    return f"[{address}]" if ":" in address and not address.startswith("[") else address
