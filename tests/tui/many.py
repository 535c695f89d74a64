"""Several simulated hosts side by side: the app on them, each with a world of its own."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

from textual.pilot import Pilot

from host.connection import Host, Link, LinkStatus, open_host
from host.host_list import HostEntry
from host.journal import Journal
from hvtui.config import Config
from hvtui.tui.app import HvtuiApp, Services
from hvtui.tui.screens.fleet import FleetScreen
from tests.support import simulated_world
from tests.tui.conftest import until
from tests.tui.scenes import DARK
from vm.model import Vm

WORLDS = {
    "lab1": (("web-01", "running", ("web",)), ("web-02", "running", ("web",)), ("twin", "off", ())),
    "lab2": (("db-01", "running", ("db",)), ("twin", "off", ())),
    "far1": (("mail", "running", ()),),
}
GROUPS = {"lab1": ("lab",), "lab2": ("lab",), "far1": ()}


def open_worlds(directory: Path) -> tuple[tuple[HostEntry, ...], tuple[Host, ...]]:
    """A simulated host for each of WORLDS."""
    entries, hosts = [], []
    for name, vms in WORLDS.items():
        path = directory / f"{name}.xml"
        domains = [simulated_world.domain(vm, state=state, tags=tags) for vm, state, tags in vms]
        path.write_text(simulated_world.world(domains), encoding="utf-8")
        entries.append(HostEntry(name, f"test://{path}", groups=GROUPS[name]))
        hosts.append(open_host(entries[-1].uri, name=name))
    return tuple(entries), tuple(hosts)


def app_on_many(directory: Path, journal: Journal, config: Config = DARK) -> HvtuiApp:
    """The app on all of WORLDS (not yet running)."""
    entries, hosts = open_worlds(directory)
    config = replace(config, hosts=entries)
    return HvtuiApp(Services(host=hosts[0], journal=journal, config=config, hosts=hosts, entries=entries))


def host_named(app: HvtuiApp, name: str) -> Host:
    return next(host for host in app.services.hosts if host.name == name)


def vm_on(app: HvtuiApp, host_name: str, name: str) -> Vm:
    """The VM of that name on that host, as the list has it."""
    assert app.snapshot is not None
    return next(vm for vm in app.snapshot.vms if (vm.host, vm.name) == (host_name, name))


def shown_vms(app: HvtuiApp) -> list[tuple[str, str]]:
    """Host and name of each row."""
    screen = next(screen for screen in app.screen_stack if isinstance(screen, FleetScreen))
    return [(vm.host, vm.name) for vm in screen.grid.shown]


def lose(host: Host) -> None:
    """The line to the host is lost, as far as anybody can tell."""
    host._set_link(LinkStatus.LOST, "keepalive timed out")
    assert host.link == Link(LinkStatus.LOST, host.link.since_s, "keepalive timed out")


@asynccontextmanager
async def running_many(
    app: HvtuiApp, size: tuple[int, int] = (80, 24), hosts: Iterable[str] = WORLDS
) -> AsyncIterator[Pilot[None]]:
    """The app on its hosts, with every VM in the list."""
    wanted = sum(len(WORLDS[name]) for name in hosts)
    async with app.run_test(size=size) as pilot:
        await until(pilot, lambda: app.snapshot is not None and len(app.snapshot.vms) == wanted)
        await until(pilot, lambda: isinstance(app.screen, FleetScreen) and len(app.screen.grid.shown) == wanted)
        yield pilot
