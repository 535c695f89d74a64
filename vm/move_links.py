"""How fast the way from one host to another is, as earlier moves in the journal measured it. Reads only."""

from __future__ import annotations

from statistics import median
from typing import TYPE_CHECKING, Any

from host.job_model import JobState, StepState
from vm.move_model import Link

if TYPE_CHECKING:
    from host.job_model import Job
    from host.journal import Journal

ASSUMED = Link(bytes_s=110e6, basis="assumed: 1 Gbit/s")
NEWEST = 5
_LOOKED_AT = 500  # jobs
_LEAST_BYTES = 8 * 1024**2  # of less, the start is most of the time
_VERBS = frozenset({"move.live", "move.copy-disks"})


def link_between(journal: Journal, source_uri: str, target_uri: str) -> Link:
    """What the newest moves from `source_uri` to `target_uri` reached; a Gbit/s where there were none."""
    measured: list[tuple[int, float]] = []
    for job in journal.jobs(_LOOKED_AT, (JobState.DONE,)):
        if job.host_uri == source_uri and target_uri in job.plan.also_on:
            rate = rate_of(job)
            measured += [(job.id, rate)] if rate else []
        if len(measured) == NEWEST:
            break
    if not measured:
        return ASSUMED
    jobs = ", ".join(str(job_id) for job_id, _ in measured[:3])
    basis = f"measured by job{'s' if len(measured) > 1 else ''} {jobs}{' …' if len(measured) > 3 else ''}"
    return Link(median(rate for _, rate in measured), basis, is_measured=True)


def rate_of(job: Job) -> float:
    """Bytes a second of a done move; 0 where it measured none, or was slowed on purpose."""
    for step in job.steps:
        result: Any = step.result
        if step.verb not in _VERBS or step.state is not StepState.DONE or not isinstance(result, dict):
            continue
        if job.plan.steps[step.index].args.get("bandwidth_bytes_s"):
            continue
        if result.get("bytes", 0) >= _LEAST_BYTES and result.get("bytes_s"):
            return float(result["bytes_s"])
    return 0.0
