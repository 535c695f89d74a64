"""Which hosts are drained for maintenance, and where their VMs went: one file in the state directory.

The file is replaced as a whole, under a lock, so that a killed process leaves the old or the new one. Steps write it
(vm.drain_steps); everybody may read it. It changes no host and no VM.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from host.errors import HvtuiError
from host.paths import state_directory

FILE = "maintenance.json"
VERSION = 1


@dataclass(frozen=True, slots=True)
class Guest:
    """A VM of a drained host: what became of it (`fate`: moved, saved, shut down), its state before, and on which
    host it is now. `autostart` is as it was at home."""

    uuid: str
    name: str
    fate: str
    was: str
    uri: str
    host: str
    autostart: bool = False


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


def of_host(uri: str, state: Path | None = None) -> Maintenance | None:
    """What is known of one host; None when it is neither drained nor misses a VM."""
    return next((each for each in read(state) if each.uri == uri), None)


def drained_uris(state: Path | None = None) -> frozenset[str]:
    """The URIs of the hosts that are drained now."""
    return frozenset(each.uri for each in read(state) if each.is_drained)


def begin(uri: str, name: str, *, job_id: int = 0, state: Path | None = None) -> None:
    """A host is drained from now on; one that is already stays as it was, with the VMs that it misses."""

    def change(found: Maintenance | None) -> Maintenance:
        if found is not None and found.is_drained:
            return found
        now = datetime.now(UTC).isoformat(timespec="seconds")
        guests = found.guests if found is not None else ()
        return Maintenance(uri, name, now, job_id, guests=guests)

    _change(uri, change, state)


def end(uri: str, *, state: Path | None = None) -> None:
    """The host takes VMs again; it is forgotten once none of its own is missing."""
    _change(uri, lambda found: None if found is None else replace(found, is_drained=False), state)


def put_guest(uri: str, guest: Guest, *, state: Path | None = None) -> None:
    """A VM of a drained host has gone, was saved or was shut down; the newest word about it counts, but its state
    before is that of the first time."""

    def change(found: Maintenance | None) -> Maintenance | None:
        if found is None:
            return None
        before = found.guest(guest.uuid)
        kept = guest if before is None else replace(guest, was=before.was, autostart=before.autostart)
        return replace(found, guests=(*(each for each in found.guests if each.uuid != guest.uuid), kept))

    _change(uri, change, state)


def drop_guest(uri: str, uuid: str, *, state: Path | None = None) -> None:
    """A VM is back."""

    def change(found: Maintenance | None) -> Maintenance | None:
        guests = tuple(each for each in found.guests if each.uuid != uuid) if found is not None else ()
        return None if found is None else replace(found, guests=guests)

    _change(uri, change, state)


def _change(uri: str, change: Callable[[Maintenance | None], Maintenance | None], state: Path | None) -> None:
    directory = state or state_directory()
    with _locked(directory):
        known = {each.uri: each for each in read(directory)}
        changed = change(known.get(uri))
        if changed is None or not (changed.is_drained or changed.guests):
            known.pop(uri, None)
        else:
            known[uri] = changed
        _write(directory / FILE, known)


def _write(path: Path, known: Mapping[str, Maintenance]) -> None:
    import json

    text = json.dumps({"version": VERSION, "hosts": [asdict(each) for each in known.values()]}, indent=1)
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
    if data["version"] != VERSION:
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
