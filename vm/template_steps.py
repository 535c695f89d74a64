"""The step verbs that change a library: prepare, upload, store a manifest, withdraw one, remove images, clear up.

An order that a kill at any moment cannot harm: images first and the manifest last when a template is added; the
manifest first and the images last when it is removed. A template is listed exactly while its manifest is whole, so that
it is there with all its images or not at all; what is left behind has a record (vm.template_leftovers). Everything made
carries a mark that the plan chose, and only that is ever taken back.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import libvirt

from host import qcow2_header, volumes
from host.errors import Conflict, HvtuiError, NameTaken, NotFound, UsageError, WrongState
from host.plan import Json, Step
from host.steps import Args, Result, StepContext, StepVerb, register
from host.text import printable
from host.units import format_bytes
from vm import library, template_leftovers, template_prepare
from vm.create_request import Firmware
from vm.create_steps import settle
from vm.disk_uses import read_world
from vm.library_index import write_index
from vm.template_manifest import LIMIT_BYTES, from_toml, name_of_text, parse_manifest_name, to_toml
from vm.template_model import ImageRole, Library, Readiness, Template, TemplateImage
from vm.template_prepare import Means, Prepared, PreparedFile

_ENDINGS = {ImageRole.DISK: "qcow2", ImageRole.KERNEL: "vmlinuz", ImageRole.INITRD: "initrd"}
_ENUMS = {"firmware": Firmware, "readiness": Readiness}
_IN_USE = 3  # how many users a message names


# Prepare: files on this machine


def _prepare(ctx: StepContext, args: Args) -> Result:
    directory = template_prepare.fresh_directory(args["mark"])
    means = Means(directory, args["limit_bytes"], ctx.progress, ctx.is_cancelled, is_raw=args["is_raw"])
    prepared = _prepared(ctx, args, means)
    template_prepare.save_prepared(args["mark"], prepared)
    return {"bytes": sum(Path(each.path).stat().st_size for each in prepared.files if each.path)}


def _prepared(ctx: StepContext, args: Args, means: Means) -> Prepared:
    source, kind = args["source"], args["kind"]
    if kind == "recipe":
        return template_prepare.from_recipe(source, means)
    if kind == "adopt":
        return _adopted(ctx, args)
    path = Path(source)
    if kind == "volume":
        path = means.directory / "volume"
        stored = volumes.download_file(
            ctx.host, args["pool"], source, path, progress=ctx.progress, is_cancelled=ctx.is_cancelled
        )
        if args["sha256"]:
            template_prepare.refuse_other_sum(source, stored.sha256, args["sha256"])
    elif args["sha256"]:
        template_prepare.check_sum(path, args["sha256"], progress=ctx.progress, is_cancelled=ctx.is_cancelled)
    return template_prepare.from_file(path, means)


def _adopted(ctx: StepContext, args: Args) -> Prepared:
    with ctx.calls("look at the volume", args["source"]) as connection:
        size_bytes = check_stored(connection, args["pool"], args["source"])
    return Prepared((PreparedFile(ImageRole.DISK, "qcow2", size_bytes, volume=args["source"]),))


def check_stored(connection: Any, pool: str, name: str) -> int:
    """The virtual size in bytes of a qcow2 as it is stored: the bytes that guests will build on, whatever a file was
    when it was looked at. Raises UsageError for one that does not stand alone, libvirtError."""
    volume = connection.storagePoolLookupByName(pool).storageVolLookupByName(name)
    header = qcow2_header.read_header(volumes.read_head(volume, size_bytes=qcow2_header.HEAD_BYTES))
    if header is None:
        raise UsageError("it is no qcow2 image", about=name)
    if header.problem:
        raise UsageError(header.problem, about=name)
    return header.virtual_size_bytes


def _remove_work(_ctx: StepContext, args: Args, _result: Result | None) -> None:
    template_prepare.remove_work(args["mark"])


# Upload: images in the pool


def image_name(template: str, mark: str, role: ImageRole, number: int = 1) -> str:
    """The volume of a template's image: debian-12-3fa8b2c1.qcow2; a second disk ends in -2.qcow2."""
    more = f"-{number}" if number > 1 else ""
    return f"{template}-{mark}{more}.{_ENDINGS[role]}"


