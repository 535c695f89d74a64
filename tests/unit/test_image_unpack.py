"""Unpacking downloads that may be damaged or made to hurt."""

from __future__ import annotations

import gzip
import hashlib
import io
import lzma
import os
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from host.errors import Cancelled, UsageError
from host.image_unpack import Appliance, unpack, unpack_appliance

MIB = 1024**2
CONTENT = os.urandom(300_000) + bytes(2 * MIB) + os.urandom(100_000)


def zstd(data: bytes) -> bytes:
    return subprocess.run(["zstd", "-q", "-c"], input=data, capture_output=True, check=True).stdout


PACKERS = pytest.mark.parametrize("pack", [gzip.compress, lzma.compress, zstd], ids=["gz", "xz", "zst"])


@PACKERS
def test_a_compressed_file_comes_out_as_it_went_in_with_holes_for_zeros(
    tmp_path: Path, pack: Callable[[bytes], bytes]
) -> None:
    packed, target = tmp_path / "disk.xyz", tmp_path / "disk"
    packed.write_bytes(pack(CONTENT))
    told: list[float | None] = []
    size = unpack(packed, target, limit_bytes=10 * MIB, progress=lambda fraction, _note: told.append(fraction))
    assert target.read_bytes() == CONTENT
    assert size == len(CONTENT)
    assert target.stat().st_blocks * 512 < MIB
    assert told[-1] == 1.0


@PACKERS
def test_several_streams_in_a_row_are_one_file(tmp_path: Path, pack: Callable[[bytes], bytes]) -> None:
    packed, target = tmp_path / "disk.xyz", tmp_path / "disk"
    packed.write_bytes(pack(CONTENT) + pack(b"the end"))
    unpack(packed, target, limit_bytes=10 * MIB)
    assert target.read_bytes() == CONTENT + b"the end"


@PACKERS
@pytest.mark.parametrize("part", [0.2, 0.7, 0.99])
def test_a_truncated_download_is_damaged(tmp_path: Path, pack: Callable[[bytes], bytes], part: float) -> None:
    packed = tmp_path / "disk.xyz"
    data = pack(CONTENT)
    packed.write_bytes(data[: int(len(data) * part)])
    with pytest.raises(UsageError, match="damaged"):
        unpack(packed, tmp_path / "disk", limit_bytes=10 * MIB)


