"""What became of a move: its actual figures beside the forecast that its plan rested on. Pure functions on a job.

The plan puts its forecast into the arguments of its first step, so that the journal keeps both.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from host.job_model import Job, JobState
from host.plan import Json, Step
from host.text import printable
from host.units import format_bytes
from vm.move_forecast import seconds, short
from vm.move_model import Forecast

FORECAST = "forecast"
_LIVE, _RESTORE = "move.live", "move.restore"
_DISKS = "storage.move"


@dataclass(frozen=True, slots=True)
class Figures:
    """Seconds and bytes, as predicted and as they were; None for what nobody knows (yet). The times of a whole move
    are the job's own, those of its last run where it was restarted."""

    predicted_s: float | None = None
    predicted_still_s: float | None = None
    predicted_bytes: int | None = None
    took_s: float | None = None
    stood_still_s: float | None = None
    sent_bytes: int | None = None
    became_quick: bool = False


def with_forecast(steps: Sequence[Step], found: Forecast) -> tuple[Step, ...]:
    """The steps of a move with its forecast in the first one's arguments."""
    told: dict[str, Json] = {
        "total_s": round(found.total_s, 3),
        "downtime_s": round(found.downtime_s, 3),
        "bytes": found.transfer_bytes,
    }
    return tuple(replace(step, args={**step.args, FORECAST: told}) for step in steps[:1]) + tuple(steps[1:])


def is_move(job: Job) -> bool:
    """Whether a job moves a VM, its disks or a copy of its definition."""
    return any(step.verb.startswith("move.") or step.verb == _DISKS for step in job.plan.steps)


def figures_of(job: Job) -> Figures:
    """The figures of a move; all None for another job."""
    if not is_move(job):
        return Figures()
    told: Any = job.plan.steps[0].args.get(FORECAST)
    predicted: Mapping[str, Any] = told if isinstance(told, Mapping) else {}
    results: dict[str, Mapping[str, Any]] = {step.verb: step.result for step in job.steps if step.result}
    carrier = results.get(_RESTORE, {}) if results.get(_RESTORE, {}).get("downtime_s") else results.get(_LIVE, {})
    sent = [result["bytes"] for result in results.values() if isinstance(result.get("bytes"), int)]
    return Figures(
        predicted_s=predicted.get("total_s"),
        predicted_still_s=predicted.get("downtime_s"),
        predicted_bytes=predicted.get("bytes"),
        took_s=_took_s(job) if job.state is JobState.DONE else None,
        stood_still_s=carrier.get("downtime_s"),
        sent_bytes=sum(sent) if sent else None,
        became_quick=_LIVE in results and results[_LIVE].get("handed_over") is False,
    )


def _took_s(job: Job) -> float | None:
    if job.started_at is None or job.finished_at is None:
        return None
    return round((job.finished_at - job.started_at).total_seconds(), 3)


def as_json(job: Job) -> Json:
    """The figures as a JSON object; None for a job that is no move."""
    if not is_move(job):
        return None
    found = figures_of(job)
    return {
        "predicted_s": found.predicted_s,
        "predicted_standstill_s": found.predicted_still_s,
        "predicted_bytes": found.predicted_bytes,
        "took_s": found.took_s,
        "standstill_s": found.stood_still_s,
        "sent_bytes": found.sent_bytes,
        "became_quick": found.became_quick,
    }


def words(job: Job) -> str:
    """What a move that is done did, with its figures: "moved web-01 to lab2: 2.1 s (predicted 9 s), stood still 0.2 s
    (predicted 0.1 s)". Empty for every other job."""
    if job.state is not JobState.DONE or not is_move(job):
        return ""
    told = figures_in_words(job)
    return f"{_deed(job)}: {told}" if told else _deed(job)


def figures_in_words(job: Job) -> str:
    """The actual figures of a move, each with what was predicted; empty where there are none yet."""
    found = figures_of(job)
    parts = []
    if found.took_s is not None:
        parts.append(seconds(found.took_s) + _predicted(found.predicted_s))
    if found.stood_still_s is not None:
        parts.append(f"stood still {short(found.stood_still_s)}{_predicted(found.predicted_still_s)}")
    if found.became_quick:
        parts.append("in the end as a quick move")
    return ", ".join(parts)


def _predicted(value_s: float | None) -> str:
    return f" (predicted {short(value_s)})" if value_s else ""


def _deed(job: Job) -> str:
    name = printable(job.vm_name or "", limit=80)
    verbs = {step.verb for step in job.plan.steps}
    named = (step.args["target_name"] for step in job.plan.steps if "target_name" in step.args)
    target = printable(str(next(named, "")), limit=80)
    if _DISKS in verbs:
        return f"moved disks of {name}"
    if "move.own" in verbs:
        return f"copied the definition of {name} to {target}"
    return f"moved {name} to {target}"


def told(job: Job) -> str:
    """Forecast and actual figures of a move in one line: "predicted 9 s, guest stands still 0.1 s; took 2.1 s, stood
    still 0.2 s, 120M sent"."""
    found = figures_of(job)
    before, after = [], []
    if found.predicted_s is not None:
        before.append(f"predicted {seconds(found.predicted_s)}")
        if found.predicted_still_s:
            before.append(f"guest stands still {short(found.predicted_still_s)}")
    if found.took_s is not None:
        after.append(f"took {seconds(found.took_s)}")
    if found.stood_still_s is not None:
        after.append(f"stood still {short(found.stood_still_s)}")
    if found.sent_bytes:
        after.append(f"{format_bytes(found.sent_bytes)} sent")
    if found.became_quick:
        after.append("in the end as a quick move")
    return "; ".join(", ".join(part) for part in (before, after) if part)
