"""Ctrl-C, time limits and lost races while jobs run: what runs is cancelled cleanly, what waits is not started."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from host import jobs
from host.errors import Cancelled, WrongState
from host.job_model import Job, JobState
from host.journal import Journal
from hvtui.cli.change import Outcome, change, report
from hvtui.cli.output import Format
from hvtui.cli.progress import Progress, bar, show_job
from hvtui.cli.session import Session
from tests.support import fake_verbs
from vm import inventory, lifecycle, lifecycle_steps

WORKS = 6


@pytest.fixture
def session(simulated_uri: str) -> Session:
    return Session(given={"connect": simulated_uri, "output": Format.JSON})


@pytest.fixture
def paused_files(tmp_path: Path) -> list[Path]:
    """Files whose making stops in the middle until the job is cancelled."""
    files = [tmp_path / f"file-{number}" for number in range(WORKS)]
    for file in files:
        file.with_name(file.name + ".pause").touch()
    return files


def plans(session: Session, files: list[Path]) -> list[tuple[str, None, Callable[[], object]]]:
    uri = session.host().uri
    return [
        (file.name, None, lambda file=file: fake_verbs.plan_of([fake_verbs.make_step(file)], vm=file.name, uri=uri))
        for file in files
    ]


def interrupt_once_paused(files: list[Path], *, wanted: int) -> threading.Thread:
    """Press Ctrl-C as soon as `wanted` of the files are half made."""

    def press() -> None:
        while sum(file.with_name(file.name + ".paused").exists() for file in files) < wanted:
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=press, daemon=True)
    thread.start()
    return thread


def test_ctrl_c_cancels_what_runs_starts_no_more_and_leaves_nothing(
    session: Session, paused_files: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    presser = interrupt_once_paused(paused_files, wanted=4)
    code = change(session, plans(session, paused_files))  # type: ignore[arg-type]
    presser.join()
    assert code == 130
    assert [file for file in paused_files if file.exists()] == []
    assert {job.state for job in Journal().jobs()} == {JobState.CANCELLED}
    assert len(Journal().jobs()) == 4
    told = capsys.readouterr()
    assert told.out.count('"exit_code": 130') == WORKS
    assert "Interrupted" in told.err


def test_a_job_that_the_user_cancels_is_not_told_as_failed(
    session: Session, paused_files: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    session.given["output"] = Format.TABLE
    paused_files[0].with_name(paused_files[0].name + ".pause").unlink()

    def cancel_once_paused() -> None:
        while not paused_files[1].with_name(paused_files[1].name + ".paused").exists():
            time.sleep(0.01)
        with Journal() as journal:
            jobs.cancel(next(job.id for job in journal.jobs() if job.vm_name == paused_files[1].name), journal)

    canceller = threading.Thread(target=cancel_once_paused, daemon=True)
    canceller.start()
    code = change(session, plans(session, paused_files[:2]))  # type: ignore[arg-type]
    canceller.join()
    assert code == 130
    told = capsys.readouterr().err
    assert "1 done, 1 cancelled" in told
    assert "failed" not in told


def test_what_failed_beside_what_was_cancelled_is_counted_apart(
    session: Session, capsys: pytest.CaptureFixture[str]
) -> None:
    session.given["output"] = Format.TABLE
    errors = [Cancelled("cancelled by the user"), WrongState("it runs"), None]
    outcomes = [Outcome(f"vm-{place}", None, error=error) for place, error in enumerate(errors)]
    assert report(session, outcomes) == 1
    told = capsys.readouterr()
    assert "1 done, 1 cancelled, 1 failed" in told.err
    assert "vm-0  cancelled" in told.out


def test_one_that_was_cancelled_says_how_it_goes_on(
    session: Session, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = fake_verbs.plan_of([fake_verbs.make_step(tmp_path / "file")], uri="qemu:///system")
    job = replace(jobs.create(plan, Journal()), state=JobState.CANCELLED, error="cancelled by the user")
    assert report(session, [Outcome("web", None, plan, job)]) == 130
    assert f"run it again with 'hvtui job restart {job.id}'" in capsys.readouterr().err


def test_turning_off_ends_a_job_that_only_waits_for_the_guest(
    session: Session, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    silent = replace(lifecycle_steps._SHUTDOWN, agent=lambda _domain: None, acpi=lambda _domain: None)
    monkeypatch.setattr(lifecycle_steps, "_SHUTDOWN", silent)
    host, journal = session.host(), session.journal()
    vm = inventory.find(host, "web-02")
    waiting = jobs.create(lifecycle.plan_stop(host, vm), journal)
    runner = threading.Thread(target=jobs.run, args=(waiting.id, host, journal))
    runner.start()
    assert change(session, [(vm.name, vm.uuid, lambda: lifecycle.plan_off(host, vm))]) == 0
    runner.join()
    assert f"job {waiting.id} (Shut down web-02) only waits for the guest" in capsys.readouterr().err
    assert [job.state for job in journal.jobs()] == [JobState.DONE, JobState.CANCELLED]
    assert not inventory.find(host, "web-02").is_active


def test_a_time_limit_cancels_and_ends_with_7(session: Session, paused_files: list[Path]) -> None:
    session.given["timeout"] = 0.3
    assert change(session, plans(session, paused_files[:1])) == 7  # type: ignore[arg-type]
    assert not paused_files[0].exists()


def test_a_job_that_fails_ends_with_its_code_and_its_remedy(
    session: Session, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    step = fake_verbs.make_step(tmp_path / "file", fail="no room\x1b[31m")
    plan = fake_verbs.plan_of([step], uri=session.host().uri)
    assert change(session, [("web", None, lambda: plan)]) == 1
    told = capsys.readouterr()
    assert "no room" in told.err
    assert "Try less" in told.err
    assert "\x1b" not in told.err
    assert not (tmp_path / "file").exists()


def test_what_fails_is_kept_when_that_is_wanted(session: Session, tmp_path: Path) -> None:
    plan = fake_verbs.plan_of([fake_verbs.make_step(tmp_path / "file", fail="no")], uri=session.host().uri)
    assert change(session, [("web", None, lambda: plan)], keep_failed=True) == 1
    assert (tmp_path / "file").exists()
    assert Journal().job(1).kept


def test_a_plan_that_cannot_be_made_is_that_vms_failure_alone(
    session: Session, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse() -> None:
        raise WrongState("it is gone", about="web-9")

    made = fake_verbs.plan_of([fake_verbs.make_step(tmp_path / "file")], uri=session.host().uri)
    assert change(session, [("web-9", None, refuse), ("web", None, lambda: made)]) == 4  # type: ignore[list-item]
    assert (tmp_path / "file").exists()
    assert '"vm": "web-9"' in capsys.readouterr().out


def test_a_defect_in_a_step_is_a_failed_job_without_a_traceback(
    session: Session, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = fake_verbs.plan_of([fake_verbs.Step("fake.explode", "Explode", {})], uri=session.host().uri)
    assert change(session, [("web", None, lambda: plan)]) == 1
    assert "Traceback" not in capsys.readouterr().err


def running(tmp_path: Path, host_uri: str) -> Job:
    plan = fake_verbs.plan_of(
        [fake_verbs.make_step(tmp_path / "a"), fake_verbs.make_step(tmp_path / "b")], uri=host_uri
    )
    return jobs.create(plan, Journal())


def test_progress_without_a_terminal_is_plain_lines_told_once(
    session: Session, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    job = running(tmp_path, session.host().uri)
    with Progress() as progress:
        show_job(progress, job)
        show_job(progress, job)
        progress.bar_only("3 of 9", 0.3)
    assert capsys.readouterr().err == "Make it\n"


def test_progress_on_a_terminal_redraws_one_line(
    session: Session, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    with Progress() as progress:
        show_job(progress, running(tmp_path, session.host().uri))
        progress.bar_only("3 of 9", 0.3)
    seen = capsys.readouterr().err
    assert "\n" not in seen
    assert seen.endswith("\r\x1b[K")
    assert "30%" in seen


def test_figures_are_not_cut_off_at_80_columns(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "80")
    figures = "34M of 128M left, 118M/s, downtime 40 ms"
    with Progress() as progress:
        progress.show("Move web-01 to a-host-of-the-far-end (live): Migrate it live", 0.73, detail=figures)
        progress.clear()
    line = capsys.readouterr().err.split("\r")[1].removesuffix("\x1b[K")
    assert " 73%  Move web" in line
    assert line.endswith(figures)
    assert len(line) <= 80


def test_a_bar_is_full_at_one_and_absent_while_unknown() -> None:
    assert bar(None) == ""
    assert bar(0.5).startswith("▓" * 10 + "░" * 10)
    assert "100%" in bar(7.0)
