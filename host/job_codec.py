"""Plans and job rows as JSON and back. Data only: it opens no file and runs nothing."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from host.errors import UsageError
from host.plan import Blocker, Danger, Json, Lane, Plan, PlanSet, Step


def plan_to_json(plan: Plan) -> dict[str, Json]:
    """`plan` as a JSON object with the names of its fields. The keys are stable. Raises UsageError for an argument
    that JSON cannot hold."""
    return {
        "title": plan.title,
        "host_uri": plan.host_uri,
        "vm_uuid": plan.vm_uuid,
        "vm_name": plan.vm_name,
        "danger": plan.danger.value,
        "command": list(plan.command),
        "steps": [_step_to_json(step) for step in plan.steps],
        "warnings": list(plan.warnings),
        "blockers": [_blocker_to_json(blocker) for blocker in plan.blockers],
        "losses": list(plan.losses),
        "keeps": list(plan.keeps),
        "notes": list(plan.notes),
        "xml_before": plan.xml_before,
        "xml_after": plan.xml_after,
        "long": plan.long,
        "undoes_job": plan.undoes_job,
        "also_on": list(plan.also_on),
        "lanes": lanes_to_json(plan.lanes),
    }


def plan_set_to_json(plan_set: PlanSet) -> dict[str, Json]:
    """`plan_set` with all its plans as a JSON object with the names of its fields. The keys are stable."""
    return {
        "title": plan_set.title,
        "command": list(plan_set.command),
        "warnings": list(plan_set.warnings),
        "blockers": [_blocker_to_json(blocker) for blocker in plan_set.blockers],
        "preparations": [plan_to_json(plan) for plan in plan_set.preparations],
        "plans": [plan_to_json(plan) for plan in plan_set.plans],
    }


def plan_from_json(data: Mapping[str, Any]) -> Plan:
    """The plan that `plan_to_json` gave `data` for. Raises UsageError when it is none."""
    try:
        return Plan(
            title=data["title"],
            host_uri=data["host_uri"],
            steps=tuple(_step_from_json(step) for step in data["steps"]),
            command=tuple(data["command"]),
            vm_uuid=data["vm_uuid"],
            vm_name=data["vm_name"],
            danger=Danger(data["danger"]),
            warnings=tuple(data["warnings"]),
            blockers=tuple(Blocker(**blocker) for blocker in data["blockers"]),
            losses=tuple(data["losses"]),
            keeps=tuple(data["keeps"]),
            notes=tuple(data.get("notes", ())),  # journals of before have none
            xml_before=data["xml_before"],
            xml_after=data["xml_after"],
            long=data["long"],
            undoes_job=data["undoes_job"],
            also_on=tuple(data.get("also_on", ())),
            lanes=lanes_from_json(data.get("lanes", ())),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise UsageError(f"this is not a plan: {error!r}") from error


def lanes_to_json(lanes: Iterable[Lane]) -> list[Json]:
    """`lanes` as JSON objects."""
    return [{"name": lane.name, "limit": lane.limit} for lane in lanes]


def lanes_from_json(data: Iterable[Mapping[str, Any]]) -> tuple[Lane, ...]:
    """The lanes that `lanes_to_json` gave `data` for. Raises KeyError, TypeError, ValueError."""
    return tuple(Lane(lane["name"], int(lane["limit"])) for lane in data)


def _blocker_to_json(blocker: Blocker) -> dict[str, Json]:
    return {
        "reason": blocker.reason,
        "remedy": blocker.remedy,
        "action_id": blocker.action_id,
        "exit_code": blocker.exit_code,
    }


def _step_to_json(step: Step) -> dict[str, Json]:
    return {
        "verb": step.verb,
        "title": step.title,
        "args": plain(step.args),
        "commands": list(step.commands),
        "losses": list(step.losses),
    }


def _step_from_json(data: Mapping[str, Any]) -> Step:
    return Step(
        verb=data["verb"],
        title=data["title"],
        args=dict(data["args"]),
        commands=tuple(data["commands"]),
        losses=tuple(data["losses"]),
    )


def plain(value: object) -> Json:
    """`value` in the types that the json module writes. Raises UsageError for what JSON cannot hold."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    raise UsageError(f"a step's arguments and results are JSON, which cannot hold {type(value).__name__}")


def to_text(value: object) -> str:
    """JSON text of ASCII characters only, so that whatever a name holds fits into a database column."""
    try:
        return json.dumps(plain(value), allow_nan=False, separators=(",", ":"))
    except ValueError as error:
        raise UsageError(f"a step's arguments and results are JSON: {error}") from error


def from_text(text: str) -> Any:
    """The value of a JSON text. Raises ValueError."""
    return json.loads(text)


def storable(text: str) -> str:
    """`text` without lone surrogates, which no database column can hold; they become \\udcNN."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")
