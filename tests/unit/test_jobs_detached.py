"""Jobs in a process of their own, which outlives whoever started it."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from host import jobs, runner
from host.connection import open_host
from host.errors import Busy, HvtuiError, UsageError, WrongState
from host.job_model import JobState
from host.journal import Journal
from tests.support import fake_verbs
from tests.support.fake_verbs import make_step, plan_of, plan_three, three_files

WORKER = (sys.executable, "-m", "tests.support.job_worker", "job")


@pytest.fixture
def journal() -> Iterator[Journal]:
    with Journal() as opened:
        yield opened


@pytest.fixture
def work(tmp_path: Path) -> Path:
    (tmp_path / "work").mkdir()
    return tmp_path / "work"


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + 30
    while not path.exists():
        assert time.monotonic() < deadline, f"{path} never came"
        time.sleep(0.01)


def test_a_detached_job_survives_the_death_of_its_starter_and_of_the_terminal(journal: Journal, work: Path) -> None:
    (work / "two.pause").touch()
    command = [sys.executable, "-m", "tests.support.job_worker", "start", str(work)]
    starter = subprocess.Popen(command, start_new_session=True)
    wait_for(work / "two.paused")
    assert starter.wait(60) == 0
    pid = int(journal._claim_of(1).split(" ")[1])
    assert os.getsid(pid) == pid  # a session of its own: no terminal can hang up on it
    os.kill(pid, signal.SIGHUP)
    assert journal.recover() == ()
    (work / "two.pause").unlink()
    job = jobs.wait(1, journal, 30)
    assert (job.state, job.error) == (JobState.DONE, "")
    assert [path.read_text() for path in three_files(work)] == ["whole"] * 3
    deadline = time.monotonic() + 20
    while journal.log_path(1).exists():  # it said nothing, so no file stays
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_the_log_of_a_detached_job_is_private_and_its_vm_is_held(journal: Journal, work: Path) -> None:
    host = open_host(fake_verbs.URI)
    (work / "two.pause").touch()
    job = jobs.start_detached(plan_three(work), host, journal, program=WORKER)
    assert job.state is JobState.RUNNING
    assert stat.S_IMODE(journal.log_path(job.id).stat().st_mode) == 0o600
    with pytest.raises(Busy):
        jobs.create(plan_three(work), journal)
    jobs.cancel(job.id, journal)
    assert jobs.wait(job.id, journal, 30).state is JobState.CANCELLED


def test_a_runner_killed_with_9_leaves_a_job_that_restarts_in_a_new_runner(journal: Journal, work: Path) -> None:
    host = open_host(fake_verbs.URI)
    (work / "two.pause").touch()
    job = jobs.start_detached(plan_three(work), host, journal, program=WORKER)
    wait_for(work / "two.paused")
    os.kill(int(journal._claim_of(job.id).split(" ")[1]), signal.SIGKILL)
    assert jobs.wait(job.id, journal, 30).state is JobState.INTERRUPTED
    (work / "two.pause").unlink()
    jobs.restart_detached(job.id, host, journal, program=WORKER)
    assert jobs.wait(job.id, journal, 30).state is JobState.DONE
    with pytest.raises(WrongState, match="it is done"):
        jobs.restart_detached(job.id, host, journal, program=WORKER)


@pytest.mark.parametrize(
    ("program", "told"),
    [
        ((sys.executable, "-c", "import sys; sys.exit('no such\\x1b verb')"), "no such"),
        (("/no/such/program",), "No such file"),
        (("true",), "it said nothing"),
    ],
)
def test_a_runner_that_does_not_start_is_a_failed_job_that_holds_nothing(journal, work, program, told) -> None:
    host = open_host(fake_verbs.URI)
    with pytest.raises(HvtuiError, match=told):
        jobs.start_detached(plan_three(work), host, journal, program=program)
    job = journal.job(1)
    assert job.state is JobState.FAILED
    assert told in job.error
    assert journal.holder(None, vm_name="web") is None


def test_an_interrupted_job_whose_new_runner_does_not_start_stays_interrupted(journal: Journal, work: Path) -> None:
    host = open_host(fake_verbs.URI)
    (work / "two.pause").touch()
    job = jobs.start_detached(plan_three(work), host, journal, program=WORKER)
    wait_for(work / "two.paused")
    os.kill(int(journal._claim_of(job.id).split(" ")[1]), signal.SIGKILL)
    jobs.wait(job.id, journal, 30)
    with pytest.raises(HvtuiError, match="did not start"):
        jobs.restart_detached(job.id, host, journal, program=("false",))
    assert journal.job(job.id).state is JobState.INTERRUPTED
    assert jobs.rollback(job.id, host, journal).state is JobState.ROLLED_BACK
    assert not any(path.exists() for path in three_files(work))


def test_where_systemd_refuses_a_scope_the_runner_starts_without(journal, work, monkeypatch) -> None:
    monkeypatch.setattr(runner, "scope_command", lambda job_id: ("false",))
    job = jobs.start_detached(plan_three(work), open_host(fake_verbs.URI), journal, program=WORKER)
    assert jobs.wait(job.id, journal, 30).state is JobState.DONE


def test_a_job_of_a_host_simulated_in_this_process_runs_in_a_thread_of_it(journal: Journal, work: Path) -> None:
    host = open_host("test:///default")
    job = jobs.start_detached(plan_of([make_step(work / "one")], uri=host.uri), host, journal)
    assert jobs.wait(job.id, journal, 30).state is JobState.DONE
    host.close()


def test_a_job_for_another_host_is_not_started(journal: Journal, work: Path) -> None:
    with pytest.raises(UsageError, match="belongs to the host"):
        jobs.start_detached(plan_three(work), open_host("test:///default"), journal)
    assert journal.holder(None, vm_name="web") is None


def test_the_runner_process_gets_a_scope_only_where_that_outlives_the_session(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("host.job_process.user_name", lambda: "alice")
    assert runner.scope_command(7, root=tmp_path, is_root=True) == ()
    (tmp_path / "run/systemd/system").mkdir(parents=True)
    root = runner.scope_command(7, root=tmp_path, is_root=True)
    assert root[:4] == ("systemd-run", "--scope", "--quiet", "--collect")
    assert root[4].startswith("--unit=hvtui-job-7-")
    assert root[-1] == "--"
    assert runner.scope_command(7, root=tmp_path, is_root=False) == ()
    (tmp_path / "var/lib/systemd/linger").mkdir(parents=True)
    (tmp_path / "var/lib/systemd/linger/alice").touch()
    assert runner.scope_command(7, root=tmp_path, is_root=False)[:3] == ("systemd-run", "--user", "--scope")


def test_run_job_reads_the_job_and_its_host_from_the_journal(journal: Journal, work: Path) -> None:
    job = jobs.create(plan_three(work), journal)
    before = signal.getsignal(signal.SIGHUP)
    try:
        assert runner.run_job(job.id).state is JobState.DONE
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)
