"""Disks of other products, and appliances, as VMs on a real libvirtd: they boot, with the same contents; and hostile
ones leave nothing behind."""

from __future__ import annotations

import gzip
import os
import subprocess
import tarfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from host import jobs, paths
from host.connection import Host
from host.errors import HvtuiError, UsageError
from host.job_model import JobState
from host.journal import Journal
from host.units import MIB
from tests.real.conftest import wait_for
from tests.support import bundles
from tests.support.bundles import killed, same_disk, traces
from tests.support.private_libvirtd import PrivateLibvirtd
from tests.support.running import done, done_while_the_daemon_dies, submit
from vm.domain_xml import parse
from vm.import_disk import DiskImportRequest, plan_import_disk

NAME = "migrated"
ENDINGS = {"vpc": "vhd", "vhdx": "vhdx", "vmdk": "vmdk", "vdi": "vdi", "qcow2": "qcow2", "raw": "img"}
OVF = """<?xml version="1.0"?><Envelope xmlns="http://schemas.dmtf.org/ovf/envelope/1"
 xmlns:ovf="http://schemas.dmtf.org/ovf/envelope/1"
 xmlns:rasd="http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_ResourceAllocationSettingData">
 <References><File ovf:href="disk.vmdk" ovf:id="f1"/><File ovf:href="more.vmdk" ovf:id="f2"/></References>
 <DiskSection><Disk ovf:capacity="64" ovf:capacityAllocationUnits="byte * 2^20" ovf:diskId="d1" ovf:fileRef="f1"/>
 <Disk ovf:capacity="64" ovf:capacityAllocationUnits="byte * 2^20" ovf:diskId="d2" ovf:fileRef="f2"/></DiskSection>
 <VirtualSystem ovf:id="appliance"><VirtualHardwareSection>
 <Item><rasd:InstanceID>1</rasd:InstanceID><rasd:ResourceType>3</rasd:ResourceType>
  <rasd:VirtualQuantity>1</rasd:VirtualQuantity></Item>
 <Item><rasd:AllocationUnits>byte * 2^20</rasd:AllocationUnits><rasd:InstanceID>2</rasd:InstanceID>
  <rasd:ResourceType>4</rasd:ResourceType><rasd:VirtualQuantity>96</rasd:VirtualQuantity></Item>
 <Item><rasd:InstanceID>3</rasd:InstanceID><rasd:ResourceType>5</rasd:ResourceType></Item>
 <Item><rasd:AddressOnParent>0</rasd:AddressOnParent><rasd:HostResource>/disk/d1</rasd:HostResource>
  <rasd:InstanceID>4</rasd:InstanceID><rasd:Parent>3</rasd:Parent><rasd:ResourceType>17</rasd:ResourceType></Item>
 <Item><rasd:AddressOnParent>1</rasd:AddressOnParent><rasd:HostResource>/disk/d2</rasd:HostResource>
  <rasd:InstanceID>5</rasd:InstanceID><rasd:Parent>3</rasd:Parent><rasd:ResourceType>17</rasd:ResourceType></Item>
 </VirtualHardwareSection></VirtualSystem></Envelope>"""


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    return bundles.bootable(tmp_path / "contents.raw")


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, real_directories: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is converted lies in a directory of the test's own."""
    monkeypatch.setenv("HVTUI_CACHE_DIR", str(tmp_path / "cache"))


def request(*sources: Path, name: str = NAME) -> DiskImportRequest:
    return DiskImportRequest(sources, name=name, network="none", memory_bytes=64 * MIB, vcpus=1)


def imported(daemon: PrivateLibvirtd, number: int = 1) -> Path:
    (path,) = daemon.images.glob(f"{NAME}-????????{f'-{number}' if number > 1 else ''}.qcow2")
    return path


def leftovers() -> list[Path]:
    return list((paths.cache_directory() / "imports").glob("*"))


def boots(host: Host, name: str = NAME) -> bool:
    """True when the BIOS starts what is in the disk's first sector, which then writes to the serial line."""
    with host.calls("start") as connection:
        domain = connection.lookupByName(name)
        domain.create()
        line = parse(domain.XMLDesc()).find("devices/serial/source")
        assert line is not None
    descriptor = os.open(line.get("path", ""), os.O_RDONLY | os.O_NOCTTY | os.O_NONBLOCK)
    heard = bytearray()

    def hears() -> bool:
        try:
            heard.extend(os.read(descriptor, 4096))
        except BlockingIOError:
            return False
        return bundles.BOOTS in heard

    try:
        wait_for(hears, f"{name} to boot from its disk")
    finally:
        os.close(descriptor)
        with host.calls("turn off") as connection:
            connection.lookupByName(name).destroy()
    return True


