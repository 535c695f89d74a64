"""Puts hosts into the configuration file and takes them out of it, as a careful person with an editor would.

The text is edited, not written anew: comments, order and spelling of everything else stay as they are. Whatever the
edit makes of the file is parsed before it is written, and must differ in that one host only. The file is replaced
whole, in one step.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from host.errors import Conflict, Denied, HvtuiError, NameTaken, NotFound, UsageError
from host.host_list import HostEntry
from host.paths import configuration_file
from host.text import printable
from host.toml_tables import parse_toml
from hvtui.config import Config, parse_config

_HEADER = re.compile(r"\s*\[\[\s*(?:host|\"host\"|'host')\s*\]\]\s*(?:#.*)?")
_ANY_HEADER = re.compile(r"\s*\[")
_BY_HAND = "Edit the file by hand; docs/configuration.md shows how hosts are written"


@dataclass(frozen=True, slots=True)
class Edit:
    """What a change makes of the file: `before` is empty for one that is not there yet."""

    path: Path
    before: str
    after: str

    def write(self) -> None:
        """Replace the file. Raises Conflict when somebody else changed it meanwhile, Denied, HvtuiError."""
        try:
            with _locked(self.path.parent):
                if _read(self.path) != self.before:
                    raise Conflict("the file was just changed by somebody else", about=str(self.path))
                _replace(self.path, self.after)
        except OSError as error:
            kind = Denied if isinstance(error, PermissionError) else HvtuiError
            raise kind(f"cannot write the configuration file: {error.strerror}", about=str(self.path)) from error


def editable_file() -> Path:
    """The file in force, else the one that this user's would be. Raises UsageError where $HVTUI_CONFIG says none."""
    found = configuration_file()
    if found is not None:
        return found
    if os.environ.get("HVTUI_CONFIG"):
        raise UsageError("HVTUI_CONFIG says that there is no configuration file", remedy="Unset it, or name a file")
    personal = os.environ.get("XDG_CONFIG_HOME")
    return (Path(personal) if personal else Path.home() / ".config") / "hvtui/config.toml"


def add_host(path: Path, entry: HostEntry) -> Edit:
    """The edit that puts `entry` behind the hosts of the file. Raises NameTaken, UsageError."""
    before = _read(path)
    known = parse_config(before, file=str(path))
    if entry.name == "local" or any(host.name == entry.name for host in known.hosts):
        raise NameTaken("a host of this name is configured already", about=entry.name, remedy="See 'hvtui host list'")
    parse_config("\n".join(_block_of(entry)), file=f"host {entry.name}")  # what is wrong with the entry itself
    newline = "\r\n" if "\r\n" in before else "\n"
    lines = before.split("\n")
    blocks = _blocks(lines)
    place = blocks[-1][1] if blocks else len(lines)
    head, tail = lines[:place], lines[place:]
    block = [f"{line}{newline[:-1]}" for line in _block_of(entry)]
    head = [*_without_blank_end(head), *([newline[:-1]] if any(line.strip() for line in head) else [])]
    after = "\n".join([*head, *block, *(tail if blocks else [])])
    edit = Edit(path, before, after if after.endswith("\n") else after + "\n")
    _prove(edit, known, (*known.hosts, entry))
    return edit


def remove_host(path: Path, name: str) -> Edit:
    """The edit that takes that host out, with the comments inside its table. Raises NotFound, UsageError."""
    before = _read(path)
    known = parse_config(before, file=str(path))
    place = next((number for number, host in enumerate(known.hosts) if host.name == name), None)
    if place is None:
        names = ", ".join(sorted(host.name for host in known.hosts)) or "none"
        raise NotFound("no such host is configured", about=name, remedy=f"Configured hosts: {names}")
    lines = before.split("\n")
    blocks = _blocks(lines)
    if len(blocks) != len(known.hosts):
        raise _unusual(path)
    start, end = blocks[place]
    head, tail = lines[:start], lines[end:]
    if head and tail and not head[-1].strip() and not tail[0].strip():
        tail = tail[1:]  # one blank line was before the block and one behind it
    edit = Edit(path, before, "\n".join([*head, *tail]))
    _prove(edit, known, tuple(host for host in known.hosts if host.name != name))
    return edit


