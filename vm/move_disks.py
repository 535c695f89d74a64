"""Plans what a move does with disks: made at the target for libvirt's own copying, copied, forgotten. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePosixPath

from host.plan import Json, Step
from host.text import printable
from vm import move_disk_steps  # noqa: F401 - registers the verbs
from vm.move_copies import is_of_a_move, marked_name
from vm.move_model import DiskCopy, MoveDisk, MoveDraft
from vm.move_steps import copies_args, places_args


def make_disks_step(draft: MoveDraft) -> tuple[Step, ...]:
    """Make empty disks at the target, with format, size and the image below as they are at the source."""
    if not draft.copies:
        return ()
    names = ", ".join(copy.target for copy in draft.copies)
    args = {**draft.identity, "copies": copies_args(draft)}
    return (Step("move.make-disks", f"Make its disks ({names}) at {draft.picture.target_name}", args),)


def boot_files_step(draft: MoveDraft) -> tuple[Step, ...]:
    """Copy the files that the VM boots from: its first start at the target reads them, and a migration's does."""
    if not draft.boot_copies:
        return ()
    images = [_image(copy.source_path, copy.pool, copy.volume, copy.path, "") for copy in draft.boot_copies]
    title = f"Copy {_shown(images)}, which it boots from, to {draft.picture.target_name}"
    return (Step("move.copy-disks", title, {**draft.identity, "images": images, "while_running": True}),)


def copy_disks_step(draft: MoveDraft) -> tuple[Step, ...]:
    """Copy its disks, with what they build on, and read the copies back."""
    images = images_of(draft)
    if not images:
        return ()
    title = f"Copy {_shown(images)} to {draft.picture.target_name}, and read the copies back"
    return (Step("move.copy-disks", title, {**draft.identity, "images": images, "while_running": False}),)


def copy_bases_step(draft: MoveDraft) -> tuple[Step, ...]:
    """Copies of the images below the disks that are copied: nobody writes to them, so the guest runs on."""
    bases = [image for image in images_of(draft) if is_base(draft, image)]
    if not bases:
        return ()
    title = f"Copy {_shown(bases)}, which its disks build on, to {draft.picture.target_name}"
    return (Step("move.copy-disks", title, {**draft.identity, "images": bases, "while_running": True}),)


def forget_disks_step(draft: MoveDraft) -> tuple[Step, ...]:
    """Remove the disks that were copied from the source, where nobody else uses them. The images that they build on
    stay: they may be a template's."""
    # A file that it boots from may be a template's or that of all tiny guests, but for one that a move brought.
    boot_files = [copy.source_path for copy in draft.boot_copies if is_of_a_move(copy.source_path)]
    paths = [*(copy.source_path for copy in draft.copies), *boot_files]
    if not paths or draft.request.options.keep_source_disks:
        return ()
    what = "disks" if draft.copies else "boot files"
    title = f"Remove its {what} from {draft.picture.source_name}, those that nobody else uses"
    args = {**draft.identity, "copies": places_args(draft), "paths": paths}
    return (Step("move.forget-disks", title, args, losses=tuple(paths)),)


def _shown(images: Sequence[dict[str, Json]]) -> str:
    names = [printable(PurePosixPath(str(image["source_path"])).name, limit=60) for image in images]
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


# Images


def images_of(draft: MoveDraft) -> list[dict[str, Json]]:
    """Every image that has to be copied, those below first: the chain of each disk, down to what the target has. Each
    says on which image its copy builds."""
    found: dict[str, dict[str, Json]] = {}
    disks = {disk.target: disk for disk in draft.picture.disks}
    for copy in draft.copies:
        for image in _chain(disks[copy.target], copy, draft.mark):
            found.setdefault(str(image["source_path"]), image)
    return list(found.values())


def is_base(draft: MoveDraft, image: dict[str, Json]) -> bool:
    """True for an image below a disk."""
    return image["source_path"] not in {copy.source_path for copy in draft.copies}


def _chain(disk: MoveDisk, copy: DiskCopy, mark: str) -> list[dict[str, Json]]:
    if copy.format == "raw":  # what a guest wrote into it is no header, whatever it looks like
        return [_image(copy.source_path, copy.pool, copy.volume, copy.path, "")]
    below = list(disk.backing[: disk.backing.index(copy.backing)] if copy.backing in disk.backing else disk.backing)
    images: list[dict[str, Json]] = []
    backing = copy.backing
    for path in reversed(below):
        name = marked_name(PurePosixPath(path).name, mark)
        images.append(_image(path, copy.pool, name, str(PurePosixPath(copy.path).parent / name), backing))
        backing = str(images[-1]["path"])
    return [*images, _image(copy.source_path, copy.pool, copy.volume, copy.path, backing)]


def _image(source_path: str, pool: str, volume: str, path: str, backing: str) -> dict[str, Json]:
    return {"source_path": source_path, "pool": pool, "volume": volume, "path": path, "backing": backing}
