"""`hvtui vm diff` and `hvtui vm align`: where VMs depart from their templates, and back again (vm.drift)."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from hvtui.cli.change import change_vms
from hvtui.cli.chosen import chosen_vms
from hvtui.cli.grammar import LIBRARY_HELP, names_argument, option, verb
from hvtui.cli.output import CELL_LIMIT, Column, Format, complain, narrate, write_list
from hvtui.cli.session import Session

if TYPE_CHECKING:
    from host.connection import Host
    from host.plan import Plan
    from vm.drift import Difference
    from vm.model import Vm

DIFFERS = 1
_WITH = option("--with", "other", metavar="TEMPLATE", text="Compare with this template, not the one it was made from.")
_LIBRARY = option("--library", metavar="POOL", text=LIBRARY_HELP)


@verb(
    "diff",
    names_argument(),
    option("--template", "by_template", is_flag=True, text="Compare with the template and profile (the default)."),
    _WITH,
    _LIBRARY,
    option("--check", is_flag=True, text="Exit with 1 when there is a difference."),
    text="Show where VMs depart from the template and the profile that they were made from.",
)
def diff(
    session: Session, names: tuple[str, ...], by_template: bool, other: str | None, library: str | None, check: bool
) -> int:
    from host.errors import NotFound, UsageError
    from host.text import printable
    from vm.drift import compare

    _ = by_template
    host = session.host()
    rows: list[tuple[Vm, Difference]] = []
    code = 0
    for vm in chosen_vms(session, names, config=True):
        try:
            drift = compare(host, vm, template=other or "", library=library or "", usual_library=session.library())
        except (NotFound, UsageError) as error:  # the others may be compared all the same
            complain(str(error))
            code = max(code, error.exit_code)
            continue
        rows += [(vm, each) for each in drift.differences]
        name = printable(vm.name, limit=80)
        if not drift.differences:
            narrate(f"{name} is as {drift.template} and its profile say")
        for note in drift.notes:
            narrate(f"{name}: {note}")
    if rows or session.output is not Format.TABLE:
        write_list(rows, COLUMNS, output=session.output, chosen=session.columns)
    return code or (DIFFERS if check and rows else 0)


COMMON_KEPT = 12  # characters of what both begin with, where the difference would be cut off


def _cell(text: str, other: str) -> str:
    """`text` for a table: at a terminal, what both begin with goes where the difference would not be seen else."""
    if not sys.stdout.isatty() or len(text) <= CELL_LIMIT:
        return text
    pairs = zip(text, other, strict=False)
    common = next((place for place, (one, two) in enumerate(pairs) if one != two), min(len(text), len(other)))
    return f"…{text[common - COMMON_KEPT :]}" if common > CELL_LIMIT // 2 else text


COLUMNS: tuple[Column[tuple[Vm, Difference]], ...] = (
    Column("vm", "The VM's name.", lambda row: row[0].name, in_table=True),
    Column("uuid", "Its UUID.", lambda row: row[0].uuid),
    Column("key", "What `vm align --only` takes.", lambda row: row[1].key, in_table=True),
    Column("what", "The same in words.", lambda row: row[1].title),
    Column(
        "expected",
        "What template and profile say.",
        lambda row: row[1].expected,
        lambda row: _cell(row[1].expected, row[1].found),
        in_table=True,
        whole=True,
    ),
    Column(
        "found",
        "What the VM has.",
        lambda row: row[1].found,
        lambda row: _cell(row[1].found, row[1].expected),
        in_table=True,
        whole=True,
    ),
    Column("can_align", "Whether `vm align` changes it.", lambda row: row[1].can_align, in_table=True),
    Column("why_not", "Why it does not.", lambda row: row[1].why_not or None),
)


@verb(
    "align",
    names_argument(),
    option("--only", "keys", multiple=True, metavar="KEY", text="Only this difference (may be repeated): see vm diff."),
    _WITH,
    _LIBRARY,
    text="Make VMs as their templates and profiles say; what is lost by it stays. Takes effect at the next start.",
)
def align(
    session: Session, names: tuple[str, ...], keys: tuple[str, ...], other: str | None, library: str | None
) -> int:
    from vm.drift import compare, plan_align

    def plan(host: Host, vm: Vm) -> Plan:
        usual = session.library()
        drift = compare(host, vm, template=other or "", library=library or "", usual_library=usual)
        return plan_align(host, vm, drift, keys)

    return change_vms(session, chosen_vms(session, names, config=True), plan)
