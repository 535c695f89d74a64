"""Plans of vm.lifecycle: what each state allows, and what a plan tells before anything runs."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from dataclasses import replace

import pytest

from host.connection import Host, open_host
from host.errors import Blocked, Denied, WrongState
from host.plan import Blocker, Danger, Plan
from host.steps import verb_named
from vm import inventory
from vm.lifecycle import (
    ALLOWED,
    plan_autostart,
    plan_discard_saved,
    plan_off,
    plan_pause,
    plan_reset,
    plan_restart,
    plan_resume,
    plan_save,
    plan_start,
    plan_stop,
    state_blockers,
)
from vm.model import Vm, VmConfig, VmState

HOST = open_host("test:///default")
PLANS: dict[str, Callable[[Host, Vm], Plan]] = {
    "vm.start": plan_start,
    "vm.stop": plan_stop,
    "vm.restart": plan_restart,
    "vm.reset": plan_reset,
    "vm.off": plan_off,
    "vm.pause": plan_pause,
    "vm.resume": plan_resume,
    "vm.save": plan_save,
    "vm.discard-saved": plan_discard_saved,
}

# Each state, and what it allows; everything else is blocked.
TABLE: dict[VmState, set[str]] = {
    VmState.RUNNING: {"vm.stop", "vm.restart", "vm.reset", "vm.off", "vm.pause", "vm.save"},
    VmState.PAUSED: {"vm.reset", "vm.off", "vm.resume", "vm.save"},
    VmState.SHUTTING_DOWN: {"vm.stop", "vm.reset", "vm.off"},
    VmState.OFF: {"vm.start"},
    VmState.SAVED: {"vm.start", "vm.discard-saved"},
    VmState.CRASHED: {"vm.reset", "vm.off"},
    VmState.SUSPENDED: {"vm.off", "vm.resume"},
    VmState.UNKNOWN: set(PLANS),
}


def a_vm(state: VmState = VmState.RUNNING, **more: object) -> Vm:
    active = state.is_active or state is VmState.CRASHED
    fields: dict[str, object] = {
        "uuid": "6695eb01-f6a4-8304-79aa-97f2502e193f",
        "name": "web-01",
        "state": state,
        "domain_id": 3 if active else None,
        "has_saved_state": state is VmState.SAVED,
    }
    return Vm(**{**fields, **more})  # type: ignore[arg-type]


@pytest.mark.parametrize("action_id", PLANS)
@pytest.mark.parametrize("state", VmState)
def test_each_state_allows_what_the_table_says(state: VmState, action_id: str) -> None:
    plan = PLANS[action_id](HOST, a_vm(state))
    assert (not plan.blockers) == (action_id in TABLE[state])


@pytest.mark.parametrize("state", VmState)
def test_every_state_may_set_autostart(state: VmState) -> None:
    assert not plan_autostart(HOST, a_vm(state), True).blockers


@pytest.mark.parametrize("action_id", PLANS)
@pytest.mark.parametrize("state", VmState)
def test_a_blocker_names_an_action_that_its_state_allows(state: VmState, action_id: str) -> None:
    for blocker in PLANS[action_id](HOST, a_vm(state)).blockers:
        assert str(state) in blocker.reason
        if blocker.action_id is not None:
            assert blocker.remedy
            assert blocker.action_id in TABLE[state]


def test_a_wrong_state_ends_with_exit_code_4() -> None:
    plan = plan_start(HOST, a_vm(VmState.RUNNING))
    with pytest.raises(WrongState, match="running") as caught:
        plan.raise_if_blocked()
    assert caught.value.exit_code == 4


def test_blockers_of_different_kinds_end_as_blocked() -> None:
    plan = plan_start(HOST, a_vm(VmState.RUNNING))
    mixed = replace(plan, blockers=(*plan.blockers, Blocker("something else", "Wait")))
    with pytest.raises(Blocked) as caught:
        mixed.raise_if_blocked()
    assert caught.value.exit_code == 9


def test_a_host_opened_read_only_denies_every_change() -> None:
    plan = plan_off(open_host("test:///default", read_only=True), a_vm())
    with pytest.raises(Denied):
        plan.raise_if_blocked()


def test_a_plan_needs_no_libvirt_call() -> None:
    nowhere = open_host("qemu+unix:///system?socket=/nonexistent/socket")
    for plan in PLANS.values():
        assert plan(nowhere, a_vm()).steps


def test_every_step_of_every_plan_has_a_registered_verb() -> None:
    assert set(ALLOWED) == set(PLANS)
    for plan in [*(each(HOST, a_vm()) for each in PLANS.values()), plan_autostart(HOST, a_vm(), True)]:
        assert [verb_named(step.verb).name for step in plan.steps] == [step.verb for step in plan.steps]


def test_a_crashed_vm_without_a_process_counts_as_off() -> None:
    gone = a_vm(VmState.CRASHED, domain_id=None)
    assert not plan_start(HOST, gone).blockers
    assert plan_off(HOST, gone).blockers
    assert not plan_discard_saved(HOST, replace(gone, has_saved_state=True)).blockers


@pytest.mark.parametrize("reason", ["saving", "migrating", "making a snapshot"])
def test_a_pause_that_libvirt_may_need_itself_is_warned_about(reason: str) -> None:
    plan = plan_resume(HOST, a_vm(VmState.PAUSED, state_reason=reason))
    assert reason in plan.warnings[0]
    assert not plan.blockers


def test_resuming_after_a_disk_error_says_to_make_room() -> None:
    plan = plan_resume(HOST, a_vm(VmState.PAUSED, state_reason="disk error"))
    assert "make room" in plan.warnings[0]
    assert not plan.blockers


def test_the_state_is_told_with_its_reason() -> None:
    (blocker,) = state_blockers(a_vm(VmState.PAUSED, state_reason="disk error"), "vm.start")
    assert blocker.reason == "it is paused (disk error)"


def test_starting_without_the_saved_state_says_what_is_lost() -> None:
    plan = plan_start(HOST, a_vm(VmState.SAVED), discard_saved=True, paused=True)
    assert plan.danger is Danger.DESTRUCTIVE
    assert "saved state of web-01" in plan.losses[0]
    assert plan.command == ("vm", "start", "--paused", "--discard-saved", "web-01")
    assert plan.steps[0].commands[0].endswith("start --domain web-01 --paused --force-boot")


def test_starting_a_saved_vm_is_called_restoring_and_loses_nothing() -> None:
    plan = plan_start(HOST, a_vm(VmState.SAVED))
    assert plan.title == "Restore web-01"
    assert plan.danger is Danger.NONE
    assert not plan.losses
    assert not plan_start(HOST, a_vm(VmState.OFF), discard_saved=True).losses


def test_nothing_is_forced_unless_asked_and_forcing_is_said() -> None:
    gentle = plan_stop(HOST, a_vm())
    assert gentle.danger is Danger.DISRUPTIVE
    assert not any("destroy" in line for line in gentle.steps[0].commands)
    forced = plan_stop(HOST, a_vm(), force=True, timeout_s=30)
    assert "destroy" in forced.steps[0].commands[1]
    assert "30 s" in forced.warnings[0]
    assert forced.command == ("vm", "stop", "--timeout", "30", "--force", "web-01")
    reset = plan_restart(HOST, a_vm(), force=True)
    assert "reset" in reset.steps[0].commands[1]


def test_a_stop_that_does_not_wait_forces_nothing() -> None:
    plan = plan_stop(HOST, a_vm(), force=True, wait=False)
    assert plan.steps[0].args["force"] is False
    assert plan.command == ("vm", "stop", "--no-wait", "web-01")


@pytest.mark.parametrize("plan", [plan_stop, plan_off])
def test_a_transient_vm_vanishes_when_it_stops_and_the_plan_says_so(plan: Callable[[Host, Vm], Plan]) -> None:
    made = plan(HOST, a_vm(persistent=False))
    assert made.danger is Danger.DESTRUCTIVE
    assert "transient" in made.losses[0]


def test_a_transient_vm_has_neither_a_saved_state_nor_autostart() -> None:
    vm = a_vm(persistent=False)
    for plan in (plan_save(HOST, vm), plan_autostart(HOST, vm, True)):
        with pytest.raises(WrongState, match="transient"):
            plan.raise_if_blocked()


def test_saving_a_vm_with_devices_of_the_host_warns() -> None:
    assert plan_save(HOST, a_vm(config=VmConfig(host_devices=1))).warnings
    assert not plan_save(HOST, a_vm(config=VmConfig())).warnings


def test_waking_a_sleeping_vm_uses_virshs_word_for_it() -> None:
    assert "dompmwakeup" in plan_resume(HOST, a_vm(VmState.SUSPENDED)).steps[0].commands[0]


@pytest.mark.parametrize("name", ["-rf", "a b", "a'b;rm -rf /", "new\nline", "日本語", "[red]x"])
def test_a_hostile_name_stays_one_argument_of_every_command(name: str) -> None:
    for plan in PLANS.values():
        made = plan(HOST, a_vm(name=name))
        assert made.command[-1] == name
        assert ("--" in made.command) == name.startswith("-")
        for line in made.steps[0].commands:
            words = shlex.split(line)
            assert words[words.index("--domain") + 1] == name


def test_the_varied_world_is_planned_without_an_error(simulated: Host) -> None:
    for vm in inventory.read(simulated):
        for plan in PLANS.values():
            assert plan(simulated, vm).vm_uuid == vm.uuid
