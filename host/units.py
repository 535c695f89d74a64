"""Sizes as people write and read them: "2G" is 2 GiB, as for libvirt and QEMU. Pure functions."""

from __future__ import annotations

import re

from host.errors import UsageError

KIB = 1024
MIB = 1024**2
GIB = 1024**3
_UNITS = "KMGTPE"
_SIZE = re.compile(r"(\d{1,15}(?:\.\d{1,9})?)\s*(?:([KMGTPE])(?:I?B)?|(B))", re.ASCII)
_MOST_BYTES = 2**63 - 1  # what libvirt's and QEMU's interfaces can carry


def parse_size(text: str) -> int:
    """Bytes of "512M", "2G", "1.5GiB" or "4096B"; the unit is required (powers of 1024). Raises UsageError."""
    match = _SIZE.fullmatch(text.strip().upper())
    if match is None:
        remedy = f"Write it with a unit: {text.strip()}M or {text.strip()}G" if text.strip().isdecimal() else ""
        raise UsageError(f"{text!r} is not a size", remedy=remedy or "Write it as 512M, 2G or 1.5T")
    number, unit, _ = match.groups()
    factor = KIB ** (_UNITS.index(unit) + 1) if unit else 1
    whole, _, decimals = number.partition(".")
    size_bytes = int(int(whole + decimals) * factor // 10 ** len(decimals))
    if size_bytes > _MOST_BYTES:
        raise UsageError(f"{text!r} is more than any VM can have", remedy="Write it as 512M, 2G or 1.5T")
    return size_bytes


def format_bytes(size_bytes: float) -> str:
    """A size in at most five or six characters: "0B", "1.5K", "512M", "2.0G", "12.3G", "931G"; -1.5 GiB is "-1.5G"."""
    sign, rest = ("-", -size_bytes) if size_bytes < 0 else ("", size_bytes)
    if rest < KIB:
        return f"{sign}{int(rest)}B"
    power = 0
    while power < len(_UNITS) and rest >= 999.5:  # 1000M would need five characters
        rest /= KIB
        power += 1
    unit = _UNITS[power - 1]
    decimals = 1 if (unit in "GTPE" and rest < 99.95) or (rest < 9.95 and rest % 1) else 0
    return f"{sign}{rest:.{decimals}f}{unit}"
