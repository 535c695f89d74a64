"""What a VM was made of: its template with revision and profiles, the image that its disk builds on, and the job that
made it, as far as these are known. Reads only; both front ends show it.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

import libvirt

from host.connection import Host
from vm.domain_xml import disk_source, parse
from vm.model import Vm
from vm.template_mark import TemplateMark, template_of

if TYPE_CHECKING:
    from host.job_model import Job
    from host.journal import Journal

_MAKES = frozenset({"create.define", "import.define", "import.define-disk"})  # verbs of the step that defines a new VM


@dataclass(frozen=True, slots=True)
class Origin:
    """`template` is None for a VM that was made from none; `builds_on` is the image that its first disk is an overlay
    on, empty for a disk of its own. `job` made it, `made_at` when: None where the journal does not know."""

    template: TemplateMark | None = None
    builds_on: str = ""
    job: int | None = None
    job_title: str = ""
    made_at: datetime | None = None

    @property
    def is_known(self) -> bool:
        """False where there is nothing to tell."""
        return self.template is not None or bool(self.builds_on) or self.job is not None


def read_origin(host: Host, vm: Vm, journal: Journal | None = None) -> Origin:
    """Two calls at most, and one look into the journal. Raises NotFound, ConnectionLost, and what the journal does."""
    with host.calls("see what it was made of", vm.name) as connection:
        root = parse(connection.lookupByUUIDString(vm.uuid).XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE))
        disk = root.find("devices/disk[@device='disk']")
        path = disk_source(disk) if disk is not None else ""
        builds_on = backing_of(connection, path) if path.startswith("/") else None
    job = _maker(journal, host, vm) if journal is not None else None
    return Origin(
        template=template_of(root),
        builds_on=builds_on or "",
        job=job.id if job is not None else None,
        job_title=job.title if job is not None else "",
        made_at=job.finished_at if job is not None else None,
    )


def backing_of(connection: Any, path: str) -> str | None:
    """The file that a volume builds on, empty for none; None where no pool knows the volume. Raises libvirtError."""
    try:
        volume = connection.storageVolLookupByPath(path)
        return parse(volume.XMLDesc(0), root="volume").findtext("backingStore/path", "")
    except libvirt.libvirtError as error:
        if error.get_error_code() != libvirt.VIR_ERR_NO_STORAGE_VOL:
            raise
        return None


def _maker(journal: Journal, host: Host, vm: Vm) -> Job | None:
    """The oldest job of the VM's uuid on this host that defined it."""
    from host.job_model import StepState

    found = [
        job
        for job in journal.jobs(limit=None, vm=vm.uuid, host_uri=host.uri)
        if any(step.verb in _MAKES and step.state is StepState.DONE for step in job.steps)
    ]
    return found[-1] if found else None
