"""Sets of jobs as commands: what a dry run shows, the one progress view, the report, and the noun job with sets."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pyte
import pytest

from host import job_sets, jobs, runner
from host.connection import open_host
from host.errors import Blocked, Busy, Denied, UsageError
from host.job_model import Job, JobSet, JobState, StepState
from host.journal import Journal
from host.plan import Blocker, Plan, PlanSet
from hvtui.cli.change_set import change_set, plan_set_text
from hvtui.cli.output import Format
from hvtui.cli.session import Session
from hvtui.cli.set_progress import SetProgress, set_lines
from tests.cli.conftest import Command
from tests.support import fake_verbs
from tests.support.fake_verbs import make_step, plan_of
from tests.support.simulated_world import HOSTILE_NAMES
from tests.support.waiting import wait_for

WORKER = (sys.executable, "-m", "tests.support.job_worker", "set")


@pytest.fixture
def session(simulated_uri: str) -> Session:
    """On a host simulated in this process: sets run in threads of it."""
    return Session(given={"connect": simulated_uri})


@pytest.fixture
def detached(monkeypatch: pytest.MonkeyPatch) -> Session:
    """On a host whose sets get a process of their own, which knows the fake verbs."""
    monkeypatch.setattr(runner, "SET_PROGRAM", WORKER)
    session = Session(given={})
    session._host = open_host(fake_verbs.URI)
    return session


def names(count: int) -> list[str]:
    return [f"web-{number:02}" for number in range(1, count + 1)]


def making(session: Session, work: Path, name: str, **args: str) -> Plan:
    steps = [make_step(work / f"{name}-disk"), make_step(work / name, **args)]
    return plan_of(steps, vm=name, title=f"Make {name}", uri=session.host().uri)


def set_of(session: Session, work: Path, count: int = 3, failing: str = "", **rest: object) -> PlanSet:
    plans = [making(session, work, name, **({"fail": "no space"} if name == failing else {})) for name in names(count)]
    values: dict[str, object] = {"title": "Deploy web-*", "plans": tuple(plans), "command": ("vm", "deploy", "web-*")}
    return PlanSet(**(values | rest))  # type: ignore[arg-type]


def base(session: Session, work: Path, **args: str) -> tuple[Plan, ...]:
    return (plan_of([make_step(work / "base", **args)], vm=None, title="Make the base", uri=session.host().uri),)


def members() -> tuple[Job, ...]:
    with Journal() as journal:
        return journal.members(1)


def states() -> list[str]:
    return [job.state.value for job in members()]


def pause(work: Path, name: str) -> Path:
    path = work / f"{name}.pause"
    path.touch()
    return path


def once_paused(work: Path, name: str, act: Callable[[], object]) -> threading.Thread:
    def wait_and_act() -> None:
        wait_for((work / f"{name}.paused").exists)
        act()

    thread = threading.Thread(target=wait_and_act, daemon=True)
    thread.start()
    return thread


def test_a_set_runs_and_reports_each_vm(session: Session, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plan_set = set_of(session, tmp_path, preparations=base(session, tmp_path))
    assert change_set(session, lambda: plan_set, done_word="deployed") == 0
    told = capsys.readouterr()
    assert [line.split() for line in told.out.splitlines()] == [
        ["VM", "RESULT", "JOB"],
        ["web-01", "deployed", "2"],
        ["web-02", "deployed", "3"],
        ["web-03", "deployed", "4"],
    ]
    assert told.err.splitlines()[0] == "Deploy web-*: 3 jobs after a preparation, set 1"
    assert "web-02: done" in told.err
    assert "\x1b" not in told.err
    assert states() == ["done"] * 4


def test_one_that_fails_is_told_once_when_it_happens_and_the_others_are_done(
    session: Session, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert change_set(session, lambda: set_of(session, tmp_path, failing="web-02")) == 1
    told = capsys.readouterr()
    assert told.err.count("no space") == 1
    assert "Try less" in told.err
    assert "1 of 3 failed" in told.err
    assert states() == ["done", "failed", "done"]
    assert not (tmp_path / "web-02-disk").exists()


def test_a_preparation_that_fails_is_told_and_the_rest_is_summed_up(
    session: Session, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plan_set = set_of(session, tmp_path, 7, preparations=base(session, tmp_path, fail="no such image"))
    assert change_set(session, lambda: plan_set) == 1
    told = capsys.readouterr()
    assert "base: no such image" in told.err
    assert told.err.count("not begun") == 1
    assert "web-01, web-02, web-03, web-04, web-05 and 2 more: not begun: job 1 has failed" in told.err
    assert "Make the base  failed" in told.out
    assert states() == ["failed"] + ["cancelled"] * 7


def test_the_report_as_json_has_each_vm_with_its_job(
    session: Session, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    session.given["output"] = Format.JSON
    change_set(session, lambda: set_of(session, tmp_path, failing="web-02"))
    report = json.loads(capsys.readouterr().out)
    assert [(each["vm"], each["result"], each["job"], each["exit_code"]) for each in report] == [
        ("web-01", "done", 1, 0),
        ("web-02", "failed", 2, 1),
        ("web-03", "done", 3, 0),
    ]
    assert report[1]["error"] == "web-02: no space"


def test_a_dry_run_shows_the_first_vm_in_full_and_names_the_others(
    session: Session, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    session.given["dry_run"] = True
    plan_set = set_of(session, tmp_path, 20, preparations=base(session, tmp_path), warnings=("more than there is",))
    plans = (replace(plan_set.plans[0], warnings=("slow",)), replace(plan_set.plans[1], warnings=("slow",)))
    assert change_set(session, lambda: replace(plan_set, plans=(*plans, *plan_set.plans[2:]))) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[:5] == [
        "Deploy web-*",
        "  warning: more than there is",
        "  warning: web-01, web-02: slow",
        "Make the base",
        "  1  Make base",
    ]
    assert lines[5:8] == ["Make web-01", "  1  Make web-01-disk", "  2  Make web-01"]
    assert lines[8].startswith("and 19 more like it: web-02, web-03")
    assert lines[-2].endswith("web-20")
    assert lines[-1].endswith("vm deploy 'web-*'")
    with Journal() as journal:
        assert journal.jobs() == ()


def test_a_dry_run_as_json_has_every_plan(session: Session, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    session.given |= {"dry_run": True, "output": Format.JSON}
    assert change_set(session, lambda: set_of(session, tmp_path, preparations=base(session, tmp_path))) == 0
    (shown,) = json.loads(capsys.readouterr().out)
    assert list(shown) == ["title", "command", "warnings", "blockers", "preparations", "plans"]
    assert [plan["vm_name"] for plan in shown["plans"]] == names(3)
    assert len(shown["preparations"]) == 1


def test_a_blocked_set_says_which_vms_are_in_the_way_and_begins_nothing(
    session: Session, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plan_set = set_of(session, tmp_path)
    taken = [replace(plan, blockers=(Blocker("its name is taken", "Choose another"),)) for plan in plan_set.plans[1:]]
    blocked = replace(plan_set, plans=(plan_set.plans[0], *taken))
    with pytest.raises(Blocked, match="web-02, web-03: its name is taken"):
        change_set(session, lambda: blocked)
    session.given["dry_run"] = True
    assert change_set(session, lambda: blocked) == 9
    assert "  blocked: web-02, web-03: its name is taken. Choose another" in capsys.readouterr().out
    with Journal() as journal:
        assert journal.jobs() == ()


def test_a_set_with_a_vm_that_is_held_names_the_holder(session: Session, tmp_path: Path) -> None:
    with Journal() as journal:
        holder = jobs.create(making(session, tmp_path, "web-02"), journal)
        with pytest.raises(Busy, match=f"job {holder.id}"):
            change_set(session, lambda: set_of(session, tmp_path))
        assert journal.jobs() == (holder,)


def test_a_set_is_asked_about_where_that_is_wanted_and_not_without_a_terminal(
    session: Session, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(UsageError, match="confirmation"):
        change_set(session, lambda: set_of(session, tmp_path), ask=True)
    assert "and 2 more like it" in capsys.readouterr().err
    session.given["yes"] = True
    assert change_set(session, lambda: set_of(session, tmp_path), ask=True) == 0


def test_a_read_only_session_changes_nothing(session: Session, tmp_path: Path) -> None:
    session.given["read_only"] = True
    with pytest.raises(Denied):
        change_set(session, lambda: set_of(session, tmp_path))


def test_the_warnings_of_a_set_are_told(session: Session, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plan_set = set_of(session, tmp_path, warnings=("the pool will be nearly full",))
    slow = replace(plan_set.plans[0], warnings=("slow",))
    change_set(session, lambda: replace(plan_set, plans=(slow, *plan_set.plans[1:])))
    told = capsys.readouterr().err
    assert "warning: the pool will be nearly full" in told
    assert "warning: web-01: slow" in told


def test_ctrl_c_cancels_what_is_not_over_and_finished_vms_stay(
    session: Session, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in names(8)[1:]:
        pause(tmp_path, name)
    presser = once_paused(tmp_path, "web-05", lambda: os.kill(os.getpid(), signal.SIGINT))
    assert change_set(session, lambda: set_of(session, tmp_path, 8)) == 130
    presser.join()
    assert states() == ["done"] + ["cancelled"] * 7
    assert (tmp_path / "web-01").exists()
    assert not (tmp_path / "web-02-disk").exists()
    told = capsys.readouterr()
    assert "Interrupted" in told.err
    assert "1 done, 7 cancelled" in told.err


def test_a_time_limit_cancels_a_set_and_ends_with_7(session: Session, tmp_path: Path) -> None:
    pause(tmp_path, "web-02")
    session.given["timeout"] = 0.5
    assert change_set(session, lambda: set_of(session, tmp_path)) == 7
    assert states() == ["done", "cancelled", "done"]


def test_without_waiting_the_set_goes_on_in_its_own_process(
    detached: Session, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    detached.given["wait"] = False
    assert change_set(detached, lambda: set_of(detached, tmp_path)) == 0
    told = capsys.readouterr()
    assert told.out.startswith("Deploy web-*: ")
    assert "hvtui job watch 1" in told.err
    with Journal() as journal:
        assert JobSet(job_sets.wait_set(1, journal, 30)).state is JobState.DONE


def test_a_set_in_its_own_process_is_watched_to_its_end(detached: Session, tmp_path: Path) -> None:
    assert change_set(detached, lambda: set_of(detached, tmp_path, failing="web-01")) == 1
    assert states() == ["failed", "done", "done"]


def test_a_killed_runner_is_told_and_restart_completes_the_set(
    detached: Session, tmp_path: Path, capsys: pytest.CaptureFixture[str], hv: Command, simulated_uri: str
) -> None:
    stop = pause(tmp_path, "web-02")

    def kill() -> None:
        with Journal() as journal:
            wait_for(lambda: journal.job(3).state.is_over, what="the VM beside it")
            os.kill(int(journal._claim_of(2).split(" ")[1]), signal.SIGKILL)

    killer = once_paused(tmp_path, "web-02", kill)
    assert change_set(detached, lambda: set_of(detached, tmp_path)) == 1
    killer.join()
    told = capsys.readouterr().err
    (line,) = (line for line in told.splitlines() if ": interrupted: its process was killed" in line)
    assert "web-02" in line  # beside others, if the process had not come to their end
    assert "Complete it with 'hvtui job restart 1'" in told
    stop.unlink()
    assert "Complete set 1: Deploy web-*" in hv("job", "restart", "2", "--dry-run", connect=None).out
    with Journal() as journal:
        job_sets.restart_set(1, detached.host(), journal, program=WORKER)
        job_sets.wait_set(1, journal, 30)
    assert states() == ["done"] * 3


# On a terminal


class Terminal:
    """Standard error as a terminal of 80 columns, and what stands on it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        monkeypatch.setattr("sys.stderr.isatty", lambda: True)
        for name, value in {"TERM": "xterm", "COLUMNS": "80", "LINES": "24", "NO_COLOR": "1"}.items():
            monkeypatch.setenv(name, value)
        self._capsys = capsys
        self._screen = pyte.Screen(80, 24)
        self._stream = pyte.Stream(self._screen)

    @property
    def lines(self) -> list[str]:
        """The lines on it now."""
        self._stream.feed(self._capsys.readouterr().err.replace("\n", "\r\n"))
        return [line.rstrip() for line in self._screen.display]


