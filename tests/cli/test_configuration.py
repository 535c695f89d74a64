"""The configuration file as commands and the console meet it: what it reaches, and what a wrong one does."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from host.errors import UsageError
from host.journal import Journal
from hvtui import __main__ as edge
from hvtui.cli.session import Session
from tests.cli.conftest import Command


def test_a_configured_host_is_found_by_name(hv: Command, config_file: Path, simulated_uri: str) -> None:
    config_file.write_text(f'[[host]]\nname = "lab1"\nuri = "{simulated_uri}"\n', encoding="utf-8")
    assert len(hv("vm", "list", "--host", "lab1", "-o", "json", connect=None).json) == 13


@pytest.mark.parametrize(
    "words",
    [
        ("--headless",),
        ("vm", "list"),
        ("vm", "start", "build-07"),
        ("host", "show"),
        ("job", "list"),
        ("--demo", "vm", "list"),
        ("--host", "lab1", "vm", "list"),
    ],
    ids=" ".join,
)
@pytest.mark.parametrize("text", ["[ui", '[ui]\ntheme = "drak"', '[ui]\ncolumns = ["cpy"]', "jobs.keep = 0"])
def test_a_wrong_configuration_is_told_before_anything_is_done(
    hv: Command, config_file: Path, words: tuple[str, ...], text: str
) -> None:
    config_file.write_text(text, encoding="utf-8")
    result = hv(*words, connect=None)
    assert (result.code, result.out) == (2, "")
    assert result.err.startswith(f"hvtui: {config_file}: ")
    assert result.err.count("\n") == 1
    with Journal() as journal:
        assert journal.jobs() == ()


def test_a_named_file_that_is_missing_is_an_error(hv: Command, config_file: Path) -> None:
    config_file.unlink()
    result = hv("vm", "list")
    assert result.code == 2
    assert f"{config_file}: cannot read the configuration file: No such file or directory" in result.err


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ('[keys]\n"vm.strat" = "x"', "[keys] no action has the id 'vm.strat'. Did you mean vm.start?"),
        ('[keys]\n"vm.start" = "x"\n"vm.stop" = "x"', "[keys] vm.start and vm.stop have both the key x"),
        ('[ui]\ntheme = "hvtui-lihgt"', "[ui] theme is 'hvtui-lihgt'. Did you mean hvtui-light?"),
    ],
)
def test_the_console_does_not_open_on_a_wrong_configuration(
    config_file: Path, simulated_uri: str, text: str, what: str
) -> None:
    config_file.write_text(text, encoding="utf-8")
    session = Session(given={"connect": simulated_uri})
    try:
        with pytest.raises(UsageError) as caught:
            edge._open_screen(session)
    finally:
        session.close()
    assert str(caught.value).startswith(f"{config_file}: {what}")


def test_the_configured_accelerator_reaches_every_part_and_process(hv: Command, config_file: Path) -> None:
    config_file.write_text('accelerator = "qemu"', encoding="utf-8")
    assert hv("vm", "list").code == 0
    assert os.environ["HVTUI_ACCEL"] == "qemu", "host.accelerator and the processes of long jobs look there"


def test_the_accelerator_of_the_environment_comes_first(
    hv: Command, config_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HVTUI_ACCEL", "kvm")
    config_file.write_text('accelerator = "qemu"', encoding="utf-8")
    assert hv("vm", "list").code == 0
    assert os.environ["HVTUI_ACCEL"] == "kvm"


def test_the_journal_keeps_as_many_ended_jobs_as_are_configured(hv: Command, config_file: Path) -> None:
    config_file.write_text("[jobs]\nkeep = 1", encoding="utf-8")
    for _ in range(4):
        assert hv("vm", "start", "build-07").code == 0
    assert [job["id"] for job in hv("job", "list", "-o", "json").json] == [4, 3], "the next job forgets the third"
