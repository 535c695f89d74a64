"""hvtui killed (-9) at every step of a create: a restart completes it, or a rollback leaves nothing half-made."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import libvirt
import pytest

from host.connection import Host
from host.errors import NotFound
from host.job_model import Job, JobState
from host.journal import Journal
from tests.real.conftest import wait_for
from tests.support import guest
from tests.support.private_libvirtd import PrivateLibvirtd
from vm import create, inventory
from vm.create_request import tiny_request
from vm.tiny import TinyGuest

NAME = "cut-short"
DEADLY = Path(__file__).parents[1] / "support/killing"


def hvtui(*arguments: str, host: Host, **environment: str) -> subprocess.CompletedProcess[str]:
    """The real program, in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "hvtui", "--headless", *arguments, "--connect", host.uri, "--yes"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
        env={**os.environ, **environment},
    )


def verbs(host: Host) -> list[str]:
    return [step.verb for step in create.plan_create(host, tiny_request(NAME)).steps]


def kill_a_create(host: Host, journal: Journal, verb: str) -> Job:
    """A job of `vm create` whose process died right after it had done `verb`."""
    done = hvtui(
        *("vm", "create", NAME, "--from", "tiny"), host=host, PYTHONPATH=str(DEADLY), HVTUI_TEST_KILL_AFTER=verb
    )
    assert done.returncode != 0
    assert "Traceback" not in done.stderr
    journal.recover()
    job = journal.jobs(limit=1)[0]
    assert job.state is JobState.INTERRUPTED, (verb, done.stderr)
    return job


def files(daemon: PrivateLibvirtd) -> set[str]:
    roots = (daemon.images, daemon.directory / "lib", daemon.directory / "etc")
    return {str(path) for root in roots for path in root.rglob("*")}


def each_verb(host: Host) -> list[str]:
    return list(dict.fromkeys(verbs(host)))


@pytest.mark.timeout(400)
def test_a_create_killed_at_any_step_is_completed_by_a_restart(
    real_host: Host, journal: Journal, tiny_guest: TinyGuest
) -> None:
    for verb in each_verb(real_host):
        job = kill_a_create(real_host, journal, verb)
        restarted = hvtui("job", "restart", str(job.id), host=real_host)
        assert restarted.returncode == 0, (verb, restarted.stderr)
        assert journal.job(job.id).state is JobState.DONE
        domain = real_host.connection().lookupByName(NAME)
        wait_for(lambda: guest.answers(domain), f"the guest whose create was killed after {verb}")  # noqa: B023
        assert len(inventory.read(real_host)) == 1
        _remove(domain)


@pytest.mark.timeout(400)
def test_a_create_killed_at_any_step_is_taken_back_by_a_rollback(
    real_host: Host, journal: Journal, tiny_guest: TinyGuest, private_daemon: PrivateLibvirtd
) -> None:
    hvtui("vm", "create", "first", "--from", "tiny", "--no-start", host=real_host)
    before = files(private_daemon)
    for verb in each_verb(real_host):
        job = kill_a_create(real_host, journal, verb)
        taken_back = hvtui("job", "rollback", str(job.id), "--yes", host=real_host)
        assert taken_back.returncode == 0, (verb, taken_back.stderr)
        assert journal.job(job.id).state is JobState.ROLLED_BACK
        with pytest.raises(NotFound):
            inventory.find(real_host, NAME)
        assert files(private_daemon) == before, verb


def _remove(domain: libvirt.virDomain) -> None:
    _quietly(domain.destroy)
    domain.undefineFlags(libvirt.VIR_DOMAIN_UNDEFINE_NVRAM)


def _quietly(call: Callable[[], object]) -> None:
    try:
        call()
    except libvirt.libvirtError:
        return
