"""Plans the steps of the live kinds of move. Pure functions; vm.move_live_steps has the step itself."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from host.plan import Step
from host.units import MIB
from vm import move_live_steps  # noqa: F401 - registers the verb
from vm.commands import virsh
from vm.move_leftovers import forget_nvram_step
from vm.move_model import MoveDraft, MoveKind, Stuck
from vm.move_steps import check_step, define_step, eject_step, finish_step, places_args, share_step


def live_steps(draft: MoveDraft) -> tuple[Step, ...]:
    """The guest runs on while its memory is copied; both hosts see its disks."""
    from vm.move_disks import boot_files_step, forget_disks_step

    return (
        check_step(draft),
        *share_step(draft),
        *eject_step(draft),
        *boot_files_step(draft),
        *define_step(draft),
        live_step(draft),
        *_quick_instead(draft),
        finish_step(draft),
        *forget_nvram_step(draft),
        *forget_disks_step(draft),
    )


def live_storage_steps(draft: MoveDraft) -> tuple[Step, ...]:
    """The same, and its disks are copied while it runs."""
    from vm.move_disks import boot_files_step, forget_disks_step, make_disks_step

    return (
        check_step(draft),
        *share_step(draft),
        *eject_step(draft),
        *make_disks_step(draft),
        *boot_files_step(draft),
        *define_step(draft),
        live_step(draft),
        finish_step(draft),
        *forget_nvram_step(draft),
        *forget_disks_step(draft),
    )


def live_step(draft: MoveDraft) -> Step:
    """libvirt's own live migration."""
    picture, options = draft.picture, draft.request.options
    args: dict[str, Any] = {
        **draft.identity,
        "copies": places_args(draft),
        "proved_shared": bool(draft.shared),
        "persistent": picture.is_persistent,
        "bandwidth_bytes_s": options.bandwidth_bytes_s,
        "downtime_ms": options.downtime_ms,
        "auto_converge": options.auto_converge,
        "connections": options.connections,
        "compress": options.compress,
        "tls": options.tls,
        "tunnelled": options.tunnelled,
        "postcopy": options.postcopy or options.stuck is Stuck.POSTCOPY,
        "peer_to_peer": options.peer_to_peer and bool(draft.request.peer_uri),
        "migrate_uri": options.migrate_uri,
        "stuck": _stuck(draft).value,
        "patience_s": options.patience_s,
        "quick_follows": bool(_quick_instead(draft)),
    }
    title = "Migrate it live"
    return Step("move.live", title, args, (_command(draft),))


def _stuck(draft: MoveDraft) -> Stuck:
    stuck = draft.request.options.stuck
    return Stuck.ASK if stuck is Stuck.QUICK and not _quick_instead(draft) else stuck


def _quick_instead(draft: MoveDraft) -> tuple[Step, ...]:
    """The steps that take over when the live move is given up for Quick Migration; they find nothing to do when the
    guest has changed hosts already."""
    wants = draft.request.options.stuck in {Stuck.QUICK, Stuck.ASK}
    if draft.kind is not MoveKind.LIVE or not wants or draft.picture.blockers(MoveKind.QUICK):
        return ()
    if not draft.picture.is_persistent:
        return ()
    steps: tuple[Step, ...] = import_module("vm.move_quick").instead_steps(draft)
    return steps


def _command(draft: MoveDraft) -> str:
    picture, options = draft.picture, draft.request.options
    words = ["--live", "--persistent", "--undefinesource", "--desturi", draft.request.peer_uri or picture.target_uri]
    if options.peer_to_peer and draft.request.peer_uri:
        words.append("--p2p")
    if draft.shared:
        words.append("--unsafe")
    if draft.kind is MoveKind.LIVE_STORAGE:
        inc = any(copy.backing for copy in draft.copies)
        words += ["--copy-storage-inc" if inc else "--copy-storage-all"]
        words += ["--migrate-disks", ",".join(copy.target for copy in draft.copies)]
        words += ["--xml", f"{picture.vm_name}-at-{picture.target_name}.xml"]  # with the new paths of its disks
        words += ["--persistent-xml", f"{picture.vm_name}-at-{picture.target_name}.xml"]
    words += ["--auto-converge"] if options.auto_converge else []
    words += ["--parallel", "--parallel-connections", str(options.connections)] if options.connections > 1 else []
    words += ["--compressed"] if options.compress else []
    words += ["--tls"] if options.tls else []
    words += ["--tunnelled"] if options.tunnelled else []
    words += ["--postcopy"] if options.postcopy or options.stuck is Stuck.POSTCOPY else []
    words += ["--migrateuri", options.migrate_uri] if options.migrate_uri else []
    words += ["--bandwidth", str(max(options.bandwidth_bytes_s // MIB, 1))] if options.bandwidth_bytes_s else []
    return virsh(picture.source_uri, "migrate", picture.vm_name, *words)
