"""The file that says which hosts are drained and where their VMs went."""

from __future__ import annotations

import json
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
    assert maintenance.drained_keys(tmp_path) == {URI}
    maintenance.end(URI, state=tmp_path)
    assert maintenance.drained_keys(tmp_path) == frozenset()
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


OTHER_URI = "qemu+tls://192.0.2.11/system"
SELF = "44693b54-d9ce-402d-8164-6c7d67e5adb2@lab1"


def test_a_host_is_the_same_one_under_every_uri_once_it_has_said_who_it_is(tmp_path: Path) -> None:
    maintenance.begin(URI, "lab1", identity=SELF, state=tmp_path)
    maintenance.put_guest(OTHER_URI, guest(), identity=SELF, state=tmp_path)
    known = maintenance.of_host(OTHER_URI, tmp_path, identity=SELF)
    assert known == maintenance.of_host(URI, tmp_path)  # which has not been asked, and is known by its URI
    assert (known and known.guests, maintenance.drained_keys(tmp_path)) == ((guest(),), {URI, SELF})
    assert maintenance.of_host(OTHER_URI, tmp_path, identity="another@lab2") is None
    maintenance.end(OTHER_URI, identity=SELF, state=tmp_path)
    maintenance.drop_guest(OTHER_URI, "uuid-1", identity=SELF, state=tmp_path)
    assert maintenance.read(tmp_path) == ()


def test_notes_without_identities_are_read_and_become_one(tmp_path: Path) -> None:
    old = {"name": "lab1", "since": "2026-01-02T03:04:05+00:00", "job_id": 1, "is_drained": True}
    gone = {"name": "vm", "fate": "moved", "was": "running", "uri": "qemu+ssh://lab2/system", "host": "lab2"}
    hosts = [
        {**old, "uri": uri, "guests": [{**gone, "uuid": f"uuid-{number}", "autostart": False}]}
        for number, uri in enumerate((URI, OTHER_URI))
    ]
    (tmp_path / maintenance.FILE).write_text(json.dumps({"version": 1, "hosts": hosts}), encoding="utf-8")
    assert maintenance.drained_keys(tmp_path) == {URI, OTHER_URI}
    maintenance.begin(URI, "lab1", identity=SELF, state=tmp_path)
    maintenance.begin(OTHER_URI, "lab1", identity=SELF, state=tmp_path)
    (known,) = maintenance.read(tmp_path)
    assert (known.identity, {each.uuid for each in known.guests}) == (SELF, {"uuid-0", "uuid-1"})
