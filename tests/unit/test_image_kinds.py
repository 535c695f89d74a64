"""Images and archives by content, whatever they are called. Real qemu-img makes them."""

from __future__ import annotations

import gzip
import lzma
import subprocess
from pathlib import Path

import pytest

from host.errors import NotFound, UsageError
from host.image_kinds import ImageKind, kind_of, recognise


@pytest.mark.parametrize(
    ("format_name", "options", "kind"),
    [
        ("qcow2", (), ImageKind.QCOW2),
        ("vmdk", (), ImageKind.VMDK),
        ("vmdk", ("-o", "subformat=streamOptimized"), ImageKind.VMDK),
        ("vmdk", ("-o", "subformat=monolithicFlat"), ImageKind.VMDK),
        ("vpc", (), ImageKind.VHD),
        ("vpc", ("-o", "subformat=fixed"), ImageKind.VHD),
        ("vhdx", (), ImageKind.VHDX),
        ("vdi", (), ImageKind.VDI),
    ],
)
def test_a_disk_is_told_by_its_content_and_not_by_its_name(
    tmp_path: Path, format_name: str, options: tuple[str, ...], kind: ImageKind
) -> None:
    path = tmp_path / "disk.iso"
    subprocess.run(["qemu-img", "create", "-q", "-f", format_name, *options, "--", path, "8M"], check=True)
    assert recognise(path) is kind
    assert kind.is_disk
    assert kind.qemu_format == format_name


def test_compressed_files_are_told(tmp_path: Path) -> None:
    path = tmp_path / "disk.qcow2"
    path.write_bytes(gzip.compress(b"x"))
    assert recognise(path) is ImageKind.GZIP
    path.write_bytes(lzma.compress(b"x"))
    assert recognise(path) is ImageKind.XZ
    subprocess.run(["zstd", "-q", "-f", "-o", path, "-"], input=b"x", check=True)
    assert recognise(path) is ImageKind.ZSTD
    assert recognise(path).is_compressed


def test_a_partitioned_disk_is_raw_and_with_a_footer_it_is_a_vhd(tmp_path: Path) -> None:
    head = bytearray(1024)
    head[510:512] = b"\x55\xaa"
    assert kind_of(bytes(head)) is ImageKind.RAW
    assert kind_of(bytes(head), b"conectix" + bytes(504)) is ImageKind.VHD


def test_a_hybrid_installation_medium_is_an_iso() -> None:
    head = bytearray(40_000)
    head[510:512], head[32769:32774] = b"\x55\xaa", b"CD001"
    assert kind_of(bytes(head)) is ImageKind.ISO


def test_a_text_and_an_empty_file_are_nothing_known(tmp_path: Path) -> None:
    path = tmp_path / "disk.raw"
    for content in (b"", b"root:x:0:0"):
        path.write_bytes(content)
        assert recognise(path) is ImageKind.UNKNOWN


def test_what_cannot_be_read_as_a_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        recognise(tmp_path / "none")
    with pytest.raises(UsageError, match="not a file"):
        recognise(tmp_path)
