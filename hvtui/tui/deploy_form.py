"""The deploy form's fields as data, and how their texts become a DeployRequest. No widget.

`read_choices` and `request_from` read the library and may wait: they are called off the event loop.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from host.errors import NotFound, UsageError
from host.text import printable
from host.units import format_bytes
from hvtui.tui.form_fields import Field, NotYet, whole_number
from vm.template_model import DEFAULT_LIBRARY

if TYPE_CHECKING:
    from host.connection import Host
    from vm.deploy_defaults import Parts
    from vm.deploy_request import DeployRequest
    from vm.template_model import Template

READY, STARTED, DEFINED = "ready", "started", "defined"
LINKED, FULL = "linked", "full"
OWN = ("as the template says", "")
_READING = (("reading the library …", ""),)
_NONE = (("none in this library", ""),)
_DISKS = (("linked to the template's disk", LINKED), ("full copies", FULL))
_UNTIL = (
    ("start, wait until it is ready", READY),
    ("start, and do not wait", STARTED),
    ("define only", DEFINED),
)

FIELDS: tuple[Field, ...] = (
    Field("template", "template", "", choices=_READING),
    Field("library", "library", DEFAULT_LIBRARY, "the storage pool of templates"),
    Field("name", "name", "", "web-01, or for many: web-{:02}"),
    Field("count", "how many", "1"),
    Field("first", "first number", "1"),
    Field("disks", "disks", LINKED, choices=_DISKS),
    Field("until", "then", READY, choices=_UNTIL),
    Field("hardware", "hardware", "", choices=(OWN,)),
    Field("guest", "guest", "", choices=(OWN,)),
    Field("memory", "memory", "", "2G"),
    Field("vcpus", "vCPUs", "", "2"),
    Field("disk", "disk", "", "grow it to: 40G"),
    Field("network", "network", "", "auto, none, user, bridge:br0, or a libvirt network"),
    Field("user", "user", "", "one more, who may use sudo: alice"),
    Field("ssh_key", "ssh key", "", "@~/.ssh/id_ed25519.pub, or the line itself"),
    Field("user_data", "user data", "", "a file with more cloud-init, here"),
    Field("title", "title", "", "one line that says what they are for"),
    Field("tags", "tags", "", "such as: web, prod"),
    Field("owner", "owner", "", "who they belong to"),
    Field("pool", "pool", "default"),
)
# Field -> the setting of vm.profiles.override that it is; a key belongs to the user before it.
_SETTINGS = {
    "memory": "memory", "vcpus": "vcpus", "disk": "disk", "network": "network", "user": "user", "ssh_key": "ssh-key",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Choices:
    """What a library offers: its templates, and the names of profiles, built-in ones too."""

    library: str
    templates: tuple[Template, ...]
    hardware: tuple[str, ...]
    guests: tuple[str, ...]

    def of(self, key: str) -> tuple[tuple[str, str], ...]:
        """The (shown, value) pairs of a field."""
        if key == "template":
            return tuple((_told(each), each.name) for each in self.templates) or _NONE
        names = self.hardware if key == "hardware" else self.guests
        return (OWN, *((printable(name, limit=40), name) for name in names))


def _told(template: Template) -> str:
    about = printable(template.description, limit=40)
    return printable(template.name, limit=40) + (f": {about}" if about else "")


def library_of(values: Mapping[str, str]) -> str:
    """The library that the form means."""
    return values["library"].strip() or DEFAULT_LIBRARY


def read_choices(host: Host, library: str) -> Choices:
    """What that library offers; nothing but the built-in profiles where there is none. Raises HvtuiError."""
    from vm import library as libraries
    from vm import profile_store

    found = libraries.read(host, library)
    profiles = profile_store.read(host, library)
    hardware, guests = ([each.name for each in those] for those in (profiles.hardware, profiles.guests))
    return Choices(library, found.templates, tuple(hardware), tuple(guests))


def key_of(about: str) -> str | None:
    """The field that a UsageError is about: its label, or the setting that it became ("memory=")."""
    labels = {field.label: field.key for field in FIELDS}
    settings = {f"{setting}=": key for key, setting in _SETTINGS.items()}
    return labels.get(about) or settings.get(about)


def request_from(
    host: Host, values: Mapping[str, str], *, usual_library: str = DEFAULT_LIBRARY
) -> tuple[DeployRequest, Parts]:
    """The request that the form's texts (by field key) ask for, and what the template and the profiles say without the
    single settings. Its command names the library where that is not the usual one. Raises NotYet without a template or
    a name, UsageError naming the field, NotFound."""
    from vm.deploy_defaults import read_parts
    from vm.deploy_options import of_set
    from vm.deploy_request import DeployRequest
    from vm.profiles import override

    chosen = {key: value.strip() for key, value in values.items()}
    if not chosen["template"]:
        raise NotYet("choose a template", about="template")
    count = whole_number("how many", chosen["count"])
    first = whole_number("first number", chosen["first"], least=0)
    profiles = [chosen[key] for key in ("hardware", "guest") if chosen[key]]
    settings = [f"{setting}={chosen[key]}" for key, setting in _SETTINGS.items() if chosen[key]]
    library = library_of(values)
    parts = read_parts(host, chosen["template"], library=library, profiles=profiles)
    hardware, guest = override(parts.hardware, parts.guest, *settings)
    pattern = chosen["name"] or guest.name_pattern
    if not pattern:
        raise NotYet("give the new VM a name", about="name", remedy="A pattern numbers many: web-{:02}")
    pool = chosen["pool"] or "default"
    until, linked = chosen["until"], chosen["disks"] == LINKED
    tags = tuple(tag.strip() for tag in chosen["tags"].split(",") if tag.strip())
    asked = {
        "count": count if count > 1 else None,
        "first": first if first != 1 else None,
        "pool": pool if pool != "default" else None,
        "library": library if library != usual_library else None,
        "until": until if until != READY else None,
        "linked": linked,
        "profiles": profiles,
        "settings": settings,
        "user_data": chosen["user_data"] or None,
        "title": chosen["title"] or None,
        "owner": chosen["owner"] or None,
        "tags": tags,
    }
    request = DeployRequest(
        template=chosen["template"],
        names=_names(pattern, count, first),
        hardware=hardware,
        guest=guest,
        library=library,
        pool=pool,
        linked=linked,
        start=until != DEFINED,
        wait_ready=until == READY,
        user_data=_user_data(chosen["user_data"]),
        title=chosen["title"],
        tags=tags,
        owner=chosen["owner"],
        command=of_set(chosen["template"], pattern, asked),
    )
    return request, parts


def _user_data(path: str) -> str:
    """The text of the file, read anew for each plan: it may be written meanwhile."""
    from vm.user_data import read_file

    try:
        return read_file(path) if path else ""
    except (NotFound, UsageError) as error:
        raise type(error)(error.cause, about="user data", remedy=error.remedy) from None


def _names(pattern: str, count: int, first: int) -> tuple[str, ...]:
    from vm.name_patterns import expand

    try:
        return expand(pattern, count, first)
    except UsageError as error:
        raise UsageError(error.cause, about="name", remedy=error.remedy) from None


def hints(parts: Parts) -> dict[str, str]:
    """What an empty field means, by its key: what the template and the profiles say."""
    from vm.template_model import ImageRole

    hardware, disk = parts.hardware, parts.template.image(ImageRole.DISK)
    size_bytes = max(hardware.disk_bytes, disk.virtual_size_bytes if disk is not None else 0)
    networks: Sequence[str] = [nic.network or "auto" for nic in hardware.nics] or ["none"]
    told = {
        "name": parts.guest.name_pattern,
        "memory": format_bytes(hardware.memory_bytes),
        "vcpus": str(hardware.vcpus),
        "disk": f"{format_bytes(size_bytes)}; or grow it to: 40G" if size_bytes else "none; or a new one of: 10G",
        "network": ", ".join(networks),
        "user": ", ".join(user.name for user in parts.guest.users),
    }
    return {key: printable(text, limit=60) for key, text in told.items() if text}
