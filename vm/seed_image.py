"""Builds the medium that a NoCloud seed is handed over on: ISO 9660 with Rock Ridge and Joliet, volume id `cidata`.

The same files give the same bytes, so that a step that is run again makes the same image. This module knows nothing of
what the files say (vm.cloud_init), writes no file, and keeps nothing.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pycdlib.pycdlib import PyCdlib

VOLUME_ID = "cidata"  # cloud-init finds its seed by it, in small letters as its documentation has it
_DATE = struct.pack("=BBBBBBb", 100, 1, 1, 0, 0, 0, 0)  # the first of January 2000, UTC, as a directory entry has it
# Made, changed, expires, in force: the first two have that date, the others none.
_VOLUME_DATES = 2 * (b"2000010100000000" + b"\0") + 2 * (b"0" * 16 + b"\0")
_BLOCK_BYTES = 2048
_FIRST_DESCRIPTOR = 16  # blocks are the system's before it; ECMA-119, 8.4 has the descriptors' layout
_DATES_OFFSET = 813
_LAST_DESCRIPTOR = 255
_FILE_MODE = 0o100444


def build(files: Mapping[str, str]) -> bytes:
    """The image of these files (name -> text), all in its root. The names are short and lower case, such as
    "user-data"."""
    from io import BytesIO  # here: what makes no seed loads neither

    from pycdlib.pycdlib import PyCdlib

    iso = PyCdlib()
    iso.new(interchange_level=3, joliet=3, rock_ridge="1.09", vol_ident=VOLUME_ID)
    for name, text in sorted(files.items()):
        data = text.encode()
        iso.add_fp(
            BytesIO(data),
            len(data),
            f"/{_plain_name(name)}.;1",
            rr_name=name,
            joliet_path=f"/{name}",
            file_mode=_FILE_MODE,
        )
    _fix_entries(iso)
    written = BytesIO()
    iso.write_fp(written)
    iso.close()
    image = bytearray(written.getvalue())
    _fix_descriptors(image)
    return bytes(image)


def _plain_name(name: str) -> str:
    """The name for readers that know ISO 9660 alone: capital letters, digits and underscores."""
    return "".join(char if char.isascii() and char.isalnum() else "_" for char in name.upper())


def _fix_entries(iso: PyCdlib) -> None:
    """Put one date in place of that which the library took from the clock and its time zone, in each entry."""
    descriptors: tuple[Any, ...] = (iso.pvd, iso.joliet_vd)
    for descriptor in descriptors:
        root = descriptor.root_dir_record
        for record in (root, *root.children):
            _fix_record(record)


def _fix_record(record: Any) -> None:
    from pycdlib.dates import DirectoryRecordDate

    record.date = _parsed(DirectoryRecordDate(), _DATE)
    if record.rock_ridge is None:
        return
    for entries in (record.rock_ridge.dr_entries, record.rock_ridge.ce_entries):
        times = entries.tf_record if entries is not None else None
        for field in ("access_time", "modification_time", "attribute_change_time") if times is not None else ():
            setattr(times, field, _parsed(DirectoryRecordDate(), _DATE))


def _parsed(date: Any, text: bytes) -> Any:
    date.parse(text)
    return date


def _fix_descriptors(image: bytearray) -> None:
    """The same for the volume descriptors, which get the time of writing."""
    start = _FIRST_DESCRIPTOR * _BLOCK_BYTES
    while image[start] != _LAST_DESCRIPTOR:
        dates = start + _DATES_OFFSET
        image[dates : dates + len(_VOLUME_DATES)] = _VOLUME_DATES
        start += _BLOCK_BYTES
