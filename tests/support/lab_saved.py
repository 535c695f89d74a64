"""Running guests within a second: one was booted once, and its saved memory becomes a guest of any name.

An emulated boot costs six seconds of CPU, so the saved guest is kept in the cache, like the tree that the hosts start
from. What is restored goes on with the count and the boot_id it was saved with: all these guests have the same boot_id,
and, in what they know themselves, the same host name and MAC address.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import struct
import uuid
import xml.etree.ElementTree as ET
from dataclasses import dataclass
from pathlib import Path

import libvirt

from tests.support import guest, lab_guest, lab_tree
from tests.support.lab import Lab
from tests.support.lab_guest import Counted, GuestDisk
from tests.support.lab_host import LabHost
from tests.support.lab_setup import POOLS
from tests.support.waiting import wait_for

_BOOTED = "booted-for-all"
_FORMAT = 3  # of what is kept
# struct _virQEMUSaveHeader: magic, version, length of what follows, was running, compressed, where the cookie begins.
_HEADER = struct.Struct("=16s5I56x")


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


class SavedGuests:
    """Makes guests that run already. Each is a VM of its own: name, UUID, MAC address and disk."""

    def __init__(self, lab: Lab) -> None:
        self._lab = lab
        self._place = lab.shared / "saved"
        self._place.mkdir(exist_ok=True)
        kept = _kept(lab)
        self._boot_id, self._checksum = (kept / "told").read_text(encoding="utf-8").split()
        self._memory = kept / "memory"
        shutil.copyfile(kept / "disk.qcow2", self._place / "disk.qcow2")

    def start(self, host: LabHost, name: str = "count", *, pool: str = "shared") -> RunningGuest:
        """A guest that runs on that host and counts, persistent, its disk in that pool, in the network `default`."""
        disk = GuestDisk(f"{POOLS[pool]}/{name}.qcow2", self._checksum)
        host.run(["cp", "--", "/srv/shared/saved/disk.qcow2", disk.path])
        memory = self._place / f"{uuid.uuid4()}.memory"
        definition = _rewritten(self._memory, memory, name=name, disk=disk.path)
        connection = host.connect()
        connection.storagePoolLookupByName(pool).refresh()
        domain = connection.defineXML(definition)
        connection.restore(f"/srv/shared/saved/{memory.name}")
        memory.unlink()
        wait_for(lambda: guest.answers(domain), what=f"the agent of the restored {name}")
        return RunningGuest(name, host, domain, disk, self._boot_id)

    def start_again(self, host: LabHost, domain: libvirt.virDomain) -> None:
        """Let a guest that was made here and is off go on from the same memory, wherever its disk is by now."""
        definition = ET.fromstring(domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE))  # noqa: S314
        (source,) = (disk.get("file", "") for disk in definition.iterfind("devices/disk[@device='disk']/source"))
        memory = self._place / f"{uuid.uuid4()}.memory"
        identifier = uuid.UUID(domain.UUIDString())
        _rewritten(self._memory, memory, name=domain.name(), disk=source, identifier=identifier)
        domain.connect().restore(f"/srv/shared/saved/{memory.name}")
        memory.unlink()
        wait_for(lambda: guest.answers(domain), timeout_s=30.0, what=f"the agent of {domain.name()} on {host.name}")


def _kept(lab: Lab) -> Path:
    """The saved guest in the cache, booted and saved now when it is not there."""
    with lab_tree.locked():
        key = f"{_FORMAT} {lab_tree.identity()} {lab_guest.identity(lab.shared)} {lab_guest.definition(_BOOTED)}"
        place = lab_tree.directory() / f"guest-{hashlib.sha256(key.encode()).hexdigest()[:8]}"
        if not place.is_dir():
            for older in lab_tree.directory().glob("guest-*"):
                shutil.rmtree(older)
            work = lab_tree.directory() / f"{lab_tree.WORK_PREFIX}{os.getpid()}"
            work.mkdir()
            try:
                _boot(lab, work)
                work.rename(place)
            finally:
                shutil.rmtree(work, ignore_errors=True)
        return place


def _boot(lab: Lab, into: Path) -> None:
    host = lab.hosts[0]
    disk = lab_guest.make_disk(host, _BOOTED)
    shutil.copyfile(lab.shared / f"images/{_BOOTED}.qcow2", into / "disk.qcow2")
    domain = lab_guest.start(host, lab_guest.definition(_BOOTED, disk=disk.path, network=True))
    told = lab_guest.counted(domain)
    domain.save(f"/srv/shared/saved/{_BOOTED}")
    domain.undefine()
    shutil.move(lab.shared / "saved" / _BOOTED, into / "memory")
    (lab.shared / f"images/{_BOOTED}.qcow2").unlink()
    (into / "told").write_text(f"{told.boot_id} {disk.checksum}\n", encoding="utf-8")


def _rewritten(source: Path, target: Path, *, name: str, disk: str, identifier: uuid.UUID | None = None) -> str:
    """Copy libvirt's file of a saved guest as that of a guest of another name. Its definition."""
    with source.open("rb") as old, target.open("wb") as new:
        magic, version, length, running, compressed, cookie_at = _HEADER.unpack(old.read(_HEADER.size))
        data = old.read(length)
        definition = _renamed(
            data[: data.index(b"\0")].decode(), name=name, disk=disk, identifier=identifier or uuid.uuid4()
        )
        text = definition.encode() + b"\0"
        cookie = data[cookie_at:].rstrip(b"\0") + b"\0" if cookie_at else b""
        cookie_at = len(text) if cookie_at else 0
        new.write(_HEADER.pack(magic, version, len(text + cookie), running, compressed, cookie_at))
        new.write(text + cookie)
        shutil.copyfileobj(old, new, 1024 * 1024)
    return definition


def _renamed(text: str, *, name: str, disk: str, identifier: uuid.UUID) -> str:
    root = ET.fromstring(text)  # noqa: S314
    for path, attribute, value in (
        ("devices/disk/source", "file", disk),
        ("devices/interface/mac", "address", "52:54:00:" + identifier.bytes[:3].hex(":")),
        ("devices/serial/log", "file", lab_guest.console_path(name)),
        ("devices/console/log", "file", lab_guest.console_path(name)),
    ):
        for element in root.iterfind(path):
            element.set(attribute, value)
    for tag, value in (("name", name), ("uuid", str(identifier))):
        element = root.find(tag)
        assert element is not None
        element.text = value
    return ET.tostring(root, encoding="unicode")
