"""Reads and writes manifests: a template as TOML, and the name of the volume that holds it. Pure.

`debian-12.r3-9f31c2ab.template.toml` holds revision 3 of the template debian-12, and the first digits of the SHA-256 of
its text: half a manifest is known by its name, and an index of all of them by their names alone. A manifest is hostile
(anybody with a way into the pool may have written it): what is not exactly right is a UsageError, never a guess.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import fields
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, TypeVar

from host.errors import UsageError
from host.text import printable
from host.toml_tables import Table, parse_toml
from vm.create_request import Firmware
from vm.names import name_problem
from vm.template_model import ImageRole, Readiness, Template, TemplateImage

FORMAT = 1
KIND = "template"
SUFFIX = ".template.toml"
LONGEST_NAME = 64  # the names of its volumes are longer by a mark, an ending, a revision
NAME_RULE = "Use letters, digits, and . _ - + between them, at most 64"
LIMIT_BYTES = 64 * 1024
MOST_IMAGES = 16
MOST_TAGS = 64
_LONGEST_TEXT = 4096
_MOST_BYTES = 2**63 - 1
_NAME = re.compile(rf"[A-Za-z0-9](?:[A-Za-z0-9._+-]{{0,{LONGEST_NAME - 2}}}[A-Za-z0-9])?", re.ASCII)
_MANIFEST_NAME = re.compile(
    r"(?P<name>.+)\.r(?P<revision>[1-9]\d{0,8})-(?P<hash>[0-9a-f]{8})\.template\.toml", re.ASCII
)
_SHA256 = re.compile(r"[0-9a-f]{64}", re.ASCII)
_HEAD = ("format", "kind")
_KEYS = tuple(each.name for each in fields(Template) if each.name != "manifest")
_IMAGE_KEYS = tuple(each.name for each in fields(TemplateImage))
_E = TypeVar("_E", bound=StrEnum)


def template_name_problem(name: str) -> str:
    """Why `name` cannot be a template's; empty when it can. It becomes part of file names."""
    problem = name_problem(name)
    if problem or _NAME.fullmatch(name):
        return problem
    if len(name) > LONGEST_NAME:
        return f"it is longer than {LONGEST_NAME} characters"
    return "it holds more than letters, digits and . _ - +, or begins or ends with one of these"


def check_template_name(name: str) -> str:
    """`name` itself when a new template may have it. Raises UsageError."""
    problem = template_name_problem(name)
    if problem:
        shown = printable(name, limit=60)
        raise UsageError(f"{shown!r} cannot be a template's name: {problem}", remedy=NAME_RULE)
    return name


# Names


def manifest_name(template: Template) -> str:
    """The name of the volume that holds the template's manifest."""
    return name_of_text(template, to_toml(template))


def name_of_text(template: Template, text: str) -> str:
    """As `manifest_name`, for the manifest's text."""
    return f"{template.name}.r{template.revision}-{text_hash(text)}{SUFFIX}"


def text_hash(text: str) -> str:
    """The digits of a manifest's text that its name holds."""
    import hashlib  # here: a listing with a good index hashes nothing

    return hashlib.sha256(text.encode("utf-8")).hexdigest()[:8]


def parse_manifest_name(name: str) -> tuple[str, int, str] | None:
    """Template name, revision and hash that a volume's name holds; None for a volume that is no manifest."""
    found = _MANIFEST_NAME.fullmatch(name) if name.endswith(SUFFIX) else None
    if found is None or template_name_problem(found["name"]):
        return None
    return found["name"], int(found["revision"]), found["hash"]


# Writing


def to_toml(template: Template) -> str:
    """The manifest's text."""
    import tomli_w  # only where something is changed

    return tomli_w.dumps(to_document(template))


def to_document(template: Template) -> dict[str, Any]:
    """The manifest as TOML's types; empty values are left out."""
    values: dict[str, Any] = {"format": FORMAT, "kind": KIND}
    for key in _KEYS:
        value = getattr(template, key)
        if key != "images" and value not in ("", ()) and value is not None:
            values[key] = _plain(value)
    values["images"] = [{key: _plain(getattr(image, key)) for key in _IMAGE_KEYS} for image in template.images]
    return values


def _plain(value: object) -> object:
    if isinstance(value, datetime):
        return value.astimezone(UTC)
    if isinstance(value, StrEnum):
        return value.value
    return list(value) if isinstance(value, tuple) else value


def check_template(template: Template) -> str:
    """The manifest's text, once it is sure that it can be read again. Raises UsageError naming the key otherwise."""
    try:
        text = to_toml(template)
        from_toml(text, name_of_text(template, text))
    except UnicodeEncodeError:
        raise UsageError("a text of the template holds bytes that are no text", about=template.name) from None
    except UsageError as error:
        raise UsageError(error.cause, about=template.name, remedy=error.remedy) from None
    return text


# Reading


def from_toml(text: str, name: str) -> Template:
    """The template in a manifest's text; `name` is the manifest's volume, which errors name. Raises UsageError."""
    parsed = parse_manifest_name(name)
    if parsed is None:
        raise UsageError(
            "this is no manifest's name", about=name, remedy="It is such as debian-12.r1-0a1b2c3d" + SUFFIX
        )
    if text_hash(text) != parsed[2]:
        remedy = "It was not written to its end, or changed by hand; it may be removed"
        raise UsageError("its text is not the one that its name stands for", about=name, remedy=remedy)
    return from_document(parse_toml(text, file=name), name)


