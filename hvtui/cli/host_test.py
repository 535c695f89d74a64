"""`hvtui host test`: each leg from here to hosts, and from host to host, with what was seen and what to do."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from itertools import permutations
from typing import TYPE_CHECKING

import click

from host.errors import Blocked, UsageError
from host.host_test import Subject, test_host
from host.legs import Leg, LegState
from host.many_hosts import ask_each
from host.pair_test import test_pair
from host.text import printable
from hvtui.cli.grammar import option, verb
from hvtui.cli.output import Column, Format, narrate, write_list, write_table
from hvtui.cli.session import Session
from hvtui.target import choose_entries

if TYPE_CHECKING:
    from host.host_list import HostEntry

TIMEOUT_S = 120.0  # several commands over ssh, each of which may wait

COLUMNS: tuple[Column[Leg], ...] = (
    Column("host", "The host that was tried; with a `peer`, the one from which.", lambda leg: leg.host, in_table=True),
    Column("peer", "The host it goes to, or null for a leg from here.", lambda leg: leg.peer or None, title="TO",
           in_table=True),
    Column("leg", "What was tried.", lambda leg: leg.name, in_table=True),
    Column("result", "ok, warn (not for every VM), fail, or unknown (cannot be tried from here).",
           lambda leg: leg.state.value, in_table=True),
    Column("seen", "What came of it, in words.", lambda leg: leg.seen, in_table=True),
    Column("remedy", "What to do about it, or null.", lambda leg: leg.remedy or None, in_table=True),
)  # fmt: skip


@verb(
    "test",
    click.Argument(["names"], nargs=-1),
    option("--pair", "pairs", nargs=2, multiple=True, metavar="A B", text="These two, both ways (several times)."),
    text="Try each leg to hosts: all, or those of NAMES; between two or more of NAMES both ways, too. Changes nothing.",
)
def test(session: Session, names: tuple[str, ...], pairs: tuple[tuple[str, str], ...]) -> int:
    entries = _entries(session, names, pairs)
    ways = [*pairs, *((b, a) for a, b in pairs)] if pairs else []
    ways += permutations(dict.fromkeys(names), 2)
    hosts = {entry.name: session.open_entry(entry) for entry in entries}
    try:
        legs = _try_all([Subject(entry, hosts[entry.name]) for entry in entries], ways, session.timeout_s or TIMEOUT_S)
    finally:
        for host in hosts.values():
            host.close()
    if session.output is Format.TABLE and not session.columns:
        _write_table(legs)
    else:
        write_list(legs, COLUMNS, output=session.output, chosen=session.columns)
    return Blocked.exit_code if any(leg.state is LegState.FAIL for leg in legs) else 0


def _entries(session: Session, names: Sequence[str], pairs: Sequence[tuple[str, str]]) -> tuple[HostEntry, ...]:
    """The hosts that are tried. Raises NotFound, UsageError."""
    if any(a == b for a, b in pairs):
        raise UsageError("a pair is two hosts", remedy="Name another one")
    wanted = [*names, *(name for pair in pairs for name in pair)]
    if not wanted:
        return session.entries()
    return choose_entries(tuple(dict.fromkeys(wanted)), (), session.config())


def _try_all(tested: Sequence[Subject], ways: Sequence[tuple[str, str]], timeout_s: float) -> list[Leg]:
    """Hosts first, all at once; then the ways between those that answer."""
    by_name = {each.entry.name: each for each in tested}
    hosts = [(each, "", partial(test_host, each.entry, each.host)) for each in tested]
    found = _legs(hosts, timeout_s)
    dead = {leg.host for leg in found if leg.state is LegState.FAIL}
    open_ways = [(by_name[a], b, partial(test_pair, by_name[a], by_name[b])) for a, b in ways if not {a, b} & dead]
    return found + _legs(open_ways, timeout_s)


def _legs(questions: Sequence[tuple[Subject, str, Callable[[], tuple[Leg, ...]]]], timeout_s: float) -> list[Leg]:
    """Every question's legs; one that takes too long is a leg of its own."""
    answers = ask_each([(tested.host, look) for tested, _, look in questions], timeout_s=timeout_s)
    found: list[Leg] = []
    for (tested, peer, _), answer in zip(questions, answers, strict=True):
        late = Leg("answer", LegState.FAIL, str(answer.error), "", tested.entry.name, peer)
        found += answer.value if answer.value is not None else [late]
    return found


def _write_table(legs: Sequence[Leg]) -> None:
    """The legs, without the limit of a list's cells, and what to do about them below."""
    rows = [
        [printable(text, limit=160) for text in (leg.host, leg.peer or "–", leg.name, leg.state.value, leg.seen)]
        for leg in legs
    ]
    write_table(["HOST", "TO", "LEG", "RESULT", "SEEN"], rows)
    for leg in legs:
        if leg.remedy and leg.state is not LegState.OK:
            where = f"{leg.host} to {leg.peer}" if leg.peer else leg.host
            narrate(printable(f"{where}, {leg.name}: {leg.remedy}"))
