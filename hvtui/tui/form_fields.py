"""A form's fields as data, and what is common to turning their texts into values. Pure; no widget."""

from __future__ import annotations

from dataclasses import dataclass

from host.errors import UsageError
from host.units import parse_size

YES_NO = (("yes", "yes"), ("no", "no"))


@dataclass(frozen=True, slots=True)
class Field:
    """One line of a form. `choices` are (shown, value) pairs; without any it is a line of text with `hint` in it while
    it is empty."""

    key: str
    label: str
    value: str
    hint: str = ""
    choices: tuple[tuple[str, str], ...] = ()


class NotYet(UsageError):
    """Something is still missing that nobody expects in a form that was just opened: told calmly until it is sent."""


def whole_number(label: str, text: str, *, least: int = 1) -> int:
    """The number in a field. Raises UsageError naming it."""
    if not (text.isascii() and text.isdecimal()) or int(text[:9]) < least:
        raise UsageError(f"{text!r} is not a number of at least {least}", about=label)
    return int(text[:9])


def size_bytes(label: str, text: str) -> int:
    """The size in a field; 0 for none. Raises UsageError naming it."""
    try:
        return 0 if text in {"", "0"} else parse_size(text)
    except UsageError as error:
        raise UsageError(error.cause, about=label, remedy=error.remedy) from None
