"""What an import is asked for, and what a comparison of a bundle with a host found. Data only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from host.errors import Blocked, HvtuiError
from host.plan import Blocker
from host.text import printable
from host.units import GIB

DEFAULT_LIMIT_BYTES = 4096 * GIB


@dataclass(frozen=True, slots=True)
class ImportRequest:
    """A bundle to import.

    restore: keep the VM's identity (uuid, MAC addresses, TPM); else it is a copy with new ones.
    register: use the disks where they lie in the bundle, on this machine; else they are copied into `pool`.
    networks: what takes the place of a network, bridge or device of the old host: a network's name, "bridge:NAME",
        "user" or "none".
    limit_bytes: the largest disk that is taken, as the guest sees it.
    """

    directory: Path
    name: str = ""  # empty: that of the bundle
    restore: bool = False
    register: bool = False
    pool: str = "default"
    networks: Mapping[str, str] = field(default_factory=dict)
    start: bool = False
    limit_bytes: int = DEFAULT_LIMIT_BYTES


class FindingKind(StrEnum):
    OK = "ok"
    CHANGED = "changed"  # it works, otherwise than on the old host
    BLOCKER = "blocker"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was compared. `exit_code` is that of the error which a blocker stands for."""

    kind: FindingKind
    text: str
    remedy: str = ""
    exit_code: int = Blocked.exit_code


@dataclass(slots=True)
class Findings:
    """What was found so far, in order."""

    all: list[Finding] = field(default_factory=list)

    def ok(self, text: str) -> None:
        """Something that is as it should be."""
        self.all.append(Finding(FindingKind.OK, text))

    def changed(self, text: str, remedy: str = "") -> None:
        """Something that will be otherwise than on the old host."""
        self.all.append(Finding(FindingKind.CHANGED, text, remedy))

    def block(self, text: str, remedy: str = "", *, exit_code: int = Blocked.exit_code) -> None:
        """Something that keeps the VM from being imported."""
        self.all.append(Finding(FindingKind.BLOCKER, text, remedy, exit_code))

    def block_for(self, error: HvtuiError) -> None:
        """A blocker that says what an error says."""
        about = f"{printable(error.about)}: " if error.about else ""
        self.block(f"{about}{error.cause}", error.remedy, exit_code=error.exit_code)


@dataclass(frozen=True, slots=True)
class Report:
    """The comparison. `xml` is the definition that the VM would get, its secrets apart in `secrets`; empty where the
    bundle's own cannot be read. `uuid` and `mark` are what the import would give to what it makes."""

    name: str
    uuid: str
    mark: str
    findings: tuple[Finding, ...]
    xml: str = ""
    secrets: Mapping[str, str] = field(default_factory=dict)
    nvram: str = ""  # where the firmware variables go, if there are any
    tpm: str = ""  # the directory of the TPM's state, if it is restored

    def of(self, kind: FindingKind) -> tuple[Finding, ...]:
        """The findings of that kind."""
        return tuple(finding for finding in self.findings if finding.kind is kind)

    @property
    def blockers(self) -> tuple[Blocker, ...]:
        """The findings that keep it from being imported."""
        found = self.of(FindingKind.BLOCKER)
        return tuple(Blocker(each.text, each.remedy, exit_code=each.exit_code) for each in found)
