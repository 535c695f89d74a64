"""The lab's guest: the built-in tiny one, and a counter in it that counts the seconds that it has lived through.

It counts on its serial console ("count 17") and in /run/count; after a move a gap in time, a second life or a loss of
memory shows there and in its boot_id. The counter comes in an archive of its own that is appended to the tiny guest's:
the kernel unpacks one after the other, so users get the tiny guest as it is.
"""

from __future__ import annotations

import hashlib
import shutil
import stat
from dataclasses import dataclass
from pathlib import Path

import libvirt

from tests.support import guest
from tests.support.lab_host import LabHost
from tests.support.lab_setup import POOLS
from tests.support.waiting import wait_for
from vm import tiny, tiny_initramfs
from vm.tiny_initramfs import Entry

PLACE = "/srv/shared/tiny"  # the same on all hosts, as a guest's definition names it
MEMORY_MIB = 128

_COUNTER = """\
#!/bin/busybox sh
until grep -q '^run /run ' /proc/mounts; do sleep 0.2; done 2>/dev/null
count=0
while :; do
    echo "$count" > /run/count.new && mv /run/count.new /run/count
    echo "count $count" > /dev/ttyS0
    count=$((count + 1))
    sleep 1
done
"""
# The shell gives what it starts in the background /dev/null to read.
_FIRST = """\
#!/bin/busybox sh
/bin/busybox mknod /dev/null c 1 3
/bin/busybox sh /lab-count &
exec /init
"""

_XML = """\
<domain type='qemu'>
  <name>{name}</name>{uuid}
  <memory unit='MiB'>{memory}</memory>
  <vcpu>1</vcpu>
  <os>
    <type arch='x86_64' machine='{machine}'>hvm</type>
    <kernel>{place}/vmlinuz</kernel>
    <initrd>{place}/initrd</initrd>
    <cmdline>{arguments}</cmdline>
  </os>
  <features><acpi/></features>
  <on_crash>destroy</on_crash>
  <devices>
    {disks}
    {network}
    <serial type='pty'>
      <log file='{console}' append='on'/>
    </serial>
    <console type='pty'/>
    <channel type='unix'><target type='virtio' name='org.qemu.guest_agent.0'/></channel>
    <rng model='virtio'><backend model='random'>/dev/urandom</backend></rng>
    <memballoon model='virtio'/>
    {more}
  </devices>
</domain>
"""
_DISK = """\
<disk type='file' device='disk'>
      <driver name='qemu' type='qcow2' cache='{cache}'/>
      <source file='{path}'/>
      <target dev='vda' bus='virtio'/>
    </disk>"""
_NETWORK = "<interface type='network'><source network='default'/><model type='virtio'/></interface>"


@dataclass(frozen=True, slots=True)
class Counted:
    """What a guest says of itself: seconds counted, seconds of its clock since its boot, and which boot that was."""

    count: int
    uptime_s: float
    boot_id: str


def install(shared: Path) -> None:
    """Put the guest's kernel and initial RAM disk where every host finds them."""
    built = tiny.build()
    place = shared / "tiny"
    place.mkdir()
    shutil.copyfile(built.kernel, place / "vmlinuz")
    entries = [
        Entry("lab-count", stat.S_IFREG | 0o755, _COUNTER.encode()),
        Entry("lab-init", stat.S_IFREG | 0o755, _FIRST.encode()),
    ]
    data = built.initrd.read_bytes()
    padding = b"\0" * (-len(data) % 4)
    (place / "initrd").write_bytes(data + padding + tiny_initramfs.archive(entries))


def identity(shared: Path) -> str:
    """A hash of the guest that was installed there."""
    return hashlib.sha256((shared / "tiny/vmlinuz").read_bytes() + (shared / "tiny/initrd").read_bytes()).hexdigest()


def definition(
    name: str, *, disk: str = "", cache: str = "none", network: bool = False, more: str = "", uuid: str = ""
) -> str:
    """The guest's XML. `disk` is a qcow2 file's path as the hosts see it, `more` further devices."""
    return _XML.format(
        name=name,
        uuid=f"\n  <uuid>{uuid}</uuid>" if uuid else "",
        memory=MEMORY_MIB,
        machine="pc",
        place=PLACE,
        console=console_path(name),
        arguments=f"{tiny.kernel_arguments(name)} rdinit=/lab-init",
        disks=_DISK.format(path=disk, cache=cache) if disk else "",
        network=_NETWORK if network else "",
        more=more,
    )


@dataclass(frozen=True, slots=True)
class GuestDisk:
    """A disk as the hosts name it, and the SHA-256 of its contents."""

    path: str
    checksum: str


def make_disk(host: LabHost, name: str, *, pool: str = "shared", size_mib: int = 16, random_mib: int = 4) -> GuestDisk:
    """A qcow2 volume NAME.qcow2 in a host's pool ("shared": every host's), whose beginning is random."""
    path = f"{POOLS[pool]}/{name}.qcow2"
    host.run(["sh", "-ec", _MAKE_DISK, "sh", path, str(random_mib), str(size_mib)])
    return GuestDisk(path, disk_checksum(host, path))


_MAKE_DISK = """
head -c "$2"M /dev/urandom > "$1.raw"
truncate -s "$3"M "$1.raw"
qemu-img convert -f raw -O qcow2 "$1.raw" "$1"
rm "$1.raw"
"""


def disk_checksum(host: LabHost, path: str) -> str:
    """The SHA-256 of what a guest reads from that disk; nobody may write to it meanwhile."""
    script = 'qemu-img convert -U -f qcow2 -O raw "$1" "$1.sum" && sha256sum < "$1.sum"; rm -f "$1.sum"'
    return host.run(["sh", "-ec", script, "sh", path]).stdout.split()[0]


def start(host: LabHost, xml: str) -> libvirt.virDomain:
    """Define and start a guest, and wait until it counts. The domain's connection stays open with it."""
    connection = host.connect()
    domain = connection.defineXML(xml)
    domain.create()
    wait_for(lambda: guest.answers(domain), what="the guest's agent")
    wait_for(lambda: counted(domain).count > 0, what="the guest's counter")
    return domain


def counted(domain: libvirt.virDomain) -> Counted:
    """Ask the guest. Raises libvirtError when its agent does not answer."""
    script = "cat /run/count; cut -d' ' -f1 /proc/uptime; cat /proc/sys/kernel/random/boot_id"
    words = guest.run(domain, script).split()
    return Counted(int(words[0]), float(words[1]), words[2])


def console_path(name: str) -> str:
    """Where each host keeps what the guest wrote to its serial console while it ran there."""
    return f"/var/log/libvirt/qemu/{name}-serial.log"


def console(host: LabHost, name: str) -> str:
    """What the guest wrote to its serial console while it ran on that host."""
    path = host.path(console_path(name))
    return path.read_text(errors="replace") if path.exists() else ""


def checksum_inside(domain: libvirt.virDomain) -> str:
    """The SHA-256 of the guest's disk as the running guest reads it, from the disk and not from its memory: two seconds
    in an emulated guest."""
    script = "echo 1 > /proc/sys/vm/drop_caches; sha256sum /dev/vda"
    return guest.run(domain, script, limit_s=60.0).split()[0]
