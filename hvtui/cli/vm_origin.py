"""What `hvtui vm show` tells of how a VM came to be (vm.origin). Loaded by it alone: it costs calls and the journal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from host.errors import HvtuiError
from hvtui.cli.output import Column
from hvtui.cli.session import Session

if TYPE_CHECKING:
    from host.connection import Host
    from host.journal import Journal
    from host.plan import Json
    from vm.model import Vm
    from vm.origin import Origin

KEY = "made_from"
MEANING = (
    "`vm show` only: what it was made of, else null: template, revision, library, linked, hardware_profile, "
    "guest_profile, settings (given when it was deployed), builds_on (the image that its first disk is an overlay on), "
    "job, job_title, made_at."
)


def made_from_column(origins: Mapping[str, Origin]) -> Column[Vm]:
    """The column of what `origins` (by uuid) say."""
    return Column(
        KEY,
        MEANING,
        lambda vm: origin_record(origins[vm.uuid]) if vm.uuid in origins else None,
        lambda vm: origin_words(origins[vm.uuid]) if vm.uuid in origins else "–",
        extra=True,
    )


def read_origins(session: Session, vms: Sequence[Vm]) -> dict[str, Origin]:
    """Of those VMs of which something is known, by uuid. One that vanished is left out."""
    from vm.origin import read_origin

    hosts = {host.name: host for host in session.hosts()} if session.is_many else {}
    journal = _journal(session)
    found = {}
    for vm in vms:
        host: Host = hosts[vm.host] if vm.host in hosts else session.host()
        try:
            origin = read_origin(host, vm, journal)
        except HvtuiError:
            continue
        if origin.is_known:
            found[vm.uuid] = origin
    return found


def _journal(session: Session) -> Journal | None:
    try:
        return session.journal()
    except HvtuiError:
        return None  # a state directory that cannot be used does not hide the VM


def origin_record(origin: Origin) -> dict[str, Json]:
    """The JSON object."""
    mark = origin.template
    return {
        "template": mark.name if mark else None,
        "revision": mark.revision if mark else None,
        "library": mark.library or None if mark else None,
        "linked": mark.linked if mark else None,
        "hardware_profile": mark.hardware_profile or None if mark else None,
        "guest_profile": mark.guest_profile or None if mark else None,
        "settings": list(mark.settings) if mark else [],
        "builds_on": origin.builds_on or None,
        "job": origin.job,
        "job_title": origin.job_title or None,
        "made_at": origin.made_at.isoformat(timespec="seconds") if origin.made_at else None,
    }


def origin_words(origin: Origin) -> str:
    """The same in words."""
    parts = []
    if (mark := origin.template) is not None:
        there = f" of {mark.library}" if mark.library else ""
        parts.append(f"{mark.name} revision {mark.revision}{there} ({'linked' if mark.linked else 'whole copies'})")
        profiles = list(dict.fromkeys(name for name in (mark.hardware_profile, mark.guest_profile) if name))
        if profiles:
            parts.append(f"profile{'s' if len(profiles) > 1 else ''} {' and '.join(profiles)}")
        if mark.settings:
            parts.append(f"{' '.join(mark.settings)} set at its deployment")
    if origin.builds_on:
        parts.append(f"builds on {origin.builds_on}")
    if origin.job is not None:
        when = f" on {origin.made_at:%Y-%m-%d %H:%M}" if origin.made_at else ""
        parts.append(f"by job {origin.job}{when}: {origin.job_title}")
    return ", ".join(parts)
