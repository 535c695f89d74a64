"""Running guests within a second: each was booted once for the whole run, and its saved memory is restored.

An emulated boot costs six seconds of CPU. A restored guest goes on with the count and the boot_id it was saved with.
"""

from __future__ import annotations

from dataclasses import dataclass

import libvirt

from tests.support import guest, lab_guest
from tests.support.lab import Lab
from tests.support.lab_guest import Counted, GuestDisk
from tests.support.lab_host import LabHost
from tests.support.waiting import wait_for


@dataclass(frozen=True, slots=True)
class RunningGuest:
    """A guest as it was when a test began: it runs on `host`. `domain` stays good while it is there."""

    name: str
    host: LabHost
    domain: libvirt.virDomain
    disk: GuestDisk
    boot_id: str

    def on(self, host: LabHost) -> libvirt.virDomain:
        """The same guest on another host, through a new connection. Raises libvirtError when it is not there."""
        return host.connect().lookupByName(self.name)

    def counted_on(self, host: LabHost) -> Counted:
        """What it says there; waits for its agent, and fails when it is not the life that the test began with."""
        domain = self.on(host)
        wait_for(lambda: guest.answers(domain), what=f"the agent of {self.name} on {host.name}")
        told = lab_guest.counted(domain)
        assert told.boot_id == self.boot_id, f"{self.name} has booted again"
        return told


@dataclass(frozen=True, slots=True)
class _Saved:
    xml: str
    memory: str
    disk: GuestDisk
    pristine: str
    boot_id: str


class SavedGuests:
    """The guests that were booted before, by name and kind."""

    def __init__(self, lab: Lab) -> None:
        self._lab = lab
        self._saved: dict[tuple[str, str, bool], _Saved] = {}
        (lab.shared / "saved").mkdir(exist_ok=True)

    def start(self, host: LabHost, name: str = "count", *, pool: str = "shared", network: bool = True) -> RunningGuest:
        """A guest that runs on that host and counts, its disk in a pool, and persistent. Each combination of name,
        pool and network is booted once."""
        kind = (name, pool, network)
        if kind not in self._saved:
            self._saved[kind] = self._boot(self._lab.hosts[0], name, pool=pool, network=network)
        saved = self._saved[kind]
        host.run(["cp", "--", saved.pristine, saved.disk.path])
        connection = host.connect()
        connection.storagePoolLookupByName(pool).refresh()
        domain = connection.defineXML(saved.xml)
        connection.restore(saved.memory)
        wait_for(lambda: guest.answers(domain), what=f"the agent of the restored {name}")
        return RunningGuest(name, host, domain, saved.disk, saved.boot_id)

    def _boot(self, host: LabHost, name: str, *, pool: str, network: bool) -> _Saved:
        place = f"/srv/shared/saved/{name}-{pool}-{'network' if network else 'alone'}"
        disk = lab_guest.make_disk(host, name, pool=pool)
        pristine = f"{place}.qcow2"
        host.run(["cp", "--", disk.path, pristine])
        domain = lab_guest.start(host, lab_guest.definition(name, disk=disk.path, network=network))
        boot_id = lab_guest.counted(domain).boot_id
        xml = domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE | libvirt.VIR_DOMAIN_XML_SECURE)
        domain.save(f"{place}.memory")
        domain.undefine()
        host.run(["rm", "--", disk.path])
        return _Saved(xml, f"{place}.memory", disk, pristine, boot_id)
