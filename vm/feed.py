"""Keeps a Snapshot of one host current, and tells subscribers when it changed.

Events are hints: they put a VM's uuid into the dirty set, which is read again in one bulk call at most every 100 ms.
Rates come from one bulk call an interval, only while polling is on. Domain XML is read in the background, a slice of
time at a turn. All libvirt calls are made by the feed's own daemon threads: a frozen libvirtd stops these, and nothing
else. This module knows no user interface; its callbacks run on its threads and must not block.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from datetime import datetime
from math import inf
from operator import is_
from typing import Any, TypeAlias

from host import statistics
from host.connection import Host, Link, LinkStatus
from host.errors import HvtuiError
from host.events import Event, EventKind, Subscription, subscribe
from host.facts import NodeFacts, read_facts
from host.load import HostLoad, read_load
from host.statistics import Sample
from vm import inventory, picture
from vm.address_watch import AddressWatch, Told
from vm.inventory import Handles
from vm.model import Snapshot, Vm

_log = logging.getLogger(__name__)

FLUSH_S = 0.1  # events are gathered for at most this long
CONFIG_SLICE_S = 0.05  # the time that one turn of reading domain XML may take
CONFIG_PUBLISH_S = 0.25
FIRST_RATES_S = 0.5  # the first rates need two samples; do not let the user wait a whole interval for them
SILENT_S = 5.0  # a call without an answer for this long is told, long before keepalive gives the link up
RETRY_S = 1.0
STOP_S = 0.4

# These change nothing that the domain XML says.
_KEEPS_CONFIG = frozenset(
    {EventKind.BALLOON, EventKind.IO_ERROR, EventKind.JOB_COMPLETED, EventKind.REBOOTED, EventKind.WATCHDOG}
)

_MOVES_ADDRESSES = frozenset({EventKind.STARTED, EventKind.AGENT, EventKind.DEVICE_ADDED, EventKind.DEVICE_REMOVED})

OnSnapshot: TypeAlias = Callable[[Snapshot], None]
OnEvent: TypeAlias = Callable[[Event], None]
ReadSamples: TypeAlias = Callable[[Any], dict[str, Sample]]


@dataclass(frozen=True, slots=True)
class _Work:
    """What one turn of the feed's thread has to do."""

    everything: bool
    dirty: frozenset[str]
    tick: bool


