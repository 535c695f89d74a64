"""Lists and their formats: what a script can rely on, and what hostile names may not do."""

from __future__ import annotations

import csv
import io
import json

import pytest

from hvtui.cli import vm as vm_commands
from hvtui.cli.output import csv_line, plain
from tests.cli.conftest import Command
from tests.support.simulated_world import ESCAPE_NAME, HOSTILE_NAMES, LONG_NAME, MARKUP_NAME, uuid_of, world
from tests.support.simulated_world import domain as domain_xml


def test_a_json_list_holds_every_vm_with_its_true_name(hv: Command) -> None:
    result = hv("vm", "list", "-o", "json")
    assert result.code == 0
    names = {vm["name"] for vm in result.json}
    assert set(HOSTILE_NAMES) <= names
    assert {"web-01", "db-01", "build-08"} <= names
    assert result.out.isascii()


def test_a_json_list_has_the_documented_keys_and_states(hv: Command) -> None:
    vms = {vm["name"]: vm for vm in hv("vm", "list", "-o", "json").json}
    assert list(vms["web-01"]) == [column.key for column in vm_commands.COLUMNS if not column.extra]
    assert vms["web-01"]["uuid"] == uuid_of("web-01")
    assert vms["web-01"]["state"] == "running"
    assert vms["build-08"]["state"] == "saved"
    assert vms["build-08"]["has_saved_state"] is True
    assert vms["panicked"]["needs_attention"] is True
    assert vms["web-01"]["memory_bytes"] == 2048 * 1024**2


def test_a_table_shows_no_control_character_and_stays_narrow(hv: Command) -> None:
    result = hv("vm", "list")
    assert result.code == 0
    assert all(char.isprintable() or char == "\n" for char in result.out)
    assert "evil\\u202etxt\\x9b31m" in result.out
    assert MARKUP_NAME in result.out
    assert LONG_NAME not in result.out
    assert max(map(len, result.out.splitlines())) < 120


def test_json_lines_are_one_object_a_line(hv: Command) -> None:
    lines = hv("vm", "list", "-o", "jsonl").out.splitlines()
    assert {json.loads(line)["name"] for line in lines} >= {"web-01", LONG_NAME}


def test_csv_is_quoted_and_cannot_be_run_by_a_spreadsheet(hv: Command, tmp_path) -> None:
    path = tmp_path / "sheet.xml"
    path.write_text(world([domain_xml("=cmd|' C calc'!A0"), domain_xml('say "hi", Bob')]), encoding="utf-8")
    result = hv("vm", "list", "-o", "csv", "--columns", "name,state", connect=f"test://{path}")
    rows = list(csv.reader(io.StringIO(result.out)))
    assert rows == [["name", "state"], ["'=cmd|' C calc'!A0", "off"], ['say "hi", Bob', "off"]]
    assert '"off"' in result.out


@pytest.mark.parametrize("text", ["=1", "+1", "-1", "@x", "\tx", "\rx"])
def test_a_risky_cell_begins_with_an_apostrophe(text: str) -> None:
    assert csv_line([text]).startswith("\"'")


def test_numbers_stay_numbers_in_csv() -> None:
    assert csv_line([-5, 1.5, True, None]) == '-5,1.5,"true",""\n'


def test_nothing_and_yes_and_no_look_alike_in_a_cell_and_inside_one() -> None:
    whole = csv_line([True, False, None, "", [], {}])
    assert whole == '"true","false","","","",""\n'
    assert csv_line([{"a": True, "b": False, "c": None, "d": "", "e": []}]) == '"a=true b=false c= d= e="\n'


def test_columns_are_named_by_key_or_head_in_any_case(hv: Command) -> None:
    result = hv("vm", "list", "web-01", "-o", "csv", "--columns", "NAME,memory,Vcpus,CPUS")
    assert result.out.splitlines()[0] == '"name","memory_bytes","vcpus","vcpus"'


