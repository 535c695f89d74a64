"""The seed image: what each kind of reader finds in it, and that the same files give the same bytes."""

from __future__ import annotations

import shutil
import subprocess
import time
from io import BytesIO

import pycdlib
import pytest

from vm import seed_image

FILES = {
    "user-data": "#cloud-config\n{}\n",
    "meta-data": '{"instance-id": "6ba7b810"}',
    "network-config": '{"version": 2, "note": "Straße"}',
}


def opened(image: bytes) -> pycdlib.PyCdlib:
    iso = pycdlib.PyCdlib()
    iso.open_fp(BytesIO(image))
    return iso


@pytest.mark.parametrize("kind", ["rr_path", "joliet_path"])
def test_every_kind_of_reader_finds_the_files_under_their_own_names(kind: str) -> None:
    iso = opened(seed_image.build(FILES))
    for name, text in FILES.items():
        found = BytesIO()
        iso.get_file_from_iso_fp(found, **{kind: f"/{name}"})
        assert found.getvalue().decode() == text


def test_the_volume_is_called_as_cloud_init_looks_for_it() -> None:
    image = seed_image.build(FILES)
    assert image[32768 + 1 : 32768 + 6] == b"CD001"
    assert image[32768 + 40 : 32768 + 72].rstrip() == b"cidata"


def test_the_same_files_give_the_same_bytes_on_another_day_in_another_zone(monkeypatch: pytest.MonkeyPatch) -> None:
    before = seed_image.build(FILES)
    now_s = time.time()
    monkeypatch.setattr(time, "time", lambda: now_s + 400 * 86400)
    monkeypatch.setenv("TZ", "Pacific/Chatham")
    time.tzset()
    try:
        assert seed_image.build(dict(reversed(FILES.items()))) == before
    finally:
        monkeypatch.undo()
        time.tzset()


def test_other_text_gives_another_image() -> None:
    assert seed_image.build(FILES) != seed_image.build({**FILES, "user-data": "#cloud-config\n{ }\n"})


def test_an_empty_file_and_one_of_many_blocks_are_kept() -> None:
    files = {"user-data": "x" * 500_000, "vendor-data": ""}
    iso = opened(seed_image.build(files))
    for name, text in files.items():
        found = BytesIO()
        iso.get_file_from_iso_fp(found, rr_path=f"/{name}")
        assert found.getvalue() == text.encode()


def test_blkid_knows_it(tmp_path) -> None:
    path = tmp_path / "seed.iso"
    path.write_bytes(seed_image.build(FILES))
    blkid = shutil.which("blkid", path="/usr/sbin:/sbin:/usr/bin")
    assert blkid
    told = subprocess.run([blkid, "-p", "-o", "export", "--", str(path)], capture_output=True, text=True, check=True)
    assert {"LABEL=cidata", "TYPE=iso9660"} <= set(told.stdout.splitlines())
