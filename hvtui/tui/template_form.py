"""The fields of a new template and of an edited one, and how their texts become a request or changes. No widget."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from host.errors import UsageError
from hvtui.tui.form_fields import YES_NO, Field, NotYet
from vm.create_request import Firmware
from vm.template_model import DEFAULT_LIBRARY, ImageRole, Library, Readiness, Template

if TYPE_CHECKING:
    from vm.template_add import AddRequest

TINY, DEBIAN, FILE, VOLUME = "tiny", "debian", "file", "volume"
_SOURCES = (
    ("tiny: a Linux from this system's kernel, in seconds", TINY),
    ("debian: built from packages, in minutes", DEBIAN),
    ("an image file of this machine", FILE),
    ("a volume of the library", VOLUME),
)
_READINESS = (
    ("nobody knows: running is ready", Readiness.NONE.value),
    ("when cloud-init has finished", Readiness.CLOUD_INIT.value),
    ("when its agent answers", Readiness.AGENT.value),
    ("when its serial console says so", Readiness.SERIAL.value),
)
_FIRMWARE = (
    ("BIOS", Firmware.BIOS.value),
    ("UEFI", Firmware.UEFI.value),
    ("UEFI with Secure Boot", Firmware.UEFI_SECURE.value),
    ("automatic", Firmware.AUTO.value),
)
_BUSES = (("virtio", "virtio"), ("scsi", "scsi"), ("sata: no paravirtual drivers", "sata"))
_CARDS = (("virtio", "virtio"), ("e1000e: no paravirtual drivers", "e1000e"))
_LIBRARY_HINT = "the storage pool of templates; it is made where there is none"
_OS_HINT = "http://debian.org/debian/12; leave it empty if unknown"

# Fields that only one source needs.
_ONLY = {"path": FILE, "volume": VOLUME}


def add_fields(library: Library | None, source: str = TINY) -> tuple[Field, ...]:
    """The fields of a new template."""
    loose = library.others[0] if library is not None and library.others else ""
    return (
        Field("name", "name", "", "letters, digits, . _ -"),
        Field("source", "from", source, choices=_SOURCES),
        Field("path", "file", "", "/path/here: qcow2, raw, VMDK, VHD, VHDX, VDI, OVA, .xz .gz .zst"),
        Field("volume", "volume", "", f"such as {loose}" if loose else "its name in the library"),
        Field("description", "description", "", "what it is for"),
        Field("os", "system", "", _OS_HINT),
        Field("sha256", "SHA-256", "", "of the file, to compare: 64 digits"),
        Field("library", "library", library.pool if library is not None else DEFAULT_LIBRARY, _LIBRARY_HINT),
    )


def is_shown(key: str, source: str) -> bool:
    """Whether the field matters for a template made from `source`; a recipe knows its system by itself."""
    if key in {"sha256", "os"}:
        return source == FILE or (key == "os" and source == VOLUME)
    return _ONLY.get(key, source) == source


def add_request(values: Mapping[str, str]) -> AddRequest:
    """The request that the fields ask for. Raises NotYet, UsageError naming the field."""
    from vm.template_add import AddRequest, OriginKind

    source = values["source"]
    chosen = {key: text.strip() for key, text in values.items() if is_shown(key, source)}
    name = chosen["name"]
    if not name:
        raise NotYet("give the new template a name", about="name")
    kind, origin = OriginKind.RECIPE, source
    if source == FILE:
        if not chosen["path"]:
            raise UsageError("give its path on this machine", about="file")
        kind, origin = OriginKind.FILE, str(Path(chosen["path"]).expanduser().absolute())
    elif source == VOLUME:
        if not chosen["volume"]:
            raise UsageError("give the volume's name in the library", about="volume")
        kind, origin = OriginKind.VOLUME, chosen["volume"]
    return AddRequest(
        name,
        origin,
        kind=kind,
        sha256=chosen.get("sha256", ""),
        description=chosen["description"] or None,
        os_id=chosen.get("os") or None,
        library=chosen["library"] or DEFAULT_LIBRARY,
    )


def edit_fields(template: Template) -> tuple[Field, ...]:
    """The fields of a template that is there; their keys are those of vm.template_change.SETTINGS."""
    fields = (
        Field("description", "description", template.description, "what it is for"),
        Field("os", "system", template.os_id, _OS_HINT),
        Field("readiness", "ready", template.readiness.value, choices=_READINESS),
        Field("seed", "takes a seed", "yes" if template.takes_seed else "no", choices=YES_NO),
        Field("firmware", "firmware", template.firmware.value, choices=_FIRMWARE),
        Field("disk_bus", "disk bus", template.disk_bus, choices=_with(_BUSES, template.disk_bus)),
        Field("nic_model", "card", template.nic_model, choices=_with(_CARDS, template.nic_model)),
        Field("kernel_arguments", "arguments", template.kernel_arguments, "console=ttyS0"),
        Field("hardware_profile", "hardware", template.hardware_profile, "the hardware profile of its VMs"),
        Field("guest_profile", "guest", template.guest_profile, "the guest profile of its VMs"),
        Field("tags", "tags", ", ".join(template.tags), "such as: web, prod"),
    )
    has_kernel = template.image(ImageRole.KERNEL) is not None
    return tuple(field for field in fields if has_kernel or field.key != "kernel_arguments")


def _with(choices: tuple[tuple[str, str], ...], value: str) -> tuple[tuple[str, str], ...]:
    """The choices, with the one that is in force: a manifest may name others."""
    return choices if value in {each for _shown, each in choices} else (*choices, (value, value))


def changes(before: Mapping[str, str], values: Mapping[str, str]) -> dict[str, str]:
    """What was changed, for vm.template_change.plan_edit. Raises NotYet when nothing was."""
    changed = {key: text.strip() for key, text in values.items() if text.strip() != before[key].strip()}
    if not changed:
        raise NotYet("nothing is changed")
    return changed
