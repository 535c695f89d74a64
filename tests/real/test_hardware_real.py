"""The hardware of guests on a real libvirtd: the sizes of their images, off and running, and what is not there."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from host.connection import Host
from tests.support.private_libvirtd import PrivateLibvirtd
from vm import hardware, inventory

MIB = 1024**2


@pytest.fixture
def guest(real_host: Host, private_daemon: PrivateLibvirtd) -> Path:
    """A VM without a system, with a qcow2, a sparse raw image, and an empty drive; the path of its first image."""
    files = {"qcow2": private_daemon.images / "shape.qcow2", "raw": private_daemon.images / "shape.raw"}
    for kind, path in files.items():
        subprocess.run(["qemu-img", "create", "-q", "-f", kind, "--", str(path), "64M"], check=True)
    with files["raw"].open("r+b") as raw:
        raw.write(b"x" * 3 * MIB)
    disks = "".join(
        f"<disk type='file' device='disk'><driver name='qemu' type='{kind}' cache='none'/><source file='{path}'/>"
        f"<target dev='vd{letter}' bus='virtio'/></disk>"
        for letter, (kind, path) in zip("ab", files.items(), strict=True)
    )
    xml = (
        "<domain type='qemu'><name>shape</name><memory unit='MiB'>32</memory><vcpu>2</vcpu>"
        "<os><type arch='x86_64' machine='q35'>hvm</type></os><devices>"
        f"{disks}<disk type='file' device='cdrom'><target dev='sda' bus='sata'/><readonly/></disk>"
        "<interface type='user'/></devices></domain>"
    )
    with real_host.calls("define") as connection:
        connection.defineXML(xml)
    return files["qcow2"]


@pytest.mark.parametrize("is_running", [False, True], ids=["off", "running"])
def test_the_sizes_are_those_of_the_images(real_host: Host, guest: Path, is_running: bool):
    if is_running:
        with real_host.calls("start") as connection:
            connection.lookupByName("shape").create()
    vm = inventory.find(real_host, "shape")
    read = hardware.read(real_host, vm)
    assert bool(read.live_xml) is is_running
    assert [part.disk.target for part in read.disks] == ["vda", "vdb", "sda"]
    assert read.disks[0].options == ("cache none",)
    assert any(device.kind == "controller" and device.count > 1 for device in read.devices) or not is_running
    sizes = hardware.disk_sizes(real_host, vm, read)
    assert sizes.keys() == {"vda", "vdb"}, "an empty drive has no size"
    assert {size.capacity_bytes for size in sizes.values()} == {64 * MIB}
    assert 0 < sizes["vda"].allocation_bytes < MIB
    assert 3 * MIB <= sizes["vdb"].allocation_bytes < 64 * MIB, "a sparse file takes what was written"


def test_an_image_that_is_gone_does_not_hide_the_other(real_host: Host, guest: Path):
    guest.unlink()
    vm = inventory.find(real_host, "shape")
    sizes = hardware.disk_sizes(real_host, vm, hardware.read(real_host, vm))
    assert sizes.keys() == {"vdb"}
