"""The error edge: exit codes, remedies, and no traceback whatever happens."""

from __future__ import annotations

import pytest

from host import errors
from hvtui import __main__ as edge
from hvtui.cli import vocabulary
from hvtui.cli.vm import VERBS
from tests.cli.conftest import Command


def test_an_unknown_vm_is_not_found_and_the_nearest_is_named(hv: Command) -> None:
    result = hv("vm", "show", "web-1")
    assert (result.code, result.out) == (3, "")
    assert "web-01" in result.err


def test_a_glob_that_matches_nothing_is_not_found_and_nothing_is_changed(hv: Command) -> None:
    assert hv("vm", "start", "build-07", "nothing-*").code == 3
    assert hv("job", "list", "-o", "json").json == []


def test_a_wrong_word_names_the_nearest(hv: Command) -> None:
    result = hv("vm", "lst")
    assert result.code == 2
    assert "Did you mean list?" in result.err
    assert hv("vmm").code == 2
    assert hv("vm", "list", "--nonsense").code == 2
    assert hv("vm", "list", "-o", "yaml").code == 2


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (("vm", "destroy", "web-01"), "'hvtui vm off'"),
        (("vm", "undefine"), "'hvtui vm delete'"),
        (("vm", "suspend"), "'hvtui vm pause'"),
        (("vm", "reboot"), "'hvtui vm restart'"),
        (("vm", "managedsave"), "'hvtui vm save'"),
        (("vm", "shutdown"), "'hvtui vm stop'"),
        (("vm", "dominfo"), "'hvtui vm show'"),
        (("vm", "dumpxml"), "'hvtui vm xml'"),
        (("vm", "domrename"), "'hvtui vm rename'"),
        (("host", "nodeinfo"), "'hvtui host show'"),
        (("job", "abort"), "'hvtui job cancel'"),
        (("list",), "'hvtui vm list'"),
        (("destroy", "web-01"), "'hvtui vm off'"),
    ],
)
def test_a_word_of_virsh_leads_to_the_verb(hv: Command, words: tuple[str, ...], hint: str) -> None:
    result = hv(*words)
    assert result.code == 2
    assert hint in result.err


def test_every_word_of_the_vocabulary_leads_to_a_verb_that_exists() -> None:
    from importlib import import_module

    for noun, meant in vocabulary.WORDS.items():
        verbs = import_module(f"hvtui.cli.{noun}").VERBS
        assert set(meant.values()) <= verbs.keys()
        assert not meant.keys() & verbs.keys()


@pytest.mark.parametrize("word", ["domsave", "getoff", "showoff", "liststop", "statreset"])
def test_a_reading_word_is_never_answered_with_a_changing_verb(word: str) -> None:
    hint = vocabulary.nearest_verb("vm", word, VERBS)
    assert not {verb for verb in VERBS.keys() - vocabulary.READING if f" {verb}?" in hint or f" {verb}," in hint}


@pytest.mark.parametrize("noun", ["vm", "host", "job"])
def test_a_noun_alone_prints_its_help_as_it_is(hv: Command, noun: str) -> None:
    result = hv(noun, connect=None)
    assert (result.code, result.out) == (2, "")
    assert result.err.startswith(f"Usage: hvtui {noun}")
    assert "\\n" not in result.err
    assert "Common options (in any position):" in result.err.splitlines()


def test_completion_without_a_shell_says_which_there_are(hv: Command) -> None:
    result = hv("completion", connect=None)
    assert result.code == 2
    assert "bash, zsh, fish" in result.err
    assert "\\t" not in result.err


def test_a_hostile_word_is_shown_harmlessly(hv: Command) -> None:
    result = hv("vm", "\x1b[31mx\u202e")
    assert result.code == 2
    assert "\x1b" not in result.err
    assert "\u202e" not in result.err


def test_an_unreachable_hypervisor_says_how_to_start_one_and_offers_the_demo(hv: Command) -> None:
    result = hv("vm", "list", connect="qemu+unix:///system?socket=/nonexistent/libvirt-sock")
    assert result.code == 6
    assert "hvtui --demo" in result.err
    assert "Traceback" not in result.err


def test_a_bad_uri_is_an_error_in_words(hv: Command) -> None:
    for uri in ("nonsense", "nonsense:///x", "test:///nonexistent.xml", "", "qemu://[bad"):
        result = hv("vm", "list", "--connect", uri, connect=None) if uri else hv("vm", "list", connect="test:///x")
        assert result.code not in {0, 130}, uri
        assert "Traceback" not in result.err
        assert result.err.startswith("hvtui: ")
        assert "internal error" not in result.err, uri


def test_an_unknown_host_names_the_known_ones(hv: Command) -> None:
    result = hv("--host", "lab9", "vm", "list", connect=None)
    assert result.code == 3
    assert "local" in result.err
    assert hv("--host", "local", "vm", "list").code == 2


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        (errors.HvtuiError, 1),
        (errors.UsageError, 2),
        (errors.NotFound, 3),
        (errors.NameTaken, 4),
        (errors.WrongState, 4),
        (errors.Busy, 4),
        (errors.Denied, 5),
        (errors.ConnectionLost, 6),
        (errors.TimedOut, 7),
        (errors.Unsupported, 8),
        (errors.Blocked, 9),
        (errors.Cancelled, 130),
    ],
)
def test_each_error_has_its_exit_code_and_its_remedy_on_standard_error(
    hv: Command, monkeypatch: pytest.MonkeyPatch, kind: type[errors.HvtuiError], code: int
) -> None:
    def fail(*_: object) -> None:
        raise kind("the cause", about="web", remedy="Do that")

    monkeypatch.setattr("vm.inventory.read", fail)
    result = hv("vm", "list", "-o", "json")
    assert (result.code, result.out, result.err) == (code, "", "hvtui: web: the cause. Do that\n")


def test_a_defect_is_one_line_without_a_traceback_unless_asked(hv: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise ZeroDivisionError("oh\x1b[31m")

    monkeypatch.setattr("vm.inventory.read", fail)
    monkeypatch.delenv("HVTUI_DEBUG", raising=False)
    result = hv("vm", "list")
    assert result.code == 1
    assert "Traceback" not in result.err
    assert "\x1b" not in result.err
    assert "HVTUI_DEBUG=1" in result.err
    monkeypatch.setenv("HVTUI_DEBUG", "1")
    assert "Traceback" in hv("vm", "list").err


def test_ctrl_c_ends_with_130(hv: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("vm.inventory.read", interrupt)
    assert hv("vm", "list").code == edge.INTERRUPTED


def test_a_missing_binding_is_explained(hv: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise ModuleNotFoundError("No module named 'libvirt'", name="libvirt")

    monkeypatch.setattr("vm.inventory.read", fail)
    result = hv("vm", "list")
    assert result.code == 6
    assert "apt-get install" in result.err


def test_a_journal_that_cannot_be_opened_is_an_error_in_words(
    hv: Command, monkeypatch: pytest.MonkeyPatch, tmp_path
) -> None:
    monkeypatch.setenv("HVTUI_STATE_DIR", str(tmp_path / "file" / "below"))
    (tmp_path / "file").write_text("", encoding="utf-8")
    for words in (("job", "list"), ("vm", "start", "build-07")):
        result = hv(*words)
        assert result.code not in {0, 130}
        assert "Traceback" not in result.err
        assert "internal error" not in result.err
    assert hv().code == 0
