"""The configuration file: what it gives, and how it says what is wrong with it."""

from __future__ import annotations

from pathlib import Path

import pytest

from host.errors import UsageError
from host.host_list import HostEntry
from host.paths import configuration_file
from hvtui import choices
from hvtui.config import Config, Jobs, Moves, Placement, Ui, load_config, parse_config
from hvtui.tui import themes
from hvtui.tui.widgets import columns

EVERYTHING = """
accelerator = "qemu"

[ui]
theme = "hvtui-light"
ascii = true
columns = ["name", "state"]
refresh_s = 5
confirm = "always"

[keys]
"vm.start" = "f5"
"vm.stop" = "f6,S"

[[host]]
name = "lab2"
uri = "qemu+ssh://root@lab2.example.net/system"

[[host]]
uri = "qemu+ssh://lab3.example.net/system"

[moves]
per_host = 3
per_link = 1

[placement]
goal = "consolidate"
memory = 8
disk = 0.5

[jobs]
keep = 50
"""


NOTHING_COUNTS = "cpu = 0\nmemory = 0\ndisk = 0\nnetwork = 0"


def refusal(text: str) -> str:
    with pytest.raises(UsageError) as caught:
        parse_config(text, file="/etc/hvtui/config.toml")
    message = str(caught.value)
    assert message.startswith("/etc/hvtui/config.toml: ")
    return message


def test_every_key_is_read():
    assert parse_config(EVERYTHING, file="f") == Config(
        ui=Ui(theme="hvtui-light", ascii=True, columns=("name", "state"), refresh_s=5.0, confirm="always"),
        keys={"vm.start": "f5", "vm.stop": "f6,S"},
        hosts=(
            HostEntry("lab2", "qemu+ssh://root@lab2.example.net/system"),
            HostEntry("lab3.example.net", "qemu+ssh://lab3.example.net/system"),
        ),
        jobs=Jobs(keep=50),
        moves=Moves(per_host=3, per_link=1),
        placement=Placement("consolidate", {"memory": 8.0, "disk": 0.5}),
        accelerator="qemu",
    )


def test_a_missing_file_that_the_environment_names_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HVTUI_CONFIG", str(tmp_path / "none.toml"))
    with pytest.raises(UsageError, match=r"none\.toml: cannot read .*: No such file or directory.*HVTUI_CONFIG"):
        load_config()


def test_an_empty_file_means_the_defaults(config_file: Path):
    assert config_file.read_text() == ""
    assert load_config() == Config()


def test_no_file_in_force_means_the_defaults(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("HVTUI_CONFIG")
    monkeypatch.setattr("hvtui.config.configuration_file", lambda: None)
    assert load_config() == Config()


def test_the_file_that_the_environment_names_is_read(config_file: Path):
    config_file.write_text('[ui]\ntheme = "hvtui-light"\n')
    assert load_config().ui.theme == "hvtui-light"


def test_the_settings_cannot_be_changed_after_reading():
    with pytest.raises(TypeError):
        parse_config(EVERYTHING, file="f").keys["vm.start"] = "x"  # type: ignore[index]


def test_a_single_host_table_is_a_list_of_one():
    assert parse_config('[host]\nname = "a"\nuri = "qemu:///system"', file="f").hosts == (
        HostEntry("a", "qemu:///system"),
    )


def test_a_host_without_a_name_and_a_host_in_its_uri_is_called_by_its_uri():
    assert parse_config('[[host]]\nuri = "qemu:///system"', file="f").hosts[0].name == "qemu:///system"
    assert parse_config('[[host]]\nuri = "qemu://[x/system"', file="f").hosts[0].name == "qemu://[x/system"


@pytest.mark.parametrize(
    ("text", "place", "advice"),
    [
        ("[ui]\ncolums = []", "[ui] colums is not a key", "Did you mean columns?"),
        ("[uii]", "uii is not a key", "Did you mean ui?"),
        ("xyzzy = 1", "xyzzy is not a key", "Known: accelerator, ui, keys, host, jobs, moves"),
        ("[ui]\ntheme = 3", "[ui] theme is a whole number", "It must be a text in quotes"),
        ('[ui]\nascii = "yes"', "[ui] ascii is a text", "It must be true or false"),
        ('[ui]\ncolumns = "name"', "[ui] columns is a text", "It must be a list of texts"),
        ("[ui]\ncolumns = [1.5]", "[ui] columns holds a number", "It must be a list of texts"),
        ('[ui]\ncolumns = ["name", "memry"]', "[ui] columns holds 'memry'", "Did you mean memory?"),
        ('[ui]\ncolumns = ["cpu", "cpu"]', "[ui] columns holds 'cpu' twice", "Name it once"),
        ('[ui]\ntheme = "hvtui-drak"', "[ui] theme is 'hvtui-drak'", "Did you mean hvtui-dark?"),
        ('[ui]\ntheme = "solarized"', "[ui] theme is 'solarized'", "Known: hvtui-dark, hvtui-light"),
        ('"\\u001b[2J" = 1', "\\e[2J is not a key", "Known: accelerator"),
        ("[ui]\nrefresh_s = true", "[ui] refresh_s is true or false", "a number from 0.5 to 3600"),
        ("[ui]\nrefresh_s = 0", "[ui] refresh_s is 0", "a number from 0.5 to 3600"),
        ("[ui]\nrefresh_s = nan", "[ui] refresh_s is nan", "a number from 0.5 to 3600"),
        ("[ui]\nrefresh_s = 2026-01-01", "[ui] refresh_s is a date or time", "a number"),
        ('[ui]\nconfirm = "alway"', "[ui] confirm is 'alway'", "Did you mean always?"),
        ("ui = 1", "ui is a whole number", "It must be a table: [ui]"),
        ("[keys]\na = []", "[keys] a is a list", "It must be a text"),
        ("[jobs]\nkeep = 1.5", "[jobs] keep is a number", "It must be a whole number from 1 to 1000000"),
        ("[moves]\nper_host = 0", "[moves] per_host is 0", "It must be a whole number from 1 to 64"),
        ('[placement]\ngoal = "balanced"', "[placement] goal is 'balanced'", "Did you mean balance?"),
        ("[placement]\nmemory = -1", "[placement] memory is -1", "a number from 0 to 100"),
        (f"[placement]\n{NOTHING_COUNTS}", "[placement] memory and all other weights are 0", "Something must count"),
        ("[jobs]\nkeep = 0", "[jobs] keep is 0", "It must be a whole number"),
        ("[jobs]\nkeep = {}", "[jobs] keep is a table", "It must be a whole number"),
        ('accelerator = "kmv"', "accelerator is 'kmv'", "Did you mean kvm?"),
        ("[[host]]\nname = 'a'", "[host] uri is missing", "Give a libvirt URI"),
        ("host = ['a']", "host is a list", "It must be a table: [[host]]"),
        ("host = 'a'", "host is a text", "It must be a table: [[host]]"),
        ("[[host]]\nuri = 'x'\nname = 'local'", "'local' is taken already", "Give each host a name of its own"),
        ("[[host]]\nuri = 'x'\n[[host]]\nuri = 'x'", "'x' is taken already", "Give each host a name of its own"),
    ],
)
def test_a_wrong_setting_names_the_file_the_key_and_the_remedy(text: str, place: str, advice: str):
    message = refusal(text)
    assert place in message
    assert advice in message


def test_what_a_configuration_may_choose_is_what_the_interface_has():
    assert tuple(themes.ALL_COLORS) == choices.THEMES
    assert tuple(column.id for column in columns.COLUMNS) == choices.COLUMNS


def test_without_a_variable_ones_own_file_comes_before_the_systems(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("HVTUI_CONFIG")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "xdg"))
    own = tmp_path / "xdg/hvtui/config.toml"
    assert configuration_file() != own
    own.parent.mkdir(parents=True)
    own.touch()
    assert configuration_file() == own


