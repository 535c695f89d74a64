"""The create form's fields as data, and how their texts become a CreateRequest. Pure; no widget, no libvirt."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from host.errors import UsageError
from hvtui.tui import form_fields
from hvtui.tui.form_fields import YES_NO, size_bytes, whole_number
from vm.create_request import CreateRequest, Firmware, Graphics, SourceKind, tiny_request


@dataclass(frozen=True, slots=True)
class Field(form_fields.Field):
    """One line of the form; `sources` are those that need it (empty: all)."""

    sources: frozenset[SourceKind] = frozenset()

    def applies_to(self, source: SourceKind) -> bool:
        return not self.sources or source in self.sources


_NEEDED = {"iso": "ISO", "image": "disk image", "kernel": "kernel"}
_WITH_DISK = frozenset({SourceKind.ISO, SourceKind.EMPTY, SourceKind.KERNEL})
_SOURCES = (
    ("a tiny Linux from this system's kernel", SourceKind.TINY.value),
    ("an installation medium (ISO)", SourceKind.ISO.value),
    ("a disk image, used in place", SourceKind.IMAGE.value),
    ("a kernel and its initrd", SourceKind.KERNEL.value),
    ("a new empty disk", SourceKind.EMPTY.value),
)
_FIRMWARE = (
    ("automatic", Firmware.AUTO.value),
    ("BIOS", Firmware.BIOS.value),
    ("UEFI", Firmware.UEFI.value),
    ("UEFI with Secure Boot", Firmware.UEFI_SECURE.value),
)
_SCREENS = (
    ("VNC on a Unix socket", Graphics.SOCKET.value),
    ("VNC on 127.0.0.1", Graphics.LOOPBACK.value),
    ("none: serial console only", Graphics.NONE.value),
)

FIELDS: tuple[Field, ...] = (
    Field("name", "name", "", "letters, digits, . _ -"),
    Field("source", "from", SourceKind.TINY.value, choices=_SOURCES),
    Field("iso", "ISO", "", "/path/on/the/host.iso", sources=frozenset({SourceKind.ISO})),
    Field("image", "disk image", "", "/path/on/the/host.qcow2", sources=frozenset({SourceKind.IMAGE})),
    Field("kernel", "kernel", "", "/boot/vmlinuz-…", sources=frozenset({SourceKind.KERNEL})),
    Field("initrd", "initrd", "", "/boot/initrd.img-…", sources=frozenset({SourceKind.KERNEL})),
    Field("kernel_arguments", "arguments", "console=ttyS0", sources=frozenset({SourceKind.KERNEL})),
    Field("vcpus", "vCPUs", "1"),
    Field("memory", "memory", "128M", "512M, 4G"),
    Field("disk", "new disk", "20G", "20G, or 0 for none", sources=_WITH_DISK),
    Field("network", "network", "auto", "auto, none, user, bridge:br0, or a libvirt network"),
    Field("firmware", "firmware", Firmware.AUTO.value, choices=_FIRMWARE,
          sources=frozenset(SourceKind) - {SourceKind.TINY, SourceKind.KERNEL}),
    Field("tpm", "TPM", "no", choices=YES_NO, sources=frozenset(SourceKind) - {SourceKind.TINY, SourceKind.KERNEL}),
    Field("graphics", "screen", Graphics.SOCKET.value, choices=_SCREENS),
    Field("tags", "tags", "", "such as: web, prod"),
    Field("start", "start now", "yes", choices=YES_NO),
)  # fmt: skip

# What a source suggests, as long as the user has not typed something else.
SUGGESTED: Mapping[SourceKind, Mapping[str, str]] = {
    SourceKind.TINY: {"vcpus": "1", "memory": "128M", "disk": "0"},
    SourceKind.KERNEL: {"vcpus": "1", "memory": "512M", "disk": "0"},
    SourceKind.ISO: {"vcpus": "2", "memory": "2G", "disk": "20G"},
    SourceKind.IMAGE: {"vcpus": "2", "memory": "2G", "disk": "0"},
    SourceKind.EMPTY: {"vcpus": "2", "memory": "2G", "disk": "20G"},
}


def request_from(values: Mapping[str, str]) -> CreateRequest:
    """The request that the form's texts (by field key) ask for. Raises UsageError naming the field."""
    source = SourceKind(values["source"])
    if not values["name"].strip():
        raise UsageError("give the new VM a name", about="name")
    applies = {field.key for field in FIELDS if field.applies_to(source)}
    chosen = {key: value.strip() for key, value in values.items() if key in applies}
    for key, label in _NEEDED.items():
        if key in applies and not chosen[key]:
            raise UsageError("give its path on the host", about=label)
    base = tiny_request(chosen["name"]) if source is SourceKind.TINY else CreateRequest(chosen["name"], source=source)
    return CreateRequest(
        name=base.name,
        source=source,
        image=chosen.get("image", ""),
        iso=chosen.get("iso", ""),
        kernel=chosen.get("kernel", ""),
        initrd=chosen.get("initrd", ""),
        kernel_arguments=chosen.get("kernel_arguments", ""),
        vcpus=whole_number("vCPUs", chosen["vcpus"]),
        memory_bytes=size_bytes("memory", chosen["memory"]),
        disk_bytes=size_bytes("new disk", chosen.get("disk", "0")),
        network=chosen["network"] or "auto",
        firmware=Firmware(chosen.get("firmware", Firmware.AUTO.value)),
        tpm=chosen.get("tpm") == "yes",
        graphics=Graphics(chosen["graphics"]),
        tags=tuple(tag.strip() for tag in chosen["tags"].split(",") if tag.strip()),
        start=chosen["start"] == "yes",
        wait_ready=chosen["start"] == "yes" and source is SourceKind.TINY,
    )
