"""Samples from bulk statistics, and rates that survive what happens to counters."""

from __future__ import annotations

from dataclasses import replace

import libvirt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from host.connection import Host
from host.statistics import Sample, VmRates, rates, read_samples, sample_of
from tests.support.simulated_world import uuid_of

RECORD = {
    "state.state": 1,
    "state.reason": 5,
    "cpu.time": 4_000_000_000,
    "balloon.current": 1024,
    "balloon.maximum": 2048,
    "balloon.available": 1000,
    "balloon.unused": 400,
    "balloon.usable": 700,
    "vcpu.current": 2,
    "vcpu.maximum": 4,
    "vcpu.0.delay": 10,
    "vcpu.3.delay": 30,
    "vcpu.0.time": 1,
    "net.count": 2,
    "net.0.rx.bytes": 1,
    "net.1.rx.bytes": 2,
    "net.0.tx.bytes": 10,
    "net.1.tx.bytes": 20,
    "block.count": 3,
    "block.0.rd.bytes": 100,
    "block.0.wr.bytes": 1000,
    "block.1.name": "sda",
    "block.2.rd.bytes": 200,
    "block.2.wr.bytes": 2000,
}

FIRST = Sample(
    at_s=100.0,
    domain_id=1,
    vcpus=2,
    cpu_time_ns=10_000_000_000,
    vcpu_delays_ns={0: 0, 1: 0},
    disk_read_bytes=1000,
    disk_write_bytes=2000,
    net_receive_bytes=3000,
    net_send_bytes=4000,
)
SECOND = replace(
    FIRST,
    at_s=102.0,
    cpu_time_ns=12_000_000_000,
    vcpu_delays_ns={0: 200_000_000, 1: 0},
    disk_read_bytes=3000,
    disk_write_bytes=2000,
    net_receive_bytes=3500,
    net_send_bytes=4001,
)


def test_a_record_becomes_a_sample_with_sums_over_devices() -> None:
    assert sample_of(RECORD, at_s=5.0, domain_id=3) == Sample(
        at_s=5.0,
        domain_id=3,
        state=1,
        reason=5,
        vcpus=2,
        cpu_time_ns=4_000_000_000,
        vcpu_delays_ns={0: 10, 3: 30},
        disk_read_bytes=300,
        disk_write_bytes=3000,
        net_receive_bytes=3,
        net_send_bytes=30,
        memory_bytes=1024 * 1024,
        memory_max_bytes=2048 * 1024,
        memory_used_bytes=300 * 1024,
    )


def test_a_record_without_any_key_becomes_a_sample_of_nothing() -> None:
    sample = sample_of({}, at_s=1.0)

    assert sample == Sample(at_s=1.0, state=libvirt.VIR_DOMAIN_NOSTATE)
    assert rates(sample, replace(sample, at_s=2.0)) == VmRates()


def test_used_memory_counts_without_caches_where_the_guest_tells() -> None:
    old_guest = {key: value for key, value in RECORD.items() if key != "balloon.usable"}

    assert sample_of(RECORD, at_s=0).memory_used_bytes == 300 * 1024
    assert sample_of(old_guest, at_s=0).memory_used_bytes == 600 * 1024
    assert sample_of({"balloon.available": 1, "balloon.usable": 5}, at_s=0).memory_used_bytes == 0
    assert sample_of({"balloon.available": 1}, at_s=0).memory_used_bytes is None


def test_rates_are_differences_over_the_monotonic_time_between() -> None:
    assert rates(FIRST, SECOND) == VmRates(
        cpu_percent=50.0,
        steal_percent=5.0,
        disk_read_bytes_s=1000.0,
        disk_write_bytes_s=0.0,
        net_receive_bytes_s=250.0,
        net_send_bytes_s=0.5,
    )


def test_the_first_sample_has_no_rates() -> None:
    assert rates(None, SECOND) == VmRates()


def test_another_qemu_process_has_no_rates_even_when_its_counters_are_higher() -> None:
    assert rates(FIRST, replace(SECOND, domain_id=2)) == VmRates()