def _upload(ctx: StepContext, args: Args) -> Result:
    prepared = template_prepare.load_prepared(args["mark"])
    names = _names(args, prepared.files)
    made = [name for name, file in zip(names, prepared.files, strict=True) if not file.volume]
    with ctx.calls("begin the upload", args["pool"]) as connection:
        template_leftovers.write_record(connection, args["pool"], _record(args), deed="adding it", volume_names=made)
    images = [_stored(ctx, args, file, name) for name, file in zip(names, prepared.files, strict=True)]
    template_prepare.save(args["mark"], "stored.json", {"images": [asdict(image) for image in images]})
    return {"made": made, "bytes": sum(image.size_bytes for image in images)}


def _names(args: Args, files: Sequence[PreparedFile]) -> list[str]:
    counts: dict[ImageRole, int] = {}
    names = []
    for file in files:
        counts[file.role] = counts.get(file.role, 0) + 1
        names.append(file.volume or image_name(args["name"], args["mark"], file.role, counts[file.role]))
    return names


def _record(args: Args) -> str:
    return template_leftovers.record_name(args["name"], args["mark"])


def _stored(ctx: StepContext, args: Args, file: PreparedFile, name: str) -> TemplateImage:
    virtual_size_bytes = file.virtual_size_bytes
    if file.volume:
        stored = volumes.download(
            ctx.host, args["pool"], name, lambda _data: None, progress=ctx.progress, is_cancelled=ctx.is_cancelled
        )
        if args["sha256"]:
            template_prepare.refuse_other_sum(name, stored.sha256, args["sha256"])
    else:
        mode = volumes.PRIVATE_MODE if file.role is ImageRole.DISK else volumes.SHARED_MODE
        stored = volumes.upload(
            ctx.host, args["pool"], name, file.path, mode=mode, progress=ctx.progress, is_cancelled=ctx.is_cancelled
        )
    if file.role is ImageRole.DISK:
        with ctx.calls("look at the image", name) as connection:
            virtual_size_bytes = check_stored(connection, args["pool"], name)
            volumes.refresh(connection.storagePoolLookupByName(args["pool"]))  # libvirt sees now that it is a qcow2
    return TemplateImage(name, file.role, file.format, virtual_size_bytes, stored.size_bytes, stored.sha256)


def _remove_uploaded(ctx: StepContext, args: Args, result: Result | None) -> None:
    settle(result)
    names: Any = result["made"] if result is not None else None
    if names is None:
        record = _recorded(ctx, args)
        names = record.volumes if record is not None else ()
    _remove_volumes(ctx, args["pool"], [name for name in names if _is_marked(name, args)])
    with ctx.calls("clear up", args["pool"]) as connection:
        _drop_record(connection, args)


def _is_marked(volume: str, args: Args) -> bool:
    """Is it an image that this very change uploaded?"""
    return volume.startswith(f"{args['name']}-{args['mark']}")


def _recorded(ctx: StepContext, args: Args) -> template_leftovers.Record | None:
    with ctx.calls("clear up", args["pool"]) as connection:
        pool = library.find_pool(connection, args["pool"])
        volume = volumes.find_volume(pool, _record(args)) if pool is not None else None
        return template_leftovers.read_record(volume) if volume is not None else None


def _drop_record(connection: Any, args: Args) -> None:
    if library.find_pool(connection, args["pool"]) is not None:
        template_leftovers.remove_record(connection, args["pool"], _record(args))


def _inverse_upload(args: Args, result: Result) -> Step | None:
    if not result["made"]:
        return None
    made: Any = result["made"]
    losses = tuple(f"the image {name} of the template" for name in made)
    given: dict[str, Any] = {"pool": args["pool"], "name": args["name"], "mark": args["mark"], "images": made}
    return Step("template.remove-images", f"Remove the images of {args['name']}", given, losses=losses)


# Store: the manifest