@pytest.mark.parametrize("words", [("vm", "list"), ("vm", "show", "web-01"), ("vm", "watch"), ("host", "events")])
def test_an_unknown_column_is_refused_with_the_nearest(hv: Command, words: tuple[str, ...]) -> None:
    for output in ("table", "json", "csv"):
        result = hv(*words, "-o", output, "--columns", "name,kin" if words[0] == "host" else "name,stat")
        assert (result.code, result.out) == (2, "")
        assert "no column" in result.err


def test_vm_show_keeps_to_the_columns_asked_for(hv: Command) -> None:
    assert [line.split() for line in hv("vm", "show", "web-01", "--columns", "state,NAME").out.splitlines()] == [
        ["state", "running"],
        ["name", "web-01"],
    ]


def test_a_stream_ends_well_after_its_time(process: Command) -> None:
    assert process("host", "events", "--timeout", "0.2").code == 0
    result = process("vm", "watch", "--timeout", "0.2", "--no-rates")
    assert result.code == 0
    assert "web-01" in result.out


def test_events_of_an_unknown_vm_are_not_waited_for(hv: Command) -> None:
    result = hv("host", "events", "--vm", "web-1")
    assert (result.code, result.out) == (3, "")
    assert "web-01" in result.err


def test_a_stream_as_a_table_has_heads_over_its_cells(process: Command) -> None:
    lines = process("vm", "watch", "web-01", "--once", "-o", "table").out.splitlines()
    assert lines[0].split()[:4] == ["AT", "VM", "STATE", "REASON"]
    assert all(len(line) < 160 for line in lines)
    place = lines[0].index("STATE")
    assert lines[1][place:].startswith("running")


def test_a_stream_keeps_to_the_columns_asked_for(process: Command) -> None:
    lines = process("vm", "watch", "web-01", "--no-rates", "--timeout", "0.2", "--columns", "vm,STATE").out.splitlines()
    assert [json.loads(line) for line in lines] == [{"vm": "web-01", "state": "running"}]


def test_nothing_is_an_empty_cell_in_csv() -> None:
    assert csv_line([None, "", [], {}]) == '"","","",""\n'


def test_columns_are_chosen_and_ordered_in_every_format(hv: Command) -> None:
    assert hv("vm", "list", "web-01", "--columns", "state,name").out.split() == ["STATE", "NAME", "running", "web-01"]
    assert hv("vm", "list", "web-01", "-o", "json", "--columns", "tags").json == [{"tags": ["web", "prod"]}]


def test_an_unknown_column_is_a_usage_error_that_names_the_nearest(hv: Command) -> None:
    result = hv("vm", "list", "--columns", "nmae")
    assert result.code == 2
    assert "nmae" in result.err
    assert "Did you mean name?" in result.err
    assert result.out == ""
    assert "memory_bytes" in hv("vm", "list", "--columns", "zzz").err


def test_names_and_globs_choose_vms_in_their_order(hv: Command) -> None:
    names = [vm["name"] for vm in hv("vm", "list", "db-01", "web-*", "-o", "json").json]
    assert names == ["db-01", "web-01", "web-02"]


def test_a_filter_narrows_a_list(hv: Command) -> None:
    assert [vm["name"] for vm in hv("vm", "list", "--filter", "tag:prod", "-o", "json").json] == ["db-01", "web-01"]
    assert hv("vm", "list", "--filter", "state:nonsense").code == 2


def test_addresses_are_read_only_where_they_are_asked_for(hv: Command) -> None:
    line = ["vm", "list", "web-*", "--filter", "tag:web", "--columns", "name,state,tags,addresses", "-o", "csv"]
    rows = {row["name"]: row for row in csv.DictReader(io.StringIO(hv(*line).out))}
    assert set(rows) == {"web-01", "web-02"}
    assert rows["web-01"]["tags"] == "web,prod"
    address = rows["web-01"]["addresses"]
    assert address.count(".") == 3
    assert "addresses" not in hv("vm", "list", "web-01", "-o", "json").json[0]
    assert hv("vm", "list", "web-01", "--details", "-o", "json").json[0]["addresses"] == [address]
    assert hv("vm", "show", "web-01", "-o", "json").json[0]["addresses"] == [address]
    assert address in hv("vm", "show", "web-01").out


