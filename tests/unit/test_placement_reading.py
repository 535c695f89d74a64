"""What placement reads of hosts and VMs, on libvirt's test driver."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from host.connection import Host, open_host
from host.host_list import HostEntry
from tests.support import simulated_world
from vm import inventory
from vm.deploy_request import DeployRequest
from vm.placement_reading import demand_of, demand_of_template, read_pictures
from vm.profile_model import GuestProfile, HardwareProfile, ProfileNic
from vm.template_model import ImageRole, Template, TemplateImage

MIB = 1024**2
IMAGES = "/var/lib/libvirt/images"


@pytest.fixture
def hosts(tmp_path: Path) -> Iterator[tuple[Host, ...]]:
    """lab1 with VMs, lab2 without, and one that nobody reaches."""
    domain = simulated_world.domain
    vms = [
        domain("web", state="running", tags=["affinity/a", "prod"], networks=["default"], disks=[f"{IMAGES}/web.img"]),
        domain("off", memory_mib=1024, tags=["affinity/a"]),
    ]
    opened = []
    for name, those in (("lab1", vms), ("lab2", [])):
        world = tmp_path / f"{name}.xml"
        world.write_text(simulated_world.world(those), encoding="utf-8")
        opened.append(open_host(f"test://{world}", name=name))
    opened.append(open_host("qemu+unix:///system?socket=/nowhere/at/all.sock", name="dead"))
    yield tuple(opened)
    for host in opened:
        host.close()


def test_a_picture_counts_what_runs_and_keeps_a_reserve(hosts: tuple[Host, ...]) -> None:
    entry = HostEntry("lab2", hosts[1].uri, groups=("lab",), reserve_memory_bytes=3 * MIB)
    found = read_pictures(hosts, entries=[entry], drained={hosts[1].uri}, moves={"lab1": 1}, settle_s=0)
    lab1, lab2, dead = found
    assert (lab1.name, lab1.memory_promised_bytes, lab1.moves) == ("lab1", 512 * MIB, 1)
    assert lab1.tags == {"affinity/a": ("web",)}
    assert lab1.networks == {"default"}
    assert set(lab1.pools) == {"default"}
    assert lab1.reserve_memory_bytes == 512 * MIB
    assert (lab2.groups, lab2.reserve_memory_bytes, lab2.is_drained) == (("lab",), 3 * MIB, True)
    assert (dead.is_reachable, "/nowhere/at/all.sock" in dead.problem) == (False, True)


def test_a_vm_demands_what_its_definition_says(hosts: tuple[Host, ...]) -> None:
    demand = demand_of(hosts[0], inventory.find(hosts[0], "web"), targets=hosts[1:2])
    assert (demand.name, demand.host, demand.memory_bytes, demand.vcpus) == ("web", "lab1", 512 * MIB, 1)
    assert [(disk.pool, disk.path) for disk in demand.disks] == [("default", f"{IMAGES}/web.img")]
    assert demand.networks == {"default"}
    assert demand.is_active
    assert demand.cpu_cores == pytest.approx(0.2)
    assert not demand_of(hosts[0], inventory.find(hosts[0], "off")).is_active


def test_a_template_demands_its_profiles_hardware() -> None:
    image = TemplateImage("t.qcow2", ImageRole.DISK, "qcow2", 20 * MIB, 5 * MIB, sha256="0" * 64)
    cards = (ProfileNic("lan"), ProfileNic("auto"), ProfileNic("bridge:br0"))
    request = DeployRequest(
        "t",
        ("n-1",),
        HardwareProfile(vcpus=4, memory_bytes=64 * MIB, nics=cards),
        GuestProfile(),
        linked=False,
        tags=("anti-affinity/n",),
    )
    demand = demand_of_template(Template("t", (image,), tags=("prod",)), request)
    assert (demand.vcpus, demand.memory_bytes, demand.cpu_cores) == (4, 64 * MIB, pytest.approx(0.8))
    assert [(disk.size_bytes, disk.pool, disk.path) for disk in demand.disks] == [(20 * MIB, "default", "")]
    assert demand.networks == {"lan"}
    assert demand.tags == {"prod", "anti-affinity/n"}
