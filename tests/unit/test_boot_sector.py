"""What boots a disk, by its first sectors."""

from __future__ import annotations

import struct
from pathlib import Path
from uuid import UUID

import pytest

from vm.boot_sector import Maker, look, vhd_maker
from vm.create_request import Firmware

ESP = UUID("c12a7328-f81f-11d2-ba4b-00a0c93ec93b")
BIOS_BOOT = UUID("21686148-6449-6e6f-744e-656564454649")
DATA = UUID("ebd0a0a2-b9e5-4433-87c0-68b6b72699c7")
CODE = bytes.fromhex("33c08ed0bc007c")  # how a Windows begins the first sector of any disk, bootable or not


def mbr(*entries: tuple[int, int], code: bytes = b"") -> bytes:
    table = b"".join(bytes([status, 0, 0, 0, kind]) + bytes(11) for status, kind in entries)
    return code.ljust(446, b"\0") + table.ljust(64, b"\0") + b"\x55\xaa"


def gpt(*kinds: UUID, code: bytes = b"", attributes: int = 0, sector: int = 512, active: bool = False) -> bytes:
    extra = ((0x80, 0x0C),) if active else ()
    head = bytearray(64 * 1024)
    head[:512] = mbr((0, 0xEE), *extra, code=code)
    head[sector : sector + 8] = b"EFI PART"
    struct.pack_into("<QII", head, sector + 72, 2, 128, 128)
    for number, kind in enumerate(kinds):
        at = 2 * sector + number * 128
        head[at : at + 16] = kind.bytes_le
        head[at + 48 : at + 56] = attributes.to_bytes(8, "little")
    return bytes(head)


@pytest.mark.parametrize(
    ("head", "firmware"),
    [
        (gpt(ESP, DATA), Firmware.UEFI),
        (gpt(ESP, DATA, sector=4096), Firmware.UEFI),
        (gpt(DATA, ESP, code=CODE), Firmware.UEFI),  # a Windows of generation 2
        (gpt(ESP, BIOS_BOOT, code=CODE), Firmware.BIOS),  # a Debian cloud image: either boots it
        (gpt(ESP, BIOS_BOOT), Firmware.UEFI),  # nothing for a BIOS to start with
        (gpt(ESP, DATA, code=CODE, attributes=4), Firmware.BIOS),  # syslinux
        (gpt(ESP, DATA, code=CODE, active=True), Firmware.BIOS),  # a hybrid
        (gpt(DATA, code=CODE), Firmware.BIOS),
        (mbr((0x80, 0x07), code=CODE), Firmware.BIOS),
        (mbr((0x80, 0xEF)), Firmware.UEFI),
        (mbr((0x80, 0x0C), (0, 0xEF), code=CODE), Firmware.BIOS),
        (bytes(1024), Firmware.BIOS),
        (b"", Firmware.BIOS),
    ],
)
def test_the_partition_table_tells_the_firmware(head: bytes, firmware: Firmware) -> None:
    assert look(head).firmware is firmware


def test_a_table_that_lies_about_its_entries_is_read_without_harm() -> None:
    head = bytearray(gpt(ESP))
    struct.pack_into("<QII", head, 512 + 72, 2**63, 2**32 - 1, 128)
    assert look(bytes(head)).firmware is Firmware.BIOS
    struct.pack_into("<QII", head, 512 + 72, 2, 2**32 - 1, 0)
    assert look(bytes(head)).firmware is Firmware.BIOS


@pytest.mark.parametrize(
    ("application", "maker"),
    [
        (b"vpc ", Maker.VIRTUAL_PC),
        (b"vs  ", Maker.VIRTUAL_SERVER),
        (b"win ", Maker.HYPER_V),
        (b"\xff\0qe", Maker.OTHER),
    ],
)
def test_a_vhd_tells_who_made_it(tmp_path: Path, application: bytes, maker: Maker) -> None:
    path = tmp_path / "disk.vhd"
    path.write_bytes(bytes(4096) + (b"conectix" + bytes(20) + application).ljust(512, b"\0"))
    assert vhd_maker(path) is maker


def test_what_is_no_vhd_has_no_maker(tmp_path: Path) -> None:
    path = tmp_path / "short"
    path.write_bytes(b"conectix")
    assert vhd_maker(path) is Maker.OTHER