def test_a_filter_may_ask_for_an_address_also_as_free_text(hv: Command) -> None:
    address = hv("vm", "show", "web-01", "-o", "json").json[0]["addresses"][0]
    for text in (f"ip:{address}", address):
        assert "web-01" in [vm["name"] for vm in hv("vm", "list", "--filter", text, "-o", "json").json]
    assert hv("vm", "list", "--filter", "ip:203.0.113.77", "-o", "json").json == []


def test_a_filter_by_rates_is_refused_because_a_list_measures_none(hv: Command) -> None:
    result = hv("vm", "list", "--filter", "state:running cpu>50")
    assert (result.code, result.out) == (2, "")
    assert "vm watch --once" in result.err


def test_a_list_of_nothing_says_what_to_do_first(hv: Command, tmp_path) -> None:
    path = tmp_path / "empty.xml"
    path.write_text(world([]), encoding="utf-8")
    result = hv("vm", "list", connect=f"test://{path}")
    assert (result.code, result.out) == (0, "")
    assert "hvtui vm create web --from tiny" in result.err
    assert hv("vm", "list", "-o", "json", connect=f"test://{path}").json == []


def test_show_tells_what_only_the_xml_says(hv: Command) -> None:
    shown = hv("vm", "show", "web-01", "-o", "json").json[0]
    assert shown["description"] == "Serves the shop.\nAsk Alice."
    assert shown["disks"][0]["target"] == "vda"
    assert shown["tags"] == ["web", "prod"]
    assert set(shown) == {column.key for column in vm_commands.COLUMNS} | {"made_from"}
    text = hv("vm", "show", "web-01").out
    assert "Serves the shop.\\nAsk Alice." in text


def test_show_makes_a_hostile_description_harmless(hv: Command) -> None:
    shown = hv("vm", "show", ESCAPE_NAME)
    assert "\\x9b2J" in shown.out
    assert "\x9b" not in shown.out


def test_the_xml_of_a_vm_is_printed_as_it_is(hv: Command) -> None:
    assert hv("vm", "xml", "web-01").out.lstrip().startswith("<domain type='test'")
    assert hv("vm", "xml", "web-01", "-o", "json").json["xml"].startswith("<domain type='test'")


def test_plain_text_of_values() -> None:
    assert plain(None) == plain("") == plain([]) == "–"
    assert plain(True) == "yes"
    assert plain(["a", 1]) == "a,1"
    assert plain({"a": 1, "b": None}) == "a=1 b=–"


def test_the_overview_names_states_and_what_needs_attention(hv: Command) -> None:
    text = hv("--headless").out
    assert "13 VMs: " in text
    assert "panicked" in text
    values = hv("host", "overview", "-o", "json").json
    assert values["vms"]["total"] == 13
    assert values["attention"][0]["vm"] == "panicked"


def test_the_overview_of_an_empty_host_shows_the_first_steps(hv: Command, tmp_path) -> None:
    path = tmp_path / "empty.xml"
    path.write_text(world([]), encoding="utf-8")
    assert "hvtui vm create web --from tiny" in hv(connect=f"test://{path}").out


def test_host_show_has_facts_and_load(hv: Command) -> None:
    values = hv("host", "show", "-o", "json").json
    assert values["accelerator"] == "test"
    assert values["load"]["memory_total_bytes"] == 64 * 1024**3
    assert "libvirt_version" in hv("host", "show").out


def test_the_simulated_host_needs_no_hypervisor(hv: Command) -> None:
    vms = hv("--demo", "vm", "list", "-o", "json", connect=None).json
    assert len(vms) >= 25


def test_the_simulated_host_keeps_its_jobs_to_itself(hv: Command) -> None:
    off = hv("--demo", "vm", "list", "--filter", "state:off", "-o", "json", connect=None).json[0]["name"]
    assert hv("--demo", "vm", "start", off, connect=None).code == 0
    assert hv("job", "list", "-o", "json").json == []
    assert hv("--demo", "job", "list", "-o", "json", connect=None).json == []
