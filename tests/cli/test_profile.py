"""`hvtui profile`: lists, files, settings, and what is refused. Storing is tried on a real libvirtd (tests/real)."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from hvtui.cli import profile as profile_commands
from tests.cli.conftest import Command
from vm.profiles import SETTINGS

HASH = "$6$ih3IQ9ylYjFNapSy$hFnv3bm6Zjp2RYzDjElx0xT.Sg97Py11Mr2.7qxFvH/XlA119BSL0.XkIifXQu0.sOwVGv4qq0P.Lcwqs6/9T/"


@pytest.fixture
def web(tmp_path: Path) -> Path:
    path = tmp_path / "web.hardware.toml"
    path.write_text('kind = "hardware"\nvcpus = 2\nmemory = "2G"\n')
    return path


def test_the_built_in_profiles_are_there_without_a_library(hv: Command) -> None:
    found = hv("profile", "list", "-o", "json").json
    assert [(each["kind"], each["name"]) for each in found] == [
        ("hardware", "large"),
        ("hardware", "medium"),
        ("hardware", "small"),
        ("hardware", "tiny"),
        ("guest", "default"),
    ]
    assert {each["source"] for each in found} == {"built-in"}
    assert list(found[0]) == [column.key for column in profile_commands.COLUMNS if not column.extra]
    only = hv("profile", "list", "--kind", "guest", "--columns", "name", "-o", "csv")
    assert only.out.splitlines() == ['"name"', '"default"']


def test_a_shown_profile_is_a_file_that_check_takes(hv: Command, tmp_path: Path) -> None:
    for name in ("small", "default"):
        shown = hv("profile", "show", name)
        assert shown.code == 0
        file = tmp_path / f"{name}.toml"
        file.write_text(shown.out)
        assert tomllib.loads(shown.out)["kind"] in {"hardware", "guest"}
        assert hv("profile", "check", str(file), connect=None).code == 0


def test_check_needs_no_host_and_says_what_is_wrong_with_each_file(hv: Command, web: Path, tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.toml"
    wrong.write_text('kind = "hardware"\nmemroy = "2G"\n')
    result = hv("profile", "check", str(web), str(wrong), "--connect", "nowhere://", connect=None)
    assert result.code == 2
    assert result.out == f"{web}: a hardware profile: 2 vCPU, 2.0G\n"
    assert f"{wrong}: memroy is not a key. Did you mean memory?" in result.err
    found = hv("profile", "check", str(web), str(wrong), "-o", "json", connect=None).json
    assert [each["valid"] for each in found] == [True, False]
    assert found[1]["error"] == "memroy is not a key"
    assert hv("profile", "check", str(tmp_path / "none.toml"), connect=None).code == 3


def test_the_plan_of_an_addition_names_the_pool_the_volume_and_the_command(hv: Command, web: Path) -> None:
    result = hv("profile", "add", str(web), "--set", "memory=4G", "--dry-run", "-o", "json")
    assert result.code == 0
    (plan,) = result.json
    assert [step["verb"] for step in plan["steps"]] == ["create.pool", "profile.write"]
    args = plan["steps"][1]["args"]
    assert (args["name"], args["kind"]) == ("web", "hardware")
    assert tomllib.loads(args["text"]) == {"kind": "hardware", "vcpus": 2, "memory": "4G"}
    assert plan["command"] == ["profile", "add", str(web), "--set", "memory=4G"]


def test_a_profile_is_made_of_settings_and_of_what_is_built_in(hv: Command) -> None:
    (plan,) = hv("profile", "add", "large", "--kind", "hardware", "--set", "vcpus=6", "--dry-run", "-o", "json").json
    assert tomllib.loads(plan["steps"][1]["args"]["text"])["memory"] == "8G"
    (plan,) = hv("profile", "add", "x", "--kind", "guest", "--name", "y", "--dry-run", "-o", "json").json
    assert plan["steps"][1]["args"]["name"] == "y"


def test_what_may_be_secret_is_in_no_plan(hv: Command) -> None:
    secret = ("--set", "user=a", "--set", f"password-hash={HASH}", "--set", "run=echo hunter2")
    result = hv("profile", "add", "web", "--kind", "guest", *secret, "--dry-run", "-o", "json")
    assert result.code == 0
    assert HASH not in result.out
    assert "hunter2" not in result.out
    assert "password-hash=…" in result.json[0]["command"]


@pytest.mark.parametrize(
    ("words", "code", "problem"),
    [
        (("show", "smal"), 3, "there is no profile 'smal'. Did you mean small?"),
        (("show", "small", "--kind", "guest"), 3, "there is no guest profile 'small'"),
        (("show", "./none.toml"), 3, "there is no such file"),
        (("add", "web"), 2, "nothing says of what kind"),
        (("add", "we/b.toml/x"), 3, "there is no such file"),
        (("add", "../x", "--kind", "guest"), 3, "there is no such file"),
        (("add", "w b", "--kind", "guest"), 2, "cannot be a profile's name"),
        (("add", "web", "--kind", "guest", "--set", "memory=2G"), 2, "Put it into a hardware profile"),
        (("add", "web", "--kind", "hardware", "--set", "memroy=2G"), 2, "Did you mean memory?"),
        (("add", "web", "--kind", "hardware", "--library", "else/where"), 2, "cannot be the name of a new library"),
        (("add", "web", "--kind", "hardware", "--set", "memory=3X"), 2, "--set memory: '3X' is not a size"),
        (("edit", "small", "--set", "memory=2G"), 2, "is built in"),
        (("edit", "small", "--kind", "guest", "--set", "domain=x"), 3, "there is no guest profile small"),
        (("edit", "x.toml"), 2, "is a file"),
        (("remove", "small"), 2, "is built in"),
        (("remove", "nobody"), 3, "there is no profile 'nobody'"),
        (("remove",), 2, "NAMES"),
        (("validate", "x"), 2, "hvtui profile check"),
    ],
)
def test_what_cannot_be_is_refused_with_the_remedy(
    hv: Command, words: tuple[str, ...], code: int, problem: str
) -> None:
    result = hv("profile", *words)
    assert (result.code, problem in result.err) == (code, True), result.err


def test_a_hostile_file_does_nothing_to_the_terminal(hv: Command, tmp_path: Path) -> None:
    file = tmp_path / "x.toml"
    file.write_text('kind = "guest"\nrun = ["echo \\u001b[31m"]\ndescription = "\u202eevil"\n')
    for verb in ("show", "check"):
        result = hv("profile", verb, str(file), "-o", "table")
        assert "\x1b" not in result.out
    file.write_text('kind = "guest"\n"\\u001b[31m" = 1\n')
    assert "\x1b" not in hv("profile", "check", str(file), connect=None).err


def test_the_settings_are_in_the_reference(hv: Command) -> None:
    page = (Path(__file__).parents[2] / "docs/headless.md").read_text()
    assert all(f"| {key} | " in page for key in SETTINGS)
