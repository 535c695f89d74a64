"""When agents are asked for addresses, and that a watch goes on whatever they answer."""

from __future__ import annotations

from typing import Any

import pytest

from host.connection import Host, open_host
from host.errors import HvtuiError
from tests.support.waiting import wait_for
from vm import address_watch
from vm.address_watch import AddressWatch
from vm.model import Vm, VmConfig, VmState


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the VMs whose agent was asked; each tells 192.0.2.9."""
    names: list[str] = []

    def ask(_host: Host, vm: Vm) -> tuple[str, ...]:
        names.append(vm.name)
        return ("192.0.2.9",)

    monkeypatch.setattr(address_watch.addresses, "ask_agent", ask)
    return names


def real_host() -> Host:
    """A host that is not simulated; nothing is called on it."""
    return open_host("qemu+unix:///system?socket=/nowhere/sock")


def guest(uuid: str, *, agent: bool = True) -> Vm:
    return Vm(uuid, uuid, VmState.RUNNING, config=VmConfig(agent_connected=agent))


def test_agents_are_asked_only_for_vms_without_a_lease_and_not_again_for_a_minute(
    asked: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(address_watch.addresses, "leased", lambda _host, _vms: {"leased": ("192.0.2.1",), "other": ()})
    told: dict[str, tuple[str, ...]] = {}
    watch = AddressWatch(real_host(), tuple, told.update)
    vms = [guest("leased"), guest("other"), guest("silent", agent=False)]

    watch._ask(vms)
    assert asked == ["other"]
    assert told == {"leased": ("192.0.2.1",), "other": ("192.0.2.9",)}
    watch._ask(vms)
    assert asked == ["other"]
    watch.look("other")
    watch._ask(vms)
    assert asked == ["other", "other"], "something happened to it"


def test_agents_tell_where_leases_cannot_be_read(asked: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_host: Host, _vms: Any) -> Any:
        raise HvtuiError("no daemon for networks")

    monkeypatch.setattr(address_watch.addresses, "leased", refuse)
    told: dict[str, tuple[str, ...]] = {}
    watch = AddressWatch(real_host(), tuple, told.update)
    watch._ask([guest("one")])

    assert told == {"one": ("192.0.2.9",)}
    watch.stop()
    watch._ask([guest("two")])
    assert told.keys() == {"one"}, "a stopped watch tells nothing"
    watch._ask([])


def test_a_watch_survives_an_agent_that_cannot_be_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    tries: list[str] = []

    def refuse(_host: Host, vm: Vm) -> Any:
        tries.append(vm.name)
        raise HvtuiError("gone")

    monkeypatch.setattr(address_watch.addresses, "leased", lambda _host, _vms: {})
    monkeypatch.setattr(address_watch.addresses, "ask_agent", refuse)
    watch = AddressWatch(real_host(), lambda: (guest("one"),), lambda _told: None)
    watch.start()
    watch.look()
    wait_for(lambda: len(tries) == 1)
    watch.look("one")
    wait_for(lambda: len(tries) == 2)
    watch.stop()
