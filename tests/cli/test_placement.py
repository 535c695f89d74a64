"""Commands that rate hosts: vm place, host whatif, and --to best."""

from __future__ import annotations

from pathlib import Path

import pytest

from host import maintenance
from hvtui.cli import placing
from tests.cli.conftest import Command
from tests.support import simulated_world


@pytest.fixture
def uris(config_file: Path, tmp_path: Path) -> dict[str, str]:
    """lab1 with three VMs, lab2 with one, and dead, which nobody reaches."""
    domain = simulated_world.domain
    worlds = {
        "lab1": [
            domain("web-01", state="running", tags=["anti-affinity/web"], networks=["default"]),
            domain("odd", state="running", networks=["lan"]),
            domain("off"),
        ],
        "lab2": [domain("web-02", state="running", tags=["anti-affinity/web"])],
    }
    found = {}
    for name, vms in worlds.items():
        path = tmp_path / f"{name}.xml"
        path.write_text(simulated_world.world(vms), encoding="utf-8")
        found[name] = f"test://{path}"
    found["dead"] = "qemu+unix:///system?socket=/nowhere/at/all.sock"
    text = "\n".join(f'[[host]]\nname = "{name}"\nuri = "{uri}"\n' for name, uri in found.items())
    config_file.write_text(text, encoding="utf-8")
    return found


def rated(hv: Command, *words: str) -> dict[str, dict]:
    result = hv("vm", "place", *words, "--host", "lab1", "-o", "json", connect=None)
    assert result.code == 0, result.err
    return {row["host"]: row for row in result.json}


def test_every_host_is_rated_and_a_dead_one_is_impossible(hv: Command, uris: dict[str, str]) -> None:
    found = rated(hv, "web-01")
    assert set(found) == {"lab1", "lab2", "dead"}
    assert found["lab1"]["is_here"]
    assert found["lab1"]["stars"] > 0
    assert found["dead"]["stars"] == 0
    assert found["dead"]["why_not"].startswith("it does not answer")
    assert any("anti-affinity/web keeps them apart" in reason for reason in found["lab2"]["reasons"])
    assert found["lab2"]["stars"] <= 1


def test_the_configuration_says_what_counts_and_the_command_what_for(
    hv: Command, uris: dict[str, str], config_file: Path
) -> None:
    usual = rated(hv, "off")["lab2"]["stars"]
    config_file.write_text(config_file.read_text() + '\n[placement]\ngoal = "consolidate"\n', encoding="utf-8")
    fullest = rated(hv, "off")["lab2"]["stars"]
    assert fullest < usual
    assert rated(hv, "off", "--goal", "balance")["lab2"]["stars"] == usual


def test_options_of_a_template_are_none_of_a_vm(hv: Command, uris: dict[str, str]) -> None:
    result = hv("vm", "place", "off", "--set", "memory=1G", "--host", "lab1", connect=None)
    assert result.code == 2
    assert "go with --template" in result.err


def test_a_host_without_its_network_is_impossible(hv: Command, uris: dict[str, str]) -> None:
    assert rated(hv, "odd")["lab2"]["why_not"] == "it has no active network lan"


def test_a_drained_host_gets_no_stars(hv: Command, uris: dict[str, str]) -> None:
    maintenance.begin(uris["lab2"], "lab2")
    assert rated(hv, "off")["lab2"]["why_not"] == "it is drained for maintenance"


def test_a_person_sees_stars_and_reasons(hv: Command, uris: dict[str, str]) -> None:
    told = hv("vm", "place", "off", "--host", "lab1", connect=None)
    assert "★" in told.out
    assert "= the VM is here now" in told.out
    assert "☆☆☆☆☆  dead" in told.out


@pytest.mark.parametrize(
    ("stars", "text", "plain"),
    [(0, "☆☆☆☆☆", "-----"), (0.5, "½☆☆☆☆", "+----"), (3.5, "★★★½☆", "***+-"), (5, "★★★★★", "*****")],
)
def test_stars_have_an_ascii_form(monkeypatch: pytest.MonkeyPatch, stars: float, text: str, plain: str) -> None:
    class Terminal:
        encoding = "utf-8"

    monkeypatch.setattr(placing.sys, "stdout", Terminal())
    assert placing.stars_text(stars) == text
    Terminal.encoding = "ascii"
    assert placing.stars_text(stars) == plain


def test_the_loss_of_a_host_is_told_vm_by_vm(hv: Command, uris: dict[str, str]) -> None:
    result = hv("host", "whatif", "lab2", "--host", "lab1", "-o", "json", connect=None)
    assert [(row["vm"], row["host"]) for row in result.json] == [("web-02", "lab1")]
    assert result.code == 0
    assert hv("host", "whatif", "lab2", "--host", "lab1", connect=None).out.endswith(
        "lab2: its VM would have a place\n"
    )
    table = hv("host", "whatif", "lab1", "--host", "lab1", connect=None)
    assert table.out.endswith("lab1: 1 of its 2 VMs would have no place\n")
    result = hv("host", "whatif", "lab1", "--host", "lab1", "-o", "json", connect=None)
    assert {row["vm"]: row["host"] for row in result.json} == {"web-01": "lab2", "odd": None}
    assert result.code == 1
    assert hv("host", "whatif", "nowhere", "--host", "lab1", connect=None).code == 3


def test_without_a_name_each_host_is_looked_at(hv: Command, uris: dict[str, str]) -> None:
    result = hv("host", "whatif", "--host", "lab1", connect=None)
    assert "N-1: without lab1 1 VM has no place" in result.out
    assert "dead" in result.err
    assert result.code == 1


def test_one_host_alone_has_nobody_to_take_its_vms(hv: Command) -> None:
    result = hv("host", "whatif")
    assert "there is no other host" in result.out
    assert "N-1: there is only one host" in result.out
    assert hv("vm", "migrate", "web-01", "--to", "best").code == 3


def test_a_host_of_the_list_that_cannot_take_a_vm_is_never_the_best(hv: Command, uris: dict[str, str]) -> None:
    result = hv("vm", "migrate", "odd", "--to", "best", "--host", "lab1", connect=None)
    assert result.code == 4
    assert "no host can take it" in result.err
    assert "lab2: " in result.err
    assert "dead: " in result.err
