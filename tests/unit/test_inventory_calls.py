"""How many remote procedure calls a reading costs, counted on the socket of a real libvirtd."""

from __future__ import annotations

import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from host.connection import Host, open_host
from tests.support import simulated_world
from tests.support.private_libvirtd import PrivateLibvirtd
from tests.support.rpc_proxy import RpcProxy
from tests.support.waiting import wait_for
from vm import inventory
from vm.feed import Feed
from vm.model import Snapshot

ALL_STATISTICS = 344  # REMOTE_PROC_CONNECT_GET_ALL_DOMAIN_STATS
XML_DESC = 14  # REMOTE_PROC_DOMAIN_GET_XML_DESC
MOST_CALLS_OF_A_TICK = 8  # the statistics, and the host's load
CALLS_OF_A_READING = 5  # the statistics, and one filtered list for each of four flags


@pytest.fixture(scope="module")
def daemon() -> Iterator[PrivateLibvirtd]:
    with PrivateLibvirtd() as running:
        yield running


@pytest.fixture
def proxy(daemon: PrivateLibvirtd) -> Iterator[RpcProxy]:
    with tempfile.TemporaryDirectory(dir="/tmp") as short, RpcProxy(Path(short) / "sock", daemon.socket) as running:
        yield running


@pytest.fixture(params=[10, 500])
def counted(request: pytest.FixtureRequest, proxy: RpcProxy, daemon: PrivateLibvirtd) -> Iterator[Host]:
    world = daemon.directory / f"world-{request.param}.xml"
    world.write_text(simulated_world.many(request.param))
    host = open_host(f"test+unix://{world}?socket={proxy.path}", name="counted")
    host.connection()
    proxy.taken()
    yield host
    host.close()


def test_a_reading_makes_the_same_few_calls_whatever_the_number_of_vms(counted: Host, proxy: RpcProxy) -> None:
    vms = inventory.read(counted)

    assert len(vms) in {10, 500}
    assert proxy.taken().total() == CALLS_OF_A_READING


def test_the_quick_list_makes_two_calls(counted: Host, proxy: RpcProxy) -> None:
    inventory.read_states(counted)

    assert proxy.taken().total() == 2


def test_known_vms_are_read_again_in_a_constant_number_of_calls(counted: Host, proxy: RpcProxy) -> None:
    vms, handles = inventory.read_all(counted)
    proxy.taken()

    again = inventory.read_some(counted, [vm.uuid for vm in vms], handles=handles)

    assert again == vms
    assert proxy.taken().total() == CALLS_OF_A_READING


def test_many_unknown_vms_cost_one_call_more_and_not_one_each(counted: Host, proxy: RpcProxy) -> None:
    vms = inventory.read(counted)
    proxy.taken()

    assert inventory.read_some(counted, [vm.uuid for vm in vms]) == vms
    assert proxy.taken().total() == CALLS_OF_A_READING + 1


def test_a_name_is_found_without_reading_every_vm(counted: Host, proxy: RpcProxy) -> None:
    inventory.find(counted, "vm-0003")

    assert proxy.taken().total() == CALLS_OF_A_READING + 1


def test_an_event_makes_the_feed_read_one_vm_in_the_same_few_calls(counted: Host, proxy: RpcProxy) -> None:
    with _feeding(counted, proxy) as (_, shown):
        proxy.taken()
        calls_of_the_test = 2  # lookupByName and destroy
        counted.connection().lookupByName("vm-0000").destroy()
        wait_for(lambda: not shown[-1].vms[0].is_active)

        calls_of_its_config = 1
        assert _settled(proxy).total() == calls_of_the_test + CALLS_OF_A_READING + calls_of_its_config


def test_rates_cost_one_call_for_all_vms_and_nothing_more_until_the_next_tick(counted: Host, proxy: RpcProxy) -> None:
    with _feeding(counted, proxy) as (feed, _):
        proxy.taken()
        feed.set_polling(True)
        calls = _settled(proxy)

        assert calls[ALL_STATISTICS] == 1, "the next tick is an hour away"
        assert calls[XML_DESC] == 0
        assert calls.total() <= MOST_CALLS_OF_A_TICK


@contextmanager
def _feeding(host: Host, proxy: RpcProxy) -> Iterator[tuple[Feed, list[Snapshot]]]:
    """A feed that does not poll, once it knows everything, and what it publishes."""
    shown: list[Snapshot] = []
    feed = Feed(host, shown.append, interval_s=3600.0)
    feed.set_polling(False)
    feed.start()
    wait_for(lambda: bool(shown) and all(vm.config for vm in shown[-1].vms) and shown[-1].facts is not None)
    feed.set_polling(True)  # the addresses of a simulated host are asked for once
    wait_for(lambda: any(vm.addresses for vm in shown[-1].vms))
    feed.set_polling(False)
    _settled(proxy)
    yield feed, shown
    feed.stop()


def _settled(proxy: RpcProxy) -> Counter[int]:
    """The calls made until none came for a while."""
    calls: Counter[int] = Counter()
    while new := (time.sleep(0.6), proxy.taken())[1]:
        calls += new
    return calls
