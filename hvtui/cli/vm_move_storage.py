"""`hvtui vm move-storage`: vm.storage_move makes the plan."""

from __future__ import annotations

from hvtui.cli.change import change
from hvtui.cli.chosen import one_vm
from hvtui.cli.grammar import name_argument, option, verb
from hvtui.cli.session import Session


@verb(
    "move-storage",
    name_argument(),
    option("--to", "pool", required=True, metavar="POOL", text="The storage pool that the disks go to."),
    option("--disk", "disks", multiple=True, metavar="DISK", text="Only this disk (its target; may be repeated)."),
    text="Move a VM's disks to another storage pool of its host, while it runs or not. A disk that builds on another "
    "image goes on building on it. The old disks are removed when nobody else uses them.",
)
def move_storage(session: Session, name: str, pool: str, disks: tuple[str, ...]) -> int:
    from vm.storage_move import plan_storage_move

    vm, host = one_vm(session, name), session.host()
    return change(session, [(vm.name, vm.uuid, lambda: plan_storage_move(host, vm, pool, disks))])
