"""The noun job: lists, undo, and what a job of a world that is gone can still do."""

from __future__ import annotations

from pathlib import Path

from host import job_sets, jobs
from host.connection import open_host
from host.journal import Journal
from host.plan import Lane, PlanSet
from hvtui.cli import job as job_commands
from tests.cli.conftest import Command
from tests.support.fake_verbs import make_step, plan_of


def test_jobs_are_listed_newest_first(hv: Command) -> None:
    hv("vm", "start", "build-07")
    hv("vm", "pause", "web-01")
    jobs = hv("job", "list", "-o", "json").json
    assert [job["id"] for job in jobs] == [2, 1]
    assert list(jobs[0]) == [column.key for column in job_commands.COLUMNS if not column.extra]
    assert hv("job", "list", "--vm", "web-01", "-o", "json").json[0]["id"] == 2
    assert hv("job", "list", "--state", "failed", "-o", "json").json == []
    assert "Pause web-01" in hv("job", "list").out


def test_no_jobs_yet_is_said(hv: Command) -> None:
    result = hv("job", "list")
    assert (result.code, result.out) == (0, "")
    assert "No jobs yet" in result.err


def test_a_job_is_shown_with_its_steps(hv: Command) -> None:
    hv("vm", "start", "build-07")
    shown = hv("job", "show", "1", "-o", "json").json[0]
    assert shown["steps"][0]["state"] == "done"
    assert "Start build-07" in hv("job", "show", "1").out


def test_an_unknown_job_is_not_found(hv: Command) -> None:
    for verb in ("show", "watch", "cancel", "restart", "rollback", "undo"):
        result = hv("job", verb, "77")
        assert (verb, result.code) == (verb, 3)
        assert "77" in result.err


def test_a_job_that_is_over_cannot_be_cancelled_or_run_again(hv: Command) -> None:
    hv("vm", "start", "build-07")
    assert hv("job", "cancel", "1").code == 4
    assert hv("job", "restart", "1", connect=None).code == 4
    assert hv("job", "rollback", "1", connect=None).code == 4


def test_watching_a_job_that_is_over_ends_with_its_code(hv: Command) -> None:
    hv("vm", "start", "build-07")
    assert hv("job", "watch", "1").code == 0
    assert hv("job", "watch", "1", "-o", "jsonl").json["state"] == "done"


def test_undo_shows_its_plan_and_finds_the_jobs_own_host(hv: Command) -> None:
    hv("vm", "set", "build-07", "owner=carol")
    result = hv("job", "undo", "1", "--dry-run", connect=None)
    assert result.code == 0
    assert "Undo job 1" in result.out


def test_undo_of_what_cannot_be_taken_back_says_why(hv: Command) -> None:
    hv("vm", "reset", "web-01")
    hv("vm", "discard-saved", "build-08", "--yes")
    last = hv("job", "list", "-o", "json").json[0]["id"]
    result = hv("job", "undo", str(last), connect=None)
    assert result.code == 9
    assert "saved state" in result.err


def test_a_job_of_another_host_is_refused(hv: Command) -> None:
    hv("vm", "start", "build-07")
    assert hv("job", "restart", "1", connect="test:///default").code in {2, 3}


def kept_job(simulated_uri: str, made: Path) -> int:
    """A failed job that was told to keep what it had made: the file `made`."""
    host = open_host(simulated_uri)
    plan = plan_of([make_step(made), make_step(made.with_name("second"), fail="no")], uri=simulated_uri)
    job = jobs.submit(plan, host, Journal(), keep_failed=True)
    host.close()
    return job.id


def test_a_rollback_shows_what_it_takes_back_and_asks_before_it_is_lost(
    hv: Command, simulated_uri: str, tmp_path: Path
) -> None:
    made = tmp_path / "first"
    job_id = str(kept_job(simulated_uri, made))
    shown = hv("job", "rollback", job_id, "--dry-run", connect=None)
    assert shown.code == 0
    assert f"lost: {made}" in shown.out
    assert shown.out.splitlines()[0].startswith(f"Roll back job {job_id}")
    refused = hv("job", "rollback", job_id, connect=None)
    assert refused.code == 2
    assert f"lost: {made}" in refused.err
    assert made.exists()
    assert hv("job", "rollback", job_id, "--yes", connect=None).code == 0
    assert not made.exists()
    assert hv("job", "rollback", job_id, "--dry-run", connect=None).code == 4


def test_a_list_that_matches_no_job_does_not_say_that_there_are_none(hv: Command) -> None:
    hv("vm", "start", "build-07")
    assert hv("job", "list", "--state", "running").err == "No job matches\n"
    assert hv("job", "list", "--vm", "web-01").err == "No job matches\n"


def test_the_jobs_of_a_vm_that_there_never_was_are_not_found(hv: Command) -> None:
    hv("vm", "rename", "build-07", "gone-07")
    result = hv("job", "list", "--vm", "web-1", "-o", "json")
    assert (result.code, result.out) == (3, "")
    assert "web-01" in result.err
    assert hv("job", "list", "--vm", "build-07", "--state", "failed").code == 0


def test_yes_and_no_are_written_alike_in_jobs_and_vms(hv: Command, simulated_uri: str, tmp_path: Path) -> None:
    job_id = str(kept_job(simulated_uri, tmp_path / "first"))
    shown = hv("job", "show", job_id).out
    assert "True" not in shown
    assert any(line.split() == ["kept", "yes"] for line in shown.splitlines())


def test_waiting_jobs_are_paused_resumed_and_put_first(hv: Command, tmp_path: Path) -> None:
    with Journal() as journal:
        lane = Lane("host:lab1", 1)
        for name in ("a", "b"):
            jobs.create(plan_of([make_step(tmp_path / name)], vm=name, title=f"Move {name}", lanes=[lane]), journal)
        assert hv("job", "pause", "1", "2").out == "Job 1: paused\nJob 2: paused\n"
        assert [job["paused"] for job in hv("job", "list", "-o", "json").json] == [True, True]
        assert "paused" in hv("job", "list").out
        assert hv("job", "resume", "2").out == "Job 2: queued\n"
        assert hv("job", "first", "2").out == "Job 2: queued, before the others\n"
        assert hv("job", "first", "77").code == 3


def test_a_set_is_paused_as_a_whole_or_one_of_it_alone(hv: Command, tmp_path: Path) -> None:
    plans = tuple(plan_of([make_step(tmp_path / name)], vm=name) for name in ("a", "b"))
    with Journal() as journal:
        job_sets.create(PlanSet("Move them", plans, ("vm", "x")), journal)
        hv("job", "pause", "1")
        assert [job.is_paused for job in journal.members(1)] == [True, True]
        hv("job", "resume", "1", "--only")
        assert [job.is_paused for job in journal.members(1)] == [False, True]
