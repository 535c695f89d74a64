"""What happens to a move in a soak: each fault is a function that does it and, where that is part of it, ends it."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

import libvirt

from host import jobs
from host.errors import HvtuiError
from host.journal import Journal
from tests.support import guest as inside
from tests.support.lab_host import LabHost
from tests.support.soak_world import SoakGuest, World
from vm.move_progress import QUICK


@dataclass(slots=True)
class Act:
    """A move under way. `hold_s` is how long a fault that ends lasts; `dead` are the hosts that lost their power,
    `is_ended` that the guest was told to go off."""

    world: World
    guest: SoakGuest
    here: LabHost
    there: LabHost
    job_id: int
    hold_s: float
    runner: subprocess.Popen[bytes] | None = None
    dead: list[LabHost] = field(default_factory=list)
    is_ended: bool = False

    @property
    def journal(self) -> Journal:
        return self.world.journal


def _cancel(act: Act) -> None:
    with suppress(HvtuiError):
        jobs.cancel(act.job_id, act.journal)


def _wish_quick(act: Act) -> None:
    with suppress(HvtuiError):
        jobs.wish(act.job_id, act.journal, **{QUICK: "yes"})


def _kill_runner(act: Act) -> None:
    assert act.runner is not None
    with suppress(ProcessLookupError):
        os.kill(act.runner.pid, signal.SIGKILL)


def _freeze(host: LabHost, hold_s: float) -> None:
    host.freeze_libvirtd()
    time.sleep(hold_s)
    host.thaw_libvirtd()


def _cut(host: LabHost, hold_s: float) -> None:
    host.cut_network()
    time.sleep(hold_s)
    host.heal_network()


def _down(host: LabHost, hold_s: float) -> None:
    host.kill_libvirtd(stays_dead=True)
    time.sleep(hold_s)
    host.start_libvirtd()


def _power(act: Act, host: LabHost) -> None:
    act.dead.append(host)
    host.kill_host()
    time.sleep(act.hold_s)
    host.start()


def _power_off_guest(act: Act) -> None:
    """From the inside, wherever it is just now."""
    act.is_ended = True
    for host in (act.here, act.there):
        with suppress(libvirt.libvirtError), act.world.domain(act.guest, host) as domain:
            inside.agent(domain, "guest-exec", timeout_s=2, path="/bin/busybox", arg=["poweroff", "-f"])
            return


NOTHING = "nothing"
KILLED = "hvtui is killed"
FULL = "the target's disk is full"
EXTRA = "quick instead"
FAULTS: dict[str, Callable[[Act], None]] = {
    NOTHING: lambda _act: None,
    "cancel": _cancel,
    EXTRA: _wish_quick,
    KILLED: _kill_runner,
    FULL: lambda _act: None,  # it is so from the beginning
    "the source's libvirtd is restarted": lambda act: act.here.restart_libvirtd(),
    "the source's libvirtd is killed": lambda act: act.here.kill_libvirtd(),
    "the target's libvirtd is killed": lambda act: act.there.kill_libvirtd(),
    "the target's libvirtd is dead for a while": lambda act: _down(act.there, act.hold_s),
    "the target's libvirtd is frozen": lambda act: _freeze(act.there, act.hold_s),
    "the source's libvirtd is frozen": lambda act: _freeze(act.here, act.hold_s),
    "the target's cable is cut": lambda act: _cut(act.there, act.hold_s),
    "the source's cable is cut": lambda act: _cut(act.here, act.hold_s),
    "the target loses its power": lambda act: _power(act, act.there),
    "the source loses its power": lambda act: _power(act, act.here),
    "the guest powers off": _power_off_guest,
}
