"""The journal: what it keeps, for whom, and plans as JSON."""

from __future__ import annotations

import json
import stat
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import MappingProxyType

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from host import jobs
from host.connection import open_host
from host.errors import NotFound, UsageError
from host.job_model import Job, JobState, JobStep, StepState
from host.job_schema import MIGRATIONS, migrate, open_database
from host.journal import Journal, plan_from_json, plan_to_json
from host.plan import Blocker, Danger, Plan, Step
from tests.support import fake_verbs
from tests.support.fake_verbs import make_step, plan_of

text = st.text(st.characters(), max_size=20)  # lone surrogates, control characters and NUL too
texts = st.lists(text, max_size=3).map(tuple)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text, inner, max_size=3),
    max_leaves=8,
)
plans = st.builds(
    Plan,
    title=text,
    host_uri=text,
    steps=st.lists(
        st.builds(Step, verb=text, title=text, args=st.dictionaries(text, json_values), commands=texts, losses=texts),
        max_size=3,
    ).map(tuple),
    command=texts,
    vm_uuid=st.none() | text,
    vm_name=st.none() | text,
    danger=st.sampled_from(Danger),
    warnings=texts,
    blockers=st.lists(st.builds(Blocker, reason=text, remedy=text, action_id=st.none() | text), max_size=2).map(tuple),
    losses=texts,
    keeps=texts,
    xml_before=st.none() | text,
    xml_after=st.none() | text,
    long=st.booleans(),
    undoes_job=st.none() | st.integers(min_value=1),
    also_on=st.lists(st.text(), max_size=2).map(tuple),
)


@pytest.fixture
def journal() -> Iterator[Journal]:
    with Journal() as opened:
        yield opened


@given(plans)
def test_a_plan_comes_back_from_json_as_it_was(plan: Plan) -> None:
    assert plan_from_json(json.loads(json.dumps(plan_to_json(plan)))) == plan


@given(st.text(st.characters(), min_size=1, max_size=30))
@example("half a pair \udebb")
def test_hostile_text_comes_back_from_the_journal_as_it_was(name: str) -> None:
    with Journal() as journal:
        job = jobs.create(plan_of([make_step("/x")], vm=name, title=name), journal)
        assert journal.job(job.id).title == name
        assert journal.jobs(vm=name)[0].vm_name == name
        assert journal.holder(None, vm_name=name) is not None
        jobs.cancel(job.id, journal)
        jobs.run(job.id, open_host(fake_verbs.URI), journal)


def test_hostile_text_in_progress_and_errors_is_kept_readable(journal: Journal, tmp_path: Path) -> None:
    ten_kilobytes = "[red]\x1b[2J\udcff\n" * 1000
    plan = plan_of([make_step(tmp_path / "one", fail=ten_kilobytes)], title=ten_kilobytes)
    job = jobs.submit(plan, open_host(fake_verbs.URI), journal)
    read = journal.job(job.id)
    assert read.title == ten_kilobytes
    assert read.error.startswith("one: [red]\x1b[2J\\udcff\n")


def test_args_of_other_mappings_and_tuples_become_plain_json() -> None:
    step = Step("v", "t", MappingProxyType({"a": (1, MappingProxyType({"b": 2.5}))}))
    assert plan_to_json(plan_of([step]))["steps"] == [
        {"verb": "v", "title": "t", "args": {"a": [1, {"b": 2.5}]}, "commands": [], "losses": []}
    ]


@pytest.mark.parametrize("value", [{1, 2}, b"x", float("nan"), float("inf")])
def test_args_that_json_cannot_hold_are_refused_before_anything_is_written(journal: Journal, value: object) -> None:
    with pytest.raises(UsageError, match="JSON"):
        jobs.create(plan_of([Step("v", "t", {"a": value})]), journal)  # type: ignore[dict-item]
    assert journal.jobs() == ()
    jobs.create(plan_of([]), journal)


@pytest.mark.parametrize("data", [{}, {"title": 1}, {**plan_to_json(plan_of([])), "danger": "deadly"}])
def test_what_is_no_plan_is_refused(data: Mapping[str, object]) -> None:
    with pytest.raises(UsageError, match="not a plan"):
        plan_from_json(data)


def test_the_journal_is_private(journal: Journal) -> None:
    jobs.create(plan_of([]), journal)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in journal.path.parent.iterdir()}
    assert set(modes.values()) == {0o600}
    assert {"journal.db", "journal.db-wal"} <= set(modes)


