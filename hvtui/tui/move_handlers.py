"""Moving VMs: to which host, how, and with which options; and disks to another pool. Asks, then proposes plans."""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from host.errors import HvtuiError
from host.plan import Plan, PlanSet
from host.text import printable
from hvtui.tui.actions import Target
from hvtui.tui.fleet_state import places, read_pictures

if TYPE_CHECKING:
    from host.connection import Host
    from host.host_list import HostEntry
    from hvtui.tui.app import HvtuiApp
    from hvtui.tui.move_text import Sight
    from hvtui.tui.screens.move import HostsScreen
    from vm.model import Vm
    from vm.move_model import MoveRequest
    from vm.placement import Rating

NO_OTHER = "there is no other host: 'hvtui host add' makes one known, :move disks takes disks to another pool"


def move(app: HvtuiApp, target: Target) -> Awaitable[None]:
    """Ask to which host, and show the plan."""
    from hvtui.tui.screens.move import HostsScreen

    entries, _hosts = places(app)
    if len(entries) < 2:
        raise HvtuiError(NO_OTHER)
    vms = target.vms
    what = printable(vms[0].name, limit=40) if len(vms) == 1 else f"{len(vms)} VMs"
    homes = {app.host_of(vm).name for vm in vms}
    dialog = HostsScreen(f"Move {what} to", homes.pop() if len(homes) == 1 else "")
    asked = app.asked(dialog)
    app.run_worker(_look(app, dialog, vms), group="look")
    return _move(app, vms, asked)


async def _look(app: HvtuiApp, dialog: HostsScreen, vms: Sequence[Vm]) -> None:
    """Rate the hosts while the dialog is open already."""
    import asyncio

    from hvtui.placement_policy import policy_of
    from vm.placement import rate
    from vm.placement_model import Demand, together
    from vm.placement_reading import SETTLE_S, demand_of

    _entries, hosts = places(app)

    def demand() -> Demand:
        return together([demand_of(app.host_of(vm), vm, targets=hosts, settle_s=SETTLE_S) for vm in vms])

    try:
        wanted, pictures = await asyncio.gather(app.bridge.call(demand), read_pictures(app))
        dialog.show_ratings(rate(wanted, pictures, policy_of(app.services.config)))
    except HvtuiError as error:
        dialog.show_ratings((), str(error))


async def _move(app: HvtuiApp, vms: Sequence[Vm], asked: Awaitable[Rating | None]) -> None:
    rating = await asked
    if rating is None:
        return
    entries, hosts = places(app)
    place = next(i for i, host in enumerate(hosts) if host.name == rating.host)
    entry, host = entries[place], hosts[place]
    leaving = [vm for vm in vms if app.host_of(vm).uri != host.uri]
    if not leaving:
        await _move_disks(app, vms)
    elif len(leaving) == 1:
        await _move_one(app, leaving[0], entry, host, rating)
    else:
        await _move_all(app, leaving, entry, host)


async def _move_one(app: HvtuiApp, vm: Vm, entry: HostEntry, host: Host, rating: Rating) -> None:
    """Show the plan until it is accepted or given up; other kinds and options make another one."""
    from hvtui.tui.move_text import kind_choices
    from hvtui.tui.screens.choice import ChoiceScreen
    from hvtui.tui.screens.move import EJECT, KINDS, POSTCOPY, MovePlanScreen
    from vm.move_model import MoveKind

    request = _request(entry)
    while True:
        app.say(f"looking at {printable(vm.name, limit=40)} and at {printable(entry.name, limit=40)} …", "dim")
        plan, sight = await app.bridge.call(plan_one, app, vm, host, entry, request)
        app.say("")
        shown: list[MovePlanScreen] = []

        def dialog(plans: Sequence[Plan], sight: Sight = sight, shown: list[MovePlanScreen] = shown) -> MovePlanScreen:
            shown.append(MovePlanScreen(plans, replace(sight, rating=rating)))
            return shown[0]

        def accepted(plan: Plan = plan) -> None:
            app.follow_new([plan], host_name=entry.name)

        if await app.propose([plan], done=f"moved to {entry.name}:", ask=True, accepted=accepted, dialog=dialog):
            return
        wants, options = shown[0].wants, request.options
        if wants == KINDS:
            choices = kind_choices(sight.picture, request)
            question = f"How to move {printable(vm.name, limit=40)} to {printable(entry.name, limit=40)}"
            kind = await app.push_screen_wait(ChoiceScreen(question, choices, chosen=sight.kind.value))
            request = replace(request, kind=MoveKind(kind)) if kind is not None else request
        elif wants == EJECT:
            request = replace(request, options=replace(options, eject=not options.eject))
        elif wants == POSTCOPY:
            request = replace(request, options=replace(options, postcopy=not options.postcopy))
        else:
            return


