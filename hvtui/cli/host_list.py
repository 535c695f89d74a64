"""`hvtui host list|add|remove`: the list of hosts in the configuration file, and which of them answer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import click

from host import maintenance
from host.errors import HvtuiError, UsageError
from host.host_brief import HostBrief, read_brief
from host.host_list import DEFAULT_LIBRARY, HostEntry
from host.many_hosts import Answer, ask_all
from host.text import printable
from hvtui.cli.grammar import option, verb
from hvtui.cli.output import Column, Format, narrate, write_json, write_list, write_text
from hvtui.cli.session import Session

if TYPE_CHECKING:
    from collections.abc import Callable

    from host.connection import Host
    from host.maintenance import Maintenance
    from host.plan import Json
    from hvtui.config_edit import Edit

TIMEOUT_S = 10.0
MOST_TRIED_S = 30.0  # for a first connection over ssh


@dataclass(frozen=True, slots=True)
class _Row:
    entry: HostEntry
    answer: Answer[HostBrief]
    note: Maintenance | None


def _told(key: str) -> Callable[[_Row], Json]:
    return lambda row: getattr(row.answer.value, key) if row.answer.value is not None else None


COLUMNS: tuple[Column[_Row], ...] = (
    Column("name", "Its name in the list of hosts.", lambda row: row.entry.name, in_table=True),
    Column("uri", "The libvirt URI by which it is reached from here.", lambda row: row.entry.uri, in_table=True),
    Column("groups", "The groups it belongs to.", lambda row: list(row.entry.groups), in_table=True),
    Column(
        "state",
        "reachable, or unreachable.",
        lambda row: "unreachable" if row.answer.error is not None else "reachable",
        in_table=True,
    ),
    Column(
        "drained",
        "Since when it is drained for maintenance, or null.",
        lambda row: row.note.since if row.note is not None and row.note.is_drained else None,
    ),
    Column("vms", "How many VMs it has.", _told("vms"), right=True, in_table=True),
    Column("active", "How many of them run.", _told("active"), right=True, in_table=True),
    Column("libvirt_version", "The version of its libvirt.", _told("libvirt_version"), title="LIBVIRT", in_table=True),
    Column("hypervisor_version", "The version of QEMU there.", _told("hypervisor_version"), title="QEMU",
           in_table=True),
    Column("driver", "QEMU, or TEST for a simulated host.", _told("driver")),
    Column("host_name", "What it calls itself.", _told("host_name")),
    Column(
        "error",
        "Why it cannot be reached, or null.",
        lambda row: row.answer.error.cause if row.answer.error else None,
        title="WHY NOT",
    ),
    Column(
        "remedy",
        "What to do about it, or null.",
        lambda row: row.answer.error.remedy if row.answer.error else None,
    ),
    Column("answered_ms", "How long it took to answer.", lambda row: _milliseconds(row.answer), right=True),
    Column("migration_address", "Where other hosts send a VM's memory to.", lambda row: row.entry.address),
    Column("peer_uri", "The URI by which other hosts reach it.", lambda row: row.entry.peer),
    Column("library", "Its pool of templates.", lambda row: row.entry.library),
    Column(
        "reserve_memory_bytes", "What placement leaves to the host.", lambda row: row.entry.reserve_memory_bytes,
        right=True,
    ),
)  # fmt: skip


def _milliseconds(answer: Answer[HostBrief]) -> int | None:
    return None if answer.error is not None else round(answer.took_s * 1000)


@verb("list", text="List the configured hosts: whether they answer, their versions, how many VMs they have.")
def list_(session: Session) -> None:
    entries = session.entries()
    known = maintenance.read()
    identities: dict[str, str] = {}

    def look(host: Host) -> HostBrief:
        if known:
            identities[host.uri] = host.identity
        return read_brief(host)

    answers = ask_all(session.hosts(), look, timeout_s=session.timeout_s or TIMEOUT_S)
    rows = [
        _Row(entry, answer, maintenance.among(known, entry.uri, identities.get(entry.uri, "")))
        for entry, answer in zip(entries, answers, strict=True)
    ]
    chosen = session.columns
    if session.output is Format.TABLE and not chosen:
        failed = ("error",) if any(answer.error is not None for answer in answers) else ()
        drained = ("drained",) if any(row.note is not None and row.note.is_drained for row in rows) else ()
        chosen = (*(column.key for column in COLUMNS if column.in_table), *drained, *failed)
    write_list(rows, COLUMNS, output=session.output, chosen=chosen)


@verb(
    "add",
    click.Argument(["name"]),
    click.Argument(["uri"]),
    option("--migration-address", metavar="ADDRESS", text="Where other hosts send a VM's memory to."),
    option("--peer-uri", metavar="URI", text="The URI by which other hosts reach it."),
    option("--library", metavar="POOL", text="Its storage pool of templates."),
    option("--reserve-memory", metavar="SIZE", text="Memory that placement leaves to the host itself."),
    option("--test/--no-test", is_flag=True, default=True, text="Connect first, and add it only if it answers."),
    text="Add a host to the configuration file; --group puts it into a group (several times: into several).",
)
def add(
    session: Session,
    name: str,
    uri: str,
    migration_address: str | None,
    peer_uri: str | None,
    library: str | None,
    reserve_memory: str | None,
    test: bool,
) -> None:
    from host.units import parse_size
    from hvtui.config_edit import add_host, editable_file

    entry = HostEntry(
        name=name,
        uri=uri,
        groups=tuple(dict.fromkeys(session.given.get("group") or ())),
        migration_address=migration_address or "",
        peer_uri=peer_uri or "",
        library=library or DEFAULT_LIBRARY,
        reserve_memory_bytes=parse_size(reserve_memory) if reserve_memory else 0,
    )
    if not name or not name.isprintable() or name.startswith("-"):
        raise UsageError("this is no name for a host", about=name, remedy="Use letters, digits and '-'")
    edit = add_host(editable_file(), entry)
    if test:
        _try(session, entry, session.timeout_s or MOST_TRIED_S)
    _finish(session, edit, name, "added to")


@verb("remove", click.Argument(["name"]), text="Take a host out of the configuration file; the host itself goes on.")
def remove(session: Session, name: str) -> None:
    from hvtui.config_edit import editable_file, remove_host

    _finish(session, remove_host(editable_file(), name), name, "taken out of")


def _try(session: Session, entry: HostEntry, timeout_s: float) -> None:
    """Raise the error with which the host cannot be reached."""
    host = session.open_entry(entry)
    try:
        (answer,) = ask_all([host], read_brief, timeout_s=timeout_s)
    finally:
        host.close()
    if answer.error is not None:
        remedy = "It was not added; --no-test adds it all the same"
        raise type(answer.error)(answer.error.cause, about=entry.name, remedy=remedy) from answer.error
    if answer.value is not None:
        found = answer.value
        narrate(printable(f"{entry.name} answers: {found.host_name}, libvirt {found.libvirt_version}, {found.vms} VMs"))


def _finish(session: Session, edit: Edit, name: str, words: str) -> None:
    from hvtui.config_edit import difference

    if not session.dry_run:
        if session.read_only:
            raise HvtuiError("--read-only changes nothing", remedy="Leave it out, or look with --dry-run")
        edit.write()
    if session.output is not Format.TABLE:
        write_json({"name": name, "file": str(edit.path), "done": not session.dry_run, "change": difference(edit)})
    elif session.dry_run:
        write_text(difference(edit))
    else:
        narrate(printable(f"{name}: {words} {edit.path}"))
