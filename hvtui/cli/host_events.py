"""`hvtui host events`: what happens to the VMs of a host, or of several."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import click

from host.connection import Link
from hvtui.cli.grammar import option, verb
from hvtui.cli.session import Session
from hvtui.cli.streaming import Source, end_of, events_of, link_record, writer
from vm import inventory

if TYPE_CHECKING:
    from host.events import Event
    from hvtui.cli.output import Record
    from hvtui.cli.streams_of_many import Tell

EVENT_KEYS = ("at", "kind", "vm", "uuid", "detail", "host")
EVENT_TABLE = ("at", "kind", "vm", "detail")


@verb(
    "events",
    option("--count", type=click.IntRange(min=1), metavar="N", text="End after N events."),
    option("--vm", "vm_name", metavar="NAME", text="Of this VM only (name or UUID)."),
    text="Stream what happens to VMs, as JSON lines, until Ctrl-C or for --timeout seconds.",
)
def events(session: Session, count: int | None, vm_name: str | None) -> int:
    if session.is_many:
        return _of_many(session, count, vm_name)
    host = session.host()
    uuids = None if vm_name is None else frozenset({inventory.find(host, vm_name).uuid})
    write = writer(session, EVENT_KEYS, in_table=EVENT_TABLE)
    source = Source(host)
    source.start()
    _write(_records(source, uuids, session.timeout_s), write, count)
    return 0


def _of_many(session: Session, count: int | None, vm_name: str | None) -> int:
    """Of each host that the options name; 6 when one of them does not answer in the end. A VM is told of wherever it
    is: it may move."""
    from hvtui.cli.many import listed_everywhere
    from hvtui.cli.streams_of_many import Streams

    found = None if vm_name is None else listed_everywhere(session, [vm_name])[0]
    uuids = None if found is None else frozenset(vm.uuid for vm in found)

    def follow(source: Source, tell: Tell) -> None:
        for record in _records(source, uuids, session.timeout_s):
            tell(record)

    write = writer(session, EVENT_KEYS, in_table=("host", *EVENT_TABLE))
    streams = Streams(session.hosts(), follow)
    _write(streams.lines(end_s=end_of(session.timeout_s)), write, count)
    return streams.exit_code


def _records(source: Source, uuids: frozenset[str] | None, limit_s: float | None) -> Iterator[Record]:
    """The lines of the links and of the events of these VMs (None: of all)."""
    name = source.host.name
    for each in events_of(source, limit_s=limit_s):
        if isinstance(each, Link):
            yield link_record(name, each)
        elif uuids is None or each.vm_uuid in uuids:
            yield _record(name, each)


def _record(host_name: str, event: Event) -> Record:
    at, kind = event.at.isoformat(timespec="milliseconds"), event.kind.value
    of = {"vm": event.vm_name, "uuid": event.vm_uuid}
    return {"at": at, "kind": kind, "host": host_name, **of, "detail": event.detail}


def _write(records: Iterator[Record], write: Callable[[Record], None], count: int | None) -> None:
    """Write them all, or until `count` events were told."""
    told = 0
    for record in records:
        write(record)
        told += record["kind"] != "link"
        if told == count:
            return
