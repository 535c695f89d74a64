"""The event thread and the frozen Events it hands over.

libvirt's own event loop runs in one daemon thread for the whole process. Callbacks only build an Event and hand it
to the subscriber; a subscriber must not call libvirt and must not block (it would stop keepalive for every
connection). Not libvirtaio: its hooks are called off-thread.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Any

import libvirt

if TYPE_CHECKING:
    import logging

_started = threading.Lock()
_thread: threading.Thread | None = None


class EventKind(StrEnum):
    """What happened. The names are stable: `hvtui host events -o jsonl` prints them."""

    DEFINED = "defined"
    UNDEFINED = "undefined"
    STARTED = "started"
    PAUSED = "paused"
    RESUMED = "resumed"
    STOPPED = "stopped"
    SHUTTING_DOWN = "shutting-down"
    SUSPENDED = "suspended"
    CRASHED = "crashed"
    REBOOTED = "rebooted"
    WATCHDOG = "watchdog"
    IO_ERROR = "io-error"
    AGENT = "agent"
    DEVICE_ADDED = "device-added"
    DEVICE_REMOVED = "device-removed"
    METADATA = "metadata"
    BALLOON = "balloon"
    JOB_COMPLETED = "job-completed"
    TRAY = "tray"


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that happened to one VM. `detail` is libvirt's own reason in words and may hold guest-made text. `host`
    is the host's name where several are looked at."""

    kind: EventKind
    vm_uuid: str
    vm_name: str
    detail: str
    at: datetime
    host: str = ""


_LIFECYCLE: dict[int, EventKind] = {
    libvirt.VIR_DOMAIN_EVENT_DEFINED: EventKind.DEFINED,
    libvirt.VIR_DOMAIN_EVENT_UNDEFINED: EventKind.UNDEFINED,
    libvirt.VIR_DOMAIN_EVENT_STARTED: EventKind.STARTED,
    libvirt.VIR_DOMAIN_EVENT_SUSPENDED: EventKind.PAUSED,
    libvirt.VIR_DOMAIN_EVENT_RESUMED: EventKind.RESUMED,
    libvirt.VIR_DOMAIN_EVENT_STOPPED: EventKind.STOPPED,
    libvirt.VIR_DOMAIN_EVENT_SHUTDOWN: EventKind.SHUTTING_DOWN,
    libvirt.VIR_DOMAIN_EVENT_PMSUSPENDED: EventKind.SUSPENDED,
    libvirt.VIR_DOMAIN_EVENT_CRASHED: EventKind.CRASHED,
}

# libvirt's detail numbers, by event, in its documentation's words (virDomainEvent*DetailType).
_DETAILS: dict[EventKind, tuple[str, ...]] = {
    EventKind.DEFINED: ("added", "changed", "renamed", "from snapshot"),
    EventKind.UNDEFINED: ("removed", "renamed"),
    EventKind.STARTED: ("booted", "migrated", "restored", "from snapshot", "woken up"),
    EventKind.PAUSED: (
        "by request", "migrating", "disk error", "watchdog", "restored", "from snapshot", "API error",
        "post-copy", "post-copy failed",
    ),
    EventKind.RESUMED: ("by request", "migrated", "from snapshot", "post-copy", "post-copy failed"),
    EventKind.STOPPED: ("shut down", "forced off", "crashed", "migrated", "saved", "failed", "from snapshot"),
    EventKind.SHUTTING_DOWN: ("finished", "by the guest", "by the host"),
    EventKind.SUSPENDED: ("to memory", "to disk"),
    EventKind.CRASHED: ("panicked", "crash loaded"),
}  # fmt: skip

# virDomainEventWatchdogAction, virDomainMetadataType, virDomainEventTrayChangeReason, virDomainJobOperation.
_WATCHDOG = ("nothing done", "paused", "reset", "powered off", "shut down", "debug", "NMI injected")
_METADATA = ("description", "title", "element")
_TRAY = ("opened", "closed")
_JOBS = (
    "unknown", "start", "save", "restore", "migration in", "migration out", "snapshot", "snapshot revert", "dump",
    "backup", "snapshot delete",
)  # fmt: skip

Subscriber = Callable[[Event], None]


def _word(words: tuple[str, ...], number: int) -> str:
    return words[number] if 0 <= number < len(words) else str(number)


def _log() -> logging.Logger:
    import logging  # here: it is a twentieth of the start-up time of a short command

    return logging.getLogger(__name__)


def start_event_thread() -> None:
    """Register libvirt's event loop and run it in a daemon thread; safe to call often. Must come before any
    connection that wants events or keepalive."""
    global _thread
    with _started:
        if _thread is not None:
            return
        libvirt.registerErrorHandler(lambda *_: None, None)
        libvirt.virEventRegisterDefaultImpl()
        # Without a timeout in the loop a thread that registers the first handle later may not wake it.
        libvirt.virEventAddTimeout(1000, lambda *_: None, None)
        turn = libvirt.virEventRunDefaultImpl
        _thread = threading.Thread(target=_run, args=(turn,), name="libvirt-events", daemon=True)
        _thread.start()


