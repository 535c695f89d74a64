"""The step verbs of a captured template: copies of a VM's disks in the library, generalised, with their SHA-256.

The images have the names that vm.template_steps gives to what a change with that mark makes, so that its record, its
manifest and its clearing up fit them. The VM's own disks are only read.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import libvirt

from host import volumes
from host.errors import HvtuiError, WrongState
from host.plan import Step
from host.steps import Args, Result, StepContext, StepVerb, register, verb_named
from vm import clone_live, generalise, library, template_leftovers, template_prepare, template_steps
from vm.clone_steps import copy_disk
from vm.create_steps import settle
from vm.domain_xml import parse
from vm.template_model import ImageRole, TemplateImage
from vm.template_prepare import Prepared

__all__ = ["template_steps"]

_INACTIVE = libvirt.VIR_DOMAIN_XML_INACTIVE


def _copy(ctx: StepContext, args: Args) -> Result:
    """Copy each image whole. The record is written before, so that what a change that died leaves is known."""
    _refuse_unless_off(ctx, args)
    names = [image["new"]["name"] for image in args["images"]]
    with ctx.calls("begin the copy", args["pool"]) as connection:
        template_leftovers.write_record(connection, args["pool"], _record(args), deed="adding it", volume_names=names)
    for image in args["images"]:
        ctx.raise_if_cancelled()
        copy_disk(ctx, image, mark=args["mark"])
    _refuse_unless_off(ctx, args)
    return {"made": names}


def _refuse_unless_off(ctx: StepContext, args: Args) -> None:
    with ctx.calls("look at", args["vm"]) as connection:
        domain = connection.lookupByUUIDString(args["uuid"])
        if domain.isActive() or domain.hasManagedSaveImage(0):
            raise WrongState("it is not off any more", about=args["vm"], remedy="Shut it down, then capture it again")
        disks = [image for image in args["images"] if image["role"] == ImageRole.DISK.value]
        clone_live.refuse_moved(parse(domain.XMLDesc(_INACTIVE)), {"name": args["vm"], "disks": disks})


def _record(args: Args) -> str:
    return template_leftovers.record_name(args["name"], args["mark"])


def _remove(ctx: StepContext, args: Args, result: Result | None) -> None:
    settle(result)
    rollback = verb_named("deploy.disk").rollback
    for image in args["images"]:
        if rollback is not None:
            rollback(ctx, image["new"], None)
    with ctx.calls("clear up", args["pool"]) as connection:
        if library.find_pool(connection, args["pool"]) is not None:
            template_leftovers.remove_record(connection, args["pool"], _record(args))


def _inverse_copy(args: Args, result: Result) -> Step:
    made: Any = result["made"]
    losses = tuple(f"the image {name} of the template" for name in made)
    given: dict[str, Any] = {"pool": args["pool"], "name": args["name"], "mark": args["mark"], "images": made}
    return Step("template.remove-images", f"Remove the images of {args['name']}", given, losses=losses)


def _generalise(ctx: StepContext, args: Args) -> Result:
    generalise.generalise(args["paths"], progress=ctx.progress, is_cancelled=ctx.is_cancelled)
    return {}


def _seal(ctx: StepContext, args: Args) -> Result:
    """Read each image as it is stored, and note its SHA-256 for the manifest."""
    template_prepare.fresh_directory(args["mark"])
    images = [_read(ctx, args, image) for image in args["images"]]
    template_prepare.save_prepared(args["mark"], Prepared(()))
    template_prepare.save(args["mark"], "stored.json", {"images": [asdict(image) for image in images]})
    return {"bytes": sum(image.size_bytes for image in images)}


def _read(ctx: StepContext, args: Args, image: Args) -> TemplateImage:
    role, name = ImageRole(image["role"]), image["new"]["name"]
    with ctx.calls("look at the image", name) as connection:
        pool = connection.storagePoolLookupByName(args["pool"])
        volumes.refresh(pool)
        volume = volumes.find_volume(pool, name)
        if volume is None:
            raise HvtuiError("the image is gone", about=name, remedy="Give the command again")
        virtual_bytes = int(volume.info()[1])
        if role is ImageRole.DISK:
            virtual_bytes = template_steps.check_stored(connection, args["pool"], name)
    stored = volumes.download(
        ctx.host, args["pool"], name, lambda _data: None, skip=lambda _length: None, size_bytes=virtual_bytes,
        progress=ctx.progress, is_cancelled=ctx.is_cancelled,
    )  # fmt: skip
    return TemplateImage(name, role, image["new"]["format"], virtual_bytes, stored.size_bytes, stored.sha256)


def _remove_work(_ctx: StepContext, args: Args, _result: Result | None) -> None:
    template_prepare.remove_work(args["mark"])


def _nothing(_args: Args, _result: Result) -> None:
    return


for _verb in (
    StepVerb("capture.copy", _copy, _remove, _inverse_copy),
    StepVerb("capture.generalise", _generalise, None, _nothing),
    StepVerb("capture.seal", _seal, _remove_work, _nothing),
):
    register(_verb)
