"""What the first bytes of a qcow2 image say: enough to know that it stands alone, wherever it is stored. Pure.

Fields and bits are those of QEMU's docs/interop/qcow2.txt.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

HEAD_BYTES = 112
_MAGIC = b"QFI\xfb"
_FIXED = struct.Struct(">4sIQIIQI")
_INCOMPATIBLE_AT = 72
_CORRUPT, _EXTERNAL_DATA = 1 << 1, 1 << 2


@dataclass(frozen=True, slots=True)
class Qcow2Header:
    """What speaks against an image is in words in `problem`; empty when it stands alone."""

    virtual_size_bytes: int
    problem: str = ""


def read_header(head: bytes) -> Qcow2Header | None:
    """The header at the start of `head` (HEAD_BYTES of it are enough); None for what is no qcow2 of version 2 or 3."""
    if len(head) < HEAD_BYTES or head[:4] != _MAGIC:
        return None
    _, version, backing_at, backing_bytes, _cluster_bits, size_bytes, encryption = _FIXED.unpack_from(head)
    if version not in {2, 3}:
        return None
    (features,) = struct.unpack_from(">Q", head, _INCOMPATIBLE_AT) if version == 3 else (0,)
    problem = ""
    if backing_at or backing_bytes:
        problem = "it builds on another file"
    elif features & _EXTERNAL_DATA:
        problem = "it keeps its data in another file"
    elif encryption:
        problem = "it is encrypted, and hvtui has no key for it"
    elif features & _CORRUPT:
        problem = "it is marked as corrupt"
    elif not size_bytes:
        problem = "it is empty"
    return Qcow2Header(size_bytes, problem)
