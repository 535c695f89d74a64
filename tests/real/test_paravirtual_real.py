"""A real guest with an emulated disk and card becomes paravirtual once its agent has seen the drivers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from host import jobs
from host.connection import Host
from host.job_model import JobState
from host.journal import Journal
from tests.real.conftest import wait_for
from tests.support import bundles, guest
from tests.support.bundles import killed, traces
from tests.support.private_libvirtd import PrivateLibvirtd
from tests.support.running import do, done, done_while_the_daemon_dies, vm_named
from vm.create import plan_create, tiny_request
from vm.domain_xml import parse
from vm.paravirtual import plan_paravirtual
from vm.tiny import TinyGuest

NAME = "emulated"
DISK = """<disk type='file' device='disk'><driver name='qemu' type='qcow2'/><source file='{}'/>
<target dev='sda' bus='sata'/></disk>"""


def make(host: Host, daemon: PrivateLibvirtd) -> None:
    """The tiny guest with a disk on SATA and an e1000e: it has drivers for virtio only."""
    raw = bundles.bootable(daemon.directory / "data.raw")
    disk = bundles.image(raw, daemon.images / f"{NAME}-data.qcow2", "qcow2")
    request = replace(tiny_request(NAME), network="user", start=False, wait_ready=False)
    done(plan_create(host, request), host)
    with host.calls("add devices") as connection:
        connection.storagePoolLookupByName("default").refresh()
        xml = connection.lookupByName(NAME).XMLDesc(2)
        head, middle, tail = xml.partition("<interface")
        tail = tail.replace("<model type='virtio'/>", "<model type='e1000e'/>", 1)
        connection.defineXML((head + middle + tail).replace("</devices>", DISK.format(disk) + "</devices>"))


def devices(host: Host) -> tuple[list[str], list[str]]:
    with host.calls("look") as connection:
        root = parse(connection.lookupByName(NAME).XMLDesc(2))
    buses = [target.get("bus", "") for target in root.iterfind("devices/disk/target")]
    return buses, [model.get("type", "") for model in root.iterfind("devices/interface/model")]


@pytest.mark.timeout(300)
def test_a_guest_whose_agent_sees_the_drivers_is_switched_and_finds_its_disk(
    real_host: Host, journal: Journal, private_daemon: PrivateLibvirtd, tiny_guest: TinyGuest
) -> None:
    make(real_host, private_daemon)
    before = traces(private_daemon, real_host)
    job = jobs.submit(plan_paravirtual(real_host, vm_named(real_host, NAME), timeout_s=120), real_host, journal)
    assert job.state is JobState.DONE, job.error
    assert devices(real_host) == (["virtio"], ["virtio"])
    assert traces(private_daemon, real_host) == before
    domain = real_host.connection().lookupByName(NAME)
    domain.create()
    wait_for(lambda: guest.answers(domain), "the switched guest's agent", timeout_s=120)
    assert bundles.BOOTS.decode() in guest.run(domain, "dd if=/dev/vda bs=512 count=1 2>/dev/null | strings")
    domain.destroy()
    done(jobs.plan_undo(job, real_host, journal), real_host)
    assert devices(real_host) == (["sata"], ["e1000e"])


def test_a_guest_that_does_not_answer_keeps_what_was_added_and_can_be_given_up(
    real_host: Host, journal: Journal, private_daemon: PrivateLibvirtd
) -> None:
    raw = bundles.bootable(private_daemon.directory / "data.raw")
    disk = bundles.image(raw, private_daemon.images / "silent.qcow2", "qcow2")
    bundles.plain_vm(real_host, str(disk), "qcow2", name=NAME)
    with real_host.calls("emulate") as connection:
        connection.storagePoolLookupByName("default").refresh()
        xml = connection.lookupByName(NAME).XMLDesc(2)
        start, end = xml.index("<target dev='vda'"), xml.index("</disk>")
        connection.defineXML(f"{xml[:start]}<target dev='sda' bus='sata'/>{xml[end:]}")
    before = traces(private_daemon, real_host)
    job = jobs.submit(plan_paravirtual(real_host, vm_named(real_host, NAME), timeout_s=1), real_host, journal)
    assert (job.state, job.exit_code, job.kept) == (JobState.FAILED, 7, True)
    assert "look in the guest" in job.remedy
    with real_host.calls("turn off") as connection:
        connection.lookupByName(NAME).destroy()
    assert jobs.rollback(job.id, real_host, journal).state is JobState.ROLLED_BACK
    assert devices(real_host) == (["sata"], [])
    assert traces(private_daemon, real_host) == before


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("verb", "calls"), [("paravirtual.probe", (0, 3, 5, 6, 8)), ("paravirtual.watch", (0, 2))], ids=["probe", "watch"]
)
def test_a_switch_killed_on_its_way_is_taken_back(
    real_host: Host,
    journal: Journal,
    private_daemon: PrivateLibvirtd,
    tiny_guest: TinyGuest,
    verb: str,
    calls: Sequence[int],
) -> None:
    make(real_host, private_daemon)
    before = traces(private_daemon, real_host)
    for call in calls:
        plan = plan_paravirtual(real_host, vm_named(real_host, NAME), timeout_s=120)
        job = killed(plan, real_host, journal, f"{verb}:{call}")
        assert job is not None
        with real_host.calls("turn off") as connection:
            domain = connection.lookupByName(NAME)
            if domain.isActive():
                domain.destroy()
        assert jobs.rollback(job.id, real_host, journal).state is JobState.ROLLED_BACK
        assert devices(real_host) == (["sata"], ["e1000e"])
        assert traces(private_daemon, real_host) == before, (verb, call)


@pytest.mark.timeout(300)
def test_the_switch_itself_killed_at_any_call_is_taken_back_or_completed(
    real_host: Host, journal: Journal, private_daemon: PrivateLibvirtd, tiny_guest: TinyGuest
) -> None:
    """With the small disk and the card of an earlier attempt in the VM, which go with it."""
    make(real_host, private_daemon)
    clean, switched = traces(private_daemon, real_host), False
    for call in (0, 9, 16, 17, 18, 19, 21, 22, 23, 99):
        probe = plan_paravirtual(real_host, vm_named(real_host, NAME), timeout_s=120).steps[0]
        assert probe.verb == "paravirtual.probe"
        do(real_host, probe)
        plan = plan_paravirtual(real_host, vm_named(real_host, NAME), now=True)
        job = killed(plan, real_host, journal, f"paravirtual.switch:{call}")
        switched |= job is not None and devices(real_host) == (["virtio"], ["virtio"])
        if job is not None and call % 2 == 0:
            assert jobs.rollback(job.id, real_host, journal).state is JobState.ROLLED_BACK
        else:
            if job is not None:
                assert jobs.restart(job.id, real_host, journal).state is JobState.DONE, call
            assert devices(real_host) == (["virtio"], ["virtio"])
            done(jobs.plan_undo(journal.jobs(limit=1)[0], real_host, journal), real_host)
        again = plan_paravirtual(real_host, vm_named(real_host, NAME), now=True)
        done(again, real_host)  # takes along what a rollback left of the earlier attempt
        done(jobs.plan_undo(journal.jobs(limit=1)[0], real_host, journal), real_host)
        assert devices(real_host) == (["sata"], ["e1000e"])
        assert traces(private_daemon, real_host) == clean, call
    assert job is None
    assert switched, "it was killed once after the switch"


def test_a_libvirtd_that_dies_in_a_switch_is_waited_for(
    real_host: Host, journal: Journal, private_daemon: PrivateLibvirtd, tiny_guest: TinyGuest
) -> None:
    make(real_host, private_daemon)
    plan = plan_paravirtual(real_host, vm_named(real_host, NAME), now=True)
    done_while_the_daemon_dies(plan, real_host, private_daemon)
    assert devices(real_host) == (["virtio"], ["virtio"])