@pytest.mark.parametrize("image_format", ENDINGS)
def test_a_disk_of_any_format_boots_with_the_same_contents(
    real_host: Host, private_daemon: PrivateLibvirtd, raw: Path, tmp_path: Path, image_format: str
) -> None:
    source = bundles.image(raw, tmp_path / f"old.{ENDINGS[image_format]}", image_format)
    done(plan_import_disk(real_host, request(source)), real_host)
    assert same_disk(imported(private_daemon), raw)
    assert not leftovers()
    assert boots(real_host)


def test_a_compressed_disk_boots_too(real_host: Host, private_daemon: PrivateLibvirtd, raw: Path) -> None:
    source = raw.with_suffix(".vhdx.gz")
    source.write_bytes(gzip.compress(bundles.image(raw, raw.with_suffix(".vhdx"), "vhdx").read_bytes(), 1))
    done(plan_import_disk(real_host, request(source)), real_host)
    assert same_disk(imported(private_daemon), raw)
    assert boots(real_host)
    assert not leftovers()


def appliance(raw: Path, path: Path, *, names: Sequence[str] = ("disk.vmdk", "more.vmdk")) -> Path:
    descriptor = path.with_suffix(".ovf")
    descriptor.write_text(OVF)
    disk = bundles.image(raw, path.with_suffix(".vmdk"), "vmdk")
    with tarfile.open(path, "w") as archive:
        archive.add(descriptor, "appliance.ovf")
        for name in names:
            archive.add(disk, name)
    return path


def test_an_appliance_becomes_the_vm_that_its_descriptor_tells(
    real_host: Host, private_daemon: PrivateLibvirtd, raw: Path, tmp_path: Path
) -> None:
    source = appliance(raw, tmp_path / "old.ova")
    plan = plan_import_disk(real_host, DiskImportRequest((source,), network="none"))
    assert plan.vm_name == "appliance"
    root = parse(plan.xml_after or "")
    assert (root.findtext("memory"), root.findtext("vcpu")) == (str(96 * 1024), "1")
    done(plan_import_disk(real_host, replace(request(source), memory_bytes=0, vcpus=0)), real_host)
    assert same_disk(imported(private_daemon), raw)
    assert same_disk(imported(private_daemon, 2), raw)
    assert boots(real_host)


def test_old_products_disks_hang_where_their_systems_look_for_them(
    real_host: Host, private_daemon: PrivateLibvirtd, raw: Path, tmp_path: Path
) -> None:
    vhd = bundles.image(raw, tmp_path / "old.vhd", "vpc")
    data = bytearray(vhd.read_bytes())
    at = data.rfind(b"conectix")
    data[at + 28 : at + 32] = b"vpc "
    data[at + 64 : at + 68] = b"\0\0\0\0"
    total = ~sum(data[at : at + 512]) & 0xFFFFFFFF  # the footer's checksum: the complement of the sum of its bytes
    data[at + 64 : at + 68] = total.to_bytes(4, "big")
    vhd.write_bytes(data)
    plan = plan_import_disk(real_host, replace(request(vhd), network="user"))
    root = parse(plan.xml_after or "")
    assert [each.get("bus") for each in root.iterfind("devices/disk/target")] == ["ide"]
    assert [each.get("type") for each in root.iterfind("devices/interface/model")] == ["rtl8139"]
    assert any("Virtual PC" in note for note in plan.notes)
    other = plan_import_disk(real_host, request(bundles.image(raw, tmp_path / "old.vdi", "vdi")))
    assert [each.get("bus") for each in parse(other.xml_after or "").iterfind("devices/disk/target")] == ["sata"]
    known = plan_import_disk(real_host, replace(request(tmp_path / "old.vdi"), os_id="http://debian.org/debian/12"))
    assert [each.get("bus") for each in parse(known.xml_after or "").iterfind("devices/disk/target")] == ["virtio"]


# Hostile and damaged


def test_what_is_no_disk_is_refused_with_a_remedy(real_host: Host, tmp_path: Path) -> None:
    path = tmp_path / "noise.img"
    path.write_bytes(os.urandom(MIB))
    with pytest.raises(UsageError, match="no disk image") as raised:
        plan_import_disk(real_host, request(path))
    assert "--raw" in raised.value.remedy
    assert not plan_import_disk(real_host, replace(request(path), is_raw=True)).blockers


def test_a_disk_that_builds_on_a_file_of_the_host_is_refused(real_host: Host, tmp_path: Path) -> None:
    evil = tmp_path / "evil.qcow2"
    options = ["-f", "qcow2", "-F", "raw", "-b", "/etc/hostname"]
    subprocess.run(["qemu-img", "create", "-q", *options, "--", evil, "64M"], check=True)
    with pytest.raises(UsageError, match="hostname"):
        plan_import_disk(real_host, request(evil))


