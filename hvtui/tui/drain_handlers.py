"""Emptying a host for maintenance, taking it back into service, and what the loss of a host would mean."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from host.errors import HvtuiError
from hvtui.tui.actions import Target
from hvtui.tui.fleet_state import places, read_pictures

if TYPE_CHECKING:
    from host.maintenance import Maintenance
    from hvtui.tui.app import HvtuiApp
    from vm.drain import DrainOptions, Place


async def drain_or_resume(app: HvtuiApp, target: Target) -> None:
    """Show what becomes of each VM of the host, and empty it; of a drained one, bring its VMs home."""
    from host import maintenance

    home, others = _places(app, target.host)
    note = await app.bridge.call(maintenance.note_of, home.host)
    if note is not None and note.is_drained:
        await _resume(app, home, others, note)
    else:
        await _drain(app, home, others)


async def come_home(app: HvtuiApp, target: Target) -> None:
    """Bring back the VMs of a host that is in service again, or still drained."""
    from host import maintenance

    home, others = _places(app, target.host)
    note = await app.bridge.call(maintenance.note_of, home.host)
    if note is None:
        raise HvtuiError("it is not drained, and all its VMs are here", about=home.entry.name)
    await _resume(app, home, others, note)


async def _drain(app: HvtuiApp, home: Place, others: list[Place]) -> None:
    from hvtui.tui.screens.drain import DrainScreen
    from vm.drain import plan_drain

    name = home.entry.name
    app.say(f"looking at the VMs of {name} and at the other hosts …", "dim")
    pictures = await read_pictures(app)
    planned = await app.bridge.call(plan_drain, home, others, pictures, _options(app, "drain", name))
    app.say("")
    await app.propose_set(planned.plan_set, done=f"drained {name}:", dialog=DrainScreen(planned))


async def _resume(app: HvtuiApp, home: Place, others: list[Place], note: Maintenance) -> None:
    from vm.drain import plan_homecoming

    name = home.entry.name
    app.say(f"looking for the VMs of {name} …", "dim")
    planned = await app.bridge.call(plan_homecoming, home, note, others, _options(app, "resume", name))
    app.say("")
    await app.propose_set(planned, done=f"{name} is in service:")


def _places(app: HvtuiApp, name: str) -> tuple[Place, list[Place]]:
    from vm.drain import Place

    found = [Place(entry, host) for entry, host in zip(*places(app), strict=True)]
    home = next((place for place in found if place.entry.name == name), found[0])
    return home, [place for place in found if place is not home]


def _options(app: HvtuiApp, verb: str, name: str) -> DrainOptions:
    from hvtui.placement_policy import policy_of
    from vm.drain import DrainOptions
    from vm.move_links import link_between

    moves = app.services.config.moves
    return DrainOptions(
        per_host=moves.per_host,
        per_link=moves.per_link,
        policy=policy_of(app.services.config),
        command=("host", verb, name),
        link_of=partial(link_between, app.services.journal),
    )


def show_whatif(app: HvtuiApp, _target: Target) -> None:
    """Show where each VM would come up if a host died now."""
    from hvtui.tui.screens.whatif import WhatIfScreen

    app.push_screen(WhatIfScreen())
