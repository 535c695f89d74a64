"""Commands for several hosts: lists over all of them, and a name that is found on the one that has it."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from host import connection, maintenance
from hvtui import target
from tests.cli.conftest import Command
from tests.support import simulated_world

DEAD = "qemu+unix:///system?socket=/nowhere/at/all.sock"


@pytest.fixture
def three(config_file: Path, tmp_path: Path) -> Path:
    """lab1 and lab2 of the group lab, and attic; `twin` is on two of them."""
    worlds = {"lab1": ["web-01", "twin"], "lab2": ["web-02", "twin"], "attic": ["old"]}
    text = ""
    for name, vms in worlds.items():
        world = tmp_path / f"{name}.xml"
        world.write_text(simulated_world.world([simulated_world.domain(vm) for vm in vms]), encoding="utf-8")
        groups = 'groups = ["lab"]\n' if name != "attic" else ""
        text += f'[[host]]\nname = "{name}"\nuri = "test://{world}"\n{groups}\n'
    config_file.write_text(text, encoding="utf-8")
    return config_file


def places(result) -> list[tuple[str, str]]:
    return [(vm["name"], vm["host"]) for vm in result.json]


def test_all_hosts_are_one_list(hv: Command, three: Path) -> None:
    result = hv("vm", "list", "--all-hosts", "-o", "json", connect=None)
    assert result.code == 0
    assert places(result) == [
        ("old", "attic"),
        ("twin", "lab1"),
        ("twin", "lab2"),
        ("web-01", "lab1"),
        ("web-02", "lab2"),
    ]


@pytest.mark.parametrize(
    ("words", "hosts"),
    [
        (["--group", "lab"], {"lab1", "lab2"}),
        (["--host", "attic", "--host", "lab2"], {"attic", "lab2"}),
        (["--host", "attic", "--group", "lab"], {"attic", "lab1", "lab2"}),
        (["--all-hosts", "--filter", "host:lab1"], {"lab1"}),
        (["--all-hosts", "--filter", "group:lab"], {"lab1", "lab2"}),
        (["--all-hosts", "--filter", "-group:lab"], {"attic"}),
        (["--host", "lab1", "--filter", "group:lab"], {"lab1"}),
        (["--all-hosts", "web-*"], {"lab1", "lab2"}),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_hosts_are_chosen_by_name_group_and_filter(hv: Command, three: Path, words: list[str], hosts: set) -> None:
    result = hv("vm", "list", "-o", "json", *words, connect=None)
    assert result.code == 0, result.err
    assert {host for _, host in places(result)} == hosts


def test_a_table_of_many_hosts_has_a_column_for_them_and_one_of_a_host_has_not(hv: Command, three: Path) -> None:
    assert hv("vm", "list", "--all-hosts", connect=None).out.startswith("HOST")
    assert "HOST" not in hv("vm", "list", "--host", "lab1", connect=None).out


def test_a_host_that_does_not_answer_is_told_and_the_rest_is_listed(hv: Command, three: Path) -> None:
    three.write_text(three.read_text() + f'[[host]]\nname = "dead"\nuri = "{DEAD}"\n', encoding="utf-8")
    result = hv("vm", "list", "--all-hosts", "-o", "json", connect=None)
    assert result.code == 6
    assert len(result.json) == 5
    assert result.err.startswith("hvtui: dead: cannot connect to")
    unknown = hv("vm", "list", "nobody", "--all-hosts", connect=None)
    assert (unknown.code, "on none of the hosts that answered" in unknown.err) == (6, True)
    assert hv("vm", "start", "web-01", "--all-hosts", "--dry-run", connect=None).code == 0


def test_a_name_is_found_on_the_host_that_has_it(hv: Command, three: Path) -> None:
    shown = hv("vm", "show", "web-02", "--all-hosts", "-o", "json", connect=None)
    assert places(shown) == [("web-02", "lab2")]
    assert hv("vm", "start", "web-02", "--all-hosts", connect=None).code == 0
    assert hv("vm", "xml", "old", "--all-hosts", connect=None).code == 0
    assert hv("vm", "start", "web-02", "--host", "lab2", connect=None).code == 0


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (["vm", "start", "twin", "--all-hosts"], 4, "it is on several hosts: lab1, lab2"),
        (["vm", "start", "web-01", "web-02", "--all-hosts"], 2, "these VMs are on several hosts: lab1, lab2"),
        (["vm", "start", "wbe-01", "--all-hosts"], 3, "Did you mean web-01"),
        (["vm", "list", "wbe-01", "--all-hosts"], 3, "Did you mean web-01"),
        (["vm", "start", "--filter", "name:web", "--all-hosts"], 2, "which VMs, of several hosts?"),
        (["host", "show", "--all-hosts"], 2, "works on one host"),
        (["vm", "list", "--group", "lba"], 3, "no such group of hosts. Known groups: lab"),
        (["vm", "list", "--host", "lab3", "--host", "lab1"], 3, "no such host. Known hosts: local, attic, lab1, lab2"),
        (["vm", "list", "--all-hosts", "--connect", "test:///default"], 2, "--connect names one host"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_is_not_clear_is_refused(hv: Command, three: Path, words: list[str], code: int, told: str) -> None:
    result = hv(*words, connect=None)
    assert (result.code, result.out) == (code, "")
    assert told in result.err


def test_all_hosts_without_a_configured_one_is_this_machine(hv: Command, monkeypatch, simulated_uri: str) -> None:
    monkeypatch.setenv("HVTUI_URI", simulated_uri)
    result = hv("vm", "list", "--all-hosts", "-o", "json", connect=None)
    assert (result.code, {vm["host"] for vm in result.json}) == (0, {"local"})


def lines_of(result) -> list[dict]:
    return [json.loads(line) for line in result.out.splitlines()]


def test_watching_several_hosts_is_one_stream_with_the_host_in_each_line(hv: Command, three: Path) -> None:
    result = hv("vm", "watch", "--all-hosts", "--once", "--interval", "0.2", connect=None)
    assert (result.code, result.err) == (0, "")
    told = {(line["vm"], line["host"]) for line in lines_of(result) if line["kind"] == "state"}
    assert told == {("web-01", "lab1"), ("twin", "lab1"), ("web-02", "lab2"), ("twin", "lab2"), ("old", "attic")}
    alone = hv("vm", "watch", "--host", "attic", "--timeout", "0.2", "--no-rates", connect=None)
    assert [(line["vm"], line["host"]) for line in lines_of(alone)] == [("old", "attic")]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["web-*", "--group", "lab"], {"web-01", "web-02"}),
        (["web-01", "--host", "lab1", "--host", "attic"], {"web-01"}),
        (["--all-hosts", "--filter", "host:attic"], {"old"}),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_watching_several_hosts_tells_of_the_vms_that_were_named(
    hv: Command, three: Path, words: list[str], told: set[str]
) -> None:
    result = hv("vm", "watch", "--timeout", "0.5", "--no-rates", *words, connect=None)
    assert (result.code, {line["vm"] for line in lines_of(result)}) == (0, told)


def test_a_dead_host_is_a_line_of_a_stream_and_the_others_are_told(hv: Command, three: Path) -> None:
    three.write_text(three.read_text() + f'[[host]]\nname = "dead"\nuri = "{DEAD}"\n', encoding="utf-8")
    result = hv("vm", "watch", "--all-hosts", "--once", "--interval", "0.2", connect=None)
    links = [line for line in lines_of(result) if line["kind"] == "link"]
    assert (result.code, [(line["host"], line["status"]) for line in links]) == (6, [("dead", "lost")])
    assert "cannot connect" in links[0]["error"]
    assert {line["host"] for line in lines_of(result) if line["kind"] == "state"} == {"lab1", "lab2", "attic"}
    events = hv("host", "events", "--all-hosts", "--timeout", "0.3", connect=None)
    assert (events.code, [line["host"] for line in lines_of(events)]) == (6, ["dead"])


def test_nobody_counts_readings_of_a_host_before_it_has_answered(hv: Command, three: Path, monkeypatch) -> None:
    opened = connection._open_in_time

    def slowly(*arguments, **options):
        time.sleep(0.4)
        return opened(*arguments, **options)

    monkeypatch.setattr(connection, "_open_in_time", slowly)
    result = hv("vm", "watch", "--all-hosts", "--once", "--interval", "0.2", connect=None)
    assert (result.code, {line["host"] for line in lines_of(result)}) == (0, {"lab1", "lab2", "attic"})


def test_streams_of_several_hosts_as_a_table_begin_with_the_host(hv: Command, three: Path) -> None:
    result = hv("vm", "watch", "--group", "lab", "--timeout", "0.3", "--no-rates", "-o", "table", connect=None)
    assert result.out.splitlines()[0].split()[:3] == ["HOST", "AT", "VM"]
    refused = hv("host", "events", "--group", "lab", "--vm", "wbe-01", connect=None)
    assert (refused.code, "Did you mean web-01" in refused.err) == (3, True)


def test_who_names_no_host_is_told_of_the_others(hv: Command, three: Path, monkeypatch, simulated_uri: str) -> None:
    monkeypatch.setattr(target, "default_uri", lambda: simulated_uri)
    for words in (("vm", "show", "web-9"), ("vm", "start", "web-9"), ("vm", "migrate", "web-9", "--to", "lab1")):
        result = hv(*words, connect=None)
        assert (result.code, "on this machine: --all-hosts looks everywhere" in result.err) == (3, True)
        assert "--all-hosts" not in hv(*words, "--host", "lab1", connect=None).err
    lost = hv("host", "whatif", "lab1", connect=None)
    assert lost.out.rstrip().endswith("lab1: nothing runs there")


def test_a_vm_is_moved_from_whichever_host_has_it(hv: Command, three: Path) -> None:
    result = hv("vm", "migrate", "web-02", "--to", "lab1", "--all-hosts", connect=None)
    assert (result.code, "nothing can be moved" in result.err) == (8, True)


def test_the_list_of_hosts_tells_which_are_drained(hv: Command, three: Path) -> None:
    assert "DRAINED" not in hv("host", "list", connect=None).out
    (row,) = (row for row in hv("host", "list", "-o", "json", connect=None).json if row["name"] == "lab2")
    maintenance.begin(row["uri"], "lab2")
    rows = hv("host", "list", "-o", "json", connect=None).json
    assert {row["name"] for row in rows if row["drained"]} == {"lab2"}
    assert "DRAINED" in hv("host", "list", connect=None).out
