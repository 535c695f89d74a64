"""The file that says which hosts are drained and where their VMs went."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from host import maintenance
from host.errors import HvtuiError
from host.maintenance import Guest

URI = "qemu+ssh://lab1/system"


def guest(number: int = 1, **rest: str) -> Guest:
    values = {"fate": "moved", "was": "running", "uri": "qemu+ssh://lab2/system", "host": "lab2"}
    return Guest(f"uuid-{number}", f"vm{number}", **(values | rest))  # type: ignore[arg-type]


def test_a_drained_host_is_known_until_all_its_vms_are_back(tmp_path: Path) -> None:
    assert maintenance.read(tmp_path) == ()
    maintenance.begin(URI, "lab1", job_id=7, state=tmp_path)
    maintenance.put_guest(URI, guest(), state=tmp_path)
    (known,) = maintenance.read(tmp_path)
    assert (known.name, known.job_id, known.is_drained, known.guests) == ("lab1", 7, True, (guest(),))
    assert maintenance.drained_uris(tmp_path) == {URI}
    maintenance.end(URI, state=tmp_path)
    assert maintenance.drained_uris(tmp_path) == frozenset()
    assert maintenance.of_host(URI, tmp_path) is not None
    maintenance.drop_guest(URI, "uuid-1", state=tmp_path)
    assert maintenance.of_host(URI, tmp_path) is None


def test_a_second_drain_keeps_the_first_ones_time_and_vms(tmp_path: Path) -> None:
    maintenance.begin(URI, "lab1", job_id=1, state=tmp_path)
    maintenance.put_guest(URI, guest(), state=tmp_path)
    before = maintenance.read(tmp_path)
    maintenance.begin(URI, "lab1", job_id=2, state=tmp_path)
    assert maintenance.read(tmp_path) == before
    maintenance.end(URI, state=tmp_path)
    maintenance.begin(URI, "lab1", job_id=3, state=tmp_path)
    assert maintenance.read(tmp_path)[0].guests == (guest(),)


def test_the_state_before_is_that_of_the_first_time(tmp_path: Path) -> None:
    maintenance.begin(URI, "lab1", state=tmp_path)
    maintenance.put_guest(URI, guest(), state=tmp_path)
    maintenance.put_guest(URI, guest(fate="saved", was="off", host="lab1"), state=tmp_path)
    assert maintenance.read(tmp_path)[0].guests == (guest(fate="saved", host="lab1"),)


def test_a_vm_of_a_host_that_is_not_drained_is_not_noted(tmp_path: Path) -> None:
    maintenance.put_guest(URI, guest(), state=tmp_path)
    maintenance.drop_guest(URI, "uuid-1", state=tmp_path)
    assert maintenance.read(tmp_path) == ()


def test_many_at_once_lose_nothing(tmp_path: Path) -> None:
    maintenance.begin(URI, "lab1", state=tmp_path)
    threads = [
        threading.Thread(target=maintenance.put_guest, args=(URI, guest(number)), kwargs={"state": tmp_path})
        for number in range(16)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {each.uuid for each in maintenance.read(tmp_path)[0].guests} == {f"uuid-{number}" for number in range(16)}
    assert [path.name for path in tmp_path.iterdir() if path.suffix == ".new"] == []


@pytest.mark.parametrize("text", ["{", "[]", '{"version": 9, "hosts": []}', '{"version": 1, "hosts": [{"uri": 1}]}'])
def test_a_damaged_file_is_told_and_left_alone(tmp_path: Path, text: str) -> None:
    path = tmp_path / maintenance.FILE
    path.write_text(text)
    with pytest.raises(HvtuiError, match="cannot be read"):
        maintenance.read(tmp_path)
    with pytest.raises(HvtuiError, match="cannot be read"):
        maintenance.begin(URI, "lab1", state=tmp_path)
    assert path.read_text() == text
