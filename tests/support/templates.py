"""Templates for tests on a real libvirtd: made by hand, so that they need no recipe and nothing is converted."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

import libvirt

from host import volumes
from host.connection import Host
from host.units import MIB
from vm.template_manifest import manifest_name, to_toml
from vm.template_model import ImageRole, Readiness, Template, TemplateImage
from vm.tiny import TinyGuest

POOL = "<pool type='dir'><name>{name}</name><target><path>{path}</path></target></pool>"
TINY_ARGUMENTS = "console=tty0 console=ttyS0 quiet panic=-1 tiny.hostname={name}"


@contextlib.contextmanager
def made_pool(host: Host, name: str, path: Path) -> Iterator[Path]:
    """A storage pool in that directory while the context lasts."""
    path.mkdir(parents=True, exist_ok=True)
    with host.calls("make a pool") as connection:
        connection.storagePoolDefineXML(POOL.format(name=name, path=path)).create()
    try:
        yield path
    finally:
        with host.calls("remove a pool") as connection:
            pool = connection.storagePoolLookupByName(name)
            with contextlib.suppress(libvirt.libvirtError):
                pool.destroy()
            pool.undefine()


def add_template(host: Host, pool: str, template: Template) -> Template:
    """Store the manifest of a template whose images lie in the pool already."""
    name = manifest_name(template)
    with host.calls("add a template") as connection:
        connection.storagePoolLookupByName(pool).refresh()
        volumes.write_text(connection, pool, name, to_toml(template))
    return template


def add_tiny(
    host: Host, guest: TinyGuest, directory: Path, *, disk_bytes: int = 0, data_bytes: int = 0, name: str = "tiny"
) -> Template:
    """A template of the built-in guest in the pool `library` at `directory`, with a disk if `disk_bytes`: qcow2, with
    `data_bytes` of noise in it."""
    images = [
        _stored(guest.kernel, directory / f"{name}.vmlinuz", ImageRole.KERNEL),
        _stored(guest.initrd, directory / f"{name}.initrd", ImageRole.INITRD),
    ]
    if disk_bytes:
        images.append(_disk(directory / f"{name}.qcow2", disk_bytes, data_bytes))
    readiness = Readiness.AGENT if guest.has_agent else Readiness.SERIAL
    template = Template(name, tuple(images), readiness=readiness, kernel_arguments=TINY_ARGUMENTS)
    return add_template(host, "library", template)


def _stored(source: Path, target: Path, role: ImageRole) -> TemplateImage:
    target.write_bytes(source.read_bytes())
    size_bytes = target.stat().st_size
    return TemplateImage(target.name, role, "raw", size_bytes, size_bytes, "0" * 64)


def _disk(path: Path, disk_bytes: int, data_bytes: int) -> TemplateImage:
    raw = path.with_suffix(".raw")
    with raw.open("wb") as file, Path("/dev/urandom").open("rb") as noise:
        for _ in range(data_bytes // MIB):
            file.write(noise.read(MIB))
        file.truncate(disk_bytes)
    subprocess.run(["qemu-img", "convert", "-f", "raw", "-O", "qcow2", "--", raw, path], check=True)
    raw.unlink()
    size_bytes = path.stat().st_blocks * 512
    return TemplateImage(path.name, ImageRole.DISK, "qcow2", disk_bytes, size_bytes, "0" * 64)
