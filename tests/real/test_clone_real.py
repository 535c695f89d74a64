"""Clones on a real libvirtd: whole, linked, of a running guest that writes meanwhile, killed at each call."""

from __future__ import annotations

import subprocess
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
from tests.real.conftest import BOOTED, wait_for
from tests.support import guest
from tests.support.private_libvirtd import PrivateLibvirtd
from tests.support.running import done_while_the_daemon_dies
from tests.support.templates import made_pool
from vm import clone, inventory, steps
from vm.delete import plan_delete
from vm.domain_xml import parse, read_config

assert steps  # registers the verbs
DEADLY = Path(__file__).parents[1] / "support/killing"
FIRMWARE = """
<domain type='qemu'><name>origin</name><title>the origin</title><memory unit='MiB'>64</memory>
<os firmware='efi'><type arch='x86_64' machine='q35'>hvm</type></os><features><acpi/></features>
<devices>
  <disk type='file' device='disk'><driver name='qemu' type='qcow2'/><source file='{images}/origin.qcow2'/>
    <target dev='vda' bus='virtio'/></disk>
  <disk type='file' device='disk'><driver name='qemu' type='raw'/><source file='{images}/origin.raw'/>
    <target dev='vdb' bus='virtio'/></disk>
  <interface type='user'><mac address='52:54:00:00:00:01'/></interface>
  <tpm model='tpm-crb'><backend type='emulator' version='2.0'/></tpm>
</devices></domain>
"""


def qemu_img(*words: object) -> None:
    subprocess.run(["qemu-img", *map(str, words)], check=True, capture_output=True)


def write_pattern(path: Path, image_format: str, pattern: int, offset: str = "1M") -> None:
    """A megabyte of one byte at an offset of an image that no VM uses."""
    command = ["qemu-io", "-f", image_format, "-c", f"write -P {pattern} {offset} 1M", str(path)]
    subprocess.run(command, check=True, capture_output=True)


def holds(path: str | Path, image_format: str, pattern: int, offset: str = "1M") -> bool:
    command = ["qemu-io", "-r", "-f", image_format, "-c", f"read -P {pattern} {offset} 1M", str(path)]
    done = subprocess.run(command, capture_output=True, check=False, text=True)
    return done.returncode == 0 and "failed" not in done.stdout + done.stderr


@pytest.fixture
def origin(real_host: Host, private_daemon: PrivateLibvirtd) -> str:
    """A VM that is off, with a qcow2 and a raw disk, UEFI variables, and a TPM."""
    images = private_daemon.images
    qemu_img("create", "-q", "-f", "qcow2", images / "origin.qcow2", "64M")
    qemu_img("create", "-q", "-f", "raw", images / "origin.raw", "16M")
    write_pattern(images / "origin.qcow2", "qcow2", 0xAB)
    write_pattern(images / "origin.raw", "raw", 0xCD)
    with real_host.calls("define") as connection:
        connection.storagePoolLookupByName("default").refresh()
        connection.defineXML(FIRMWARE.format(images=images))
    (private_daemon.directory / "lib/qemu/nvram").mkdir(parents=True, exist_ok=True)
    (private_daemon.directory / "lib/qemu/nvram/origin_VARS.fd").write_bytes(b"variables" * 1000)
    return "origin"


def planned(host: Host, name: str, *names: str, **how: bool) -> clone.PlanSet:
    plan_set = clone.plan_clone(host, inventory.find(host, name), names, **how)
    plan_set.raise_if_blocked()
    return plan_set


def run_set(plan_set: clone.PlanSet, host: Host, journal: Journal) -> list[Job]:
    return [jobs.submit(plan, host, journal) for plan in (*plan_set.preparations, *plan_set.plans)]


def disks_of(host: Host, name: str, *, live: bool = False) -> dict[str, str]:
    with host.calls("look") as connection:
        flags = 0 if live else libvirt.VIR_DOMAIN_XML_INACTIVE
        return {disk.target: disk.source for disk in read_config(connection.lookupByName(name).XMLDesc(flags)).disks}


def traces(daemon: PrivateLibvirtd, host: Host) -> set[str]:
    found = {str(path) for name in ("images", "lib", "etc") for path in (daemon.directory / name).rglob("*")
             if not path.is_dir()}  # fmt: skip
    with host.calls("look") as connection:
        pools = {f"pool {pool.name()}" for pool in connection.listAllStoragePools(0)}
        return found | pools | {f"vm {domain.name()}" for domain in connection.listAllDomains()}


