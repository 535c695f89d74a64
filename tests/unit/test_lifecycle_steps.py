"""The step verbs of vm.lifecycle_steps on libvirt's test driver: done once, done twice, rolled back, taken back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import libvirt
import pytest

from host import jobs
from host.connection import Host
from host.errors import HvtuiError, NotFound, UsageError, WrongState
from host.job_model import JobState
from host.journal import Journal
from host.plan import Plan, Step
from host.steps import verb_named
from tests.support.running import do, done, submit, undo
from tests.support.simulated_world import HOSTILE_NAMES, LONG_NAME
from vm import inventory, lifecycle
from vm.model import Vm, VmState

# VM of the varied world, its state, the plan, and the state after.
CHANGES: list[tuple[str, Callable[[Host, Vm], Plan], VmState]] = [
    ("build-07", lifecycle.plan_start, VmState.RUNNING),
    ("build-08", lifecycle.plan_start, VmState.RUNNING),
    ("build-08", lambda host, vm: lifecycle.plan_start(host, vm, discard_saved=True), VmState.RUNNING),
    ("web-02", lifecycle.plan_stop, VmState.OFF),
    ("web-02", lifecycle.plan_restart, VmState.RUNNING),
    ("web-02", lifecycle.plan_reset, VmState.RUNNING),
    ("db-01", lifecycle.plan_reset, VmState.PAUSED),
    ("web-02", lifecycle.plan_off, VmState.OFF),
    ("db-01", lifecycle.plan_off, VmState.OFF),
    ("panicked", lifecycle.plan_off, VmState.OFF),
    ("web-02", lifecycle.plan_pause, VmState.PAUSED),
    ("db-01", lifecycle.plan_resume, VmState.RUNNING),
    ("web-02", lifecycle.plan_save, VmState.SAVED),
    ("db-01", lifecycle.plan_save, VmState.SAVED),
    ("build-08", lifecycle.plan_discard_saved, VmState.OFF),
]
IDS = [f"{name}-to-{state.value}-{index}" for index, (name, _, state) in enumerate(CHANGES)]


@pytest.mark.parametrize(("name", "plan", "after"), CHANGES, ids=IDS)
def test_each_plan_reaches_its_state_as_a_job(
    simulated: Host, name: str, plan: Callable[[Host, Vm], Plan], after: VmState
) -> None:
    done(plan(simulated, inventory.find(simulated, name)), simulated)
    assert inventory.find(simulated, name).state is after


@pytest.mark.parametrize(("name", "plan", "after"), CHANGES, ids=IDS)
def test_a_step_done_twice_ends_in_the_same_state(
    simulated: Host, name: str, plan: Callable[[Host, Vm], Plan], after: VmState
) -> None:
    (step,) = plan(simulated, inventory.find(simulated, name)).steps
    first = do(simulated, step)
    if step.verb == "vm.restart":
        return  # a second restart is a restart
    second = do(simulated, step)
    assert inventory.find(simulated, name).state is after
    if step.verb != "vm.reset":
        assert first["changed"] is True
        assert second["changed"] is False


def test_a_saved_vm_starts_from_its_saved_state_and_says_so(simulated: Host) -> None:
    (step,) = lifecycle.plan_start(simulated, inventory.find(simulated, "build-08")).steps
    assert do(simulated, step) == {"changed": True, "restored": True}


@pytest.mark.parametrize(
    ("name", "verb"),
    [
        ("build-07", "vm.pause"),
        ("build-07", "vm.resume"),
        ("build-07", "vm.save"),
        ("build-07", "vm.restart"),
        ("panicked", "vm.start"),
        ("panicked", "vm.resume"),
    ],
)
def test_a_state_that_changed_after_the_plan_is_a_wrong_state(simulated: Host, name: str, verb: str) -> None:
    vm = inventory.find(simulated, name)
    step = Step(verb, "", {"uuid": vm.uuid, "name": name, "persistent": True, "timeout_s": 1.0})
    with pytest.raises(WrongState) as caught:
        do(simulated, step)
    assert caught.value.about == name


def test_an_unknown_vm_is_not_found_by_any_verb(simulated: Host) -> None:
    args = {"uuid": "00000000-0000-4000-8000-000000000000", "name": "gone", "persistent": True}
    extra = {"timeout_s": 1.0, "enabled": True, "before": False}
    for verb in (*lifecycle.ALLOWED, "vm.autostart"):
        with pytest.raises(NotFound):
            do(simulated, Step(verb, "", {**args, **extra}))


@pytest.mark.parametrize("plan", [lifecycle.plan_stop, lifecycle.plan_off])
def test_a_transient_vm_that_is_gone_counts_as_off(simulated: Host, plan: Callable[[Host, Vm], Plan]) -> None:
    (step,) = plan(simulated, inventory.find(simulated, "scratch")).steps
    assert do(simulated, step)["changed"] is True
    with pytest.raises(NotFound):
        inventory.find(simulated, "scratch")
    assert do(simulated, step)["changed"] is False


@pytest.mark.parametrize("name", HOSTILE_NAMES)
def test_a_vm_with_a_hostile_name_can_be_driven(simulated: Host, name: str) -> None:
    vm = inventory.find(simulated, name)
    if vm.state is VmState.OFF:
        done(lifecycle.plan_start(simulated, vm), simulated)
    job = done(lifecycle.plan_off(simulated, inventory.find(simulated, name)), simulated)
    assert job.vm_name == name
    assert inventory.find(simulated, name).state is VmState.OFF


def test_an_error_about_a_very_long_name_names_it_once_on_one_line(simulated: Host) -> None:
    vm = inventory.find(simulated, LONG_NAME)
    plan = lifecycle.plan_start(simulated, vm, paused=True)  # the test driver cannot start paused
    job = submit(plan, simulated)
    assert job.state is JobState.FAILED
    assert "\n" not in job.error


def test_starting_paused_is_refused_where_the_driver_cannot(simulated: Host) -> None:
    (step,) = lifecycle.plan_start(simulated, inventory.find(simulated, "build-07"), paused=True).steps
    with pytest.raises(HvtuiError, match="unsupported flags"):
        do(simulated, step)
    assert inventory.find(simulated, "build-07").state is VmState.OFF


# Rollback


@pytest.mark.parametrize(
    ("name", "plan"),
    [
        ("build-07", lifecycle.plan_start),
        ("build-08", lifecycle.plan_start),
        ("web-02", lifecycle.plan_pause),
        ("db-01", lifecycle.plan_resume),
        ("web-02", lifecycle.plan_save),
        ("web-02", lambda host, vm: lifecycle.plan_autostart(host, vm, True)),
    ],
    ids=["start", "restore", "pause", "resume", "save", "autostart"],
)
def test_a_rollback_puts_the_state_back_and_may_run_twice(
    simulated: Host, name: str, plan: Callable[[Host, Vm], Plan]
) -> None:
    before = inventory.find(simulated, name)
    (step,) = plan(simulated, before).steps
    result = do(simulated, step)
    undo(simulated, step, result)
    undo(simulated, step, result)
    after = inventory.find(simulated, name)
    assert (after.state, after.autostart) == (before.state, before.autostart)


@pytest.mark.parametrize("verb", ["vm.start", "vm.pause", "vm.resume", "vm.save"])
def test_rolling_back_a_step_that_changed_nothing_touches_nothing(simulated: Host, verb: str) -> None:
    for vm in inventory.read(simulated):
        step = Step(verb, "", {"uuid": vm.uuid, "name": vm.name, "persistent": vm.persistent})
        undo(simulated, step, None)
        undo(simulated, step, {"changed": False, "restored": False})
        assert inventory.find(simulated, vm.uuid) == vm


# Undo


def test_undoing_takes_a_pause_a_save_and_autostart_back(simulated: Host) -> None:
    for plan in (lifecycle.plan_pause, lifecycle.plan_save, lambda h, v: lifecycle.plan_autostart(h, v, True)):
        job = done(plan(simulated, inventory.find(simulated, "web-02")), simulated)
        done(jobs.plan_undo(job, simulated), simulated)
        vm = inventory.find(simulated, "web-02")
        assert (vm.state, vm.autostart) == (VmState.RUNNING, False)
    job = done(lifecycle.plan_resume(simulated, inventory.find(simulated, "db-01")), simulated)
    done(jobs.plan_undo(job, simulated), simulated)
    assert inventory.find(simulated, "db-01").state is VmState.PAUSED


@pytest.mark.parametrize("verb", ["vm.start", "vm.stop", "vm.restart", "vm.reset", "vm.off", "vm.discard-saved"])
def test_what_cannot_be_undone_says_why(verb: str) -> None:
    reason = verb_named(verb).inverse({"uuid": "u", "name": "web-01"}, {"changed": True})
    assert isinstance(reason, str)
    assert " " in reason


def test_undoing_what_changed_nothing_is_nothing() -> None:
    args = {"uuid": "u", "name": "web-01", "enabled": True, "before": True}
    for verb in ("vm.start", "vm.pause", "vm.save", "vm.off", "vm.autostart"):
        assert verb_named(verb).inverse(args, {"changed": False}) is None


def test_an_undo_of_nothing_is_blocked_with_the_reason(simulated: Host) -> None:
    vm = inventory.find(simulated, "web-02")
    job = done(lifecycle.plan_autostart(simulated, vm, False), simulated)
    assert "changed nothing" in jobs.plan_undo(job, simulated).blockers[0].reason


# Faults


class Refusing:
    """A domain whose start libvirt refuses: the rest of it is real."""

    def __init__(self, domain: Any, error: libvirt.libvirtError) -> None:
        self._domain, self._error = domain, error

    def __getattr__(self, name: str) -> Any:
        return getattr(self._domain, name)

    def createWithFlags(self, _flags: int) -> None:  # noqa: N802 - libvirt's own name
        raise self._error


def test_a_saved_state_that_cannot_be_restored_tells_how_to_boot_without_it(
    simulated: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    vm = inventory.find(simulated, "build-08")
    error = libvirt.libvirtError("the image belongs to another machine type")
    error.err = (libvirt.VIR_ERR_INTERNAL_ERROR, libvirt.VIR_FROM_QEMU, "bad image", 2, "", "", "", -1, -1)
    real = simulated.connection().lookupByUUIDString(vm.uuid)
    monkeypatch.setattr("vm.lifecycle_steps.look_up", lambda _connection, _args: Refusing(real, error))
    (step,) = lifecycle.plan_start(simulated, vm).steps
    with pytest.raises(HvtuiError, match="bad image") as caught:
        do(simulated, step)
    assert "--discard-saved" in caught.value.remedy
    assert inventory.find(simulated, "build-08").state is VmState.SAVED


def test_a_vm_that_goes_off_just_before_it_is_turned_off_is_off(
    simulated: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    (step,) = lifecycle.plan_off(simulated, inventory.find(simulated, "web-02")).steps
    do(simulated, step)
    answers = iter((True, False))  # active at the first look, gone at the second
    monkeypatch.setattr("vm.lifecycle_steps._is_active", lambda _ctx, _args: next(answers))
    assert do(simulated, step) == {"changed": True}


def test_a_refused_power_off_of_a_running_vm_is_an_error(simulated: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    (step,) = lifecycle.plan_off(simulated, inventory.find(simulated, "build-07")).steps
    monkeypatch.setattr("vm.lifecycle_steps._is_active", lambda _ctx, _args: True)
    with pytest.raises(WrongState, match="not running"):
        do(simulated, step)


def test_a_step_of_an_older_version_is_refused() -> None:
    with pytest.raises(UsageError):
        verb_named("vm.fly")


def test_a_hundred_starts_share_one_journal(simulated: Host) -> None:
    journal = Journal()
    for name in ("build-07", "build-08"):
        job = jobs.submit(lifecycle.plan_start(simulated, inventory.find(simulated, name)), simulated, journal)
        assert job.state is JobState.DONE
