"""Readiness on real guests: told by the agent or on the console, waited for in vain, given up, and what becomes of the
seed."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import libvirt
import pytest

from host import jobs
from host.connection import Host
from host.job_model import Job, JobState
from host.journal import Journal
from host.plan import Plan
from host.units import MIB
from tests.real.conftest import wait_for
from tests.support import guest
from tests.support.templates import add_template, add_tiny, made_pool
from vm import deploy, inventory
from vm.console import attach
from vm.deploy_request import DeployRequest
from vm.deploy_steps import seed_drives
from vm.domain_xml import parse
from vm.lifecycle import plan_off
from vm.profile_model import GuestProfile, HardwareProfile
from vm.template_model import Readiness
from vm.tiny import TinyGuest
from vm.unseed import plan_unseed

SMALL = HardwareProfile("small", memory_bytes=96 * MIB, nics=())
NAME = "waited"


@pytest.fixture
def request_(real_host: Host, tiny_guest: TinyGuest, tmp_path: Path) -> Iterator[DeployRequest]:
    """A deployment of the tiny guest, which takes its seed for a disk; the tests play cloud-init inside of it."""
    with made_pool(real_host, "library", tmp_path / "library") as directory:
        tiny = add_tiny(real_host, tiny_guest, directory)
        for readiness in Readiness:
            template = replace(tiny, name=readiness.value, readiness=readiness, takes_seed=True)
            add_template(real_host, "library", template)
        yield DeployRequest("cloud-init", (NAME,), SMALL, GuestProfile(), ready_timeout_s=90)


@contextmanager
def deploying(host: Host, journal: Journal, request: DeployRequest) -> Iterator[tuple[Plan, Future[Job]]]:
    """The deployment under way."""
    plan_set = deploy.plan_deploy(host, request)
    plan_set.raise_if_blocked()
    with ThreadPoolExecutor(1) as pool:
        yield plan_set.plans[0], pool.submit(jobs.submit, plan_set.plans[0], host, journal)


def agent_answers(host: Host) -> bool:
    with host.calls("look") as connection:
        try:
            return guest.answers(connection.lookupByName(NAME))
        except libvirt.libvirtError:
            return False


def inside(host: Host, script: str) -> str:
    with host.calls("look") as connection:
        return guest.run(connection.lookupByName(NAME), script)


def cloud_init_says(host: Host, name: str, **values: object) -> None:
    """Write what cloud-init would into the guest's /run."""
    text = json.dumps({"v1": values})
    inside(host, f"mkdir -p /run/cloud-init; echo '{text}' > /run/cloud-init/{name}.json")


def cloud_init_ends(host: Host, *errors: str) -> None:
    cloud_init_says(host, "result", datasource="DataSourceNoCloud [seed=/dev/vda]", errors=errors)


def seeds(host: Host) -> list[str]:
    """The seeds that the VM has, running and for its next start, and those in the pool."""
    with host.calls("look") as connection:
        domain = connection.lookupByName(NAME)
        texts = (domain.XMLDesc(0), domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE))
        found = [path for text in texts for path in seed_drives(parse(text), domain.UUIDString())]
        pool = connection.storagePoolLookupByName("default")
        pool.refresh()
        return found + [name for name in pool.listVolumes() if "seed" in name]


def note(journal: Journal) -> str:
    return " ".join(step.note for job in journal.jobs(limit=1) for step in job.steps)


@pytest.mark.timeout(200)
def test_cloud_inits_end_is_told_by_the_agent_with_its_stage_before_and_its_errors(
    real_host: Host, journal: Journal, request_: DeployRequest
) -> None:
    with deploying(real_host, journal, request_) as (_, running):
        wait_for(lambda: agent_answers(real_host), "the agent", timeout_s=90)
        wait_for(lambda: "has not begun" in note(journal), "the agent's progress")
        inside(
            real_host,
            'mkdir -p /run/cloud-init; echo \'{"v1": {"stage": "modules-config"}}\' > /run/cloud-init/status.json',
        )
        wait_for(lambda: "cloud-init: modules-config" in note(journal), "the stage")
        assert len(seeds(real_host)) == 3
        cloud_init_ends(real_host, "no such package: ngnix")
        job = running.result()
    assert job.state is JobState.DONE, job.error
    assert "ready, but cloud-init reported: no such package: ngnix" in job.warnings[0]
    assert seeds(real_host) == []
    assert inside(real_host, "ls /dev").count("vd") == 0  # the guest has let go of it


