"""Which hosts are drained for maintenance, and where their VMs went: one file in the state directory.

A host is known by its identity (Host.identity), whatever the URI by which it is reached, and by that URI where no
identity is known: `_is_same` is the one place that decides. The file is replaced as a whole, under a lock, so that a
killed process leaves the old or the new one. Steps write it (vm.drain_steps); everybody may read it. It changes no host
and no VM.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from host.errors import HvtuiError
from host.paths import state_directory

if TYPE_CHECKING:
    from host.connection import Host

FILE = "maintenance.json"
VERSION = 2  # 1 had no identities


@dataclass(frozen=True, slots=True)
class Guest:
    """A VM of a drained host: what became of it (`fate`: moved, saved, shut down), its state before, and on which
    host it is now: by `uri`, and by `identity` where that is known. `autostart` is as it was at home."""

    uuid: str
    name: str
    fate: str
    was: str
    uri: str
    host: str
    autostart: bool = False
    identity: str = ""


@dataclass(frozen=True, slots=True)
class Maintenance:
    """One host: since when it is drained (ISO 8601) and by which job; its VMs that are not back yet. Without
    `is_drained` it takes VMs again, and some have not come back."""

    uri: str
    name: str
    since: str
    job_id: int = 0
    is_drained: bool = True
    guests: tuple[Guest, ...] = ()
    identity: str = ""

    def guest(self, uuid: str) -> Guest | None:
        """The VM of that uuid, if it is one of those that are not back."""
        return next((guest for guest in self.guests if guest.uuid == uuid), None)


def read(state: Path | None = None) -> tuple[Maintenance, ...]:
    """All hosts that are drained, or miss VMs. Raises HvtuiError for a file that cannot be read."""
    path = (state or state_directory()) / FILE
    try:
        return _decoded(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return ()
    except (OSError, ValueError, KeyError, TypeError) as error:
        remedy = f"Move {path} aside; hvtui then no longer knows which hosts are drained and where their VMs went"
        raise HvtuiError(f"cannot be read: {error}", about=str(path), remedy=remedy) from error


def note_of(host: Host) -> Maintenance | None:
    """What is known of this host. Raises HvtuiError, also where the host is asked who it is and does not answer."""
    return of_host(host.uri, identity=host.identity)


def of_host(uri: str, state: Path | None = None, *, identity: str = "") -> Maintenance | None:
    """What is known of one host; None when it is neither drained nor misses a VM."""
    return among(read(state), uri, identity)


def among(known: Sequence[Maintenance], uri: str, identity: str = "") -> Maintenance | None:
    """As `of_host`, among what was read already."""
    found = [each for each in known if _is_same(each, uri, identity)]
    return _merged(found, identity) if found else None


def drained_keys(state: Path | None = None) -> frozenset[str]:
    """The URIs and the identities of the hosts that are drained now."""
    drained = [each for each in read(state) if each.is_drained]
    return frozenset(key for each in drained for key in (each.uri, each.identity) if key)


def _is_same(known: Maintenance, uri: str, identity: str) -> bool:
    """Whether that is the host of this URI. One whose identity has changed since (a new board, a new name) is still the
    one that is reached in the same way."""
    return known.uri == uri or bool(identity and known.identity == identity)


def _merged(found: Sequence[Maintenance], identity: str) -> Maintenance:
    """One note of what was written under several URIs before the identity was known."""
    first, *rest = found
    guests = {guest.uuid: guest for each in found for guest in each.guests}
    return replace(
        first,
        identity=identity or next((each.identity for each in found if each.identity), ""),
        is_drained=any(each.is_drained for each in found),
        guests=tuple(guests.values()) if rest else first.guests,
    )


def begin(uri: str, name: str, *, identity: str = "", job_id: int = 0, state: Path | None = None) -> None:
    """A host is drained from now on; one that is already stays as it was, with the VMs that it misses."""

    def change(found: Maintenance | None) -> Maintenance:
        if found is not None and found.is_drained:
            return found
        now = datetime.now(UTC).isoformat(timespec="seconds")
        guests = found.guests if found is not None else ()
        return Maintenance(uri, name, now, job_id, guests=guests, identity=identity)

    _change((uri, identity), change, state)


def end(uri: str, *, identity: str = "", state: Path | None = None) -> None:
    """The host takes VMs again; it is forgotten once none of its own is missing."""
    _change((uri, identity), lambda found: None if found is None else replace(found, is_drained=False), state)


def put_guest(uri: str, guest: Guest, *, identity: str = "", state: Path | None = None) -> None:
    """A VM of a drained host has gone, was saved or was shut down; the newest word about it counts, but its state
    before is that of the first time."""

    def change(found: Maintenance | None) -> Maintenance | None:
        if found is None:
            return None
        before = found.guest(guest.uuid)
        kept = guest if before is None else replace(guest, was=before.was, autostart=before.autostart)
        return replace(found, guests=(*(each for each in found.guests if each.uuid != guest.uuid), kept))

    _change((uri, identity), change, state)


def drop_guest(uri: str, uuid: str, *, identity: str = "", state: Path | None = None) -> None:
    """A VM is back."""

    def change(found: Maintenance | None) -> Maintenance | None:
        guests = tuple(each for each in found.guests if each.uuid != uuid) if found is not None else ()
        return None if found is None else replace(found, guests=guests)

    _change((uri, identity), change, state)


def _change(
    host: tuple[str, str], change: Callable[[Maintenance | None], Maintenance | None], state: Path | None
) -> None:
    """Replace what is known of the host of this URI and identity."""
    directory = state or state_directory()
    with _locked(directory):
        known = read(directory)
        changed = change(among(known, *host))
        kept = [each for each in known if not _is_same(each, *host)]
        if changed is not None and (changed.is_drained or changed.guests):
            kept.append(changed)
        _write(directory / FILE, kept)


def _write(path: Path, known: Sequence[Maintenance]) -> None:
    import json

    text = json.dumps({"version": VERSION, "hosts": [asdict(each) for each in known]}, indent=1)
    new = path.with_name(f"{path.name}.new")  # one at a time: under the lock
    try:
        handle = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text + "\n")
            file.flush()
            os.fsync(file.fileno())
        new.replace(path)
    except OSError as error:
        new.unlink(missing_ok=True)
        raise HvtuiError(f"cannot be written: {error.strerror}", about=str(path)) from error


def _decoded(text: str) -> tuple[Maintenance, ...]:
    import json

    data = json.loads(text)
    if data["version"] not in {1, VERSION}:
        raise ValueError(f"version {data['version']}, this hvtui knows {VERSION}")
    return tuple(_host(each) for each in data["hosts"])


def _host(data: Mapping[str, Any]) -> Maintenance:
    guests = tuple(Guest(**guest) for guest in data["guests"])
    return Maintenance(**{**data, "guests": guests})


@contextmanager
def _locked(directory: Path) -> Iterator[None]:
    import fcntl

    handle = os.open(directory / f"{FILE}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
