"""Asking a guest to shut down or restart: the agent, then ACPI, then the truth. The VM is real (libvirt's test driver);
how its guest answers is the test's."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import libvirt
import pytest

from host.connection import Host
from host.errors import Cancelled, HvtuiError, TimedOut
from tests.support.running import Notes, context, do
from vm import asking, inventory, lifecycle
from vm.asking import AskResult, Request, ask
from vm.lifecycle_steps import _REBOOT, _SHUTDOWN
from vm.model import VmState


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asking, "POLL_S", 0.02)
    monkeypatch.setattr(asking, "CANCEL_POLL_S", 0.01)


@pytest.fixture
def never() -> Iterator[threading.Event]:
    """An agent that does not answer waits for this, until the test ends."""
    event = threading.Event()
    yield event
    event.set()


def args_for(host: Host, name: str = "web-02", **more: Any) -> dict[str, Any]:
    vm = inventory.find(host, name)
    return {"uuid": vm.uuid, "name": name, "persistent": vm.persistent, "timeout_s": 5.0, "wait": True, **more}


def refuse(_domain: Any) -> None:
    error = libvirt.libvirtError("refused")
    error.err = (
        libvirt.VIR_ERR_AGENT_UNRESPONSIVE,
        libvirt.VIR_FROM_QEMU,
        "agent is not connected",
        2,
        *[""] * 3,
        -1,
        -1,
    )
    raise error


def ignored(_domain: Any) -> None:
    """The request is taken and nothing follows."""


def request(**ways: Any) -> Request:
    return Request(**{"doing": "shut down", "agent": refuse, "acpi": ignored, "plain": ignored, **ways})


def test_an_agent_that_obeys_is_enough(simulated: Host) -> None:
    asked: list[str] = []
    ways = request(agent=lambda domain: domain.shutdown(), acpi=lambda _domain: asked.append("acpi"))
    assert ask(context(simulated), args_for(simulated), ways) is AskResult.REACTED
    assert not asked


def test_acpi_follows_an_agent_that_fails(simulated: Host) -> None:
    ways = request(acpi=lambda domain: domain.shutdown())
    assert ask(context(simulated), args_for(simulated), ways) is AskResult.REACTED


def test_acpi_follows_an_agent_that_never_answers(
    simulated: Host, never: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asking, "AGENT_PATIENCE_S", 0.05)
    ways = request(agent=lambda _domain: never.wait(), acpi=lambda domain: domain.shutdown())
    assert ask(context(simulated), args_for(simulated), ways) is AskResult.REACTED


def test_acpi_is_asked_again_until_the_guest_hears_it(simulated: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asking, "ACPI_AGAIN_S", 0.05)
    asked: list[Any] = []

    def heard_when_booted(domain: Any) -> None:
        asked.append(domain)
        if len(asked) == 3:
            domain.destroy()

    notes = Notes()
    outcome = ask(context(simulated, notes), args_for(simulated), request(acpi=heard_when_booted))
    assert (outcome, len(asked)) == (AskResult.REACTED, 3)
    assert "asked ACPI 2 times, 0 of 5 s" in notes.notes


def test_a_guest_that_goes_off_while_it_is_asked_has_reacted(simulated: Host) -> None:
    def gone_under_the_call(domain: Any) -> None:
        domain.destroy()
        refuse(domain)

    assert ask(context(simulated), args_for(simulated), request(acpi=gone_under_the_call)) is AskResult.REACTED


def test_a_request_that_fails_for_a_guest_that_stays_is_an_error(
    simulated: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asking, "GOES_OFF_S", 0.05)
    with pytest.raises(HvtuiError, match="agent is not connected"):
        ask(context(simulated), args_for(simulated), request(acpi=refuse))


def test_a_driver_without_acpi_gets_a_plain_request(simulated: Host) -> None:
    assert ask(context(simulated), args_for(simulated), _SHUTDOWN) is AskResult.REACTED
    assert inventory.find(simulated, "web-02").state is VmState.OFF


def test_the_progress_says_who_was_asked_since_when_and_how_long_at_most(simulated: Host) -> None:
    notes = Notes()
    assert ask(context(simulated, notes), args_for(simulated, timeout_s=1), request()) is AskResult.SILENT
    assert "asked ACPI, 0 of 1 s" in notes.notes


def test_a_guest_that_does_not_react_is_left_alone_and_told_about(
    simulated: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vm.lifecycle_steps._SHUTDOWN", request())
    (step,) = lifecycle.plan_stop(simulated, inventory.find(simulated, "web-02"), timeout_s=0.05).steps
    with pytest.raises(TimedOut, match="did not react") as caught:
        do(simulated, step)
    assert "vm console web-02" in caught.value.remedy
    assert "vm off web-02" in caught.value.remedy
    assert caught.value.exit_code == 7
    assert inventory.find(simulated, "web-02").state is VmState.RUNNING


def test_a_guest_that_does_not_react_is_turned_off_only_when_asked(
    simulated: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vm.lifecycle_steps._SHUTDOWN", request())
    (step,) = lifecycle.plan_stop(simulated, inventory.find(simulated, "web-02"), timeout_s=0.05, force=True).steps
    assert do(simulated, step) == {"changed": True, "forced": True}
    assert inventory.find(simulated, "web-02").state is VmState.OFF


def test_a_restart_without_reaction_is_told_or_forced(simulated: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vm.lifecycle_steps._REBOOT", request(restarts=True))
    vm = inventory.find(simulated, "web-02")
    (step,) = lifecycle.plan_restart(simulated, vm, timeout_s=0.05).steps
    with pytest.raises(TimedOut, match="did not react") as caught:
        do(simulated, step)
    assert "vm reset web-02" in caught.value.remedy
    (forced,) = lifecycle.plan_restart(simulated, vm, timeout_s=0.05, force=True).steps
    assert do(simulated, forced) == {"forced": True}


def test_a_restart_is_seen_by_libvirts_event(simulated: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    vm = inventory.find(simulated, "web-02")
    seen = threading.Event()
    seen.set()

    class Seen:
        def __enter__(self) -> threading.Event:
            return seen

        def __exit__(self, *_: object) -> None:
            return None

    monkeypatch.setattr(asking, "_reboot_seen", lambda *_: Seen())
    assert ask(context(simulated), args_for(simulated), request(restarts=True)) is AskResult.REACTED
    assert vm.state is VmState.RUNNING


def test_an_agent_that_restarts_the_guest_is_enough(simulated: Host) -> None:
    assert ask(context(simulated), args_for(simulated), _REBOOT) is AskResult.REACTED


def test_cancelling_ends_the_wait_at_once(simulated: Host, never: threading.Event) -> None:
    notes = Notes(cancelled=lambda: True)
    with pytest.raises(Cancelled, match="may still react"):
        ask(context(simulated, notes), args_for(simulated, timeout_s=3600), request(agent=lambda _d: never.wait()))


def test_without_waiting_the_guest_is_only_asked(
    simulated: Host, never: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    args = args_for(simulated, wait=False)
    assert ask(context(simulated), args, request()) is AskResult.ASKED
    assert ask(context(simulated), args, request(agent=ignored)) is AskResult.ASKED
    monkeypatch.setattr(asking, "AGENT_ANSWER_S", 0.05)
    assert ask(context(simulated), args, request(agent=lambda _d: never.wait())) is AskResult.ASKED
    assert inventory.find(simulated, "web-02").state is VmState.RUNNING


def test_a_transient_vm_that_vanishes_has_reacted(simulated: Host) -> None:
    ways = request(agent=lambda domain: domain.destroy())
    assert ask(context(simulated), args_for(simulated, "scratch"), ways) is AskResult.REACTED


def test_an_error_of_acpi_itself_is_told(simulated: Host) -> None:
    with pytest.raises(HvtuiError, match="agent is not connected"):
        ask(context(simulated), args_for(simulated), request(acpi=refuse))


def test_a_vm_that_goes_off_while_acpi_fails_has_reacted(simulated: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    def off_and_refuse(domain: Any) -> None:
        domain.destroy()
        refuse(domain)

    monkeypatch.setattr("vm.lifecycle_steps._SHUTDOWN", request(acpi=off_and_refuse))
    (step,) = lifecycle.plan_stop(simulated, inventory.find(simulated, "web-02")).steps
    assert do(simulated, step)["changed"] is True


def test_an_error_while_the_vm_still_runs_is_an_error(simulated: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vm.lifecycle_steps._SHUTDOWN", request(acpi=refuse))
    (step,) = lifecycle.plan_stop(simulated, inventory.find(simulated, "web-02")).steps
    with pytest.raises(HvtuiError, match="agent is not connected"):
        do(simulated, step)
