"""`hvtui vm export`: vm.export makes the plan."""

from __future__ import annotations

from pathlib import Path

import click

from hvtui.cli.change import change
from hvtui.cli.chosen import one_vm
from hvtui.cli.grammar import name_argument, option, verb
from hvtui.cli.session import Session


@verb(
    "export",
    name_argument(),
    option(
        "--to",
        "directory",
        required=True,
        type=click.Path(path_type=Path, file_okay=False),
        metavar="DIR",
        text="The bundle's directory, on this machine; it is made, in a directory that is there.",
    ),
    option("--leave-out", multiple=True, metavar="DISK", text="Leave this disk (its target) out (may be repeated)."),
    text="Export a VM that is off to a bundle: definition, disks, firmware variables and TPM state, with checksums. "
    "The bundle holds secrets: it is for its owner alone.",
)
def export(session: Session, name: str, directory: Path, leave_out: tuple[str, ...]) -> int:
    from vm.export import plan_export

    vm, host = one_vm(session, name), session.host()
    return change(session, [(vm.name, vm.uuid, lambda: plan_export(host, vm, directory, leave_out=leave_out))])
