"""How many of several changes were done, failed or cancelled, in the words of both front ends. Pure."""

from __future__ import annotations

from host.job_model import JobSet, JobState

_TOLD = (JobState.FAILED, JobState.INTERRUPTED, JobState.CANCELLED, JobState.ROLLED_BACK)


def in_sum(total: int, *, failed: int, cancelled: int) -> str:
    """ "2 of 9 failed", or "6 done, 1 cancelled, 2 failed": what the user cancelled did not fail."""
    if not cancelled:
        return f"{failed} of {total} failed"
    counts = {"done": total - cancelled - failed, "cancelled": cancelled, "failed": failed}
    return ", ".join(f"{count} {word}" for word, count in counts.items() if count)


def set_sum(job_set: JobSet) -> str:
    """ "12/20 done, 1 failed"; a preparation is told of only when it is what keeps the others from beginning."""
    counts = job_set.counts
    told = [f"{counts[JobState.DONE]}/{len(job_set.main)} done"]
    told += [f"{counts[state]} {state.value}" for state in _TOLD if counts[state]]
    ended = [job for job in job_set.preparations if job.state.is_over and job.state is not JobState.DONE]
    return ", ".join((*told, *(f"preparation {job.state.value}" for job in ended)))
