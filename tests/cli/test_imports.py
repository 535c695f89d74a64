"""vm export, import and paravirtual from the command line: plans as JSON, errors with their exit codes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.conftest import Command
from tests.support import bundles
from tests.unit.test_bundle import write
from tests.unit.test_paravirtual import DISKS, DOMAIN, NIC


@pytest.fixture
def emulated(tmp_path: Path) -> str:
    """A simulated host with one VM that is off, its disk and card emulated."""
    domain = DOMAIN.format(devices=DISKS.format(controller="virtio-scsi") + NIC)
    domain = domain.replace(
        "<domain type='test'>", "<domain type='test' xmlns:test='http://libvirt.org/schemas/domain/test/1.0'>"
        "<test:runstate>5</test:runstate>"
    )  # fmt: skip
    world = tmp_path / "world.xml"
    pool = "<pool type='dir'><name>default</name><target><path>/images</path></target></pool>"
    world.write_text(f"<node>{pool}{domain}</node>")
    return f"test://{world}"


def test_an_export_shows_its_plan_and_is_refused_where_nothing_is_kept(
    hv: Command, emulated: str, tmp_path: Path
) -> None:
    shown = hv("vm", "export", "old", "--to", str(tmp_path / "b"), "--dry-run", "-o", "json", connect=emulated)
    (plan,) = shown.json
    assert shown.code != 0
    assert plan["steps"][0]["verb"] == "export.begin"
    assert any("simulated host" in blocker["reason"] for blocker in plan["blockers"])
    assert hv("vm", "export", "gone", "--to", str(tmp_path / "b"), connect=emulated).code == 3
    assert hv("vm", "export", "old", connect=emulated).code == 2
    assert not (tmp_path / "b").exists()


def test_a_comparison_tells_each_finding_and_names_what_is_wrong(hv: Command, emulated: str, tmp_path: Path) -> None:
    write(tmp_path)
    (tmp_path / "domain.xml").write_text("<d>")
    shown = hv("vm", "import", str(tmp_path), "--dry-run", "-o", "json", connect=emulated)
    (plan,) = shown.json
    told = json.dumps(plan["blockers"])
    assert shown.code != 0
    assert "vda.qcow2 is missing" in told
    assert "SHA-256" in told
    assert plan["notes"] == []


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["/nowhere/at/all.qcow2"], 3),
        (["BUNDLE", "--memory", "1G"], 2),
        (["BUNDLE", "--bus", "ide"], 2),
        (["BUNDLE", "--network", "lab"], 2),
        (["BUNDLE", "--network", "=lab"], 2),
        (["BUNDLE", "--max-size", "big"], 2),
        (["EMPTY"], 3),
        (["DISK", "--restore"], 2),
        (["DISK", "--register"], 2),
        (["DISK", "--network", "a", "--network", "b"], 2),
        (["TEXT"], 2),
        ([], 2),
    ],
)
def test_wrong_words_are_told_before_anything_is_looked_at(
    hv: Command, tmp_path: Path, words: list[str], code: int
) -> None:
    for name in ("bundle", "empty"):
        (tmp_path / name).mkdir()
    write(tmp_path / "bundle")
    places = {name.upper(): str(tmp_path / name) for name in ("bundle", "empty", "disk", "text")}
    bundles.bootable(tmp_path / "disk", noise_bytes=0)
    (tmp_path / "text").write_text("no disk")
    done = hv("vm", "import", *(places.get(word, word) for word in words))
    assert done.code == code, done.err
    assert done.err


def test_a_vm_is_made_paravirtual_once(hv: Command, emulated: str) -> None:
    shown = hv("vm", "paravirtual", "old", "--now", "--dry-run", "-o", "json", connect=emulated)
    (plan,) = shown.json
    assert (shown.code, [step["verb"] for step in plan["steps"]]) == (0, ["paravirtual.switch"])
    done = hv("vm", "paravirtual", "old", "--now", "-o", "json", connect=emulated)
    assert (done.code, done.json[0]["result"]) == (0, "done")
