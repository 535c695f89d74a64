"""What a change of the library that died leaves behind, and how the next change recognises and removes it.

Before a change makes or removes images it stores a record, `NAME-MARK.unfinished`: which volumes it is about, and which
process on which machine works on it. The record goes last. While its process lives the record means nothing; when it
is dead, each of those volumes that no template lists and no VM uses is a leftover. Old revisions of a manifest, and
halves of one, beside a good one are leftovers too. Nothing else ever is: what people put into the pool stays.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import libvirt

from host import job_process, volumes
from host.errors import UsageError
from host.text import printable
from vm.template_manifest import volume_name_problem

RECORD_SUFFIX = ".unfinished"
LIMIT_BYTES = 64 * 1024
_RECORD_NAME = re.compile(r"(?P<template>.+)-(?P<mark>[0-9a-f]{8})\.unfinished", re.ASCII)
_MOST_VOLUMES = 64


@dataclass(frozen=True, slots=True)
class Record:
    """What a change wrote before it began. `deed` is "adding" or "removing"; `claim` is host.job_process's."""

    template: str
    deed: str = "a change"
    volumes: tuple[str, ...] = ()
    machine: str = ""
    claim: str = ""

    @property
    def is_dead(self) -> bool:
        """True when the process that worked on it is gone; of another machine's nothing is known."""
        if self.machine != os.uname().nodename:
            return not self.machine  # a record that was not written to its end has begun nothing
        return self.claim != job_process.claim_of(os.getpid()) and not job_process.is_alive(self.claim)


def record_name(template: str, mark: str) -> str:
    """The name of the record's volume; `mark` is eight hexadecimal digits that are the change's own."""
    return f"{template}-{mark}{RECORD_SUFFIX}"


def is_record_name(name: str) -> bool:
    """True for the volume of a record."""
    return name.endswith(RECORD_SUFFIX) and _RECORD_NAME.fullmatch(name) is not None


def write_record(connection: Any, pool: str, name: str, *, deed: str, volume_names: Sequence[str]) -> None:
    """Store the record of a change that this process works on; again, when another one goes on with it. Raises
    libvirtError."""
    import json

    claim = job_process.claim_of(os.getpid())
    values = {"deed": deed, "volumes": list(volume_names), "machine": os.uname().nodename, "claim": claim}
    volumes.write_text(connection, pool, name, json.dumps(values))


def remove_record(connection: Any, pool: str, name: str) -> None:
    """Remove the record, if it is there. Raises libvirtError."""
    volume = volumes.find_volume(connection.storagePoolLookupByName(pool), name)
    if volume is not None:
        volumes.delete(volume)


def read_record(volume: Any) -> Record:
    """The record in a volume; one without volumes where it is damaged. Raises libvirtError where the link is lost."""
    import json

    name = volume.name()
    found = _RECORD_NAME.fullmatch(name)
    template = found["template"] if found else name
    try:
        values = json.loads(volumes.read_volume_text(volume, limit_bytes=LIMIT_BYTES))
    except (UsageError, ValueError, RecursionError):
        return Record(template)
    except libvirt.libvirtError as error:
        if error.get_error_domain() == libvirt.VIR_FROM_RPC:
            raise
        return Record(template, machine="?")  # it was removed in between, or is being written
    if not isinstance(values, dict):
        return Record(template)
    names = values.get("volumes")
    listed = [each for each in names if isinstance(each, str)] if isinstance(names, list) else []
    return Record(
        template=template,
        deed=printable(str(values.get("deed", "a change")), limit=40),
        volumes=tuple(each for each in listed[:_MOST_VOLUMES] if not volume_name_problem(each)),
        machine=str(values.get("machine", "")),
        claim=str(values.get("claim", "")),
    )
