"""Looks at all hosts several times a second, each in a thread of its own, for a VM that runs on two of them at once."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import libvirt

from tests.support.lab_host import LabHost

_EVERY_S = 0.15
_ACTIVE = libvirt.VIR_CONNECT_LIST_DOMAINS_ACTIVE


@dataclass(frozen=True, slots=True)
class _Look:
    """The VMs that ran on a host, unpaused, at some moment between the two times."""

    began_s: float
    ended_s: float
    running: frozenset[str]


class Watch:
    """Use as a context; `doubled()` says what was seen since the last question."""

    def __init__(self, hosts: Sequence[LabHost]) -> None:
        self._hosts = hosts
        self._looks: dict[str, list[_Look]] = {host.name: [] for host in hosts}
        self._end = threading.Event()
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._look, args=(host,), daemon=True) for host in hosts]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._end.set()
        for thread in self._threads:
            thread.join(10.0)

    def doubled(self) -> list[str]:
        """Which VM ran on which two hosts at the same time. Forgets what it has seen."""
        with self._lock:
            looks, self._looks = self._looks, {host.name: [] for host in self._hosts}
        return sorted({f"{uuid} ran on {one} and {two}" for uuid, one, two in _doubled(looks)})

    def looks(self) -> int:
        """How many answers there were since the last question."""
        with self._lock:
            return sum(map(len, self._looks.values()))

    def _look(self, host: LabHost) -> None:
        connection = None
        while not self._end.wait(_EVERY_S):
            try:
                connection = connection or host.connect()
                began_s = time.monotonic()
                running = frozenset(d.UUIDString() for d in connection.listAllDomains(_ACTIVE) if _runs(d))
                ended_s = time.monotonic()
            except libvirt.libvirtError:
                connection = None
                continue
            with self._lock:
                self._looks[host.name].append(_Look(began_s, ended_s, running))


def _runs(domain: libvirt.virDomain) -> bool:
    try:
        return bool(domain.state()[0] == libvirt.VIR_DOMAIN_RUNNING)
    except libvirt.libvirtError as error:
        if error.get_error_domain() == libvirt.VIR_FROM_RPC:
            raise
        return False  # it ended in between


def _doubled(looks: dict[str, list[_Look]]) -> Iterator[tuple[str, str, str]]:
    """A look at one host that found the VM running between two looks at another that both did."""
    for one, its in looks.items():
        for first, second in itertools.pairwise(its):
            for uuid in first.running & second.running:
                for two, others in looks.items():
                    between = (x for x in others if first.ended_s <= x.began_s and x.ended_s <= second.began_s)
                    if two != one and any(uuid in look.running for look in between):
                        yield uuid, one, two