def test_jobs_are_listed_newest_first_by_state_vm_and_host(journal: Journal) -> None:
    host = open_host(fake_verbs.URI)
    done = jobs.submit(plan_of([], vm="web", uuid="u1"), host, journal)
    failed = jobs.submit(plan_of([Step("fake.explode", "x")], vm="db"), host, journal)
    other = jobs.create(plan_of([], vm="web", uri="qemu:///system"), journal)

    def ids(found: Sequence[Job]) -> list[int]:
        return [job.id for job in found]

    assert ids(journal.jobs()) == [other.id, failed.id, done.id]
    assert ids(journal.jobs(limit=1)) == [other.id]
    assert ids(journal.jobs(limit=None, states={JobState.DONE, JobState.FAILED})) == [failed.id, done.id]
    assert ids(journal.jobs(vm="u1")) == [done.id]
    assert ids(journal.jobs(vm="web", host_uri=host.uri)) == [done.id]
    assert journal.jobs(vm="nobody") == ()
    with pytest.raises(NotFound, match="job list"):
        journal.job(99)


def test_times_are_utc(journal: Journal) -> None:
    job = jobs.create(plan_of([]), journal)
    assert job.created_at.utcoffset() == timedelta(0)
    assert abs(datetime.now(UTC) - job.created_at) < timedelta(minutes=1)


def test_a_stamp_changes_with_every_write_of_any_process_and_only_then(journal: Journal) -> None:
    with Journal() as other:
        stamp = journal.stamp()
        assert journal.stamp() == stamp
        jobs.create(plan_of([]), other)
        changed = journal.stamp()
        assert changed != stamp
        jobs.create(plan_of([], vm="db"), journal)
        assert journal.stamp() != changed


def test_old_jobs_are_forgotten_but_not_those_that_live_or_hold_a_vm(journal: Journal, tmp_path: Path) -> None:
    host = open_host(fake_verbs.URI)
    stuck = [make_step(tmp_path / "x"), Step("fake.stubborn", "s", {"path": "/nowhere"}), Step("fake.explode", "x")]
    halfway = jobs.submit(plan_of(stuck, vm="halfway"), host, journal)
    queued = jobs.create(plan_of([], vm="queued"), journal)
    old = jobs.submit(plan_of([Step("fake.explode", "x")], vm="old"), host, journal)
    new = [jobs.submit(plan_of([], vm="new"), host, journal) for _ in range(3)]
    assert journal.log_path(old.id).exists()
    journal.keep = 3
    journal.prune()
    assert {job.id for job in journal.jobs()} == {halfway.id, queued.id, *(job.id for job in new)}
    assert not journal.log_path(old.id).exists()
    assert journal._database.execute("SELECT * FROM steps WHERE job_id = ?", (old.id,)).fetchall() == []


def test_pruning_happens_by_itself(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("host.journal.PRUNE_EVERY_JOBS", 2)
    called: list[object] = []
    monkeypatch.setattr(Journal, "prune", lambda self, **options: called.append(options))
    for name in "abcd":
        jobs.create(plan_of([], vm=name), journal)
    assert len(called) == 2


def test_progress_counts_finished_steps_and_the_running_one() -> None:
    steps = tuple(
        JobStep(index, "v", "t", state, fraction)
        for index, (state, fraction) in enumerate(
            [(StepState.DONE, 1.0), (StepState.RUNNING, 0.5), (StepState.PENDING, None), (StepState.PENDING, None)]
        )
    )
    job = Job(1, "t", JobState.RUNNING, "u", "h", None, None, (), steps, plan_of([]), datetime.now(UTC))
    assert job.progress == 0.375
    assert job.current_step == steps[1]


def test_an_older_journal_is_migrated_and_keeps_its_jobs(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    with Journal(path) as journal:
        job = jobs.create(plan_of([]), journal)
    database = open_database(path)
    migrate(database, path, (*MIGRATIONS, ("ALTER TABLE jobs ADD COLUMN tried INTEGER NOT NULL DEFAULT 7",)))
    row = database.execute("SELECT id, tried FROM jobs").fetchone()
    assert (row["id"], row["tried"]) == (job.id, 7)
    assert database.execute("PRAGMA user_version").fetchone()[0] == len(MIGRATIONS) + 1
    database.close()


def test_a_migration_that_fails_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    Journal(path).close()
    database = open_database(path)
    bad = (*MIGRATIONS, ("ALTER TABLE jobs ADD COLUMN tried INTEGER", "SELECT nonsense"))
    with pytest.raises(Exception, match="nonsense"):
        migrate(database, path, bad)
    assert database.execute("PRAGMA user_version").fetchone()[0] == len(MIGRATIONS)
    assert "tried" not in [row["name"] for row in database.execute("PRAGMA table_info(jobs)")]
    database.close()