async def _move_all(app: HvtuiApp, vms: Sequence[Vm], entry: HostEntry, host: Host) -> None:
    """Several VMs: a set, in which each goes the way that disturbs it least. Those that cannot go stay."""
    from hvtui.tui.screens.move import MovesScreen

    app.say(f"looking at {len(vms)} VMs and at {printable(entry.name, limit=40)} …", "dim")
    request = _request(entry)
    found = await app.bridge.call(lambda: [plan_one(app, vm, host, entry, request) for vm in vms])
    app.say("")
    going = [(plan, sight) for plan, sight in found if not plan.blockers]
    if not going:
        await app.propose([plan for plan, _sight in found], ask=True)
        return
    stay = tuple(f"{plan.vm_name} stays: {plan.blockers[0].reason}" for plan, _sight in found if plan.blockers)
    plans = tuple(plan for plan, _sight in going)
    command = ("vm", "migrate", "--to", entry.name, *(plan.vm_name or "" for plan in plans))
    made = PlanSet(
        f"Move {len(plans)} VM{'s' if len(plans) > 1 else ''} to {entry.name}", plans, command, warnings=stay
    )
    dialog = MovesScreen(made, [sight for _plan, sight in going])
    await app.propose_set(made, done=f"moved to {entry.name}:", dialog=dialog)


def plan_one(app: HvtuiApp, vm: Vm, host: Host, entry: HostEntry, request: MoveRequest) -> tuple[Plan, Sight]:
    """The plan of one move, and what its dialog shows. Reads both hosts. Raises HvtuiError."""
    from hvtui.tui.move_text import Sight
    from vm.move import choose_kind, plan_of
    from vm.move_checks import examine
    from vm.move_lanes import lanes
    from vm.move_links import link_between

    source = app.host_of(vm)
    link = link_between(app.services.journal, source.uri, host.uri)
    picture = examine(source, host, vm, request, link=link)
    kind, why_not = choose_kind(picture, request.kind)
    plan = plan_of(source, picture, kind, request, why_not=why_not, command=_command(vm, entry, request))
    moves = app.services.config.moves
    way = lanes(source.name, host.name, per_host=moves.per_host, per_link=moves.per_link)
    return replace(plan, lanes=way), Sight(picture, kind, request, why_not)


def _request(entry: HostEntry) -> MoveRequest:
    from vm.move_model import MoveOptions, MoveRequest

    address = f"[{entry.migration_address}]" if ":" in entry.migration_address else entry.migration_address
    return MoveRequest(peer_uri=entry.peer, options=MoveOptions(migrate_uri=f"tcp://{address}" if address else ""))


def _command(vm: Vm, entry: HostEntry, request: MoveRequest) -> tuple[str, ...]:
    words = ["vm", "migrate", "--to", entry.name]
    words += ["--kind", request.kind.value] if request.kind is not None else []
    words += ["--eject"] if request.options.eject else []
    words += ["--postcopy"] if request.options.postcopy else []
    return (*words, *(("--",) if vm.name.startswith("-") else ()), vm.name)


async def move_disks(app: HvtuiApp, target: Target) -> None:
    """Ask for a storage pool of the VMs' own host, and show the plans that move their disks there."""
    await _move_disks(app, target.vms)


async def _move_disks(app: HvtuiApp, vms: Sequence[Vm]) -> None:
    from host.units import format_bytes
    from hvtui.tui.screens.choice import ChoiceScreen
    from vm.placement_reading import read_pictures as read
    from vm.storage_move import plan_storage_move

    hosts = {app.host_of(vm).uri: app.host_of(vm) for vm in vms}
    if len(hosts) > 1:
        raise HvtuiError("these VMs are on several hosts, each of which has pools of its own: choose those of one")
    (host,) = hosts.values()
    (picture,) = await app.bridge.call(read, [host], settle_s=0.0)
    if not picture.is_reachable or not picture.pools:
        raise HvtuiError(picture.problem or f"{host.name} has no active storage pool")
    choices = [
        (
            name,
            printable(name, limit=40),
            f"{format_bytes(pool.free_bytes)} of {format_bytes(pool.capacity_bytes)} free",
        )
        for name, pool in sorted(picture.pools.items())
    ]
    whose = printable(vms[0].name, limit=40) if len(vms) == 1 else f"{len(vms)} VMs"
    pool = await app.push_screen_wait(ChoiceScreen(f"Move the disks of {whose} to the pool", choices))
    if pool is None:
        return

    async def planned(meant: Sequence[Vm]) -> Sequence[Plan]:
        return await app.bridge.call(lambda: tuple(plan_storage_move(app.host_of(vm), vm, pool) for vm in meant))

    await app.propose(await planned(vms), done=f"moved to {pool}: the disks of", ask=True, again=planned)
