"""Plans the changes of a template that is in a library: editing its manifest, and removing it. Changes nothing."""

from __future__ import annotations

import shlex
import uuid as uuids
from collections.abc import Mapping, Sequence
from dataclasses import replace
from enum import StrEnum
from typing import Any

from host.connection import Host
from host.errors import UsageError
from host.plan import Blocker, Danger, Plan, Step
from host.text import did_you_mean, printable
from host.units import format_bytes
from vm import template_overlays
from vm.commands import host_blockers
from vm.create_request import Firmware
from vm.library import linked_vms
from vm.template_add import finish_step, template_uuid, tidy_steps
from vm.template_manifest import check_template, to_toml
from vm.template_model import DEFAULT_LIBRARY, Library, Readiness, Template
from vm.template_overlays import Overlay

_MOST_NAMED = 3


def _flag(text: str) -> bool:
    words = {"yes": True, "true": True, "no": False, "false": False}
    if text.lower() not in words:
        raise UsageError(f"{printable(text, limit=40)!r} is neither yes nor no", remedy="Write yes or no")
    return words[text.lower()]


def _one_of(kind: type[StrEnum]) -> Any:
    def convert(text: str) -> StrEnum:
        try:
            return kind(text.lower())
        except ValueError:
            known = [each.value for each in kind]
            raise UsageError(
                f"{printable(text, limit=40)!r} is none of them", remedy=did_you_mean(text, known)
            ) from None

    return convert


def _tags(text: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(each.strip() for each in text.split(",") if each.strip()))


# What can be changed by KEY=VALUE, and how the value is read.
SETTINGS: Mapping[str, Any] = {
    "description": str,
    "os": str,
    "architecture": str,
    "firmware": _one_of(Firmware),
    "readiness": _one_of(Readiness),
    "seed": _flag,
    "kernel_arguments": str,
    "disk_bus": str,
    "nic_model": str,
    "hardware_profile": str,
    "guest_profile": str,
    "tags": _tags,
}
_FIELDS = {"os": "os_id", "seed": "takes_seed"}


def plan_edit(host: Host, library: Library, template: Template, changes: Mapping[str, str]) -> Plan:
    """The plan that stores a new revision of the template's manifest with `changes` (keys of SETTINGS); VMs that were
    made from it are not touched. Raises UsageError for an unknown key or a value that it cannot have."""
    values = {_FIELDS.get(key, key): _value(key, text) for key, text in changes.items()}
    same = replace(template, **values) == template
    new = replace(template, **values, revision=template.revision + 1, manifest="")
    text, mark = check_template(new), _mark()
    args = {
        **_identity(library, template, mark),
        "text": text,
        "revision": new.revision,
        "replaces": template.manifest,
        "old_text": to_toml(template),
    }
    blockers = (Blocker.wrong_state("that is what it says already"),) if same else ()
    store = Step("template.store", f"Store revision {new.revision} of its manifest, and remove the old one", args)
    return Plan(
        title=f"Change the template {template.name}: {', '.join(changes)}",
        host_uri=host.uri,
        steps=(*tidy_steps(library), store, finish_step(library.pool, template.name, mark)),
        command=_words("edit", library, template, *(f"{key}={value}" for key, value in changes.items())),
        vm_uuid=template_uuid(host, library.pool, template.name),
        vm_name=template.name,
        blockers=(*host_blockers(host), *blockers),
        keeps=("VMs that were made from it stay as they are",),
        xml_before=to_toml(template),
        xml_after=text,
    )


def _value(key: str, text: str) -> Any:
    if key not in SETTINGS:
        raise UsageError(f"a template has no setting {printable(key, limit=40)!r}", remedy=did_you_mean(key, SETTINGS))
    try:
        return SETTINGS[key](text)
    except UsageError as error:
        raise UsageError(f"{key}: {error.cause}", remedy=error.remedy) from None