def from_document(document: Mapping[str, Any], name: str) -> Template:
    """The template in a manifest's document, as read from TOML or from an index of manifests. Raises UsageError."""
    if document.get("format") != FORMAT:
        remedy = "Was it written by a newer version of hvtui?"
        raise UsageError(
            f"its format is {printable(repr(document.get('format')), limit=40)}", about=name, remedy=remedy
        )
    table = Table(name, "", document, (*_HEAD, *_KEYS))
    if table.text("kind", "") != KIND:
        table.refuse("kind", "is another", f'It must be "{KIND}"')
    parsed = parse_manifest_name(name)
    if parsed is None or parsed[:2] != (table.text("name", ""), _whole(table, "revision")):
        table.refuse("name", "or its revision is not that of the volume's name", "Was it renamed? Add it again")
    return Template(
        name=parsed[0],
        images=_images(table),
        revision=parsed[1],
        description=_text(table, "description"),
        origin=_text(table, "origin"),
        created_at=_moment(table, "created_at"),
        os_id=_text(table, "os_id"),
        architecture=_text(table, "architecture", "x86_64"),
        firmware=_choice(table, "firmware", Firmware.BIOS),
        readiness=_choice(table, "readiness", Readiness.NONE),
        takes_seed=table.flag("takes_seed", False),
        kernel_arguments=_text(table, "kernel_arguments"),
        disk_bus=_text(table, "disk_bus", "virtio"),
        nic_model=_text(table, "nic_model", "virtio"),
        hardware_profile=_text(table, "hardware_profile"),
        guest_profile=_text(table, "guest_profile"),
        tags=_tags(table),
        manifest=name,
    )


def _images(table: Table) -> tuple[TemplateImage, ...]:
    tables = table.tables("images", _IMAGE_KEYS)
    if not 0 < len(tables) <= MOST_IMAGES:
        table.refuse("images", f"are {len(tables)}", f"A template has 1 to {MOST_IMAGES}")
    images = tuple(_image(each) for each in tables)
    if len({image.volume for image in images}) != len(images):
        table.refuse("images", "name a volume twice", "Each is a volume of its own")
    return images


def _image(table: Table) -> TemplateImage:
    role = _choice(table, "role", ImageRole.DISK)
    sha256 = table.text("sha256", "")
    if not _SHA256.fullmatch(sha256):
        table.refuse("sha256", "is no SHA-256", "It must be 64 hexadecimal digits")
    return TemplateImage(
        volume=_volume(table),
        role=role,
        format=table.choice("format", "", ("qcow2",) if role is ImageRole.DISK else ("raw",)),
        virtual_size_bytes=_whole(table, "virtual_size_bytes"),
        size_bytes=_whole(table, "size_bytes"),
        sha256=sha256,
    )


def _volume(table: Table) -> str:
    """A plain file name: a manifest must not lead out of its library."""
    name = table.text("volume", "")
    if volume_name_problem(name):
        table.refuse(
            "volume", f"is {printable(name, limit=60)!r}: {volume_name_problem(name)}", "Name a volume beside it"
        )
    return name


def volume_name_problem(name: str) -> str:
    """Why `name` cannot be a volume of a file pool; empty when it can."""
    if not name or name in {".", ".."}:
        return "that is no file's name"
    if "/" in name or "\\" in name:
        return "it is a path"
    if printable(name) != name or len(name.encode("utf-8", "replace")) > 255:
        return "no file here should have that name"
    return ""


def _text(table: Table, key: str, usual: str = "") -> str:
    found = table.text(key, usual)
    if len(found) > _LONGEST_TEXT:
        table.refuse(key, f"has {len(found)} characters", f"At most {_LONGEST_TEXT}")
    return found


def _tags(table: Table) -> tuple[str, ...]:
    found = table.texts("tags", 'a list of texts, such as ["web"]')
    if len(found) > MOST_TAGS or any(len(each) > _LONGEST_TEXT for each in found):
        table.refuse("tags", "are too many or too long", f"At most {MOST_TAGS}")
    return found


def _whole(table: Table, key: str) -> int:
    """A number that must be there; TOML's numbers have no limit of their own."""
    if key not in table.values:
        table.refuse(key, "is missing", "It must be a whole number")
    found = table.value(key, int, 0, "a whole number")
    if not 0 <= found <= _MOST_BYTES:
        table.refuse(key, "is out of range", "It must be a whole number from 0 on")
    return int(found)


def _choice(table: Table, key: str, usual: _E) -> _E:
    return type(usual)(table.choice(key, usual.value, tuple(each.value for each in type(usual))))


def _moment(table: Table, key: str) -> datetime | None:
    """TOML has moments of its own; an index, which is JSON, has them as text."""
    found = table.values.get(key)
    if found is None:
        return None
    if isinstance(found, str):
        try:
            found = datetime.fromisoformat(found)
        except ValueError:
            found = None
    if not isinstance(found, datetime):
        table.refuse(key, "is no moment", "It must be a date and time, such as 2024-05-01T12:00:00Z")
    return found if found.tzinfo is not None else found.replace(tzinfo=UTC)
