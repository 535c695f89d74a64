"""A journal that is damaged, newer, locked, forbidden, or on a full disk: clear errors, and no file is lost."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from host import jobs
from host.connection import open_host
from host.errors import HvtuiError
from host.job_model import JobState
from host.job_schema import JournalDenied, JournalFailed
from host.journal import Journal, set_aside
from tests.support import fake_verbs
from tests.support.fake_verbs import make_step, plan_of, plan_three

ROOT = Path(__file__).parents[2]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    directory = tmp_path / "state"
    directory.mkdir(exist_ok=True)
    return directory / "journal.db"


@pytest.mark.parametrize("content", [b"this is no database" * 100, b"SQLite format 3\0" + b"\xff" * 5000])
def test_a_damaged_journal_is_told_and_left_as_it_is(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with pytest.raises(JournalFailed, match="damaged") as failed:
        Journal()
    assert str(path) in str(failed.value)
    assert "aside" in failed.value.remedy
    assert path.read_bytes() == content


def test_a_damaged_journal_is_moved_aside_when_told(path: Path) -> None:
    path.write_bytes(b"this is no database" * 100)
    kept = set_aside()
    assert (kept / "journal.db").read_bytes() == b"this is no database" * 100
    with Journal() as journal:
        assert jobs.create(plan_of([]), journal).id == 1
    (set_aside(path) / "journal.db").stat()


def test_a_journal_without_its_tables_is_damaged(path: Path) -> None:
    with sqlite3.connect(path) as database:
        database.execute("PRAGMA user_version=1")
    database.close()
    with pytest.raises(JournalFailed, match="no such table"), Journal() as journal:
        journal.jobs()


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE jobs SET plan = '{'",
        "UPDATE jobs SET plan = '{}'",
        "UPDATE jobs SET state = 'exploded'",
        "UPDATE jobs SET created_at = 'yesterday'",
        "UPDATE steps SET result = '{'",
    ],
)
def test_a_row_that_makes_no_sense_is_told_as_damage(tmp_path: Path, change: str) -> None:
    with Journal() as journal:
        jobs.submit(plan_of([make_step(tmp_path / "one")]), open_host(fake_verbs.URI), journal)
        journal._database.execute(change)
    with Journal() as journal, pytest.raises(JournalFailed, match="damaged"):
        journal.jobs()


def test_a_newer_journal_is_refused_and_left_as_it_is(path: Path) -> None:
    Journal().close()
    with sqlite3.connect(path) as database:
        database.execute("PRAGMA user_version=99")
    database.close()
    with pytest.raises(JournalFailed, match="newer hvtui") as refused:
        Journal()
    assert "99" in str(refused.value)


def test_a_state_directory_that_cannot_be_made_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("HVTUI_STATE_DIR", str(tmp_path / "file/state"))
    with pytest.raises(JournalFailed, match="Not a directory") as failed:
        Journal()
    assert "HVTUI_STATE_DIR" in failed.value.remedy


def test_a_forbidden_state_directory_is_denied(path: Path) -> None:
    Journal().close()
    path.parent.chmod(0o700)
    os.chown(path.parent, 0, 0)
    code = "import os; os.setuid(65534); import host.journal; host.journal.Journal()"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "JournalDenied" in told.stderr
    assert "no permission" in told.stderr


def test_a_journal_in_a_directory_made_read_only_is_denied(path: Path) -> None:
    with Journal() as journal:
        journal._database.execute("PRAGMA query_only=1")
        with pytest.raises(JournalDenied) as denied:
            jobs.create(plan_of([]), journal)
    assert denied.value.exit_code == 5


def test_a_journal_that_another_process_keeps_locked_is_told(path: Path) -> None:
    with Journal() as journal:
        holder = sqlite3.connect(path, isolation_level=None)
        holder.execute("BEGIN IMMEDIATE")
        journal._database.execute("PRAGMA busy_timeout=20")
        with pytest.raises(JournalFailed, match="locked"):
            jobs.create(plan_of([]), journal)
        holder.close()
        assert jobs.create(plan_of([]), journal).id == 1


FILL = """
import resource, signal, sys
from pathlib import Path
from host import jobs
from host.connection import open_host
from host.errors import HvtuiError
from host.journal import Journal
from tests.support import fake_verbs
journal, work = Journal(), Path(sys.argv[1])
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), int(sys.argv[2])))
try:
    for number in range(2000):
        jobs.submit(fake_verbs.plan_three(work, vm=str(number)), open_host(fake_verbs.URI), journal)
except HvtuiError as error:
    print(number, error)
    sys.exit(error.exit_code)
"""


def test_a_full_disk_is_told_and_the_journal_is_whole_afterwards(path: Path, tmp_path: Path) -> None:
    """RLIMIT_FSIZE bounds every file at a size: writing beyond fails as on a full disk."""
    work = tmp_path / "work"
    work.mkdir()
    Journal().close()
    command = [sys.executable, "-c", FILL, str(work), str(path.stat().st_size + 120_000)]
    told = subprocess.run(command, capture_output=True, text=True, check=False)
    assert told.returncode == 1, told.stderr
    assert "the journal of jobs cannot be written" in told.stdout
    assert f"Free space in {path.parent}" in told.stdout
    assert "Traceback" not in told.stderr
    with Journal() as journal:
        journal.recover()
        assert {job.state for job in journal.jobs(limit=None)} <= {JobState.DONE, JobState.INTERRUPTED}
        jobs.create(plan_three(work, vm="again"), journal)


def test_progress_that_cannot_be_journalled_does_not_end_the_step(tmp_path: Path, monkeypatch) -> None:
    journal = Journal()
    save = journal.save

    def full_at_half(job, claim, *, steps=()):
        if job.steps[0].note == "half" and job.state is JobState.RUNNING and job.steps[0].state == "running":
            raise JournalFailed("cannot be written")
        save(job, claim, steps=steps)

    monkeypatch.setattr(journal, "save", full_at_half)
    job = jobs.submit(plan_of([make_step(tmp_path / "one")]), open_host(fake_verbs.URI), journal)
    assert job.state is JobState.DONE
    journal.close()


def test_errors_about_a_closed_journal_are_readable() -> None:
    journal = Journal()
    journal.close()
    with pytest.raises(HvtuiError, match="closed"):
        journal.jobs()


CREATES_A_JOB = """
import sys
from pathlib import Path
from host import jobs
from host.journal import Journal
from tests.support import fake_verbs
with Journal(Path(sys.argv[1])) as journal:
    jobs.create(fake_verbs.plan_of([fake_verbs.make_step("x")], vm=sys.argv[2]), journal)
"""


def test_two_journals_of_one_process_keep_their_locks_while_others_come_and_go(path: Path) -> None:
    with Journal(path) as first, Journal(path) as second:
        for number in range(3):
            subprocess.run([sys.executable, "-c", CREATES_A_JOB, str(path), f"vm-{number}"], check=True, cwd=ROOT)
            assert len(first.jobs()) == len(second.jobs()) == number + 1
            with Journal(path) as third:
                assert len(third.jobs()) == number + 1
