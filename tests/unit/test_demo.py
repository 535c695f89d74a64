"""The simulated host of --demo: varied VMs, moving rates, and nothing real behind them."""

from __future__ import annotations

import itertools
import tempfile
from pathlib import Path

import pytest

from host.connection import Host
from host.load import read_load
from host.statistics import rates
from vm import inventory
from vm.demo import _Waves, demo_host, is_demo, simulated_load, simulated_samples
from vm.demo_world import DEMO_VMS, HOST_MEMORY_BYTES
from vm.model import Vm, VmState


@pytest.fixture
def demo():
    opened = demo_host()
    yield opened
    opened.close()


def vms_of(host: Host) -> dict[str, Vm]:
    return {vm.name: vm for vm in inventory.read_configs(host, inventory.read(host))}


def test_about_thirty_vms_in_every_kind_of_state_are_there(demo: Host):
    vms = vms_of(demo)
    assert len(vms) == len(DEMO_VMS) == 30
    states = {vm.state for vm in vms.values()}
    assert states == {VmState.RUNNING, VmState.OFF, VmState.PAUSED, VmState.SAVED, VmState.CRASHED}


def test_one_vm_is_clearly_in_trouble(demo: Host):
    assert [name for name, vm in vms_of(demo).items() if vm.needs_attention] == ["mail"]


def test_names_tags_owners_and_checkpoints_are_read_as_from_a_real_host(demo: Host):
    vms = vms_of(demo)
    web, cache = vms["web-01"], vms["кеш-01"]
    assert web.config is not None and cache.config is not None
    assert (web.config.tags, web.config.owner, web.config.title) == (("web", "prod"), "alice", "Shop front end")
    assert (web.checkpoints, web.autostart, web.config.firmware) == (2, True, "uefi")
    assert (cache.config.owner, cache.config.os_id.rpartition("/")[2]) == ("олена", "3.20")
    assert "数据库-测试" in vms


def test_the_file_behind_it_is_removed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    host = demo_host()
    assert list(tmp_path.iterdir()) == []
    host.close()


def test_no_disk_of_it_is_a_path_of_this_machine(demo: Host):
    for vm in vms_of(demo).values():
        assert vm.config is not None
        for disk in vm.config.disks:
            assert disk.source.startswith("/demo/images/")
            assert not Path(disk.source).exists()


def test_it_is_called_demo(demo: Host, simulated: Host):
    assert demo.name == "demo"
    assert is_demo(demo)
    assert not is_demo(simulated)


def test_the_rates_of_a_running_vm_move(demo: Host):
    uuid = vms_of(demo)["build-01"].uuid
    with demo.calls("read samples") as connection:
        samples = [simulated_samples(connection, at_s=1000.0 + 2 * step)[uuid] for step in range(30)]
    percents = [rates(a, b).cpu_percent or 0.0 for a, b in itertools.pairwise(samples)]
    assert all(0 < percent <= 100 for percent in percents)
    assert max(percents) - min(percents) > 5


def test_the_same_instant_gives_the_same_counters_in_each_run(demo: Host):
    other = demo_host()
    with demo.calls("read samples") as one, other.calls("read samples") as two:
        first, second = simulated_samples(one, at_s=5.0), simulated_samples(two, at_s=5.0)
    assert {uuid: sample.cpu_time_ns for uuid, sample in first.items()} == {
        uuid: sample.cpu_time_ns for uuid, sample in second.items()
    }
    other.close()


def test_only_the_vms_asked_for_are_sampled(demo: Host):
    uuid = vms_of(demo)["web-01"].uuid
    with demo.calls("read samples") as connection:
        assert list(simulated_samples(connection, {uuid, "unknown"})) == [uuid]


def test_a_paused_vm_has_no_rates(demo: Host):
    uuid = vms_of(demo)["db-reports"].uuid
    with demo.calls("read samples") as connection:
        before, after = (simulated_samples(connection, at_s=at_s)[uuid] for at_s in (1.0, 3.0))
    assert after.memory_bytes == 16 * 1024**3
    assert rates(before, after).cpu_percent is None


def test_counters_never_go_down_and_the_load_stays_between_none_and_all():
    for vm in DEMO_VMS:
        waves = _Waves.of(vm.uuid)
        sums = [waves.integral(float(at_s)) for at_s in range(600)]
        assert sums == sorted(sums)
        assert all(0 <= waves.share(float(at_s)) <= 1 for at_s in range(600))


def test_the_load_agrees_with_its_own_integral():
    waves = _Waves.of(DEMO_VMS[0].uuid)
    assert waves.integral(100.01) - waves.integral(100.0) == pytest.approx(0.01 * waves.share(100.005), rel=0.01)


def test_a_vm_made_in_the_demo_gets_rates_as_well(demo: Host):
    with demo.calls("define a VM") as connection:
        made = connection.createXML(
            "<domain type='test'><name>made</name><memory>1024</memory><os><type>hvm</type></os></domain>", 0
        )
        assert simulated_samples(connection)[made.UUIDString()].cpu_time_ns


def test_the_hosts_load_is_that_of_its_vms(demo: Host):
    load = read_load(demo)
    assert load.cpu_percent is not None and load.memory_used_bytes is not None
    assert 5 < load.cpu_percent < 95
    assert load.memory_used_bytes < HOST_MEMORY_BYTES == load.memory_total_bytes
    assert load.disk_used_bytes is not None and load.disk_total_bytes is not None
    assert 0 < load.disk_used_bytes < load.disk_total_bytes


def test_the_hosts_load_moves(demo: Host):
    shares = [simulated_load(demo, at_s=at_s).cpu_percent or 0.0 for at_s in (0.0, 4.0, 8.0, 30.0)]
    assert len(set(shares)) == 4
