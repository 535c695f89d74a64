"""Sets of jobs on a real hypervisor: several VMs by one process, which is killed (-9) at every step of theirs."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from host import job_sets
from host.connection import Host
from host.job_model import Job, JobSet, JobState
from host.journal import Journal
from host.plan import PlanSet
from tests.support.private_libvirtd import PrivateLibvirtd
from vm import inventory
from vm import steps as steps  # registers the verbs
from vm.create import plan_create
from vm.create_request import CreateRequest, SourceKind

DEADLY = Path(__file__).parents[1] / "support/killing"
COUNT = 6


def hvtui(*arguments: str) -> subprocess.CompletedProcess[str]:
    """The real program, in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "hvtui", "--headless", *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


def set_of(host: Host) -> PlanSet:
    """Makes VMs, each with a disk of its own."""
    plans = (
        plan_create(
            host,
            CreateRequest(name=f"web-{number}", source=SourceKind.EMPTY, disk_bytes=2**20, start=False, network="none"),
        )
        for number in range(COUNT)
    )
    return PlanSet("Make web-*", tuple(plans), ("vm", "create", "web-*"))


def files(daemon: PrivateLibvirtd) -> set[str]:
    roots = (daemon.images, daemon.directory / "etc")
    return {str(path) for root in roots for path in root.rglob("*")}


def killed(host: Host, journal: Journal, verb: str, monkeypatch: pytest.MonkeyPatch) -> tuple[Job, ...]:
    """A set whose process died right after it had done `verb` for one of the VMs, and was doing others."""
    with monkeypatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join((str(DEADLY), *filter(None, [os.environ.get("PYTHONPATH")]))))
        patch.setenv("HVTUI_TEST_KILL_AFTER", verb)
        started = job_sets.start_detached_set(set_of(host), host, journal)
    ended = job_sets.wait_set(started[0].set_id or 0, journal, 60)
    assert JobSet(ended).state is JobState.INTERRUPTED, verb
    return ended


def each_verb(host: Host) -> list[str]:
    return list(dict.fromkeys(step.verb for step in set_of(host).plans[0].steps))


def test_a_set_of_real_vms_is_made_by_one_process(real_host: Host, journal: Journal) -> None:
    started = job_sets.start_detached_set(set_of(real_host), real_host, journal)
    ended = job_sets.wait_set(started[0].set_id or 0, journal, 60)
    assert [(job.state, job.error) for job in ended] == [(JobState.DONE, "")] * COUNT
    assert sorted(vm.name for vm in inventory.read(real_host)) == [f"web-{number}" for number in range(COUNT)]
    assert hvtui("job", "watch", "1").returncode == 0
    taken_back = hvtui("job", "undo", "1", "--set", "--yes")
    assert taken_back.returncode == 0, taken_back.stderr
    assert inventory.read(real_host) == ()


@pytest.mark.timeout(400)
def test_a_set_killed_at_any_step_is_completed_by_a_restart(
    real_host: Host, journal: Journal, private_daemon: PrivateLibvirtd, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = files(private_daemon)
    for verb in each_verb(real_host):
        ended = killed(real_host, journal, verb, monkeypatch)
        restarted = hvtui("job", "restart", str(ended[-1].id))
        assert restarted.returncode == 0, (verb, restarted.stderr)
        assert all(job.state is JobState.DONE for job in journal.members(ended[0].id))
        assert len(inventory.read(real_host)) == COUNT
        made = files(private_daemon) - before
        assert len([path for path in made if path.endswith(".qcow2")]) == COUNT, (verb, made)
        undone = hvtui("job", "undo", str(ended[0].id), "--set", "--yes")
        assert undone.returncode == 0, (verb, undone.stderr)
        assert files(private_daemon) == before, verb


@pytest.mark.timeout(400)
def test_a_set_killed_at_any_step_is_taken_back_without_a_trace(
    real_host: Host, journal: Journal, private_daemon: PrivateLibvirtd, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = files(private_daemon)
    for verb in each_verb(real_host):
        ended = killed(real_host, journal, verb, monkeypatch)
        done = [job for job in ended if job.state is JobState.DONE]
        taken_back = hvtui("job", "rollback", str(ended[0].id), "--set", "--yes")
        assert taken_back.returncode == 0, (verb, taken_back.stderr)
        if done:
            assert hvtui("job", "undo", str(ended[0].id), "--set", "--yes").returncode == 0
        assert inventory.read(real_host) == ()
        assert files(private_daemon) == before, verb
