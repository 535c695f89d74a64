"""One leg of the way between hosts as `host test` tells it: what was tried, what was seen, what to do. Data only."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum

import libvirt

from host.errors import HvtuiError, Unsupported, translate


class LegState(StrEnum):
    OK = "ok"
    WARN = "warn"  # moves work, but not for every VM
    FAIL = "fail"
    UNKNOWN = "unknown"  # it cannot be tried from here


@dataclass(frozen=True, slots=True)
class Leg:
    """`name` is what was tried ("ssh", "clock"), `seen` what came of it, in words; `host` from where, `peer` to where
    (empty for a leg from here to `host`)."""

    name: str
    state: LegState
    seen: str
    remedy: str = ""
    host: str = ""
    peer: str = ""


def tried(name: str, look: Callable[[], Leg | Iterable[Leg]]) -> tuple[Leg, ...]:
    """What `look` finds; an error of it is a leg that failed (unknown for what this host's libvirt cannot tell)."""
    try:
        found = look()
        return (found,) if isinstance(found, Leg) else tuple(found)
    except libvirt.libvirtError as error:
        problem = translate(error, "look")
    except HvtuiError as error:
        problem = error
    state = LegState.UNKNOWN if isinstance(problem, Unsupported) else LegState.FAIL
    return (Leg(name, state, problem.cause, problem.remedy),)
