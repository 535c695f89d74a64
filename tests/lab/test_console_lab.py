"""The console on two lab hosts: a guest moves live by keys, and a frozen host is grey and nothing else."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from host.connection import open_host
from host.host_list import HostEntry
from host.job_model import JobState
from host.journal import Journal
from hvtui.config import Config, Ui
from hvtui.tui.app import HvtuiApp, Services
from hvtui.tui.screens.fleet import FleetScreen
from hvtui.tui.screens.move import HostsScreen, MovePlanScreen
from hvtui.tui.widgets.page import Page
from tests.support.lab import Lab
from tests.support.lab_saved import SavedGuests
from tests.support.live_moves import Pair, runs_at_the_target_alone
from tests.tui.conftest import shown, until
from tests.tui.driving import on_screen, status
from vm.model import VmState

PATIENCE_S = 180.0


@pytest.fixture
def journal(private_directories: None) -> Iterator[Journal]:
    with Journal() as opened:
        yield opened


@pytest.fixture
def app(lab: Lab, journal: Journal) -> HvtuiApp:
    """The console on lab1 and lab2, not yet running."""
    entries = tuple(HostEntry(name, lab[name].uri, ("lab",), peer_uri=lab[name].peer_uri) for name in ("lab1", "lab2"))
    hosts = tuple(open_host(entry.uri, name=entry.name) for entry in entries)
    config = Config(ui=Ui(theme="dark", ascii=False), hosts=entries)
    return HvtuiApp(Services(host=hosts[0], journal=journal, config=config, hosts=hosts, entries=entries))


def rows(app: HvtuiApp) -> list[tuple[str, VmState]]:
    """Host and state of each row."""
    return [(vm.host, vm.state) for vm in app.snapshot.vms] if app.snapshot is not None else []


async def test_a_guest_moves_live_by_keys(lab: Lab, guests: SavedGuests, app: HvtuiApp, journal: Journal) -> None:
    guest = guests.start(lab["lab1"], "web-01")
    async with app.run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: rows(app) == [("lab1", VmState.RUNNING)], PATIENCE_S)
        await pilot.press("m")
        hosts = await on_screen(pilot, HostsScreen)
        await until(pilot, lambda: "why lab2" in hosts.query_one("#text", Page).plain, PATIENCE_S)
        await pilot.press("enter")
        await until(pilot, lambda: isinstance(app.screen, MovePlanScreen), PATIENCE_S)
        plan = await on_screen(pilot, MovePlanScreen)
        assert "predicted" in plan.query_one("#text", Page).plain
        await pilot.press("enter")
        await until(pilot, lambda: "moved to lab2: web-01, stood still" in status(pilot), PATIENCE_S)
        await until(pilot, lambda: rows(app) == [("lab2", VmState.RUNNING)], PATIENCE_S)
        screen = app.screen
        assert isinstance(screen, FleetScreen) and [vm.host for vm in screen.targets()] == ["lab2"]
    (job,) = journal.jobs()
    assert job.state is JobState.DONE, job.error
    pair = Pair(lab)
    try:
        runs_at_the_target_alone(pair, guest)
    finally:
        pair.close()


async def test_a_frozen_host_is_grey_and_the_other_goes_on(lab: Lab, guests: SavedGuests, app: HvtuiApp) -> None:
    guests.start(lab["lab1"], "web-01")
    guests.start(lab["lab2"], "web-02")
    async with app.run_test(size=(120, 40)) as pilot:
        await until(pilot, lambda: sorted(host for host, _ in rows(app)) == ["lab1", "lab2"], PATIENCE_S)
        lab["lab2"].freeze_libvirtd()
        try:
            await until(pilot, lambda: "lab2 stale" in shown(app).lines[0], PATIENCE_S)
            vms = {vm.host: vm for vm in app.snapshot.vms} if app.snapshot is not None else {}
            assert app.is_up(vms["lab1"]) and not app.is_up(vms["lab2"])
            screen = app.screen
            assert isinstance(screen, FleetScreen)
            screen.go_to_vm(vms["lab1"].uuid, "lab1")
            await pilot.press("a")
            await until(pilot, lambda: "autostart on: web-01" in status(pilot), PATIENCE_S)
        finally:
            lab["lab2"].thaw_libvirtd()
        await until(pilot, lambda: "stale" not in shown(app).lines[0], PATIENCE_S)
