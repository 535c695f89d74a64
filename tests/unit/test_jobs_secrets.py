"""Secrets of jobs: where they are, where they never are, and when they go."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from host import jobs, secrets
from host.connection import Host, open_host
from host.errors import HvtuiError, NotFound
from host.job_model import JobState
from host.journal import Journal
from host.plan import Plan, Step
from host.steps import StepVerb, register
from tests.support import fake_verbs
from tests.support.fake_verbs import make_step, plan_of

ODD_VALUE = "s3cret-vnc-\udcff"


@pytest.fixture
def journal() -> Iterator[Journal]:
    with Journal() as opened:
        yield opened


@pytest.fixture
def host() -> Host:
    return open_host(fake_verbs.URI)


def plan_with_secret(path: Path, **args: str) -> Plan:
    step = make_step(path, **args)
    return plan_of([Step(step.verb, step.title, {**step.args, "text": secrets.offer("s3cret-vnc")})])


def everything_in(directory: Path) -> bytes:
    return b"".join(path.read_bytes() for path in directory.rglob("*") if path.is_file())


def test_a_secret_reaches_its_step_and_is_gone_with_the_job(journal: Journal, host: Host, tmp_path: Path) -> None:
    plan = plan_with_secret(tmp_path / "one")
    assert secrets.jobs_with_secrets() == ()
    job = jobs.create(plan, journal)
    (stored,) = (journal.path.parent / "secrets" / str(job.id)).iterdir()
    assert stored.read_text() == "s3cret-vnc"
    assert stat.S_IMODE(stored.stat().st_mode) == 0o600
    assert {stat.S_IMODE(path.stat().st_mode) for path in (stored.parent, stored.parent.parent)} == {0o700}
    assert jobs.run(job.id, host, journal).state is JobState.DONE
    assert (tmp_path / "one").read_text() == "s3cret-vnc"
    assert secrets.jobs_with_secrets() == ()
    assert b"s3cret" not in everything_in(journal.path.parent)


def test_a_secret_stays_while_the_job_can_be_completed(journal: Journal, host: Host, tmp_path: Path) -> None:
    job = jobs.submit(plan_with_secret(tmp_path / "one", fail="no"), host, journal, keep_failed=True)
    assert journal.recover() == ()
    assert secrets.jobs_with_secrets() == (job.id,)
    assert jobs.rollback(job.id, host, journal).state is JobState.ROLLED_BACK
    assert secrets.jobs_with_secrets() == ()
    again = jobs.restart(job.id, host, journal)
    assert (again.state, again.exit_code) == (JobState.FAILED, NotFound.exit_code)
    assert "give the command again" in again.remedy
    assert not (tmp_path / "one").exists()


def test_a_plan_runs_once_with_its_secret(journal: Journal, host: Host, tmp_path: Path) -> None:
    plan = plan_with_secret(tmp_path / "one")
    jobs.submit(plan, host, journal)
    with pytest.raises(NotFound, match="secret of this plan is gone"):
        jobs.create(plan, journal)
    assert len(journal.jobs()) == 1
    assert secrets.jobs_with_secrets() == ()


def test_secrets_of_vanished_jobs_are_purged(journal: Journal) -> None:
    kept = jobs.create(plan_with_secret(Path("/x")), journal)
    secrets.save(ODD_VALUE, job_id=77)
    (journal.path.parent / "secrets" / "not-a-job").mkdir()
    journal.recover()
    assert secrets.jobs_with_secrets() == (kept.id,)


def test_a_step_can_save_a_secret_for_its_rollback(journal, host, tmp_path, monkeypatch) -> None:
    from host import steps

    seen: list[object] = []
    monkeypatch.setattr("host.steps._VERBS", dict(steps._VERBS))
    register(
        StepVerb(
            "fake.secretive",
            lambda context, args: {"old": [secrets.save(ODD_VALUE, job_id=context.job_id)]},
            lambda context, args, result: seen.append(result),
            lambda args, result: "no",
        )
    )
    plan = plan_of([Step("fake.secretive", "s"), make_step(tmp_path / "x", fail="no")])
    job = jobs.submit(plan, host, journal)
    assert job.state is JobState.FAILED
    assert seen == [{"old": [ODD_VALUE]}]
    assert secrets.jobs_with_secrets() == ()


def test_an_undo_that_would_need_a_secret_says_so(journal, host, monkeypatch) -> None:
    from host import steps

    monkeypatch.setattr("host.steps._VERBS", dict(steps._VERBS))
    register(
        StepVerb(
            "fake.changed",
            lambda context, args: {"old": secrets.save(ODD_VALUE, job_id=context.job_id)},
            None,
            lambda args, result: Step("fake.changed", "Back", {"to": result["old"]}),
        )
    )
    plan = jobs.plan_undo(jobs.submit(plan_of([Step("fake.changed", "Change")]), host, journal), host)
    assert "needs a secret that was removed" in plan.blockers[0].reason


def test_text_that_looks_like_a_reference_is_never_a_path() -> None:
    for name in ("../../etc/shadow", "x" * 31, "/" * 32, 7):
        assert secrets.resolve({"$secret": name}, job_id=1) == {"$secret": name}
    with pytest.raises(NotFound):
        secrets.resolve([{"$secret": "a" * 32}], job_id=1)


def test_a_secret_that_cannot_be_stored_or_removed_is_told(journal: Journal, host: Host, tmp_path: Path) -> None:
    directory = journal.path.parent / "secrets"
    directory.write_text("in the way")
    with pytest.raises(HvtuiError, match="cannot store a secret"):
        jobs.create(plan_with_secret(tmp_path / "one"), journal)
    assert journal.jobs() == ()
    directory.unlink()
    job = jobs.create(plan_with_secret(tmp_path / "one"), journal)
    (directory / str(job.id) / "subdirectory").mkdir()
    assert jobs.run(job.id, host, journal).state is JobState.DONE
    with pytest.raises(HvtuiError, match="cannot remove a secret"):
        secrets.remove(job.id)
