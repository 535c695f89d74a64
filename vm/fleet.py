"""The VMs of many hosts: one Feed a host for screens (`Fleet`), one question to all of them for lists (`read_all`).

Each host has its own Host, its own threads and its own Snapshot: a dead or frozen one delays no other. A Snapshot that
is there stays, with the link that tells why it is old. This module knows no user interface; its callbacks run on the
feeds' threads, several at once, and must not block.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TypeAlias

from host.connection import Host
from host.errors import HvtuiError
from host.events import Event
from host.host_list import HostEntry
from host.many_hosts import ask_all
from vm import inventory
from vm.feed import Feed, ReadSamples
from vm.model import Snapshot, Vm

STOP_S = 1.0

OpenHost: TypeAlias = Callable[[HostEntry], Host]
OnSnapshot: TypeAlias = Callable[[Snapshot], None]
OnHostEvent: TypeAlias = Callable[[str, Event], None]


@dataclass(frozen=True, slots=True)
class HostReading:
    """The VMs of one host as a list shows them; `error` in their place when it did not answer."""

    host: Host
    vms: tuple[Vm, ...]
    error: HvtuiError | None = None
    took_s: float = 0.0


def read_all(
    hosts: Sequence[Host], timeout_s: float, *, read: Callable[[Host], tuple[Vm, ...]] = inventory.read
) -> tuple[HostReading, ...]:
    """Every host's VMs, in the order of `hosts`, after `timeout_s` at the latest. `read` replaces the plain reading.
    Raises nothing: what fails is the error of its host."""
    answers = ask_all(hosts, read, timeout_s=timeout_s)
    return tuple(HostReading(each.host, each.value or (), each.error, each.took_s) for each in answers)


@dataclass(frozen=True, slots=True)
class _Member:
    entry: HostEntry
    host: Host
    feed: Feed


class Fleet:
    """The live picture of many hosts; every method is safe from any thread, and none waits for a host.

    `open_host(entry)` gives a Host that is not connected yet; the fleet closes it. `on_snapshot` gets each new
    Snapshot (its `host_name` is the entry's name), `on_event` the name of the host with each event. `read_samples`
    stands for Feed's.
    """

    def __init__(
        self,
        entries: Iterable[HostEntry],
        open_host: OpenHost,
        on_snapshot: OnSnapshot,
        on_event: OnHostEvent | None = None,
        *,
        interval_s: float = 2.0,
        read_samples: ReadSamples | None = None,
    ) -> None:
        self._open_host = open_host
        self._on_snapshot = on_snapshot
        self._on_event = on_event
        self._interval_s = interval_s
        self._read_samples = read_samples
        self._lock = threading.RLock()
        self._is_running = False
        self._polling = True
        self._members: dict[str, _Member] = {}
        self._snapshots: Mapping[str, Snapshot] = MappingProxyType({})
        for entry in entries:
            self._members[entry.name] = self._member(entry)

    @property
    def entries(self) -> tuple[HostEntry, ...]:
        """The hosts, in the order in which they were given."""
        return tuple(member.entry for member in self._copy())

    @property
    def snapshots(self) -> Mapping[str, Snapshot]:
        """The newest Snapshot of each host that has one, by name. A mapping that never changes; ask again for news."""
        return self._snapshots

    def host(self, name: str) -> Host | None:
        """The Host of that name: for plans and jobs on it. None for one that is not in the fleet."""
        member = self._members.get(name)
        return member.host if member is not None else None

    def start(self) -> None:
        """Begin with every host; returns at once."""
        with self._lock:
            self._is_running = True
            for member in self._members.values():
                member.feed.start()

    def stop(self) -> None:
        """End every feed and close every host: no callback begins after this. Takes a second at most."""
        with self._lock:
            self._is_running = False
            members, self._members = self._copy(), {}
        _end(members)

    def refresh(self, name: str | None = None) -> None:
        """Read everything again, of all hosts or of one."""
        for member in self._copy():
            if name in {None, member.entry.name}:
                member.feed.refresh()

    def reread(self, name: str, uuid: str) -> None:
        """Read one VM of that host and its XML again, soon."""
        member = self._members.get(name)
        if member is not None:
            member.feed.reread(uuid)

    def set_polling(self, enabled: bool) -> None:
        """Read rates and loads each interval, or never; lists follow events either way."""
        with self._lock:
            self._polling = enabled
            for member in self._members.values():
                member.feed.set_polling(enabled)

    def add(self, entry: HostEntry) -> None:
        """Put a host into the fleet, in the place of one of the same name if that was entered differently."""
        with self._lock:
            there = self._members.get(entry.name)
            if there is not None and there.entry == entry:
                return
            member = self._members[entry.name] = self._member(entry)
            self._forget(entry.name)
            if self._is_running:
                member.feed.start()
        if there is not None:
            _leave(there)

    def remove(self, name: str) -> None:
        """Take a host out of the fleet: no callback of it begins after this."""
        with self._lock:
            member = self._members.pop(name, None)
            self._forget(name)
        if member is not None:
            _leave(member)

    def set_entries(self, entries: Iterable[HostEntry]) -> None:
        """Make the fleet consist of these hosts; those that are there already go on undisturbed."""
        wanted = {entry.name: entry for entry in entries}
        for entry in self.entries:
            if entry.name not in wanted:
                self.remove(entry.name)
        for entry in wanted.values():
            self.add(entry)
        with self._lock:
            self._members = {name: self._members[name] for name in wanted if name in self._members}

    def _copy(self) -> list[_Member]:
        with self._lock:
            return list(self._members.values())

    def _member(self, entry: HostEntry) -> _Member:
        host = self._open_host(entry)
        feed = Feed(
            host,
            lambda snapshot: self._show(entry, snapshot),
            lambda event: self._tell(entry, event),
            self._interval_s,
            read_samples=self._read_samples,
        )
        feed.set_polling(self._polling)
        return _Member(entry, host, feed)

    def _show(self, entry: HostEntry, snapshot: Snapshot) -> None:
        with self._lock:
            if not self._has(entry):
                return
            self._snapshots = MappingProxyType({**self._snapshots, entry.name: snapshot})
        self._on_snapshot(snapshot)

    def _tell(self, entry: HostEntry, event: Event) -> None:
        if self._on_event is not None and self._has(entry):
            self._on_event(entry.name, event)

    def _has(self, entry: HostEntry) -> bool:
        member = self._members.get(entry.name)
        return member is not None and member.entry is entry

    def _forget(self, name: str) -> None:
        self._snapshots = MappingProxyType({each: kept for each, kept in self._snapshots.items() if each != name})


def _leave(member: _Member) -> None:
    """End one host beside the caller: ending waits for a daemon that does not answer."""
    threading.Thread(target=_end_one, args=(member,), name=f"leave-{member.entry.name}", daemon=True).start()


def _end(members: Sequence[_Member]) -> None:
    """End them side by side: a frozen one takes its half second, and so do sixty."""
    threads = [threading.Thread(target=_end_one, args=(each,), name="leave", daemon=True) for each in members]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(STOP_S)


def _end_one(member: _Member) -> None:
    member.feed.stop()
    member.host.close()
