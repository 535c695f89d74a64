"""Jobs whose process is killed, and jobs of several processes. The processes are real ones."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from host import job_process, jobs
from host.connection import Host, open_host
from host.errors import Busy, WrongState
from host.job_model import JobState, StepState
from host.job_schema import ClaimLost, JournalDenied
from host.journal import Journal
from tests.support import fake_verbs
from tests.support.fake_verbs import make_step, plan_of, plan_three, three_files
from tests.support.private_libvirtd import PrivateLibvirtd

Start = Callable[[str, Path | str], subprocess.Popen[bytes]]
NO_PROCESS = "other-boot 1 1 -"


@pytest.fixture
def start() -> Iterator[Start]:
    """Start tests.support.job_worker; what is left of it is killed after the test."""
    started: list[subprocess.Popen[bytes]] = []

    def start_worker(what: str, argument: Path | str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "tests.support.job_worker", what, str(argument)]
        started.append(subprocess.Popen(command, stdin=subprocess.PIPE))
        return started[-1]

    yield start_worker
    for process in started:
        process.kill()
        process.wait()
        assert process.stdin is not None
        process.stdin.close()


@pytest.fixture
def journal() -> Iterator[Journal]:
    with Journal() as opened:
        yield opened


@pytest.fixture
def host() -> Host:
    return open_host(fake_verbs.URI)


@pytest.fixture
def work(tmp_path: Path) -> Path:
    (tmp_path / "work").mkdir()
    return tmp_path / "work"


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + 30
    while not path.exists():
        assert time.monotonic() < deadline, f"{path} never came"
        time.sleep(0.01)


def kill_in_step(number: int, work: Path, start: Start) -> None:
    paused = three_files(work)[number]
    pause = paused.with_name(paused.name + ".pause")
    pause.touch()
    worker = start("three", work)
    wait_for(paused.with_name(paused.name + ".paused"))
    worker.kill()
    os.waitid(os.P_PID, worker.pid, os.WEXITED | os.WNOWAIT)  # dead, and a zombie until the test's end
    pause.unlink()
    paused.with_name(paused.name + ".paused").unlink()


@pytest.mark.parametrize("number", [0, 1, 2])
def test_a_job_killed_in_any_step_is_found_interrupted_and_completed(number, work, start, journal, host) -> None:
    kill_in_step(number, work, start)
    (found,) = journal.recover()
    assert (found.state, found.exit_code) == (JobState.INTERRUPTED, 1)
    assert "killed" in found.error
    assert f"restart {found.id}" in found.remedy
    assert [step.state for step in found.steps][number] is StepState.FAILED
    assert journal.job(found.id) == found
    assert journal.recover() == ()
    assert jobs.restart(found.id, host, journal).state is JobState.DONE
    assert [path.read_text() for path in three_files(work)] == ["whole"] * 3


@pytest.mark.parametrize("number", [0, 1, 2])
def test_a_job_killed_in_any_step_is_rolled_back_without_a_trace(number, work, start, journal, host) -> None:
    kill_in_step(number, work, start)
    (found,) = journal.recover()
    assert jobs.rollback(found.id, host, journal).state is JobState.ROLLED_BACK
    assert list(work.iterdir()) == []
    assert journal.holder(None, vm_name="web") is None


def test_an_interrupted_job_keeps_its_vm_until_it_is_completed_or_taken_back(work, start, journal, host) -> None:
    kill_in_step(1, work, start)
    with pytest.raises(Busy) as refused:
        jobs.create(plan_three(work), journal)
    assert "interrupted" in str(refused.value)
    assert "restart 1" in str(refused.value)
    assert "rollback 1" in str(refused.value)


def test_a_job_that_had_not_begun_lets_go_of_its_vm_when_its_process_is_gone(work, start, journal, host) -> None:
    racer = start("race", work)
    racer.stdin.write(b"go\n")
    racer.stdin.flush()
    while not journal.jobs():
        time.sleep(0.01)
    with pytest.raises(Busy):
        jobs.create(plan_three(work), journal)
    racer.kill()
    racer.wait()
    second = jobs.create(plan_three(work), journal)
    first = journal.job(1)
    assert (first.state, second.state) == (JobState.INTERRUPTED, JobState.QUEUED)
    assert "Nothing of it was left behind" in first.remedy


def test_of_two_processes_that_race_for_a_vm_one_gets_it(work, start, journal) -> None:
    racers = [start("race", work) for _ in range(4)]
    for racer in racers:
        racer.stdin.write(b"go\n")
        racer.stdin.flush()
    deadline = time.monotonic() + 30
    while sum(racer.poll() is not None for racer in racers) < 3 and time.monotonic() < deadline:
        time.sleep(0.01)
    for racer in racers:
        racer.stdin.close()
    assert sorted(racer.wait(30) for racer in racers) == [0, 4, 4, 4]
    assert len(journal.jobs()) == 1


def test_a_job_is_cancelled_from_another_process(work, start, journal) -> None:
    (work / "two.pause").touch()
    worker = start("three", work)
    wait_for(work / "two.paused")
    jobs.cancel(1, journal)
    assert worker.wait(60) == 130
    assert journal.job(1).state is JobState.CANCELLED
    assert not any(path.exists() for path in three_files(work))


def test_waiting_notices_that_the_process_of_a_job_is_gone(work, start, journal) -> None:
    (work / "two.pause").touch()
    worker = start("three", work)
    wait_for(work / "two.paused")
    worker.kill()
    assert jobs.wait(1, journal, 20).state is JobState.INTERRUPTED
    (work / "one").unlink()


def test_a_running_job_of_a_living_process_is_left_alone(work, start, journal, host) -> None:
    (work / "two.pause").touch()
    worker = start("three", work)
    wait_for(work / "two.paused")
    assert journal.recover() == ()
    for act in (jobs.restart, jobs.rollback):
        with pytest.raises(WrongState, match="it is running"):
            act(1, host, journal)
    worker.send_signal(signal.SIGTERM)
    worker.wait(60)
    assert [job.state for job in journal.recover()] == [JobState.INTERRUPTED]


def test_a_process_that_lost_its_job_to_another_stops_and_touches_nothing(work, journal, host) -> None:
    def take_over(job) -> None:
        if job.steps[1].state is StepState.RUNNING:
            journal._database.execute("UPDATE jobs SET claim = ?", (NO_PROCESS,))

    with pytest.raises(ClaimLost):
        jobs.submit(plan_three(work), host, journal, take_over)
    assert (work / "one").exists()
    assert [job.state for job in journal.recover()] == [JobState.INTERRUPTED]


def test_a_job_whose_work_ended_without_its_journal_is_found_by_the_same_process(work, journal, host) -> None:
    def close(job) -> None:
        if job.steps[1].state is StepState.RUNNING:
            journal._database.execute("PRAGMA query_only=1")

    with pytest.raises(JournalDenied, match="no permission to write"):
        jobs.submit(plan_three(work), host, journal, close)
    journal._database.execute("PRAGMA query_only=0")
    assert [job.state for job in journal.recover()] == [JobState.INTERRUPTED]
    assert jobs.restart(1, host, journal).state is JobState.DONE


def test_claims_know_a_reused_pid_another_boot_and_a_dead_process() -> None:
    mine = job_process.claim_here()
    boot, pid, started, nonce = mine.split(" ")
    assert job_process.is_alive(mine)
    assert job_process.is_alive(job_process.claim_of(os.getppid()))
    assert not job_process.is_alive(f"{boot} {os.getppid()} {started}0 -")
    assert not job_process.is_alive(f"other-boot {pid} {started} {nonce}")
    assert not job_process.is_alive("rubbish")
    assert not job_process.is_alive(job_process.claim_of(2**22 + 1))
    job_process.release(mine)
    assert not job_process.is_alive(mine)


def test_the_user_is_the_one_behind_sudo(monkeypatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setenv("SUDO_USER", "alice")
    assert job_process.user_name() == "alice"
    monkeypatch.delenv("SUDO_USER")
    monkeypatch.setattr(job_process, "_read", lambda path: "4294967295")
    monkeypatch.setattr(os, "getuid", lambda: 0)
    assert job_process.user_name() == "root"
    monkeypatch.setattr(job_process, "_read", lambda path: "54321")
    assert job_process.user_name() == "54321"


def test_a_job_goes_on_after_its_libvirtd_was_killed_and_started_again(journal: Journal, work: Path) -> None:
    with PrivateLibvirtd() as daemon:
        uri = daemon.test_uri()
        host = open_host(uri)
        step = make_step(work / "one")
        ask = plan_of([step, fake_verbs.ask_step(work / "asked")], uri=uri)
        pids = daemon.libvirtd_pids()

        def kill_it(job) -> None:
            if job.steps[1].state is StepState.RUNNING and daemon.libvirtd_pids() == pids:
                daemon.kill()
            elif job.steps[1].note.startswith("connection lost") and not daemon.libvirtd_pids():
                daemon.start()

        host.connection()
        job = jobs.submit(ask, host, journal, kill_it)
        host.close()
        assert (job.state, job.error) == (JobState.DONE, "")
        assert daemon.libvirtd_pids() != pids
        assert (work / "asked").exists()
