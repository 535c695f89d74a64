"""`hvtui host whatif`: what if a host died now?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import click

from host.errors import NotFound
from host.text import printable
from hvtui.cli.grammar import verb
from hvtui.cli.output import Column, Format, narrate, write_list, write_text
from hvtui.cli.placing import Hosts
from hvtui.cli.session import Session

if TYPE_CHECKING:
    from vm.whatif import WhatIf

EXIT_NO_PLACE = 1


@dataclass(frozen=True, slots=True)
class _Row:
    lost: str
    vm: str
    host: str | None
    why_not: str | None


COLUMNS: tuple[Column[_Row], ...] = (
    Column("lost", "The host that is lost.", lambda row: row.lost, in_table=True),
    Column("vm", "A VM that runs there.", lambda row: row.vm, in_table=True),
    Column("host", "Where it would come up, or null.", lambda row: row.host, in_table=True),
    Column("why_not", "Why it has no place, or null.", lambda row: row.why_not, in_table=True, whole=True),
)


@verb(
    "whatif",
    click.Argument(["name"], required=False),
    text="What if a host died now: where each of its running VMs would come up (its disks must be seen there), and "
    "which would not. Without NAME each host in turn. Exit code 1 when a VM would have no place.",
)
def whatif(session: Session, name: str | None) -> int:
    from vm import whatif as losses

    with Hosts(session, own=not session.has_other_hosts) as hosts:
        entries, pictures = hosts.entries, hosts.pictures()
    silent = [picture for picture in pictures if not picture.is_reachable]
    for picture in silent:
        narrate(f"{printable(picture.name)}: {printable(picture.problem, limit=300)}")
    if name is not None:
        if all(entry.name != name for entry in entries):
            known = ", ".join(sorted(entry.name for entry in entries))
            raise NotFound("no such host", about=name, remedy=f"Known hosts: {known}")
        found = [losses.whatif(pictures, name)]
    else:
        found = [losses.whatif(pictures, picture.name) for picture in pictures if picture.is_reachable]
    rows = [row for loss in found for row in _rows(loss)]
    is_table = session.output is Format.TABLE
    if not is_table or rows:
        write_list(rows, COLUMNS, output=session.output, chosen=session.columns)
    if is_table:
        told = _sum(found[0]) if name is not None else losses.n_minus_1(pictures).text
        write_text(printable(told, limit=300))
    is_known = name is None or all(picture.name != name for picture in silent)
    return 0 if all(loss.is_ok for loss in found) and is_known and (name or not silent) else EXIT_NO_PLACE


def _sum(loss: WhatIf) -> str:
    running = len(loss.placed) + len(loss.unplaced)
    if not running:
        return f"{loss.host}: nothing runs there"
    if loss.is_ok:
        those = f"each of its {running} VMs" if running > 1 else "its VM"
        return f"{loss.host}: {those} would have a place"
    return f"{loss.host}: {len(loss.unplaced)} of its {running} VMs would have no place"


def _rows(loss: WhatIf) -> list[_Row]:
    placed = [_Row(loss.host, vm, host, None) for vm, host in loss.placed.items()]
    return [*placed, *(_Row(loss.host, vm, None, why) for vm, why in loss.unplaced.items())]
