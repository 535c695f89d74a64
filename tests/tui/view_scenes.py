"""What the view of web-01 shows in pictures and tests: its XML, the sizes of its disks, its jobs and events."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from host.connection import Host
from host.events import Event, EventKind
from host.job_model import Job, JobState
from tests.tui import scenes
from vm import hardware
from vm.hardware import DiskSize, Hardware
from vm.model import Vm

NAME = "web-01"
UUID = "00000000-0000-4000-8000-000000000001"
SIZES = {"vda": DiskSize(20 * scenes.GIB, int(3.1 * scenes.GIB)), "vdb": DiskSize(200 * scenes.GIB, 41 * scenes.GIB)}
NEXT_XML = """<domain type='kvm'>
  <name>web-01</name>
  <uuid>00000000-0000-4000-8000-000000000001</uuid>
  <title>shop front</title>
  <description>Serves the shop. Ask Alice before a restart on a Friday.</description>
  <metadata>
    <hvtui:vm xmlns:hvtui="https://hvtui.org/xmlns/domain/1">
      <hvtui:tag>web</hvtui:tag>
      <hvtui:tag>prod</hvtui:tag>
      <hvtui:owner>alice</hvtui:owner>
    </hvtui:vm>
  </metadata>
  <memory unit='KiB'>2097152</memory>
  <currentMemory unit='KiB'>2097152</currentMemory>
  <vcpu placement='static'>2</vcpu>
  <os firmware='efi'>
    <type arch='x86_64' machine='pc-q35-7.2'>hvm</type>
    <firmware>
      <feature enabled='yes' name='enrolled-keys'/>
      <feature enabled='yes' name='secure-boot'/>
    </firmware>
    <boot dev='hd'/>
    <boot dev='network'/>
  </os>
  <features>
    <acpi/>
    <apic/>
    <smm state='on'/>
  </features>
  <cpu mode='host-model' check='partial'>
    <topology sockets='1' dies='1' cores='2' threads='1'/>
  </cpu>
  <clock offset='utc'/>
  <devices>
    <emulator>/usr/bin/qemu-system-x86_64</emulator>
    <!-- the system -->
    <disk type='file' device='disk'>
      <driver name='qemu' type='qcow2' discard='unmap'/>
      <source file='/var/lib/libvirt/images/web-01.qcow2'/>
      <target dev='vda' bus='virtio'/>
    </disk>
    <disk type='file' device='disk'>
      <driver name='qemu' type='raw' cache='none' io='native'/>
      <source file='/srv/data/web-01-uploads.raw'/>
      <target dev='vdb' bus='virtio'/>
    </disk>
    <disk type='file' device='cdrom'>
      <target dev='sda' bus='sata'/>
      <readonly/>
    </disk>
    <controller type='usb' index='0' model='qemu-xhci'/>
    <controller type='pci' index='0' model='pcie-root'/>
    <controller type='pci' index='1' model='pcie-root-port'/>
    <controller type='pci' index='2' model='pcie-root-port'/>
    <controller type='pci' index='3' model='pcie-root-port'/>
    <interface type='bridge'>
      <mac address='52:54:00:1a:2b:01'/>
      <source bridge='br0'/>
      <model type='virtio'/>
      <vlan>
        <tag id='12'/>
      </vlan>
    </interface>
    <interface type='network'>
      <mac address='52:54:00:1a:2c:01'/>
      <source network='backup'/>
      <model type='virtio'/>
    </interface>
    <serial type='pty'/>
    <channel type='unix'>
      <target type='virtio' name='org.qemu.guest_agent.0'/>
    </channel>
    <input type='tablet' bus='usb'/>
    <tpm model='tpm-crb'>
      <backend type='emulator' version='2.0'/>
    </tpm>
    <graphics type='vnc' socket='/run/web-01.vnc'/>
    <video>
      <model type='virtio'/>
    </video>
    <memballoon model='virtio'/>
    <rng model='virtio'>
      <backend model='random'>/dev/urandom</backend>
    </rng>
  </devices>
</domain>
"""
LIVE_XML = (
    NEXT_XML.replace("<domain type='kvm'>", "<domain type='kvm' id='1'>")
    .replace("<cpu mode='host-model' check='partial'>", "<cpu mode='custom'>\n    <model>EPYC-Milan</model>")
    .replace("bridge='br0'/>", "bridge='br0'/>\n      <target dev='vnet1'/>")
    .replace("network='backup'/>", "network='backup'/>\n      <target dev='vnet2'/>")
    .replace("agent.0'/>", "agent.0' state='connected'/>")
)


def read(_host: Host, vm: Vm) -> Hardware:
    """In place of vm.hardware.read on a host that is not there."""
    return hardware.from_xml(NEXT_XML, LIVE_XML if vm.is_active else "")


def disk_sizes(_host: Host, _vm: Vm, _hardware: Hardware) -> dict[str, DiskSize]:
    return SIZES


def jobs() -> tuple[Job, ...]:
    """Some of web-01's jobs, newest first."""
    tags = scenes.plan("Set the tags of web-01", NAME, "Set its tags")
    move = scenes.plan("Save web-01", NAME, "Save web-01")
    day = timedelta(days=1)
    older = scenes.job(171, JobState.DONE, scenes.plan("Create web-01", NAME, "Make", "Define", "Start"), done=3)
    return (
        scenes.job(195, JobState.DONE, scenes.stop_plan(), done=1),
        scenes.job(190, JobState.FAILED, move, done=0, exit_code=4, error="cannot save web-01: no space left on device",
                   remedy="Make room in /var/lib/libvirt/qemu/save"),
        scenes.job(188, JobState.DONE, tags, done=1, undone_by=189),
        replace(older, created_at=older.created_at - 3 * day, started_at=older.created_at - 3 * day,
                finished_at=older.created_at - 3 * day + timedelta(minutes=1, seconds=40)),
    )  # fmt: skip


def events() -> tuple[Event, ...]:
    """Some of what happened to web-01, oldest first."""
    told = (
        (EventKind.STARTED, "booted", 9000), (EventKind.AGENT, "connected", 8950),
        (EventKind.IO_ERROR, "no space left on /srv/data/web-01-uploads.raw", 1500),
        (EventKind.PAUSED, "disk error", 1499), (EventKind.RESUMED, "by request", 900),
        (EventKind.SHUTTING_DOWN, "by the host", 299), (EventKind.STOPPED, "shut down", 292),
        (EventKind.STARTED, "booted", 250),
    )  # fmt: skip
    return tuple(Event(kind, UUID, NAME, detail, scenes.NOW - timedelta(seconds=ago)) for kind, detail, ago in told)
