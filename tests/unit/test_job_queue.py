"""The queue: how many jobs run at once in a lane, whoever runs them, in which order, and what pauses or ends a wait."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from host import job_queue, job_sets, jobs
from host.connection import Host, open_host
from host.errors import NotFound, WrongState
from host.job_codec import plan_from_json, plan_to_json
from host.job_model import Job, JobState
from host.journal import Journal
from host.plan import Lane, Plan, PlanSet
from tests.support import fake_verbs
from tests.support.fake_verbs import make_step, plan_of
from tests.support.waiting import wait_for
from vm.move_lanes import lanes

ONE, TWO = Lane("host:lab1", 1), Lane("host:lab1", 2)


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


def moving(work: Path, name: str, *wanted: Lane, **args: str) -> Plan:
    return plan_of([make_step(work / name, **args)], vm=name, title=f"Move {name}", lanes=wanted)


def hold(work: Path, name: str) -> Path:
    """Let the job of that name stop in the middle until the file is gone."""
    path = work / f"{name}.pause"
    path.touch()
    return path


def under_way(work: Path) -> list[str]:
    return sorted(path.stem for path in work.glob("*.paused"))


def begin(job: Job, host: Host, journal: Journal) -> threading.Thread:
    thread = threading.Thread(target=jobs.run, args=(job.id, host, journal), daemon=True)
    thread.start()
    return thread


def state(journal: Journal, job: Job) -> JobState:
    return journal.job(job.id).state


def ready(journal: Journal, job: Job) -> bool:
    """True once a process waits to run it."""
    row = journal._database.execute("SELECT is_ready FROM jobs WHERE id = ?", (job.id,)).fetchone()
    return bool(row[0])


def test_a_plan_with_lanes_comes_back_from_the_journal(journal: Journal, work: Path) -> None:
    plan = moving(work, "web", *lanes("lab1", "lab2"))
    assert [lane.name for lane in plan.lanes] == ["host:lab1", "host:lab2", "link:lab1>lab2"]
    assert plan_from_json(plan_to_json(plan)) == plan
    jobs.create(plan, journal)
    with Journal() as other:
        assert other.job(1).plan == plan


def test_a_move_on_one_host_uses_that_host_only() -> None:
    assert lanes("lab1", "lab1", per_host=3) == (Lane("host:lab1", 3),)


def test_a_job_waits_until_its_lane_has_room_and_says_for_what(journal: Journal, host: Host, work: Path) -> None:
    plans = [moving(work, name, TWO) for name in ("a", "b", "c")]
    pauses = [hold(work, name) for name in ("a", "b")]
    a, b, c = (jobs.create(plan, journal) for plan in plans)
    threads = [begin(a, host, journal), begin(b, host, journal)]
    wait_for(lambda: under_way(work) == ["a", "b"])
    threads.append(begin(c, host, journal))
    wait_for(lambda: journal.job(c.id).waits_for == "2 moves run on lab1 already")
    assert state(journal, c) is JobState.QUEUED
    pauses[0].unlink()
    wait_for(lambda: state(journal, c) is JobState.DONE)
    assert journal.job(c.id).waits_for == ""
    pauses[1].unlink()
    for thread in threads:
        thread.join(30)


@pytest.mark.parametrize(
    ("lane", "words"),
    [
        (ONE, "1 move runs on lab1 already"),
        (Lane("link:lab1>lab2", 1), "1 move runs from lab1 to lab2 already"),
        (Lane("backup", 1), "1 job runs in backup already"),
    ],
)
def test_each_kind_of_lane_has_its_words(journal: Journal, host: Host, work: Path, lane: Lane, words: str) -> None:
    pause = hold(work, "a")
    a, b = jobs.create(moving(work, "a", lane), journal), jobs.create(moving(work, "b", lane), journal)
    first = begin(a, host, journal)
    wait_for(lambda: under_way(work) == ["a"])
    second = begin(b, host, journal)
    wait_for(lambda: journal.job(b.id).waits_for == words)
    pause.unlink()
    first.join(30)
    second.join(30)


def test_a_job_that_must_wait_for_one_lane_does_not_hold_up_another_in_its_other_lane(
    journal: Journal, host: Host, work: Path
) -> None:
    pause = hold(work, "a")
    other = Lane("host:lab2", 1)
    a = jobs.create(moving(work, "a", ONE), journal)
    b = jobs.create(moving(work, "b", ONE, other), journal)
    c = jobs.create(moving(work, "c", other), journal)
    threads = [begin(a, host, journal)]
    wait_for(lambda: under_way(work) == ["a"])
    threads.append(begin(b, host, journal))
    wait_for(lambda: ready(journal, b))
    assert jobs.run(c.id, host, journal).state is JobState.DONE
    assert state(journal, b) is JobState.QUEUED
    pause.unlink()
    for thread in threads:
        thread.join(30)
    assert state(journal, b) is JobState.DONE


def test_the_lower_number_goes_first_and_put_first_goes_before_it(journal: Journal, host: Host, work: Path) -> None:
    pauses = {name: hold(work, name) for name in "abcd"}
    a, b, c, d = (jobs.create(moving(work, name, ONE), journal) for name in "abcd")
    threads = [begin(a, host, journal)]
    wait_for(lambda: under_way(work) == ["a"])
    for job in (d, c, b):
        threads.append(begin(job, host, journal))
        wait_for(lambda job=job: ready(journal, job))
    job_queue.put_first(journal, d.id)
    order = []
    for name in ("a", "d", "b", "c"):
        wait_for(lambda name=name: (work / f"{name}.paused").exists())
        order.append(name)
        assert under_way(work) == [name]
        pauses[name].unlink()
        wait_for(lambda name=name: (work / name).exists() and (work / name).read_text() == "whole")
        (work / f"{name}.paused").unlink()
    for thread in threads:
        thread.join(30)
    assert order == ["a", "d", "b", "c"]


def test_several_put_first_keep_the_order_in_which_they_were_named(journal: Journal, work: Path) -> None:
    for name in "abcd":
        jobs.create(moving(work, name, ONE), journal)
    job_queue.put_first(journal, 4)
    job_queue.put_first(journal, 3, 2)
    rows = journal._database.execute("SELECT id FROM jobs ORDER BY position, id").fetchall()
    assert [row[0] for row in rows] == [3, 2, 4, 1]


def test_a_paused_job_is_passed_over_until_it_is_resumed(journal: Journal, host: Host, work: Path) -> None:
    a, b = jobs.create(moving(work, "a", ONE), journal), jobs.create(moving(work, "b", ONE), journal)
    assert [job.is_paused for job in job_queue.pause(journal, a.id)] == [True]
    waiting = begin(a, host, journal)
    wait_for(lambda: ready(journal, a))
    assert jobs.run(b.id, host, journal).state is JobState.DONE
    assert (state(journal, a), journal.job(a.id).is_paused) == (JobState.QUEUED, True)
    job_queue.resume(journal, a.id)
    waiting.join(30)
    assert (state(journal, a), journal.job(a.id).is_paused) == (JobState.DONE, False)


def test_only_a_job_that_waits_can_be_paused_and_then_all_or_none(journal: Journal, host: Host, work: Path) -> None:
    done = jobs.submit(moving(work, "a"), host, journal)
    waiting = jobs.create(moving(work, "b"), journal)
    with pytest.raises(WrongState, match="is done"):
        job_queue.pause(journal, waiting.id, done.id)
    assert not journal.job(waiting.id).is_paused
    with pytest.raises(NotFound):
        job_queue.put_first(journal, 99)


@pytest.mark.parametrize("is_paused", [False, True])
def test_a_job_can_be_cancelled_while_it_waits(journal: Journal, host: Host, work: Path, is_paused: bool) -> None:
    pause = hold(work, "a")
    a, b = jobs.create(moving(work, "a", ONE), journal), jobs.create(moving(work, "b", ONE), journal)
    if is_paused:
        job_queue.pause(journal, b.id)
    threads = [begin(a, host, journal)]
    wait_for(lambda: under_way(work) == ["a"])
    threads.append(begin(b, host, journal))
    wait_for(lambda: ready(journal, b))
    jobs.cancel(b.id, journal)
    assert jobs.wait(b.id, journal, 30).state is JobState.CANCELLED
    assert not (work / "b").exists()
    assert state(journal, a) is JobState.RUNNING
    pause.unlink()
    for thread in threads:
        thread.join(30)


def test_a_restarted_job_waits_for_its_turn_as_well(journal: Journal, host: Host, work: Path) -> None:
    pause = hold(work, "a")
    b = jobs.submit(moving(work, "b", ONE, fail="no space"), host, journal)
    a = jobs.create(moving(work, "a", ONE), journal)
    first = begin(a, host, journal)
    wait_for(lambda: under_way(work) == ["a"])
    again = threading.Thread(target=jobs.restart, args=(b.id, host, journal), daemon=True)
    again.start()
    wait_for(lambda: journal.job(b.id).waits_for != "")
    pause.unlink()
    first.join(30)
    again.join(30)
    assert state(journal, b) is JobState.FAILED


def run_worker(what: str, argument: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "tests.support.job_worker", what, argument],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )


def test_jobs_of_several_processes_share_a_lane(journal: Journal, work: Path) -> None:
    names = list("abcde")
    pauses = [hold(work, name) for name in names]
    created = [jobs.create(moving(work, name, TWO), journal) for name in names]
    workers = [run_worker("job", str(job.id)) for job in created]
    seen = set()
    try:
        while any(worker.poll() is None for worker in workers):
            wait_for(lambda: under_way(work) or all(worker.poll() is not None for worker in workers))
            running = {job.vm_name for job in journal.jobs(states=[JobState.RUNNING])}
            seen.add(len(running))
            if len(running) == 2 or len(list(work.glob("*.pause"))) == 1:
                for name in under_way(work):
                    (work / f"{name}.pause").unlink(missing_ok=True)
                    (work / f"{name}.paused").unlink(missing_ok=True)
        assert [worker.wait() for worker in workers] == [0] * 5
    finally:
        for each in pauses:
            each.unlink(missing_ok=True)
        for worker in workers:
            worker.kill()
            worker.wait()
    assert max(seen) == 2
    ran = [(job.started_at, job.finished_at) for job in journal.jobs()]
    for begun, _ in ran:
        assert sum(other <= begun < ended for other, ended in ran if other and ended and begun) <= 2


def test_a_dead_process_blocks_no_lane(journal: Journal, host: Host, work: Path) -> None:
    pause = hold(work, "a")
    a, b = jobs.create(moving(work, "a", ONE), journal), jobs.create(moving(work, "b", ONE), journal)
    worker = run_worker("job", str(a.id))
    wait_for(lambda: under_way(work) == ["a"])
    waiting = begin(b, host, journal)
    wait_for(lambda: journal.job(b.id).waits_for != "")
    worker.send_signal(signal.SIGKILL)
    worker.wait()
    waiting.join(30)
    assert (state(journal, a), state(journal, b)) == (JobState.INTERRUPTED, JobState.DONE)
    pause.unlink()


def set_of(plans: Sequence[Plan]) -> PlanSet:
    return PlanSet("Drain lab1", tuple(plans), ("host", "drain", "lab1"))


def in_thread(created: Sequence[Job], host: Host, journal: Journal) -> threading.Thread:
    thread = threading.Thread(target=job_sets.run_set, args=(created[0].id, host, journal), daemon=True)
    thread.start()
    return thread


def test_a_member_that_waits_holds_up_no_other_of_its_set(journal: Journal, host: Host, work: Path) -> None:
    pause = hold(work, "a")
    other = [moving(work, name, Lane(f"host:{name}", 1)) for name in "cd"]
    plans = [moving(work, "a", ONE), moving(work, "b", ONE), *other, moving(work, "e")]
    created = job_sets.create(set_of(plans), journal)
    thread = in_thread(created, host, journal)
    wait_for(lambda: [state(journal, job) for job in created[2:]] == [JobState.DONE] * 3)
    assert [state(journal, job) for job in created[:2]] == [JobState.RUNNING, JobState.QUEUED]
    assert journal.job(created[1].id).waits_for == "1 move runs on lab1 already"
    pause.unlink()
    thread.join(30)
    assert {job.state for job in journal.members(created[0].id)} == {JobState.DONE}


def test_more_members_than_workers_run_where_their_lanes_have_room(journal: Journal, host: Host, work: Path) -> None:
    names = [f"vm{number:02}" for number in range(18)]
    pauses = [hold(work, name) for name in names]
    created = job_sets.create(set_of([moving(work, name, Lane("host:lab1", 64)) for name in names]), journal)
    thread = in_thread(created, host, journal)
    wait_for(lambda: len(under_way(work)) == job_sets.MOST_AT_ONCE)
    assert len(journal.jobs(states=[JobState.RUNNING])) == job_sets.MOST_AT_ONCE
    for pause in pauses:
        pause.unlink()
    thread.join(30)
    assert {job.state for job in journal.members(created[0].id)} == {JobState.DONE}


def test_a_failure_in_a_set_stops_only_itself_and_frees_its_lane(journal: Journal, host: Host, work: Path) -> None:
    plans = [moving(work, "a", ONE, fail="no space"), moving(work, "b", ONE), moving(work, "c", ONE)]
    created = job_sets.create(set_of(plans), journal)
    ended = job_sets.run_set(created[0].id, host, journal)
    assert [job.state for job in ended] == [JobState.FAILED, JobState.DONE, JobState.DONE]


def test_a_paused_member_is_passed_over_and_a_first_one_goes_first(journal: Journal, host: Host, work: Path) -> None:
    created = job_sets.create(set_of([moving(work, name, ONE) for name in "abcd"]), journal)
    job_queue.pause(journal, created[0].id)
    job_queue.put_first(journal, created[3].id)
    thread = in_thread(created, host, journal)
    wait_for(lambda: [state(journal, job) for job in created[1:]] == [JobState.DONE] * 3)
    begun = sorted(journal.members(created[0].id)[1:], key=lambda job: str(job.started_at))
    assert [job.vm_name for job in begun] == ["d", "b", "c"]
    job_queue.resume(journal, created[0].id)
    thread.join(30)
    assert state(journal, created[0]) is JobState.DONE


def test_a_set_that_waits_has_begun_and_can_be_cancelled(journal: Journal, host: Host, work: Path) -> None:
    pause = hold(work, "other")
    other = begin(jobs.create(moving(work, "other", ONE), journal), host, journal)
    wait_for(lambda: under_way(work) == ["other"])
    plans = [moving(work, name, ONE) for name in "ab"]
    program = (sys.executable, "-m", "tests.support.job_worker", "set")
    started = job_sets.start_detached_set(set_of(plans), host, journal, program=program)
    assert {job.state for job in started} == {JobState.QUEUED}
    assert {job.waits_for for job in started} == {"1 move runs on lab1 already"}
    job_sets.cancel_set(started[0].id, journal)
    ended = job_sets.wait_set(started[0].id, journal, 30)
    assert {job.state for job in ended} == {JobState.CANCELLED}
    pause.unlink()
    other.join(30)


def test_each_member_of_a_set_runs_against_its_own_host(journal: Journal, host: Host, work: Path) -> None:
    uris = [fake_verbs.URI, "test+unix:///elsewhere"]
    plans = [plan_of([make_step(work / uri[-5:])], vm="web", uri=uri) for uri in uris]
    created = job_sets.create(set_of(plans), journal)
    ended = job_sets.run_set(created[0].id, host, journal)
    assert [(job.host_uri, job.state) for job in ended] == [(uri, JobState.DONE) for uri in uris]


@settings(max_examples=60, deadline=None)
@given(
    wanted=st.lists(
        st.lists(st.tuples(st.sampled_from("ABC"), st.integers(1, 3)), max_size=3, unique_by=lambda pair: pair[0]),
        min_size=1,
        max_size=8,
    ),
    data=st.data(),
)
def test_no_lane_ever_holds_more_than_its_limit_and_nobody_waits_for_nothing(
    tmp_path_factory: pytest.TempPathFactory, wanted: list[list[tuple[str, int]]], data: st.DataObject
) -> None:
    directory = tmp_path_factory.mktemp("queue")
    with Journal(directory / "journal.db") as journal:
        plans = [
            moving(directory, str(number), *(Lane(name, limit) for name, limit in those))
            for number, those in enumerate(wanted)
        ]
        claims = {job.id: f"claim {job.id}" for job in (jobs.create(plan, journal) for plan in plans)}
        running: dict[int, Job] = {}
        left = dict(claims)
        while left or running:
            job, waiting = journal.enter(left) if left else (None, frozenset())
            if job is None:
                assert running, "all wait for nobody"
                over = running.pop(data.draw(st.sampled_from(sorted(running))))
                journal._write(journal._database, Job(**_ended(over)), claims[over.id], ())
                continue
            running[job.id] = job
            del left[job.id]
            assert waiting == frozenset(left)
            for lane in job.plan.lanes:
                used = sum(lane.name in {other.name for other in each.plan.lanes} for each in running.values())
                assert used <= lane.limit


def _ended(job: Job) -> dict[str, object]:
    values = {name: getattr(job, name) for name in Job.__slots__}
    return values | {"state": JobState.DONE}
