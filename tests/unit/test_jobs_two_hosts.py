"""Jobs that work on two hosts: the peer's connection, who holds the VM where, and wishes while they run."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from host import jobs
from host.connection import Host, open_host
from host.errors import Busy, ConnectionLost, UsageError, WrongState
from host.job_engine import Patience
from host.job_model import JobState
from host.journal import Journal
from host.plan import Plan, Step
from host.steps import Args, Result, StepContext, StepVerb, register
from hvtui.holders import holding_jobs, with_holders
from tests.support import fake_verbs
from tests.support.fake_verbs import make_step, plan_of, remove_step

PEER = "test:///default"
HASTE = Patience(reconnect_s=0.3, first_delay_s=0.02, longest_delay_s=0.05, cancel_every_s=0.01, progress_every_s=0.05)
_opened: list[Host] = []


def ask_peer(context: StepContext, args: Args) -> Result:
    peer = context.peer(args["peer"])
    _opened.append(peer)
    with peer.calls("ask") as connection:
        return {"type": connection.getType(), "is_source": peer is context.host}


def wait_for_wish(context: StepContext, args: Args) -> Result:
    Path(args["path"]).touch()
    deadline_s = time.monotonic() + 20
    while not (wishes := context.wishes()) and time.monotonic() < deadline_s:
        time.sleep(0.01)
    return dict(wishes)


register(StepVerb("fake.ask-peer", ask_peer, None, lambda args, result: None))
register(StepVerb("fake.wait-for-wish", wait_for_wish, None, lambda args, result: None))


@pytest.fixture
def journal() -> Iterator[Journal]:
    with Journal() as opened:
        yield opened


@pytest.fixture
def host() -> Iterator[Host]:
    opened = open_host(fake_verbs.URI)
    yield opened
    opened.close()
    _opened.clear()


def peer_step(uri: str) -> Step:
    return Step("fake.ask-peer", "Ask the other host", {"peer": uri})


def test_steps_share_one_connection_to_another_host_which_is_closed_with_the_job(journal: Journal, host: Host) -> None:
    job = jobs.submit(plan_of([peer_step(PEER), peer_step(PEER)]), host, journal)
    assert job.state is JobState.DONE
    assert [step.result for step in job.steps] == [{"type": "TEST", "is_source": False}] * 2
    assert len(_opened) == 2
    assert _opened[0] is _opened[1]
    with pytest.raises(ConnectionLost), _opened[0].calls("ask after the job"):
        pass


def test_the_peer_at_the_jobs_own_uri_is_the_jobs_own_host(journal: Journal) -> None:
    own = open_host(PEER)
    job = jobs.submit(plan_of([peer_step(PEER)], uri=PEER), own, journal)
    assert job.steps[0].result == {"type": "TEST", "is_source": True}
    own.close()


def test_a_peer_that_cannot_be_reached_leaves_the_job_interrupted(journal: Journal, host: Host, tmp_path: Path) -> None:
    gone = f"qemu+unix:///system?socket={tmp_path}/nobody"
    job = jobs.create(plan_of([peer_step(gone)]), journal)
    ended = jobs.run(job.id, host, journal, patience=HASTE)
    assert ended.state is JobState.INTERRUPTED
    assert ended.exit_code == ConnectionLost.exit_code


def on_both(path: Path, **changes: str) -> Plan:
    return replace(plan_of([make_step(path)], vm="web", uuid="1", uri=PEER), also_on=(fake_verbs.URI,))


def test_a_job_holds_its_vm_on_every_host_that_it_changes_it_on(journal: Journal, tmp_path: Path) -> None:
    held = jobs.create(on_both(tmp_path / "a"), journal)
    there = plan_of([remove_step(tmp_path / "b")], vm="web", uuid="1")
    with pytest.raises(Busy, match=f"job {held.id}"):
        jobs.create(there, journal)
    blocked = with_holders([there], holding_jobs(journal))[0]
    assert f"job {held.id}" in blocked.blockers[0].reason
    elsewhere = replace(there, host_uri="test+unix:///elsewhere")
    assert not with_holders([elsewhere], holding_jobs(journal))[0].blockers
    assert jobs.create(elsewhere, journal).state is JobState.QUEUED


def test_a_vm_held_on_the_other_host_cannot_be_moved_there(journal: Journal, tmp_path: Path) -> None:
    held = jobs.create(plan_of([remove_step(tmp_path / "b")], vm="web", uuid="1"), journal)
    with pytest.raises(Busy, match=f"job {held.id}"):
        jobs.create(on_both(tmp_path / "a"), journal)


def test_a_running_job_sees_the_newest_of_what_is_wished(journal: Journal, host: Host, tmp_path: Path) -> None:
    begun = tmp_path / "begun"
    job = jobs.create(plan_of([Step("fake.wait-for-wish", "Wait", {"path": str(begun)})]), journal)
    thread = threading.Thread(target=jobs.run, args=(job.id, host, journal), kwargs={"patience": HASTE}, daemon=True)
    thread.start()
    while not begun.exists():
        time.sleep(0.01)
    jobs.wish(job.id, journal, bandwidth="1G", downtime="300")
    thread.join(20)
    result = journal.job(job.id).steps[0].result
    assert result == {"bandwidth": "1G", "downtime": "300"}


def test_nothing_can_be_wished_of_a_job_that_is_over(journal: Journal, host: Host, tmp_path: Path) -> None:
    job = jobs.submit(plan_of([make_step(tmp_path / "a")]), host, journal)
    with pytest.raises(WrongState, match="is done"):
        jobs.wish(job.id, journal, bandwidth="1G")


def test_the_wishes_of_one_run_are_not_those_of_the_next(journal: Journal, host: Host, tmp_path: Path) -> None:
    path = tmp_path / "a"
    job = jobs.create(plan_of([make_step(path, fail="no")]), journal)
    jobs.wish(job.id, journal, bandwidth="1G")
    jobs.run(job.id, host, journal, patience=HASTE)
    assert journal.wishes(job.id) == {}


def test_a_step_run_by_hand_has_no_way_to_other_hosts(host: Host) -> None:
    context = StepContext(host, 1, lambda _fraction, _note: None, lambda: False)
    with pytest.raises(UsageError, match="no way"):
        context.peer(PEER)
    assert context.wishes() == {}
