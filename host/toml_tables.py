"""Reads TOML strictly: what is unknown, of a wrong type or out of range is one UsageError that names the file, the key
and what is allowed (the nearest key, for an unknown one). It knows no file's keys; their owners do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

from host.errors import UsageError
from host.text import did_you_mean, printable
from host.units import parse_size

_LONGEST_SHOWN = 200


def parse_toml(text: str, *, file: str) -> dict[str, Any]:
    """The document in `text`; `file` is named in errors. Raises UsageError with line and column."""
    import tomllib  # only where there is a file at all

    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UsageError(printable(f"not valid TOML: {error}", limit=_LONGEST_SHOWN), about=file) from error
    except RecursionError:
        raise UsageError("not valid TOML: it is nested too deep", about=file) from None


@dataclass(frozen=True, slots=True)
class Table:
    """One table of a file while it is read: every question answers with the right type or raises UsageError.

    `name` is the table's in errors, empty for the document itself; `known` are its keys, None for any.
    """

    file: str
    name: str
    values: Mapping[str, Any]
    known: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        for key in self.values:
            if self.known is not None and key not in self.known:
                self.refuse(key, "is not a key", did_you_mean(key, self.known))

    def refuse(self, key: str, problem: str, remedy: str) -> NoReturn:
        """Raise the UsageError that says what is wrong with `key`."""
        place = f"[{self.name}] {key}" if self.name else key
        raise UsageError(printable(f"{place} {problem}", limit=_LONGEST_SHOWN), about=self.file, remedy=remedy)

    def value(self, key: str, kind: type, usual: Any, wanted: str) -> Any:
        """The value of `key`, or `usual` where it is not there; `wanted` says in words what it must be."""
        found = self.values.get(key, usual)
        is_number_for_bool = isinstance(found, bool) and kind is not bool  # bool is an int to Python, not to a person
        if key in self.values and (is_number_for_bool or not isinstance(found, kind)):
            self.refuse(key, f"is {kind_of(found)}", f"It must be {wanted}")
        return found

    def text(self, key: str, usual: str) -> str:
        return str(self.value(key, str, usual, 'a text in quotes, such as "x"'))

    def flag(self, key: str, usual: bool) -> bool:
        return bool(self.value(key, bool, usual, "true or false"))

    def size(self, key: str, usual_bytes: int) -> int:
        """Bytes of a size written as "2G"."""
        if key not in self.values:
            return usual_bytes
        text = self.value(key, str, "", 'a size in quotes, such as "2G"')
        try:
            return parse_size(text)
        except UsageError as error:
            self.refuse(key, f"is {text[:60]!r}", error.remedy)

    def texts(self, key: str, wanted: str) -> tuple[str, ...]:
        """A list of texts; `wanted` says in words what it must be."""
        found = self.value(key, list, [], wanted)
        for each in found:
            if not isinstance(each, str):
                self.refuse(key, f"holds {kind_of(each)}", f"It must be {wanted}")
        return tuple(found)

    def choices(self, key: str, usual: tuple[str, ...], allowed: tuple[str, ...]) -> tuple[str, ...]:
        """A list of texts, each of them allowed and named once."""
        if key not in self.values:
            return usual
        found = self.texts(key, 'a list of texts, such as ["name", "state"]')
        for place, each in enumerate(found):
            if each not in allowed:
                self.refuse(key, f"holds {each[:60]!r}", did_you_mean(each, allowed))
            if each in found[:place]:
                self.refuse(key, f"holds {each!r} twice", "Name it once")
        return found

    def number(self, key: str, usual: float, *, limits: tuple[float, float]) -> float:
        """A number within `limits`; a whole one where `usual` is whole."""
        lowest, highest = limits
        is_whole = isinstance(usual, int)
        wanted = f"a {'whole ' if is_whole else ''}number from {lowest:g} to {highest:.0f}"
        found = self.value(key, int, usual, wanted) if is_whole else self._decimal(key, usual, wanted)
        if not lowest <= found <= highest:
            self.refuse(key, f"is {found}", f"It must be {wanted}")
        return float(found) if not is_whole else int(found)

    def _decimal(self, key: str, usual: float, wanted: str) -> float:
        kind = int if isinstance(self.values.get(key), int) else float
        return float(self.value(key, kind, usual, wanted))

    def choice(self, key: str, usual: str, allowed: tuple[str, ...]) -> str:
        """A text that is one of `allowed`."""
        found = self.text(key, usual)
        if found not in allowed:
            self.refuse(key, f"is {found[:60]!r}", did_you_mean(found, allowed))
        return found

    def table(self, key: str, known: tuple[str, ...] | None = None) -> Table:
        """The table [key]; an empty one where it is not there."""
        return Table(self.file, key, self.value(key, dict, {}, f"a table: [{key}]"), known)

    def tables(self, key: str, known: tuple[str, ...] | None = None) -> list[Table]:
        """The tables of [[key]]; a single [key] is a list of one."""
        found = self.values.get(key, [])
        each = [found] if isinstance(found, dict) else found
        if not isinstance(each, list) or not all(isinstance(entry, dict) for entry in each):
            self.refuse(key, f"is {kind_of(found)}", f"It must be a table: [[{key}]]")
        return [Table(self.file, key, entry, known) for entry in each]


def kind_of(value: object) -> str:
    """What a value of TOML is, in words."""
    kinds: tuple[tuple[type, str], ...] = (
        (bool, "true or false"),
        (str, "a text"),
        (int, "a whole number"),
        (float, "a number"),
        (list, "a list"),
        (dict, "a table"),
    )
    return next((words for kind, words in kinds if isinstance(value, kind)), "a date or time")