@PACKERS
def test_a_flipped_bit_is_found_by_the_formats_own_checksum(tmp_path: Path, pack: Callable[[bytes], bytes]) -> None:
    packed = tmp_path / "disk.xyz"
    data = bytearray(pack(CONTENT))
    data[len(data) // 2] ^= 4
    packed.write_bytes(data)
    with pytest.raises(UsageError, match="damaged"):
        unpack(packed, tmp_path / "disk", limit_bytes=10 * MIB)


@PACKERS
def test_a_bomb_ends_at_the_limit_and_takes_no_room(tmp_path: Path, pack: Callable[[bytes], bytes]) -> None:
    packed, target = tmp_path / "bomb", tmp_path / "disk"
    packed.write_bytes(pack(bytes(64 * MIB)))
    with pytest.raises(UsageError, match="larger than 16M"):
        unpack(packed, target, limit_bytes=16 * MIB)
    assert target.stat().st_blocks == 0


def test_unpacking_can_be_cancelled(tmp_path: Path) -> None:
    packed = tmp_path / "disk.gz"
    packed.write_bytes(gzip.compress(CONTENT))
    with pytest.raises(Cancelled):
        unpack(packed, tmp_path / "disk", limit_bytes=10 * MIB, is_cancelled=lambda: True)


def test_a_link_in_the_targets_place_is_not_followed(tmp_path: Path) -> None:
    packed, target, victim = tmp_path / "disk.gz", tmp_path / "disk", tmp_path / "victim"
    packed.write_bytes(gzip.compress(b"evil"))
    victim.write_text("precious")
    target.symlink_to(victim)
    with pytest.raises(Exception, match="cannot unpack"):
        unpack(packed, target, limit_bytes=MIB)
    assert victim.read_text() == "precious"


# Appliances


def appliance(path: Path, *members: tuple[str, bytes] | tarfile.TarInfo) -> Path:
    with tarfile.open(path, "w:") as archive:
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                archive.addfile(member)
            else:
                entry = tarfile.TarInfo(member[0])
                entry.size = len(member[1])
                archive.addfile(entry, io.BytesIO(member[1]))
    return path


def take(path: Path, directory: Path) -> Appliance:
    directory.mkdir()
    return unpack_appliance(path, directory, limit_bytes=10 * MIB)


def test_an_appliance_gives_its_descriptor_and_its_disks(tmp_path: Path) -> None:
    sums = f"SHA256(web.vmdk)= {hashlib.sha256(b'disk').hexdigest()}\nSHA256(web.ovf)= {'0' * 64}".splitlines()[0]
    path = appliance(tmp_path / "web.ova", ("web.ovf", b"<x/>"), ("web.mf", sums.encode()), ("web.vmdk", b"disk"))
    found = take(path, tmp_path / "out")
    assert found.descriptor == "<x/>"
    assert {name: file.read_bytes() for name, file in found.files.items()} == {"web.vmdk": b"disk"}


def test_a_disk_that_does_not_match_the_manifest_is_refused(tmp_path: Path) -> None:
    sums = f"SHA1(web.vmdk)= {hashlib.sha1(b'disk').hexdigest()}".encode()  # noqa: S324 - what old OVAs have
    path = appliance(tmp_path / "web.ova", ("web.ovf", b"<x/>"), ("web.mf", sums), ("web.vmdk", b"dish"))
    with pytest.raises(UsageError, match=r"does not match the manifest"):
        take(path, tmp_path / "out")


@pytest.mark.parametrize(
    "name", ["../evil", "/etc/passwd", "a/b", "..", "x\x1b[31m", "a\\b", "a" * 250], ids=str.__repr__
)
def test_a_name_that_leads_elsewhere_is_refused_and_nothing_is_written(tmp_path: Path, name: str) -> None:
    path = appliance(tmp_path / "web.ova", (name, b"evil"), ("web.ovf", b"<x/>"))
    with pytest.raises(UsageError, match="not unpacked"):
        take(path, tmp_path / "out")
    assert not list((tmp_path / "out").iterdir())
    assert not (tmp_path / "evil").exists()


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.DIRTYPE])
def test_links_devices_and_directories_are_refused(tmp_path: Path, kind: bytes) -> None:
    entry = tarfile.TarInfo("web.vmdk")
    entry.type, entry.linkname = kind, "/etc/shadow"
    with pytest.raises(UsageError, match="no plain file"):
        take(appliance(tmp_path / "web.ova", entry), tmp_path / "out")


def test_two_members_of_one_name_too_many_and_too_large_ones_are_refused(tmp_path: Path) -> None:
    twice = appliance(tmp_path / "a", ("web.ovf", b"<x/>"), ("web.ovf", b"<y/>"))
    with pytest.raises(UsageError, match="there twice"):
        take(twice, tmp_path / "1")
    many = appliance(tmp_path / "b", *((f"f{number}", b"") for number in range(80)))
    with pytest.raises(UsageError, match="more than 64 files"):
        take(many, tmp_path / "2")
    large = appliance(tmp_path / "c", ("a.vmdk", bytes(6 * MIB)), ("b.vmdk", bytes(6 * MIB)))
    with pytest.raises(UsageError, match="larger than"):
        take(large, tmp_path / "3")


def test_a_truncated_appliance_is_damaged(tmp_path: Path) -> None:
    path = appliance(tmp_path / "web.ova", ("web.ovf", b"<x/>"), ("web.vmdk", os.urandom(MIB)))
    path.write_bytes(path.read_bytes()[: MIB // 2])
    with pytest.raises(UsageError, match="damaged"):
        take(path, tmp_path / "out")


def test_an_appliance_without_a_descriptor_is_none(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="one descriptor"):
        take(appliance(tmp_path / "web.ova", ("web.vmdk", b"x")), tmp_path / "out")
