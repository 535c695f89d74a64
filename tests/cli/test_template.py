"""`template`: from the options to the request, what is refused before anything is looked at, and how it is told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from host.errors import NotFound, UsageError
from host.units import GIB
from hvtui.cli.template_change import add, request
from tests.cli.conftest import Command
from vm.create_request import Firmware
from vm.template_add import AddRequest, OriginKind, options
from vm.template_model import Readiness


def asked(*words: str) -> AddRequest:
    """The request that a command line means."""
    given: dict[str, Any] = add.make_context("add", ["web", *words]).params
    return request(given.pop("name"), **given)


def test_every_option_reaches_the_request_and_comes_back_as_the_same_command(tmp_path: Path) -> None:
    file = tmp_path / "disk.qcow2"
    words = (
        *("--from", str(file), "--sha256", "a" * 64, "--library", "images", "--max-size", "1G", "--description", "D"),
        *("--os", "debian12", "--arch", "aarch64", "--firmware", "uefi", "--readiness", "agent", "--disk-bus", "sata"),
        *("--nic-model", "e1000e", "--hardware-profile", "hw", "--guest-profile", "guest", "--tag", "a", "--tag", "b"),
        *("--seed", "--raw"),
    )
    wanted = asked(*words)
    assert wanted == AddRequest(
        "web",
        str(file),
        library="images",
        sha256="a" * 64,
        is_raw=True,
        limit_bytes=GIB,
        description="D",
        os_id="debian12",
        architecture="aarch64",
        firmware=Firmware.UEFI,
        readiness=Readiness.AGENT,
        takes_seed=True,
        disk_bus="sata",
        nic_model="e1000e",
        hardware_profile="hw",
        guest_profile="guest",
        tags=("a", "b"),
    )
    assert asked(*options(wanted)) == wanted


def test_what_is_not_said_is_left_to_the_image() -> None:
    assert asked("--from", "/x/disk.qcow2") == AddRequest("web", "/x/disk.qcow2")
    assert asked("--from", "/x", "--no-seed").takes_seed is False


@pytest.mark.parametrize(
    ("word", "kind", "source"),
    [
        ("tiny", OriginKind.RECIPE, "tiny"),
        ("debian", OriginKind.RECIPE, "debian"),
        ("vol:a b.qcow2", OriginKind.VOLUME, "a b.qcow2"),
        ("/images/tiny", OriginKind.FILE, "/images/tiny"),
    ],
)
def test_what_it_is_made_from_is_seen_from_the_word(word: str, kind: OriginKind, source: str) -> None:
    wanted = asked("--from", word)
    assert (wanted.kind, wanted.source) == (kind, source)
    assert asked(*options(wanted)) == wanted


def test_a_file_beside_one_wins_over_a_recipe_only_by_its_path(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "disk.img").touch()
    monkeypatch.chdir(tmp_path)
    assert asked("--from", "disk.img").source == str(tmp_path / "disk.img")
    assert asked("--from", "./tiny").kind is OriginKind.FILE


def test_an_address_is_to_be_downloaded_first() -> None:
    with pytest.raises(UsageError, match="Download it first"):
        asked("--from", "https://example.org/debian.qcow2")


def test_a_mistyped_recipe_names_the_nearest() -> None:
    with pytest.raises(NotFound, match="Did you mean debian"):
        asked("--from", "debain")


def test_nothing_to_make_it_from_lists_what_there_is() -> None:
    with pytest.raises(UsageError, match="a recipe"):
        asked()


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("list", "--library", "nowhere"), 3),
        (("list", "--columns", "colour"), 2),
        (("show", "web"), 3),
        (("show",), 2),
        (("remove", "web"), 3),
        (("remove", "*"), 3),
        (("edit", "web"), 2),
        (("edit", "web", "colour"), 2),
        (("edit", "web", "seed=yes"), 3),
        (("verify", "web"), 3),
        (("add", "a/b", "--from", "tiny"), 2),
        (("add", "web", "--from", "/nothing/at/all"), 9),
        (("add", "web", "--from", "tiny", "--sha256", "xyz"), 2),
        (("add", "web", "--from", "tiny", "--max-size", "12"), 2),
        (("frobnicate",), 2),
    ],
)
def test_what_cannot_be_done_ends_with_its_code_and_says_why(hv: Command, words: tuple[str, ...], code: int) -> None:
    result = hv("template", *words, "--yes")
    assert result.code == code, result
    assert result.err.startswith(("hvtui: ", "Usage: ")) or "hvtui: " in result.err
    assert hv("job", "list", "-o", "json").json == []


@pytest.mark.parametrize(
    "words",
    [
        ("template", "list"),
        ("template", "show", "web"),
        ("template", "verify", "web"),
        ("template", "remove", "web"),
        ("vm", "deploy", "web", "web-01"),
        ("profile", "remove", "web"),
        ("vm", "diff", "--with", "web", "*"),
    ],
    ids=" ".join,
)
@pytest.mark.parametrize("is_named", [True, False], ids=["by name", "by address"])
def test_the_library_is_that_of_the_host_in_the_configuration(
    hv: Command, simulated_uri: str, config_file: Path, words: tuple[str, ...], is_named: bool
) -> None:
    config_file.write_text(f'[[host]]\nname = "lab"\nuri = "{simulated_uri}"\nlibrary = "golden"\n', encoding="utf-8")
    told = hv(*words, "--host", "lab", connect=None) if is_named else hv(*words)
    assert "golden" in told.err or "golden" in told.out or "profile" in words, told
    assert told.code == (0 if "list" in words else 3)
    other = hv(*words, "--library", "silver")
    assert "golden" not in other.err
    if "profile" not in words:
        assert "silver" in other.err


def test_a_host_without_a_library_has_no_templates(hv: Command) -> None:
    assert hv("template", "list", "-o", "json").json == []
    told = hv("template", "list")
    assert (told.code, told.out) == (0, "")
    assert "hvtui template add tiny --from tiny" in told.err


def test_a_simulated_host_stores_nothing_and_says_so(hv: Command) -> None:
    result = hv("template", "add", "web", "--from", "tiny")
    assert result.code in {8, 9}
    assert "keeps no contents" in result.err
    assert hv("template", "list", "-o", "json").json == []


@pytest.mark.parametrize(
    ("word", "meant"), [("rm", "remove"), ("create", "add"), ("info", "show"), ("check", "verify")]
)
def test_words_of_other_programs_are_understood(hv: Command, word: str, meant: str) -> None:
    assert f"That is called {meant} here" in hv("template", word, "web").err
