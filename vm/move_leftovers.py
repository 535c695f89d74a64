"""The step verb that removes the firmware variables which a live move left at the source: libvirt keeps the file.

QEMU sent them with the memory. The file goes only when the guest runs at the target, no VM of the source names it, and
the target was proved not to see the same directory.
"""

from __future__ import annotations

from host import volumes
from host.plan import Step
from host.steps import Args, Result, StepContext, StepVerb, register
from vm import host_files
from vm.disk_uses import read_world
from vm.domain_xml import parse
from vm.move_model import MoveDraft
from vm.move_sides import behind_the_hand_over, look


def forget_nvram_step(draft: MoveDraft) -> tuple[Step, ...]:
    """None for a VM without firmware variables, or one whose definition stays."""
    xml = draft.picture.migratable_xml or draft.picture.inactive_xml
    path = (parse(xml).findtext("os/nvram") or "").strip() if draft.picture.has_nvram and xml else ""
    if not path.startswith("/"):
        return ()
    title = f"Remove its firmware variables from {draft.picture.source_name}"
    return (Step("move.forget-nvram", title, {**draft.identity, "path": path}),)


def _forget(ctx: StepContext, args: Args) -> Result:
    with behind_the_hand_over():
        return {"removed": _forget_file(ctx, args)}


def _forget_file(ctx: StepContext, args: Args) -> bool:
    from host.shared_storage import prove_shared

    here, there = look(ctx, args)
    directory, name = host_files.split(args["path"])
    if here.is_there or not there.has_guest or not host_files.exists(ctx, directory, mark=args["mark"]):
        return False
    if prove_shared(ctx.host, ctx.peer(args["target"]), directory, args["mark"]):
        return False
    with host_files.directory_pool(ctx, directory, mark=args["mark"]) as pool:
        return pool is not None and _delete(ctx, args, pool, name)


def _delete(ctx: StepContext, args: Args, pool: str, name: str) -> bool:
    with ctx.calls("remove the firmware variables of", args["name"]) as connection:
        world = read_world(connection, ctx.host, without_uuid=args["uuid"], refresh=False)
        if world.look_up(world.users, args["path"]):
            return False
        volume = volumes.find_volume(connection.storagePoolLookupByName(pool), name)
        if volume is not None:
            volumes.delete(volume)
        return volume is not None


register(StepVerb("move.forget-nvram", _forget, None, lambda _args, _result: None, without_vm=True))
