"""Changes: dry runs, confirmations, bulk runs, and that nothing happens that was not asked for."""

from __future__ import annotations

import json
import re

import pytest

from host.journal import Journal
from tests.cli.conftest import Command
from tests.support.simulated_world import ESCAPE_NAME, GLOB_NAME, LONG_NAME, MARKUP_NAME, WIDE_NAME, uuid_of


def test_a_vm_is_started_as_a_job(hv: Command) -> None:
    result = hv("vm", "start", "build-07")
    assert (result.code, result.out) == (0, "Start build-07: done (job 1)\n")
    job = Journal().job(1)
    assert job.command == ("vm", "start", "build-07")
    assert job.vm_uuid == uuid_of("build-07")


def test_the_result_in_json_has_the_documented_keys(hv: Command) -> None:
    assert hv("vm", "start", "build-07", "-o", "json").json == [
        {
            "vm": "build-07",
            "uuid": uuid_of("build-07"),
            "result": "done",
            "job": 1,
            "exit_code": 0,
            "error": None,
            "remedy": None,
        }
    ]


@pytest.mark.parametrize("name", [MARKUP_NAME, WIDE_NAME, GLOB_NAME, LONG_NAME])
def test_a_hostile_name_is_a_name_like_any_other(hv: Command, name: str) -> None:
    result = hv("vm", "start", name, "-o", "json")
    assert (result.code, result.json[0]["vm"]) == (0, name)


def test_a_hostile_name_cannot_reach_the_terminal(hv: Command) -> None:
    result = hv("vm", "start", ESCAPE_NAME)
    assert result.code == 4
    assert "\x9b" not in result.out + result.err
    assert "\u202e" not in result.out + result.err


def test_each_of_several_is_reported_and_one_failure_fails_the_command(hv: Command) -> None:
    result = hv("vm", "start", "build-*", "web-01", "web-02", "-o", "json")
    assert result.code == 4
    assert {each["vm"]: each["result"] for each in result.json} == {
        "build-07": "done",
        "build-08": "done",
        "web-01": "failed",
        "web-02": "failed",
    }
    assert "2 of 4 failed" in result.err


def test_what_a_glob_matched_and_is_so_already_is_unchanged_and_no_failure(hv: Command) -> None:
    result = hv("vm", "start", "build-*", "web-*", "-o", "json")
    assert result.code == 0
    assert {each["vm"]: (each["result"], each["job"]) for each in result.json if each["vm"].startswith("web")} == {
        "web-01": ("unchanged", None),
        "web-02": ("unchanged", None),
    }
    assert hv("vm", "start", "web-0[1]").out == "web-01: unchanged\n"
    assert hv("vm", "start", "web-01").code == 4
    assert hv("vm", "stop", "--filter", "name:build").code == 0
    assert "unchanged" in hv("vm", "pause", "--filter", "state:paused", "--dry-run").err


@pytest.mark.parametrize("verb", ["off", "reset"])
def test_cutting_the_power_of_several_wants_a_confirmation_and_of_one_named_exactly_none(
    hv: Command, verb: str
) -> None:
    for names in (("web-01", "web-02"), ("web-*",), ("web-0[1]",), ("--filter", "name:web-01")):
        refused = hv("vm", verb, *names)
        assert refused.code == 2
        assert "--yes" in refused.err
    assert Journal().jobs() == ()
    assert hv("vm", verb, "web-01", "web-02", "--yes").code == 0
    assert hv("vm", verb, "web-01").code == 0


def test_a_warning_of_the_plan_is_told_without_a_dry_run_and_not_twice(hv: Command) -> None:
    result = hv("vm", "set", "web-01", "vcpus=1")
    assert result.code == 0
    assert result.err.startswith("warning: ")
    assert "warning" not in result.out
    several = hv("vm", "reset", "web-01", "web-02", "--yes")
    assert several.err.count("warning: web-01, web-02: Like pulling the plug") == 1
    asked = hv("vm", "delete", "web-01", "--off")
    assert asked.err.count("warning: It is running and is turned off") == 1


def test_a_guest_that_was_only_asked_is_not_called_done(hv: Command) -> None:
    assert hv("vm", "stop", "web-01", "--no-wait").out == "Shut down web-01: asked (job 1)\n"
    assert hv("vm", "restart", "web-01", "--no-wait", "-o", "json").json[0]["result"] == "asked"


def test_different_failures_end_with_one(hv: Command) -> None:
    from hvtui.cli.change import overall

    assert overall([0, 0]) == 0
    assert overall([0, 4, 4]) == 4
    assert overall([4, 5, 0]) == 1


def test_a_table_of_results_names_each(hv: Command) -> None:
    result = hv("vm", "pause", "web-01", "web-02")
    assert result.code == 0
    assert [line.split()[:2] for line in result.out.splitlines()] == [
        ["VM", "RESULT"],
        ["web-01", "done"],
        ["web-02", "done"],
    ]


def test_a_dry_run_changes_nothing_and_leaves_no_job(hv: Command) -> None:
    result = hv("vm", "off", "web-01", "--dry-run")
    assert result.code == 0
    assert "Turn off web-01" in result.out
    assert re.search(r"same as: hvtui --headless --connect test:///\S+ vm off web-01$", result.out, re.MULTILINE)
    assert Journal().jobs() == ()


def test_a_dry_run_in_json_is_the_plan(hv: Command) -> None:
    plans = hv("vm", "off", "web-01", "db-01", "--dry-run", "-o", "json").json
    assert [plan["command"] for plan in plans] == [["vm", "off", "web-01"], ["vm", "off", "db-01"]]
    assert plans[0]["danger"] == "disruptive"


