"""What is known of several hosts beside their snapshots: which are drained, and whether one of them may fail (N-1).

Read in the background, seldom: pictures of hosts cost many calls. It exists only where several hosts are shown.
"""

from __future__ import annotations

import time
from collections import Counter
from typing import TYPE_CHECKING

from host.errors import HvtuiError
from host.job_model import JobState

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from host.connection import Host
    from host.host_list import HostEntry
    from host.maintenance import Maintenance
    from hvtui.tui.app import HvtuiApp
    from vm.model import Snapshot
    from vm.placement_model import HostPicture
    from vm.whatif import NMinusOne

LEAST_S = 30.0  # between two looks at all hosts
MOST_S = 300.0  # memory and disks fill by themselves


class FleetState:
    """Kept by the app. `notes` are those of the hosts that are drained or miss VMs, by the URI under which each is
    shown, `drained` the URIs of those in maintenance; `light` says whether any host may fail, `pictures` what that was
    told from."""

    def __init__(self, app: HvtuiApp) -> None:
        self._app = app
        self.notes: Mapping[str, Maintenance] = {}
        self._identities: dict[str, str] = {}
        self.light: NMinusOne | None = None
        self.pictures: tuple[HostPicture, ...] = ()
        self._seen: object = None
        self._is_looking = False
        self._looked_at_s = float("-inf")
        self._jobs_over: object = None

    @property
    def drained(self) -> frozenset[str]:
        return frozenset(uri for uri, note in self.notes.items() if note.is_drained)

    def note_of(self, uri: str) -> Maintenance | None:
        """What is known of a host that is drained, or misses VMs."""
        return self.notes.get(uri)

    def snapshot_changed(self, snapshot: Snapshot) -> None:
        """Look at the hosts again, when what runs where has changed and the last look was long enough ago."""
        age_s = time.monotonic() - self._looked_at_s
        if self._is_looking or age_s < LEAST_S or not self._have_answered():
            return
        links = tuple((name, each.link.is_up) for name, each in self._app.snapshots.items())
        seen = hash(
            (links, tuple(self.notes.values()), tuple((vm.key, vm.state, vm.memory_max_bytes) for vm in snapshot.vms))
        )
        if seen != self._seen or age_s >= MOST_S:
            self._seen = seen
            self.look()

    def _have_answered(self) -> bool:
        return any(each.read_at_s for each in self._app.snapshots.values())

    def jobs_changed(self) -> None:
        """A job that has ended may have drained a host, or taken it back."""
        over = frozenset(job.id for job in self._app.jobs if job.state.is_over)
        if over != self._jobs_over:
            self._jobs_over = over
            self._app.run_worker(self._read_notes(), group="notes", exclusive=True)

    async def _read_notes(self) -> None:
        try:
            notes = await self._app.bridge.call(_notes_of, places(self._app)[1], self._identities)
        except HvtuiError as error:
            self._app.say(str(error), "bad")
            return
        if notes != self.notes:
            self.notes = notes
            self._app.show_again()

    def look(self) -> None:
        """Make pictures of all hosts now, in the background."""
        if not self._is_looking:
            self._is_looking = True
            self._app.run_worker(self._look(), group="look")

    async def _look(self) -> None:
        from vm.whatif import n_minus_1

        try:
            self.pictures = await read_pictures(self._app)
            self.light = await self._app.bridge.call(n_minus_1, self.pictures)
            await self._read_notes()
        except HvtuiError as error:
            self._app.say(str(error), "warn")
        finally:
            self._looked_at_s = time.monotonic()
            self._is_looking = False
        self._app.show_again()


def _notes_of(hosts: Sequence[Host], identities: dict[str, str]) -> dict[str, Maintenance]:
    """What is known of these hosts, by their URIs. Those that have said who they are have done so in `identities`."""
    from host import maintenance

    known = maintenance.read()
    for host in hosts if known else ():
        if host.uri not in identities and host.link.is_up:
            identities[host.uri] = host.identity
    found = {host.uri: maintenance.among(known, host.uri, identities.get(host.uri, "")) for host in hosts}
    return {uri: note for uri, note in found.items() if note is not None}


async def read_pictures(app: HvtuiApp) -> tuple[HostPicture, ...]:
    """A picture of every host of the list as it is now. Raises HvtuiError."""
    from host.maintenance import drained_keys
    from vm import placement_reading

    entries, hosts = places(app)
    moves = Counter(
        lane.name.removeprefix("host:")
        for job in app.jobs
        if job.state is JobState.RUNNING
        for lane in job.plan.lanes
        if lane.name.startswith("host:")
    )
    return await app.bridge.call(
        lambda: placement_reading.read_pictures(
            hosts,
            entries=entries,
            drained=drained_keys(),
            moves=moves,
            moves_limit=app.services.config.moves.per_host,
        )
    )


def places(app: HvtuiApp) -> tuple[tuple[HostEntry, ...], tuple[Host, ...]]:
    """The hosts between which VMs can move: those that are shown, and where one host alone was asked for, the others of
    the list beside it."""
    services = app.services
    if services.is_many:
        return services.entries, services.hosts
    return app.bridge.places()
