"""`hvtui template`: the noun, and the verbs that only read: list, show, verify."""

from __future__ import annotations

from typing import TYPE_CHECKING

from host.errors import HvtuiError, NotFound
from host.text import printable
from host.units import format_bytes
from hvtui.cli.grammar import LIBRARY_HELP, Noun, Verbs, option, template_argument, templates_argument, verb
from hvtui.cli.output import (
    Column,
    Format,
    choose,
    complain,
    narrate,
    paint,
    plain,
    record,
    write_facts,
    write_list,
    write_records,
    write_table,
    write_text,
)
from hvtui.cli.session import Session

if TYPE_CHECKING:
    from collections.abc import Sequence

    from host.connection import Host
    from host.plan import Json
    from vm.os_catalogue import OsSupport
    from vm.template_model import Library, Template, TemplateImage
    from vm.template_verify import Verification

VERBS: Verbs = {
    "list": ("hvtui.cli.template:list_", "List the templates of the library."),
    "show": ("hvtui.cli.template:show", "Show everything about templates, and which VMs need them."),
    "add": ("hvtui.cli.template_change:add", "Add a template: from an image file, a recipe, or a volume."),
    "capture": ("hvtui.cli.template_capture:capture", "Make a template from a VM that is off."),
    "edit": ("hvtui.cli.template_change:edit", "Change what a template says of itself."),
    "remove": ("hvtui.cli.template_change:remove", "Remove templates that no VM needs."),
    "verify": ("hvtui.cli.template:verify", "Read the images again and compare their SHA-256."),
}

template = Noun("template", verbs=VERBS, help="Templates: the images in the library that new VMs are made from.")

LIBRARY = option("--library", "--pool", "library", metavar="NAME", text=LIBRARY_HELP)
MOST_OTHERS = 6
EMPTY = "No template in the {} yet. A first one in seconds: hvtui template add tiny --from tiny"


def _size_bytes(template: Template) -> int:
    return sum(image.size_bytes for image in template.images)


def _disk_bytes(template: Template) -> int | None:
    from vm.template_model import ImageRole

    disk = template.image(ImageRole.DISK)
    return disk.virtual_size_bytes if disk is not None else None


def image_record(image: TemplateImage) -> dict[str, Json]:
    """The JSON object of an image."""
    return {
        "volume": image.volume,
        "role": image.role.value,
        "format": image.format,
        "virtual_size_bytes": image.virtual_size_bytes,
        "size_bytes": image.size_bytes,
        "sha256": image.sha256,
    }


def _iso(template: Template) -> str | None:
    return template.created_at.isoformat(timespec="seconds") if template.created_at else None


COLUMNS: tuple[Column[Template], ...] = (
    Column("name", "The template's name.", lambda t: t.name, in_table=True),
    Column(
        "revision", "How often it was edited, from 1 on.", lambda t: t.revision, title="REV", right=True, in_table=True
    ),
    Column("os", "libosinfo's id of its system.", lambda t: t.os_id or None, in_table=True),
    Column("firmware", "How it boots: bios, uefi, uefi-secure or auto.", lambda t: t.firmware.value, in_table=True),
    Column("seed", "True when its guests take a cloud-init seed.", lambda t: t.takes_seed, in_table=True),
    Column("readiness", "How a guest tells that it is ready.", lambda t: t.readiness.value, in_table=True),
    Column(
        "disk_bytes",
        "The size of its first disk as guests see it, or null.",
        _disk_bytes,
        lambda t: format_bytes(_disk_bytes(t) or 0) if _disk_bytes(t) else "–",
        title="DISK",
        right=True,
        in_table=True,
    ),
    Column(
        "size_bytes",
        "What its images take in the library.",
        _size_bytes,
        lambda t: format_bytes(_size_bytes(t)),
        title="STORED",
        right=True,
        in_table=True,
    ),
    Column("description", "Free text.", lambda t: t.description or None, in_table=True),
    Column("origin", "Where it came from, in words.", lambda t: t.origin or None),
    Column("created_at", "When it was added, ISO 8601.", _iso),
    Column("architecture", "The processor that its guests need.", lambda t: t.architecture),
    Column("kernel_arguments", "For its kernel, where it has one.", lambda t: t.kernel_arguments or None),
    Column("disk_bus", "What its guests can boot from.", lambda t: t.disk_bus),
    Column("nic_model", "What its guests can talk through.", lambda t: t.nic_model),
    Column(
        "hardware_profile",
        "The hardware profile that its VMs get unless told otherwise.",
        lambda t: t.hardware_profile or None,
    ),
    Column("guest_profile", "The same of their guests.", lambda t: t.guest_profile or None),
    Column("tags", "Tags.", lambda t: list(t.tags)),
    Column(
        "images",
        "Its images: volume, role, format, virtual_size_bytes, size_bytes, sha256.",
        lambda t: [image_record(each) for each in t.images],
    ),
    Column("manifest", "The volume that says all this.", lambda t: t.manifest),
)
SHOWN_KEYS = (
    ("needed_by", "`template show` only: the VMs that need its images, and overlays that no VM uses."),
    ("linked", "`template show` only: those VMs whose disks are overlays on its disks (others load its kernel)."),
    ("support", "`template show` only: what osinfo-db knows of its system, or null."),
)