def _store(ctx: StepContext, args: Args) -> Result:
    with ctx.calls("store the manifest of", args["name"]) as connection:
        here = library.read_here(connection, args["pool"])
        library.check_usable(here)
        text = args["text"] or to_toml(_template(args))
        new = from_toml(text, _manifest_of(args, text))
        there = _listed(here, args["name"])
        if there is None or there.manifest != new.manifest:
            _refuse_changed(args, there)
            _refuse_missing(connection, args["pool"], new)
            volumes.write_text(connection, args["pool"], new.manifest, text)
        if args["replaces"]:
            _delete(connection, args["pool"], args["replaces"])
    own = [image.volume for image in new.images if _is_marked(image.volume, args)]
    return {"manifest": new.manifest, "revision": new.revision, "text": text, "images": own}


def _manifest_of(args: Args, text: str) -> str:
    return name_of_text(Template(args["name"], (), revision=args["revision"]), text)


def _template(args: Args) -> Template:
    """The template of what was prepared, uploaded and asked for; what was asked for wins."""
    prepared = template_prepare.load_prepared(args["mark"])
    stored = template_prepare.load(args["mark"], "stored.json")
    if stored is None:
        raise HvtuiError("what the upload wrote down is gone", about=args["name"], remedy="Give the command again")
    images = tuple(TemplateImage(**{**each, "role": ImageRole(each["role"])}) for each in stored["images"])
    facts = {**prepared.facts, **args["facts"]}
    values: dict[str, Any] = {key: _ENUMS[key](value) if key in _ENUMS else value for key, value in facts.items()}
    values["tags"] = tuple(values.get("tags", ()))
    created_at = datetime.fromisoformat(args["created_at"])
    return Template(args["name"], images, revision=args["revision"], created_at=created_at, **values)


def _listed(here: Library, name: str) -> Template | None:
    return next((each for each in here.templates if each.name == name), None)


def _refuse_changed(args: Args, there: Template | None) -> None:
    if there is not None and not args["replaces"]:
        raise NameTaken("there is a template of that name already", about=args["name"], remedy="Choose another name")
    if args["replaces"] and (there is None or there.manifest != args["replaces"]):
        raise Conflict("it was changed or removed in the meantime", about=args["name"], remedy="Look at it again")


def _refuse_missing(connection: Any, pool: str, template: Template) -> None:
    found = connection.storagePoolLookupByName(pool)
    for image in template.images:
        if volumes.find_volume(found, image.volume) is None:
            remedy = "Give the command again"
            raise NotFound(f"its image {image.volume} is not in the pool any more", about=template.name, remedy=remedy)


def _delete(connection: Any, pool: str, name: str) -> None:
    volume = volumes.find_volume(connection.storagePoolLookupByName(pool), name)
    if volume is not None:
        volumes.delete(volume)


def _unstore(ctx: StepContext, args: Args, result: Result | None) -> None:
    """The old manifest back, then the new one away: at each moment one of them is there."""
    settle(result)
    with ctx.calls("take back the manifest of", args["name"]) as connection:
        pool = library.find_pool(connection, args["pool"])
        if pool is None or not pool.isActive():
            return
        if args["replaces"] and volumes.find_volume(pool, args["replaces"]) is None:
            volumes.write_text(connection, args["pool"], args["replaces"], args["old_text"])
        for volume in pool.listAllVolumes(0):
            if volume.name() != args["replaces"] and _is_own_manifest(volume, args, result):
                volumes.delete(volume)


def _is_own_manifest(volume: Any, args: Args, result: Result | None) -> bool:
    """Is it the one that this job stored, or a part of it?"""
    name = volume.name()
    if result is not None:
        return bool(name == result["manifest"])
    parsed = parse_manifest_name(name)
    if parsed is None or parsed[:2] != (args["name"], args["revision"]):
        return False
    if args["text"]:
        return bool(name == _manifest_of(args, args["text"]))
    try:
        found = from_toml(volumes.read_volume_text(volume, limit_bytes=LIMIT_BYTES), name)
    except UsageError:
        return True  # a half: nobody else adds this template (its name is held by this job)
    return found.created_at == datetime.fromisoformat(args["created_at"])