def _run(turn: Callable[[], object]) -> None:
    while True:
        try:
            turn()
        except Exception:  # noqa: BLE001 - one of the three outer edges: the thread serves every connection
            _log().exception("the libvirt event loop raised")


class Subscription:
    """The callbacks registered on one connection. They keep it alive, a dead one too, until `cancel` removes them."""

    def __init__(self, connection: libvirt.virConnect, callback_ids: list[int]) -> None:
        self._connection = connection
        self._callback_ids = callback_ids

    def cancel(self) -> None:
        """Remove the callbacks. A daemon that does not answer holds this up."""
        for callback_id in self._callback_ids:
            try:
                self._connection.domainEventDeregisterAny(callback_id)
            except libvirt.libvirtError:
                continue  # on a dead connection it is removed on this side, which is all there is
        self._callback_ids = []


def subscribe(connection: libvirt.virConnect, subscriber: Subscriber) -> Subscription:
    """Call `subscriber` on the event thread for every event of every VM. Kinds that the driver lacks are left out."""

    def emit(kind: EventKind, domain: libvirt.virDomain, detail: str) -> None:
        subscriber(Event(kind, domain.UUIDString(), domain.name(), detail, datetime.now(UTC)))

    def lifecycle(_c: Any, domain: Any, event: int, detail: int, _o: Any) -> None:
        kind = _LIFECYCLE.get(event)
        if kind is not None:
            emit(kind, domain, _word(_DETAILS.get(kind, ()), detail))

    def io_error(_c: Any, domain: Any, path: str, alias: str, _action: int, reason: str, _o: Any) -> None:
        what = "no space left" if reason == "enospc" else reason or "error"
        emit(EventKind.IO_ERROR, domain, f"{what} on {path or alias}")

    def agent(_c: Any, domain: Any, state: int, _reason: int, _o: Any) -> None:
        connected = state == libvirt.VIR_CONNECT_DOMAIN_EVENT_AGENT_LIFECYCLE_STATE_CONNECTED
        emit(EventKind.AGENT, domain, "connected" if connected else "disconnected")

    def told(kind: EventKind, words_of: Callable[..., str]) -> Callable[..., None]:
        return lambda _c, domain, *rest: emit(kind, domain, words_of(*rest[:-1]))

    callbacks: dict[int, Callable[..., None]] = {
        libvirt.VIR_DOMAIN_EVENT_ID_LIFECYCLE: lifecycle,
        libvirt.VIR_DOMAIN_EVENT_ID_IO_ERROR_REASON: io_error,
        libvirt.VIR_DOMAIN_EVENT_ID_AGENT_LIFECYCLE: agent,
        libvirt.VIR_DOMAIN_EVENT_ID_REBOOT: told(EventKind.REBOOTED, lambda: ""),
        libvirt.VIR_DOMAIN_EVENT_ID_WATCHDOG: told(EventKind.WATCHDOG, lambda action: _word(_WATCHDOG, action)),
        libvirt.VIR_DOMAIN_EVENT_ID_DEVICE_ADDED: told(EventKind.DEVICE_ADDED, str),
        libvirt.VIR_DOMAIN_EVENT_ID_DEVICE_REMOVED: told(EventKind.DEVICE_REMOVED, str),
        libvirt.VIR_DOMAIN_EVENT_ID_METADATA_CHANGE: told(
            EventKind.METADATA, lambda kind, uri: f"{_word(_METADATA, kind)} {uri or ''}".rstrip()
        ),
        libvirt.VIR_DOMAIN_EVENT_ID_BALLOON_CHANGE: told(EventKind.BALLOON, lambda kib: f"{kib} KiB"),
        libvirt.VIR_DOMAIN_EVENT_ID_TRAY_CHANGE: told(
            EventKind.TRAY, lambda alias, reason: f"{alias} {_word(_TRAY, reason)}"
        ),
        libvirt.VIR_DOMAIN_EVENT_ID_JOB_COMPLETED: told(
            EventKind.JOB_COMPLETED, lambda job: _word(_JOBS, job.get("operation", 0))
        ),
    }
    callback_ids = []
    for event_id, callback in callbacks.items():
        try:
            callback_ids.append(connection.domainEventRegisterAny(None, event_id, _guarded(callback), None))
        except libvirt.libvirtError:
            continue  # the driver does not know this kind of event
    return Subscription(connection, callback_ids)


def unsubscribe_all(connection: libvirt.virConnect) -> None:
    """Remove every callback for VMs from a connection that is about to be closed, whoever registered them."""
    registered = getattr(connection, "domainEventCallbackID", {})  # the binding makes it at the first registration
    for callback_id in list(registered):
        try:
            connection.domainEventDeregisterAny(callback_id)
        except libvirt.libvirtError:
            continue  # on a dead connection it is removed on this side, which is all there is


def _guarded(callback: Callable[..., None]) -> Callable[..., None]:
    """An exception in a callback would be printed by the C binding over the screen: log it instead."""

    def safe(*args: Any) -> None:
        try:
            callback(*args)
        except Exception:  # noqa: BLE001 - one of the three outer edges: the event thread
            _log().exception("an event subscriber raised")

    return safe
