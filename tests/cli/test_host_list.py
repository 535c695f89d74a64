"""host list, add and remove: the configuration file from the command line."""

from __future__ import annotations

from pathlib import Path

import pytest

from hvtui.cli import host_list
from tests.cli.conftest import Command

DEAD = "qemu+unix:///system?socket=/nowhere/at/all.sock"


def test_a_host_is_added_listed_and_taken_out(hv: Command, config_file: Path, simulated_uri: str) -> None:
    added = hv("host", "add", "lab1", simulated_uri, "--group", "lab", "--group", "web", connect=None)
    assert (added.code, added.out) == (0, "")
    assert "lab1 answers" in added.err
    assert f"added to {config_file}" in added.err
    (row,) = hv("host", "list", "-o", "json", connect=None).json
    assert list(row) == [column.key for column in host_list.COLUMNS]
    assert (row["name"], row["groups"], row["state"], row["vms"], row["driver"]) == (
        "lab1",
        ["lab", "web"],
        "reachable",
        13,
        "TEST",
    )
    assert hv("host", "add", "lab1", simulated_uri, connect=None).code == 4
    assert hv("host", "remove", "lab1", connect=None).code == 0
    assert config_file.read_text() == ""
    assert hv("host", "remove", "lab1", connect=None).code == 3


def test_a_host_that_does_not_answer_is_not_added_unless_that_was_said(hv: Command, config_file: Path) -> None:
    refused = hv("host", "add", "dead", DEAD, connect=None)
    assert refused.code == 6
    assert "--no-test adds it all the same" in refused.err
    assert config_file.read_text() == ""
    assert hv("host", "add", "dead", DEAD, "--no-test", connect=None).code == 0
    (row,) = hv("host", "list", "-o", "json", connect=None).json
    assert (row["state"], row["vms"], row["answered_ms"]) == ("unreachable", None, None)
    assert "cannot connect" in row["error"]
    table = hv("host", "list", connect=None)
    assert (table.code, "WHY NOT" in table.out) == (0, True)


def test_a_dry_run_shows_the_lines_and_writes_nothing(hv: Command, config_file: Path, simulated_uri: str) -> None:
    shown = hv("host", "add", "lab1", simulated_uri, "--dry-run", connect=None)
    assert (shown.code, '+name = "lab1"' in shown.out) == (0, True)
    as_json = hv("host", "add", "lab1", simulated_uri, "--dry-run", "-o", "json", connect=None).json
    assert (as_json["name"], as_json["done"], as_json["file"]) == ("lab1", False, str(config_file))
    assert config_file.read_text() == ""


def test_hosts_of_a_group_are_listed_and_without_any_this_machine(
    hv: Command, config_file: Path, simulated_uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HVTUI_URI", simulated_uri)
    assert [row["name"] for row in hv("host", "list", "-o", "json", connect=None).json] == ["local"]
    for name, group in (("a", "one"), ("b", "two")):
        hv("host", "add", name, simulated_uri, "--group", group, "--no-test", connect=None)
    assert [row["name"] for row in hv("host", "list", "-o", "json", connect=None).json] == ["a", "b"]
    assert [row["name"] for row in hv("host", "list", "--group", "two", "-o", "json", connect=None).json] == ["b"]


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (["x", "qemu:///system", "--migration-address", "tcp://a b", "--no-test"], 2, "[host] migration_address"),
        (["x", "qemu:///system", "--group", "two words", "--no-test"], 2, "[host] groups holds"),
        (["x", "qemu:///system", "--reserve-memory", "much", "--no-test"], 2, "much"),
        (["a\x1b[2Jb", "qemu:///system", "--no-test"], 2, "this is no name for a host"),
        (["x", "nonsense://", "--no-test", "--read-only"], 1, "--read-only"),
        (["x"], 2, "Missing argument 'URI'"),
        (["x", "qemu://[x/system"], 2, "is no URI"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_what_cannot_be_added_is_refused(
    hv: Command, config_file: Path, words: list[str], code: int, told: str
) -> None:
    result = hv("host", "add", *words, connect=None)
    assert (result.code, result.out) == (code, "")
    assert told in result.err
    assert "\x1b" not in result.err
    assert config_file.read_text() == ""
