"""What an image file is, by its content: a disk format, an archive, or an installation medium. Reads only, a few KiB.

Names say nothing here: a download called disk.img may be anything. Formats that QEMU would have to guess are not
guessed: what has no mark of its own is UNKNOWN, and only a person may say that it is raw.
"""

from __future__ import annotations

import os
from enum import StrEnum
from pathlib import Path

from host.errors import Denied, NotFound, UsageError


class ImageKind(StrEnum):
    """The value of a disk format is what people call it; `qemu_format` is QEMU's name."""

    QCOW2 = "qcow2"
    RAW = "raw"
    VMDK = "vmdk"
    VHD = "vhd"
    VHDX = "vhdx"
    VDI = "vdi"
    OVA = "ova"
    ISO = "iso"
    XZ = "xz"
    GZIP = "gz"
    ZSTD = "zst"
    UNKNOWN = "unknown"

    @property
    def is_disk(self) -> bool:
        """True for what qemu-img can convert."""
        return self in _QEMU_FORMATS

    @property
    def is_compressed(self) -> bool:
        """True for one compressed file, whatever is in it."""
        return self in {ImageKind.XZ, ImageKind.GZIP, ImageKind.ZSTD}

    @property
    def qemu_format(self) -> str:
        """QEMU's name of a disk format. Raises KeyError for anything else."""
        return _QEMU_FORMATS[self]


_QEMU_FORMATS = {
    ImageKind.QCOW2: "qcow2",
    ImageKind.RAW: "raw",
    ImageKind.VMDK: "vmdk",
    ImageKind.VHD: "vpc",
    ImageKind.VHDX: "vhdx",
    ImageKind.VDI: "vdi",
}

VMDK_DESCRIPTOR = b"# Disk DescriptorFile"
_HEAD_BYTES = 68 * 1024
_VHD_FOOTER_BYTES = 512
_EXT_MAGIC_AT = 1080  # the superblock's s_magic, 0xEF53, little endian
# (offset, mark, kind), the most telling first. Sources: QEMU's block drivers and their specifications (qcow2.txt,
# VMware's "Virtual Disk Format 5.0", Microsoft's VHD and MS-VHDX, VirtualBox's VDI header), RFC 1952, RFC 8878, the
# .xz format, POSIX ustar, ECMA-119, the UEFI specification's GPT.
_MARKS: tuple[tuple[int, bytes, ImageKind], ...] = (
    (0, b"QFI\xfb", ImageKind.QCOW2),
    (0, b"KDMV", ImageKind.VMDK),
    (0, b"COWD", ImageKind.VMDK),
    (0, VMDK_DESCRIPTOR, ImageKind.VMDK),
    (0, b"vhdxfile", ImageKind.VHDX),
    (0, b"conectix", ImageKind.VHD),
    (64, b"\x7f\x10\xda\xbe", ImageKind.VDI),
    (0, b"\xfd7zXZ\x00", ImageKind.XZ),
    (0, b"\x1f\x8b\x08", ImageKind.GZIP),
    (0, b"\x28\xb5\x2f\xfd", ImageKind.ZSTD),
    (257, b"ustar", ImageKind.OVA),
    (32769, b"CD001", ImageKind.ISO),
    (512, b"EFI PART", ImageKind.RAW),
    (4096, b"EFI PART", ImageKind.RAW),
    (510, b"\x55\xaa", ImageKind.RAW),
    (_EXT_MAGIC_AT, b"\x53\xef", ImageKind.RAW),
    (0, b"XFSB", ImageKind.RAW),
    (65600, b"_BHRfS_M", ImageKind.RAW),  # btrfs
    (536, b"LVM2 001", ImageKind.RAW),
)


def recognise(path: Path | str) -> ImageKind:
    """The kind of the file at `path`. A hybrid ISO, which is also a disk, is an ISO. Raises NotFound, Denied, and
    UsageError for what is not a file and not a block device."""
    return kind_of(*_ends(Path(path)))


def kind_of(head: bytes, tail: bytes = b"") -> ImageKind:
    """The kind by a file's first 68 KiB and its last 512 bytes, as a volume's stream gives them too."""
    for offset, mark, kind in _MARKS:
        if head[offset : offset + len(mark)] == mark:
            # A VHD of fixed size is a raw disk with a footer.
            return ImageKind.VHD if kind is ImageKind.RAW and _is_vhd_footer(tail) else kind
    return ImageKind.VHD if _is_vhd_footer(tail) else ImageKind.UNKNOWN


def _is_vhd_footer(tail: bytes) -> bool:
    return tail[:8] == b"conectix"


def _ends(path: Path) -> tuple[bytes, bytes]:
    import stat

    try:
        mode = path.stat().st_mode
        if not stat.S_ISREG(mode) and not stat.S_ISBLK(mode):
            raise UsageError("not a file and not a block device", about=str(path), remedy="Give a disk image")
        with path.open("rb") as file:
            head = file.read(_HEAD_BYTES)
            size = file.seek(0, os.SEEK_END)
            file.seek(max(size - _VHD_FOOTER_BYTES, 0))
            return head, file.read(_VHD_FOOTER_BYTES)
    except FileNotFoundError as error:
        raise NotFound("no such file", about=str(path)) from error
    except OSError as error:
        raise Denied(f"cannot read the file: {error.strerror}", about=str(path)) from error
