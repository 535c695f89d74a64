"""The hardware of a VM as its XML says it, and the sizes of its disks as the host says them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import libvirt
import pytest

from host.connection import Host
from host.errors import NotFound, UsageError
from tests.support.simulated_world import EVIL, domain, uuid_of, world
from vm import hardware, inventory
from vm.demo import demo_host
from vm.hardware import Device, DiskSize, Hardware

FULL = """<domain type='kvm'>
  <name>full</name><uuid>00000000-0000-4000-8000-000000000001</uuid>
  <memory unit='GiB'>8</memory><currentMemory unit='GiB'>4</currentMemory>
  <memoryBacking><hugepages><page size='2048' unit='KiB'/></hugepages><locked/><access mode='shared'/></memoryBacking>
  <vcpu current='2'>4</vcpu>
  <os firmware='efi'><type arch='x86_64' machine='pc-q35-9.2'>hvm</type>
    <firmware><feature enabled='yes' name='secure-boot'/></firmware><boot dev='hd'/><boot dev='network'/></os>
  <features><acpi/><apic/><smm state='on'/><pmu state='off'/></features>
  <cpu mode='custom'><model fallback='forbid'>EPYC-Milan</model>
    <topology sockets='1' dies='1' cores='2' threads='2'/></cpu>
  <clock offset='timezone' timezone='Europe/Berlin'/>
  <devices>
    <emulator>/usr/bin/qemu-system-x86_64</emulator>
    <disk type='file' device='disk'><driver name='qemu' type='qcow2' cache='none' io='native' discard='unmap'/>
      <source file='/img/a.qcow2'/><target dev='vda' bus='virtio'/><serial>S1</serial><iotune/></disk>
    <disk type='network' device='disk'><driver name='qemu' type='raw'/>
      <source protocol='rbd' name='pool/b'><host name='ceph'/><encryption format='luks'/></source>
      <target dev='vdb' bus='virtio'/></disk>
    <disk type='file' device='cdrom'><target dev='sda' bus='sata'/><readonly/></disk>
    <controller type='pci' model='pcie-root-port'/><controller type='pci' model='pcie-root-port'/>
    <controller type='usb' model='qemu-xhci'/>
    <interface type='network'><mac address='52:54:00:00:00:01'/><source network='lan'/><model type='virtio'/>
      <driver queues='4'/><link state='down'/><vlan><tag id='12'/></vlan><mtu size='9000'/>
      <filterref filter='clean-traffic'/></interface>
    <channel type='unix'><target type='virtio' name='org.qemu.guest_agent.0' state='connected'/></channel>
    <graphics type='vnc' port='5901' listen='127.0.0.1'/><video><model type='virtio'/></video>
    <tpm model='tpm-crb'><backend type='emulator' version='2.0'/></tpm>
    <rng model='virtio'><backend model='random'>/dev/urandom</backend></rng>
    <watchdog model='itco' action='reset'/>
    <hostdev mode='subsystem' type='pci'>
      <source><address domain='0x0000' bus='0x65' slot='0x00' function='0x1'/></source></hostdev>
    <hostdev mode='subsystem' type='usb'><source><vendor id='0x046d'/><product id='0xc52b'/></source></hostdev>
    <filesystem type='mount'><source dir='/srv'/><target dir='share'/></filesystem>
    <memballoon model='none'/>
  </devices>
