"""The terminal interface in a real terminal: its start, its memory, its rest, and its keys."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from pathlib import Path

from bench import peer
from bench.command_line import HVTUI
from bench.measure import cpu_s, memory_mib
from bench.row import Row, against, limit
from bench.terminal import Terminal
from tests.support import simulated_world
from tests.support.private_libvirtd import PrivateLibvirtd

RUNS = 5
IDLE_S = 20.0
SETTLE_S = 6.0
KEYS = 100


def rows(daemon: PrivateLibvirtd, directory: Path, rival: peer.Peer) -> list[Row]:
    many, huge = directory / "many.xml", directory / "huge.xml"
    many.write_text(simulated_world.many(500), encoding="utf-8")
    huge.write_text(simulated_world.many(10_000), encoding="utf-8")
    uri = daemon.test_uri(many)
    other = peer.home_for(uri, directory / "home")
    return [
        *_first_list(uri, rival, other),
        *_at_rest(uri, rival, other),
        _keys(f"test://{huge}"),
    ]


def _own(uri: str) -> list[str]:
    return [HVTUI, "--connect", uri]


def _first_list(uri: str, rival: peer.Peer, other: Mapping[str, str]) -> list[Row]:
    own_s, other_s = [], []
    for _ in range(RUNS):
        with Terminal(_own(uri)) as terminal:
            own_s.append(terminal.until(_shows_vms))
        if not rival.why_not:
            with Terminal([str(rival.command)], other) as terminal:
                other_s.append(terminal.until(_shows_vms))
    own = statistics.median(own_s)
    what = "first usable list of 500 VMs"
    first = limit(what, budget=1.0, value=own, unit="s")
    if rival.why_not:
        return [first, Row(what, "≤ 0.4× virtui-manager", f"{own:.2f} s", note=rival.why_not)]
    return [
        first,
        against(what, budget=0.4, own_s=own, other_s=statistics.median(other_s), other="virtui-manager"),
    ]


def _shows_vms(text: str) -> bool:
    return text.count("vm-00") >= 4


def _at_rest(uri: str, rival: peer.Peer, other: Mapping[str, str]) -> list[Row]:
    memory, percent, bytes_s = _rest_of(_own(uri), {})
    words, ratio = ("", "", ""), [None, None, None]
    if not rival.why_not:
        theirs = _rest_of([str(rival.command)], other)
        words = (f"virtui-manager {theirs[0]:.0f} MiB", f"virtui-manager {theirs[1]:.2f} %", f"{theirs[2]:.0f} bytes/s")
        ratio = [own / their for own, their in zip((memory, percent, bytes_s), theirs, strict=True)]
    return [
        limit("memory with 500 VMs", budget=80, value=memory, unit="MiB", compared=words[0], ratio=ratio[0]),
        limit("CPU at rest, 500 VMs", budget=0.5, value=percent, unit="% of a core", compared=words[1], ratio=ratio[1]),
        limit("output at rest, 500 VMs", budget=50, value=bytes_s, unit="bytes/s", compared=words[2], ratio=ratio[2]),
    ]


def _rest_of(command: list[str], environment: Mapping[str, str]) -> tuple[float, float, float]:
    """Memory in MiB, CPU in percent of a core, and bytes a second, once it has settled."""
    with Terminal(command, environment) as terminal:
        terminal.until(_shows_vms)
        terminal.read_for(SETTLE_S)
        before = cpu_s(terminal.pid)
        written = terminal.read_for(IDLE_S, draw=False)
        used_s = cpu_s(terminal.pid) - before
        return memory_mib(terminal.pid), used_s / IDLE_S * 100, written / IDLE_S


def _keys(uri: str) -> Row:
    """CPU a key, less what the program uses in the same time without keys."""
    with Terminal(_own(uri)) as terminal:
        terminal.until(_shows_vms, 120)
        terminal.read_for(SETTLE_S * 2)
        before = cpu_s(terminal.pid)
        terminal.read_for(IDLE_S, draw=False)
        rest = (cpu_s(terminal.pid) - before) / IDLE_S
        before, began = cpu_s(terminal.pid), terminal.bytes_read
        for _ in range(KEYS):
            terminal.type("j")
            terminal.read(0.2, draw=False)
            terminal.read_for(0.03, draw=False)
        used = cpu_s(terminal.pid) - before - rest * KEYS * 0.04
        if terminal.bytes_read - began < KEYS:
            raise RuntimeError("the keys changed nothing on the screen")
    return limit("key to paint, 10,000 VMs", budget=16, value=used / KEYS * 1000, unit="ms of CPU")
