"""How readings of a VM are joined (vm.picture): what is kept, what starts afresh, and what nothing changed."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import libvirt

from host.statistics import Sample, VmRates
from vm import picture
from vm.model import Vm, VmConfig, VmState

RUNNING = Vm(
    uuid="1",
    name="a",
    state=VmState.RUNNING,
    domain_id=7,
    checkpoints=3,
    vcpus=2,
    memory_bytes=5,
    config=VmConfig(vcpus=2, memory_bytes=5),
    rates=VmRates(cpu_percent=1.0),
    cpu_history=(1.0, 2.0),
    memory_used_bytes=4,
    addresses=("192.0.2.1",),
    started_at=datetime(2026, 1, 1, tzinfo=UTC),
)
BULK = Vm(uuid="1", name="a", state=VmState.RUNNING, domain_id=7, checkpoints=1)


def test_the_same_reading_keeps_the_same_object() -> None:
    assert picture.joined(RUNNING, BULK) is RUNNING


def test_a_vm_that_stopped_keeps_only_what_outlives_its_process() -> None:
    off = picture.joined(RUNNING, replace(BULK, state=VmState.OFF, domain_id=None))

    assert off.config is RUNNING.config
    assert off.checkpoints == 3
    assert (off.rates, off.cpu_history, off.memory_used_bytes, off.addresses, off.started_at) == (
        VmRates(), (), None, (), None,
    )  # fmt: skip


def test_another_process_of_the_vm_starts_afresh() -> None:
    again = picture.joined(RUNNING, replace(BULK, domain_id=8))

    assert again.cpu_history == ()
    assert again.started_at is None


def test_the_start_is_told_by_the_reading_before_the_event() -> None:
    told, read = datetime(2026, 2, 1, tzinfo=UTC), datetime(2026, 2, 2, tzinfo=UTC)

    assert picture.joined(None, BULK, started_at=told).started_at == told
    assert picture.joined(None, replace(BULK, started_at=read), started_at=told).started_at == read
    assert picture.joined(RUNNING, replace(BULK, domain_id=8), started_at=told).started_at == told
    assert picture.joined(None, replace(BULK, state=VmState.OFF), started_at=told).started_at is None


def test_removed_and_new_checkpoints_are_seen() -> None:
    assert picture.joined(RUNNING, replace(BULK, checkpoints=0)).checkpoints == 0
    assert picture.joined(replace(RUNNING, checkpoints=0), BULK).checkpoints == 1


def test_a_vm_without_samples_has_no_rates() -> None:
    bare = picture.measured(RUNNING, None, None)

    assert (bare.rates, bare.cpu_history, bare.memory_used_bytes) == (VmRates(), (), None)
    assert picture.measured(bare, None, None) is bare


def test_a_sample_that_changes_nothing_keeps_the_object() -> None:
    quiet_vm = replace(RUNNING, rates=VmRates(), cpu_history=(), memory_used_bytes=None)

    assert picture.measured(quiet_vm, None, Sample(at_s=1.0)) is quiet_vm


def test_memory_and_vcpus_follow_the_samples() -> None:
    grown = picture.measured(RUNNING, None, Sample(at_s=1.0, vcpus=4, memory_bytes=9, memory_max_bytes=10))

    assert (grown.vcpus, grown.memory_bytes, grown.memory_max_bytes) == (4, 9, 10)


def test_an_idle_vm_stays_the_same_object_once_its_history_is_full() -> None:
    vm = RUNNING
    for second in range(1, 100):
        before = Sample(at_s=float(second - 1), vcpus=2, cpu_time_ns=5)
        newer = picture.measured(vm, before, Sample(at_s=float(second), vcpus=2, cpu_time_ns=5))
        if second > picture.HISTORY_POINTS + 1:
            assert newer is vm
        vm = newer
    assert len(vm.cpu_history) == picture.HISTORY_POINTS


def test_all_samples_are_compared_with_all_vms() -> None:
    vms = {
        "same": replace(RUNNING, uuid="same"),
        "paused": replace(RUNNING, uuid="paused"),
        "gone": replace(RUNNING, uuid="gone"),
        "off": Vm(uuid="off", name="off", state=VmState.OFF),
        "started": Vm(uuid="started", name="started", state=VmState.OFF),
    }
    samples = {
        "same": Sample(at_s=1.0),
        "paused": Sample(at_s=1.0, state=libvirt.VIR_DOMAIN_PAUSED),
        "started": Sample(at_s=1.0),
        "unknown": Sample(at_s=1.0),
    }

    assert picture.suspects(vms, samples) == {"paused", "gone", "started", "unknown"}
