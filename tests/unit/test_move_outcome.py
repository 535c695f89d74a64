"""The figures of a move beside its forecast, in words and as JSON: pure functions on journalled jobs."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest

from host.job_model import Job, JobState, JobStep, StepState
from host.plan import Plan, Step
from hvtui.cli.change import Outcome, report
from hvtui.cli.output import Format
from vm.move_forecast import short
from vm.move_model import Forecast, MoveKind
from vm.move_outcome import as_json, figures_in_words, told, with_forecast, words

BEGAN = datetime(2024, 1, 2, tzinfo=UTC)
NAMES = {"target_name": "lab2", "name": "web-01"}
FORECAST = Forecast(MoveKind.LIVE, total_s=9.0, downtime_s=0.1, transfer_bytes=1 << 30)


def job(*verbs: str, state: JobState = JobState.DONE, took_s: float = 2.1, forecast: Forecast = FORECAST,
        **results: Any) -> Job:  # fmt: skip
    """A job of these steps; `results` are theirs, by the last word of the verb."""
    steps = with_forecast([Step(verb, verb, NAMES) for verb in verbs], forecast)
    plan = Plan("Move web-01 to lab2", "a://", steps, (), vm_name="web-01")
    done = tuple(JobStep(place, verb, verb, StepState.DONE, result=results.get(verb.rpartition(".")[2], {}))
                 for place, verb in enumerate(verbs))  # fmt: skip
    return Job(7, plan.title, state, "root", "a://", "u", "web-01", (), done, plan, BEGAN, BEGAN,
               BEGAN + timedelta(seconds=took_s))  # fmt: skip


def test_a_live_move_says_what_it_took_and_what_was_predicted():
    moved = job("move.check", "move.live", "move.finish", live={"downtime_s": 0.2, "bytes": 5 << 20})

    assert words(moved) == ("moved web-01 to lab2: 2.1 s (predicted 9.0 s), stood still 0.2 s (predicted 0.1 s)")
    assert told(moved) == "predicted 9.0 s, guest stands still 0.1 s; took 2.1 s, stood still 0.2 s, 5M sent"
    assert as_json(moved) == {
        "predicted_s": 9.0,
        "predicted_standstill_s": 0.1,
        "predicted_bytes": 1 << 30,
        "took_s": 2.1,
        "standstill_s": 0.2,
        "sent_bytes": 5 << 20,
        "became_quick": False,
    }


def test_the_standstill_of_a_quick_move_is_that_of_its_restore():
    moved = job("move.check", "move.save", "move.restore", restore={"handed_over": True, "downtime_s": 1.4})

    assert "stood still 1.4 s" in words(moved)


def test_a_live_move_that_became_a_quick_one_says_so():
    moved = job("move.live", "move.restore", live={"handed_over": False}, restore={"downtime_s": 3.0})

    assert figures_in_words(moved) == (
        "2.1 s (predicted 9.0 s), stood still 3.0 s (predicted 0.1 s), in the end as a quick move"
    )


def test_a_vm_that_was_off_did_not_stand_still():
    moved = job("move.check", "move.finish", forecast=replace(FORECAST, downtime_s=0.0))

    assert words(moved) == "moved web-01 to lab2: 2.1 s (predicted 9.0 s)"


def test_copies_and_disks_are_called_what_they_are():
    assert words(job("move.check", "move.own")).startswith("copied the definition of web-01 to lab2: 2.1 s")
    assert words(job("storage.move")).startswith("moved disks of web-01: 2.1 s")


def test_a_move_that_is_not_done_has_its_forecast_only():
    moving = job("move.check", "move.live", state=JobState.RUNNING)

    assert words(moving) == ""
    assert told(moving) == "predicted 9.0 s, guest stands still 0.1 s"


def test_other_jobs_have_no_figures():
    other = job("vm.start")

    assert (words(other), told(other), as_json(other)) == ("", "", None)


def test_short_standstills_are_milliseconds():
    assert [short(each) for each in (0.023, 0.1, 12.3)] == ["23 ms", "0.1 s", "12 s"]


def test_of_several_moves_each_has_a_line_with_its_figures(capsys: pytest.CaptureFixture[str]):
    session: Any = SimpleNamespace(output=Format.TABLE)
    moves = [job("move.check", "move.live", live={"downtime_s": 0.2}), job("move.check", state=JobState.FAILED)]

    report(session, [Outcome(each.vm_name or "", None, each.plan, each, done_word="moved") for each in moves])

    title, first, second = capsys.readouterr().out.splitlines()
    assert title.split() == ["VM", "RESULT", "JOB", "TOOK"]
    assert first.endswith("moved     7  2.1 s (predicted 9.0 s), stood still 0.2 s (predicted 0.1 s)")
    assert second.split() == ["web-01", "failed", "7"]
