"""host drain and host resume, on a simulated host that has nobody to take its VMs."""

from __future__ import annotations

from pathlib import Path

import pytest

from host import maintenance
from host.maintenance import Guest
from tests.cli.conftest import Command
from tests.support import simulated_world


@pytest.fixture
def uri(config_file: Path, tmp_path: Path) -> str:
    """lab1, alone in the list, with a VM that runs and one that is off."""
    world = tmp_path / "lab1.xml"
    domain = simulated_world.domain
    world.write_text(simulated_world.world([domain("web", state="running"), domain("off")]), encoding="utf-8")
    config_file.write_text(f'[[host]]\nname = "lab1"\nuri = "test://{world}"\n', encoding="utf-8")
    return f"test://{world}"


def test_the_plan_shows_each_fate_and_changes_nothing(hv: Command, uri: str) -> None:
    result = hv("host", "drain", "lab1", "--plan", "-o", "json", connect=None)
    assert result.code == 0
    assert [(row["vm"], row["fate"], row["host"], row["why"]) for row in result.json] == [
        ("web", "save", None, "there is no other host"),
        ("off", "stay", None, "it is off"),
    ]
    assert maintenance.read() == ()
    table = hv("host", "drain", "lab1", "--plan", "--without-target", "stay", connect=None)
    assert "1 cannot leave and run on" in table.out


def test_a_drain_saves_and_notes(hv: Command, uri: str) -> None:
    result = hv("host", "drain", "lab1", "-y", connect=None)
    assert result.code == 0, result.err
    assert "web: save (there is no other host)" in result.err
    (notes,) = maintenance.read()
    assert [(guest.name, guest.fate) for guest in notes.guests] == [("web", "saved")]
    assert "it is drained for maintenance" in hv("vm", "place", "off", "--host", "lab1", connect=None).out


def test_a_drain_asks_first(hv: Command, uri: str) -> None:
    assert hv("host", "drain", "lab1", connect=None).code == 2
    assert maintenance.read() == ()


def test_vms_that_stay_by_request_are_told_and_are_no_failure(hv: Command, uri: str) -> None:
    result = hv("host", "drain", "lab1", "-y", "--without-target", "stay", connect=None)
    assert result.code == 0
    assert "web runs on lab1 still" in result.err
    assert maintenance.drained_keys() == {uri}


def test_a_host_comes_back_into_service(hv: Command, uri: str) -> None:
    maintenance.begin(uri, "lab1")
    web = simulated_world.uuid_of("web")
    maintenance.put_guest(uri, Guest(web, "web", "saved", "running", uri, "lab1"))
    assert hv("host", "resume", "lab1", "-y", connect=None).code == 0
    assert maintenance.read() == ()
    assert hv("host", "resume", "lab1", "-y", connect=None).code == 3


def test_a_vm_that_is_nowhere_is_told_until_it_is_forgotten(hv: Command, uri: str) -> None:
    maintenance.begin(uri, "lab1")
    maintenance.put_guest(uri, Guest("0" * 8 + "-0000-0000-0000-" + "0" * 12, "gone", "saved", "running", uri, "lab1"))
    result = hv("host", "resume", "lab1", "-y", connect=None)
    assert result.code == 9
    assert "gone: it is neither here nor on lab1" in result.err
    assert "Not back yet: gone" in result.err
    assert hv("host", "resume", "lab1", "-y", "--forget", "nobody", connect=None).code == 3
    assert hv("host", "resume", "lab1", "-y", "--forget", "gone", connect=None).code == 0
    assert maintenance.read() == ()


def test_an_unknown_host_is_not_found(hv: Command, uri: str) -> None:
    assert hv("host", "drain", "nowhere", connect=None).code == 3
    assert hv("host", "resume", "nowhere", connect=None).code == 3
