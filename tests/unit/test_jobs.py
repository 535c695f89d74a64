"""Jobs within one process: running, failing, cancelling, restarting, taking back, and who holds a VM."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from host import jobs
from host.connection import Host, open_host
from host.errors import Blocked, Busy, Conflict, HvtuiError, NotFound, TimedOut, UsageError, WrongState
from host.job_engine import Patience
from host.job_model import Job, JobState, StepState
from host.job_rules import holds
from host.journal import Journal
from host.plan import Blocker, Danger, Json, Plan, Step
from tests.support import fake_verbs
from tests.support.fake_verbs import make_step, plan_of, plan_three, remove_step, three_files

IN_PROCESS = "test:///default"
HASTE = Patience(reconnect_s=0.3, first_delay_s=0.02, longest_delay_s=0.05, cancel_every_s=0.01, progress_every_s=0.05)


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
    directory = tmp_path / "work"
    directory.mkdir()
    return directory


def states(job: Job) -> list[str]:
    return [step.state.value for step in job.steps]


def in_background(plan: Plan, host: Host, journal: Journal) -> tuple[threading.Thread, int]:
    job = jobs.create(plan, journal)
    thread = threading.Thread(target=jobs.run, args=(job.id, host, journal), kwargs={"patience": HASTE}, daemon=True)
    thread.start()
    return thread, job.id


def wait_until_it_pauses(path: Path) -> None:
    deadline = time.monotonic() + 20
    while not path.with_name(path.name + ".paused").exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def pause_at(path: Path) -> Path:
    pause = path.with_name(path.name + ".pause")
    pause.touch()
    return pause


def test_a_job_runs_its_steps_in_order_and_tells_who_when_and_what(journal: Journal, host: Host, work: Path) -> None:
    seen: list[Job] = []
    job = jobs.submit(plan_three(work), host, journal, seen.append)
    assert job.state is JobState.DONE
    assert job.exit_code == 0
    assert job.progress == 1.0
    assert job.user
    assert job.started_at is not None
    assert job.finished_at is not None
    assert job.created_at <= job.started_at <= job.finished_at
    assert [path.read_text() for path in three_files(work)] == ["whole"] * 3
    assert journal.job(job.id) == job
    assert [step.result for step in job.steps] == [{"path": str(path)} for path in three_files(work)]
    assert [states(each) for each in seen if each.steps[1].note == "half"][:1] == [["done", "running", "pending"]]
    assert seen[-1] == job


def test_a_failing_step_rolls_everything_back_in_reverse(journal: Journal, host: Host, work: Path) -> None:
    one, two, _ = three_files(work)
    job = jobs.submit(plan_of([make_step(one), make_step(two, fail="no room")]), host, journal)
    assert job.state is JobState.FAILED
    assert job.exit_code == 1
    assert (job.error, job.remedy) == ("two: no room", "Try less")
    assert states(job) == ["undone", "failed"]
    assert job.current_step is not None
    assert job.current_step.error == "two: no room"
    assert not one.exists()
    assert not two.exists()
    assert journal.holder(None, vm_name="web") is None


def test_a_failing_job_that_is_to_be_kept_goes_on_where_it_failed(journal: Journal, host: Host, work: Path) -> None:
    one, two, _ = three_files(work)
    stumble = replace(make_step(two), args={"path": str(two), "text": "whole"})
    two.mkdir()
    job = jobs.submit(plan_of([make_step(one), stumble]), host, journal, keep_failed=True)
    assert (job.state, job.kept, job.keep_failed) == (JobState.FAILED, True, True)
    assert "Is a directory" in job.error
    assert one.exists()
    two.rmdir()
    one_made_at = one.stat().st_mtime_ns
    again = jobs.restart(job.id, host, journal)
    assert (again.state, again.error, again.remedy, again.exit_code, again.kept) == (JobState.DONE, "", "", 0, False)
    assert one.stat().st_mtime_ns == one_made_at
    assert two.read_text() == "whole"


def test_run_can_be_told_to_keep_as_well(journal: Journal, host: Host, work: Path) -> None:
    created = jobs.create(plan_of([make_step(work / "one", fail="no")]), journal)
    job = jobs.run(created.id, host, journal, None, True)
    assert job.kept
    assert (work / "one").exists()
    rolled = jobs.rollback(job.id, host, journal)
    assert (rolled.state, rolled.kept, rolled.exit_code, states(rolled)) == (JobState.ROLLED_BACK, False, 0, ["undone"])
    assert not (work / "one").exists()


def test_a_rolled_back_job_runs_again_from_its_start(journal: Journal, host: Host, work: Path) -> None:
    one, two, _ = three_files(work)
    two.mkdir()
    job = jobs.submit(plan_of([make_step(one), make_step(two)]), host, journal, keep_failed=False)
    assert job.state is JobState.INTERRUPTED  # unlink() of a directory fails: the rollback itself did not work
    two.rmdir()
    assert jobs.rollback(job.id, host, journal).state is JobState.ROLLED_BACK
    assert jobs.restart(job.id, host, journal).state is JobState.DONE
    assert one.exists()
    assert two.exists()


def test_a_rollback_that_fails_is_told_and_can_be_tried_again(journal: Journal, host: Host, work: Path) -> None:
    one, key = work / "one", work / "key"
    steps = [make_step(one), Step("fake.stubborn", "Be stubborn", {"path": str(key)}), make_step(work / "x", fail="no")]
    job = jobs.submit(plan_of(steps), host, journal)
    assert job.state is JobState.INTERRUPTED
    assert job.exit_code == 1
    assert job.error == "x: no; rolling back “Be stubborn” failed: will not go back"
    assert f"rollback {job.id}" in job.remedy
    assert "Make the file" in job.remedy
    assert one.exists()
    assert journal.holder(None, vm_name="web") == job
    assert jobs.rollback(job.id, host, journal).error == job.error
    key.touch()
    assert jobs.rollback(job.id, host, journal).state is JobState.ROLLED_BACK
    assert not one.exists()
    assert journal.holder(None, vm_name="web") is None


def test_a_bug_in_a_step_is_a_failed_job_and_a_traceback_in_a_file(journal: Journal, host: Host, capfd) -> None:
    job = jobs.submit(plan_of([Step("fake.explode", "Explode")]), host, journal)
    assert job.state is JobState.FAILED
    assert "ZeroDivisionError: division by zero" in job.error
    assert "Traceback" in journal.log_path(job.id).read_text()
    assert str(journal.log_path(job.id)) in job.remedy
    assert "Traceback" not in "".join(capfd.readouterr())


def test_a_step_that_this_version_does_not_know_fails_before_anything_is_changed(journal, host, work) -> None:
    job = jobs.submit(plan_of([make_step(work / "one"), Step("fake.unknown", "?")]), host, journal)
    assert job.state is JobState.FAILED
    assert job.exit_code == UsageError.exit_code
    assert states(job) == ["pending", "pending"]
    assert not (work / "one").exists()


def test_a_plan_without_steps_is_done_at_once(journal: Journal, host: Host) -> None:
    assert jobs.submit(plan_of([]), host, journal).progress == 1.0


def test_a_blocked_plan_never_becomes_a_job(journal: Journal) -> None:
    with pytest.raises(Blocked):
        jobs.create(replace(plan_of([]), blockers=(Blocker("no"),)), journal)
    assert journal.jobs() == ()


def test_a_result_that_json_cannot_hold_fails_the_step(journal, host, work, monkeypatch) -> None:
    made = fake_verbs.make
    monkeypatch.setattr("host.steps._VERBS", dict(fake_verbs_registry()))
    from host.steps import StepVerb, register

    register(StepVerb("fake.odd", lambda c, a: {**made(c, a), "odd": {1, 2}}, fake_verbs.unmake, lambda a, r: "no"))
    job = jobs.submit(plan_of([replace(make_step(work / "one"), verb="fake.odd")]), host, journal)
    assert job.state is JobState.FAILED
    assert "cannot hold set" in job.error
    assert not (work / "one").exists()


def fake_verbs_registry():
    from host import steps

    return steps._VERBS


# One job a VM


def test_a_second_job_on_a_vm_names_the_job_that_holds_it(journal: Journal, work: Path) -> None:
    first = jobs.create(plan_of([], title="Make \x1b[31mweb\n" + "x" * 500), journal)
    with pytest.raises(Busy) as refused:
        jobs.create(plan_of([]), journal)
    text = str(refused.value)
    assert f"job {first.id} (Make \\e[31mweb\\nx" in text
    assert f"of {first.user} holds it" in text
    assert f"cancel {first.id}" in text
    assert len(text) < 400
    assert "\x1b" not in text
    assert jobs.create(plan_of([], vm="other"), journal).vm_name == "other"


def test_uuids_decide_whether_two_jobs_mean_one_vm_and_names_where_one_has_no_uuid(journal: Journal) -> None:
    jobs.create(plan_of([], vm="web", uuid="u1"), journal)
    jobs.create(plan_of([], vm="web", uuid="u2"), journal)
    for vm, uuid in (("renamed", "u1"), ("web", None)):
        with pytest.raises(Busy):
            jobs.create(plan_of([], vm=vm, uuid=uuid), journal)
    elsewhere = jobs.create(plan_of([], vm="web", uuid="u1", uri="qemu:///system"), journal)
    assert journal.holder("u1", host_uri="qemu:///system") == elsewhere
    assert journal.holder("u3") is None


def test_jobs_without_a_vm_hold_nothing(journal: Journal) -> None:
    assert [jobs.create(plan_of([], vm=None), journal).id for _ in range(2)] == [1, 2]


def test_a_job_is_run_by_one_process_only_and_on_its_own_host(journal: Journal, host: Host) -> None:
    job = jobs.submit(plan_of([]), host, journal)
    with pytest.raises(WrongState) as done:
        jobs.run(job.id, host, journal)
    assert f"undo {job.id}" in str(done.value)
    other = open_host("qemu:///system")
    for act in (jobs.run, jobs.restart, jobs.rollback):
        with pytest.raises(UsageError, match=r"--connect test\+unix"):
            act(job.id, other, journal)
    with pytest.raises(NotFound, match="no job 99"):
        jobs.run(99, host, journal)


def test_a_hundred_jobs_of_ten_threads_all_get_done(journal: Journal, host: Host, work: Path) -> None:
    def ten(first: int) -> None:
        for number in range(first, first + 10):
            jobs.submit(plan_of([make_step(work / str(number))], vm=f"vm{number}"), host, journal)

    threads = [threading.Thread(target=ten, args=(first,)) for first in range(0, 100, 10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(journal.jobs(limit=None, states={JobState.DONE})) == 100


# Cancelling


def test_cancelling_stops_the_step_and_rolls_back(journal: Journal, host: Host, work: Path) -> None:
    one, two, three = three_files(work)
    pause_at(two)
    thread, job_id = in_background(plan_three(work), host, journal)
    wait_until_it_pauses(two)
    assert jobs.cancel(job_id, journal).cancel_requested
    job = jobs.wait(job_id, journal, 20)
    thread.join()
    assert (job.state, job.exit_code, job.kept) == (JobState.CANCELLED, 130, False)
    assert not any(path.exists() for path in (one, two, three))
    with pytest.raises(WrongState, match="cancelled already"):
        jobs.cancel(job_id, journal)
    pause_at(two).unlink()
    assert jobs.restart(job_id, host, journal).state is JobState.DONE
    assert one.exists()


def test_a_job_cancelled_before_it_begins_changes_nothing(journal: Journal, host: Host, work: Path) -> None:
    job = jobs.create(plan_three(work), journal)
    jobs.cancel(job.id, journal)
    ended = jobs.run(job.id, host, journal)
    assert ended.state is JobState.CANCELLED
    assert states(ended) == ["pending"] * 3
    assert not any(path.exists() for path in three_files(work))


def test_ctrl_c_during_a_step_cancels_the_job(journal, host, work) -> None:
    def interrupt(job: Job) -> None:
        if job.steps[1].note == "half":
            raise KeyboardInterrupt

    job = jobs.submit(plan_three(work), host, journal, interrupt)
    assert (job.state, job.exit_code) == (JobState.CANCELLED, 130)
    assert "keyboard" in job.error
    assert not any(path.exists() for path in three_files(work))


def test_an_interrupted_job_can_be_given_up(journal: Journal, host: Host, work: Path) -> None:
    steps = [make_step(work / "one"), Step("fake.stubborn", "s", {"path": "/nowhere"}), make_step(work / "x", fail="n")]
    job = jobs.submit(plan_of(steps), host, journal)
    given_up = jobs.cancel(job.id, journal)
    assert (given_up.state, given_up.kept) == (JobState.CANCELLED, True)
    assert (work / "one").exists()
    assert journal.holder(None, vm_name="web") is None
    done = jobs.submit(plan_of([]), host, journal)
    with pytest.raises(WrongState, match="it is done"):
        jobs.rollback(done.id, host, journal)


def test_waiting_ends_with_the_time_given_and_the_job_goes_on(journal: Journal) -> None:
    job = jobs.create(plan_of([]), journal)
    seen: list[Job] = []
    with pytest.raises(TimedOut, match=f"watch {job.id}"):
        jobs.wait(job.id, journal, 0.0, seen.append)
    assert seen == [job]
    assert journal.job(job.id).state is JobState.QUEUED


# A lost connection


def flickering(tmp_path: Path, times: int) -> Plan:
    counter = tmp_path / "counter"
    counter.write_text(str(times))
    return plan_of([Step("fake.flicker", "Flicker", {"path": str(counter)})], uri=IN_PROCESS)


def test_a_step_that_loses_the_connection_runs_again_when_it_is_back(journal: Journal, tmp_path: Path) -> None:
    host = open_host(IN_PROCESS)
    seen: list[Job] = []
    job = jobs.submit(flickering(tmp_path, 2), host, journal, seen.append)
    host.close()
    assert job.state is JobState.DONE
    assert "connection lost, reconnecting" in {each.steps[0].note for each in seen}


def test_a_step_that_breaks_the_connection_each_time_is_not_run_for_ever(journal: Journal, tmp_path: Path) -> None:
    host = open_host(IN_PROCESS)
    job = jobs.submit(flickering(tmp_path, 9), host, journal)
    host.close()
    assert (job.state, job.exit_code) == (JobState.INTERRUPTED, 6)
    assert (tmp_path / "counter").read_text() == "6"


def unreachable(tmp_path: Path) -> str:
    return f"test+unix:///default?socket={tmp_path}/none"


def test_a_connection_that_does_not_come_back_leaves_a_job_to_restart(journal: Journal, tmp_path: Path) -> None:
    plan = replace(flickering(tmp_path, 1), host_uri=unreachable(tmp_path))
    host = open_host(plan.host_uri)
    created = jobs.create(plan, journal)
    job = jobs.run(created.id, host, journal, patience=HASTE)
    assert (job.state, job.exit_code) == (JobState.INTERRUPTED, 6)
    assert "did not come back within 0.3 s" in job.error
    assert f"restart {job.id}" in job.remedy
    with pytest.raises(Busy) as refused:
        jobs.create(plan, journal)
    assert "half-made" in str(refused.value)
    assert f"rollback {job.id}" in str(refused.value)
    assert jobs.restart(job.id, host, journal, patience=HASTE).state is JobState.DONE
    assert journal.holder(None, vm_name="web") is None


def test_waiting_for_a_lost_connection_can_be_cancelled(journal: Journal, tmp_path: Path) -> None:
    plan = replace(flickering(tmp_path, 1), host_uri=unreachable(tmp_path))
    host = open_host(plan.host_uri)
    created = jobs.create(plan, journal)
    ended: list[Job] = []
    patience = replace(HASTE, reconnect_s=60.0, first_delay_s=30.0)
    thread = threading.Thread(
        target=lambda: ended.append(jobs.run(created.id, host, journal, patience=patience)), daemon=True
    )
    thread.start()
    while journal.job(created.id).steps[0].note != "connection lost, reconnecting":
        time.sleep(0.01)
    jobs.cancel(created.id, journal)
    thread.join(20)
    assert [job.state for job in ended] == [JobState.CANCELLED]


def test_what_a_process_simulated_is_gone_with_it_and_holds_nothing(journal: Journal, tmp_path: Path) -> None:
    host = open_host(IN_PROCESS)
    job = jobs.submit(flickering(tmp_path, 9), host, journal)
    assert job.state is JobState.INTERRUPTED
    assert not holds(job)
    jobs.create(plan_of([], uri=IN_PROCESS), journal)


def test_a_rollback_is_planned_before_it_is_done(journal: Journal, host: Host, work: Path) -> None:
    one, two, _ = three_files(work)
    job = jobs.submit(plan_of([make_step(one), make_step(two, fail="no")]), host, journal, keep_failed=True)
    plan = jobs.plan_rollback(job)
    made = "Take back, where it made something: Make"
    assert [step.title for step in plan.steps] == [f"{made} two", f"{made} one"]
    assert (plan.command, plan.danger) == (("job", "rollback", str(job.id)), Danger.DESTRUCTIVE)
    assert plan.losses == (str(one),)
    assert one.exists()
    rolled = jobs.rollback(job.id, host, journal)
    with pytest.raises(WrongState, match="is rolled back"):
        jobs.plan_rollback(rolled).raise_if_blocked()


def test_an_interrupted_job_says_that_it_can_be_given_up(journal: Journal, host: Host, work: Path) -> None:
    one, two, _ = three_files(work)
    two.mkdir()
    job = jobs.submit(plan_of([make_step(one), make_step(two)]), host, journal)
    assert job.state is JobState.INTERRUPTED
    assert f"give it up, keeping what it made, with 'hvtui job cancel {job.id}'" in job.remedy
    assert jobs.cancel(job.id, journal).state is JobState.CANCELLED
    assert journal.holder(None, vm_name="web") is None


# Undo


def test_undo_runs_the_inverse_steps_in_reverse_and_only_once(journal: Journal, host: Host, work: Path) -> None:
    job = jobs.submit(plan_three(work), host, journal)
    plan = jobs.plan_undo(job, host)
    assert plan.title == f"Undo job {job.id}: Make it"
    assert [step.title for step in plan.steps] == ["Remove three", "Remove two", "Remove one"]
    assert plan.danger is Danger.DESTRUCTIVE
    assert plan.losses == tuple(str(path) for path in reversed(three_files(work)))
    assert plan.undoes_job == job.id
    assert all(path.exists() for path in three_files(work))
    undo = jobs.submit(plan, host, journal)
    assert not any(path.exists() for path in three_files(work))
    undone = journal.job(job.id)
    assert undone.undone_by == undo.id
    assert [blocker.reason for blocker in jobs.plan_undo(undone, host).blockers] == [f"job {undo.id} undid it already"]
    with pytest.raises(Conflict, match="undid it already"):
        jobs.create(plan, journal)


def test_two_undos_of_one_job_at_once_are_refused(journal: Journal, host: Host, work: Path) -> None:
    job = jobs.submit(plan_three(work, vm=None), host, journal)
    plan = jobs.plan_undo(job, host)
    jobs.create(plan, journal)
    with pytest.raises(Busy):
        jobs.create(plan, journal)


def test_a_job_that_cannot_be_undone_says_why(journal: Journal, host: Host, work: Path) -> None:
    lossy = jobs.submit(plan_of([make_step(work / "one"), remove_step(work / "one")]), host, journal)
    plan = jobs.plan_undo(lossy, host)
    assert [blocker.reason for blocker in plan.blockers] == ["Remove one: what was removed is gone"]
    assert plan.danger is Danger.DESTRUCTIVE
    failed = jobs.submit(plan_of([make_step(work / "x", fail="no")]), host, journal)
    assert "only a job that is done" in jobs.plan_undo(failed, host).blockers[0].reason
    assert "belongs to" in jobs.plan_undo(lossy, open_host("qemu:///system")).blockers[0].reason
    unknown = replace(lossy, plan=replace(lossy.plan, steps=(Step("fake.gone", "?"),)), steps=lossy.steps[:1])
    assert "has no step 'fake.gone'" in jobs.plan_undo(unknown, host).blockers[0].reason


# Progress


def test_progress_is_journalled_a_few_times_a_second_and_the_last_one_is_not_lost(journal, host, work, monkeypatch):
    from host.steps import StepVerb, register

    def chatty(context, args: dict[str, Json]) -> dict[str, Json]:
        for number in range(1001):
            context.progress(number / 1000, f"part {number}")
        deadline = time.monotonic() + 10
        while journal.job(context.job_id).steps[0].note != "part 1000" and time.monotonic() < deadline:
            context.raise_if_cancelled()
            time.sleep(0.01)
        return {"seen": journal.job(context.job_id).steps[0].note}

    monkeypatch.setattr("host.steps._VERBS", dict(fake_verbs_registry()))
    register(StepVerb("fake.chatty", chatty, None, lambda a, r: "no"))
    seen: list[Job] = []
    job = jobs.submit(plan_of([Step("fake.chatty", "Chat")]), host, journal, seen.append)
    assert job.steps[0].result == {"seen": "part 1000"}
    assert seen[1].steps[0].note == "part 0"
    assert len(seen) < 20


def test_hvtui_errors_of_a_step_keep_their_exit_code(journal, host, work) -> None:
    (work / "one").write_text("x")
    (work / "one").chmod(0)
    job = jobs.submit(plan_of([make_step(work / "no" / "such")]), host, journal)
    assert job.error.endswith("such: No such file or directory")
    assert job.exit_code == HvtuiError.exit_code
    assert job.steps[0].state is StepState.FAILED