def chosen_templates(
    session: Session, names: Sequence[str], library: str | None
) -> tuple[Library, tuple[Template, ...]]:
    """The library, and its templates of those names or globs. Raises NotFound with the nearest."""
    from vm.library import check_usable, find, read

    library = session.library(library)
    found = read(session.host(), library)
    check_usable(found)
    tell_problems(found)
    chosen: dict[str, Template] = {}
    for name in names:
        matching = [each for each in found.templates if each.name == name] or _matching(found, name)
        if not matching:
            find(session.host(), name, library)  # raises with the nearest name
        chosen.update((each.name, each) for each in matching)
    return found, tuple(chosen.values())


def _matching(found: Library, pattern: str) -> list[Template]:
    from fnmatch import fnmatchcase

    if not any(char in pattern for char in "*?["):
        return []
    matching = [each for each in found.templates if fnmatchcase(each.name, pattern)]
    if not matching:
        raise NotFound(f"no template matches {printable(pattern, limit=60)!r}", remedy="See 'hvtui template list'")
    return matching


def tell_problems(library: Library) -> None:
    """What is wrong in the library, on standard error."""
    import sys

    for problem in library.problems:
        narrate(f"{paint('warning:', 'yellow', sys.stderr)} {problem}")


@verb("list", LIBRARY, text="List the templates of the library. What is wrong with one is told on standard error.")
def list_(session: Session, library: str | None) -> None:
    from vm.library import check_usable, read
    from vm.template_model import library_words

    choose(COLUMNS, session.columns)  # a wrong one is told before anything is read
    pool = session.library(library)
    found = read(session.host(), pool)
    if found.exists or library:
        check_usable(found)
    tell_problems(found)
    if session.output is Format.TABLE and not found.templates:
        narrate(EMPTY.format(library_words(pool)))
    else:
        write_list(found.templates, COLUMNS, output=session.output, chosen=session.columns)
    if session.output is Format.TABLE and found.others:
        shown = ", ".join(printable(name, limit=60) for name in found.others[:MOST_OTHERS])
        more = len(found.others) - MOST_OTHERS
        narrate(f"Also there: {shown}" + (f" and {more} more" if more > 0 else ""))


@verb(
    "show",
    templates_argument(required=True),
    LIBRARY,
    text="Show everything about templates: images, defaults, the support of their system, and the VMs that need them.",
)
def show(session: Session, names: tuple[str, ...], library: str | None) -> None:
    from vm.library import linked_vms, overlaid_vms

    columns = choose(COLUMNS, session.columns) or COLUMNS
    found, templates = chosen_templates(session, names, library)
    host = session.host()
    if session.output is not Format.TABLE:
        write_records([_record(host, found, each, columns) for each in templates], session.output)
        return
    for number, each in enumerate(templates):
        if number:
            write_text("\n")
        lines = _facts({column.key: column.value(each) for column in columns})
        if columns is COLUMNS:
            needed_by, linked = linked_vms(host, found, each), overlaid_vms(host, found, each)
            lines += support_lines(_support(each))
            lines += [(key, ", ".join(names)) for key, names in (("needed by", needed_by), ("linked", linked)) if names]
        write_facts(lines)