# Of a VM that is off


def test_a_full_clone_has_disks_variables_and_an_identity_of_its_own(
    real_host: Host, journal: Journal, origin: str, private_daemon: PrivateLibvirtd
) -> None:
    before = traces(private_daemon, real_host)
    (job,) = run_set(planned(real_host, origin, "copy"), real_host, journal)
    assert job.state is JobState.DONE, job.error
    disks = disks_of(real_host, "copy")
    assert [inspect(path).format for path in disks.values()] == ["qcow2", "raw"]
    assert holds(disks["vda"], "qcow2", 0xAB)
    assert holds(disks["vdb"], "raw", 0xCD)
    assert set(disks.values()).isdisjoint(disks_of(real_host, origin).values())
    with real_host.calls("look") as connection:
        root = parse(connection.lookupByName("copy").XMLDesc(0))
    variables = Path(root.findtext("os/nvram", ""))
    stored = private_daemon.directory / "lib/qemu/nvram" / variables.name
    assert stored.read_bytes() == b"variables" * 1000
    assert root.findtext("title") == "the origin"
    assert root.find("devices/interface/mac").get("address") != "52:54:00:00:00:01"  # type: ignore[union-attr]
    assert jobs.submit(jobs.plan_undo(job, real_host), real_host, journal).state is JobState.DONE
    assert traces(private_daemon, real_host) == before


def test_linked_clones_share_a_base_that_the_origin_writes_to_no_more(
    real_host: Host, journal: Journal, origin: str, private_daemon: PrivateLibvirtd
) -> None:
    bases = disks_of(real_host, origin)
    done = run_set(planned(real_host, origin, "one", "two", linked=True), real_host, journal)
    assert [job.state for job in done] == [JobState.DONE] * 3, [job.error for job in done]
    for name in (origin, "one", "two"):
        disks = disks_of(real_host, name)
        assert set(disks.values()).isdisjoint(bases.values()), name
        assert [str(inspect(disks[target]).backing[0]) for target in disks] == list(bases.values())
    write_pattern(Path(disks_of(real_host, origin)["vda"]), "qcow2", 0x11)
    assert holds(disks_of(real_host, "one")["vda"], "qcow2", 0xAB), "what the origin writes does not reach its clones"


def test_deleting_origin_and_clones_leaves_no_frozen_base(
    real_host: Host, journal: Journal, origin: str, private_daemon: PrivateLibvirtd
) -> None:
    for name in ("one", "two"):
        done = run_set(planned(real_host, origin, name, linked=True), real_host, journal)
        assert [job.state for job in done] == [JobState.DONE], [job.error for job in done]
    plans = [plan_delete(real_host, inventory.find(real_host, name), all_disks=True) for name in ("one", origin, "two")]
    for plan in plans:
        job = jobs.submit(plan, real_host, journal)
        assert job.state is JobState.DONE, job.error
    left = {path.name for path in private_daemon.images.iterdir()}
    assert {"origin.qcow2", "origin.raw"} == {name for name in left if name.startswith(("origin", "one", "two"))}


def test_undoing_a_linked_clone_gives_the_origin_its_disks_back(
    real_host: Host, journal: Journal, origin: str, private_daemon: PrivateLibvirtd
) -> None:
    before, bases = traces(private_daemon, real_host), disks_of(real_host, origin)
    (job,) = run_set(planned(real_host, origin, "one", linked=True), real_host, journal)
    assert job.state is JobState.DONE, job.error
    undone = jobs.submit(jobs.plan_undo(job, real_host), real_host, journal)
    assert undone.state is JobState.DONE, undone.error
    assert disks_of(real_host, origin) == bases
    assert traces(private_daemon, real_host) == before


def test_an_origin_that_has_written_since_keeps_its_overlay(real_host: Host, journal: Journal, origin: str) -> None:
    (job,) = run_set(planned(real_host, origin, "one", linked=True), real_host, journal)
    overlay = Path(disks_of(real_host, origin)["vda"])
    write_pattern(overlay, "qcow2", 0x22)
    undone = jobs.submit(jobs.plan_undo(job, real_host), real_host, journal)
    assert undone.state is JobState.DONE, undone.error
    assert disks_of(real_host, origin)["vda"] == str(overlay)
    assert holds(overlay, "qcow2", 0x22)


