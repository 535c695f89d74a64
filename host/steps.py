"""The verbs that steps of a plan are made of, and what a verb's code gets to work with.

A verb is registered once, at import of the module that owns it (vm.steps imports all of them for the runner). Its
arguments and results are JSON, so a journalled step can be run again by another process after a crash. This module
runs nothing; host.jobs does.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from host.errors import Cancelled, UsageError
from host.plan import Json, Step

if TYPE_CHECKING:
    import libvirt

    from host.connection import Host

# Arguments and results are JSON objects; Any because each verb knows the types of its own keys.
Args: TypeAlias = Mapping[str, Any]
Result: TypeAlias = dict[str, Json]


def _no_peer(uri: str) -> Host:
    raise UsageError(f"this step was given no way to {uri}")


def _no_wishes() -> Mapping[str, str]:
    return {}


@dataclass(frozen=True, slots=True)
class StepContext:
    """What a running step may use. `progress(fraction, note)` takes 0..1, or None while the total is not known.

    `peer(uri)` is another host that the step works on, connected for as long as the job runs; raises ConnectionLost.
    `wishes()` is what people want of the running job besides its end (host.jobs.wish): a name and a value each, the
    newest one; a look costs a query, so look a few times a second at most.
    """

    host: Host
    job_id: int
    progress: Callable[[float | None, str], None]
    is_cancelled: Callable[[], bool]
    peer: Callable[[str], Host] = _no_peer
    wishes: Callable[[], Mapping[str, str]] = _no_wishes

    def raise_if_cancelled(self) -> None:
        """Raise Cancelled once the user asked to cancel; call it between the parts of long work."""
        if self.is_cancelled():
            raise Cancelled("cancelled by the user")

    def calls(self, doing: str, about: str = "") -> AbstractContextManager[libvirt.virConnect]:
        """A block of libvirt calls on a connection of this thread's own, with translated errors."""
        return self.host.calls(doing, about)


@dataclass(frozen=True, slots=True)
class StepVerb:
    """One kind of change.

    do:       makes the change and returns what undoing needs. Idempotent: it looks first, and running it again after
              a crash at any point ends in the same state. What it makes it must be able to recognise as its own.
    rollback: removes what a failed or interrupted `do` (result None) or a done one (its result) made; idempotent, and
              it never touches what was there before. None when there is nothing to remove.
    inverse:  for `job undo`: the step that takes a done change back, a sentence that says why there is none, or None
              when the step changed nothing (it only looked, or found everything done).
    without_vm: True when `do` works, or has nothing left to do, where the VM of its arguments is not there.
    hands_over: for a step that no later one may take back (a VM that now runs on another host): tells from the result
              whether that has happened. From then on the job is neither cancelled nor rolled back: it completes.
    """

    name: str
    do: Callable[[StepContext, Args], Result]
    rollback: Callable[[StepContext, Args, Result | None], None] | None
    inverse: Callable[[Args, Result], Step | str | None]
    without_vm: bool = False
    hands_over: Callable[[Result], bool] | None = None


_VERBS: dict[str, StepVerb] = {}


def register(verb: StepVerb) -> None:
    """Make `verb` known. A name is taken once: two verbs of one name are a programming error."""
    if verb.name in _VERBS:
        raise ValueError(f"step verb {verb.name} is registered twice")
    _VERBS[verb.name] = verb


def verb_named(name: str) -> StepVerb:
    """The verb of that name. Raises UsageError for one this version does not know (an older journal, for example)."""
    try:
        return _VERBS[name]
    except KeyError:
        raise UsageError(f"this version of hvtui has no step {name!r}") from None
