"""Libraries for tests: pools in a directory, filled behind libvirt's back as fast as files can be written."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import libvirt

from host.connection import Host
from vm.create_request import Firmware
from vm.library_index import INDEX_NAME, index_text
from vm.template_manifest import manifest_name, to_toml
from vm.template_model import ImageRole, Readiness, Template, TemplateImage

POOL = "<pool type='dir'><name>{name}</name><target><path>{path}</path></target></pool>"
CONTENT = b"the bytes of an image"


def template(name: str, *, revision: int = 1, volume: str = "") -> Template:
    """A whole template, with its manifest's name; every field has a value of its own."""
    image = TemplateImage(
        volume=volume or f"{name}-0a1b2c3d.qcow2",
        role=ImageRole.DISK,
        format="qcow2",
        virtual_size_bytes=2**31,
        size_bytes=len(CONTENT),
        sha256=hashlib.sha256(CONTENT).hexdigest(),
    )
    made = Template(
        name,
        (image,),
        revision=revision,
        description="for tests",
        origin="a test",
        created_at=datetime(2024, 5, 1, 12, 30, 15, 250, tzinfo=UTC),
        os_id="http://debian.org/debian/12",
        firmware=Firmware.UEFI,
        readiness=Readiness.CLOUD_INIT,
        takes_seed=True,
        kernel_arguments="quiet",
        disk_bus="sata",
        nic_model="e1000e",
        hardware_profile="web",
        guest_profile="web",
        tags=("a", "b"),
    )
    return replace(made, manifest=manifest_name(made))


def put(directory: Path, *templates: Template, with_images: bool = True) -> None:
    """Write manifests (and images) of templates into a pool's directory."""
    for each in templates:
        (directory / each.manifest).write_text(to_toml(each), encoding="utf-8")
        for image in each.images if with_images else ():
            (directory / image.volume).write_bytes(CONTENT)


def put_index(directory: Path, templates: Iterable[Template]) -> None:
    """Write the index of these templates."""
    (directory / INDEX_NAME).write_text(index_text(templates), encoding="utf-8")


@contextlib.contextmanager
def pool(host: Host, directory: Path, name: str = "library") -> Iterator[libvirt.virStoragePool]:
    """A directory pool that is gone afterwards, with its files."""
    directory.mkdir(exist_ok=True)
    made = host.connection().storagePoolCreateXML(POOL.format(name=name, path=directory), 0)
    yield made
    with contextlib.suppress(libvirt.libvirtError):
        host.connection().storagePoolLookupByName(name).destroy()
    for path in directory.iterdir():
        path.unlink()