def _record(host: Host, library: Library, template: Template, columns: Sequence[Column[Template]]) -> dict[str, Json]:
    from vm.library import linked_vms, overlaid_vms

    values = record(template, columns)
    if columns is COLUMNS:
        values["needed_by"] = list(linked_vms(host, library, template))
        values["linked"] = list(overlaid_vms(host, library, template))
        values["support"] = support_record(_support(template))
    return values


def _support(template: Template) -> OsSupport | None:
    """What osinfo-db knows of the guest's system; nothing where there is no such database here."""
    if not template.os_id:
        return None
    from vm.os_catalogue import look_up

    try:
        return look_up(template.os_id)
    except HvtuiError as error:
        narrate(str(error))
        return None


def support_record(found: OsSupport | None) -> Json:
    """The JSON object of what is known of a system."""
    if found is None:
        return None
    from dataclasses import asdict
    from datetime import date

    values = asdict(found)
    return {key: value.isoformat() if isinstance(value, date) else value for key, value in values.items()}


def support_lines(found: OsSupport | None) -> list[tuple[str, str]]:
    """The same for a person: whether somebody mends it, the drivers and firmware that it has."""
    if found is None:
        return []
    drivers = {
        "disk": found.virtio_disk or found.virtio_scsi,
        "network": found.virtio_network,
        "balloon": found.balloon,
    }
    has = ", ".join(name for name, is_there in drivers.items() if is_there) or "none"
    agent = "its agent can talk" if found.agent_channel else "no channel for an agent"
    ends = f" until {found.end_date.isoformat()}" if found.end_date else ""
    lines = [
        ("system", f"{found.name}: {found.state.value}{ends}"),
        ("drivers", f"paravirtual: {has}; {agent}; boots by {' or '.join(found.firmware)}"),
    ]
    return [*lines, ("note", found.note)] if found.note else lines


def _facts(values: dict[str, Json]) -> list[tuple[str, str]]:
    facts = []
    for key, value in values.items():
        if key == "images" and isinstance(value, list):
            facts += [("image", plain(each)) for each in value]
        elif key.endswith("_bytes") and isinstance(value, int):
            facts.append((key.removesuffix("_bytes"), format_bytes(value)))
        elif value not in (None, "", [], False):
            facts.append((key, plain(value)))
    return facts


# Verify


@verb(
    "verify",
    templates_argument(),
    LIBRARY,
    text="Read every byte of the templates' images again (of all of them without NAMES) and compare the SHA-256; where "
    "the files are on this machine, qemu-img looks at their structure too. Ends with 1 when something is wrong.",
)
def verify(session: Session, names: tuple[str, ...], library: str | None) -> int:
    from hvtui.cli.progress import Progress
    from vm.template_verify import verify as verify_one

    found, templates = chosen_templates(session, names, library)
    verdicts: list[Verification] = []
    with Progress() as progress:
        for each in templates if names else found.templates:

            def tell(fraction: float | None, note: str) -> None:
                progress.show(note, fraction)

            verdicts.append(verify_one(session.host(), found, each, tell))
    _write_verdicts(session, verdicts)
    bad = [each for each in verdicts if not each.is_good]
    for verdict in bad:
        for image in verdict.images:
            if image.detail:
                complain(f"{verdict.template}: {printable(image.volume, limit=80)}: {printable(image.detail)}")
    return 1 if bad else 0


VERDICT_KEYS = ("template", "image", "result", "detail", "structure_checked")


def _write_verdicts(session: Session, verdicts: Sequence[Verification]) -> None:
    rows = [(each.template, image) for each in verdicts for image in each.images]
    if session.output is not Format.TABLE:
        records: list[dict[str, Json]] = [
            dict(zip(VERDICT_KEYS, (name, i.volume, i.finding.value, i.detail or None, i.is_checked), strict=True))
            for name, i in rows
        ]
        write_records(records, session.output, keys=VERDICT_KEYS)
        return
    cells = [[printable(name), printable(image.volume, limit=60), image.finding.value] for name, image in rows]
    write_table(["TEMPLATE", "IMAGE", "RESULT"], cells)


__all__ = ["COLUMNS", "LIBRARY", "template", "template_argument"]
