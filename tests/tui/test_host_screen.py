"""The host screen: figures, promises, why guests are emulated, and a lost connection."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from host.connection import Host
from host.facts import NodeFacts
from hvtui.tui import host_text
from hvtui.tui.app import HvtuiApp
from hvtui.tui.screens.fleet import FleetScreen
from hvtui.tui.screens.host import HostScreen
from hvtui.tui.widgets.page import Row, hanging
from tests.support.simulated_world import HOSTILE_NAMES
from tests.tui import scenes
from tests.tui.conftest import until
from tests.tui.driving import SIZES, on_screen, picture, running

App = Callable[..., HvtuiApp]


def text(rows: list[Row], width: int = 80) -> str:
    return "\n".join(line.plain for line in hanging(rows, width))


@SIZES
async def test_a_simulated_host_is_described(app_on: App, simulated: Host, size: tuple[int, int]):
    app = app_on(simulated)
    async with running(app, size) as pilot:
        await until(pilot, lambda: app.snapshot is not None and app.snapshot.facts is not None)
        await pilot.press("H")
        await on_screen(pilot, HostScreen)
        shown = picture(pilot)
        for words in ("Now", "Promised to virtual machines", "Hypervisor", "virtual machines", "13: "):
            assert words in shown
        await pilot.press("end")
        await pilot.pause()
        assert "Hardware" in picture(pilot)
        assert "i686" in picture(pilot)
        await pilot.press("escape")
        await on_screen(pilot, FleetScreen)


@SIZES
async def test_meters_and_promises_stand_in_columns(size: tuple[int, int]):
    app = scenes.still_app()
    async with app.run_test(size=size) as pilot:
        await until(pilot, lambda: app.snapshot is not None)
        await pilot.press("H")
        await on_screen(pilot, HostScreen)
        lines = picture(pilot).splitlines()
        meters = [line for line in lines if "░" in line or "▓" in line]
        assert len(meters) == 7
        assert len({line.index("%") for line in meters}) == 1
        assert "60%  38.4G of 64.0G, 25.6G free" in "\n".join(lines)


def test_memory_promised_twice_is_a_warning_in_words():
    crowded = scenes.snapshot(tuple(scenes.running(f"vm-{n}", n, cpu=1, memory_gib=16) for n in range(1, 7)))
    assert host_text.allocation(crowded).running_memory_bytes == 96 * scenes.GIB
    shown = text(host_text.host_rows(crowded))
    assert "150%  96.0G of 64.0G  ! too much" in shown
    assert "12 vCPU of 32 CPUs" in shown
    assert shown.count("too much") == 2  # memory of those that run, and of all


def test_emulation_is_said_with_its_reason():
    facts = replace(scenes.FACTS, accelerator="qemu", accelerator_reason="a guest with KVM did not start")
    shown = text(host_text.host_rows(scenes.snapshot(facts=facts)))
    assert "none: guests are emulated, 10 to 50 times slower" in shown
    assert "a guest with KVM did not start" in shown


def test_facts_that_are_not_there_yet_and_a_lost_connection_are_said():
    shown = text(host_text.host_rows(scenes.snapshot((), facts=None)))
    assert "reading what this host is and can do" in shown
    assert "none yet" in shown
    lost = text(host_text.host_rows(scenes.lost(scenes.snapshot())), width=200)
    assert "keepalive timed out; hvtui tries again by itself" in lost


def test_numa_nodes_are_listed_where_there_are_several():
    from host.facts import NumaCell

    cells = tuple(NumaCell(id=n, memory_bytes=32 * scenes.GIB, cpus=tuple(range(16))) for n in range(2))
    shown = text(host_text.host_rows(scenes.snapshot(facts=replace(scenes.FACTS, numa=cells))))
    assert "NUMA node 1       16 CPUs, 32.0G" in shown


def test_hostile_facts_are_harmless():
    for name in HOSTILE_NAMES:
        changes = dict.fromkeys(("cpu_model", "emulator", "accelerator_reason", "hypervisor_version"), name)
        facts: NodeFacts = replace(scenes.FACTS, **changes)  # type: ignore[arg-type]
        lines = hanging(host_text.host_rows(scenes.snapshot(facts=facts)), 80)
        assert all(line.cell_length <= 80 and line.plain.isprintable() for line in lines)
