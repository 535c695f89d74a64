"""`hvtui profile`: what new VMs get (hardware) and what their guests shall be (guest), kept in the library."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from host.errors import NotFound, UsageError
from host.text import printable
from host.units import format_bytes
from hvtui.cli.grammar import LIBRARY_HELP, Noun, Verbs, option, verb
from hvtui.cli.output import (
    Column,
    Format,
    complain,
    narrate,
    paint,
    record,
    write_json,
    write_list,
    write_records,
    write_text,
)
from hvtui.cli.profile_words import told_as_options
from hvtui.cli.session import Session
from vm.profile_model import HardwareProfile
from vm.template_model import DEFAULT_LIBRARY

if TYPE_CHECKING:
    from collections.abc import Callable

    from host.plan import Json, Plan
    from vm.profile_model import GuestProfile
    from vm.profile_store import Entry
    from vm.profiles import Profile

VERBS: Verbs = {
    "list": ("hvtui.cli.profile:list_", "List the profiles, the built-in ones too."),
    "show": ("hvtui.cli.profile:show", "Show a profile as TOML."),
    "add": ("hvtui.cli.profile:add", "Store a profile: from a file, or made of settings."),
    "edit": ("hvtui.cli.profile:edit", "Change a stored profile."),
    "remove": ("hvtui.cli.profile:remove", "Remove stored profiles."),
    "check": ("hvtui.cli.profile:check", "Say what is wrong with a profile's file; needs no host."),
}

profile = Noun(
    "profile",
    verbs=VERBS,
    help="Profiles of new VMs: hardware (CPUs, memory, cards) and guest (users, keys, packages, network).",
)

KINDS = ("hardware", "guest")
HIDDEN_SETTINGS = frozenset({"password-hash", "run"})  # what the journal must not hold


def _summary(entry: Entry) -> str:
    found = entry.profile
    return _hardware_summary(found) if isinstance(found, HardwareProfile) else _guest_summary(found)


def _hardware_summary(found: HardwareProfile) -> str:
    parts = [f"{found.vcpus} vCPU", format_bytes(found.memory_bytes)]
    parts += [f"disk {format_bytes(found.disk_bytes)}"] if found.disk_bytes else []
    parts += [found.firmware.value] if found.firmware else []
    parts += ["TPM"] if found.tpm else []
    return ", ".join((*parts, *_networks(found)))


def _networks(found: HardwareProfile) -> list[str]:
    names = [nic.network for nic in found.nics]
    return ["no network"] if not names else [f"on {' and '.join(names)}"] if names != ["auto"] else []


def _guest_summary(found: GuestProfile) -> str:
    users = [f"users {', '.join(user.name for user in found.users)}"] if found.users else []
    keys = sum(len(user.ssh_keys) for user in found.users)
    network = [", ".join(found.network.addresses)] if found.network.is_static else []
    counted = ((keys, "ssh key"), (len(found.packages), "package"), (len(found.run), "command"))
    counts = [f"{count} {what}{'s' if count > 1 else ''}" for count, what in counted if count]
    free = ["user data"] if found.user_data else []
    return ", ".join((*users, *counts, *network, *free)) or "nothing"


def _document(entry: Entry) -> Json:
    from vm.profiles import to_document

    return to_document(entry.profile)


COLUMNS: tuple[Column[Entry], ...] = (
    Column("name", "The profile's name.", lambda entry: entry.name, in_table=True),
    Column("kind", "hardware or guest.", lambda entry: entry.kind, in_table=True),
    Column(
        "source",
        "built-in, or library for a stored one.",
        lambda entry: "library" if entry.volume else "built-in",
        in_table=True,
    ),
    Column("summary", "What it says, in words.", _summary, in_table=True),
    Column("description", "Free text.", lambda entry: entry.profile.description or None, in_table=True),
    Column("revision", "How often it was stored, or null.", lambda entry: entry.revision or None, right=True),
    Column("volume", "The volume that holds it, or null.", lambda entry: entry.volume or None),
    Column("profile", "All of it, with the keys of its TOML.", _document, extra=True),
)


def _complete_names(context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[Any]:
    from click.shell_completion import CompletionItem

    from host.errors import HvtuiError
    from hvtui.cli.completion import PATIENCE_S
    from vm.profile_store import is_path, read

    if is_path(incomplete):
        return [CompletionItem(incomplete, type="file")]
    session = context.ensure_object(Session)
    session.given.setdefault("timeout", PATIENCE_S)
    try:
        found = read(session.host(), session.library(context.params.get("library")))
    except (HvtuiError, OSError):
        return []
    return [CompletionItem(name) for name in sorted({e.name for e in found.entries}) if name.startswith(incomplete)]


def _complete_settings(_context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[Any]:
    from click.shell_completion import CompletionItem

    from vm.profiles import SETTINGS

    return [CompletionItem(f"{key}=", help=text) for key, text in SETTINGS.items() if key.startswith(incomplete)]


def library_option() -> click.Option:
    """--library: the storage pool that the profiles are in."""
    return option("--library", metavar="POOL", text=LIBRARY_HELP)


def kind_option() -> click.Option:
    return option("--kind", type=click.Choice(KINDS), text="Which one, where there are both of that name.")


def settings_option() -> click.Option:
    """--set KEY=VALUE, as often as needed."""
    return option(
        "--set",
        "settings",
        multiple=True,
        metavar="KEY=VALUE",
        text="Set one value, as memory=2G or user=alice (may be repeated).",
        shell_complete=_complete_settings,
    )


@verb(
    "list",
    option("--kind", type=click.Choice(KINDS), text="Of this kind."),
    library_option(),
    text="List the profiles: those stored in the library, and the built-in ones.",
)
def list_(session: Session, kind: str | None, library: str | None) -> None:
    from vm.profile_store import read

    found = read(session.host(), session.library(library))
    entries = [entry for entry in found.entries if kind in {None, entry.kind}]
    write_list(entries, COLUMNS, output=session.output, chosen=session.columns)
    _tell_problems(found.problems)


def _tell_problems(problems: Sequence[str]) -> None:
    for problem in problems:
        narrate(f"{paint('warning:', 'yellow', sys.stderr)} {printable(problem)}")


@verb(
    "show",
    click.Argument(["name"], metavar="NAME|FILE", shell_complete=_complete_names),
    kind_option(),
    library_option(),
    text="Show a profile as TOML, ready to be a file: hvtui profile show small > small.toml",
)
def show(session: Session, name: str, kind: str | None, library: str | None) -> None:
    found = [entry for entry in _entries(session, name, library) if kind in {None, entry.kind}]
    if not found:
        raise NotFound(f"there is no {kind} profile {printable(name, limit=60)!r}", remedy="Leave --kind out")
    if session.output is Format.TABLE:
        for entry in found:
            _write_toml(entry.profile)
    elif session.output is Format.JSON and len(found) == 1:
        write_json(record(found[0], COLUMNS))
    else:
        write_records([record(entry, COLUMNS) for entry in found], session.output)


def _write_toml(found: Profile) -> None:
    """As it is where a program reads it; on a terminal no character of it does anything."""
    from vm.profiles import to_toml

    text = to_toml(found)
    if sys.stdout.isatty():
        text = "\n".join(printable(line.expandtabs()) for line in text.split("\n"))
    write_text(text)


def _entries(session: Session, name: str, library: str | None) -> tuple[Entry, ...]:
    """The profiles that a word means: one in a file, or those of that name. Raises NotFound with the nearest."""
    from vm.profile_store import Entry, is_path, kind_of, load, read, read_file

    if is_path(name):
        found = read_file(name)
        return (Entry(kind_of(found), found),)
    pool = session.library(library)
    profiles = read(session.host(), pool)
    if not profiles.named(name):
        load(session.host(), pool, name)  # it knows how to say what is near
    _tell_problems(profiles.problems)
    return profiles.named(name)


@verb(
    "add",
    click.Argument(["source"], metavar="FILE|NAME"),
    option("--kind", type=click.Choice(KINDS), text="For a NAME: what is made of the settings."),
    option("--name", metavar="NAME", text="For a FILE: store it under this name, not that of the file."),
    settings_option(),
    library_option(),
    text="Store a profile: that of a FILE (it holds a slash or ends in .toml), or a new one of that NAME, made of "
    "settings: hvtui profile add web --kind hardware --set memory=2G --set vcpus=2",
)
def add(
    session: Session, source: str, kind: str | None, name: str | None, settings: tuple[str, ...], library: str | None
) -> int:
    from dataclasses import replace

    from hvtui.cli.change import change
    from vm.profile_store import is_path, plan_add_profile, read_file
    from vm.profile_values import profile_name

    found = read_file(source) if is_path(source) else _new(source, kind)
    changed = _with_settings(replace(found, name=profile_name(name or found.name)), settings, kind)
    words = ("--name", name) if name else ()
    host, pool = session.host(), session.library(library)
    command = _command("add", source, changed, settings, pool, extra=words)
    making: Callable[[], Plan] = lambda: plan_add_profile(host, pool, changed, command=command)  # noqa: E731
    return change(session, [(changed.name, None, making)])


def _new(name: str, kind: str | None) -> Profile:
    """A new profile, or what is built in under that name."""
    from vm.profile_model import GuestProfile
    from vm.profile_store import BUILT_IN, DEFAULT_GUEST, suggested_guest

    if kind is None:
        remedy = "Add --kind hardware or --kind guest; a file is named with .toml or a slash"
        raise UsageError(f"{printable(name, limit=60)!r} is a name, and nothing says of what kind", remedy=remedy)
    if kind == "guest":
        return suggested_guest() if name == DEFAULT_GUEST else GuestProfile(name=name)
    return next((each for each in BUILT_IN if each.name == name), HardwareProfile(name=name))


def _with_settings(found: Profile, settings: Sequence[str], kind: str | None) -> Profile:
    """The profile with the settings, which must be of its kind. Raises UsageError."""
    from vm.profile_model import GuestProfile
    from vm.profile_store import kind_of
    from vm.profiles import override

    if kind is not None and kind != kind_of(found):
        raise UsageError(f"it is a {kind_of(found)} profile", about=found.name, remedy="Leave --kind out")
    is_hardware = isinstance(found, HardwareProfile)
    hardware = found if isinstance(found, HardwareProfile) else HardwareProfile()
    guest = GuestProfile() if isinstance(found, HardwareProfile) else found
    with told_as_options():
        changed_hardware, changed_guest = override(hardware, guest, *settings)
    strays = changed_guest != guest if is_hardware else changed_hardware != hardware
    if strays:
        other = "guest" if is_hardware else "hardware"
        problem = f"a setting is one of {other} profiles, and this is a {kind_of(found)} profile"
        raise UsageError(problem, about=found.name, remedy=f"Put it into a {other} profile")
    return changed_hardware if is_hardware else changed_guest


def _command(
    verb_: str, word: str, found: Profile, settings: Sequence[str], library: str, *, extra: tuple[str, ...] = ()
) -> tuple[str, ...]:
    """The words of the equivalent command, without what may be secret."""
    from vm.profile_store import is_path, kind_of

    words = ["profile", verb_, str(Path(word).expanduser().absolute()) if is_path(word) else word]
    words += [] if is_path(word) else ["--kind", kind_of(found)]
    words += extra
    for setting in settings:
        key, _, value = setting.partition("=")
        words += ["--set", f"{key}={'…' if key in HIDDEN_SETTINGS and value else value}"]
    return (*words, *(("--library", library) if library != DEFAULT_LIBRARY else ()))


@verb(
    "edit",
    click.Argument(["name"], shell_complete=_complete_names),
    kind_option(),
    settings_option(),
    option("--file", "source", metavar="FILE", text="Take the new text from FILE (- is standard input)."),
    library_option(),
    text="Change a stored profile: by settings, by a file, or in $VISUAL or $EDITOR. VMs that were made with it stay "
    "as they are.",
)
def edit(
    session: Session, name: str, kind: str | None, settings: tuple[str, ...], source: str | None, library: str | None
) -> int:
    from hvtui.cli.change import change
    from hvtui.cli.editor import draft
    from vm.profile_store import plan_add_profile
    from vm.profiles import to_toml

    entry = _stored(session, name, kind, library)
    host, pool = session.host(), session.library(library)

    def plan(text: str, words: tuple[str, ...] = ()) -> Plan:
        changed = _with_settings(_parsed(text, entry), settings, None)
        command = _command("edit", name, changed, settings, pool, extra=words)
        return plan_add_profile(host, pool, changed, replaces=True, command=command)

    before = to_toml(entry.profile)
    if settings or source:
        after = _read(source) if source else before
        if _with_settings(_parsed(after, entry), settings, None) == entry.profile:
            narrate("Nothing changed")
            return 0
        words = ("--file", source) if source else ()
        return change(session, [(name, None, lambda: plan(after, words))])
    with draft(before, f"{name}.{entry.kind}.toml") as text:
        made = text.edit(plan)
        if made is None:
            narrate("Nothing changed")
            return 0
        code = change(session, [(name, None, lambda: made)], ask=True)
        text.is_applied = code == 0 and not session.dry_run
    return code


def _parsed(text: str, entry: Entry) -> Profile:
    """The edited text as a profile of the same kind and name. Raises UsageError."""
    from dataclasses import replace

    from vm.profiles import parse_guest, parse_hardware

    read = parse_hardware if entry.kind == "hardware" else parse_guest
    return replace(read(text, f"{entry.name}.{entry.kind}.toml"), name=entry.name)


def _read(source: str) -> str:
    from vm.profile_toml import LARGEST_FILE_BYTES

    if source == "-":
        return sys.stdin.read(LARGEST_FILE_BYTES + 1)
    try:
        with Path(source).open(encoding="utf-8", errors="replace") as file:
            return file.read(LARGEST_FILE_BYTES + 1)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise NotFound("there is no such file", about=source) from error


def _stored(session: Session, name: str, kind: str | None, library: str | None) -> Entry:
    """The stored profile of that name. Raises NotFound, and UsageError for a built-in one or where both kinds fit."""
    from vm.profile_store import is_path

    if is_path(name):
        raise UsageError(f"{printable(name, limit=60)!r} is a file", remedy="Edit it itself; 'profile add' stores it")
    found = [entry for entry in _entries(session, name, library) if kind in {None, entry.kind}]
    stored = [entry for entry in found if entry.volume]
    if not stored:
        wanted = f"{kind or found[0].kind} profile {printable(name, limit=60)}"
        if not found:
            raise NotFound(f"there is no {wanted}", remedy="Leave --kind out")
        remedy = f"Store one of your own in its place: 'hvtui profile add {name} --kind {found[0].kind}'"
        raise UsageError(f"the {wanted} is built in", remedy=remedy)
    if len(stored) > 1:
        raise UsageError(f"{name} is both a hardware and a guest profile", remedy="Say which with --kind")
    return stored[0]


@verb(
    "remove",
    click.Argument(["names"], nargs=-1, required=True, metavar="NAMES...", shell_complete=_complete_names),
    kind_option(),
    library_option(),
    text="Remove stored profiles. VMs that were made with them stay as they are.",
)
def remove(session: Session, names: tuple[str, ...], kind: str | None, library: str | None) -> int:
    from hvtui.cli.change import change
    from vm.profile_store import plan_remove_profile

    host, pool = session.host(), session.library(library)

    def planner(name: str) -> Callable[[], Plan]:
        return lambda: plan_remove_profile(host, pool, name, _stored(session, name, kind, library).kind)

    return change(session, [(name, None, planner(name)) for name in dict.fromkeys(names)])


@verb(
    "check",
    click.Argument(["files"], nargs=-1, required=True, metavar="FILES...", type=click.Path()),
    text="Read profiles' files and say what is wrong with them. Needs no host and changes nothing.",
)
def check(session: Session, files: tuple[str, ...]) -> int:
    from host.errors import HvtuiError
    from hvtui.cli.change import overall
    from vm.profile_store import Entry, kind_of, read_file

    results: list[dict[str, Json]] = []
    codes: list[int] = []
    for file in files:
        entry: Entry | None = None
        error: HvtuiError | None = None
        try:
            found = read_file(file)
            entry = Entry(kind_of(found), found)
        except HvtuiError as problem:
            error = problem
            complain(str(problem))
        codes.append(error.exit_code if error else 0)
        results.append(_verdict(file, entry, error))
        if entry is not None and session.output is Format.TABLE:
            write_text(printable(f"{file}: a {entry.kind} profile: {_summary(entry)}", limit=500))
    if session.output is not Format.TABLE:
        write_records(results, session.output)
    return overall(codes)


def _verdict(file: str, entry: Entry | None, error: Any) -> dict[str, Json]:
    return {
        "file": file,
        "kind": entry.kind if entry else None,
        "valid": error is None,
        "summary": _summary(entry) if entry else None,
        "error": error.cause if error else None,
        "remedy": (error.remedy or None) if error else None,
    }
