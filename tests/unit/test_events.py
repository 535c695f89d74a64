"""The event thread, and libvirt's callbacks as frozen Events."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Any

import libvirt
import pytest

from host import events
from host.connection import Host
from host.events import Event, EventKind, start_event_thread, subscribe
from tests.support.simulated_world import domain, uuid_of
from tests.support.waiting import wait_for
from vm.domain_xml import HVTUI_NAMESPACE


class Recorder:
    """Stands where a connection stands and keeps the callbacks, to call them with what only QEMU would send."""

    def __init__(self, lacking: tuple[int, ...] = ()) -> None:
        self.lacking = lacking
        self.callbacks: dict[int, Callable[..., None]] = {}
        self.removed: list[int] = []

    def domainEventRegisterAny(self, _domain: None, kind: int, callback: Any, _opaque: None) -> int:  # noqa: N802
        if kind in self.lacking:
            raise libvirt.libvirtError("not supported")
        self.callbacks[kind] = callback
        return kind

    def domainEventDeregisterAny(self, callback_id: int) -> None:  # noqa: N802
        self.removed.append(callback_id)
        raise libvirt.libvirtError("client socket is closed")


class Handle:
    """A domain as callbacks get it."""

    def UUIDString(self) -> str:  # noqa: N802
        return "0001"

    def name(self) -> str:
        return "web-01"


def heard(kind: int, *arguments: Any) -> list[Event]:
    recorder, seen = Recorder(), []
    subscribe(recorder, seen.append)
    recorder.callbacks[kind](recorder, Handle(), *arguments, None)
    return seen


@pytest.mark.parametrize(
    ("number", "detail", "kind", "words"),
    [
        (libvirt.VIR_DOMAIN_EVENT_DEFINED, 2, EventKind.DEFINED, "renamed"),
        (libvirt.VIR_DOMAIN_EVENT_UNDEFINED, 0, EventKind.UNDEFINED, "removed"),
        (libvirt.VIR_DOMAIN_EVENT_STARTED, 2, EventKind.STARTED, "restored"),
        (libvirt.VIR_DOMAIN_EVENT_SUSPENDED, 2, EventKind.PAUSED, "disk error"),
        (libvirt.VIR_DOMAIN_EVENT_RESUMED, 1, EventKind.RESUMED, "migrated"),
        (libvirt.VIR_DOMAIN_EVENT_STOPPED, 4, EventKind.STOPPED, "saved"),
        (libvirt.VIR_DOMAIN_EVENT_SHUTDOWN, 1, EventKind.SHUTTING_DOWN, "by the guest"),
        (libvirt.VIR_DOMAIN_EVENT_PMSUSPENDED, 1, EventKind.SUSPENDED, "to disk"),
        (libvirt.VIR_DOMAIN_EVENT_CRASHED, 0, EventKind.CRASHED, "panicked"),
        (libvirt.VIR_DOMAIN_EVENT_STARTED, 99, EventKind.STARTED, "99"),
    ],
)
def test_a_lifecycle_event_tells_its_reason_in_words(number: int, detail: int, kind: EventKind, words: str) -> None:
    (event,) = heard(libvirt.VIR_DOMAIN_EVENT_ID_LIFECYCLE, number, detail)

    assert (event.kind, event.detail, event.vm_name, event.vm_uuid) == (kind, words, "web-01", "0001")
    assert event.at.tzinfo is not None


def test_a_lifecycle_event_of_a_later_libvirt_is_left_out() -> None:
    assert heard(libvirt.VIR_DOMAIN_EVENT_ID_LIFECYCLE, 99, 0) == []


@pytest.mark.parametrize(
    ("number", "arguments", "kind", "words"),
    [
        (
            libvirt.VIR_DOMAIN_EVENT_ID_IO_ERROR_REASON,
            ("/i/a", "virtio0", 1, "enospc"),
            EventKind.IO_ERROR,
            "no space left on /i/a",
        ),
        (libvirt.VIR_DOMAIN_EVENT_ID_IO_ERROR_REASON, ("", "virtio0", 1, ""), EventKind.IO_ERROR, "error on virtio0"),
        (libvirt.VIR_DOMAIN_EVENT_ID_AGENT_LIFECYCLE, (1, 0), EventKind.AGENT, "connected"),
        (libvirt.VIR_DOMAIN_EVENT_ID_AGENT_LIFECYCLE, (2, 0), EventKind.AGENT, "disconnected"),
        (libvirt.VIR_DOMAIN_EVENT_ID_REBOOT, (), EventKind.REBOOTED, ""),
        (libvirt.VIR_DOMAIN_EVENT_ID_WATCHDOG, (2,), EventKind.WATCHDOG, "reset"),
        (libvirt.VIR_DOMAIN_EVENT_ID_DEVICE_ADDED, ("virtio-disk1",), EventKind.DEVICE_ADDED, "virtio-disk1"),
        (libvirt.VIR_DOMAIN_EVENT_ID_DEVICE_REMOVED, ("net1",), EventKind.DEVICE_REMOVED, "net1"),
        (libvirt.VIR_DOMAIN_EVENT_ID_METADATA_CHANGE, (1, None), EventKind.METADATA, "title"),
        (libvirt.VIR_DOMAIN_EVENT_ID_METADATA_CHANGE, (2, "urn:x"), EventKind.METADATA, "element urn:x"),
        (libvirt.VIR_DOMAIN_EVENT_ID_BALLOON_CHANGE, (1024,), EventKind.BALLOON, "1024 KiB"),
        (libvirt.VIR_DOMAIN_EVENT_ID_TRAY_CHANGE, ("ide0", 0), EventKind.TRAY, "ide0 opened"),
        (libvirt.VIR_DOMAIN_EVENT_ID_JOB_COMPLETED, ({"operation": 2},), EventKind.JOB_COMPLETED, "save"),
        (libvirt.VIR_DOMAIN_EVENT_ID_JOB_COMPLETED, ({"operation": 77},), EventKind.JOB_COMPLETED, "77"),
    ],
)
def test_other_events_tell_what_happened(number: int, arguments: tuple[Any, ...], kind: EventKind, words: str) -> None:
    (event,) = heard(number, *arguments)

    assert (event.kind, event.detail) == (kind, words)


def test_a_driver_that_lacks_a_kind_of_event_gives_the_others() -> None:
    recorder = Recorder(lacking=(libvirt.VIR_DOMAIN_EVENT_ID_TRAY_CHANGE,))
    subscription = subscribe(recorder, lambda _event: None)

    assert libvirt.VIR_DOMAIN_EVENT_ID_LIFECYCLE in recorder.callbacks
    subscription.cancel()
    subscription.cancel()
    assert sorted(recorder.removed) == sorted(recorder.callbacks), "a dead connection's callbacks are removed once each"


def test_a_subscriber_that_raises_is_logged_and_not_printed(
    caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    recorder = Recorder()
    subscribe(recorder, lambda _event: 1 // 0)  # type: ignore[arg-type]

    with caplog.at_level(logging.ERROR):
        recorder.callbacks[libvirt.VIR_DOMAIN_EVENT_ID_REBOOT](recorder, Handle(), None)
    assert "ZeroDivisionError" in caplog.text
    assert capfd.readouterr().err == ""


def test_what_happens_to_vms_arrives_on_the_event_thread(simulated: Host) -> None:
    seen: list[tuple[Event, str]] = []
    connection = simulated.connection()
    subscription = subscribe(connection, lambda event: seen.append((event, threading.current_thread().name)))
    connection.lookupByName("web-01").suspend()
    connection.lookupByName("web-01").resume()
    connection.lookupByName("web-02").destroy()
    connection.defineXML(domain("new"))
    connection.lookupByName("new").setMetadata(2, "<x/>", "hvtui", HVTUI_NAMESPACE)
    connection.lookupByName("new").undefine()
    wait_for(lambda: len(seen) >= 6, what="six events")

    assert [(event.kind, event.vm_name, event.detail) for event, _ in seen] == [
        (EventKind.PAUSED, "web-01", "by request"),
        (EventKind.RESUMED, "web-01", "by request"),
        (EventKind.STOPPED, "web-02", "forced off"),
        (EventKind.DEFINED, "new", "added"),
        (EventKind.METADATA, "new", f"element {HVTUI_NAMESPACE}"),
        (EventKind.UNDEFINED, "new", "removed"),
    ]
    assert seen[0][0].vm_uuid == uuid_of("web-01")
    assert {thread for _, thread in seen} == {"libvirt-events"}

    subscription.cancel()
    connection.lookupByName("web-01").suspend()
    marker = threading.Event()
    subscribe(connection, lambda _event: marker.set())
    connection.lookupByName("web-01").resume()
    assert marker.wait(10)
    assert len(seen) == 6, "a cancelled subscription hears nothing"


def test_there_is_one_event_thread_and_libvirt_prints_nothing(
    simulated: Host, capfd: pytest.CaptureFixture[str]
) -> None:
    start_event_thread()
    start_event_thread()

    assert [thread.name for thread in threading.enumerate()].count("libvirt-events") == 1
    with pytest.raises(libvirt.libvirtError):
        simulated.connection().lookupByName("never")
    assert capfd.readouterr().err == ""


def test_the_event_thread_survives_an_exception(caplog: pytest.LogCaptureFixture) -> None:
    turns: list[int] = []

    def turn() -> None:
        turns.append(1)
        if len(turns) == 1:
            raise libvirt.libvirtError("the loop failed")
        raise SystemExit  # ends the test's own run of the loop

    with caplog.at_level(logging.ERROR), pytest.raises(SystemExit):
        events._run(turn)
    assert len(turns) == 2
    assert "the loop failed" in caplog.text
