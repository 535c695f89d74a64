"""The catalogue of operating systems, on a small database in osinfo-db's own layout."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import pytest

from host.errors import NotFound, Unsupported
from vm import os_catalogue
from vm.os_catalogue import SupportState, guess, look_up

SYSTEM = """<?xml version="1.0"?>
<libosinfo version="0.0.1">
  <os id="{os_id}">
    {short_ids}
    <name>{name}</name>
    <name xml:lang="de">Anders</name>
    <version>{version}</version>
    {rest}
  </os>
</libosinfo>
"""
VIRTIO = """<devices>
  <device id="http://pcisig.com/pci/1af4/1041"/><device id="http://pcisig.com/pci/1af4/1042"/>
  <device id="http://pcisig.com/pci/1af4/1043"/><device id="http://pcisig.com/pci/1af4/1044"/>
  <device id="http://pcisig.com/pci/1af4/1045"/>
</devices>"""
RESOURCES = """<resources arch="all">
  <minimum><n-cpus>1</n-cpus><ram>1073741824</ram><storage>10737418240</storage></minimum>
  <recommended><ram>2147483648</ram><storage>21474836480</storage></recommended>
</resources>"""


@pytest.fixture(autouse=True)
def database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Debian 9 to 11, testing, two Windows servers; the real machine's database is not looked at."""
    root = tmp_path / "osinfo"
    add(
        root,
        "debian.org/debian-9",
        "http://debian.org/debian/9",
        "Debian 9",
        f"{VIRTIO}<eol-date>2022-06-30</eol-date>",
    )
    derived = '<derives-from id="http://debian.org/debian/{}"/>'
    add(root, "debian.org/debian-10", "http://debian.org/debian/10", "Debian 10", derived.format(9) + RESOURCES)
    dates = "<release-date>2021-08-14</release-date><eol-date>2026-08-31</eol-date>"
    efi = '<firmware arch="x86_64" type="efi"/>'
    eleven = derived.format(10) + dates + efi
    add(root, "debian.org/debian-11", "http://debian.org/debian/11", "Debian 11", eleven, "debian11", "debianbullseye")
    add(root, "debian.org/debian-testing", "http://debian.org/debian/testing", "Debian testing", derived.format(11))
    gone = '<devices><device id="http://pcisig.com/pci/1af4/1042" supported="false"/></devices>'
    rolling = f"<release-status>rolling</release-status>{derived.format(11)}{gone}"
    add(root, "example.org/rolling-now", "http://example.org/rolling/now", "Rolling", rolling)
    add(root, "microsoft.com/win-11", "http://microsoft.com/win/11", "Windows 11", "", "win11")
    add(root, "microsoft.com/win-2k19", "http://microsoft.com/win/2k19", "Windows Server 2019", "", "win2k19")
    monkeypatch.setenv("OSINFO_SYSTEM_DIR", str(root))
    return root


def add(root: Path, path: str, os_id: str, name: str, rest: str, *short_ids: str) -> None:
    file = root / "os" / f"{path}.xml"
    file.parent.mkdir(parents=True, exist_ok=True)
    given = short_ids or (file.stem.replace("-", ""),)
    words = "".join(f"<short-id>{each}</short-id>" for each in given)
    version = os_id.rpartition("/")[2]
    file.write_text(SYSTEM.format(os_id=os_id, short_ids=words, name=name, version=version, rest=rest))


def test_a_system_has_the_drivers_of_those_that_it_derives_from():
    found = look_up("http://debian.org/debian/11", today=date(2024, 1, 1))
    assert (found.id, found.short_id, found.name, found.version) == (
        "http://debian.org/debian/11",
        "debian11",
        "Debian 11",
        "11",
    )
    assert found.virtio_disk
    assert found.virtio_network
    assert found.balloon
    assert found.rng
    assert found.agent_channel
    assert not found.virtio_scsi
    assert found.firmware == ("bios", "uefi")
    assert found.minimum_memory_bytes == 1024**3
    assert found.recommended_disk_bytes == 20 * 1024**3
    assert found.is_exact
    assert found.note == ""


def test_a_driver_that_a_later_system_lost_is_not_inherited():
    found = look_up("http://example.org/rolling/now")
    assert not found.virtio_disk
    assert found.virtio_network
    assert found.state is SupportState.ROLLING


