"""What cloud-init in a guest says of itself in /run/cloud-init. Pure; the text is the guest's own and not trusted."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

MOST_ERRORS = 10
_NO_SEED = "DataSourceNone"


@dataclass(frozen=True, slots=True)
class CloudInit:
    """`stage` is cloud-init's own word for what it does now ("init-network", "modules-config"), empty before it
    begins. `has_seed` is False when it ended without finding one."""

    is_done: bool = False
    stage: str = ""
    errors: tuple[str, ...] = ()
    has_seed: bool = True


def from_files(result: str | None, status: str | None) -> CloudInit:
    """From the text of result.json, which is there when cloud-init has ended, and of status.json; None for a file that
    is not there. A text that is no JSON counts as not written yet."""
    end, now = _version_1(result), _version_1(status)
    if end is None:
        stage = now.get("stage") if now is not None else None
        return CloudInit(stage=stage[:60] if isinstance(stage, str) else "")
    errors = [*_texts(end.get("errors")), *_errors_of_stages(now or {})]
    source = str(end.get("datasource") or "")
    return CloudInit(
        is_done=True,
        errors=tuple(dict.fromkeys(errors))[:MOST_ERRORS],
        has_seed=not source.startswith(_NO_SEED),
    )


def _version_1(text: str | None) -> dict[str, Any] | None:
    import json

    if text is None:
        return None
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return None
    inner = found.get("v1") if isinstance(found, dict) else None
    return inner if isinstance(inner, dict) else None


def _errors_of_stages(status: dict[str, Any]) -> Iterator[str]:
    """Newer versions tell what they could recover from in the status alone."""
    for stage in status.values():
        if not isinstance(stage, dict):
            continue
        yield from _texts(stage.get("errors"))
        recoverable = stage.get("recoverable_errors")
        for kind in ("ERROR", "CRITICAL"):
            yield from _texts(recoverable.get(kind) if isinstance(recoverable, dict) else None)


def _texts(value: object) -> list[str]:
    return [each for each in value if isinstance(each, str)] if isinstance(value, list) else []
