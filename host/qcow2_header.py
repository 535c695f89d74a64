"""What the first bytes of a qcow2 image say: enough to know that it stands alone, wherever it is stored, or what it
builds on, and how to say that it builds on a copy of that. Pure.

Fields and bits are those of QEMU's docs/interop/qcow2.txt.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from host.errors import UsageError

HEAD_BYTES = 112
_MAGIC = b"QFI\xfb"
_FIXED = struct.Struct(">4sIQIIQI")
_INCOMPATIBLE_AT = 72
_BACKING_BYTES_AT, _CLUSTER_BITS_AT = 16, 20
_LONGEST_NAME_BYTES = 1023  # as QEMU allows
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


def cluster_bytes(head: bytes) -> int:
    """The size of the image's first cluster, which holds all of its header; 0 for what is no qcow2."""
    if read_header(head) is None:
        return 0
    (cluster_bits,) = struct.unpack_from(">I", head, _CLUSTER_BITS_AT)
    return 1 << cluster_bits if 9 <= cluster_bits <= 21 else 0


def rebased(head: bytes, backing: str) -> bytes:
    """The first cluster `head` of an image that builds on another file, as one that builds on the file `backing`.
    Its other contents stay as they are. Raises UsageError when that cannot be said there."""
    if read_header(head) is None:
        raise UsageError("it is no qcow2 image")
    _, _, at, length, *_ = _FIXED.unpack_from(head)
    name = backing.encode("utf-8")
    if not at or not length or at + length > len(head):
        raise UsageError("it builds on no other file")
    if len(name) > _LONGEST_NAME_BYTES or at + len(name) > len(head):
        raise UsageError("there is no room in its header for so long a path", about=backing)
    end = max(length, len(name))
    changed = bytearray(head)
    changed[at : at + end] = name.ljust(end, b"\0")
    struct.pack_into(">I", changed, _BACKING_BYTES_AT, len(name))
    return bytes(changed)


def backing_name(head: bytes) -> str:
    """What the image's header calls the file that it builds on; empty for one that stands alone."""
    if read_header(head) is None:
        return ""
    _, _, at, length, *_ = _FIXED.unpack_from(head)
    return head[at : at + length].decode("utf-8", errors="replace") if at else ""
