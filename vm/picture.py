"""How a new reading of a VM joins what is known of it already. Pure: no calls, no threads.

A Vm that did not change is kept as the same object, so that a screen can skip it with `is`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime

from host.statistics import Sample, rates
from vm.inventory import with_config
from vm.model import Vm, VmRates
from vm.states import reason_of, state_of

HISTORY_POINTS = 40


def joined(old: Vm | None, new: Vm, *, started_at: datetime | None = None) -> Vm:
    """`new` (a bulk reading) with what only slower readings gave `old`; `old` itself when that is the same. Rates and
    the like end with the QEMU process that they were measured on. `started_at` is when an event told of the start."""
    if old is None:
        return replace(new, started_at=new.started_at or started_at) if new.is_active else new
    vm = with_config(new, old.config) if old.config is not None else new
    if old.checkpoints and new.checkpoints:
        vm = replace(vm, checkpoints=old.checkpoints)
    if new.is_active:
        same_run = old.domain_id == new.domain_id
        told = started_at or (old.started_at if same_run else None)
        vm = replace(vm, started_at=new.started_at or told)
        if same_run:
            vm = replace(
                vm,
                rates=old.rates,
                cpu_history=old.cpu_history,
                memory_used_bytes=old.memory_used_bytes,
                addresses=old.addresses,
            )
    return old if vm == old else vm


def measured(vm: Vm, before: Sample | None, after: Sample | None) -> Vm:
    """`vm` with the rates between two samples; without any when it has no sample now (it does not run)."""
    if after is None:
        if vm.rates == VmRates() and not vm.cpu_history and vm.memory_used_bytes is None:
            return vm
        return replace(vm, rates=VmRates(), cpu_history=(), memory_used_bytes=None)
    now = rates(before, after)
    history = vm.cpu_history
    if now.cpu_percent is not None:
        history = (*history, now.cpu_percent)[-HISTORY_POINTS:]
    vcpus = after.vcpus or vm.vcpus
    memory_bytes = after.memory_bytes or vm.memory_bytes
    memory_max_bytes = after.memory_max_bytes or vm.memory_max_bytes
    # Compared before a copy is made: most VMs of a big host are idle, and this runs for each at every tick.
    known = (vm.rates, vm.cpu_history, vm.vcpus, vm.memory_bytes, vm.memory_max_bytes, vm.memory_used_bytes)
    if known == (now, history, vcpus, memory_bytes, memory_max_bytes, after.memory_used_bytes):
        return vm
    return replace(
        vm,
        rates=now,
        cpu_history=history,
        vcpus=vcpus,
        memory_bytes=memory_bytes,
        memory_max_bytes=memory_max_bytes,
        memory_used_bytes=after.memory_used_bytes,
    )


def suspects(vms: Mapping[str, Vm], samples: Mapping[str, Sample]) -> set[str]:
    """The uuids whose state in `vms` is not the one that the samples of all running VMs tell: an event was missed."""
    running = {uuid for uuid, vm in vms.items() if vm.domain_id is not None}
    differing = {
        uuid
        for uuid in running & samples.keys()
        if (vms[uuid].state, vms[uuid].state_reason)
        != (state_of(samples[uuid].state), reason_of(samples[uuid].state, samples[uuid].reason))
    }
    return differing | (running ^ samples.keys())