def _inverse_store(args: Args, result: Result) -> Step:
    given: dict[str, Any] = {"pool": args["pool"], "name": args["name"], "mark": args["mark"]}
    if not args["replaces"]:
        given |= {"manifest": result["manifest"], "text": result["text"], "images": result["images"]}
        return Step("template.withdraw", f"Take {args['name']} out of the library", given)
    old = from_toml(args["old_text"], args["replaces"])
    again = replace(old, revision=int(str(result["revision"])) + 1, manifest="")
    given |= {"text": to_toml(again), "revision": again.revision}
    given |= {"replaces": result["manifest"], "old_text": result["text"]}
    return Step("template.store", f"Give {args['name']} its manifest back, as revision {again.revision}", given)


# Withdraw: the manifest goes, and with it the template from every list


def _withdraw(ctx: StepContext, args: Args) -> Result:
    """`images` are those that a later step removes: nobody may need them."""
    with ctx.calls("take out of the library", args["name"]) as connection:
        there = _listed(library.read_here(connection, args["pool"]), args["name"])
        if there is None:
            return {"done": False}
        if there.manifest != args["manifest"]:
            raise Conflict("it was changed in the meantime", about=args["name"], remedy="Look at it again")
        if args["images"]:
            refuse_linked(connection, ctx, args["pool"], there)
            template_leftovers.write_record(
                connection, args["pool"], _record(args), deed="removing it", volume_names=args["images"]
            )
        for volume in connection.storagePoolLookupByName(args["pool"]).listAllVolumes(0):
            parsed = parse_manifest_name(volume.name())
            if parsed is not None and parsed[0] == args["name"] and volume.name() != there.manifest:
                volumes.delete(volume)  # an old revision must not come back to life
        _delete(connection, args["pool"], there.manifest)
    return {"done": True}


def refuse_linked(connection: Any, ctx: StepContext, pool: str, template: Template) -> None:
    """Raises WrongState that names who needs the template's images."""
    linked = library.linked_here(connection, ctx.host, pool, template)
    if linked:
        names = ", ".join(printable(each, limit=80) for each in linked[:_IN_USE])
        more = f" and {len(linked) - _IN_USE} more" if len(linked) > _IN_USE else ""
        raise WrongState(f"{names}{more} need its images", about=template.name, remedy="Delete or move them first")


def _restore(ctx: StepContext, args: Args, result: Result | None) -> None:
    """The manifest back, if everything that it names is still there."""
    settle(result)
    if result is not None and not result["done"]:
        return
    with ctx.calls("put back into the library", args["name"]) as connection:
        pool = connection.storagePoolLookupByName(args["pool"])
        template = from_toml(args["text"], args["manifest"])
        if any(volumes.find_volume(pool, image.volume) is None for image in template.images):
            return  # some images are gone for good: half a template is none, and the record tells what is left
        if _listed(library.read_here(connection, args["pool"]), args["name"]) is None:
            volumes.write_text(connection, args["pool"], args["manifest"], args["text"])
        _drop_record(connection, args)


def _inverse_withdraw(args: Args, result: Result) -> Step | None:
    if not result["done"]:
        return None
    given: dict[str, Any] = {"pool": args["pool"], "name": args["name"], "mark": args["mark"], "text": args["text"]}
    given |= {"revision": from_toml(args["text"], args["manifest"]).revision, "replaces": "", "old_text": ""}
    return Step("template.store", f"Put {args['name']} back into the library", given)


# Remove images


def _remove_images(ctx: StepContext, args: Args) -> Result:
    with ctx.calls("remove the images of", args["name"]) as connection:
        here = library.read_here(connection, args["pool"])
        listed = {image.volume for template in here.templates for image in template.images}
        world = read_world(connection, ctx.host, without_uuid="")
        for name in args["images"]:
            needed_by = sorted(library.users(world, args["pool"], name))
            if name in listed or needed_by:
                who = printable(needed_by[0], limit=80) if needed_by else "another template"
                raise Conflict(f"{who} needs the image {printable(name)}", about=args["name"])
        for name in args["images"]:
            _delete(connection, args["pool"], name)
        _drop_record(connection, args)
    return {}


