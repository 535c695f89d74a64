"""Sets of jobs: all rows at once, preparations first, VMs beside each other, one failure that stops nobody else."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from host import job_sets, jobs, secrets
from host.connection import Host, open_host
from host.errors import Blocked, Busy, HvtuiError, NotFound, TimedOut, UsageError, WrongState
from host.job_model import Job, JobSet, JobState, in_sets
from host.job_rules import what_now_with_set
from host.journal import Journal
from host.plan import Blocker, Plan, PlanSet, Step
from tests.support import fake_verbs
from tests.support.fake_verbs import make_step, plan_of
from tests.support.waiting import wait_for

WORKER = (sys.executable, "-m", "tests.support.job_worker", "set")


@pytest.fixture
def journal() -> Iterator[Journal]:
    with Journal() as opened:
        yield opened


@pytest.fixture
def host() -> Iterator[Host]:
    opened = open_host(fake_verbs.URI)
    yield opened
    opened.close()


@pytest.fixture
def work(tmp_path: Path) -> Path:
    (tmp_path / "work").mkdir()
    return tmp_path / "work"


def making(work: Path, name: str, **args: str) -> Plan:
    """A plan that makes two files for the VM of that name."""
    steps = [make_step(work / f"{name}-disk"), make_step(work / f"{name}-vm", **args)]
    return plan_of(steps, vm=name, title=f"Make {name}")


def names(count: int) -> list[str]:
    return [f"web-{number:02}" for number in range(1, count + 1)]


def set_of(work: Path, count: int = 3, *, failing: str = "", preparation: str = "", **rest: object) -> PlanSet:
    """Makes `count` VMs after a preparation that makes the base; `failing` fails, `preparation` says why that does."""
    plans = tuple(making(work, name, **({"fail": "no space"} if name == failing else {})) for name in names(count))
    base = plan_of(
        [make_step(work / "base", **({"fail": preparation} if preparation else {}))], vm=None, title="Make the base"
    )
    values: dict[str, object] = {"title": "Deploy web-*", "plans": plans, "command": ("vm", "deploy", "web-*")}
    return PlanSet(**(values | {"preparations": (base,)} | rest))  # type: ignore[arg-type]


def states(found: tuple[Job, ...]) -> list[str]:
    return [job.state.value for job in found]


def made(work: Path) -> list[str]:
    return sorted(path.name for path in work.iterdir() if path.suffix not in {".pause", ".paused"})


def pause(work: Path, name: str) -> Path:
    path = work / f"{name}-vm.pause"
    path.touch()
    return path


def half_made(work: Path, name: str) -> bool:
    return (work / f"{name}-vm.paused").exists()


def run(plan_set: PlanSet, host: Host, journal: Journal) -> tuple[Job, ...]:
    created = job_sets.create(plan_set, journal)
    return job_sets.run_set(created[0].id, host, journal)


def runner_pid(journal: Journal, job_id: int) -> int:
    return int(journal._claim_of(job_id).split(" ")[1])


def test_all_jobs_of_a_set_are_created_at_once_and_hold_their_vms(journal: Journal, work: Path) -> None:
    created = job_sets.create(set_of(work), journal)
    assert [(job.id, job.set_id, job.is_preparation) for job in created] == [
        (1, 1, True),
        (2, 1, False),
        (3, 1, False),
        (4, 1, False),
    ]
    assert {(job.set_title, job.set_command) for job in created} == {("Deploy web-*", ("vm", "deploy", "web-*"))}
    assert states(created) == ["queued"] * 4
    assert job_sets.members(1, journal) == created
    assert journal.holder(None, vm_name="web-02") == created[2]
    assert journal.recover() == ()


def test_a_job_alone_belongs_to_no_set(journal: Journal, work: Path) -> None:
    assert jobs.create(making(work, "web"), journal).set_id is None
    with pytest.raises(NotFound, match="no set of jobs 1"):
        job_sets.members(1, journal)


def test_a_set_runs_its_preparations_first_and_then_every_vm(journal: Journal, host: Host, work: Path) -> None:
    begun: list[int] = []
    created = job_sets.create(set_of(work, 6), journal)
    lock = threading.Lock()

    def seen(job: Job) -> None:
        with lock:
            if job.id not in begun:
                begun.append(job.id)

    ended = job_sets.run_set(1, host, journal, seen)
    assert states(ended) == ["done"] * 7
    assert begun[0] == created[0].id
    assert sorted(begun) == [job.id for job in created]
    assert len(made(work)) == 13
    assert JobSet(ended).state is JobState.DONE
    assert JobSet(ended).progress == 1.0


def test_four_vms_are_worked_on_beside_each_other(journal: Journal, host: Host, work: Path) -> None:
    pauses = [pause(work, name) for name in names(6)]
    job_sets.create(set_of(work, 6), journal)
    thread = threading.Thread(target=job_sets.run_set, args=(1, host, journal), daemon=True)
    thread.start()
    wait_for(lambda: sum(half_made(work, name) for name in names(6)) == 4)
    assert states(job_sets.members(1, journal)) == ["done"] + ["running"] * 4 + ["queued"] * 2
    for each in pauses:
        each.unlink()
    thread.join(30)
    assert states(job_sets.members(1, journal)) == ["done"] * 7


def test_one_failure_rolls_back_only_itself_and_stops_nobody(journal: Journal, host: Host, work: Path) -> None:
    ended = run(set_of(work, 5, failing="web-02"), host, journal)
    assert states(ended) == ["done", "done", "failed", "done", "done", "done"]
    assert not any(name.startswith("web-02") for name in made(work))
    assert len(made(work)) == 9
    assert JobSet(ended).state is JobState.FAILED
    assert JobSet(ended).counts == {JobState.DONE: 4, JobState.FAILED: 1}


def test_what_fails_is_kept_when_that_is_wanted(journal: Journal, host: Host, work: Path) -> None:
    created = job_sets.create(set_of(work, 2, failing="web-01"), journal, keep_failed=True)
    ended = job_sets.run_set(created[0].id, host, journal)
    assert [job.kept for job in ended] == [False, True, False]
    assert "web-01-disk" in made(work)


def test_when_a_preparation_fails_nothing_else_begins_and_each_says_why(
    journal: Journal, host: Host, work: Path
) -> None:
    ended = run(set_of(work, preparation="no such image"), host, journal)
    assert states(ended) == ["failed", "cancelled", "cancelled", "cancelled"]
    assert made(work) == []
    for job in ended[1:]:
        assert job.error == "not begun: job 1 has failed (Make the base: base: no such image)"
        assert job.exit_code == ended[0].exit_code == 1
        assert "restart" in job.remedy
        assert journal.holder(None, vm_name=job.vm_name) is None


def test_a_set_with_a_vm_that_another_job_holds_is_refused_as_a_whole(journal: Journal, work: Path) -> None:
    holder = jobs.create(making(work, "web-03"), journal)
    with pytest.raises(Busy, match=f"job {holder.id}") as refused:
        job_sets.create(set_of(work), journal)
    assert refused.value.about == "web-03"
    assert journal.jobs() == (holder,)
    assert journal.holder(None, vm_name="web-01") is None


def test_a_blocked_set_is_not_created(journal: Journal, work: Path) -> None:
    plan_set = set_of(work)
    blocked = replace(plan_set.plans[1], blockers=(Blocker("its name is taken", "Choose another"),))
    with pytest.raises(Blocked, match="web-02: its name is taken"):
        job_sets.create(replace(plan_set, plans=(plan_set.plans[0], blocked)), journal)
    with pytest.raises(WrongState, match="the pool is off"):
        job_sets.create(replace(plan_set, blockers=(Blocker.wrong_state("the pool is off"),)), journal)
    assert journal.jobs() == ()


def test_a_set_that_makes_no_sense_is_refused(journal: Journal, work: Path, host: Host) -> None:
    plan_set = set_of(work)
    with pytest.raises(UsageError, match="nothing to do"):
        job_sets.create(replace(plan_set, plans=()), journal)
    with pytest.raises(UsageError, match="named twice"):
        job_sets.create(replace(plan_set, plans=(plan_set.plans[0], plan_set.plans[0])), journal)
    elsewhere = replace(plan_set.plans[0], host_uri="test:///default")
    with pytest.raises(UsageError, match="a simulated host has no part"):
        job_sets.create(replace(plan_set, plans=(elsewhere,)), journal)
    with pytest.raises(UsageError, match="belongs to the host"):
        job_sets.start_detached_set(replace(plan_set, plans=(elsewhere,), preparations=()), host, journal)
    assert journal.jobs() == ()


def test_restarting_a_set_does_what_is_not_done_and_leaves_the_rest_alone(
    journal: Journal, host: Host, work: Path
) -> None:
    blocked = work / "web-02-vm"
    blocked.mkdir()
    ended = run(set_of(work), host, journal)
    assert states(ended) == ["done", "done", "interrupted", "done"]  # what is in its way cannot be rolled back
    blocked.rmdir()
    made_at = (work / "web-01-vm").stat().st_mtime_ns
    job_sets.restart_set(1, host, journal, program=WORKER)
    assert states(job_sets.wait_set(1, journal, 30)) == ["done"] * 4
    assert (work / "web-01-vm").stat().st_mtime_ns == made_at
    assert blocked.read_text() == "whole"
    with pytest.raises(WrongState, match="it is done"):
        job_sets.restart_set(1, host, journal, program=WORKER)


def test_a_set_whose_preparation_failed_is_completed_by_a_restart(journal: Journal, host: Host, work: Path) -> None:
    (work / "base").mkdir()
    plan_set = set_of(work)
    ended = run(plan_set, host, journal)
    assert states(ended) == ["interrupted", "cancelled", "cancelled", "cancelled"]
    (work / "base").rmdir()
    job_sets.restart_set(1, host, journal, program=WORKER)
    assert states(job_sets.wait_set(1, journal, 30)) == ["done"] * 4


def test_a_running_set_is_not_restarted(journal: Journal, work: Path, host: Host) -> None:
    job_sets.create(set_of(work), journal)
    with pytest.raises(WrongState, match="it is queued"):
        job_sets.restart_set(1, host, journal)


def test_cancelling_ends_what_waits_at_once_and_rolls_back_what_runs(journal: Journal, host: Host, work: Path) -> None:
    pause(work, "web-02")
    job_sets.create(set_of(work, 8), journal)
    for name in names(8)[2:]:
        pause(work, name)
    thread = threading.Thread(target=job_sets.run_set, args=(1, host, journal), daemon=True)
    thread.start()
    wait_for(lambda: sum(half_made(work, name) for name in names(8)) == 4)
    now = job_sets.cancel_set(1, journal)
    assert states(now)[-3:] == ["cancelled"] * 3
    assert journal.holder(None, vm_name="web-08") is None
    thread.join(30)
    ended = job_sets.wait_set(1, journal, 30)
    assert states(ended) == ["done", "done"] + ["cancelled"] * 7
    assert {job.exit_code for job in ended[2:]} == {130}
    assert made(work) == ["base", "web-01-disk", "web-01-vm"]
    with pytest.raises(WrongState, match="it is cancelled already"):
        job_sets.cancel_set(1, journal)


def test_a_member_that_is_cancelled_before_it_began_is_passed_over(journal: Journal, host: Host, work: Path) -> None:
    job_sets.create(set_of(work), journal)
    jobs.cancel(3, journal)
    assert states(job_sets.run_set(1, host, journal)) == ["done", "done", "cancelled", "done"]


def test_a_cancelled_preparation_calls_the_others_off(journal: Journal, host: Host, work: Path) -> None:
    job_sets.create(set_of(work), journal)
    jobs.cancel(1, journal)
    ended = job_sets.run_set(1, host, journal)
    assert states(ended) == ["cancelled"] * 4
    assert {job.exit_code for job in ended} == {130}


def test_a_half_made_member_that_waits_again_is_rolled_back_by_a_cancel(
    journal: Journal, host: Host, work: Path
) -> None:
    blocked = work / "web-01-vm"
    blocked.mkdir()
    run(set_of(work, 1), host, journal)
    blocked.rmdir()
    journal.claim_set(1, accept=(JobState.INTERRUPTED,))
    job_sets.cancel_set(1, journal)
    assert states(job_sets.members(1, journal)) == ["done", "queued"]  # its disk is there: only its rollback ends it
    assert states(job_sets.run_set(1, host, journal)) == ["done", "cancelled"]
    assert made(work) == ["base"]


def test_an_interrupted_set_is_given_up_as_a_job_is(journal: Journal, host: Host, work: Path) -> None:
    (work / "web-01-vm").mkdir()
    run(set_of(work, 2), host, journal)
    assert states(job_sets.cancel_set(1, journal)) == ["done", "cancelled", "done"]
    assert (work / "web-01-disk").exists()
    assert journal.holder(None, vm_name="web-01") is None


def test_one_process_runs_a_set_and_outlives_who_started_it(journal: Journal, host: Host, work: Path) -> None:
    paused = pause(work, "web-01")
    found = job_sets.start_detached_set(set_of(work), host, journal, program=WORKER)
    wait_for(lambda: half_made(work, "web-01"))
    pids = {runner_pid(journal, job.id) for job in found}
    assert len(pids) == 1
    (pid,) = pids
    assert pid != os.getpid()
    assert os.getsid(pid) == pid
    os.kill(pid, signal.SIGHUP)
    assert journal.recover() == ()
    with pytest.raises(TimedOut, match="set 1"):
        job_sets.wait_set(1, journal, 0.01)
    paused.unlink()
    seen: list[tuple[Job, ...]] = []
    ended = job_sets.wait_set(1, journal, 30, seen.append)
    assert states(ended) == ["done"] * 4
    assert seen[-1] == ended


@pytest.mark.parametrize("point", ["base", "web-01", "web-03"])
def test_a_set_whose_runner_is_killed_anywhere_is_completed_by_a_restart(
    journal: Journal, host: Host, work: Path, point: str
) -> None:
    at = work / ("base" if point == "base" else f"{point}-vm")
    stop = at.with_name(at.name + ".pause")
    stop.touch()
    job_sets.start_detached_set(set_of(work, 6), host, journal, program=WORKER)
    wait_for(at.with_name(at.name + ".paused").exists)
    os.kill(runner_pid(journal, 1 if point == "base" else 1 + names(6).index(point) + 1), signal.SIGKILL)
    ended = job_sets.wait_set(1, journal, 30)
    assert {job.state for job in ended} <= {JobState.INTERRUPTED, JobState.DONE}
    assert JobSet(ended).state is JobState.INTERRUPTED
    for job in ended:
        has_begun = any(step.has_begun for step in job.steps)
        held = journal.holder(None, vm_name=job.vm_name) if job.vm_name else None
        assert (held == job) == (job.state is JobState.INTERRUPTED and has_begun and job.vm_name is not None)
    stop.unlink()
    job_sets.restart_set(1, host, journal, program=WORKER)
    assert states(job_sets.wait_set(1, journal, 30)) == ["done"] * 7
    assert len(made(work)) == 13


def test_a_killed_set_is_taken_back_member_by_member_without_a_trace(journal: Journal, host: Host, work: Path) -> None:
    for name in names(3):
        pause(work, name)
    job_sets.start_detached_set(set_of(work), host, journal, program=WORKER)
    wait_for(lambda: all(half_made(work, name) for name in names(3)))
    os.kill(runner_pid(journal, 2), signal.SIGKILL)
    for job in job_sets.wait_set(1, journal, 30)[1:]:
        assert jobs.rollback(job.id, host, journal).state is JobState.ROLLED_BACK
    assert made(work) == ["base"]


def test_a_set_whose_process_does_not_start_has_failed_and_holds_nothing(
    journal: Journal, host: Host, work: Path
) -> None:
    with pytest.raises(HvtuiError, match="did not start"):
        job_sets.start_detached_set(set_of(work), host, journal, program=("false",))
    assert states(job_sets.members(1, journal)) == ["failed"] * 4
    assert journal.holder(None, vm_name="web-01") is None


def test_a_starter_that_is_killed_before_the_runner_began_leaves_a_set_that_restarts(
    journal: Journal, host: Host, work: Path
) -> None:
    code = (
        "import os, signal, sys; from pathlib import Path; from host import job_sets; from host.journal import Journal;"
        "from tests.unit.test_job_sets import set_of; job_sets.create(set_of(Path(sys.argv[1])), Journal());"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    subprocess.run([sys.executable, "-c", code, str(work)], check=False)
    assert states(journal.recover()) == ["interrupted"] * 4
    assert journal.holder(None, vm_name="web-01") is None
    job_sets.restart_set(1, host, journal, program=WORKER)
    assert states(job_sets.wait_set(1, journal, 30)) == ["done"] * 4


def test_on_a_host_simulated_in_this_process_a_set_runs_in_threads_of_it(journal: Journal, work: Path) -> None:
    host = open_host("test:///default")
    plans = tuple(replace(plan, host_uri=host.uri) for plan in set_of(work).plans)
    plan_set = set_of(work, plans=plans, preparations=())
    job_sets.start_detached_set(plan_set, host, journal)
    assert states(job_sets.wait_set(1, journal, 30)) == ["done"] * 3
    host.close()


def test_a_set_whose_journal_breaks_is_found_interrupted_by_the_same_process(
    journal: Journal, host: Host, work: Path
) -> None:
    def break_it(job: Job) -> None:
        journal._database.execute("PRAGMA query_only=1")

    job_sets.create(set_of(work), journal)
    with pytest.raises(HvtuiError, match="no permission to write"):
        job_sets.run_set(1, host, journal, break_it)
    journal._database.execute("PRAGMA query_only=0")
    assert states(journal.recover()) == ["interrupted"] * 4


def test_the_secrets_of_a_set_stay_a_day_for_those_that_are_not_done(journal: Journal, host: Host, work: Path) -> None:
    one, two = (
        plan_of(
            [Step("fake.make", "Make", {"path": str(work / name), "text": secrets.offer("s3cret")}), *more],
            vm=name,
        )
        for name, more in (("web-01", ()), ("web-02", (make_step(work / "x", fail="no"),)))
    )
    ended = run(PlanSet("Two", (one, two), ("x",)), host, journal)
    assert states(ended) == ["done", "failed"]
    assert secrets.jobs_with_secrets() == (2,)
    journal.recover()
    assert secrets.jobs_with_secrets() == (2,)
    before = (datetime.now(UTC) - timedelta(days=1, minutes=1)).isoformat()
    journal._database.execute("UPDATE jobs SET finished_at = ?", (before,))
    journal.recover()
    assert secrets.jobs_with_secrets() == ()


def test_the_newest_jobs_come_with_their_sets_whole(journal: Journal, host: Host, work: Path) -> None:
    jobs.submit(making(work, "first"), host, journal)
    run(set_of(work, 4), host, journal)
    jobs.submit(making(work, "last"), host, journal)
    assert [job.id for job in journal.newest(2)] == [7, 6, 5, 4, 3, 2]
    entries = in_sets(journal.newest(3))
    assert [entry.id for entry in entries] == [7, 2, 1]
    assert isinstance(entries[1], JobSet)
    assert [job.id for job in entries[1].jobs] == [2, 3, 4, 5, 6]
    assert [job.id for job in entries[1].main] == [3, 4, 5, 6]
    assert entries[1].title == "Deploy web-*"


def test_old_sets_are_forgotten_as_a_whole(host: Host, work: Path) -> None:
    with Journal(keep=3) as journal:
        run(set_of(work, 3, preparations=()), host, journal)
        jobs.submit(making(work, "one"), host, journal)
        journal.prune()
        assert [job.id for job in journal.jobs()] == [4, 3, 2, 1]  # three are kept, and two of them need the third
        for name in ("two", "three"):
            jobs.submit(making(work, name), host, journal)
        journal.prune()
        assert [job.id for job in journal.jobs()] == [6, 5, 4]
        assert journal._database.execute("SELECT * FROM sets").fetchall() == []


def test_the_state_of_a_set_is_the_worst_of_its_members(journal: Journal, work: Path) -> None:
    queued = job_sets.create(set_of(work, 2, preparations=()), journal)
    first, second = queued
    assert JobSet(queued).state is JobState.QUEUED
    for states_of, expected in (
        ((JobState.DONE, JobState.QUEUED), JobState.RUNNING),
        ((JobState.DONE, JobState.FAILED), JobState.FAILED),
        ((JobState.INTERRUPTED, JobState.FAILED), JobState.INTERRUPTED),
        ((JobState.DONE, JobState.CANCELLED), JobState.CANCELLED),
        ((JobState.DONE, JobState.ROLLED_BACK), JobState.ROLLED_BACK),
    ):
        one, two = (replace(job, state=state) for job, state in zip((first, second), states_of, strict=True))
        assert JobSet((one, two)).state is expected
    assert JobSet((replace(first, state=JobState.FAILED), second)).progress == 0.5


def test_a_set_of_which_nothing_was_done_has_come_nowhere(journal: Journal, work: Path) -> None:
    first, second = job_sets.create(set_of(work, 2, preparations=()), journal)
    nothing = JobSet((replace(first, state=JobState.CANCELLED), replace(second, state=JobState.CANCELLED)))
    assert nothing.progress == 0.0
    assert f"restart {nothing.id}'" in what_now_with_set(nothing)


def test_what_to_do_about_a_finished_set_means_all_of_it(journal: Journal, work: Path) -> None:
    created = job_sets.create(set_of(work, 2, preparations=()), journal)
    done = JobSet(tuple(replace(job, state=JobState.DONE) for job in created))
    assert what_now_with_set(done) == f"Take it back with 'hvtui job undo {done.id} --set'"
    half = JobSet((done.jobs[0], replace(created[1], state=JobState.CANCELLED)))
    assert f"restart {half.id}'" in what_now_with_set(half)
    assert f"undo {half.id} --set'" in what_now_with_set(half)