def running(job: Job, *, note: str = "", fraction: float | None = None) -> Job:
    step = replace(job.steps[0], state=StepState.RUNNING, note=note, fraction=fraction)
    return replace(job, state=JobState.RUNNING, steps=(step, *job.steps[1:]))


def test_the_view_has_a_bar_over_the_set_and_a_line_for_each_that_runs(
    session: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    terminal = Terminal(monkeypatch, capsys)
    with Journal() as journal:
        found = job_sets.create(set_of(session, tmp_path, 4), journal)
    with SetProgress() as progress:
        progress.show(found)
        progress.show((running(found[0], note="copying", fraction=0.5), running(found[1]), *found[2:]))
        lines = terminal.lines
        assert lines[0] == "▓░░░░░░░░░░░░░░░░░░░   6%  Deploy web-*  0/4 done"
        assert lines[1] == "  web-01  1/2  Make web-01-disk  50%  copying"
        assert lines[2] == "  web-02  1/2  Make web-02-disk"
        assert lines[3] == ""
        failed = replace(found[0], state=JobState.FAILED, error="web-01: no space", remedy="Make room", exit_code=1)
        progress.show((failed, replace(found[1], state=JobState.DONE), running(found[2]), found[3]))
        progress.show((failed, replace(found[1], state=JobState.DONE), running(found[2], note="x"), found[3]))
        lines = terminal.lines
        progress.say("Interrupted")
        progress.show((failed, replace(found[1], state=JobState.DONE), running(found[2], note="x"), found[3]))
        after = terminal.lines
    assert progress.told == {1}
    assert [after[0], after[1], after[4]] == [lines[0], "Interrupted", ""]
    assert lines[0] == "hvtui: web-01: no space. Make room (job 1)"
    assert lines[1].endswith("Deploy web-*  1/4 done, 1 failed")
    assert lines[2] == "  web-03  1/2  Make web-03-disk  x"
    assert lines[3] == ""
    assert terminal.lines[2:] == [""] * 22  # the view goes, what was told stays


def test_the_view_never_grows_over_its_lines_or_the_width(
    session: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    terminal = Terminal(monkeypatch, capsys)
    with Journal() as journal:
        found = job_sets.create(set_of(session, tmp_path, 20), journal)
    busy = JobSet(tuple(running(job, note="x" * 200) for job in found))
    lines = set_lines(busy, most=8)
    assert len(lines) == 9
    assert lines[-1] == "  and 13 more"
    with SetProgress() as progress:
        progress.show(busy.jobs)
        shown = terminal.lines
        assert [bool(line) for line in shown] == [True] * 9 + [False] * 15
        assert {len(line) for line in shown[1:8]} == {79}


@pytest.mark.parametrize("name", HOSTILE_NAMES, ids=["markup", "escapes", "wide", "globs", "10 kB"])
def test_hostile_names_in_a_set_are_harmless(
    session: Session, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    first, second, _ = set_of(session, tmp_path, failing="web-02").plans
    bad = tuple(replace(plan, vm_name=name + str(place), title=name) for place, plan in enumerate((first, second)))
    plan_set = PlanSet(name, bad, ("vm", name), warnings=(name,))
    assert change_set(session, lambda: plan_set) == 1
    text = capsys.readouterr()
    for shown in (text.out, text.err, plan_set_text(plan_set)):
        assert not any(ord(char) < 32 and char != "\n" for char in shown)


# The noun job


@pytest.fixture
def made(session: Session, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A set of a preparation and three VMs, of which the second failed; then a job alone."""
    plan_set = set_of(session, tmp_path, failing="web-02", preparations=base(session, tmp_path))
    assert change_set(session, lambda: plan_set) == 1
    with Journal() as journal:
        jobs.submit(making(session, tmp_path, "alone"), session.host(), journal)


def test_a_set_is_one_line_of_the_list(hv: Command, made: None) -> None:
    lines = hv("job", "list").out.splitlines()
    assert len(lines) == 3
    assert lines[1].split()[:2] == ["5", "done"]
    assert lines[2].split()[:2] == ["1", "failed"]
    assert "Deploy web-*  2/3 done, 1 failed" in lines[2]
    assert len(hv("job", "list", "--all").out.splitlines()) == 6
    assert [job["id"] for job in hv("job", "list", "-o", "json").json] == [5, 4, 3, 2, 1]
    assert [job["set"] for job in hv("job", "list", "-o", "json").json] == [None, 1, 1, 1, 1]
    assert "Make web-02" in hv("job", "list", "--state", "failed").out
    assert hv("job", "list", "--limit", "1").out.splitlines()[1].split()[0] == "5"


def test_a_set_is_shown_with_its_members_and_each_member_by_itself(hv: Command, made: None) -> None:
    shown = hv("job", "show", "1").out
    assert "failed, 2/3 done, 1 failed" in shown
    assert any(line.split()[:3] == ["3", "failed", "web-02"] for line in shown.splitlines())
    assert "no space" in shown
    assert len(hv("job", "show", "1", "-o", "json").json) == 4
    assert "Make the base" in hv("job", "show", "1", "--only").out
    assert "web-02" not in hv("job", "show", "1", "--only").out
    (member,) = hv("job", "show", "3", "-o", "json").json
    assert (member["set"], member["set_title"]) == (1, "Deploy web-*")


def test_watching_a_set_ends_with_its_code(hv: Command, made: None) -> None:
    watched = hv("job", "watch", "1")
    assert watched.code == 1
    assert "web-02  failed" in watched.out
    assert hv("job", "watch", "1", "--only").code == 0
    streamed = hv("job", "watch", "1", "-o", "jsonl")
    assert streamed.code == 1
    assert [json.loads(line)["id"] for line in streamed.out.splitlines()] == [1, 2, 3, 4]


def test_cancelling_a_set_that_is_over_is_refused(hv: Command, made: None) -> None:
    assert hv("job", "cancel", "3").code == 4
    assert "failed" in hv("job", "cancel", "3").err


def test_cancelling_one_job_of_a_set_cancels_all_of_it_or_with_only_just_that_one(
    hv: Command, session: Session, tmp_path: Path
) -> None:
    for name in names(3):
        pause(tmp_path, name)
    with Journal() as journal:
        job_sets.start_detached_set(set_of(session, tmp_path), session.host(), journal)
        wait_for(lambda: all((tmp_path / f"{name}.paused").exists() for name in names(3)))
        assert hv("job", "cancel", "2", "--only").code == 0
        assert [job.state.value for job in journal.members(1)] == ["running", "cancelled", "running"]
        assert "Set 1: Deploy web-*  0/3 done, 3 cancelled" in hv("job", "cancel", "3").out
        assert [job.state.value for job in journal.members(1)] == ["cancelled"] * 3


def test_restart_shows_what_is_left_of_a_set_and_only_that(hv: Command, made: None) -> None:
    left = hv("job", "restart", "4", "--dry-run", connect=None)
    assert left.code == 0
    assert "Make web-02" in left.out
    assert "web-01" not in left.out
    assert "same as" in left.out


def test_restart_runs_again_only_what_is_not_done(
    made: None, session: Session, capsys: pytest.CaptureFixture[str]
) -> None:
    from hvtui.cli import job_set

    with Journal() as journal:
        assert job_set.restart(session, journal.job(4)) == 1  # the same step fails again, and the rest stays done
    assert states() == ["done", "done", "failed", "done"]
    assert "web-02  failed" in capsys.readouterr().out


def test_rollback_and_undo_take_one_back_or_the_whole_set(
    hv: Command, session: Session, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plan_set = set_of(session, tmp_path, failing="web-02", preparations=base(session, tmp_path))
    change_set(session, lambda: plan_set, keep_failed=True)
    assert (tmp_path / "web-02-disk").exists()
    plan = hv("job", "rollback", "1", "--set", "--dry-run", connect=None)
    assert plan.code == 0
    assert "Roll back job 3: Make web-02" in plan.out
    assert hv("job", "rollback", "2", "--dry-run", connect=None).code == 4
    assert hv("job", "rollback", "1", "--set", "--yes", connect=None).code == 0
    assert not (tmp_path / "web-02-disk").exists()
    assert hv("job", "rollback", "1", "--set", connect=None).code == 4
    one = hv("job", "undo", "2", "--dry-run", connect=None).out
    assert one.count("Undo job") == 1
    both = hv("job", "undo", "2", "--set", "--dry-run", connect=None)
    assert both.out.count("Undo job") == 2
    undone = hv("job", "undo", "2", "--set", "--yes", connect=None)
    assert undone.code == 0
    assert "'hvtui job undo 1' takes that back too" in undone.err
    assert not (tmp_path / "web-01").exists()
    assert (tmp_path / "base").exists()