def test_a_base_with_other_clones_is_not_given_back(real_host: Host, journal: Journal, origin: str) -> None:
    freeze, *_ = run_set(planned(real_host, origin, "one", "two", linked=True), real_host, journal)
    overlays = disks_of(real_host, origin)
    undone = jobs.submit(jobs.plan_undo(freeze, real_host), real_host, journal)
    assert undone.state is JobState.DONE, undone.error
    assert disks_of(real_host, origin) == overlays


def test_a_disk_whose_guest_made_it_look_like_another_format_is_refused(
    real_host: Host, journal: Journal, origin: str, private_daemon: PrivateLibvirtd
) -> None:
    raw = private_daemon.images / "origin.raw"
    qemu_img("create", "-q", "-f", "qcow2", "-F", "raw", "-b", "/etc/hostname", raw)
    with real_host.calls("look") as connection:
        connection.storagePoolLookupByName("default").refresh()  # libvirt believes the content from now on
    before = traces(private_daemon, real_host)
    (job,) = run_set(planned(real_host, origin, "copy"), real_host, journal)
    assert job.state is JobState.FAILED
    assert "its content qcow2" in job.error
    assert traces(private_daemon, real_host) == before


@pytest.mark.timeout(400)
@pytest.mark.parametrize(
    ("verb", "linked", "calls"),
    [
        ("clone.freeze", True, range(0, 99, 5)),
        ("clone.disks", False, range(0, 99, 9)),
        ("clone.nvram", False, range(0, 99, 9)),
        ("create.define", True, range(9)),
    ],
    ids=["freeze", "disks", "nvram", "define"],
)
def test_a_clone_killed_at_any_call_is_taken_back_or_completed(
    real_host: Host,
    journal: Journal,
    origin: str,
    private_daemon: PrivateLibvirtd,
    verb: str,
    linked: bool,
    calls: range,
) -> None:
    before, bases = traces(private_daemon, real_host), disks_of(real_host, origin)
    for call in calls:
        plan = planned(real_host, origin, "doomed", linked=linked).plans[0]
        job = killed(real_host, journal, plan, f"{verb}:{call}")
        if job is not None and call % 2:
            assert jobs.rollback(job.id, real_host, journal).state is JobState.ROLLED_BACK, (call, job.error)
        else:
            restarted = jobs.restart(job.id, real_host, journal) if job is not None else journal.jobs(limit=1)[0]
            assert restarted.state is JobState.DONE, (call, restarted.error)
            assert holds(disks_of(real_host, "doomed")["vda"], "qcow2", 0xAB)
            undone = jobs.submit(jobs.plan_undo(restarted, real_host), real_host, journal)
            assert undone.state is JobState.DONE, (call, undone.error)
        assert disks_of(real_host, origin) == bases, f"killed after call {call} of {verb}"
        assert traces(private_daemon, real_host) == before, f"killed after call {call} of {verb}"
        if job is None:
            break
    assert job is None
    assert call > calls[1], "it was killed in the middle"


@pytest.mark.parametrize("linked", [False, True])
def test_a_libvirtd_that_dies_in_each_step_of_a_clone_is_waited_for(
    real_host: Host, journal: Journal, origin: str, private_daemon: PrivateLibvirtd, linked: bool
) -> None:
    before = traces(private_daemon, real_host)
    job = done_while_the_daemon_dies(
        planned(real_host, origin, "copy", linked=linked).plans[0], real_host, private_daemon
    )
    assert holds(disks_of(real_host, "copy")["vda"], "qcow2", 0xAB)
    assert jobs.submit(jobs.plan_undo(job, real_host), real_host, journal).state is JobState.DONE
    assert traces(private_daemon, real_host) == before


# Of a running one

STEP = "clone.disks"
CALLS = range(2, 120, 11)