def test_a_blocked_dry_run_ends_with_the_blockers_code(hv: Command) -> None:
    result = hv("vm", "start", "web-01", "--dry-run")
    assert result.code == 4
    assert "blocked: it is running" in result.out


def test_what_loses_something_is_refused_without_a_terminal(hv: Command) -> None:
    result = hv("vm", "discard-saved", "build-08")
    assert result.code == 2
    assert "lost: the saved state of build-08" in result.err
    assert "--yes" in result.err
    assert Journal().jobs() == ()


def test_yes_answers_the_question(hv: Command) -> None:
    assert hv("vm", "discard-saved", "build-08", "--yes").code == 0


def test_nothing_is_chosen_by_an_empty_command(hv: Command) -> None:
    result = hv("vm", "off")
    assert result.code == 2
    assert "--filter" in result.err


def test_a_filter_alone_chooses(hv: Command) -> None:
    result = hv("vm", "pause", "--filter", "state:running tag:web", "-o", "json")
    assert {each["vm"] for each in result.json} == {"web-01", "web-02"}


def test_a_filter_that_matches_nothing_is_a_usage_error(hv: Command) -> None:
    assert hv("vm", "off", "--filter", "tag:nothing").code == 2


def test_read_only_refuses_a_change_and_allows_its_plan(hv: Command) -> None:
    assert hv("vm", "start", "build-07", "--read-only").code == 5
    assert hv("vm", "list", "--read-only").code == 0


def test_stop_restart_and_autostart_take_their_options(hv: Command) -> None:
    assert hv("vm", "stop", "web-01", "--timeout", "5").code == 0
    plan = hv("vm", "stop", "web-01", "--timeout", "7", "--force", "--dry-run", "-o", "json").json[0]
    assert plan["command"] == ["vm", "stop", "--timeout", "7", "--force", "web-01"]
    plan = hv("vm", "restart", "web-01", "--no-wait", "--dry-run", "-o", "json").json[0]
    assert plan["command"] == ["vm", "restart", "--no-wait", "web-01"]
    plan = hv("vm", "autostart", "off", "web-01", "--dry-run", "-o", "json").json[0]
    assert plan["command"] == ["vm", "autostart", "off", "web-01"]


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("reset", "web-01"), 0),
        (("off", "web-01"), 0),
        (("resume", "db-01"), 0),
        (("autostart", "on", "web-01"), 0),
        (("save", "web-01"), 0),
    ],
)
def test_every_plain_verb_runs(hv: Command, words: tuple[str, ...], code: int) -> None:
    assert hv("vm", *words, "--yes").code == code


def test_rename_gives_another_name_and_refuses_a_taken_one(hv: Command) -> None:
    assert hv("vm", "rename", "build-07", "build-09").code == 0
    result = hv("vm", "rename", "build-07", "web-01")
    assert result.code == 4
    assert "web-01" in result.err


def test_set_takes_keys_and_values_after_the_names(hv: Command) -> None:
    result = hv("vm", "set", "build-07", "title=A b=c", "owner=carol", "--dry-run", "-o", "json")
    assert result.code == 0
    assert "A b=c" in json.dumps(result.json)
    assert hv("vm", "set", "build-07", "owner=carol").code == 0
    assert hv("vm", "set", "build-07").code == 2
    assert hv("vm", "set", "build-07", "owner=x", "web").code == 2
    assert hv("vm", "set", "build-07", "colour=red").code == 2


def test_delete_keeps_disks_and_wants_to_be_told(hv: Command) -> None:
    refused = hv("vm", "delete", "build-07")
    assert refused.code == 2
    assert "kept" in refused.err
    assert hv("vm", "delete", "build-07", "--yes").code == 0


def test_edit_takes_a_file_and_shows_the_difference(hv: Command, tmp_path) -> None:
    before = hv("vm", "xml", "build-07").out
    path = tmp_path / "new.xml"
    path.write_text(before.replace("<on_crash>destroy", "<on_crash>restart"), encoding="utf-8")
    shown = hv("vm", "edit", "build-07", "--file", str(path), "--dry-run")
    assert shown.code == 0
    assert "+  <on_crash>restart</on_crash>" in shown.out
    assert hv("vm", "edit", "build-07", "--file", str(path)).code == 0


@pytest.mark.parametrize(
    "text", ["", "<domain", "<!DOCTYPE x [<!ENTITY a 'b'>]><domain/>", "<network/>", "x" * 5_000_000, "\x1b[31m"]
)
def test_edit_refuses_malformed_and_hostile_xml(hv: Command, tmp_path, text: str) -> None:
    path = tmp_path / "new.xml"
    path.write_text(text, encoding="utf-8")
    result = hv("vm", "edit", "build-07", "--file", str(path))
    assert result.code == 2
    assert "\x1b" not in result.err
    assert Journal().jobs() == ()


def test_a_file_to_edit_from_that_is_not_there_is_not_found(hv: Command, tmp_path) -> None:
    path = tmp_path / "nothing.xml"
    result = hv("vm", "edit", "build-07", "--file", str(path))
    assert (result.code, result.err) == (3, f"hvtui: {path}: there is no such file\n")


def test_edit_of_nothing_changes_nothing(hv: Command, tmp_path) -> None:
    path = tmp_path / "same.xml"
    path.write_text(hv("vm", "xml", "build-07").out, encoding="utf-8")
    result = hv("vm", "edit", "build-07", "--file", str(path))
    assert (result.code, result.out) == (0, "")
    assert "Nothing changed" in result.err


def test_edit_and_console_without_a_terminal_say_so(hv: Command) -> None:
    assert hv("vm", "edit", "build-07").code == 2
    assert hv("vm", "console", "web-01").code == 2
