"""What a template is: a manifest beside its images in the library. Data only; vm.template_manifest reads and writes it.

A manifest is never changed: an edit writes a new revision and then removes the old one. Its volume's name holds the
revision and a hash of the text (`debian-12.r3-9f31c2ab.template.toml`), so that a listing of names alone tells which
manifests an index of the library knows already.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from host.text import printable
from vm.create_request import Firmware

DEFAULT_LIBRARY = "library"


def library_words(pool: str) -> str:
    """ "library" for the usual one, else "library golden"; harmless to show."""
    return "library" if pool == DEFAULT_LIBRARY else f"library {printable(pool, limit=60)}"


class ImageRole(StrEnum):
    """What a volume of a template is to its VMs."""

    DISK = "disk"  # the first one boots; each VM gets an overlay or a copy of its own
    KERNEL = "kernel"  # loaded by the hypervisor, shared by all VMs
    INITRD = "initrd"


class Readiness(StrEnum):
    """How a guest of the template tells that it is ready."""

    CLOUD_INIT = "cloud-init"  # cloud-init finished, as the agent tells, or the serial console where no agent answers
    AGENT = "agent"  # the agent answers
    SERIAL = "serial"  # cloud-init's or the tiny guest's last line on the serial console
    NONE = "none"  # nobody knows: running is ready


@dataclass(frozen=True, slots=True)
class TemplateImage:
    """One volume of a template. `format` is qcow2 or raw; `sha256` is of the volume's bytes as they are stored."""

    volume: str
    role: ImageRole
    format: str
    virtual_size_bytes: int
    size_bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Template:
    """One template of a library. `manifest` is its volume's name (empty before it is stored).

    takes_seed: its guests read a NoCloud seed. `hardware_profile` and `guest_profile` name its defaults, or are empty.
    `origin` says in words where it came from. `os_id` is libosinfo's, or empty. `disk_bus` and `nic_model` are what
    its guest can boot from and talk through: "virtio", or "sata" and "e1000e" for one without paravirtual drivers.
    """

    name: str
    images: tuple[TemplateImage, ...]
    revision: int = 1
    description: str = ""
    origin: str = ""
    created_at: datetime | None = None
    os_id: str = ""
    architecture: str = "x86_64"
    firmware: Firmware = Firmware.BIOS
    readiness: Readiness = Readiness.NONE
    takes_seed: bool = False
    kernel_arguments: str = ""
    disk_bus: str = "virtio"
    nic_model: str = "virtio"
    hardware_profile: str = ""
    guest_profile: str = ""
    tags: tuple[str, ...] = ()
    manifest: str = ""

    def image(self, role: ImageRole) -> TemplateImage | None:
        """The first image of that role."""
        return next((image for image in self.images if image.role is role), None)


@dataclass(frozen=True, slots=True)
class Library:
    """The library of a host at one moment. `others` are the names of volumes that no template uses (ISOs, loose
    images); `problems` are what is wrong, in words. `exists` is False where there is no such pool yet.

    `leftovers` are the volumes that only vm.template_leftovers understands: manifests that a newer revision replaced,
    and the records of changes that died on their way; the next change removes what belongs to them.
    """

    pool: str
    path: str = ""
    exists: bool = True
    is_active: bool = True
    templates: tuple[Template, ...] = ()
    others: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()
    free_bytes: int | None = None
    leftovers: tuple[str, ...] = ()
