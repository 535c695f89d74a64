"""libvirtd killed, restarted or frozen while a job runs: the job ends as done, failed or restartable, never lost."""

from __future__ import annotations

import threading

import pytest

from host import connection, jobs
from host.connection import Host
from host.job_engine import Patience
from host.job_model import Job, JobState
from host.journal import Journal
from host.plan import Plan
from tests.real.conftest import wait_for
from tests.support.private_libvirtd import PrivateLibvirtd
from vm import inventory, lifecycle
from vm.model import Vm, VmState

NAME = "faulty"
# A machine with nothing to boot: it runs, and never reacts to a request to shut down.
DEAF = f"""<domain type='qemu'><name>{NAME}</name><memory unit='MiB'>32</memory><vcpu>1</vcpu>
<os><type arch='x86_64' machine='q35'>hvm</type></os></domain>"""


@pytest.fixture
def deaf(real_host: Host) -> Vm:
    """A running VM that reacts to nothing."""
    real_host.connection().defineXML(DEAF).create()
    return inventory.read_configs(real_host, [inventory.find(real_host, NAME)])[0]


class Running:
    """A job that runs in a thread of its own, as in a runner process; `wait` gives it as it ended."""

    def __init__(self, plan: Plan, host: Host, journal: Journal, patience: Patience) -> None:
        self.id = jobs.create(plan, journal).id
        self._ended: list[Job] = []
        self._journal = journal
        run = lambda: self._ended.append(jobs.run(self.id, host, journal, patience=patience))  # noqa: E731
        self._thread = threading.Thread(target=run, daemon=True)
        self._thread.start()

    def wait_until_it_waits(self) -> None:
        """Until its step is under way and says what it does."""
        wait_for(lambda: any(step.note for step in self._journal.job(self.id).steps), "the step to begin")

    def wait(self, timeout_s: float = 60.0) -> Job:
        self._thread.join(timeout_s)
        assert self._ended, f"the job did not end: {self._journal.job(self.id)}"
        return self._ended[0]


def stopping(host: Host, vm: Vm, journal: Journal, **patience: float) -> Running:
    """A job that waits for the deaf VM to react for a few seconds, and then turns it off."""
    plan = lifecycle.plan_stop(host, vm, timeout_s=4, force=True)
    running = Running(plan, host, journal, Patience(**patience))  # type: ignore[arg-type]
    running.wait_until_it_waits()
    return running


def state(host: Host) -> VmState:
    return inventory.find(host, NAME).state


def test_a_job_goes_on_when_libvirtd_was_killed_and_is_back(
    real_host: Host, deaf: Vm, journal: Journal, private_daemon: PrivateLibvirtd
) -> None:
    running = stopping(real_host, deaf, journal)
    private_daemon.restart()
    job = running.wait()
    assert job.state is JobState.DONE, job.error
    assert state(real_host) is VmState.OFF


def test_a_job_is_restartable_when_libvirtd_stays_away(
    real_host: Host, deaf: Vm, journal: Journal, private_daemon: PrivateLibvirtd
) -> None:
    running = stopping(real_host, deaf, journal, reconnect_s=1.0)
    private_daemon.kill()
    job = running.wait()
    assert job.state is JobState.INTERRUPTED
    assert job.exit_code == 6
    assert "restart" in job.remedy
    private_daemon.start()
    assert jobs.restart(job.id, real_host, journal).state is JobState.DONE
    assert state(real_host) is VmState.OFF


def test_a_job_outlasts_a_libvirtd_that_freezes_for_a_moment(
    real_host: Host, deaf: Vm, journal: Journal, private_daemon: PrivateLibvirtd
) -> None:
    running = stopping(real_host, deaf, journal)
    private_daemon.freeze()
    threading.Event().wait(2.0)
    private_daemon.thaw()
    assert running.wait().state is JobState.DONE
    assert state(real_host) is VmState.OFF


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Notice a frozen daemon after 6 s rather than 50."""
    monkeypatch.setattr(connection, "KEEPALIVE_INTERVAL_S", 1)
    monkeypatch.setattr(connection, "OPEN_TIMEOUT_S", 2.0)


def test_a_job_is_restartable_when_libvirtd_stays_frozen(
    impatient: None, real_host: Host, deaf: Vm, journal: Journal, private_daemon: PrivateLibvirtd
) -> None:
    running = stopping(real_host, deaf, journal, reconnect_s=1.0)
    private_daemon.freeze()
    job = running.wait()
    assert job.state is JobState.INTERRUPTED
    assert "did not answer" in job.error
    private_daemon.thaw()
    assert jobs.restart(job.id, real_host, journal).state is JobState.DONE
    assert state(real_host) is VmState.OFF
