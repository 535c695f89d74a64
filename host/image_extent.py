"""How long an image file must be by what it says itself, where qemu-img does not check it: VDI and raw disks.

QEMU reads what lies behind the end of a file as zeros, so that a download that broke off would become a disk that
looks whole. Pure reading of a few KiB.
"""

from __future__ import annotations

import struct
from pathlib import Path

from host.image_kinds import ImageKind

_SECTOR_BYTES = 512
_MBR_TABLE_AT, _MBR_ENTRY_BYTES, _MBR_ENTRIES = 446, 16, 4
_PROTECTIVE = 0xEE  # the one entry of a GPT disk's MBR, which covers as much as 32 bits can say
_EXT_SUPERBLOCK_AT = 1024
_HEAD_BYTES = 8192


def least_bytes(path: Path, kind: ImageKind) -> int:
    """The least number of bytes that the file must have; 0 where its own format or nobody tells."""
    with path.open("rb") as file:
        head = file.read(_HEAD_BYTES)
    if kind is ImageKind.VDI:
        return _vdi(head)
    return max(_mbr(head), _gpt(head), _ext(head)) if kind is ImageKind.RAW else 0


def _vdi(head: bytes) -> int:
    """VirtualBox's VDI header, version 1.1: the offset of the data, the size of a block, the number of those stored."""
    if len(head) < 392:
        return 392
    (offset_data,) = struct.unpack_from("<I", head, 344)
    block_bytes, extra_bytes, _blocks, stored = struct.unpack_from("<IIII", head, 376)
    return int(offset_data + (block_bytes + extra_bytes) * stored)


def _mbr(head: bytes) -> int:
    if head[510:512] != b"\x55\xaa":
        return 0
    ends = [0]
    for index in range(_MBR_ENTRIES):
        entry = head[_MBR_TABLE_AT + index * _MBR_ENTRY_BYTES :][:_MBR_ENTRY_BYTES]
        boots, kind = entry[0], entry[4]
        if boots not in {0, 0x80}:
            return 0  # the boot sector of a file system, not a partition table
        if kind not in {0, _PROTECTIVE}:
            first, count = struct.unpack_from("<II", entry, 8)
            ends.append((first + count) * _SECTOR_BYTES)
    return max(ends)


def _gpt(head: bytes) -> int:
    """The end of the backup header, the last sector of the disk (UEFI 2.10, 5.3.2)."""
    for sector_bytes in (512, 4096):
        if head[sector_bytes : sector_bytes + 8] == b"EFI PART":
            (backup,) = struct.unpack_from("<Q", head, sector_bytes + 32)
            return int((backup + 1) * sector_bytes)
    return 0


def _ext(head: bytes) -> int:
    """ext2, ext3 and ext4: the number of blocks and their size (the kernel's struct ext4_super_block)."""
    superblock = head[_EXT_SUPERBLOCK_AT:]
    if superblock[56:58] != b"\x53\xef":
        return 0
    (blocks,), (shift,) = struct.unpack_from("<I", superblock, 4), struct.unpack_from("<I", superblock, 24)
    return int(blocks * (1024 << min(shift, 6)))