def plan_remove(
    host: Host, library: Library, template: Template, *, keep_images: bool = False, unused_overlays: bool = False
) -> Plan:
    """The plan that removes the template with its images; `keep_images` leaves those in the pool. Blocked while VMs
    need the images, or while other images build on them; `unused_overlays` removes those that no VM uses. Raises
    ConnectionLost, Denied."""
    mark = _mark()
    names = [] if keep_images else [image.volume for image in template.images]
    overlays = () if keep_images else template_overlays.unused_overlays(host, library, template)
    args = {**_identity(library, template, mark), "manifest": template.manifest, "text": to_toml(template)}
    steps = [Step("template.withdraw", f"Take {template.name} out of the library", {**args, "images": names})]
    steps[0] = replace(steps[0], commands=(_vol_delete(host, library, template.manifest),))
    if names:
        commands = tuple(_vol_delete(host, library, name) for name in names)
        size_bytes = sum(image.size_bytes for image in template.images)
        given = {**_identity(library, template, mark), "images": names, "bytes": size_bytes}
        steps.append(Step("template.remove-images", "Remove its images, if still no VM needs them", given, commands))
    going = overlays if unused_overlays else ()
    options = (*(("--keep-images",) if keep_images else ()), *(("--with-unused-overlays",) if unused_overlays else ()))
    return Plan(
        title=f"Remove the template {template.name}",
        host_uri=host.uri,
        steps=(
            *tidy_steps(library),
            *_overlay_steps(host, template, going),
            *steps,
            finish_step(library.pool, template.name, mark),
        ),
        command=_words("remove", library, template, *options),
        vm_uuid=template_uuid(host, library.pool, template.name),
        vm_name=template.name,
        danger=Danger.NONE if keep_images else Danger.DESTRUCTIVE,
        blockers=(
            *host_blockers(host),
            *(() if keep_images else _linked(host, library, template, overlays, removes=unused_overlays)),
        ),
        losses=(
            *(f"the image {image.volume}, {format_bytes(image.size_bytes)}" for image in template.images if names),
            *(f"the image {each.path}, {format_bytes(each.size_bytes)}, which no VM uses" for each in going),
        ),
        keeps=tuple(f"the image {image.volume}" for image in template.images if not names),
    )


def _overlay_steps(host: Host, template: Template, overlays: Sequence[Overlay]) -> tuple[Step, ...]:
    if not overlays:
        return ()
    args: dict[str, Any] = {"name": template.name, "overlays": [[o.path, o.pool, o.volume] for o in overlays]}
    lines = tuple(
        shlex.join(["virsh", "-c", host.uri, "vol-delete", "--pool", o.pool, "--vol", o.volume]) for o in overlays
    )
    return (Step("template.remove-overlays", "Remove the images on it, if still no VM uses them", args, lines),)


def _linked(
    host: Host, library: Library, template: Template, overlays: Sequence[Overlay], *, removes: bool
) -> tuple[Blocker, ...]:
    """One blocker for the VMs that need its images, another for images that no VM uses."""
    paths = {each.path for each in overlays}
    vms = [printable(name, limit=120) for name in linked_vms(host, library, template) if name not in paths]
    blockers = []
    if vms:
        reason = f"{_listed(vms)} {'needs' if len(vms) == 1 else 'need'} its images"
        remedy = "Delete those VMs first, or give them disks of their own; --keep-images removes the template only"
        blockers.append(Blocker.wrong_state(reason, remedy=remedy))
    if overlays and not removes:
        those = _listed([printable(each.path, limit=200) for each in overlays])
        one = len(overlays) == 1
        reason = f"{those} {'builds' if one else 'build'} on it, {'an image' if one else 'images'} that no VM uses"
        remedy = "--with-unused-overlays removes such images too; --keep-images removes the template only"
        blockers.append(Blocker.wrong_state(reason, remedy=remedy))
    for each in overlays if removes else ():
        if each.keep_reason:
            reason = f"the image {printable(each.path, limit=200)} must stay: {each.keep_reason}"
            blockers.append(Blocker(reason, "Remove it by hand, or give --keep-images"))
    return tuple(blockers)


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _MOST_NAMED} more" if len(names) > _MOST_NAMED else ""
    return f"{', '.join(names[:_MOST_NAMED])}{more}"


def _identity(library: Library, template: Template, mark: str) -> dict[str, Any]:
    return {"pool": library.pool, "name": template.name, "mark": mark}


def _mark() -> str:
    return str(uuids.uuid4())[:8]


def _words(verb: str, library: Library, template: Template, *more: str) -> tuple[str, ...]:
    there = () if library.pool == DEFAULT_LIBRARY else ("--library", library.pool)
    return ("template", verb, *there, template.name, *more)


def _vol_delete(host: Host, library: Library, volume: str) -> str:
    return shlex.join(["virsh", "-c", host.uri, "vol-delete", "--pool", library.pool, "--vol", volume])