@pytest.mark.parametrize(
    ("today", "state"),
    [
        (date(2021, 1, 1), SupportState.COMING),
        (date(2026, 8, 31), SupportState.SUPPORTED),
        (date(2026, 9, 1), SupportState.ENDED),
    ],
)
def test_the_support_state_is_that_of_the_day(today: date, state: SupportState):
    assert look_up("debian11", today=today).state is state


def test_without_dates_nobody_knows_the_support_state():
    assert look_up("debian10").state is SupportState.UNKNOWN


def test_short_ids_are_found_by_file_names_and_others_by_one_pass():
    assert look_up("debian11").id == "http://debian.org/debian/11"
    assert look_up("debianbullseye").id == "http://debian.org/debian/11"
    assert look_up("win2k19").name == "Windows Server 2019"


@pytest.mark.parametrize(
    ("asked", "shown"),
    [
        ("http://debian.org/debian/12", "debian11"),
        ("debian12", "debian11"),
        ("debian9.5", "debian9"),
        ("debian7", "debian9"),
        ("http://microsoft.com/win/2k25", "win2k19"),
        ("win12", "win11"),
    ],
)
def test_an_unknown_release_is_told_by_the_nearest_one_and_says_so(asked: str, shown: str):
    found = look_up(asked)
    assert found.short_id == shown
    assert not found.is_exact
    assert asked in found.note
    assert found.name in found.note
    assert (found.release_date, found.end_date, found.state) == (None, None, SupportState.UNKNOWN)


@pytest.mark.parametrize("asked", ["debain11", "http://debian.org/../../etc/passwd", "http://../x/1", "", "\x1b[31m"])
def test_what_no_release_is_known_of_is_an_error_with_a_remedy(asked: str):
    with pytest.raises(NotFound) as caught:
        look_up(asked)
    assert caught.value.remedy
    assert "\x1b" not in str(caught.value)


def test_the_nearest_short_id_is_proposed():
    with pytest.raises(NotFound, match="debian11"):
        look_up("debain11")


def test_without_a_database_the_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("OSINFO_SYSTEM_DIR", str(tmp_path / "nowhere"))
    with pytest.raises(Unsupported, match="osinfo-db"):
        look_up("debian11")


def test_looking_up_an_id_reads_only_that_system_and_its_parents(database: Path, monkeypatch: pytest.MonkeyPatch):
    read: list[str] = []
    whole = Path.read_text
    monkeypatch.setattr(Path, "read_text", lambda path, **words: (read.append(path.stem), whole(path, **words))[1])
    look_up("http://debian.org/debian/10")
    assert read == ["debian-10", "debian-9"]


def test_systems_that_derive_from_each_other_in_a_circle_end(database: Path):
    circle = '<derives-from id="http://example.org/circle/{}"/>'
    add(database, "example.org/circle-1", "http://example.org/circle/1", "One", circle.format(2))
    add(database, "example.org/circle-2", "http://example.org/circle/2", "Two", circle.format(1))
    assert look_up("http://example.org/circle/1").name == "One"


@pytest.mark.parametrize(
    ("text", "os_id"),
    [
        ('ID=debian\nVERSION_ID="12"\n', "http://debian.org/debian/12"),
        ("ID=debian\nVERSION_CODENAME=trixie\n", "http://debian.org/debian/testing"),
        ('ID=ubuntu\nVERSION_ID="24.04"\n', "http://ubuntu.com/ubuntu/24.04"),
        ("ID=alpine\nVERSION_ID=3.20.1\n", "http://alpinelinux.org/alpinelinux/3.20"),
        ('NAME="CentOS Stream"\nID="centos"\nVERSION_ID="9"\n', "http://centos.org/centos-stream/9"),
        ("ID=arch\n", "http://archlinux.org/archlinux/rolling"),
        ("ID=debian\nVERSION_ID=../../x\n", ""),
        ("ID=tiny\n", ""),
        ("", ""),
    ],
)
def test_a_guests_os_release_gives_its_id(text: str, os_id: str):
    assert guess(text) == os_id


def test_the_real_database_names_each_file_after_its_system(monkeypatch: pytest.MonkeyPatch):
    """What makes the look-up cheap; where osinfo-db is installed, it holds for what is asked for most."""
    monkeypatch.delenv("OSINFO_SYSTEM_DIR")
    if not (os_catalogue._DIRECTORY / "os").is_dir():
        with pytest.raises(Unsupported):
            look_up("debian11")
        return
    for short_id in ("debian11", "ubuntu22.04", "fedora37", "win10", "alpinelinux3.17"):
        assert look_up(short_id).short_id == short_id
