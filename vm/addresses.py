"""Where a guest can be reached: its IP addresses, from DHCP leases and from the guest agent. Reads only.

Leases come in one call a network, however many VMs there are. The agent has no bulk call and may not answer: asking it
blocks for its time limit, so `ask_agent` is for a thread that may wait. What the agent says is guest-made text.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import libvirt

from host.connection import Host
from host.errors import ConnectionLost, HvtuiError, Unsupported
from vm.model import Vm

AGENT_TIMEOUT_S = 3
AGENTS_AT_ONCE = 4  # a libvirtd serves five requests of a client at once


def leased(host: Host, vms: Iterable[Vm]) -> dict[str, tuple[str, ...]]:
    """The leased addresses of running VMs, by uuid, for VMs whose `config` is known (it has their MAC addresses). On a
    simulated host, which has no leases by network, one call a VM. Raises ConnectionLost."""
    running = [vm for vm in vms if vm.is_active and vm.config is not None]
    try:
        by_mac = _leases_by_mac(host)
    except Unsupported:
        return {vm.uuid: _simulated(host, vm) for vm in running}
    return {vm.uuid: _sorted(text for nic in _nics(vm) for text in by_mac.get(nic.mac, ())) for vm in running}


def with_addresses(host: Host, vms: Sequence[Vm], *, ask_agents: bool = False) -> tuple[Vm, ...]:
    """The VMs, whose `config` is known, with the addresses that their leases tell, and (with `ask_agents`) those that
    the connected agents tell as well, a few asked at a time. No lease at all is no error. Raises ConnectionLost."""
    try:
        known = leased(host, vms)
    except ConnectionLost:
        raise
    except HvtuiError:
        known = {}  # this user may not look, or no network is managed by libvirt
    told = _ask_all(host, vms) if ask_agents else {}
    return tuple(
        replace(vm, addresses=_sorted((*known.get(vm.uuid, ()), *told.get(vm.uuid, ())))) if vm.is_active else vm
        for vm in vms
    )


def _ask_all(host: Host, vms: Iterable[Vm]) -> dict[str, tuple[str, ...]]:
    asked = [vm for vm in vms if vm.is_active and vm.config is not None and vm.config.agent_connected]
    if not asked:
        return {}
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(AGENTS_AT_ONCE) as pool:
        return dict(zip((vm.uuid for vm in asked), pool.map(partial(ask_agent, host), asked), strict=True))


def ask_agent(host: Host, vm: Vm) -> tuple[str, ...]:
    """The addresses that the guest's own agent tells, without loopback and link-local ones; () when it does not
    answer within AGENT_TIMEOUT_S seconds. Raises ConnectionLost."""
    if vm.config is None or not vm.config.agent_connected:
        return ()
    with host.calls("ask the agent of", vm.name) as connection:
        try:
            domain = connection.lookupByUUIDString(vm.uuid)
            domain.agentSetResponseTimeout(AGENT_TIMEOUT_S)
            told = domain.interfaceAddresses(libvirt.VIR_DOMAIN_INTERFACE_ADDRESSES_SRC_AGENT)
        except libvirt.libvirtError as error:
            if error.get_error_domain() == libvirt.VIR_FROM_RPC:
                raise
            return ()  # no agent any more, or it does not know the question
    return _from_interfaces(told)


def _leases_by_mac(host: Host) -> dict[str, list[str]]:
    by_mac: dict[str, list[str]] = {}
    with host.calls("read the leases of", host.name) as connection:
        for network in _active_networks(connection):
            for lease in network.DHCPLeases():
                by_mac.setdefault(str(lease["mac"]).lower(), []).append(str(lease["ipaddr"]))
    return by_mac


def _active_networks(connection: Any) -> list[Any]:
    networks: list[Any] = connection.listAllNetworks(libvirt.VIR_CONNECT_LIST_NETWORKS_ACTIVE)
    return networks


def _simulated(host: Host, vm: Vm) -> tuple[str, ...]:
    try:
        with host.calls("read the addresses of", vm.name) as connection:
            told = connection.lookupByUUIDString(vm.uuid).interfaceAddresses(0)
    except HvtuiError:
        return ()  # it stopped, or its network has no addresses
    return _from_interfaces(told)


def _nics(vm: Vm) -> tuple[Any, ...]:
    return vm.config.nics if vm.config is not None else ()


def _from_interfaces(told: Mapping[str, Any]) -> tuple[str, ...]:
    found = (entry.get("addr", "") for interface in told.values() for entry in interface.get("addrs") or ())
    return _sorted(str(address) for address in found)


def _sorted(texts: Iterable[str]) -> tuple[str, ...]:
    """Valid, useful addresses, IPv4 first; anything else that a guest claims is left out."""
    addresses = set()
    for text in texts:
        try:
            address = ipaddress.ip_address(text)
        except ValueError:
            continue
        if not address.is_loopback and not address.is_link_local:
            addresses.add(address)
    return tuple(str(address) for address in sorted(addresses, key=lambda address: (address.version, int(address))))
