"""Disks moved to another pool of their host: while the guest runs, while it is off, cancelled, killed, taken back."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import libvirt
import pytest

from host import jobs
from host.connection import Host
from host.images import inspect
from host.job_model import Job, JobState
from host.journal import Journal
from host.plan import Plan
from host.steps import Args, StepContext
from tests.real.conftest import BOOTED, wait_for
from tests.support import guest
from tests.support.moves import disks_of, files, holds, qemu_img, write_pattern
from tests.support.private_libvirtd import PrivateLibvirtd
from vm import inventory, steps
from vm.domain_xml import parse, to_text
from vm.storage_move import plan_storage_move

assert steps  # registers the verbs
DEADLY = Path(__file__).parents[1] / "support/killing"
DISK = """<disk type='file' device='disk'><driver name='qemu' type='qcow2' cache='none'/><source file='{path}'/>
<target dev='vda' bus='virtio'/></disk>"""
OFF = """
<domain type='qemu'><name>web</name><memory unit='MiB'>64</memory><os><type arch='x86_64' machine='q35'>hvm</type></os>
<devices>
  <disk type='file' device='disk'><driver name='qemu' type='qcow2'/><source file='{images}/web.qcow2'/>
    <target dev='vda' bus='virtio'/></disk>
  <disk type='file' device='disk'><driver name='qemu' type='raw'/><source file='{images}/web.raw'/>
    <target dev='vdb' bus='virtio'/></disk>