</domain>"""


@pytest.fixture
def full() -> Hardware:
    return hardware.from_xml(FULL)


def test_processor_memory_and_machine(full: Hardware):
    assert (full.cpu, full.topology, full.architecture) == (
        "custom: EPYC-Milan", "1 socket × 2 cores × 2 threads", "x86_64",
    )  # fmt: skip
    assert full.memory == ("huge pages 2048 KiB", "locked", "shared")
    assert full.secure_boot
    assert full.boot == ("hd", "network")
    assert full.features == ("acpi", "apic", "smm")
    assert full.clock == "Europe/Berlin"
    assert full.emulator == "/usr/bin/qemu-system-x86_64"
    assert (full.config.vcpus, full.config.vcpus_max) == (2, 4)


def test_disks_and_interfaces_with_their_options(full: Hardware):
    assert [(part.disk.target, part.options) for part in full.disks] == [
        ("vda", ("cache none", "io native", "discard unmap", "serial S1", "limited")),
        ("vdb", ("encrypted",)),
        ("sda", ()),
    ]
    assert full.disks[1].disk.source == "rbd://ceph/pool/b"
    assert full.nics[0].options == ("link down", "vlan 12", "mtu 9000", "filter clean-traffic", "4 queues")


def test_every_other_device_is_there_and_alike_ones_once(full: Hardware):
    assert full.devices == (
        Device("controller", "pci pcie-root-port", 2),
        Device("controller", "usb qemu-xhci"),
        Device("channel", "unix virtio org.qemu.guest_agent.0 connected"),
        Device("graphics", "vnc 127.0.0.1:5901"),
        Device("video", "virtio"),
        Device("tpm", "tpm-crb emulator 2.0"),
        Device("rng", "virtio random /dev/urandom"),
        Device("watchdog", "itco reset"),
        Device("hostdev", "pci 0000:65:00.1"),
        Device("hostdev", "usb 046d:c52b"),
        Device("filesystem", "mount share /srv"),
        Device("memballoon", "none"),
    )


def test_the_boot_order_of_devices_wins():
    xml = FULL.replace("<boot dev='hd'/><boot dev='network'/>", "")
    xml = xml.replace("bus='sata'/>", "bus='sata'/><boot order='1'/>").replace("<link", "<boot order='2'/><link")
    assert hardware.from_xml(xml).boot == ("sda", "network")


def test_of_a_running_vm_the_running_devices_are_told_and_how_its_cpu_was_chosen():
    chosen = FULL.replace("<cpu mode='custom'><model fallback='forbid'>EPYC-Milan</model>", "<cpu mode='host-model'>")
    live = FULL.replace("/img/a.qcow2", "/img/hotplugged.qcow2")
    read = hardware.from_xml(chosen, live)
    assert read.cpu == "host-model: EPYC-Milan"
    assert read.disks[0].disk.source == "/img/hotplugged.qcow2"
    assert read.config.pending_changes
    assert (read.next_xml, read.live_xml) == (chosen, live)


def test_an_empty_domain_and_odd_numbers_are_no_trouble():
    bare = hardware.from_xml("<domain/>")
    assert (bare.disks, bare.devices, bare.cpu, bare.boot) == ((), (), "", ())
    odd = hardware.from_xml("<domain><devices><disk><boot order='１'/></disk><hostdev/></devices></domain>")
    assert odd.boot == ()
    with pytest.raises(UsageError):
        hardware.from_xml("<domain>")


def test_every_vm_of_the_demo_can_be_read_with_its_sizes():
    host = demo_host()
    try:
        for vm in inventory.read(host):
            read = hardware.read(host, vm)
            assert bool(read.live_xml) == (vm.domain_id is not None)
            sizes = hardware.disk_sizes(host, vm, read)
            assert sizes.keys() == {part.disk.target for part in read.disks}
            assert all(size.capacity_bytes >= size.allocation_bytes > 0 for size in sizes.values())
    finally:
        host.close()


def test_a_vm_that_is_gone_is_not_found(simulated: Host):
    vm = replace(inventory.find(simulated, "web-01"), uuid=uuid_of("nobody"))
    with pytest.raises(NotFound):
        hardware.read(simulated, vm)
    with pytest.raises(NotFound):
        hardware.disk_sizes(simulated, vm, hardware.from_xml(FULL))


def test_disks_whose_size_nobody_knows_are_left_out(simulated: Host):
    vm = inventory.find(simulated, "files")
    assert hardware.disk_sizes(simulated, vm, hardware.read(simulated, vm)) == {}


def test_a_disk_that_libvirt_cannot_look_at_does_not_hide_the_others():
    class Domain:
        def blockInfo(self, target: str) -> list[int]:  # noqa: N802 - libvirt's name
            if target == "vdb":
                raise libvirt.libvirtError("no such file")
            return [10, 5, 7]

    parts = hardware.from_xml(FULL).disks
    sizes = [hardware._block_size(Domain(), part.disk) for part in parts[:2]]
    assert sizes == [DiskSize(10, 5), None]


def test_hostile_text_is_kept_as_it_is(open_world: Callable[[str], Host]):
    host = open_world(world([domain("x", disks=[f"/img/{EVIL}.raw"])]))
    read = hardware.read(host, inventory.find(host, "x"))
    assert read.disks[0].disk.source == f"/img/{EVIL}.raw"
