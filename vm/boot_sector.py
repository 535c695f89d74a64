"""How a disk boots, by its partition table: UEFI, BIOS, or neither; and which product made a VHD. Reads a few KiB.

A GPT disk with an EFI system partition boots by UEFI, unless something on it is for a BIOS to boot: a BIOS boot
partition with code in the first sector (GRUB), a partition that is marked as bootable by a BIOS (syslinux), or an
active entry in the MBR. What a Windows puts into the first sector of a GPT disk boots nothing and does not count.
Sources: the UEFI specification 2.10, 5.3; Microsoft's VHD specification 1.0, "Hard Disk Footer Format".
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from uuid import UUID

from host import images
from host.errors import HvtuiError
from host.image_kinds import ImageKind
from host.text import printable
from host.units import MIB
from vm.create_request import Firmware

HEAD_BYTES = MIB
_ESP = UUID("c12a7328-f81f-11d2-ba4b-00a0c93ec93b")
_BIOS_BOOT = UUID("21686148-6449-6e6f-744e-656564454649")
_BIOS_BOOTABLE = 1 << 2  # the attribute "legacy BIOS bootable"
_MBR_CODE_BYTES = 440
_MBR_TABLE_AT, _MBR_ENTRY_BYTES, _MBR_ENTRIES = 446, 16, 4
_ACTIVE, _PROTECTIVE, _MBR_ESP = 0x80, 0xEE, 0xEF
_ENTRIES_AT, _MOST_ENTRIES = 72, 256
_TIMEOUT_S = 120.0


@dataclass(frozen=True, slots=True)
class BootLook:
    """What boots a disk, with the reason in words. `firmware` is BIOS or UEFI."""

    firmware: Firmware
    why: str


class Maker(StrEnum):
    """Who made a VHD, by its footer."""

    VIRTUAL_PC = "vpc"
    VIRTUAL_SERVER = "vs"
    HYPER_V = "win"
    OTHER = ""


def look(head: bytes) -> BootLook:
    """How the disk that begins with `head` boots."""
    if head[510:512] != b"\x55\xaa":
        return BootLook(Firmware.BIOS, "it has no partition table, so that it is taken for a disk that a BIOS boots")
    has_code = any(head[:_MBR_CODE_BYTES])
    entries = [_mbr_entry(head, number) for number in range(_MBR_ENTRIES)]
    is_active = any(status == _ACTIVE and kind not in {0, _PROTECTIVE} for status, kind in entries)
    if not any(kind == _PROTECTIVE for _, kind in entries):
        if any(kind == _MBR_ESP for _, kind in entries) and not (has_code and is_active):
            return BootLook(Firmware.UEFI, "it has an EFI system partition and nothing that a BIOS boots")
        return BootLook(Firmware.BIOS, "it has a partition table of the PC (MBR)")
    partitions = _gpt(head)
    if not any(kind == _ESP for kind, _ in partitions):
        return BootLook(Firmware.BIOS, "it has no EFI system partition")
    for_bios = is_active or any(attributes & _BIOS_BOOTABLE for _, attributes in partitions)
    if has_code and (for_bios or any(kind == _BIOS_BOOT for kind, _ in partitions)):
        return BootLook(Firmware.BIOS, "a BIOS can boot it, and so can UEFI")
    return BootLook(Firmware.UEFI, "it has an EFI system partition and nothing that a BIOS boots (generation 2)")


def _mbr_entry(head: bytes, number: int) -> tuple[int, int]:
    start = _MBR_TABLE_AT + number * _MBR_ENTRY_BYTES
    return head[start], head[start + 4]


def _gpt(head: bytes) -> list[tuple[UUID, int]]:
    """The types and attributes of a GPT's partitions."""
    sector_bytes = next((size for size in (512, 4096) if head[size : size + 8] == b"EFI PART"), 0)
    if not sector_bytes:
        return []
    first, count, size_bytes = struct.unpack_from("<QII", head, sector_bytes + _ENTRIES_AT)
    if not 128 <= size_bytes <= 4096:
        return []
    found = []
    for number in range(min(count, _MOST_ENTRIES)):
        entry = head[first * sector_bytes + number * size_bytes :][:128]
        if len(entry) == 128 and any(entry[:16]):
            found.append((UUID(bytes_le=entry[:16]), int.from_bytes(entry[48:56], "little")))
    return found


def read_head(path: Path, kind: ImageKind) -> bytes:
    """The first MiB of the disk in an image that was checked (host.image_convert). Raises HvtuiError."""
    import tempfile

    with tempfile.TemporaryDirectory(prefix="hvtui-head-") as directory:
        target = Path(directory) / "head"
        blocks = [f"bs={HEAD_BYTES}", "count=1", f"if={path}", f"of={target}"]
        command = ["qemu-img", "dd", "-U", "-f", kind.qemu_format, "-O", "raw", *blocks]
        code, told = images.limited(command, about=str(path), timeout_s=_TIMEOUT_S)
        if code:
            raise HvtuiError(f"qemu-img cannot read it: {printable(told, limit=300)}", about=str(path))
        return target.read_bytes()[:HEAD_BYTES]


def vhd_maker(path: Path) -> Maker:
    """Which product made a VHD. Raises OSError."""
    with path.open("rb") as file:
        file.seek(0, 2)
        file.seek(max(file.tell() - 512, 0))
        footer = file.read(512)
    if footer[:8] != b"conectix":
        return Maker.OTHER
    application = footer[28:32].decode("ascii", "replace").strip(" \0")
    return Maker(application) if application in set(Maker) else Maker.OTHER
