"""Placement for commands: pictures of all hosts of the list, the best of them, and stars as text. Writes nothing."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING

import click

from host.errors import Conflict, NotFound
from hvtui.cli.grammar import option
from hvtui.cli.session import Session
from hvtui.placement_policy import policy_of
from vm.placement_model import Goal

if TYPE_CHECKING:
    from host.connection import Host
    from host.host_list import HostEntry
    from vm.model import Vm
    from vm.placement import Rating
    from vm.placement_model import Demand, HostPicture

MOST_STARS = 5
BEST = "best"
_FULL, _HALF, _NONE = "★", "½", "☆"
_ASCII = str.maketrans({_FULL: "*", _HALF: "+", _NONE: "-"})


def goal_option() -> click.Option:
    """--goal: what the stars are for."""
    return option(
        "--goal",
        type=click.Choice([goal.value for goal in Goal]),
        default=None,
        text="Most stars for the emptiest host (balance, the default), or for the fullest with room (consolidate).",
    )


def entries_of(session: Session, *, own: Host | None) -> tuple[HostEntry, ...]:
    """Every host of the list, and the command's own one if it is not there."""
    from host.host_list import HostEntry

    entries = session.config().hosts
    known = own is None or any(entry.uri == own.uri for entry in entries)
    return entries if known or own is None else (HostEntry(own.name, own.uri), *entries)


class Hosts:
    """All hosts of the list, opened when first needed and closed at the end; use it as a context manager. The
    command's own host is the session's, and among them; a command that has none yet says so with `own` False."""

    def __init__(self, session: Session, *, own: bool = True) -> None:
        self._session = session
        self._stack = ExitStack()
        self._own = session.host() if own and not session.is_many else None
        self.entries = entries_of(session, own=self._own)
        self.hosts = tuple(self._opened(entry) for entry in self.entries)

    def __enter__(self) -> Hosts:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _opened(self, entry: HostEntry) -> Host:
        if self._own is not None and entry.uri == self._own.uri:
            return self._own
        host = self._session.open_entry(entry)
        self._stack.callback(host.close)
        return host

    def pictures(self) -> tuple[HostPicture, ...]:
        """A picture of each, in the order of `entries`."""
        from host.maintenance import drained_keys
        from vm.placement_reading import TIMEOUT_S, read_pictures

        return read_pictures(
            self.hosts,
            entries=self.entries,
            drained=drained_keys(),
            moves=moves_under_way(self._session),
            moves_limit=self._session.config().moves.per_host,
            timeout_s=self._session.timeout_s or TIMEOUT_S,
        )

    def demand_of(self, vm: Vm) -> Demand:
        """What a VM of the command's own host demands of any other."""
        from vm.placement_reading import SETTLE_S, demand_of

        return demand_of(self._session.host(), vm, targets=self.hosts, settle_s=SETTLE_S)


def moves_under_way(session: Session) -> Counter[str]:
    """How many moves run from or to each host (by name)."""
    from host.job_model import JobState

    running = session.journal().jobs(None, (JobState.RUNNING,))
    names = (lane.name.removeprefix("host:") for job in running for lane in job.plan.lanes if "host:" in lane.name[:5])
    return Counter(names)


def best_host_for(session: Session, vms: Sequence[Vm]) -> HostEntry:
    """The host of the list with most stars that can take all these VMs of the command's own host. Raises NotFound
    (there is no other host), Conflict (none can take them, with each one's reason)."""
    from vm.placement import rate
    from vm.placement_model import together

    with Hosts(session) as hosts:
        demand = together([hosts.demand_of(vm) for vm in vms])
        ratings = rate(demand, hosts.pictures(), policy_of(session.config()))
        return best_of(ratings, hosts.entries)


def best_of(ratings: Sequence[Rating], entries: Sequence[HostEntry]) -> HostEntry:
    """The best rated host's entry, never that of the one where the VM is. Raises as `best_host_for`."""
    others = [rating for rating in ratings if rating.host != rating.demand.host]
    if not others:
        about = ratings[0].demand.name if ratings else ""
        raise NotFound("there is no other host", about=about, remedy="Add one: hvtui host add NAME URI")
    if not others[0].is_possible:
        why = "; ".join(f"{rating.host}: {rating.why_not}" for rating in others[:MOST_STARS])
        raise Conflict(
            f"no host can take it ({why})", about=others[0].demand.name, remedy="'hvtui vm place' rates them for one VM"
        )
    return next(entry for entry in entries if entry.name == others[0].host)


def stars_text(stars: float) -> str:
    """ "★★★½☆", or "***+-" where standard output cannot show these."""
    halves = round(stars * 2)
    text = _FULL * (halves // 2) + _HALF * (halves % 2)
    text += _NONE * (MOST_STARS - len(text))
    try:
        text.encode(sys.stdout.encoding or "ascii")
    except UnicodeEncodeError:
        return text.translate(_ASCII)
    return text