@pytest.mark.timeout(200)
def test_a_guest_that_is_not_ready_in_time_keeps_its_vm_and_a_restart_waits_again(
    real_host: Host, journal: Journal, request_: DeployRequest
) -> None:
    with deploying(real_host, journal, replace(request_, ready_timeout_s=2)) as (_, running):
        job = running.result()
    assert (job.state, job.exit_code, job.kept) == (JobState.FAILED, 7, True)
    assert f"job restart {job.id}" in job.remedy
    assert len(seeds(real_host)) == 3
    wait_for(lambda: agent_answers(real_host), "the agent", timeout_s=90)
    cloud_init_ends(real_host)
    job = jobs.restart(job.id, real_host, journal)
    assert (job.state, job.warnings) == (JobState.DONE, ())
    assert seeds(real_host) == []


@pytest.mark.timeout(200)
def test_a_guest_that_stops_ends_the_wait(real_host: Host, journal: Journal, request_: DeployRequest) -> None:
    with deploying(real_host, journal, request_) as (_, running):
        wait_for(lambda: "booting" in note(journal), "the wait to begin")
        with real_host.calls("stop it") as connection:
            connection.lookupByName(NAME).destroy()
        job = running.result()
    assert (job.state, job.exit_code, job.kept) == (JobState.FAILED, 4, True)
    assert "stopped again" in job.error
    assert jobs.rollback(job.id, real_host, journal).state is JobState.ROLLED_BACK


@pytest.mark.timeout(200)
def test_who_cancels_leaves_nothing(real_host: Host, journal: Journal, request_: DeployRequest) -> None:
    with deploying(real_host, journal, request_) as (_, running):
        wait_for(lambda: "booting" in note(journal), "the wait to begin")
        jobs.cancel(journal.jobs(limit=1)[0].id, journal)
        job = running.result()
    assert (job.state, job.kept) == (JobState.CANCELLED, False)
    assert [vm.name for vm in inventory.read(real_host)] == []
    with real_host.calls("look") as connection:
        assert connection.storagePoolLookupByName("default").listVolumes() == []


@pytest.mark.timeout(200)
def test_a_guest_without_files_for_its_agent_is_ready_when_its_console_says_so(
    real_host: Host, journal: Journal, request_: DeployRequest
) -> None:
    with deploying(real_host, journal, replace(request_, template="serial")) as (_, running):
        job = running.result()
    assert job.state is JobState.DONE, job.error
    assert seeds(real_host) == []


@pytest.mark.timeout(200)
def test_a_person_gets_the_console_while_it_is_watched_and_the_watch_goes_on(
    real_host: Host, journal: Journal, request_: DeployRequest
) -> None:
    keys, typing = os.pipe()
    screen, shown = os.pipe()
    with deploying(real_host, journal, request_) as (_, running), ThreadPoolExecutor(1) as pool:
        wait_for(lambda: "booting" in note(journal), "the wait to begin")
        vm = inventory.find(real_host, NAME)
        person = pool.submit(attach, real_host, vm, stdin_fd=keys, stdout_fd=shown)
        assert b"Connected" in os.read(screen, 4096)
        os.write(typing, b"\x1d")
        assert person.result(30)
        wait_for(lambda: agent_answers(real_host), "the agent", timeout_s=90)
        cloud_init_ends(real_host)
        assert running.result().state is JobState.DONE
    for handle in (keys, typing, screen, shown):
        os.close(handle)


@pytest.mark.timeout(200)
def test_a_seed_that_was_left_is_taken_away_later(real_host: Host, journal: Journal, request_: DeployRequest) -> None:
    plan = deploy.plan_deploy(real_host, replace(request_, wait_ready=False)).plans[0]
    assert jobs.submit(plan, real_host, journal).state is JobState.DONE
    wait_for(lambda: agent_answers(real_host), "the agent", timeout_s=90)
    cloud_init_ends(real_host)
    vm = inventory.find(real_host, NAME)
    assert jobs.submit(plan_unseed(real_host, vm), real_host, journal).state is JobState.DONE
    assert seeds(real_host) == []
    assert plan_unseed(real_host, vm).blockers[0].reason.startswith("it has no seed")


def test_a_cd_on_sata_is_ejected_and_forgotten(real_host: Host, journal: Journal, request_: DeployRequest) -> None:
    hardware = replace(SMALL, disk_bus="sata")
    plan = deploy.plan_deploy(real_host, replace(request_, template="none", hardware=hardware)).plans[0]
    assert jobs.submit(plan, real_host, journal).state is JobState.DONE
    assert len(seeds(real_host)) == 3
    vm = inventory.find(real_host, NAME)
    assert jobs.submit(plan_unseed(real_host, vm, wait=False), real_host, journal).state is JobState.DONE
    assert seeds(real_host) == []
    jobs.submit(plan_off(real_host, vm), real_host, journal)
    with real_host.calls("look") as connection:
        assert "cdrom" not in connection.lookupByName(NAME).XMLDesc(0)