@pytest.mark.parametrize("at_s", [100.0, 99.0])
def test_samples_at_one_instant_or_in_the_wrong_order_have_no_rates(at_s: float) -> None:
    assert rates(FIRST, replace(SECOND, at_s=at_s)) == VmRates()


def test_a_counter_that_went_down_has_no_rate_and_spoils_no_other() -> None:
    after_unplug = replace(SECOND, disk_read_bytes=10, cpu_time_ns=5)

    found = rates(FIRST, after_unplug)

    assert found.disk_read_bytes_s is None
    assert found.cpu_percent is None
    assert found.net_receive_bytes_s == 250.0


@pytest.mark.parametrize(
    "field", ["cpu_time_ns", "disk_read_bytes", "disk_write_bytes", "net_receive_bytes", "net_send_bytes"]
)
def test_a_counter_missing_on_either_side_has_no_rate(field: str) -> None:
    missing: dict[str, None] = {field: None}
    names = {"cpu_time_ns": "cpu_percent"}

    name = names.get(field, f"{field}_s")
    assert getattr(rates(replace(FIRST, **missing), SECOND), name) is None
    assert getattr(rates(FIRST, replace(SECOND, **missing)), name) is None


def test_steal_is_over_the_vcpus_that_both_samples_know() -> None:
    plugged = replace(SECOND, vcpus=3, vcpu_delays_ns={0: 200_000_000, 1: 0, 2: 9_000_000_000})
    unplugged = replace(SECOND, vcpus=1, vcpu_delays_ns={0: 200_000_000})
    reset = replace(SECOND, vcpu_delays_ns={0: -1, 1: 200_000_000})

    assert rates(FIRST, plugged).steal_percent == 5.0
    assert rates(FIRST, unplugged).steal_percent == 10.0
    assert rates(FIRST, reset).steal_percent == 10.0
    assert rates(FIRST, replace(SECOND, vcpu_delays_ns={7: 1})).steal_percent is None
    assert rates(FIRST, replace(SECOND, vcpu_delays_ns=None)).steal_percent is None


def test_vcpus_plugged_in_or_out_never_make_more_than_all_of_them_busy() -> None:
    busy = replace(SECOND, cpu_time_ns=14_000_000_000)

    assert rates(FIRST, busy).cpu_percent == 100.0
    assert rates(FIRST, replace(busy, vcpus=1)).cpu_percent == 100.0
    assert rates(FIRST, replace(busy, vcpus=4)).cpu_percent == 50.0
    assert rates(FIRST, replace(busy, cpu_time_ns=99_000_000_000)).cpu_percent == 100.0
    assert rates(replace(FIRST, vcpus=0), replace(SECOND, vcpus=0)).cpu_percent == 100.0


counters = st.none() | st.integers(min_value=0, max_value=2**63)
samples = st.builds(
    Sample,
    at_s=st.floats(min_value=0, max_value=1e6),
    domain_id=st.integers(min_value=0, max_value=2),
    vcpus=st.integers(min_value=0, max_value=4),
    cpu_time_ns=counters,
    vcpu_delays_ns=st.none() | st.dictionaries(st.integers(0, 3), st.integers(0, 2**63)),
    disk_read_bytes=counters,
    net_send_bytes=counters,
)


@given(samples, samples)
def test_no_two_samples_make_a_rate_below_zero_or_a_share_above_all(before: Sample, after: Sample) -> None:
    found = rates(before, after)

    for share in (found.cpu_percent, found.steal_percent):
        assert share is None or 0 <= share <= 100
    for rate in (found.disk_read_bytes_s, found.net_send_bytes_s):
        assert rate is None or rate >= 0


def test_samples_come_from_one_bulk_call_for_the_running_vms(simulated: Host) -> None:
    with simulated.calls("read statistics") as connection:
        found = read_samples(connection)
        some = read_samples(connection, {uuid_of("web-01"), uuid_of("build-07")})

    assert uuid_of("web-01") in found
    assert uuid_of("db-01") in found, "a paused VM runs, too"
    assert uuid_of("build-07") not in found
    assert some.keys() == {uuid_of("web-01")}
