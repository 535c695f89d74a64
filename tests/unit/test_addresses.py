"""Where a guest can be reached: leases and agents together, whatever one of them fails to tell."""

from __future__ import annotations

import threading
from collections.abc import Iterable

import pytest

from host.connection import Host
from host.errors import ConnectionLost, Denied
from vm import addresses, inventory
from vm.addresses import with_addresses
from vm.model import Vm, VmConfig, VmState


def guest(name: str, *, connected: bool | None = True, state: VmState = VmState.RUNNING) -> Vm:
    return Vm(name, name, state, config=VmConfig(agent_connected=connected))


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> dict[str, tuple[str, ...]]:
    """What agents answer, by VM; its keys are who was asked."""
    answers: dict[str, tuple[str, ...]] = {}

    def ask(_host: Host, vm: Vm) -> tuple[str, ...]:
        return answers.setdefault(vm.name, ("192.0.2.9",))

    monkeypatch.setattr(addresses, "ask_agent", ask)
    return answers


def _leases(monkeypatch: pytest.MonkeyPatch, found: dict[str, tuple[str, ...]]) -> None:
    def leased(_host: Host, _vms: Iterable[Vm]) -> dict[str, tuple[str, ...]]:
        return found

    monkeypatch.setattr(addresses, "leased", leased)


def test_leases_and_agents_are_told_together_once_each_ipv4_first(simulated: Host, monkeypatch, told):
    _leases(monkeypatch, {"web": ("192.0.2.20",)})
    told["web"] = ("2001:db8::7", "192.0.2.20", "192.0.2.3")
    (vm,) = with_addresses(simulated, [guest("web")], ask_agents=True)
    assert vm.addresses == ("192.0.2.3", "192.0.2.20", "2001:db8::7")


def test_only_running_vms_with_a_connected_agent_are_asked(simulated: Host, monkeypatch, told):
    _leases(monkeypatch, {})
    vms = [guest("a"), guest("b", connected=False), guest("c", connected=None), guest("d", state=VmState.OFF)]
    found = with_addresses(simulated, vms, ask_agents=True)
    assert told.keys() == {"a"}
    assert [vm.addresses for vm in found] == [("192.0.2.9",), (), (), ()]


def test_no_agent_is_asked_unless_wanted(simulated: Host, monkeypatch, told):
    _leases(monkeypatch, {"a": ("192.0.2.1",)})
    assert with_addresses(simulated, [guest("a")])[0].addresses == ("192.0.2.1",)
    assert told == {}


def test_agents_are_asked_side_by_side(simulated: Host, monkeypatch):
    _leases(monkeypatch, {})
    both = threading.Barrier(2, timeout=20)  # each answers only once the other was asked

    def ask(_host: Host, _vm: Vm) -> tuple[str, ...]:
        both.wait()
        return ()

    monkeypatch.setattr(addresses, "ask_agent", ask)
    assert len(with_addresses(simulated, [guest("a"), guest("b")], ask_agents=True)) == 2


def test_networks_that_this_user_may_not_see_leave_the_agents(simulated: Host, monkeypatch, told):
    def refuse(_host: Host, _vms: Iterable[Vm]) -> dict[str, tuple[str, ...]]:
        raise Denied("no")

    monkeypatch.setattr(addresses, "leased", refuse)
    assert with_addresses(simulated, [guest("a")], ask_agents=True)[0].addresses == ("192.0.2.9",)


def test_a_lost_connection_is_told(simulated: Host, monkeypatch):
    def lose(_host: Host, _vms: Iterable[Vm]) -> dict[str, tuple[str, ...]]:
        raise ConnectionLost("gone")

    monkeypatch.setattr(addresses, "leased", lose)
    with pytest.raises(ConnectionLost):
        with_addresses(simulated, [guest("a")])


def test_a_simulated_host_tells_the_addresses_of_what_runs(simulated: Host):
    vms = with_addresses(simulated, inventory.read_configs(simulated, inventory.read(simulated)))
    by_name = {vm.name: vm.addresses for vm in vms}
    assert by_name["web-01"]
    assert all(vm.is_active for vm in vms if vm.addresses)