def test_a_disk_that_builds_on_a_file_inside_a_compressed_file_is_refused_too(
    real_host: Host, private_daemon: PrivateLibvirtd, tmp_path: Path
) -> None:
    evil = tmp_path / "evil.qcow2"
    options = ["-f", "qcow2", "-F", "raw", "-b", "/etc/hostname"]
    subprocess.run(["qemu-img", "create", "-q", *options, "--", evil, "64M"], check=True)
    packed = tmp_path / "evil.gz"
    packed.write_bytes(gzip.compress(evil.read_bytes()))
    before = traces(private_daemon, real_host)
    job = submit(plan_import_disk(real_host, request(packed)), real_host)
    assert (job.state, job.exit_code) == (JobState.FAILED, 2)
    assert "hostname" in job.error
    assert traces(private_daemon, real_host) == before
    assert not leftovers()


@pytest.mark.parametrize("name", ["../../evil.vmdk", "/etc/evil.vmdk"])
def test_an_appliance_with_names_that_lead_elsewhere_is_refused(
    real_host: Host, raw: Path, tmp_path: Path, name: str
) -> None:
    with pytest.raises(HvtuiError):
        plan_import_disk(real_host, request(appliance(raw, tmp_path / "old.ova", names=("disk.vmdk", name))))


def test_a_bomb_is_stopped_and_leaves_nothing(real_host: Host, private_daemon: PrivateLibvirtd, tmp_path: Path) -> None:
    bomb = tmp_path / "bomb.gz"
    bomb.write_bytes(gzip.compress(bytes(256 * MIB), 1))
    before = traces(private_daemon, real_host)
    job = submit(plan_import_disk(real_host, replace(request(bomb), limit_bytes=64 * MIB)), real_host)
    assert job.state is JobState.FAILED
    assert "larger than 64M" in job.error
    assert not leftovers()
    assert traces(private_daemon, real_host) == before


def test_a_truncated_disk_is_refused(real_host: Host, raw: Path, tmp_path: Path) -> None:
    vhdx = bundles.image(raw, tmp_path / "old.vhdx", "vhdx")
    with vhdx.open("r+b") as file:
        file.truncate(vhdx.stat().st_size // 2)
    with pytest.raises(HvtuiError):
        plan_import_disk(real_host, request(vhdx))


# Killed

KILLED: list[tuple[str, Sequence[int]]] = [
    ("import.unpack", (0,)),
    ("import.convert", (0,)),
    ("import.upload", (0, 3, 6, 9)),
    ("import.define-disk", (0, 1)),
    ("import.tidy", (0,)),
]


@pytest.mark.timeout(300)
@pytest.mark.parametrize(("verb", "calls"), KILLED, ids=[verb for verb, _ in KILLED])
def test_an_import_killed_at_any_step_is_taken_back_or_completed(
    real_host: Host,
    journal: Journal,
    private_daemon: PrivateLibvirtd,
    raw: Path,
    tmp_path: Path,
    verb: str,
    calls: Sequence[int],
) -> None:
    source = appliance(raw, tmp_path / "old.ova")
    before = traces(private_daemon, real_host)
    for call in calls:
        for completes in (False, True):
            job = killed(plan_import_disk(real_host, request(source)), real_host, journal, f"{verb}:{call}")
            if job is not None and not completes:
                assert jobs.rollback(job.id, real_host, journal).state is JobState.ROLLED_BACK
            else:
                if job is not None:
                    assert jobs.restart(job.id, real_host, journal).state is JobState.DONE
                assert same_disk(imported(private_daemon), raw)
                assert same_disk(imported(private_daemon, 2), raw)
                done(jobs.plan_undo(journal.jobs(limit=1)[0], real_host, journal), real_host)
            assert traces(private_daemon, real_host) == before, (verb, call, completes)
            assert not leftovers()


def test_a_libvirtd_that_dies_in_each_step_of_an_import_is_waited_for(
    real_host: Host, private_daemon: PrivateLibvirtd, raw: Path, tmp_path: Path
) -> None:
    plan = plan_import_disk(real_host, request(appliance(raw, tmp_path / "old.ova")))
    done_while_the_daemon_dies(plan, real_host, private_daemon)
    assert same_disk(imported(private_daemon), raw)
    assert same_disk(imported(private_daemon, 2), raw)
    assert len(list(private_daemon.images.glob(f"{NAME}*"))) == 2
    assert not leftovers()
