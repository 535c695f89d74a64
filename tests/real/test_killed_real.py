"""hvtui killed (-9) at every step of a create: a restart completes it, or a rollback leaves nothing half-made."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

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


VERBS = ("create.tiny", "create.define", "create.start", "create.wait")
EACH_VERB = pytest.mark.parametrize("verb", VERBS)


def test_each_step_of_a_create_is_tried_here(real_host: Host) -> None:
    steps = create.plan_create(real_host, tiny_request(NAME)).steps
    assert tuple(dict.fromkeys(step.verb for step in steps)) == VERBS


@EACH_VERB
def test_a_create_killed_at_any_step_is_completed_by_a_restart(
    real_host: Host, journal: Journal, tiny_guest: TinyGuest, verb: str
) -> None:
    job = kill_a_create(real_host, journal, verb)
    restarted = hvtui("job", "restart", str(job.id), host=real_host)
    assert restarted.returncode == 0, restarted.stderr
    assert journal.job(job.id).state is JobState.DONE
    domain = real_host.connection().lookupByName(NAME)
    wait_for(lambda: guest.answers(domain), f"the guest whose create was killed after {verb}")
    assert len(inventory.read(real_host)) == 1


@EACH_VERB
def test_a_create_killed_at_any_step_is_taken_back_by_a_rollback(
    real_host: Host, journal: Journal, tiny_guest: TinyGuest, private_daemon: PrivateLibvirtd, verb: str
) -> None:
    hvtui("vm", "create", "first", "--from", "tiny", "--no-start", host=real_host)
    before = files(private_daemon)
    job = kill_a_create(real_host, journal, verb)
    taken_back = hvtui("job", "rollback", str(job.id), "--yes", host=real_host)
    assert taken_back.returncode == 0, taken_back.stderr
    assert journal.job(job.id).state is JobState.ROLLED_BACK
    with pytest.raises(NotFound):
        inventory.find(real_host, NAME)
    assert files(private_daemon) == before
