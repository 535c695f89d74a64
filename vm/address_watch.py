"""Asks for the addresses of a host's running VMs now and then, on a thread of its own.

An agent may take seconds to answer, and the feed's thread must not wait for it. Leases are read for all VMs in one call
a network; an agent is asked only for a VM without a lease, and at most once a minute or when something happened to it.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

from host.connection import Host
from host.errors import HvtuiError
from vm import addresses
from vm.model import Vm

_log = logging.getLogger(__name__)

LOOK_S = 10.0
AGENT_AGAIN_S = 60.0

Told: TypeAlias = Mapping[str, tuple[str, ...]]  # uuid -> addresses


class AddressWatch:
    """`vms()` gives the VMs to look at (none while nobody looks); `on_told` takes what was found, on this thread."""

    def __init__(self, host: Host, vms: Callable[[], Sequence[Vm]], on_told: Callable[[Told], None]) -> None:
        self._host = host
        self._vms = vms
        self._on_told = on_told
        self._stopped = False
        self._look = threading.Event()
        self._asked_s: dict[str, float] = {}  # when each VM's agent was asked
        self._thread = threading.Thread(target=self._run, name=f"addresses-{host.name}", daemon=True)

    def start(self) -> None:
        """Look for the first time soon."""
        self._thread.start()

    def stop(self) -> None:
        """End it; an agent that is being asked is not waited for, and what it says is not told any more."""
        self._stopped = True
        self._look.set()

    def look(self, uuid: str | None = None) -> None:
        """Look now; for `uuid` something happened that may have changed its addresses."""
        if uuid is not None:
            self._asked_s.pop(uuid, None)
        self._look.set()

    def _run(self) -> None:
        while not self._stopped:
            self._look.wait(LOOK_S)
            self._look.clear()
            try:
                self._ask([vm for vm in self._vms() if vm.is_active and vm.config is not None])
            except HvtuiError as error:
                _log.info("%s: cannot ask agents for addresses: %s", self._host.name, error)

    def _ask(self, running: Sequence[Vm]) -> None:
        if self._host.is_simulated:  # it has no leases by network: once for each VM is enough
            running = [vm for vm in running if self._is_due(vm)]
        if not running:
            return
        leased = self._leased(running)
        self._tell({uuid: found for uuid, found in leased.items() if found})
        for vm in running:
            if self._stopped:
                return
            if not leased.get(vm.uuid) and vm.config is not None and vm.config.agent_connected and self._is_due(vm):
                self._tell({vm.uuid: addresses.ask_agent(self._host, vm)})

    def _leased(self, running: Sequence[Vm]) -> Told:
        """No lease at all where the daemon for networks does not run: the agents may still tell."""
        try:
            return addresses.leased(self._host, running)
        except HvtuiError as error:
            _log.info("%s: cannot read leases: %s", self._host.name, error)
            return {}

    def _tell(self, told: Told) -> None:
        if told and not self._stopped:
            self._on_told(told)

    def _is_due(self, vm: Vm) -> bool:
        now_s = time.monotonic()
        asked_s = self._asked_s.get(vm.uuid)
        if asked_s is not None and (self._host.is_simulated or now_s < asked_s + AGENT_AGAIN_S):
            return False
        self._asked_s[vm.uuid] = now_s
        return True
