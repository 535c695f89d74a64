"""Bytes into and out of volumes of a real libvirtd: the same bytes, holes as holes, memory that does not grow."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Iterator
from pathlib import Path

import libvirt
import pytest

from host import volumes
from host.connection import Host, open_host
from host.errors import Cancelled, HvtuiError, NotFound, UsageError
from host.units import KIB, MIB
from tests.support import libraries
from tests.support.private_libvirtd import PrivateLibvirtd


@pytest.fixture(scope="module")
def daemon() -> Iterator[PrivateLibvirtd]:
    with PrivateLibvirtd() as running:
        yield running


@pytest.fixture
def host(daemon: PrivateLibvirtd) -> Iterator[Host]:
    opened = open_host(daemon.uri, name="volumes")
    yield opened
    opened.close()


@pytest.fixture
def pool(daemon: PrivateLibvirtd, host: Host) -> Iterator[libvirt.virStoragePool]:
    with libraries.pool(host, daemon.images) as made:
        yield made


@pytest.fixture
def stored(daemon: PrivateLibvirtd) -> Path:
    """Where the volume x is, as a file."""
    return daemon.images / "x"


def write(path: Path, *parts: tuple[int, bytes], size_bytes: int) -> Path:
    """A file with data at some offsets and holes between."""
    with path.open("wb") as file:
        for offset, data in parts:
            file.seek(offset)
            file.write(data)
        file.truncate(size_bytes)
    return path


def digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


SHAPES = {
    "empty": ((), 0),
    "one byte": (((0, b"x"),), 1),
    "data": (((0, os.urandom(3 * MIB + 5)),), 3 * MIB + 5),
    "a hole": ((), 5 * MIB),
    "a hole first": (((4 * MIB, b"end"),), 4 * MIB + 3),
    "a hole last": (((0, b"start" * KIB),), 9 * MIB),
    "holes between": (((MIB, b"a" * MIB), (6 * MIB, b"b" * 7)), 8 * MIB),
}
SHAPED = pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES.keys())


@pytest.mark.usefixtures("pool")
@SHAPED
def test_a_file_is_the_same_there_and_back(host: Host, tmp_path: Path, stored: Path, shape) -> None:
    parts, size_bytes = shape
    path = write(tmp_path / "file", *parts, size_bytes=size_bytes)
    up = volumes.upload(host, "library", "x", path)
    assert up == volumes.Stored(size_bytes, digest(path))
    assert digest(stored) == up.sha256
    assert volumes.download_file(host, "library", "x", tmp_path / "back") == up
    assert digest(tmp_path / "back") == up.sha256


@pytest.mark.usefixtures("pool")
@SHAPED
def test_it_is_the_same_in_the_shortest_bouts_and_sections(
    host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shape
) -> None:
    monkeypatch.setattr(volumes, "BOUT_S", -1.0)
    monkeypatch.setattr(volumes, "SECTION_BYTES", MIB)
    parts, size_bytes = shape
    path = write(tmp_path / "file", *parts, size_bytes=size_bytes)
    up = volumes.upload(host, "library", "x", path)
    assert up == volumes.Stored(size_bytes, digest(path))
    got: list[bytes] = []
    assert volumes.download(host, "library", "x", got.append) == up
    assert b"".join(got) == path.read_bytes()


@pytest.mark.usefixtures("pool")
def test_holes_take_no_room_on_either_side(host: Host, tmp_path: Path, stored: Path) -> None:
    path = write(tmp_path / "file", (0, b"a" * MIB), size_bytes=100 * MIB)
    volumes.upload(host, "library", "x", path)
    assert stored.stat().st_blocks * 512 < 8 * MIB
    volumes.download_file(host, "library", "x", tmp_path / "back")
    assert (tmp_path / "back").stat().st_blocks * 512 < 8 * MIB
    assert (tmp_path / "back").stat().st_size == 100 * MIB


@pytest.mark.usefixtures("pool")
def test_a_reader_that_is_slow_does_not_fill_the_memory(host: Host, tmp_path: Path) -> None:
    """libvirt's client keeps what comes faster than it is taken: 200 MB here, were it asked for all at once."""
    path = write(tmp_path / "file", (0, os.urandom(MIB) * 200), size_bytes=200 * MIB)
    volumes.upload(host, "library", "x", path)
    before_bytes, most_bytes = resident_bytes(), 0

    def slow(_data: bytes) -> None:
        nonlocal most_bytes
        time.sleep(0.002)
        most_bytes = max(most_bytes, resident_bytes())

    volumes.download(host, "library", "x", slow)
    assert most_bytes - before_bytes < 3 * volumes.SECTION_BYTES


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.usefixtures("pool")
def test_what_is_cancelled_ends_at_once_and_can_be_done_again(host: Host, tmp_path: Path) -> None:
    path = write(tmp_path / "file", (0, os.urandom(4 * MIB)), size_bytes=4 * MIB)
    asked: list[None] = []

    def cancelled() -> bool:
        asked.append(None)
        return len(asked) > 3

    with pytest.raises(Cancelled):
        volumes.upload(host, "library", "x", path, is_cancelled=cancelled)
    up = volumes.upload(host, "library", "x", path)
    asked.clear()
    with pytest.raises(Cancelled):
        volumes.download(host, "library", "x", lambda _data: None, is_cancelled=cancelled)
    assert volumes.download(host, "library", "x", lambda _data: None) == up


