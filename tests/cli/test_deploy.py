"""`vm deploy`: from the options to the request, what is refused before anything is made, and the whole on a simulated
host."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from host.connection import Host
from host.errors import NotFound, UsageError
from host.units import GIB, MIB
from hvtui.cli import vm_deploy
from hvtui.cli.session import Session
from tests.cli.conftest import Command
from tests.support import new_vms
from vm import library as libraries
from vm.deploy_request import DeployRequest
from vm.template_model import ImageRole, Library, Readiness, Template, TemplateImage

DISK = TemplateImage("debian.qcow2", ImageRole.DISK, "qcow2", 4 * GIB, 900 * MIB, "0" * 64)
DEBIAN = Template("debian", (DISK,), readiness=Readiness.CLOUD_INIT, takes_seed=True, hardware_profile="medium")
PROFILE = """
kind = "guest"
name_pattern = "web-{:02}"
"""


@pytest.fixture(autouse=True)
def templates(monkeypatch: pytest.MonkeyPatch) -> None:
    """The test driver cannot read a volume: the library is this one."""
    library = Library("library", "/library", templates=(DEBIAN,))

    def find(_host: Host, name: str, pool: str = "library") -> tuple[Library, Template]:
        if name != "debian":
            raise NotFound(f"there is no template {name!r}", remedy="Is it debian?")
        return library, DEBIAN

    monkeypatch.setattr(libraries, "find", find)


@pytest.fixture
def world(tmp_path: Path) -> str:
    """The URI of a simulated host with a library and a pool."""
    volume = f"<volume><name>{DISK.volume}</name><capacity>{4 * GIB}</capacity></volume>"
    library = f"<pool type='dir'><name>library</name><target><path>/library</path></target>{volume}</pool>"
    body = new_vms.POOL + library + new_vms.NETWORK.format(name="default")
    path = tmp_path / "world.xml"
    path.write_text(new_vms.WORLD.format(body=body), encoding="utf-8")
    return f"test://{path}"


@pytest.fixture
def asked(world: str) -> Any:
    """A function that gives the request that a command line means."""
    sessions: list[Session] = []

    def ask(*words: str, **common: Any) -> DeployRequest:
        given: dict[str, Any] = vm_deploy.deploy.make_context("deploy", [*words]).params
        given.pop("keep_failed")
        sessions.append(Session(given={"connect": world, **common}))
        return vm_deploy.request(sessions[-1], **given)

    yield ask
    for session in sessions:
        session.close()


def test_a_pattern_and_a_number_name_the_vms(asked: Any) -> None:
    wanted = asked("debian", "web-{:02}", "-n", "3", "--first", "7")
    assert wanted.names == ("web-07", "web-08", "web-09")
    assert wanted.command == ("vm", "deploy", "-n", "3", "--first", "7", "debian", "web-{:02}")
    assert (wanted.linked, wanted.start, wanted.wait_ready) == (True, True, True)


def test_the_templates_profile_is_the_default_and_settings_come_over_it(asked: Any) -> None:
    assert asked("debian", "web").hardware.memory_bytes == 4 * GIB  # medium
    assert asked("debian", "web", "--profile", "small").hardware.name == "small"
    over = asked("debian", "web", "--set", "memory=2G", "--set", "vcpus=3")
    assert (over.hardware.memory_bytes, over.hardware.vcpus) == (2 * GIB, 3)


def test_a_guest_profile_can_name_the_vms(asked: Any, tmp_path: Path) -> None:
    file = tmp_path / "web.toml"
    file.write_text(PROFILE, encoding="utf-8")
    assert asked("debian", "--profile", str(file), "-n", "2").names == ("web-01", "web-02")
    with pytest.raises(UsageError, match="nothing says what the VM is called"):
        asked("debian")


def test_how_far_a_deployment_goes(asked: Any) -> None:
    assert (asked("debian", "a", "--until", "started").wait_ready) is False
    for words in (("--until", "defined"), ("--no-start",)):
        wanted = asked("debian", "a", *words)
        assert (wanted.start, wanted.wait_ready) == (False, False)
        assert wanted.command == ("vm", "deploy", "--until", "defined", "debian", "a")
    with pytest.raises(UsageError, match="contradict"):
        asked("debian", "a", "--no-start", "--until", "ready")
    assert asked("debian", "a", timeout=30.0).ready_timeout_s == 30.0


def test_secrets_are_no_words_of_the_command(asked: Any) -> None:
    wanted = asked("debian", "a", "--full", "--set", "memory=2G", "--set", "run=echo swordfish")
    assert wanted.guest.run == ("echo swordfish",)
    assert wanted.command == ("vm", "deploy", "--full", "--set", "memory=2G", "debian", "a")


def test_user_data_are_read_and_checked(asked: Any, tmp_path: Path) -> None:
    file = tmp_path / "user-data"
    file.write_text("#cloud-config\npackages: [nginx]\n", encoding="utf-8")
    assert "nginx" in asked("debian", "a", "--user-data", str(file)).user_data
    file.write_text("#cloud-config\n  a: [\n", encoding="utf-8")
    with pytest.raises(UsageError, match="line"):
        asked("debian", "a", "--user-data", str(file))
    with pytest.raises(NotFound, match="user data"):
        asked("debian", "a", "--user-data", str(tmp_path / "nowhere"))


def test_a_set_is_deployed_and_reported(hv: Command, world: str) -> None:
    result = hv(*("vm", "deploy", "debian", "web-{}", "-n", "2", "--set", "memory=256M", "-o", "json"), connect=world)
    assert result.code == 0, result.err
    assert [(each["vm"], each["result"]) for each in result.json] == [("web-1", "done"), ("web-2", "done")]


def test_a_dry_run_shows_everything_and_makes_nothing(hv: Command, world: str) -> None:
    result = hv("vm", "deploy", "debian", "web-{}", "-n", "3", "--set", "memory=256M", "--dry-run", connect=world)
    assert result.code == 0, result.err
    for words in (
        "Deploy 3 VMs, web-1 to web-3,",
        "Link a disk of 4.0G",
        "and 2 more",
        "same as: hvtui",
        "--backing-vol",
    ):
        assert words in result.out


def test_a_template_that_is_not_there_is_told(hv: Command, world: str) -> None:
    result = hv("vm", "deploy", "debain", "web", connect=world)
    assert result.code == 3
    assert "Is it debian?" in result.err


def test_a_set_that_is_blocked_makes_nothing(hv: Command, world: str) -> None:
    result = hv("vm", "deploy", "debian", "web-{}", "-n", "4", connect=world)  # medium: 4 × 4 GiB
    assert result.code == 9
    assert "4 × 4.0G of memory" in result.err


def test_a_vm_without_a_seed_has_none_to_take_away(hv: Command) -> None:
    result = hv("vm", "unseed", "web-01")
    assert result.code == 4
    assert "no seed" in result.err
