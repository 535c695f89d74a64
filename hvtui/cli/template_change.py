"""`hvtui template`: add, edit, remove. Each is one plan_* of vm.template_add or vm.template_change."""

from __future__ import annotations

import re
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import click

from host.errors import NotFound, UsageError
from host.text import did_you_mean, printable
from host.units import parse_size
from hvtui.cli.change import change
from hvtui.cli.grammar import complete_template_sources, option, template_argument, templates_argument, verb
from hvtui.cli.session import Session
from hvtui.cli.template import LIBRARY, chosen_templates
from vm.create_request import Firmware
from vm.template_add import AddRequest, OriginKind
from vm.template_model import Readiness

_URL = re.compile(r"[a-z][a-z0-9+.-]*://", re.IGNORECASE | re.ASCII)
FROM_HELP = (
    "a recipe (tiny, debian), an image file of this machine (qcow2, raw, VMDK, VHD, VHDX, VDI, OVA, or one of these as "
    "xz, gz, zst), or vol:VOLUME of the library."
)
NOUN = "TEMPLATE"
_VOLUME = "vol:"


@verb(
    "add",
    click.Argument(["name"], metavar="NAME"),
    option(
        "--from",
        "origin",
        metavar="WHAT",
        text=FROM_HELP,
        shell_complete=complete_template_sources,
    ),
    option("--sha256", metavar="HEX", text="Refuse a file whose SHA-256 is another."),
    option("--raw", "is_raw", is_flag=True, text="The file is a raw disk although nothing in it says so."),
    option("--max-size", metavar="SIZE", text="The largest disk that is believed (256G)."),
    option("--os", "os_id", metavar="ID", text="libosinfo's id of its system: http://debian.org/debian/12."),
    option("--arch", "architecture", metavar="NAME", text="The processor that its guests need (x86_64)."),
    option("--firmware", type=click.Choice([each.value for each in Firmware]), text="How it boots."),
    option(
        "--readiness", type=click.Choice([each.value for each in Readiness]), text="How a guest tells that it is ready."
    ),
    option("--seed/--no-seed", "takes_seed", default=None, text="Its guests take a cloud-init seed."),
    option("--disk-bus", metavar="BUS", text="What its guests can boot from: virtio, scsi or sata."),
    option("--nic-model", metavar="MODEL", text="What its guests can talk through: virtio or e1000e."),
    option("--hardware-profile", metavar="NAME", text="The hardware profile of its VMs unless told otherwise."),
    option("--guest-profile", metavar="NAME", text="The guest profile of its VMs unless told otherwise."),
    option("--description", metavar="TEXT", text="Free text."),
    option("--tag", "tags", multiple=True, metavar="TAG", text="A tag (may be repeated)."),
    LIBRARY,
    text="Add a template. A first one in seconds: hvtui template add tiny --from tiny",
)
def add(session: Session, name: str, **given: Any) -> int:
    from vm.template_add import plan_add

    wanted = request(name, **given)
    host = session.host()
    wanted = replace(wanted, library=session.library(given["library"]))
    return change(session, [(name, None, lambda: plan_add(host, wanted))])


def request(
    name: str,
    *,
    origin: str | None,
    max_size: str | None,
    firmware: str | None,
    readiness: str | None,
    **same: Any,
) -> AddRequest:
    """The request that the options mean; what was not given keeps the request's own default. Raises UsageError,
    NotFound."""
    kind, source = _source(origin)
    changes: dict[str, Any] = {key: value for key, value in same.items() if value not in (None, ())}
    if max_size:
        changes["limit_bytes"] = parse_size(max_size)
    if firmware:
        changes["firmware"] = Firmware(firmware)
    if readiness:
        changes["readiness"] = Readiness(readiness)
    return AddRequest(name, source, kind=kind, **changes)


def _source(origin: str | None) -> tuple[OriginKind, str]:
    if origin and origin.startswith(_VOLUME):
        return OriginKind.VOLUME, origin.removeprefix(_VOLUME)
    shown = printable(origin or "", limit=200)
    if origin and _URL.match(origin):
        raise UsageError(f"{shown} is an address, and --from takes a file", remedy="Download it first: curl -LO URL")
    path = Path(origin or "").expanduser().absolute()
    if origin and ("/" in origin or path.is_file()):
        return OriginKind.FILE, str(path)
    from vm.recipes import RECIPES

    if not origin:
        raise UsageError("nothing says what it is made from", remedy=f"Give --from: {FROM_HELP}")
    if origin in RECIPES:
        return OriginKind.RECIPE, origin
    remedy = did_you_mean(origin, RECIPES, otherwise=f"Recipes: {', '.join(RECIPES)}")
    raise NotFound(f"there is no file and no recipe {shown!r}", remedy=remedy)


@verb(
    "edit",
    template_argument(),
    click.Argument(["settings"], nargs=-1, required=True, metavar="KEY=VALUE..."),
    LIBRARY,
    text="Change what a template says of itself; VMs made from it stay as they are. Keys: description, os, "
    "architecture, firmware, readiness, seed, kernel_arguments, disk_bus, nic_model, hardware_profile, guest_profile, "
    "tags (a,b). An empty value clears.",
)
def edit(session: Session, name: str, settings: tuple[str, ...], library: str | None) -> int:
    from vm.template_change import plan_edit

    odd = next((word for word in settings if "=" not in word), None)
    if odd is not None:
        shown = printable(odd, limit=60)
        raise UsageError(f"{shown!r} is no KEY=VALUE", remedy="hvtui template edit NAME KEY=VALUE…")
    changes = dict(word.split("=", 1) for word in settings)
    found, templates = chosen_templates(session, [name], library)
    host = session.host()
    return change(
        session, [(each.name, None, partial(plan_edit, host, found, each, changes)) for each in templates], noun=NOUN
    )


@verb(
    "remove",
    templates_argument(required=True),
    option("--keep-images", is_flag=True, text="Remove the templates only; their images stay in the pool."),
    option(
        "--with-unused-overlays",
        "unused_overlays",
        is_flag=True,
        text="Remove the images too that build on theirs and that no VM uses (deleted VMs' disks that were kept).",
    ),
    LIBRARY,
    text="Remove templates with their images. Refused while VMs need these: linked ones are overlays on them.",
)
def remove(
    session: Session, names: tuple[str, ...], keep_images: bool, unused_overlays: bool, library: str | None
) -> int:
    from vm.template_change import plan_remove

    if keep_images and unused_overlays:
        raise UsageError("--keep-images and --with-unused-overlays contradict each other", remedy="Give one of them")

    found, templates = chosen_templates(session, names, library)
    host = session.host()
    plan = partial(plan_remove, host, found, keep_images=keep_images, unused_overlays=unused_overlays)
    wanted = [(each.name, None, partial(plan, each)) for each in templates]
    return change(session, wanted, noun=NOUN)