def test_text_that_is_not_toml_is_refused_with_its_line():
    assert "line 2" in refusal("[ui]\ntheme = \n")


def test_a_file_that_is_not_text_is_refused(tmp_path: Path):
    file = tmp_path / "config.toml"
    file.write_bytes(b"\xff\xfe")
    with pytest.raises(UsageError, match="not UTF-8"):
        load_config(file)


def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path):
    with pytest.raises(UsageError, match="cannot read"):
        load_config(tmp_path)


def test_the_documentation_explains_every_key():
    page = (Path(__file__).parents[2] / "docs/configuration.md").read_text(encoding="utf-8")
    for key in ("accelerator", "theme", "ascii", "columns", "refresh_s", "confirm", "[keys]", "uri", "name", "keep"):
        assert f"`{key}`" in page


def test_a_host_says_how_others_reach_it():
    text = """[[host]]
name = "lab1"
uri = "qemu+ssh://root@lab1/system?keyfile=/root/k&socket=/run/x"
groups = ["lab", "web", "lab"]
migration_address = "192.0.2.7"
library = "images"
reserve_memory = "2G"

[[host]]
name = "here"
uri = "qemu:///system"
migration_address = "fd00::7"

[[host]]
name = "odd"
uri = "qemu:///system"
peer_uri = "qemu+tls://odd.example.net/system"

[[host]]
name = "alone"
uri = "qemu:///session"
"""
    lab1, here, odd, alone = parse_config(text, file="f").hosts
    assert (lab1.groups, lab1.library, lab1.reserve_memory_bytes) == (("lab", "web"), "images", 2 * 1024**3)
    assert (lab1.address, lab1.peer) == ("192.0.2.7", "qemu+ssh://root@lab1/system?socket=/run/x")
    assert (here.address, here.peer) == ("fd00::7", "qemu+ssh://root@[fd00::7]/system")
    assert (odd.address, odd.peer) == ("odd.example.net", "qemu+tls://odd.example.net/system")
    assert (alone.address, alone.peer, alone.library) == ("", "", "library")


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ('grups = ["lab"]', "[host] grups is not a key. Did you mean groups?"),
        ('groups = "lab"', "[host] groups is a text"),
        ('groups = ["two words"]', "[host] groups holds 'two words'"),
        ('migration_address = "tcp://192.0.2.7"', "[host] migration_address is 'tcp://192.0.2.7'"),
        ('peer_uri = "lab2"', "[host] peer_uri is 'lab2'"),
        ("library = 5", "[host] library is a whole number"),
        ('reserve_memory = "much"', "[host] reserve_memory"),
    ],
)
def test_what_is_wrong_with_a_host_is_told_with_its_key(line: str, told: str):
    assert told in refusal(f'[[host]]\nuri = "qemu:///system"\n{line}\n')