@pytest.fixture
def writer(real_host: Host, booted: libvirt.virDomain, private_daemon: PrivateLibvirtd) -> libvirt.virDomain:
    """A running guest with a disk of 32 MiB that it writes to all the time: a rising number at the disk's beginning."""
    disk = private_daemon.images / "data.qcow2"
    qemu_img("create", "-q", "-f", "qcow2", disk, "32M")
    with real_host.calls("attach") as connection:
        connection.storagePoolLookupByName("default").refresh()
        domain = connection.lookupByName(BOOTED)
        xml = (f"<disk type='file' device='disk'><driver name='qemu' type='qcow2'/><source file='{disk}'/>"
               "<target dev='vdz' bus='virtio'/></disk>")  # fmt: skip
        domain.attachDeviceFlags(xml, libvirt.VIR_DOMAIN_AFFECT_LIVE | libvirt.VIR_DOMAIN_AFFECT_CONFIG)
    device = guest.run(
        booted, "for i in 1 2 3 4 5 6 7 8 9; do ls /dev/vd? 2>/dev/null && exit; sleep 0.3; done; exit 1"
    )
    name = device.split()[-1]
    script = f"""
        dd if=/dev/zero bs=1M count=4 | tr '\\0' A | dd of={name} bs=1M seek=8 conv=notrunc,fsync 2>/dev/null
        (n=1; while :; do printf '%08d' $n | dd of={name} bs=512 conv=sync,notrunc,fsync 2>/dev/null &&
         echo $n > /tmp/written && n=$((n+1)) || sleep 1; done) >/dev/null 2>&1 &"""
    guest.run(booted, script)
    wait_for(lambda: written(booted) > 3, "the guest to write")
    return booted


def written(domain: libvirt.virDomain) -> int:
    return int(guest.run(domain, "cat /tmp/written 2>/dev/null || echo 0") or 0)


def number_on(path: str | Path) -> int:
    raw = Path(f"{path}.read")
    qemu_img("convert", "-U", "-O", "raw", path, raw)
    with raw.open("rb") as file:
        number = int(file.read(8))
    raw.unlink()
    return number


def assert_whole(host: Host, daemon: PrivateLibvirtd, domain: libvirt.virDomain) -> None:
    """The origin is on its own disk, goes on writing to it, and nothing temporary is left."""
    data = str(daemon.images / "data.qcow2")
    for live in (False, True):
        assert disks_of(host, BOOTED, live=live)["vdz"] == data
    assert not [path for path in daemon.images.iterdir() if clone.MARK in path.name]
    before = written(domain)
    wait_for(lambda: written(domain) > before, "the guest to write on")


@pytest.mark.timeout(300)
def test_a_running_guest_is_cloned_while_it_writes_and_goes_on_with_its_own_disk(
    real_host: Host, journal: Journal, writer: libvirt.virDomain, private_daemon: PrivateLibvirtd
) -> None:
    least = written(writer) - 2
    done = run_set(planned(real_host, BOOTED, "copy", "second"), real_host, journal)
    assert [job.state for job in done] == [JobState.DONE] * 2, [job.error for job in done]
    most = written(writer)
    numbers = [number_on(disks_of(real_host, name)["vdz"]) for name in ("copy", "second")]
    assert least <= numbers[0] <= numbers[1] <= most
    assert_whole(real_host, private_daemon, writer)
    assert holds(disks_of(real_host, "copy")["vdz"], "qcow2", ord("A"), "8M")
    writer.destroy()
    assert number_on(private_daemon.images / "data.qcow2") >= most - 1, "what was written meanwhile was merged"