class Feed:
    """The live picture of one host. `read_samples(connection)` replaces libvirt's statistics (a simulated host has
    none)."""

    def __init__(
        self,
        host: Host,
        on_snapshot: OnSnapshot,
        on_event: OnEvent | None = None,
        interval_s: float = 2.0,
        *,
        read_samples: ReadSamples | None = None,
    ) -> None:
        self._host = host
        self._on_snapshot = on_snapshot
        self._on_event = on_event
        self._interval_s = interval_s
        self._read_samples = read_samples or statistics.read_samples
        self._samples_tell_states = read_samples is None
        # Shared with the event thread, the link's listeners and the front end; guarded by _changed.
        self._changed = threading.Condition()
        self._stopped = False
        self._polling = True
        self._everything = True
        self._dirty: set[str] = set()
        self._stale_configs: set[str] = set()
        self._all_configs_stale = False
        self._started_at: dict[str, datetime] = {}
        self._addresses: dict[str, tuple[str, ...]] = {}
        self._flushed_s = -inf
        self._next_tick_s = -inf
        self._retry_s = -inf
        self._busy_since_s: float | None = None
        # The feed's thread only.
        self._connection: Any = None
        self._subscription: Subscription | None = None
        self._vms: dict[str, Vm] = {}
        self._handles: Handles = {}
        self._samples: dict[str, Sample] = {}
        self._config_queue: dict[str, None] = {}
        self._configs_shown_s = -inf
        # What is published; guarded by _publishing.
        self._publishing = threading.RLock()
        self._shown: tuple[Vm, ...] = ()
        self._load = HostLoad()
        self._facts: NodeFacts | None = None
        self._facts_asked = False
        self._read_at_s = 0.0
        self._last: Snapshot | None = None
        self._address_watch = AddressWatch(host, self._looked_at, self._addresses_told)
        self._threads = [
            threading.Thread(target=self._run, name=f"feed-{host.name}", daemon=True),
            threading.Thread(target=self._watch, name=f"feed-watch-{host.name}", daemon=True),
        ]

    def start(self) -> None:
        """Open the host's connection in the background and keep it open; returns at once."""
        self._host.on_link(self._link_changed)
        self._host.reserve_main()
        self._host.supervise()
        for thread in self._threads:
            thread.start()
        self._address_watch.start()

    def stop(self) -> None:
        """End the feed: no callback comes after this. Returns within half a second whatever libvirt does."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()
        self._address_watch.stop()
        deadline_s = time.monotonic() + STOP_S
        for thread in self._threads:
            if thread.is_alive() and thread is not threading.current_thread():
                thread.join(max(deadline_s - time.monotonic(), 0.0))

    def refresh(self) -> None:
        """Read everything again, the domain XML too."""
        with self._changed:
            self._everything = self._all_configs_stale = True
            self._changed.notify_all()

    def reread(self, uuid: str) -> None:
        """Read one VM and its XML again, soon: libvirt tells of no change of autostart, and of metadata not always."""
        with self._changed:
            if not self._stopped:
                self._dirty.add(uuid)
                self._stale_configs.add(uuid)
                self._changed.notify_all()

    def set_polling(self, enabled: bool) -> None:
        """Read rates and load each interval, or never; the list itself follows events either way."""
        with self._changed:
            if enabled and not self._polling:
                self._next_tick_s = -inf
            self._polling = enabled
            self._changed.notify_all()
        if enabled:
            self._address_watch.look()

    # Called on other threads

    def _link_changed(self, link: Link) -> None:
        with self._changed:
            self._everything = self._everything or link.is_up
            self._retry_s = -inf
            self._changed.notify_all()

    def _heard(self, event: Event) -> None:
        with self._changed:
            if self._stopped:
                return
            self._dirty.add(event.vm_uuid)
            if event.kind not in _KEEPS_CONFIG:
                self._stale_configs.add(event.vm_uuid)
            if event.kind is EventKind.STARTED:
                self._started_at[event.vm_uuid] = event.at
            elif event.kind is EventKind.STOPPED:
                self._started_at.pop(event.vm_uuid, None)
            self._changed.notify_all()
        if event.kind in _MOVES_ADDRESSES:
            self._address_watch.look(event.vm_uuid)
        if self._on_event is not None:
            self._on_event(event)

    def _looked_at(self) -> tuple[Vm, ...]:
        """The VMs whose addresses somebody may be looking at."""
        return self._shown if self._polling and self._host.link.is_up else ()

    def _addresses_told(self, told: Told) -> None:
        with self._changed:
            self._addresses.update(told)
            self._changed.notify_all()

    # The feed's thread

    def _run(self) -> None:
        while (work := self._next_work()) is not None:
            try:
                with self._host.main_calls():
                    self._do(work)
            except HvtuiError as error:
                _log.info("%s: %s", self._host.name, error)
                self._try_later(work)
            finally:
                self._busy_since_s = None
        if self._subscription is not None:
            self._subscription.cancel()

    def _next_work(self) -> _Work | None:
        """Wait until something is due; None once the feed is stopped."""
        with self._changed:
            while not self._stopped:
                now_s = time.monotonic()
                due_s = self._due_s(now_s)
                if due_s <= now_s:
                    return self._take(now_s)
                self._changed.wait(None if due_s == inf else due_s - now_s)
        return None

    def _due_s(self, now_s: float) -> float:
        if not self._host.link.is_up:
            return inf  # the link's listener wakes this thread
        due_s = self._next_tick_s if self._polling else inf
        if self._everything or self._connection is None:
            due_s = now_s
        elif self._dirty:
            due_s = min(due_s, self._flushed_s + FLUSH_S)
        if self._config_queue or self._addresses:
            due_s = now_s
        return max(due_s, self._retry_s)

    def _take(self, now_s: float) -> _Work:
        self._busy_since_s = now_s
        flush = bool(self._dirty) and now_s >= self._flushed_s + FLUSH_S
        tick = self._polling and now_s >= self._next_tick_s
        work = _Work(self._everything, frozenset(self._dirty if flush else ()), tick)
        if flush or work.everything:
            self._flushed_s = now_s
            self._dirty.clear()
        if tick:
            self._next_tick_s = self._tick_after(now_s)
        self._everything = False
        return work

    def _tick_after(self, now_s: float) -> float:
        """The next instant of a fixed beat; beats that were missed are left out."""
        if self._next_tick_s == -inf and not self._samples:
            return now_s + min(FIRST_RATES_S, self._interval_s)
        next_s = self._next_tick_s + self._interval_s
        return next_s if next_s > now_s else now_s + self._interval_s

    def _try_later(self, work: _Work) -> None:
        with self._changed:
            self._everything = self._everything or work.everything
            self._dirty |= work.dirty
            self._retry_s = time.monotonic() + RETRY_S

    def _do(self, work: _Work) -> None:
        everything = self._attach() or work.everything
        if everything or not work.dirty <= self._handles.keys():
            self._read_everything()
        elif work.dirty:
            self._read_dirty(work.dirty)
        self._learn_facts()
        if work.tick:
            self._measure()
        self._take_addresses()
        self._queue_stale_configs()
        self._read_configs()

    def _attach(self) -> bool:
        """Subscribe on a connection that is new; true when it is."""
        connection = self._host.connection()
        if connection is self._connection:
            return False
        self._handles = {}
        if self._subscription is not None:  # libvirt would keep the dead connection for its callbacks
            threading.Thread(target=self._subscription.cancel, daemon=True).start()
        self._subscription = subscribe(connection, self._heard)
        with self._changed:
            self._all_configs_stale = True  # nobody told what changed meanwhile
            self._connection = connection
        return True

    def _read_everything(self) -> None:
        try:
            vms, self._handles = inventory.read_all(self._host)
        except HvtuiError:
            with self._changed:
                self._everything = True
            raise
        self._vms = {vm.uuid: self._joined(vm) for vm in vms}
        self._samples = {uuid: sample for uuid, sample in self._samples.items() if uuid in self._vms}
        self._show()

    def _read_dirty(self, uuids: Iterable[str]) -> None:
        asked = set(uuids)
        found = {vm.uuid: vm for vm in inventory.read_some(self._host, asked, handles=self._handles)}
        for uuid in asked - found.keys():
            self._vms.pop(uuid, None)
            self._handles.pop(uuid, None)
        for uuid, vm in found.items():
            self._vms[uuid] = self._joined(vm)
        self._show()

    def _joined(self, vm: Vm) -> Vm:
        old = self._vms.get(vm.uuid)
        return picture.joined(old, vm, started_at=self._started_at.get(vm.uuid))

    def _measure(self) -> None:
        with self._host.calls("read statistics", self._host.name) as connection:
            samples = self._read_samples(connection)
        if self._samples_tell_states and (missed := picture.suspects(self._vms, samples)):
            with self._changed:
                self._dirty |= missed
        for uuid, vm in self._vms.items():
            self._vms[uuid] = picture.measured(vm, self._samples.get(uuid), samples.get(uuid))
        self._samples = samples
        self._load = read_load(self._host)
        self._show()

    def _take_addresses(self) -> None:
        with self._changed:
            told, self._addresses = self._addresses, {}
        for uuid, addresses in told.items():
            vm = self._vms.get(uuid)
            if vm is not None and vm.is_active and vm.addresses != addresses:
                self._vms[uuid] = replace(vm, addresses=addresses)
        if told:
            self._show()

    def _queue_stale_configs(self) -> None:
        with self._changed:
            stale = self._vms.keys() if self._all_configs_stale else self._stale_configs - self._dirty
            self._config_queue.update(dict.fromkeys(uuid for uuid in stale if uuid in self._vms))
            self._stale_configs -= stale
            self._all_configs_stale = False
        self._config_queue.update((uuid, None) for uuid, vm in self._vms.items() if vm.config is None)

    def _read_configs(self) -> None:
        if not self._config_queue:
            return
        end_s = time.monotonic() + CONFIG_SLICE_S
        while self._config_queue and time.monotonic() < end_s:
            uuid = next(iter(self._config_queue))
            if uuid in self._vms:
                self._read_config(self._vms[uuid])
            self._config_queue.pop(uuid)
        now_s = time.monotonic()
        if not self._config_queue:
            self._address_watch.look()  # their network cards are known now
        if not self._config_queue or now_s > self._configs_shown_s + CONFIG_PUBLISH_S:
            self._configs_shown_s = now_s
            self._show()

    def _read_config(self, vm: Vm) -> None:
        read = inventory.read_configs(self._host, [vm], pending=True, handles=self._handles)
        if not read:
            with self._changed:
                self._dirty.add(vm.uuid)  # it vanished, and no event told so yet
        elif read[0] != vm:
            self._vms[vm.uuid] = read[0]

    # Publishing

    def _show(self) -> None:
        """Publish what the feed's thread just read."""
        vms = tuple(sorted(self._vms.values(), key=lambda vm: (vm.name, vm.uuid)))
        with self._publishing:
            self._read_at_s = time.monotonic()
            if len(vms) != len(self._shown) or not all(map(is_, vms, self._shown)):
                self._shown = vms
            self._publish(self._host.link)

    def _publish(self, link: Link) -> None:
        with self._publishing:
            new = Snapshot(
                host_name=self._host.name,
                uri=self._host.uri,
                vms=self._shown,
                load=self._load,
                link=link,
                read_at_s=self._read_at_s,
                facts=self._facts,
            )
            last = self._last
            unchanged = last is not None and last.vms is new.vms and last == replace(new, read_at_s=last.read_at_s)
            if unchanged or self._stopped:
                return
            self._last = new
            self._on_snapshot(new)

    def _learn_facts(self) -> None:
        """Read the host's facts once, beside the feed's thread: proving KVM may take seconds."""
        if not self._facts_asked:
            self._facts_asked = True
            threading.Thread(target=self._read_facts, name=f"feed-facts-{self._host.name}", daemon=True).start()

    def _read_facts(self) -> None:
        try:
            facts = read_facts(self._host)
        except HvtuiError as error:
            _log.info("%s: cannot read the host's facts: %s", self._host.name, error)
            self._facts_asked = False
            return
        with self._publishing:
            self._facts = facts
            if self._last is not None:
                self._publish(self._last.link)

    # The thread that tells of a link that is lost or silent while the feed's own thread waits for an answer

    def _watch(self) -> None:
        while True:
            with self._changed:
                if self._stopped:
                    return
                self._changed.wait(RETRY_S)
            link = self._link_trouble()
            if link is not None:
                self._publish(link)

    def _link_trouble(self) -> Link | None:
        link = self._host.link
        if link.status in {LinkStatus.LOST, LinkStatus.CLOSED}:
            return link
        busy_since_s = self._busy_since_s
        if busy_since_s is None or time.monotonic() < busy_since_s + SILENT_S:
            return None
        return Link(LinkStatus.LOST, busy_since_s, "the host does not answer")
