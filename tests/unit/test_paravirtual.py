"""Switching emulated devices to paravirtual ones and back: what is switched, what stays, what stands in the way."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from host import jobs
from host.connection import Host
from host.job_model import JobState
from host.plan import Plan
from tests.support.new_vms import POOL, WORLD
from tests.support.running import done, submit, vm_named
from vm.domain_xml import parse, to_text
from vm.paravirtual import plan_paravirtual
from vm.paravirtual_steps import ALIAS, SERIAL, _Seen, _tells_disk, _tells_nic, change_devices, probes_of

MAC = "52:54:00:00:00:01"
DISKS = """
<disk type='file' device='disk'><source file='/images/a.qcow2'/><target dev='sda' bus='sata'/>
  <address type='drive' controller='0' bus='0' target='0' unit='0'/><boot order='1'/></disk>
<disk type='file' device='cdrom'><target dev='sdb' bus='sata'/></disk>
<disk type='file' device='disk'><source file='/images/b.qcow2'/><target dev='vda' bus='virtio'/></disk>
<disk type='file' device='disk'><source file='/images/c.qcow2'/><target dev='sdc' bus='scsi'/></disk>
<controller type='scsi' index='0' model='{controller}'/>
"""
NIC = f"<interface type='user'><mac address='{MAC}'/><model type='e1000e'/></interface>"
DOMAIN = """<domain type='test'><name>old</name><uuid>11111111-2222-3333-4444-555555555555</uuid>
<memory>65536</memory><vcpu>1</vcpu><os><type>hvm</type></os><devices>{devices}</devices></domain>"""


@pytest.fixture
def world(open_world: Callable[[str], Host]) -> Callable[[str], Host]:
    def make(devices: str) -> Host:
        host = open_world(WORLD.format(body=POOL))
        with host.calls("define") as connection:
            connection.defineXML(DOMAIN.format(devices=devices))
        return host

    return make


def plan(host: Host, *, now: bool = True) -> Plan:
    return plan_paravirtual(host, vm_named(host, "old"), now=now)


def targets(host: Host) -> list[tuple[str, str]]:
    with host.calls("look") as connection:
        root = parse(connection.lookupByName("old").XMLDesc(2))
    return [(target.get("dev", ""), target.get("bus", "")) for target in root.iterfind("devices/disk/target")]


def test_disks_and_cards_are_switched_at_once_and_back_again(world: Callable[[str], Host]) -> None:
    host = world(DISKS.format(controller="virtio-scsi") + NIC)
    before = targets(host)
    job = done(plan(host), host)
    assert sorted(targets(host)) == [("sdb", "sata"), ("sdc", "scsi"), ("vda", "virtio"), ("vdb", "virtio")]
    assert not plan(host).steps
    done(jobs.plan_undo(job, host), host)
    assert sorted(targets(host)) == sorted(before)


def test_the_disk_that_is_booted_stays_that_one(world: Callable[[str], Host]) -> None:
    disks = DISKS.format(controller="virtio-scsi").replace("<boot order='1'/>", "")
    host = world(disks)
    with host.calls("look") as connection:
        before = parse(connection.lookupByName("old").XMLDesc(2))
    assert [boot.get("dev") for boot in before.iterfind("os/boot")] == ["hd"]
    job = done(plan(host), host)
    with host.calls("look") as connection:
        after = parse(connection.lookupByName("old").XMLDesc(2))
    booted = after.find("devices/disk/boot[@order='1']/../source")
    assert booted is not None
    assert booted.get("file") == "/images/a.qcow2"
    done(jobs.plan_undo(job, host), host)
    with host.calls("look") as connection:
        undone = parse(connection.lookupByName("old").XMLDesc(2))
    assert [boot.get("dev") for boot in undone.iterfind("os/boot")] == ["hd"]
    assert undone.find("devices/disk/boot") is None


def test_a_disk_on_an_emulated_scsi_controller_is_switched_too(world: Callable[[str], Host]) -> None:
    host = world(DISKS.format(controller="lsilogic"))
    done(plan(host), host)
    assert ("vdc", "virtio") in targets(host)


def test_a_vm_that_runs_is_not_switched(world: Callable[[str], Host]) -> None:
    host = world(NIC)
    made = plan(host)
    with host.calls("start") as connection:
        connection.lookupByName("old").create()
    assert [blocker.exit_code for blocker in plan(host).blockers] == [4]
    job = submit(made, host)
    assert (job.state, job.exit_code) == (JobState.FAILED, 4)


def test_without_now_what_needs_the_drivers_comes_first(world: Callable[[str], Host]) -> None:
    made = plan(world(DISKS.format(controller="virtio-scsi") + NIC), now=False)
    assert [step.verb for step in made.steps] == ["paravirtual.probe", "paravirtual.watch", "paravirtual.switch"]
    args = made.steps[0].args
    disk, nic = parse(str(args["disk"]), root="disk"), parse(str(args["nic"]), root="interface")
    assert str(disk.findtext("serial")).startswith(SERIAL)
    assert len(str(disk.findtext("serial"))) <= 20  # virtio's limit
    assert disk.find("target").get("dev") == "vdc"  # type: ignore[union-attr]
    assert nic.find("mac").get("address") != MAC  # type: ignore[union-attr]
    assert nic.find("link").get("state") == "down"  # type: ignore[union-attr]
    assert not made.blockers


def test_an_earlier_jobs_probe_is_named_and_goes_with_now(world: Callable[[str], Host]) -> None:
    probe = (
        f"<disk type='file'><source file='/images/p'/><target dev='vdz' bus='virtio'/><serial>{SERIAL}1</serial></disk>"
    )
    host = world(probe + NIC)
    assert any("earlier job" in blocker.reason for blocker in plan(host, now=False).blockers)
    done(plan(host), host)
    assert targets(host) == []


def test_without_a_pool_for_the_small_disk_it_is_said(open_world: Callable[[str], Host]) -> None:
    host = open_world(WORLD.format(body=""))
    with host.calls("define") as connection:
        connection.defineXML(DOMAIN.format(devices=DISKS.format(controller="virtio-scsi")))
    assert any("storage pool" in blocker.reason for blocker in plan(host, now=False).blockers)


def test_only_probes_are_taken_for_probes() -> None:
    root = parse(DOMAIN.format(devices=DISKS.format(controller="lsilogic") + NIC))
    assert not probes_of(root)
    more = f"<interface type='user'><mac address='{MAC}'/><alias name='{ALIAS}9'/></interface>"
    (found,) = probes_of(parse(DOMAIN.format(devices=NIC + more)))
    assert found.find("alias") is not None


def test_changing_twice_or_what_is_not_there_changes_nothing() -> None:
    changes = {
        "disks": [{"from": {"dev": "sda", "bus": "sata"}, "to": {"dev": "vdb", "bus": "virtio"}}],
        "nics": [{"mac": MAC, "from": "e1000e", "to": "virtio"}],
    }
    root = parse(DOMAIN.format(devices=DISKS.format(controller="lsilogic") + NIC))
    assert change_devices(root, changes)
    once = to_text(root)
    assert not change_devices(root, changes)
    assert to_text(root) == once
    assert change_devices(root, changes, back=True)
    assert not change_devices(parse(DOMAIN.format(devices="")), changes)


@pytest.mark.parametrize("told", ["x", 7, None, [7], [None], [{"address": 7}], [{"hardware-address": 7}], {"a": 1}])
def test_what_a_hostile_agent_tells_proves_nothing(told: object) -> None:
    assert not _tells_disk(told, f"{SERIAL}1")
    assert not _tells_nic(told, MAC)


def test_an_agent_tells_that_the_drivers_are_there() -> None:
    disks = [{"name": "/dev/vda", "address": {"bus-type": "unknown", "serial": f"{SERIAL}1"}}]
    nics = [{"name": "eth0", "hardware-address": MAC.upper()}]
    seen = _Seen(_tells_disk(disks, f"{SERIAL}1"), _tells_nic(nics, MAC))
    assert not seen.lacks(wants_disk=True, wants_nic=True)
    assert _Seen(disk=False, nic=True).lacks(wants_disk=True, wants_nic=True) == "its agent sees no new disk"
    assert _Seen().lacks(wants_disk=True, wants_nic=True) == "its agent does not answer"
