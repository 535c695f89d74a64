"""Hosts put into the configuration file and taken out again: nothing else in it changes."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from host.errors import Conflict, HvtuiError, NameTaken, NotFound, UsageError
from host.host_list import HostEntry
from hvtui.config import load_config, parse_config
from hvtui.config_edit import add_host, difference, editable_file, remove_host

LAB3 = HostEntry("lab3", "qemu+ssh://root@lab3/system", ("lab", "web"), "192.0.2.3", reserve_memory_bytes=2**30)
FILE = """\
# the machines of the lab
accelerator = "qemu"   # no KVM here

[[host]]  # the first
name = "lab1"
uri = "qemu+ssh://root@lab1/system"

# the second one, on loan
[[ "host" ]]
uri = "qemu+ssh://root@lab2/system"
groups = [
  "lab",
  # one a line
]

# how the screen looks
[ui]
columns = [
  "name",
  "state",
]
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "config.toml"
    path.write_text(FILE, encoding="utf-8")
    return path


def test_a_new_host_stands_behind_the_others_and_nothing_else_changes(file: Path) -> None:
    edit = add_host(file, LAB3)
    edit.write()
    block = """
[[host]]
name = "lab3"
uri = "qemu+ssh://root@lab3/system"
groups = ["lab", "web"]
migration_address = "192.0.2.3"
reserve_memory = "1G"
"""
    assert file.read_text() == FILE.replace("\n# how the screen", f"{block}\n# how the screen")
    assert load_config(file).hosts[2] == LAB3


def test_what_was_added_can_be_taken_out_again(file: Path) -> None:
    add_host(file, LAB3).write()
    remove_host(file, "lab3").write()
    assert file.read_text() == FILE


def test_a_host_is_taken_out_with_its_table_alone(file: Path) -> None:
    remove_host(file, "lab2").write()  # named by its URI
    assert file.read_text() == FILE.replace(FILE[FILE.index('[[ "host" ]]') : FILE.index("\n# how the")], "")
    remove_host(file, "lab1").write()
    left = file.read_text()
    assert load_config(file).hosts == ()
    for comment in ("# the machines of the lab", "# no KVM here", "# the second one", "# how the screen looks"):
        assert comment in left


def test_a_file_that_is_missing_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HVTUI_CONFIG")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setattr("hvtui.config_edit.configuration_file", lambda: None)
    path = editable_file()
    edit = add_host(path, HostEntry("a", "qemu:///system"))
    assert not path.exists(), "an edit alone writes nothing"
    edit.write()
    assert path.read_text() == '[[host]]\nname = "a"\nuri = "qemu:///system"\n'


def test_where_there_shall_be_no_file_none_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HVTUI_CONFIG", os.devnull)
    with pytest.raises(UsageError, match="HVTUI_CONFIG says that there is no configuration file"):
        editable_file()


@pytest.mark.parametrize(
    "text",
    ['host = [{name = "a", uri = "qemu:///system"}]\n', '[host]\nname = "a"\nuri = "qemu:///system"\n'],
)
def test_hosts_that_are_written_another_way_are_left_to_the_editor(tmp_path: Path, text: str) -> None:
    path = tmp_path / "c.toml"
    path.write_text(text)
    for change in (lambda: add_host(path, LAB3), lambda: remove_host(path, "a")):
        with pytest.raises(UsageError, match="by hand"):
            change()
    assert path.read_text() == text


def test_a_table_inside_a_text_is_no_table(tmp_path: Path) -> None:
    path = tmp_path / "c.toml"
    text = '[keys]\n"x" = """\n[[host]]\n"""\n\n[[host]]\nname = "a"\nuri = "qemu:///system"\n'
    path.write_text(text)
    with pytest.raises(UsageError, match="by hand"):
        remove_host(path, "a")
    assert path.read_text() == text


def test_names_are_taken_once_and_unknown_ones_are_told(file: Path) -> None:
    with pytest.raises(NameTaken):
        add_host(file, HostEntry("lab2", "qemu:///system"))
    with pytest.raises(NameTaken):
        add_host(file, HostEntry("local", "qemu:///system"))
    with pytest.raises(NotFound, match="Configured hosts: lab1, lab2"):
        remove_host(file, "lab9")
    with pytest.raises(UsageError, match="groups holds 'two words'"):
        add_host(file, HostEntry("x", "qemu:///system", ("two words",)))


def test_a_file_that_somebody_else_changed_meanwhile_is_not_written(file: Path) -> None:
    edit = add_host(file, LAB3)
    file.write_text(FILE + "# mine\n")
    with pytest.raises(Conflict):
        edit.write()
    assert file.read_text() == FILE + "# mine\n"


def test_a_link_and_its_mode_stay_and_nothing_is_left_beside(file: Path, tmp_path: Path) -> None:
    file.chmod(0o640)
    link = tmp_path / "link.toml"
    link.symlink_to(file)
    add_host(link, LAB3).write()
    assert link.is_symlink()
    assert file.stat().st_mode & 0o777 == 0o640
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.toml", "link.toml"]


def test_a_place_that_cannot_be_written_is_an_error_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    edit = add_host(tmp_path / "file", LAB3)
    (tmp_path / "file").unlink()
    (tmp_path / "file").mkdir()
    with pytest.raises(HvtuiError, match="file: cannot"):
        edit.write()


def test_line_ends_stay_what_they_are(tmp_path: Path) -> None:
    path = tmp_path / "c.toml"
    path.write_bytes(FILE.replace("\n", "\r\n").encode())
    add_host(path, LAB3).write()
    assert b"\n" not in path.read_bytes().replace(b"\r\n", b"")
    remove_host(path, "lab3").write()
    assert path.read_bytes() == FILE.replace("\n", "\r\n").encode()


def test_the_difference_shows_the_lines(file: Path) -> None:
    assert '+name = "lab3"' in difference(add_host(file, LAB3)).splitlines()


@given(
    name=st.text(st.characters(codec="utf-8"), min_size=1, max_size=20).filter(lambda text: text != "local"),
    user=st.text(st.characters(codec="utf-8", exclude_characters="@/[]?#"), max_size=10),
)
def test_whatever_a_host_is_called_it_is_read_back_as_it_was(tmp_path_factory, name: str, user: str) -> None:
    path = tmp_path_factory.mktemp("c") / "config.toml"
    entry = HostEntry(name, f"qemu+ssh://{user}@x/system")
    edit = add_host(path, entry)
    assert parse_config(edit.after, file="f").hosts == (entry,)
