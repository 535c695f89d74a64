"""The life of a real guest, through the plans and jobs that both front ends use."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import libvirt
import pytest

from host import jobs, statistics
from host.connection import Host
from host.events import Event, EventKind, subscribe
from host.job_model import Job, JobState
from host.journal import Journal
from host.plan import Plan
from tests.real.conftest import BOOTED, wait_for
from tests.support import guest
from tests.support.private_libvirtd import PrivateLibvirtd
from vm import create, delete, inventory, lifecycle
from vm.create_request import tiny_request
from vm.model import Vm, VmState
from vm.tiny import TinyGuest

NAME = BOOTED


def run(plan: Plan, host: Host, journal: Journal) -> Job:
    job = jobs.submit(plan, host, journal)
    assert job.state is JobState.DONE, f"{job.title}: {job.error}"
    return job


def vm(host: Host, name: str = NAME) -> Vm:
    return inventory.read_configs(host, [inventory.find(host, name)])[0]


@pytest.fixture
def domain(booted: libvirt.virDomain) -> libvirt.virDomain:
    """A running guest whose agent answers."""
    return booted


@pytest.fixture
def events(real_host: Host) -> Iterator[list[Event]]:
    """Every event from now on."""
    seen: list[Event] = []
    subscription = subscribe(real_host.connection(), seen.append)
    yield seen
    subscription.cancel()


def test_a_tiny_guest_runs_and_its_agent_answers(real_host: Host, domain: libvirt.virDomain) -> None:
    found = vm(real_host)
    assert found.state is VmState.RUNNING
    assert found.config is not None
    assert found.config.agent_connected
    assert found.config.is_emulated
    assert guest.run(domain, "hostname") == NAME


def test_live_statistics_move_while_the_guest_works(real_host: Host, domain: libvirt.virDomain) -> None:
    uuid = domain.UUIDString()
    guest.run(domain, "(while :; do :; done) >/dev/null 2>&1 &")
    before = statistics.read_samples(real_host.connection())[uuid]
    time.sleep(1.0)
    rates = statistics.rates(before, statistics.read_samples(real_host.connection())[uuid])
    assert rates.cpu_percent is not None
    assert 5 < rates.cpu_percent <= 110


def test_a_paused_guest_stands_still_and_a_resumed_one_goes_on(
    real_host: Host, journal: Journal, domain: libvirt.virDomain
) -> None:
    booted = guest.boot_id(domain)
    run(lifecycle.plan_pause(real_host, vm(real_host)), real_host, journal)
    assert vm(real_host).state is VmState.PAUSED
    used_ns = domain.info()[4]
    time.sleep(0.5)
    assert domain.info()[4] - used_ns < 200_000_000, "a paused guest used CPU"
    run(lifecycle.plan_resume(real_host, vm(real_host)), real_host, journal)
    assert vm(real_host).state is VmState.RUNNING
    assert guest.boot_id(domain) == booted


def test_a_saved_guest_starts_where_it_was(real_host: Host, journal: Journal, domain: libvirt.virDomain) -> None:
    booted = guest.boot_id(domain)
    guest.run(domain, "echo remembered > /run/note")
    run(lifecycle.plan_save(real_host, vm(real_host)), real_host, journal)
    assert vm(real_host).state is VmState.SAVED
    run(lifecycle.plan_start(real_host, vm(real_host)), real_host, journal)
    wait_for(lambda: guest.answers(domain), "the restored guest's agent")
    assert guest.boot_id(domain) == booted
    assert guest.run(domain, "cat /run/note") == "remembered"
    assert not vm(real_host).has_saved_state


def test_the_agent_shuts_the_guest_down(
    real_host: Host, journal: Journal, domain: libvirt.virDomain, events: list[Event]
) -> None:
    run(lifecycle.plan_stop(real_host, vm(real_host), timeout_s=60), real_host, journal)
    assert vm(real_host).state is VmState.OFF
    wait_for(lambda: any(event.kind is EventKind.STOPPED for event in events), "the event of the stop")
    stopped = next(event for event in events if event.kind is EventKind.STOPPED)
    assert stopped.detail == "shut down"


def test_a_guest_asked_while_it_still_boots_restarts_and_stops_all_the_same(
    real_host: Host, journal: Journal, tiny_guest: TinyGuest
) -> None:
    run(create.plan_create(real_host, replace(tiny_request(NAME), wait_ready=False)), real_host, journal)
    run(lifecycle.plan_restart(real_host, vm(real_host), timeout_s=90), real_host, journal)
    assert vm(real_host).state is VmState.RUNNING
    run(lifecycle.plan_stop(real_host, vm(real_host), timeout_s=90), real_host, journal)
    assert vm(real_host).state is VmState.OFF


def test_a_guest_that_panics_is_seen_to_have_crashed(
    real_host: Host, domain: libvirt.virDomain, events: list[Event]
) -> None:
    guest.panic(domain)
    wait_for(lambda: any(event.kind is EventKind.CRASHED for event in events), "the event of the crash")
    assert next(event for event in events if event.kind is EventKind.CRASHED).detail == "panicked"


def test_a_reset_guest_boots_again(real_host: Host, journal: Journal, domain: libvirt.virDomain) -> None:
    booted = guest.boot_id(domain)
    run(lifecycle.plan_reset(real_host, vm(real_host)), real_host, journal)
    wait_for(lambda: guest.answers(domain) and guest.boot_id(domain) != booted, "a new boot")


def test_a_deleted_guest_leaves_nothing(
    real_host: Host,
    journal: Journal,
    tiny_guest: TinyGuest,
    private_daemon: PrivateLibvirtd,
) -> None:
    run(create.plan_create(real_host, replace(tiny_request("kept"), start=False, wait_ready=False)), real_host, journal)
    before = _files(private_daemon)
    run(
        create.plan_create(real_host, replace(tiny_request(NAME), disk_bytes=1 << 20, wait_ready=False)),
        real_host,
        journal,
    )
    disk = vm(real_host).config.disks[0].source  # type: ignore[union-attr]
    run(lifecycle.plan_save(real_host, vm(real_host)), real_host, journal)
    run(delete.plan_delete(real_host, vm(real_host), remove_disks=(disk,)), real_host, journal)
    assert [each.name for each in inventory.read(real_host)] == ["kept"]
    assert _files(private_daemon) == before


def _files(daemon: PrivateLibvirtd) -> set[str]:
    """What the daemon's directories hold, but for logs and what libvirt caches for every VM."""
    roots = (daemon.images, daemon.directory / "lib", daemon.directory / "etc", daemon.directory / "run")
    found = {str(path) for root in roots for path in root.rglob("*")}
    return {path for path in found if not Path(path).name.startswith(("master-key", "monitor"))}
