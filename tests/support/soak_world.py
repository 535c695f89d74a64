"""The guests of a soak, and what must hold of each of them after a move, whatever happened during it."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree as ET

import libvirt

from host.connection import Host
from host.errors import HvtuiError
from host.job_rules import holds
from host.journal import Journal
from host.shared_storage import looks_shared
from tests.support import guest as inside
from tests.support import lab_guest, lab_setup
from tests.support.lab import Lab
from tests.support.lab_host import LabHost
from tests.support.lab_saved import SavedGuests
from tests.support.live_moves import opened, state
from tests.support.waiting import wait_for

_INACTIVE = libvirt.VIR_DOMAIN_XML_INACTIVE
_ANSWERS_S = 5.0
_TRIES = 3


@dataclass(slots=True)
class SoakGuest:
    """A guest, where it is, and what it said last."""

    name: str
    uuid: str
    pool: str
    host: LabHost
    checksum: str
    boot_id: str
    first_boot_id: str  # of the memory that it is started from
    count: int = 0
    lives: int = 0  # how often it was started again
    deaths: int = 0  # how often its kernel died in a migration: emulated ones sometimes do


@dataclass(frozen=True, slots=True)
class Expected:
    """What the end of a move must look like. `may_be_off`: a fault ended its life, or it was off."""

    host: LabHost
    may_be_off: bool
    must_be_off: bool = False
    has_told: bool = False


class World:
    """Hosts, guests, and hvtui's own view of both."""

    def __init__(self, lab: Lab, saved: SavedGuests) -> None:
        self.lab, self._saved = lab, saved
        self.journal = Journal()
        self._opened: dict[str, Host] = {}
        self.guests: list[SoakGuest] = []

    def close(self) -> None:
        for host in self._opened.values():
            host.close()
        self.journal.close()

    def hvtui(self, host: LabHost) -> Host:
        return self._opened.setdefault(host.name, opened(host))

    def add_guest(self, name: str, host: LabHost, pool: str) -> SoakGuest:
        made = self._saved.start(host, name, pool=pool)
        guest = SoakGuest(name, made.domain.UUIDString(), pool, host, made.disk.checksum, made.boot_id, made.boot_id)
        self.guests.append(guest)
        return guest

    @contextlib.contextmanager
    def domain(self, guest: SoakGuest, host: LabHost | None = None) -> Iterator[libvirt.virDomain]:
        connection = (host or guest.host).connect()
        try:
            yield connection.lookupByUUIDString(guest.uuid)
        finally:
            connection.close()

    def switch_off(self, guest: SoakGuest) -> None:
        with self.domain(guest) as domain:
            domain.destroy()

    def start_again(self, guest: SoakGuest) -> None:
        """Let a guest that is off live again. An emulated one may hang when it is restored: then once more."""
        for attempt in range(_TRIES):
            with self.domain(guest) as domain:
                if domain.isActive() and not attempt:
                    return
                guest.lives, guest.count, guest.boot_id = guest.lives + 1, 0, guest.first_boot_id
                try:
                    self._saved.start_again(guest.host, domain)
                except AssertionError:
                    domain.destroy()
                    continue
                return
        raise AssertionError(f"{guest.name} does not come to life on {guest.host.name}")

    def counts(self, guest: SoakGuest) -> None:
        """Ask a running guest how far it has counted."""
        with self.domain(guest) as domain:
            wait_for(lambda: inside.answers(domain), what=f"the agent of {guest.name} on {guest.host.name}")
            guest.count = lab_guest.counted(domain).count

    # Back to health

    def make_well(self) -> None:
        """Every host runs and answers, and its disks have room, whatever was done to it."""
        for host in self.lab.hosts:
            if not host.is_running():
                host.request_start()
                continue
            host.thaw_libvirtd()
            host.heal_network()
            host.empty_disks()
        for host in self.lab.hosts:
            until_s = time.monotonic() + _ANSWERS_S
            while host.is_running() and not host.answers():
                if time.monotonic() > until_s:
                    host.start_libvirtd()
                time.sleep(0.05)
            host.wait_ready()
            lab_setup.set_up(host)

    # What must hold

    def wrong(self, guest: SoakGuest, expected: Expected) -> list[str]:
        """Everything that is not as it must be after a move of `guest`. Where its kernel has died in the emulator,
        which the job must have told (`expected.has_told`), that is no fault of the move."""
        found = self.wrong_place(guest, expected)
        if found:
            return found
        guest.host = expected.host
        return [*self._wrong_life(guest, expected), *self._wrong_definition(guest), *self._wrong_disk(guest)]

    def wrong_place(self, guest: SoakGuest, expected: Expected) -> list[str]:
        """Whether it is on the one host where it must be, and not off without a reason."""
        seen = {host: state(host, guest.name) for host in self.lab.hosts}
        there = {host: what for host, what in seen.items() if what != "gone"}
        if list(there) != [expected.host]:
            told = ", ".join(f"{host.name} ({what})" for host, what in there.items())
            return [f"it should be on {expected.host.name} and is on: {told or 'no host'}"]
        is_right = there[expected.host] == "running" or expected.may_be_off
        return [] if is_right else [f"it is {there[expected.host]}"]

    def _wrong_life(self, guest: SoakGuest, expected: Expected) -> list[str]:
        now = state(guest.host, guest.name)
        if now == "off":
            return []
        if now != "running" or expected.must_be_off:
            return [f"it is {now}"]
        with self.domain(guest) as domain:
            wait_for(lambda: inside.answers(domain), what=f"the agent of {guest.name} on {guest.host.name}")
            told = lab_guest.counted(domain)
        if told.boot_id != guest.boot_id:
            guest.boot_id, guest.deaths = told.boot_id, guest.deaths + 1
            return [] if expected.has_told else ["it has booted again"]
        return [f"it has counted {told.count} after {guest.count}"] if told.count < guest.count else []

    def _wrong_definition(self, guest: SoakGuest) -> list[str]:
        with self.domain(guest) as domain:
            if not domain.isPersistent():
                return ["it is transient"]
            text = domain.XMLDesc(_INACTIVE)
            told = ["its definition carries the mark of a move"] if "hvtui.org/xmlns/move" in text else []
            return told + (["it has a managed save"] if domain.hasManagedSaveImage() else [])

    def disk_path(self, guest: SoakGuest) -> str:
        with self.domain(guest) as domain:
            return _disk(domain.XMLDesc(_INACTIVE))

    def _wrong_disk(self, guest: SoakGuest) -> list[str]:
        with self.domain(guest) as domain:
            paths = {_disk(domain.XMLDesc(flags)) for flags in (0, _INACTIVE)}
        if len(paths) != 1:
            return [f"it uses other disks than its definition names: {sorted(paths)}"]
        try:
            found = lab_guest.disk_checksum(guest.host, *paths)
        except RuntimeError as error:
            return [f"its disk: {error}"]
        return [] if found == guest.checksum else ["its disk has changed"]

    def left_over(self) -> list[str]:
        """What moves have left on any host or in hvtui's state, and jobs that hold a VM."""
        found: list[str] = []
        for host in self.lab.hosts:
            found += [f"{host.name}: {what}" for what in self._left_on(host)]
        mine = {self.disk_path(guest) for guest in self.guests if guest.pool == "shared"}
        shared = {f"/srv/shared/images/{path.name}" for path in (self.lab.shared / "images").iterdir()}
        found += [f"shared: {path}" for path in sorted(shared - mine)]
        stops = self.journal.path.parent / "moves"
        found += [f"state: {path.name}" for path in (stops.iterdir() if stops.is_dir() else ())]
        found += [f"job {job.id} {job.state} holds its VM" for job in self.journal.jobs(limit=100) if holds(job)]
        return found

    def _left_on(self, host: LabHost) -> Iterator[str]:
        own = {self.disk_path(guest) for guest in self.guests if guest.pool != "shared" and guest.host is host}
        there = {f"/var/lib/libvirt/images/{path.name}" for path in host.images.iterdir()}
        yield from (f"unknown {path}" for path in sorted(there - own))
        yield from (f"missing {path}" for path in sorted(own - there))
        saves = host.path("/var/lib/libvirt/qemu/save")
        yield from (f"saved {path.name}" for path in (saves.iterdir() if saves.is_dir() else ()))
        connection = host.connect()
        try:
            pools = {pool.name() for pool in connection.listAllStoragePools()}
            yield from (f"pool {name}" for name in sorted(pools - set(lab_setup.POOLS)))
            active = len(connection.listAllDomains(libvirt.VIR_CONNECT_LIST_DOMAINS_ACTIVE))
        finally:
            connection.close()
        machines = [pid for pid in host.qemu_pids() if b"guest=" in _command(pid)]
        if len(machines) != active:
            yield f"{len(machines)} QEMUs for {active} running VMs"

    def likeness(self, guest: SoakGuest, there: LabHost) -> list[str]:
        """Why hvtui takes its disk for one that both hosts see, or for none of those."""
        source, target = self.hvtui(guest.host), self.hvtui(there)
        found = looks_shared(source, target, [self.disk_path(guest)])
        return [f"{path}: {each.is_shared}, {each.reason}" for path, each in found.items()]

    # After something was found wrong: on with a clean world

    def wipe(self, guest: SoakGuest) -> None:
        """Remove everything of a guest, and free it of its jobs."""
        from host import jobs

        for job in self.journal.jobs(limit=100):
            if holds(job):
                with contextlib.suppress(HvtuiError):
                    jobs.cancel(job.id, self.journal)
        for host in self.lab.hosts:
            connection = host.connect()
            for domain in connection.listAllDomains():
                if domain.UUIDString() == guest.uuid:
                    with contextlib.suppress(libvirt.libvirtError):
                        domain.destroy()
                    with contextlib.suppress(libvirt.libvirtError):
                        domain.undefineFlags(libvirt.VIR_DOMAIN_UNDEFINE_MANAGED_SAVE)
            connection.close()
        self.guests.remove(guest)

    def sweep(self) -> None:
        """Remove files that no guest needs."""
        needed = {Path(self.disk_path(guest)).name for guest in self.guests}
        stops = self.journal.path.parent / "moves"
        places = [self.lab.shared / "images", *(host.images for host in self.lab.hosts), stops]
        for place in places:
            for path in place.iterdir() if place.is_dir() else ():
                if path.name not in needed:
                    path.unlink()
        for host in self.lab.hosts:
            connection = host.connect()
            for pool in connection.listAllStoragePools():
                if pool.name() not in lab_setup.POOLS and not pool.isPersistent():
                    pool.destroy()
                else:
                    pool.refresh()
            connection.close()


def _disk(text: str) -> str:
    disk = ET.fromstring(text).find("devices/disk[@device='disk']/source")  # noqa: S314
    return "" if disk is None else disk.get("file", "")


def _command(pid: int) -> bytes:
    try:
        return (Path("/proc") / str(pid) / "cmdline").read_bytes()
    except OSError:
        return b""
