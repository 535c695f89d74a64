"""How many remote procedure calls the terminal interface makes in a refresh, with few VMs and with many."""

from __future__ import annotations

from pathlib import Path

from bench.command_line import HVTUI
from bench.row import Row
from bench.terminal import Terminal
from tests.support import simulated_world
from tests.support.private_libvirtd import PrivateLibvirtd
from tests.support.rpc_proxy import RpcProxy

FEW, MANY = 10, 500
SETTLE_S = 8.0
WATCH_S = 20.0
INTERVAL_S = 2.0


def rows(daemon: PrivateLibvirtd, directory: Path) -> list[Row]:
    few, many = (_calls_a_refresh(daemon, directory, count) for count in (FEW, MANY))
    return [
        Row(
            "libvirt calls a refresh",
            budget="a constant",
            measured=f"{many:.1f} with {MANY} VMs",
            compared=f"{few:.1f} with {FEW} VMs",
            ratio=many / few,
            kept=abs(many - few) < 1,
        )
    ]


def _calls_a_refresh(daemon: PrivateLibvirtd, directory: Path, count: int) -> float:
    world = directory / f"calls-{count}.xml"
    world.write_text(simulated_world.many(count), encoding="utf-8")
    with (
        RpcProxy(directory / f"{count}.sock", daemon.socket) as proxy,
        Terminal([HVTUI, "--connect", f"test+unix://{world}?socket={proxy.path}"]) as terminal,
    ):
        terminal.until(lambda text: "vm-0001" in text)
        terminal.read_for(SETTLE_S, draw=False)
        proxy.taken()
        terminal.read_for(WATCH_S, draw=False)
        return proxy.taken().total() / (WATCH_S / INTERVAL_S)
