"""The import form's fields as data, and how their texts become an ImportRequest or a DiskImportRequest. No widget.

`kind_of` looks at a file and may wait: it is called off the event loop.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

from host.errors import UsageError
from hvtui.tui import form_fields
from hvtui.tui.form_fields import YES_NO, NotYet, size_bytes, whole_number
from vm.create_request import Firmware
from vm.import_report import ImportRequest

if TYPE_CHECKING:
    from host.connection import Host
    from host.plan import Plan
    from vm.import_disk import DiskImportRequest

MANIFEST = "hvtui-bundle.json"
COPY, RESTORE = "copy", "restore"
COPIED, IN_PLACE = "copied", "register"


class SourceKind(StrEnum):
    """What lies at the path."""

    NONE = ""  # nothing (yet)
    BUNDLE = "bundle"
    DISK = "disk"  # or an appliance


@dataclass(frozen=True, slots=True)
class Field(form_fields.Field):
    """One line of the form; `source` is the kind of source that needs it (NONE: all)."""

    source: SourceKind = SourceKind.NONE


_IDENTITY = (("a copy, with an identity of its own", COPY), ("restored: the one that it had", RESTORE))
_DISKS = (("copied into the pool", COPIED), ("used in place, where they lie", IN_PLACE))
_FIRMWARE = (
    ("as its partition table says", Firmware.AUTO.value),
    ("BIOS", Firmware.BIOS.value),
    ("UEFI", Firmware.UEFI.value),
    ("UEFI with Secure Boot", Firmware.UEFI_SECURE.value),
)
_BUSES = (
    ("what its system has drivers for", ""),
    ("virtio", "virtio"),
    ("scsi", "scsi"),
    ("sata", "sata"),
    ("ide", "ide"),
)

FIELDS: tuple[Field, ...] = (
    Field("path", "path", "", "/path/here: a bundle's directory, an OVA, a VHD, VHDX, VMDK, VDI, qcow2 …"),
    Field("more", "more disks", "", "of the same VM: '/path/its data.vmdk' /path/third.vmdk", source=SourceKind.DISK),
    Field("name", "name", "", "empty: the one that it had"),
    Field("identity", "identity", COPY, choices=_IDENTITY, source=SourceKind.BUNDLE),
    Field("disks", "disks", COPIED, choices=_DISKS, source=SourceKind.BUNDLE),
    Field("firmware", "firmware", Firmware.AUTO.value, choices=_FIRMWARE, source=SourceKind.DISK),
    Field("bus", "disk bus", "", choices=_BUSES, source=SourceKind.DISK),
    Field("memory", "memory", "", "as its appliance says, else 2G", source=SourceKind.DISK),
    Field("vcpus", "vCPUs", "", "as its appliance says, else 2", source=SourceKind.DISK),
    Field("networks", "networks", "", "OLD=NEW, such as: lan=default, br7=bridge:br0", source=SourceKind.BUNDLE),
    Field("network", "network", "auto", "auto, none, user, bridge:br0, or a libvirt network", source=SourceKind.DISK),
    Field("os", "system", "", "http://microsoft.com/win/2k12r2; leave it empty if unknown", source=SourceKind.DISK),
    Field("tpm", "TPM", "no", choices=YES_NO, source=SourceKind.DISK),
    Field("raw", "raw", "no", choices=(("no", "no"), ("yes: a raw disk, though nothing in it says so", "yes")),
          source=SourceKind.DISK),
    Field("pool", "pool", "default"),
    Field("start", "start now", "no", choices=YES_NO),
)  # fmt: skip


def kind_of(text: str) -> SourceKind:
    """What lies at that path of this machine."""
    path = path_of(text)
    if not text.strip():
        return SourceKind.NONE
    try:
        if path.is_dir() or (path.name == MANIFEST and path.is_file()):
            return SourceKind.BUNDLE
        return SourceKind.DISK if path.exists() else SourceKind.NONE
    except PermissionError:
        return SourceKind.DISK  # its plan says what may not be read
    except OSError:
        return SourceKind.NONE


def is_shown(field: form_fields.Field, kind: SourceKind) -> bool:
    """Whether the field matters for such a source."""
    return not isinstance(field, Field) or field.source in {SourceKind.NONE, kind}


def plan_of(host: Host, values: Mapping[str, str], kind: SourceKind) -> Plan:
    """The plan that the fields ask for. Raises what `request_from` and the planning of an import do."""
    request = request_from(values, kind)
    if isinstance(request, ImportRequest):
        from vm.import_bundle import plan_import

        return plan_import(host, request)
    from vm.import_disk import plan_import_disk

    return plan_import_disk(host, request)


def request_from(values: Mapping[str, str], kind: SourceKind) -> ImportRequest | DiskImportRequest:
    """The request that the fields (by key) ask for. Raises NotYet without a source, UsageError naming the field."""
    chosen = {key: value.strip() for key, value in values.items()}
    if kind is SourceKind.NONE:
        if not chosen["path"]:
            raise NotYet("say what is imported", about="path")
        raise NotYet(f"there is nothing at {chosen['path']} on this machine", about="path")
    return _bundle_request(chosen) if kind is SourceKind.BUNDLE else _disk_request(chosen)


def _bundle_request(chosen: Mapping[str, str]) -> ImportRequest:
    path = path_of(chosen["path"])
    return ImportRequest(
        directory=path.parent if path.name == MANIFEST else path,
        name=chosen["name"],
        restore=chosen["identity"] == RESTORE,
        register=chosen["disks"] == IN_PLACE,
        pool=chosen["pool"] or "default",
        networks=dict(_mapping(text) for text in chosen["networks"].split(",") if text.strip()),
        start=chosen["start"] == "yes",
    )


def _disk_request(chosen: Mapping[str, str]) -> DiskImportRequest:
    from vm.import_disk import DiskImportRequest

    return DiskImportRequest(
        sources=(path_of(chosen["path"]), *_more(chosen["more"])),
        name=chosen["name"],
        pool=chosen["pool"] or "default",
        network=chosen["network"] or "auto",
        memory_bytes=size_bytes("memory", chosen["memory"]),
        vcpus=whole_number("vCPUs", chosen["vcpus"]) if chosen["vcpus"] else 0,
        firmware=Firmware(chosen["firmware"]),
        bus=chosen["bus"],
        os_id=chosen["os"],
        tpm=chosen["tpm"] == "yes",
        is_raw=chosen["raw"] == "yes",
        start=chosen["start"] == "yes",
    )


def path_of(text: str) -> Path:
    """The path of this machine that was typed."""
    try:
        return Path(text.strip()).expanduser().absolute()
    except RuntimeError:  # ~name of nobody
        return Path(text.strip()).absolute()


def _more(text: str) -> tuple[Path, ...]:
    try:
        return tuple(path_of(word) for word in shlex.split(text))
    except ValueError:
        raise UsageError("a quotation mark has no end", about="more disks") from None


def _mapping(text: str) -> tuple[str, str]:
    old, equals, new = (part.strip() for part in text.partition("="))
    if not (old and equals and new):
        raise UsageError(
            f"{text.strip()!r} does not say what takes whose place",
            about="networks",
            remedy="Write OLD=NEW, several with commas",
        )
    return old, new
