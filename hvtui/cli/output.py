"""How commands write: data to standard output in four formats, narration to standard error.

JSON keeps the true value of guest-made text (json escapes everything that is not ASCII); tables and CSV show it
through host.text.printable. Tables carry escape sequences only on a terminal, and never with NO_COLOR. This module
asks nothing and knows no noun.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Generic, TextIO, TypeAlias, TypeVar

from host.text import did_you_mean, display_width, fit, printable

if TYPE_CHECKING:
    from host.plan import Json

Item = TypeVar("Item")
Record: TypeAlias = Mapping[str, "Json"]

CELL_LIMIT = 60  # a 10 kB name must not push every other column off the screen
# What a spreadsheet would run as a formula (OWASP, "CSV injection").
_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")
_STYLES = {"bold": "1", "dim": "2", "red": "31", "green": "32", "yellow": "33"}


class Format(StrEnum):
    TABLE = "table"
    JSON = "json"  # one array, or one object for a single thing
    JSONL = "jsonl"  # one object a line
    CSV = "csv"


class Column(Generic[Item]):
    """One stable key of a noun: its JSON value, its cell in a table, and its meaning in the reference.

    `extra` columns cost a call a thing (or are long): they are shown only when asked for by name or --details. The
    cells of a `whole` one are cut at a terminal only.
    """

    def __init__(
        self,
        key: str,
        meaning: str,
        value: Callable[[Item], Json],
        cell: Callable[[Item], str] | None = None,
        *,
        title: str = "",
        right: bool = False,
        in_table: bool = False,
        extra: bool = False,
        whole: bool = False,
    ) -> None:
        self.whole = whole
        self.key, self.meaning, self.value, self.cell = key, meaning, value, cell
        self.title, self.right, self.in_table, self.extra = title or key.upper(), right, in_table, extra

    def text(self, item: Item) -> str:
        """The cell of a table, harmless to show."""
        limit = None if self.whole and not sys.stdout.isatty() else CELL_LIMIT
        return printable(self.cell(item) if self.cell else plain(self.value(item)), limit=limit)


def plain(value: Json) -> str:
    """A JSON value as a person writes it: "–" for nothing, yes/no, a list with commas."""
    if value is None or value == "" or value == [] or value == ():
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, str):
        return value
    if isinstance(value, Mapping):
        return " ".join(f"{key}={plain(part)}" for key, part in value.items())
    if isinstance(value, Sequence):
        return ",".join(plain(part) for part in value)
    return str(value)


def choose(columns: Sequence[Column[Item]], names: Iterable[str]) -> tuple[Column[Item], ...]:
    """The columns of these keys or table heads, in this order. Raises UsageError for an unknown one, with the
    nearest."""
    by_key = {column.key: column for column in columns}
    by_title = {column.title.casefold(): column.key for column in columns}
    return tuple(by_key[nearest_key(name, by_title | {key: key for key in by_key})] for name in names)


def nearest_key(name: str, keys: Mapping[str, str]) -> str:
    """The key that `name` means, in whatever case; `keys` maps what is accepted (in small letters) to keys. Raises
    UsageError for an unknown one, with the nearest."""
    from host.errors import UsageError

    key = keys.get(name.casefold())
    if key is None:
        raise UsageError(
            f"no column {printable(name, limit=60)!r}", remedy=did_you_mean(name, dict.fromkeys(keys.values()))
        )
    return key


def write_list(
    items: Sequence[Item],
    columns: Sequence[Column[Item]],
    *,
    output: Format,
    chosen: Sequence[str] = (),
    details: bool = False,
) -> None:
    """Write a list of things: every column that is not extra, those in `chosen`, or (details) all of them."""
    if chosen:
        shown = choose(columns, chosen)
    elif output is Format.TABLE and not details:
        shown = tuple(column for column in columns if column.in_table)
    else:
        shown = tuple(column for column in columns if details or not column.extra)
    if output is Format.TABLE:
        write_table(
            [column.title for column in shown],
            [[column.text(item) for column in shown] for item in items],
            right=[column.right for column in shown],
        )
    else:
        write_records([record(item, shown) for item in items], output, keys=[column.key for column in shown])


def record(item: Item, columns: Sequence[Column[Item]]) -> dict[str, Json]:
    """The JSON object of one thing."""
    return {column.key: column.value(item) for column in columns}


def write_records(records: Sequence[Record], output: Format, *, keys: Sequence[str] | None = None) -> None:
    """Write records as JSON, JSON lines or CSV (`keys` name its columns; by default those of the first record)."""
    if output is Format.CSV:
        _write_csv(records, keys if keys is not None else list(records[0]) if records else [])
    elif output is Format.JSONL:
        _emit("".join(json_line(each) for each in records))
    else:
        write_json(list(records))


def write_json(value: Json) -> None:
    """Write one JSON document; indented for a person at a terminal."""
    import json

    _emit(json.dumps(value, indent=2 if sys.stdout.isatty() else None) + "\n")


def json_line(value: Json) -> str:
    """One line of JSON; nothing but ASCII, so it can hold no escape sequence."""
    import json

    return json.dumps(value) + "\n"


def stream(line: str) -> None:
    """Write one line of a stream at once; a closed pipe raises BrokenPipeError, which ends the command quietly."""
    sys.stdout.write(line)
    sys.stdout.flush()


def _emit(text: str) -> None:
    sys.stdout.write(text)


def write_text(text: str) -> None:
    """Write lines of text that is harmless already."""
    _emit(text if text.endswith("\n") or not text else text + "\n")


def write_table(titles: Sequence[str], rows: Sequence[Sequence[str]], *, right: Sequence[bool] = ()) -> None:
    """Write aligned columns under their titles; the cells must be printable already."""
    aligned_right = list(right) or [False] * len(titles)
    widths = [max(map(display_width, column)) for column in zip(titles, *rows, strict=True)]
    _emit(paint(_row(titles, widths, aligned_right), "bold") + "\n")
    _emit("".join(_row(row, widths, aligned_right) + "\n" for row in rows))


def _row(cells: Sequence[str], widths: Sequence[int], right: Sequence[bool]) -> str:
    fitted = (fit(cell, width, right=flag) for cell, width, flag in zip(cells, widths, right, strict=True))
    return "  ".join(fitted).rstrip()


def write_facts(pairs: Iterable[tuple[str, str]]) -> None:
    """Write "name  value" lines, as `show` does; the values are made printable here."""
    lines = [(name, printable(value, limit=2000)) for name, value in pairs]
    width = max((display_width(name) for name, _ in lines), default=0)
    _emit("".join(f"{paint(fit(name, width), 'dim')}  {value}".rstrip() + "\n" for name, value in lines))


def _write_csv(records: Sequence[Record], keys: Sequence[str]) -> None:
    import csv

    writer = csv.writer(sys.stdout, quoting=csv.QUOTE_NONNUMERIC, lineterminator="\n")
    writer.writerow(keys)
    writer.writerows([_csv_cell(each.get(key)) for key in keys] for each in records)


def csv_line(values: Sequence[Json]) -> str:
    """One line of CSV, for streams."""
    import csv
    import io

    buffer = io.StringIO()
    csv.writer(buffer, quoting=csv.QUOTE_NONNUMERIC, lineterminator="\n").writerow([_csv_cell(v) for v in values])
    return buffer.getvalue()


def _csv_cell(value: Json) -> Any:
    """Numbers stay numbers; text that a spreadsheet would run gets an apostrophe in front. Nothing is an empty cell."""
    if value is None or value == [] or value == {}:
        return ""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    text = printable(value) if isinstance(value, str) else printable(_csv_part(value))
    risky = text.startswith(_FORMULA_STARTS) or (isinstance(value, str) and value.startswith(_FORMULA_STARTS))
    return "'" + text if risky else text


def _csv_part(value: Json) -> str:
    """What stands inside a cell: nothing and true or false as in a cell of their own."""
    if value is None or value == [] or value == {}:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Mapping):
        return " ".join(f"{key}={_csv_part(part)}" for key, part in value.items())
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ",".join(_csv_part(part) for part in value)
    return str(value)


def has_colour(stream_: TextIO) -> bool:
    """True where escape sequences may be written: a terminal that is not dumb, and no NO_COLOR."""
    return stream_.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def paint(text: str, style: str, stream_: TextIO | None = None) -> str:
    """`text` in a style of _STYLES where colour may be used, else as it is."""
    if not has_colour(stream_ or sys.stdout):
        return text
    return f"\x1b[{_STYLES[style]}m{text}\x1b[0m"


def narrate(text: str) -> None:
    """Say something to the person: one or more lines on standard error. Nobody listening is no failure."""
    try:
        sys.stderr.write(text + "\n")
        sys.stderr.flush()
    except OSError:
        return


def complain(text: str) -> None:
    """Say on standard error what failed, with the program's name in front."""
    narrate(f"{paint('hvtui:', 'red', sys.stderr)} {text}")
