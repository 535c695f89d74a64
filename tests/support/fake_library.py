"""A simulated host with a library that deployments can be planned on: libvirt's test driver keeps no volume's bytes,
so the manifests come from here, and everything else is real."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime

import pytest

from host.connection import Host
from host.units import GIB, MIB
from tests.support import new_vms
from vm import library
from vm.template_manifest import manifest_name
from vm.template_model import ImageRole, Library, Readiness, Template, TemplateImage

POOL = "<pool type='dir'><name>library</name><target><path>/library</path></target></pool>"
OLD_VM = """<domain type='test'><name>old-shop</name><uuid>00000000-0000-4000-8000-0000000000aa</uuid>
<memory>65536</memory><os><type>hvm</type></os></domain>"""
DISK = TemplateImage("debian.qcow2", ImageRole.DISK, "qcow2", 4 * GIB, 900 * MIB, "0" * 64)
KERNEL = TemplateImage("tiny.vmlinuz", ImageRole.KERNEL, "raw", 8 * MIB, 8 * MIB, "1" * 64)
INITRD = TemplateImage("tiny.initrd", ImageRole.INITRD, "raw", 2 * MIB, 2 * MIB, "2" * 64)
_MADE = datetime(2026, 4, 2, 9, 15, tzinfo=UTC)


def _stored(template: Template) -> Template:
    return replace(template, manifest=manifest_name(template))


DEBIAN = _stored(
    Template(
        "debian", (DISK,), revision=3, description="Debian 12 with cloud-init", origin="the recipe debian",
        created_at=_MADE, os_id="http://debian.org/debian/12", readiness=Readiness.CLOUD_INIT, takes_seed=True,
        tags=("debian",),
    )
)  # fmt: skip
TINY = _stored(
    Template(
        "tiny", (KERNEL, INITRD), description="boots in seconds", origin="the recipe tiny", created_at=_MADE,
        readiness=Readiness.AGENT, kernel_arguments="console=ttyS0 tiny.hostname={name}",
    )
)  # fmt: skip


@dataclass
class FakeLibrary:
    """What the library of that name holds now; tests change it."""

    now: Library
    pool: str = "library"

    def read(self, _host: Host, pool: str = "library") -> Library:
        return replace(self.now, pool=pool) if pool == self.pool else Library(pool, exists=False)


def install(patch: pytest.MonkeyPatch, *templates: Template, **changes: object) -> FakeLibrary:
    """Put these templates in place of what is read."""
    fake = FakeLibrary(
        replace(Library("library", "/library", templates=templates, free_bytes=40 * GIB), **changes)  # type: ignore[arg-type]
    )
    patch.setattr(library, "read", fake.read)
    return fake


def furnished(open_world: Callable[[str], Host]) -> Host:
    """A simulated host with the pools default and library, two networks and one VM."""
    pools = new_vms.POOL + POOL + new_vms.NETWORK.format(name="default") + new_vms.NETWORK.format(name="lab")
    host = open_world(new_vms.WORLD.format(body=pools + OLD_VM))
    with host.calls("fill the library") as connection:
        pool = connection.storagePoolLookupByName("library")
        for image in (DISK, KERNEL, INITRD):
            xml = f"<volume><name>{image.volume}</name><capacity>{image.virtual_size_bytes}</capacity></volume>"
            pool.createXML(xml, 0)
    return host
