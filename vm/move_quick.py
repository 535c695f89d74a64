"""Plans a quick move: the guest is saved to a file, and restored from it on the other host. Pure.

The definition goes first, then what may be copied while the guest runs (images that nobody writes to); only then it is
saved. Where both hosts see one directory the file lies there, and nothing is carried. The same steps serve as the
fallback of a live move that does not converge: they find nothing to do when that one went well.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import PurePosixPath

from host.plan import Json, Step
from vm import move_quick_steps  # noqa: F401 - registers the verbs
from vm.move_copies import marked_name
from vm.move_disks import boot_files_step, copy_bases_step, forget_disks_step, images_of, is_base
from vm.move_hold_steps import hold_step
from vm.move_model import MoveDraft
from vm.move_state_steps import checkpoint_steps
from vm.move_steps import check_step, define_step, eject_step, finish_step, places_args, share_step

SAVED = "/var/lib/libvirt/qemu/save"  # libvirt's own place for saved guests, for a VM without a disk of its own


def quick_steps(draft: MoveDraft) -> tuple[Step, ...]:
    """The steps of a quick move, from the check to the removal of what is left at the source."""
    return (
        check_step(draft),
        *share_step(draft),
        *eject_step(draft),
        *boot_files_step(draft),
        *define_step(draft),
        *hold_step(draft),
        *checkpoint_steps(draft),
        *copy_bases_step(draft),
        *hand_over_steps(draft),
        finish_step(draft),
        *forget_disks_step(draft),
    )


def instead_steps(draft: MoveDraft) -> tuple[Step, ...]:
    """What a live move's plan has after its own step, for the case that it is given up: nothing to do when the guest is
    at the target."""
    steps = (*hold_step(draft), *hand_over_steps(draft, fallback=True))
    return tuple(replace(step, title=f"If quick instead: {step.title[0].lower()}{step.title[1:]}") for step in steps)


def hand_over_steps(draft: MoveDraft, *, fallback: bool = False) -> tuple[Step, ...]:
    """Save, carry, restore, remove the file."""
    picture = draft.picture
    name, source, target = picture.vm_name, picture.source_name, picture.target_name
    path, target_path = places(draft)
    args: dict[str, Json] = {
        **draft.identity,
        "path": path,
        "target_path": target_path,
        "is_common": bool(draft.shared),
        "copies": places_args(draft),
        "emptied": [],
        "fallback": fallback,
    }
    own = [image for image in images_of(draft) if not is_base(draft, image)]
    common = bool(draft.shared) and not own
    return (
        Step("move.save", f"Save {name} to a file at {source}", args,
             (f"virsh -c {picture.source_uri} save --domain {name} --file {path}",)),
        Step("move.carry", f"Copy its saved memory{' and its disks' if own else ''} to {target}"
             if not common else f"See that {target} has its saved memory", {**args, "images": own}),
        Step("move.restore", f"Restore {name} at {target}", args,
             (f"virsh -c {picture.target_uri} restore --file {target_path}",)),
        Step("move.drop-save", "Remove the saved memory, now that it runs", args),
    )  # fmt: skip


def places(draft: MoveDraft) -> tuple[str, str]:
    """Where the memory is saved, as the source and the target see it: one path where both see the directory."""
    name = marked_name(f"{draft.picture.vm_name}.save".replace("/", "_"), draft.mark)
    if draft.shared:
        path = str(PurePosixPath(draft.shared[0]) / name)
        return path, path
    local = (disk for disk in draft.picture.disks if disk.is_local_file and disk.device == "disk")
    here = next((str(PurePosixPath(disk.source_path).parent) for disk in local), SAVED)
    there = next((str(PurePosixPath(copy.path).parent) for copy in draft.copies), SAVED)
    return str(PurePosixPath(here) / name), str(PurePosixPath(there) / name)