def killed(host: Host, journal: Journal, plan: Plan, place: str) -> Job | None:
    """The job whose process died there; None when it was done before it came there."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(DEADLY))
        patch.setenv("HVTUI_TEST_KILL_AT", place)
        started = jobs.start_detached(plan, host, journal)
    ended = jobs.wait(started.id, journal, 90)
    assert ended.state in {JobState.DONE, JobState.INTERRUPTED}, ended.error
    return None if ended.state is JobState.DONE else ended


@pytest.mark.timeout(900)
def test_a_clone_of_a_running_guest_killed_at_any_call_leaves_it_on_its_own_disk(
    real_host: Host, journal: Journal, writer: libvirt.virDomain, private_daemon: PrivateLibvirtd
) -> None:
    before = traces(private_daemon, real_host)
    was_frozen = False
    for call in CALLS:
        plan = planned(real_host, BOOTED, "doomed").plans[0]
        job = killed(real_host, journal, plan, f"{STEP}:{call}")
        if job is None:
            job = journal.jobs(limit=1)[0]
            assert jobs.submit(jobs.plan_undo(job, real_host), real_host, journal).state is JobState.DONE
            break
        was_frozen |= clone.MARK in disks_of(real_host, BOOTED, live=True)["vdz"]
        if call % 2:
            job = jobs.restart(job.id, real_host, journal)
            assert job.state is JobState.DONE, (call, job.error)
            assert_whole(real_host, private_daemon, writer)
            undone = jobs.submit(jobs.plan_undo(job, real_host), real_host, journal)
            assert undone.state is JobState.DONE, undone.error
        else:
            rolled = jobs.rollback(job.id, real_host, journal)
            assert rolled.state is JobState.ROLLED_BACK, (call, rolled.error)
        assert_whole(real_host, private_daemon, writer)
        assert traces(private_daemon, real_host) == before, f"killed after call {call}"
    assert was_frozen, "it was killed at least once while the guest was on an overlay"


def test_an_origin_that_was_shut_down_while_it_was_frozen_gets_its_disk_back(
    real_host: Host, journal: Journal, writer: libvirt.virDomain, private_daemon: PrivateLibvirtd
) -> None:
    plan = planned(real_host, BOOTED, "doomed").plans[0]
    for call in CALLS:
        job = killed(real_host, journal, plan, f"{STEP}:{call}")
        assert job is not None, "it was never frozen"
        if clone.MARK in disks_of(real_host, BOOTED, live=True)["vdz"]:
            break
        assert jobs.rollback(job.id, real_host, journal).state is JobState.ROLLED_BACK
        plan = planned(real_host, BOOTED, "doomed").plans[0]
    least = written(writer) - 1
    writer.destroy()
    assert jobs.rollback(job.id, real_host, journal).state is JobState.ROLLED_BACK
    data = private_daemon.images / "data.qcow2"
    assert disks_of(real_host, BOOTED)["vdz"] == str(data)
    assert not writer.isActive()
    assert number_on(data) >= least, "what was written to the overlay was merged"


# Faults


@pytest.fixture
def small_pool(real_host: Host, private_daemon: PrivateLibvirtd, tmp_path: Path) -> Iterator[Path]:
    """A pool `small` on a file system of 40 MiB, which only the private libvirtd sees there; the path to look at it."""
    path = tmp_path / "small"
    path.mkdir()
    pid = str(private_daemon.libvirtd_pids()[0])
    inside = ["nsenter", "-t", pid, "-m", "-p", "--"]
    subprocess.run([*inside, "mount", "-t", "tmpfs", "-o", "size=40M", "tmpfs", str(path)], check=True)
    with made_pool(real_host, "small", path):
        yield Path(f"/proc/{pid}/root{path}")
    subprocess.run([*inside, "umount", "-l", str(path)], check=True)


def test_a_full_pool_fails_the_clone_and_the_running_origin_is_back_on_its_disk(
    real_host: Host, journal: Journal, writer: libvirt.virDomain, private_daemon: PrivateLibvirtd, small_pool: Path
) -> None:
    plan_set = clone.plan_clone(real_host, inventory.find(real_host, BOOTED), ["copy"], pool="small")
    plan_set.raise_if_blocked()
    (small_pool / "full").write_bytes(b"x" * (39 * 1024**2))
    (job,) = run_set(plan_set, real_host, journal)
    assert job.state is JobState.FAILED
    assert "space" in job.error, job.error
    assert [path.name for path in small_pool.iterdir()] == ["full"]
    assert_whole(real_host, private_daemon, writer)


def test_cancelling_a_clone_of_a_running_guest_leaves_it_on_its_disk(
    real_host: Host, journal: Journal, writer: libvirt.virDomain, private_daemon: PrivateLibvirtd
) -> None:
    before = traces(private_daemon, real_host)
    job = jobs.start_detached(planned(real_host, BOOTED, "doomed").plans[0], real_host, journal)
    wait_for(lambda: clone.MARK in disks_of(real_host, BOOTED, live=True)["vdz"], "the disk to be frozen")
    jobs.cancel(job.id, journal)
    assert jobs.wait(job.id, journal, 90).state is JobState.CANCELLED
    assert_whole(real_host, private_daemon, writer)
    assert traces(private_daemon, real_host) == before
