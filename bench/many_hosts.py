"""The list of all VMs of many hosts."""

from __future__ import annotations

import statistics
import time
from pathlib import Path

from bench.row import Row, limit
from host.connection import Host, open_host
from tests.support import simulated_world
from tests.support.private_libvirtd import PrivateLibvirtd
from vm import inventory
from vm.fleet import read_all
from vm.model import Vm

HOSTS, VMS = 64, 125
RUNS = 5


def rows(daemon: PrivateLibvirtd, directory: Path) -> list[Row]:
    worlds = []
    for number in range(HOSTS):
        worlds.append(directory / f"many-hosts-{number}.xml")
        worlds[-1].write_text(simulated_world.many(VMS), encoding="utf-8")
    beyond, whole = zip(*(_list(daemon, worlds) for _ in range(RUNS)), strict=True)
    what = f"list {HOSTS} hosts × {VMS} VMs, after the last has answered"
    compared = f"{statistics.median(whole):.2f} s in all, connections too"
    return [limit(what, budget=1.0, value=statistics.median(beyond), unit="s", compared=compared)]


def _read(host: Host, answered_s: list[float]) -> tuple[Vm, ...]:
    vms = inventory.read(host)
    answered_s.append(time.monotonic())
    return vms


def _list(daemon: PrivateLibvirtd, worlds: list[Path]) -> tuple[float, float]:
    """Seconds from the last host's answer to the whole list, and from the beginning."""
    hosts: list[Host] = [open_host(daemon.test_uri(world), name=world.stem) for world in worlds]
    began_s = time.monotonic()
    answered_s: list[float] = []
    readings = read_all(hosts, 60.0, read=lambda host: _read(host, answered_s))
    vms = sorted((vm for each in readings for vm in each.vms), key=lambda vm: (vm.name, vm.host))
    ended_s = time.monotonic()
    if len(vms) != HOSTS * VMS:
        raise RuntimeError(f"{len(vms)} VMs: {next((each.error for each in readings if each.error), None)}")
    for host in hosts:
        host.close()
    return ended_s - max(answered_s), ended_s - began_s