def _prove(edit: Edit, known: Config, hosts: tuple[HostEntry, ...]) -> None:
    """Raise UsageError unless the edit leaves exactly these hosts, and everything else as it was."""
    try:
        after = parse_config(edit.after, file=str(edit.path))
        rest = [{**parse_toml(text, file=""), "host": None} for text in (edit.before, edit.after)]
    except UsageError as error:
        raise _unusual(edit.path) from error
    if after.hosts != hosts or rest[0] != rest[1] or after.keys != known.keys:
        raise _unusual(edit.path)


def _unusual(path: Path) -> UsageError:
    return UsageError("its hosts are not written as [[host]] tables", about=str(path), remedy=_BY_HAND)


def _blocks(lines: list[str]) -> list[tuple[int, int]]:
    """First line and end of each [[host]] table; comments and blank lines at its end belong to what follows."""
    starts = [number for number, line in enumerate(lines) if _HEADER.fullmatch(line)]
    return [(start, _end_of(lines, start)) for start in starts]


def _end_of(lines: list[str], start: int) -> int:
    behind = (n for n in range(start + 1, len(lines)) if _ANY_HEADER.match(lines[n]) and not _is_in_list(lines, n))
    end = next(behind, len(lines))
    while end > start + 1 and (not lines[end - 1].strip() or lines[end - 1].lstrip().startswith("#")):
        end -= 1
    return end


def _is_in_list(lines: list[str], number: int) -> bool:
    """True for a line that begins with a bracket and is no table's head: part of a list over several lines."""
    return not re.fullmatch(r"\s*\[{1,2}[^\[\],]+\]{1,2}\s*(?:#.*)?", lines[number])


def _without_blank_end(lines: list[str]) -> list[str]:
    end = len(lines)
    while end and not lines[end - 1].strip():
        end -= 1
    return lines[:end]


def _block_of(entry: HostEntry) -> list[str]:
    usual = HostEntry("", "")
    lines = ["[[host]]", f"name = {_toml(entry.name)}", f"uri = {_toml(entry.uri)}"]
    if entry.groups:
        lines.append(f"groups = [{', '.join(map(_toml, entry.groups))}]")
    for key in ("migration_address", "peer_uri", "library"):
        value = getattr(entry, key)
        if value != getattr(usual, key):
            lines.append(f"{key} = {_toml(value)}")
    if entry.reserve_memory_bytes:
        lines.append(f'reserve_memory = "{_size(entry.reserve_memory_bytes)}"')
    return lines


def _size(size_bytes: int) -> str:
    """The size in the largest unit that gives a whole number."""
    exponent = next((power for power in (4, 3, 2, 1) if size_bytes % 1024**power == 0), 0)
    return f"{size_bytes // 1024**exponent}{'BKMGT'[exponent]}"


def _toml(text: str) -> str:
    import json

    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def _read(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8")
    except FileNotFoundError:
        return ""
    except UnicodeDecodeError as error:
        raise UsageError("the configuration file is not UTF-8 text", about=str(path)) from error
    except OSError as error:
        kind = Denied if isinstance(error, PermissionError) else UsageError
        raise kind(f"cannot read the configuration file: {error.strerror}", about=str(path)) from error


@contextmanager
def _locked(directory: Path) -> Iterator[None]:
    """One writer at a time, in a directory that is made if it is missing."""
    import fcntl

    directory.mkdir(parents=True, exist_ok=True)
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _replace(path: Path, text: str) -> None:
    from shutil import copymode
    from tempfile import mkstemp

    path = path.resolve()  # a link stays a link
    handle, name = mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "w", encoding="utf-8", newline="") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        if path.exists():
            copymode(path, name)
            with suppress(PermissionError):  # only root may give a file away
                os.chown(name, path.stat().st_uid, path.stat().st_gid)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def difference(edit: Edit) -> str:
    """The edit as a unified diff, harmless to show."""
    from difflib import unified_diff

    before, after = edit.before.splitlines(), edit.after.splitlines()
    lines = unified_diff(before, after, str(edit.path), str(edit.path), lineterm="")
    return "".join(f"{printable(line)}\n" for line in lines)
