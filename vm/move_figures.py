"""The actual figures of a live move, as libvirt counted them, to stand beside the forecast in the journal."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import libvirt

from host.connection import Host
from host.steps import Args
from vm.create_steps import or_none
from vm.move_progress import Moment, moment_of
from vm.move_sides import NO_DOMAIN


def actual_figures(target: Host, args: Args, last: Moment) -> dict[str, Any]:
    """Seconds in all and without a guest, bytes sent and how fast; what libvirt does not tell is not there. The
    statistics of a migration that has ended are at the target (post-copy's are gone with the source: `last`)."""
    with target.calls("read the figures of", args["name"]) as connection:
        domain = or_none(connection.lookupByUUIDString, args["uuid"], missing=NO_DOMAIN)
        ended = _completed(domain) or replace(last, downtime_s=None)  # that one is what QEMU expected
    figures: dict[str, Any] = {
        "total_s": round(ended.elapsed_s, 3),
        "bytes": ended.done_bytes,
        "rounds": ended.iteration,
        "dirty_bytes_s": ended.dirty_bytes_s,
    }
    if ended.downtime_s is not None:
        figures["downtime_s"] = round(ended.downtime_s, 3)
    sending_s = ended.elapsed_s - (ended.setup_s or 0.0)
    if ended.memory_bytes_s or (sending_s > 0 and ended.done_bytes):
        figures["bytes_s"] = ended.memory_bytes_s or ended.done_bytes / sending_s
    return {key: value for key, value in figures.items() if value or key in {"downtime_s", "total_s"}}


def _completed(domain: Any) -> Moment | None:
    if domain is None:
        return None
    flags = libvirt.VIR_DOMAIN_JOB_STATS_COMPLETED | libvirt.VIR_DOMAIN_JOB_STATS_KEEP_COMPLETED
    try:
        statistics = domain.jobStats(flags)
    except libvirt.libvirtError as error:
        if error.get_error_domain() == libvirt.VIR_FROM_RPC:
            raise
        return None
    moment = moment_of(statistics)
    return moment if moment.elapsed_s else None
