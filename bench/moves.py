"""Moves between two lab hosts: live against `virsh migrate`, quick against save and restore, a drain against a loop.

The guests are tiny, and their memory is a few dozen MiB: hvtui's looks at both hosts before and after would be most of
the time. What is compared for live moves is therefore libvirt's own total and downtime, and the whole command once, of
a move that takes half a minute (a limited bandwidth, the same for both).
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import libvirt

from bench.command_line import HVTUI
from bench.measure import run_s
from bench.row import Row, against
from host.journal import Journal
from tests.support import lab as labs
from tests.support.lab import Lab
from tests.support.lab_guest import counted
from tests.support.lab_host import LabHost
from tests.support.lab_saved import RunningGuest, SavedGuests
from tests.support.waiting import wait_for

RUNS = 5
DRAINED = 8
SLOW_MIB_S = 2
_COMPLETED = libvirt.VIR_DOMAIN_JOB_STATS_COMPLETED | libvirt.VIR_DOMAIN_JOB_STATS_KEEP_COMPLETED


def rows(directory: Path) -> list[Row]:
    os.environ["HVTUI_ACCEL"] = "qemu"
    with labs.up(f"bench-{os.getpid()}", hosts=2, owner=os.getpid()) as lab:
        bench = _Moves(lab, directory)
        return [*bench.live(), bench.whole_command(), bench.quick(), bench.drain()]


class _Moves:
    def __init__(self, lab: Lab, directory: Path) -> None:
        self._lab = lab
        self._guests = SavedGuests(lab)
        config = directory / "moves.toml"
        lines = ['accelerator = "qemu"', "[moves]", f"per_host = {DRAINED}", f"per_link = {DRAINED}"]
        for host in lab.hosts:
            lines += ["[[host]]", f'name = "{host.name}"', f'uri = "{host.uri}"', f'peer_uri = "{host.peer_uri}"']
        config.write_text("\n".join(lines) + "\n", encoding="utf-8")
        self._environment = {
            "HVTUI_STATE_DIR": str(directory / "moves-state"),
            "HVTUI_CONFIG": str(config),
            "HVTUI_ACCEL": "qemu",
        }

    def live(self) -> list[Row]:
        """Total and downtime of a live move, as libvirt counts them at the target."""
        guest = self._guests.start(self._lab["lab1"], "live")
        contestants: tuple[Callable[[LabHost, LabHost], object], ...] = (
            lambda here, there: self._hvtui("live", here, there, "--kind", "live"),
            lambda here, there: self._virsh("live", here, there),
        )
        figures: list[list[tuple[float, float]]] = [[], []]
        for _ in range(RUNS):
            for number, move in enumerate(contestants):
                here, there = self._ends(guest)
                move(here, there)
                figures[number].append(_completed(there, "live"))
        self._remove(guest)
        medians = [[statistics.median(values) for values in zip(*each, strict=True)] for each in figures]
        return [
            against(what, budget=1.05, own_s=medians[0][part], other_s=medians[1][part], other="`virsh migrate`")
            for part, what in enumerate(("live migration, libvirt's total", "live migration, downtime"))
        ]

    def whole_command(self) -> Row:
        """The whole command, of a move that takes a while."""
        guest = self._guests.start(self._lab["lab1"], "slow")
        own_s = self._hvtui("slow", *self._ends(guest), "--kind", "live", "--bandwidth", f"{SLOW_MIB_S}M")
        other_s = self._virsh("slow", *self._ends(guest), "--bandwidth", str(SLOW_MIB_S))
        self._remove(guest)
        what = f"live migration at {SLOW_MIB_S} MiB/s, the whole command"
        return against(what, budget=1.05, own_s=own_s, other_s=other_s, other="`virsh migrate`")

    def quick(self) -> Row:
        """How long the guest stands still: what the job says, against save and restore by virsh."""
        guest = self._guests.start(self._lab["lab1"], "quick")
        own, other = [], []
        for _ in range(RUNS):
            here, there = self._ends(guest)
            self._hvtui("quick", here, there, "--kind", "quick")
            own.append(self._stood_still_s())
            other.append(self._saved_and_restored_s(guest, *self._ends(guest)))
        self._remove(guest)
        median = statistics.median
        what = "quick migration, the guest's standstill"
        return against(what, budget=1.05, own_s=median(own), other_s=median(other), other="`virsh save`, `restore`")

    def drain(self) -> Row:
        """A host drained of its guests, against a loop of virsh."""
        guests = [self._guests.start(self._lab["lab1"], f"drained-{number}") for number in range(DRAINED)]
        started_s = time.monotonic()
        self._run("host", "drain", "lab1", "--yes")
        own_s = time.monotonic() - started_s
        started_s = time.monotonic()
        for guest in guests:
            self._virsh(guest.name, self._lab["lab2"], self._lab["lab1"])
        other_s = time.monotonic() - started_s
        what = f"drain of {DRAINED} guests"
        return against(what, budget=0.6, own_s=own_s, other_s=other_s, other=f"{DRAINED} × `virsh migrate`")

    def _ends(self, guest: RunningGuest) -> tuple[LabHost, LabHost]:
        """Where the guest is, and where it is not."""
        first, second = self._lab["lab1"], self._lab["lab2"]
        return (first, second) if _has(first, guest.name) else (second, first)

    def _hvtui(self, name: str, here: LabHost, there: LabHost, *options: str) -> float:
        return self._run("vm", "migrate", name, "--host", here.name, "--to", there.name, *options, "--yes")

    def _run(self, *words: str) -> float:
        return run_s([HVTUI, "--headless", *words], self._environment)

    def _virsh(self, name: str, here: LabHost, there: LabHost, *options: str) -> float:
        """--unsafe: libvirt 9.0 does not take a directory that is mounted on both for shared."""
        flags = ("--live", "--p2p", "--persistent", "--undefinesource", "--unsafe")
        return run_s(["virsh", "-q", "-c", here.uri, "migrate", *flags, *options, name, there.peer_uri])

    def _stood_still_s(self) -> float:
        """What the newest job says of its guest."""
        with Journal(Path(self._environment["HVTUI_STATE_DIR"]) / "journal.db") as journal:
            results = [dict(step.result or {}) for step in journal.newest(1)[0].steps]
        return next(float(str(result["downtime_s"])) for result in results if result.get("downtime_s"))

    def _saved_and_restored_s(self, guest: RunningGuest, here: LabHost, there: LabHost) -> float:
        definition = guest.on(here).XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE)
        there.connect().defineXML(definition)
        path = f"/srv/shared/saved/{guest.name}.bench"
        started_s = time.monotonic()
        run_s(["virsh", "-q", "-c", here.uri, "save", guest.name, path])
        run_s(["virsh", "-q", "-c", there.uri, "restore", path])
        stood_still_s = time.monotonic() - started_s
        here.connect().lookupByName(guest.name).undefine()
        here.run(["rm", "--", path])
        return stood_still_s

    def _remove(self, guest: RunningGuest) -> None:
        here, _there = self._ends(guest)
        domain = guest.on(here)
        counted(domain)  # it lives
        domain.destroy()
        domain.undefine()


def _has(host: LabHost, name: str) -> bool:
    return name in {domain.name() for domain in host.connect().listAllDomains(0)}


def _completed(host: LabHost, name: str) -> tuple[float, float]:
    """Seconds in all, and without a running guest."""
    domain = host.connect().lookupByName(name)
    wait_for(lambda: domain.jobStats(_COMPLETED).get("time_elapsed"), what="the figures of a migration that ended")
    told = domain.jobStats(_COMPLETED)
    return told["time_elapsed"] / 1000, told["downtime"] / 1000
