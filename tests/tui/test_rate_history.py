"""The histories behind the charts: one value a measurement, for as long as the VM runs, in bounded memory."""

from __future__ import annotations

from dataclasses import replace

import pytest

from hvtui.tui.rate_history import MOST_VMS, POINTS, RateHistories, RateHistory
from tests.tui import scenes
from vm.model import VmRates


def measured(picture):
    """The same picture, measured again."""
    return replace(picture, load=replace(picture.load))


def test_each_measurement_adds_one_value_and_an_event_none():
    vm = replace(scenes.running("a", 1, cpu=50), cpu_history=())
    picture = scenes.snapshot((vm,))
    histories = RateHistories()
    for _ in range(3):
        histories.take(picture)  # an event published it again
    assert len(histories.of(vm).net) == 1
    histories.take(measured(picture))
    history = histories.of(vm)
    assert history.cpu == (50.0, 50.0)
    assert history.memory == pytest.approx((46.0, 46.0), abs=0.1)
    assert history.net[-1] == pytest.approx(history.receive[-1] + history.send[-1])
    assert history.receive[-1] == pytest.approx(vm.rates.net_receive_bytes_s)
    assert history.disk[-1] == pytest.approx(history.read[-1] + history.write[-1])


def test_it_keeps_as_many_values_as_the_widest_chart_has_cells():
    vm = scenes.running("a", 1, cpu=50)
    picture = scenes.snapshot((vm,))
    histories = RateHistories()
    for step in range(POINTS + 30):
        newer = replace(vm, rates=replace(vm.rates, net_receive_bytes_s=float(step)))
        histories.take(measured(replace(picture, vms=(newer,))))
    assert len(histories.of(vm).receive) == POINTS
    assert histories.of(vm).receive[-1] == POINTS + 29
    assert histories.of(vm).receive[0] == 30


def test_a_vm_that_stops_is_forgotten():
    vm = scenes.running("a", 1, cpu=50)
    histories = RateHistories()
    histories.take(scenes.snapshot((vm,)))
    histories.take(measured(scenes.snapshot((replace(vm, rates=VmRates()),))))
    assert histories.of(vm).net == ()
    assert histories.of(scenes.resting("b", 2)) == RateHistory()
    assert histories.of(None) == RateHistory()


def test_the_snapshots_own_history_is_shown_while_it_is_the_longer_one():
    vm = scenes.running("a", 1, cpu=50)
    histories = RateHistories()
    histories.take(scenes.snapshot((vm,)))
    assert histories.of(vm).cpu == vm.cpu_history


def test_of_very_many_vms_only_those_that_are_looked_at_are_remembered():
    vms = scenes.many_vms(MOST_VMS + 1)
    histories = RateHistories()
    histories.take(scenes.snapshot(vms), looked_at={vms[0].uuid})
    assert len(histories._values) == 1
    assert histories.of(vms[0]).net
