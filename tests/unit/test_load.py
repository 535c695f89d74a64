"""Host load: of this machine from the kernel, of others through libvirt."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import libvirt
import pytest

from host import load
from host.connection import Host, open_host
from host.errors import ConnectionLost
from host.load import CpuTimes, HostLoad, busy_percent, images_directory, local_memory, read_load, replace_reader
from tests.support.failing_connection import FailingConnection


class Answers:
    """A connection whose named calls give fixed answers; any other goes to the test driver."""

    def __init__(self, connection: Any, **answers: Any) -> None:
        self._connection = connection
        self._answers = answers

    def __getattr__(self, name: str) -> Any:
        if name in self._answers:
            return lambda *_: self._answers[name]
        return getattr(self._connection, name)


@pytest.fixture
def other(monkeypatch: pytest.MonkeyPatch):
    """A host that is not this machine: the test driver."""
    opened = open_host("test:///default")
    opened.connection()
    yield opened
    opened.close()


def answering(host: Host, monkeypatch: pytest.MonkeyPatch, **answers: Any) -> None:
    connection = Answers(host.connection(), **answers)
    monkeypatch.setattr(host, "_connection", lambda _role: connection)


def test_the_busy_share_is_the_difference_of_two_readings():
    assert busy_percent(CpuTimes(100, 100), CpuTimes(130, 170)) == 30.0


def test_idle_time_that_goes_down_a_little_counts_as_none():
    assert busy_percent(CpuTimes(5, 5), CpuTimes(9, 4)) == 100.0


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (None, CpuTimes(1, 1)),
        (CpuTimes(1, 1), None),
        (CpuTimes(5, 5), CpuTimes(1, 9)),
        (CpuTimes(5, 5), CpuTimes(5, 5)),
    ],
)
def test_counters_that_are_missing_or_did_not_grow_give_no_share(before: CpuTimes | None, after: CpuTimes | None):
    assert busy_percent(before, after) is None


def test_the_local_host_tells_all_from_the_kernel_with_no_libvirt_call():
    host = open_host("qemu:///system")  # never opened: a call would fail where no daemon runs
    first = read_load(host)
    assert first.cpu_percent is None
    assert first.memory_total_bytes and first.memory_used_bytes
    assert 0 < first.memory_used_bytes < first.memory_total_bytes
    assert first.disk_total_bytes and first.disk_used_bytes is not None
    assert host.link.status == "connecting"


def test_a_single_reading_can_wait_for_the_cpu():
    host = open_host("qemu:///session")
    share = read_load(host, settle_s=0.2).cpu_percent
    assert share is not None
    assert 0 <= share <= 100


def test_cpu_load_is_kept_apart_for_each_host(monkeypatch: pytest.MonkeyPatch):
    times = iter([CpuTimes(0, 0), CpuTimes(500, 500), CpuTimes(10, 90), CpuTimes(500, 600)])
    monkeypatch.setattr(load, "_local_cpu", lambda _host: next(times))
    one, two = open_host("qemu:///system"), open_host("qemu:///system")
    assert read_load(one).cpu_percent is None
    assert read_load(two).cpu_percent is None
    assert read_load(one).cpu_percent == 10.0
    assert read_load(two).cpu_percent == 0.0


def test_images_are_in_the_users_own_directory_for_a_session():
    assert images_directory("qemu:///system") == Path("/var/lib/libvirt/images")
    assert images_directory("qemu:///session") == Path.home() / ".local/share/libvirt/images"


def test_the_disk_of_a_directory_that_is_not_made_yet_is_that_of_its_parent(tmp_path: Path):
    assert load._local_disk(tmp_path / "not/made/yet") == load._local_disk(tmp_path)


def test_a_disk_that_cannot_be_seen_at_all_is_not_known(monkeypatch: pytest.MonkeyPatch):
    class Blind:
        @staticmethod
        def disk_usage(_path: str) -> None:
            raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(load, "_psutil", Blind)
    assert load._local_disk(Path("/")) == (None, None)


def test_another_host_tells_what_its_driver_has(other: Host):
    assert read_load(other) == HostLoad(None, 3 * 1024**3 - 3 * 1024**2, 3 * 1024**3, None, None)


def test_another_hosts_cpu_and_memory_come_from_its_statistics(other: Host, monkeypatch: pytest.MonkeyPatch):
    memory = {"total": 1000, "free": 300, "buffers": 50, "cached": 150}
    answering(
        other, monkeypatch, getCPUStats={"user": 10, "kernel": 10, "idle": 70, "iowait": 10}, getMemoryStats=memory
    )
    read_load(other)
    answering(other, monkeypatch, getCPUStats={"user": 25, "kernel": 15, "idle": 120, "iowait": 20}, getMemoryStats={})
    second = read_load(other)
    assert second.cpu_percent == 25.0
    assert second.memory_total_bytes == 3 * 1024**3  # no statistics: the node's memory less what is free
    answering(other, monkeypatch, getMemoryStats=memory)
    assert read_load(other).memory_used_bytes == 500 * 1024


def test_a_host_without_cpu_statistics_has_no_cpu_load_and_forgets_the_reading_before(
    other: Host, monkeypatch: pytest.MonkeyPatch
):
    answering(other, monkeypatch, getCPUStats={"user": 1, "kernel": 1, "idle": 1})
    read_load(other)
    answering(other, monkeypatch, getCPUStats={})
    assert read_load(other).cpu_percent is None
    answering(other, monkeypatch, getCPUStats={"user": 2, "kernel": 2, "idle": 2})
    assert read_load(other).cpu_percent is None


def test_another_hosts_disk_is_its_default_pool(open_world):
    host = open_world("<node><pool type='dir'><name>default</name><target><path>/x</path></target></pool></node>")
    found = read_load(host)
    assert (found.disk_used_bytes, found.disk_total_bytes) == (0, 100 * 1024**3)


@pytest.mark.parametrize("info", [[0, 0, 0, 0], [2, 10, 20, 2**64 - 10]])
def test_a_pool_that_is_stopped_or_promised_more_than_it_has_tells_no_disk(
    other: Host, monkeypatch: pytest.MonkeyPatch, info: list[int]
):
    class Pool:
        @staticmethod
        def info() -> list[int]:
            return info

    answering(other, monkeypatch, storagePoolLookupByName=Pool())
    assert read_load(other).disk_total_bytes is None


def test_a_lost_connection_is_an_error_and_not_a_missing_statistic(other: Host, monkeypatch: pytest.MonkeyPatch):
    connection = FailingConnection(other.connection(), "getFreeMemory", domain=libvirt.VIR_FROM_RPC)
    monkeypatch.setattr(other, "_connection", lambda _role: connection)
    with pytest.raises(ConnectionLost):
        read_load(other)


def test_a_failing_statistic_leaves_the_others(other: Host, monkeypatch: pytest.MonkeyPatch):
    connection = FailingConnection(other.connection(), "getFreeMemory")
    monkeypatch.setattr(other, "_connection", lambda _role: connection)
    assert read_load(other) == HostLoad()


def test_a_simulated_host_may_answer_by_itself(other: Host):
    replace_reader(other, lambda _host: HostLoad(cpu_percent=12.0))
    assert read_load(other).cpu_percent == 12.0


def test_a_local_hosts_memory_is_what_its_kernel_says_and_another_ones_is_not_guessed() -> None:
    total_kib = int(Path("/proc/meminfo").read_text().split()[1])
    memory = local_memory(open_host("qemu:///system"))
    assert memory is not None
    assert memory[1] == total_kib * 1024
    assert 0 < memory[0] < memory[1]
    assert local_memory(open_host("qemu+ssh://root@elsewhere/system")) is None
    assert local_memory(open_host("test:///default")) is None


def test_the_disk_is_asked_for_again_only_after_a_while(other: Host, monkeypatch: pytest.MonkeyPatch):
    asked: list[str] = []

    class Pool:
        @staticmethod
        def info() -> list[int]:
            asked.append("info")
            return [2, 100, 40 * len(asked), 100 - 40 * len(asked)]

    answering(other, monkeypatch, storagePoolLookupByName=Pool())
    assert [read_load(other).disk_used_bytes for _ in range(3)] == [40, 40, 40]
    monkeypatch.setattr(load, "DISK_AGAIN_S", 0.0)
    assert read_load(other).disk_used_bytes == 80
