"""`hvtui vm clone`: vm.clone makes the plans."""

from __future__ import annotations

from collections.abc import Iterator

import click

from hvtui.cli.chosen import one_vm
from hvtui.cli.grammar import name_argument, option, verb
from hvtui.cli.session import Session


@verb(
    "clone",
    name_argument(),
    click.Argument(["pattern"], metavar="NEW"),
    option("-n", "--count", type=click.IntRange(min=1), default=1, metavar="N", text="How many."),
    option("--first", type=click.IntRange(min=0), default=1, metavar="N", text="The first one's number (1)."),
    option("--linked/--full", default=False, text="Overlays on a frozen base, or whole copies (the default)."),
    option("--start", is_flag=True, text="Start them."),
    option("--pool", metavar="NAME", default="", text="The storage pool of the new disks (where the origin's are)."),
    text="Make clones of a VM, each with an identity of its own. A running VM is copied whole from disks frozen at one "
    "moment. --linked needs a VM that is off: it goes on with an overlay, and its disks so far become the base. NEW "
    "may hold a field for the number:\nhvtui vm clone web 'web-{:02}' -n 5",
)
def clone(
    session: Session, name: str, pattern: str, count: int, first: int, linked: bool, start: bool, pool: str
) -> int:
    from hvtui.cli.change_set import change_set
    from vm.clone import plan_clone
    from vm.name_patterns import expand

    names = expand(pattern, count, first)
    vm, host = one_vm(session, name), session.host()
    command = ("vm", "clone", *_words(count, first, linked, start, pool), *_names(name, pattern))
    return change_set(
        session,
        lambda: plan_clone(host, vm, names, linked=linked, start=start, pool=pool, command=command),
    )


def _names(name: str, pattern: str) -> tuple[str, ...]:
    return (*(("--",) if name.startswith("-") or pattern.startswith("-") else ()), name, pattern)


def _words(count: int, first: int, linked: bool, start: bool, pool: str) -> Iterator[str]:
    if count != 1:
        yield from ("-n", str(count))
    if first != 1:
        yield from ("--first", str(first))
    if linked:
        yield "--linked"
    if start:
        yield "--start"
    if pool:
        yield from ("--pool", pool)
