"""Which jobs of the journal hold a VM: one job a VM at a time, on every host that the job changes it on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from host.job_codec import from_text, storable
from host.job_rules import is_same_vm
from host.plan import Plan

if TYPE_CHECKING:
    import sqlite3


def holders_of(database: sqlite3.Connection, plan: Plan) -> list[int]:
    """The ids of the jobs that hold the VM of `plan` on any of its hosts."""
    found = (
        holders(database, host_uri=uri, vm_uuid=plan.vm_uuid, vm_name=plan.vm_name)
        for uri in (plan.host_uri, *plan.also_on)
    )
    return sorted({job_id for ids in found for job_id in ids})


def holders(
    database: sqlite3.Connection, *, host_uri: str | None, vm_uuid: str | None, vm_name: str | None
) -> list[int]:
    """The ids of the jobs that hold the VM on that host, on any with None. A VM that is yet to be made has no uuid: its
    name decides."""
    columns = "id, host_uri, also_on, vm_uuid, vm_name"
    rows = database.execute(f"SELECT {columns} FROM jobs WHERE holds ORDER BY id").fetchall()  # noqa: S608 - constants
    uri, name = None if host_uri is None else storable(host_uri), None if vm_name is None else storable(vm_name)
    return [
        row["id"]
        for row in rows
        if (uri is None or uri == row["host_uri"] or uri in from_text(row["also_on"]))
        and is_same_vm((row["vm_uuid"], row["vm_name"]), (vm_uuid, name))
    ]