</devices></domain>
"""


@pytest.fixture
def fast(real_host: Host, tmp_path: Path) -> Iterator[Path]:
    """Another pool of the host."""
    directory = tmp_path / "fast"
    directory.mkdir()
    with real_host.calls("make") as connection:
        text = f"<pool type='dir'><name>fast</name><target><path>{directory}</path></target></pool>"
        connection.storagePoolCreateXML(text)
    yield directory
    with real_host.calls("remove") as connection:
        for domain in connection.listAllDomains(libvirt.VIR_CONNECT_LIST_DOMAINS_ACTIVE):
            domain.destroy()
        connection.storagePoolLookupByName("fast").destroy()


@pytest.fixture
def running(real_host: Host, booted: libvirt.virDomain, private_daemon: PrivateLibvirtd) -> libvirt.virDomain:
    """A guest that has written to a disk, which builds on a base."""
    images = private_daemon.images
    qemu_img("create", "-q", "-f", "qcow2", images / "base.qcow2", "24M")
    write_pattern(images / "base.qcow2", "qcow2", 0x11, "23M")
    qemu_img("create", "-q", "-f", "qcow2", "-b", images / "base.qcow2", "-F", "qcow2", images / "data.qcow2")
    booted.connect().storagePoolLookupByName("default").refresh()
    flags = libvirt.VIR_DOMAIN_AFFECT_LIVE | libvirt.VIR_DOMAIN_AFFECT_CONFIG
    booted.attachDeviceFlags(DISK.format(path=images / "data.qcow2"), flags)
    wait_for(lambda: "vda" in guest.run(booted, "ls /dev"), "the disk in the guest")
    guest.run(booted, "head -c 1M /dev/urandom > /dev/vda; sync")
    return booted


@pytest.fixture
def web(real_host: Host, private_daemon: PrivateLibvirtd) -> str:
    """A VM that is off, with an overlay and a raw disk."""
    images = private_daemon.images
    qemu_img("create", "-q", "-f", "qcow2", images / "base.qcow2", "64M")
    write_pattern(images / "base.qcow2", "qcow2", 0x11, "8M")
    qemu_img("create", "-q", "-f", "qcow2", "-b", images / "base.qcow2", "-F", "qcow2", images / "web.qcow2")
    write_pattern(images / "web.qcow2", "qcow2", 0x22, "16M")
    qemu_img("create", "-q", "-f", "raw", images / "web.raw", "32M")
    write_pattern(images / "web.raw", "raw", 0x33, "1M")
    with real_host.calls("define") as connection:
        connection.storagePoolLookupByName("default").refresh()
        connection.defineXML(OFF.format(images=images))
    return "web"


def planned(host: Host, name: str, *disks: str, pool: str = "fast") -> Plan:
    plan = plan_storage_move(host, inventory.find(host, name), pool, disks)
    plan.raise_if_blocked()
    return plan


def read_back(domain: libvirt.virDomain) -> str:
    return guest.run(
        domain, "sync; echo 3 > /proc/sys/vm/drop_caches; (head -c 1M /dev/vda; tail -c 1M /dev/vda) | md5sum"
    )


def test_a_running_guest_s_disk_is_mirrored_and_switched_over(
    real_host: Host, running: libvirt.virDomain, fast: Path, private_daemon: PrivateLibvirtd, journal: Journal
) -> None:
    before, boot = read_back(running), guest.boot_id(running)
    plan = planned(real_host, BOOTED)
    assert any("goes on building on" in note for note in plan.notes)
    job = jobs.submit(plan, real_host, journal)
    assert job.state is JobState.DONE, job.error
    (new,) = files(fast)
    path = str(fast / new)
    assert disks_of(real_host, BOOTED)["vda"] == disks_of(real_host, BOOTED, live=True)["vda"] == path
    assert [str(each) for each in inspect(Path(path)).backing] == [str(private_daemon.images / "base.qcow2")]
    assert (read_back(running), guest.boot_id(running)) == (before, boot)
    assert "data.qcow2" not in files(private_daemon.images)
    assert "base.qcow2" in files(private_daemon.images)
    back = jobs.submit(planned(real_host, BOOTED, pool="default"), real_host, journal)
    assert back.state is JobState.DONE, back.error
    assert files(fast) == set()
    (again,) = [name for name in files(private_daemon.images) if name.startswith("data")]
    assert len(again) == len(new)  # the mark of the last move, in place of that before
    assert read_back(running) == before


def test_the_disks_of_a_vm_that_is_off_are_copied_and_its_definition_follows(
    real_host: Host, web: str, fast: Path, private_daemon: PrivateLibvirtd, journal: Journal
) -> None:
    job = jobs.submit(planned(real_host, web), real_host, journal)
    assert job.state is JobState.DONE, job.error
    there = disks_of(real_host, web)
    assert {Path(path).parent for path in there.values()} == {fast}
    assert [str(each) for each in inspect(Path(there["vda"])).backing] == [str(private_daemon.images / "base.qcow2")]
    assert holds(there["vda"], "qcow2", 0x11, "8M")
    assert holds(there["vda"], "qcow2", 0x22, "16M")
    assert holds(there["vdb"], "raw", 0x33)
    assert files(private_daemon.images) == {"base.qcow2"}


def test_one_disk_alone_is_moved_and_an_old_one_that_others_build_on_stays(
    real_host: Host, web: str, fast: Path, private_daemon: PrivateLibvirtd, journal: Journal
) -> None:
    images = private_daemon.images
    qemu_img("create", "-q", "-f", "qcow2", "-b", images / "web.qcow2", "-F", "qcow2", images / "other.qcow2")
    job = jobs.submit(planned(real_host, web, "vda"), real_host, journal)
    assert job.state is JobState.DONE, job.error
    assert len(files(fast)) == 1
    assert disks_of(real_host, web)["vdb"] == str(images / "web.raw")
    assert "web.qcow2" in files(images)
    assert "other.qcow2" in str(job.steps[-1].result)


def test_a_move_that_is_cancelled_leaves_the_guest_on_its_old_disk(
    real_host: Host, running: libvirt.virDomain, fast: Path, private_daemon: PrivateLibvirtd, journal: Journal,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    before, here = read_back(running), files(private_daemon.images)

    def not_yet(ctx: StepContext, _args: Args) -> bool:
        assert "<mirror" in running.XMLDesc()
        jobs.cancel(ctx.job_id, journal)
        return False

    monkeypatch.setattr("vm.storage_move_steps._all_ready", not_yet)
    job = jobs.submit(planned(real_host, BOOTED), real_host, journal)
    assert job.state is JobState.CANCELLED, job.error
    assert files(fast) == set()
    assert files(private_daemon.images) == here
    assert disks_of(real_host, BOOTED, live=True)["vda"].endswith("/data.qcow2")
    assert "<mirror" not in running.XMLDesc()
    assert read_back(running) == before


def killed(plan: Plan, journal: Journal, kind: str, place: str) -> Job:
    job = jobs.create(plan, journal)
    environment = {**os.environ, "PYTHONPATH": str(DEADLY), f"HVTUI_TEST_KILL_{kind}": place}
    command = [sys.executable, "-m", "hvtui", "--headless", "job", "run", str(job.id)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == -9, done.stdout + done.stderr
    journal.recover()
    return journal.job(job.id)


PLACES = [("AT", "storage.move:8"), ("AT", "storage.move:20"), ("AT", "storage.move:28"), ("AFTER", "storage.move")]


@pytest.mark.parametrize(("kind", "place"), PLACES)
def test_killed_while_it_mirrors_it_finds_the_mirror_again(
    real_host: Host, running: libvirt.virDomain, fast: Path, private_daemon: PrivateLibvirtd, journal: Journal,
    kind: str, place: str,
) -> None:  # fmt: skip
    before = read_back(running)
    job = killed(planned(real_host, BOOTED), journal, kind, place)
    done = jobs.restart(job.id, real_host, journal)
    assert done.state is JobState.DONE, done.error
    (new,) = files(fast)
    assert disks_of(real_host, BOOTED)["vda"] == disks_of(real_host, BOOTED, live=True)["vda"] == str(fast / new)
    assert "data.qcow2" not in files(private_daemon.images)
    assert read_back(running) == before


@pytest.mark.parametrize(("kind", "place"), PLACES[:2])
def test_killed_while_it_mirrors_it_can_be_taken_back(
    real_host: Host, running: libvirt.virDomain, fast: Path, private_daemon: PrivateLibvirtd, journal: Journal,
    kind: str, place: str,
) -> None:  # fmt: skip
    before, here = read_back(running), files(private_daemon.images)
    job = killed(planned(real_host, BOOTED), journal, kind, place)
    done = jobs.rollback(job.id, real_host, journal)
    assert done.state is JobState.ROLLED_BACK, done.error
    assert (files(fast), files(private_daemon.images)) == (set(), here)
    assert disks_of(real_host, BOOTED, live=True)["vda"].endswith("/data.qcow2")
    assert read_back(running) == before


@pytest.mark.parametrize("place", ["storage.move:10", "storage.move:16"])
def test_killed_while_the_host_copies_it_is_completed_or_taken_back(
    real_host: Host, web: str, fast: Path, private_daemon: PrivateLibvirtd, journal: Journal, place: str
) -> None:
    here = files(private_daemon.images)
    job = killed(planned(real_host, web), journal, "AT", place)
    done = jobs.rollback(job.id, real_host, journal)
    assert done.state is JobState.ROLLED_BACK, done.error
    assert (files(fast), files(private_daemon.images)) == (set(), here)
    again = killed(planned(real_host, web), journal, "AT", place)
    assert jobs.restart(again.id, real_host, journal).state is JobState.DONE
    assert holds(disks_of(real_host, web)["vda"], "qcow2", 0x22, "16M")
    assert len(files(fast)) == 2


def test_what_cannot_go_blocks_the_move_with_its_reason(real_host: Host, web: str, fast: Path) -> None:
    vm = inventory.find(real_host, web)
    assert "no storage pool nowhere" in plan_storage_move(real_host, vm, "nowhere").blockers[0].reason
    assert "already" in plan_storage_move(real_host, vm, "default").blockers[0].reason
    with real_host.calls("snapshot") as connection:
        domain = connection.lookupByName(web)
        raw = parse(domain.XMLDesc()).findall("devices/disk")[1]
        domain.detachDeviceFlags(to_text(raw), libvirt.VIR_DOMAIN_AFFECT_CONFIG)
        domain.snapshotCreateXML("<domainsnapshot><name>one</name></domainsnapshot>")
    assert "1 checkpoint" in plan_storage_move(real_host, vm, "fast", ["vda"]).blockers[0].reason
