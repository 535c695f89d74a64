"""Images of every format become a qcow2 of ours; what is damaged or names other files does not. Real qemu-img."""

from __future__ import annotations

import os
import random
import struct
import subprocess
from pathlib import Path

import pytest

from host.errors import Cancelled, HvtuiError, UsageError
from host.image_convert import check_source, to_qcow2
from host.image_kinds import ImageKind, recognise

MIB = 1024**2
LIMIT_BYTES = 1024**3

FORMATS = pytest.mark.parametrize(
    ("format_name", "options"),
    [
        ("qcow2", ()),
        ("vmdk", ()),
        ("vmdk", ("-o", "subformat=streamOptimized")),
        ("vpc", ("-o", "force_size=on")),
        ("vpc", ("-o", "subformat=fixed,force_size=on")),
        ("vhdx", ()),
        ("vdi", ()),
        ("raw", ()),
    ],
    ids=["qcow2", "vmdk", "vmdk-stream", "vhd", "vhd-fixed", "vhdx", "vdi", "raw"],
)


@pytest.fixture(scope="module")
def disk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A raw disk of 16 MiB with a partition to its end and some data in it."""
    data = bytearray(16 * MIB)
    numbers = random.Random(1)  # noqa: S311 - test data
    for start in range(MIB, len(data), 2 * MIB):
        data[start : start + 300_000] = numbers.randbytes(300_000)
    struct.pack_into("<B3xB3xII", data, 446, 0x80, 0x83, 2048, 16 * 2048 - 2048)
    data[510:512] = b"\x55\xaa"
    path = tmp_path_factory.mktemp("disk") / "disk.raw"
    path.write_bytes(data)
    return path


def made(disk: Path, target: Path, format_name: str, options: tuple[str, ...]) -> Path:
    command = ["qemu-img", "convert", "-f", "raw", "-O", format_name, *options, "--", disk, target]
    subprocess.run(command, check=True)
    return target


@FORMATS
def test_every_format_becomes_a_qcow2_with_the_same_content(
    tmp_path: Path, disk: Path, format_name: str, options: tuple[str, ...]
) -> None:
    source, target = made(disk, tmp_path / "source", format_name, options), tmp_path / "target.qcow2"
    told: list[float | None] = []
    info = to_qcow2(
        source,
        target,
        recognise(source),
        limit_bytes=LIMIT_BYTES,
        progress=lambda fraction, _note: told.append(fraction),
    )
    assert (info.format, info.virtual_size_bytes, info.backing) == ("qcow2", 16 * MIB, ())
    assert subprocess.run(["qemu-img", "compare", "-f", "raw", "-F", "qcow2", "--", disk, target]).returncode == 0
    assert told
    assert told[-1] == 1.0


@FORMATS
@pytest.mark.parametrize("part", [0.3, 0.95])
def test_a_truncated_image_is_refused_before_anything_is_written(
    tmp_path: Path, disk: Path, format_name: str, options: tuple[str, ...], part: float
) -> None:
    source = made(disk, tmp_path / "source", format_name, options)
    kind = recognise(source)
    os.truncate(source, int(source.stat().st_size * part))
    with pytest.raises(HvtuiError, match=r"damaged|cannot read it|cannot convert it"):
        to_qcow2(source, tmp_path / "target.qcow2", kind, limit_bytes=LIMIT_BYTES)


def test_a_damaged_reference_in_a_qcow2_is_refused(tmp_path: Path, disk: Path) -> None:
    source = made(disk, tmp_path / "source", "qcow2", ())
    data = bytearray(source.read_bytes())
    (table,) = struct.unpack_from(">Q", data, 40)  # the L1 table's offset
    data[table + 2] ^= 0x10
    source.write_bytes(data)
    with pytest.raises(UsageError, match=r"damaged|cannot read"):
        check_source(source, ImageKind.QCOW2, limit_bytes=LIMIT_BYTES)


def test_an_image_on_a_backing_file_is_refused_and_the_file_is_not_copied(tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target.qcow2"
    command = ["qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", "/etc/shadow", "--", source]
    subprocess.run(command, check=True)
    with pytest.raises(UsageError, match="builds on another file, /etc/shadow"):
        to_qcow2(source, target, ImageKind.QCOW2, limit_bytes=LIMIT_BYTES)
    assert not target.exists()


def test_a_qcow2_that_is_called_raw_is_never_taken_as_raw(tmp_path: Path) -> None:
    source = tmp_path / "source.raw"
    command = ["qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", "/etc/shadow", "--", source]
    subprocess.run(command, check=True)
    assert recognise(source) is ImageKind.QCOW2
    with pytest.raises(UsageError, match="backing file"):
        to_qcow2(source, tmp_path / "target.qcow2", recognise(source), limit_bytes=LIMIT_BYTES)


def test_an_external_data_file_is_refused(tmp_path: Path) -> None:
    source = tmp_path / "source.qcow2"
    option = f"data_file={tmp_path / 'data'},data_file_raw=on"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", "-o", option, "--", source, "1M"], check=True)
    with pytest.raises(UsageError, match="keeps its data in another file"):
        check_source(source, ImageKind.QCOW2, limit_bytes=LIMIT_BYTES)


@pytest.mark.parametrize("name", ["/etc/shadow", "../shadow", "nbd:localhost:1", "missing.vmdk", "link.vmdk", ""])
def test_a_vmdk_descriptor_that_names_a_file_elsewhere_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "link.vmdk").symlink_to("/etc/shadow")
    source = tmp_path / "evil.vmdk"
    source.write_text(
        "# Disk DescriptorFile\nversion=1\nCID=fffffffe\nparentCID=ffffffff\n"
        f'createType="monolithicFlat"\nRW 1 FLAT "{name}" 0\n'
    )
    with pytest.raises(UsageError, match="takes its data from"):
        to_qcow2(source, tmp_path / "target.qcow2", recognise(source), limit_bytes=LIMIT_BYTES)


def test_a_vmdk_descriptor_with_its_data_beside_it_is_taken(tmp_path: Path, disk: Path) -> None:
    source = made(disk, tmp_path / "flat.vmdk", "vmdk", ("-o", "subformat=monolithicFlat"))
    info = to_qcow2(source, tmp_path / "target.qcow2", recognise(source), limit_bytes=LIMIT_BYTES)
    assert info.virtual_size_bytes == 16 * MIB
    os.truncate(tmp_path / "flat-flat.vmdk", MIB)
    with pytest.raises(UsageError, match="damaged"):
        check_source(source, ImageKind.VMDK, limit_bytes=LIMIT_BYTES)


def test_a_disk_that_is_absurdly_large_is_refused(tmp_path: Path) -> None:
    source = tmp_path / "source.qcow2"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", "--", source, "900T"], check=True)
    with pytest.raises(UsageError, match=r"larger than 1\.0G"):
        check_source(source, ImageKind.QCOW2, limit_bytes=LIMIT_BYTES)


def test_converting_can_be_cancelled_and_leaves_no_process(tmp_path: Path, disk: Path) -> None:
    source = made(disk, tmp_path / "source", "vdi", ())
    with pytest.raises(Cancelled):
        to_qcow2(source, tmp_path / "t.qcow2", ImageKind.VDI, limit_bytes=LIMIT_BYTES, is_cancelled=lambda: True)
    found = subprocess.run(["pgrep", "-f", str(tmp_path / "t.qcow2")], capture_output=True, text=True)
    assert not found.stdout