def _remove_volumes(ctx: StepContext, pool_name: str, names: Sequence[str]) -> None:
    with ctx.calls("remove an image", pool_name) as connection:
        pool = library.find_pool(connection, pool_name)
        if pool is None or not pool.isActive():
            return
        world = read_world(connection, ctx.host, without_uuid="") if names else None
        for name in names:
            needed_by = library.users(world, pool_name, name) if world is not None else set()
            if needed_by:
                who = printable(min(needed_by), limit=80)
                raise Conflict(f"{who} uses it already", about=name, remedy="Delete that first")
            _delete(connection, pool_name, name)


# Clear up, and write the index


def _tidy(ctx: StepContext, args: Args) -> Result:
    """Remove what changes that died have left: what no template lists and no VM uses, of what they had written down."""
    removed: list[Json] = []
    with ctx.calls("clear up the library", args["pool"]) as connection:
        here = library.read_here(connection, args["pool"])
        pool = connection.storagePoolLookupByName(args["pool"])
        listed = {image.volume for template in here.templates for image in template.images}
        world = read_world(connection, ctx.host, without_uuid="")
        for leftover in here.leftovers:
            volume = volumes.find_volume(pool, leftover)
            if volume is None:
                continue
            names: tuple[str, ...] = ()
            if template_leftovers.is_record_name(leftover):
                record = template_leftovers.read_record(volume)
                if not record.is_dead:
                    continue
                names = _left_by(here, record, [each.name() for each in pool.listAllVolumes(0)])
            for name in names:
                if name not in listed and not library.users(world, args["pool"], name):
                    _delete(connection, args["pool"], name)
                    removed.append(name)
            _delete_unless_busy(volume)
            removed.append(leftover)
    return {"removed": removed}


def _left_by(here: Library, record: template_leftovers.Record, names: Sequence[str]) -> tuple[str, ...]:
    """The record's volumes, and what there is of a manifest that it did not come to write."""
    if _listed(here, record.template) is not None:
        return record.volumes
    parts = [name for name in names if (parse_manifest_name(name) or ("",))[0] == record.template]
    return (*record.volumes, *parts)


def _delete_unless_busy(volume: Any) -> None:
    try:
        volumes.delete(volume)
    except libvirt.libvirtError as error:
        if error.get_error_code() != libvirt.VIR_ERR_OPERATION_INVALID:
            raise  # else somebody writes it at this moment


def _finish(ctx: StepContext, args: Args) -> Result:
    template_prepare.remove_work(args["mark"])
    with ctx.calls("write the index", args["pool"]) as connection:
        _drop_record(connection, args)
        note = _index(connection, args["pool"])
    return {"index": printable(note, limit=200)}


def _index(connection: Any, pool: str) -> str:
    here = library.read_here(connection, pool)
    return write_index(connection, pool, here.templates) if here.exists and here.is_active else ""


def _index_again(ctx: StepContext, args: Args, result: Result | None) -> None:
    """Whole again, where it was killed while it was written; that it names a template too many does no harm."""
    settle(result)
    with ctx.calls("write the index", args["pool"]) as connection:
        _index(connection, args["pool"])


def _nothing(_args: Mapping[str, Any], _result: Result) -> None:
    return None


def _gone(args: Args, _result: Result) -> str:
    total_bytes = args.get("bytes") or 0
    size = f" ({format_bytes(total_bytes)})" if total_bytes else ""
    return f"the images of {args['name']}{size} are removed for good"


for _verb in (
    StepVerb("template.prepare", _prepare, _remove_work, _nothing),
    StepVerb("template.upload", _upload, _remove_uploaded, _inverse_upload),
    StepVerb("template.store", _store, _unstore, _inverse_store),
    StepVerb("template.withdraw", _withdraw, _restore, _inverse_withdraw),
    StepVerb("template.remove-images", _remove_images, None, _gone),
    StepVerb("template.tidy", _tidy, None, _nothing),
    StepVerb("template.finish", _finish, _index_again, _nothing),
):
    register(_verb)