@pytest.mark.usefixtures("pool")
def test_progress_rises_to_the_end(host: Host, tmp_path: Path) -> None:
    path = write(tmp_path / "file", (0, os.urandom(2 * MIB)), size_bytes=2 * MIB)
    told: list[float] = []
    volumes.upload(host, "library", "x", path, progress=lambda fraction, _note: told.append(fraction or 0.0))
    assert told == sorted(told)
    assert told[-1] == 1.0
    assert len(told) == 8
    told.clear()
    volumes.download(
        *(host, "library", "x", lambda _data: None),
        size_bytes=2 * MIB,
        progress=lambda fraction, _note: told.append(fraction or 0.0),
    )
    assert told == sorted(told)
    assert told[-1] == 1.0


@pytest.mark.usefixtures("pool")
def test_a_new_upload_replaces_a_longer_old_one(host: Host, tmp_path: Path, stored: Path) -> None:
    volumes.upload(host, "library", "x", write(tmp_path / "long", (0, b"a" * MIB), size_bytes=MIB))
    volumes.upload(host, "library", "x", write(tmp_path / "short", (0, b"b"), size_bytes=1))
    assert stored.read_bytes() == b"b"


@pytest.mark.usefixtures("pool")
def test_an_image_is_for_its_owner_only_unless_said_otherwise(host: Host, tmp_path: Path, stored: Path) -> None:
    path = write(tmp_path / "file", (0, b"secret"), size_bytes=6)
    volumes.upload(host, "library", "x", path)
    assert stored.stat().st_mode & 0o777 == 0o600
    volumes.upload(host, "library", "x", path, mode=volumes.SHARED_MODE)
    assert stored.stat().st_mode & 0o777 == 0o644


@pytest.mark.usefixtures("pool")
def test_what_is_not_there_is_not_found(host: Host, tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        volumes.upload(host, "library", "x", tmp_path / "nothing")
    with pytest.raises(NotFound):
        volumes.download(host, "library", "x", lambda _data: None)
    with pytest.raises(NotFound):
        volumes.upload(host, "elsewhere", "x", write(tmp_path / "file", size_bytes=1))


@pytest.mark.usefixtures("pool")
def test_a_file_that_becomes_shorter_on_the_way_is_told(host: Host, tmp_path: Path) -> None:
    path = write(tmp_path / "file", (0, os.urandom(2 * MIB)), size_bytes=2 * MIB)
    with pytest.raises(HvtuiError, match="while it was uploaded"):
        volumes.upload(host, "library", "x", path, progress=lambda _fraction, _note: os.truncate(path, MIB))


def test_a_full_pool_fails_with_the_systems_words(daemon: PrivateLibvirtd, host: Host, tmp_path: Path) -> None:
    import subprocess

    small = daemon.directory / "small"
    small.mkdir(exist_ok=True)
    enter = ("nsenter", "--mount", f"--target={daemon.libvirtd_pids()[0]}", "--")
    subprocess.run([*enter, "mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(small)], check=True)
    path = write(tmp_path / "file", (0, os.urandom(4 * MIB)), size_bytes=4 * MIB)
    try:
        with libraries.pool(host, small, "small"), pytest.raises(HvtuiError, match="No space left"):
            volumes.upload(host, "small", "x", path)
    finally:
        subprocess.run([*enter, "umount", str(small)], check=True)


def test_text_is_read_and_replaced(host: Host, pool: libvirt.virStoragePool) -> None:
    with host.calls("test") as connection:
        for text in ("", "ü\n", "x" * (2 * MIB), "short"):
            volumes.write_text(connection, "library", "x", text)
            assert volumes.read_text(connection, "library", "x", limit_bytes=4 * MIB) == text


def test_text_that_is_too_long_or_none_is_refused(host: Host, pool: libvirt.virStoragePool, stored: Path) -> None:
    stored.write_bytes(b"x" * 10 * MIB)
    pool.refresh(0)
    with host.calls("test") as connection:
        with pytest.raises(UsageError, match="longer than"):
            volumes.read_text(connection, "library", "x", limit_bytes=KIB)
        stored.write_bytes(b"\xff\xfe")
        with pytest.raises(UsageError, match="UTF-8"):
            volumes.read_text(connection, "library", "x", limit_bytes=KIB)


def test_a_volume_that_is_gone_is_deleted_already(host: Host, pool: libvirt.virStoragePool) -> None:
    with host.calls("test") as connection:
        volumes.write_text(connection, "library", "x", "text")
        here = connection.storagePoolLookupByName("library")
        volume = volumes.find_volume(here, "x")
        volumes.delete(volume)
        volumes.delete(volume)
        assert volumes.find_volume(here, "x") is None
