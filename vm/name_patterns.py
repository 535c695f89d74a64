"""The names of a set of new VMs, from a pattern such as "web-{:02}". Pure.

A pattern holds one field at most: {} is the number, {:02} and {:03d} fill it up with noughts. It is read here, never by
str.format, which would follow attributes.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable

from host.errors import UsageError
from host.text import printable
from vm.names import check_name

MOST_NAMES = 1000  # of one set; more is a mistyped number rather than a wish
LARGEST_NUMBER = 999_999_999
FIELD_RULE = "Write {} for the number, or {:02} for one of at least two digits: web-{:02}"
_FIELD = re.compile(r"\{(?::(?:0([1-9])d?|d))?\}", re.ASCII)


def has_field(pattern: str) -> bool:
    """True when the pattern numbers its names. Raises UsageError for braces that are no field."""
    return _split(pattern) is not None


def expand(pattern: str, count: int, first: int = 1) -> tuple[str, ...]:
    """`count` names, the first with the number `first`. Raises UsageError for a pattern that cannot be, for more than
    one name without a field, and for a name that no VM can have."""
    _check_number("count", count, 1, MOST_NAMES)
    _check_number("first", first, 0, LARGEST_NUMBER)
    parts = _split(pattern)
    if parts is None:
        if count > 1:
            shown = printable(pattern, limit=60)
            raise UsageError(f"{shown!r} is one name, and {count} VMs are wanted", remedy=FIELD_RULE)
        return (check_name(pattern),)
    before, digits, after = parts
    return tuple(check_name(f"{before}{number:0{digits}d}{after}") for number in range(first, first + count))


def collisions(names: Iterable[str], existing: Collection[str]) -> tuple[str, ...]:
    """Those of `names`, in order, that a VM has already or that stand twice among them."""
    taken = set(existing)
    found: dict[str, None] = {}
    for name in names:
        if name in taken:
            found[name] = None
        taken.add(name)
    return tuple(found)


def _split(pattern: str) -> tuple[str, int, str] | None:
    """What stands before the field, its digits, what stands behind it; None where there is none."""
    fields = list(_FIELD.finditer(pattern))
    rest = _FIELD.sub("", pattern)
    shown = repr(printable(pattern, limit=60))
    if "{" in rest or "}" in rest:
        raise UsageError(f"{shown} is no pattern of names", remedy=FIELD_RULE)
    if len(fields) > 1:
        raise UsageError(f"{shown} holds more than one field", remedy="Number the VMs once")
    if not fields:
        return None
    (field,) = fields
    return pattern[: field.start()], int(field[1] or 1), pattern[field.end() :]


def _check_number(what: str, number: int, lowest: int, highest: int) -> None:
    if not lowest <= number <= highest:
        raise UsageError(f"{what} is {number}", remedy=f"It must be from {lowest} to {highest}")
