"""Plans to empty a host for maintenance, and to bring its VMs home again. Changes nothing.

A running VM goes to the host with most stars that can take it, in the least disruptive way; where there is none, it is
saved, shut down or left, as asked for. One that is off stays, unless it is to come along. Every VM is a job of its own,
whose last step notes where it went (host.maintenance); bringing home begins from these notes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace

from host.connection import Host
from host.errors import HvtuiError, NotFound
from host.host_list import HostEntry
from host.maintenance import Guest, Maintenance
from host.plan import Plan, PlanSet, Step
from vm import inventory
from vm.drain_model import SAVE, SHUT_DOWN, STAY, DrainPlan, Fate, WithoutTarget, total_s
from vm.drain_steps import MOVED, SAVED, home_step, mark_step, record_step, unmark_step
from vm.drain_steps import SHUT_DOWN as WAS_SHUT_DOWN
from vm.lifecycle import plan_save, plan_start, plan_stop
from vm.model import Vm, VmState
from vm.move import choose_kind, plan_of
from vm.move_checks import examine
from vm.move_forecast import forecast
from vm.move_lanes import PER_HOST, PER_LINK, lanes
from vm.move_links import ASSUMED
from vm.move_model import Link, MoveOptions, MoveRequest, Stuck
from vm.placement import Rating, rate, with_vm, without_vm
from vm.placement_model import USUAL, Demand, HostPicture, Policy
from vm.placement_reading import demand_of

MOST_TRIED = 3  # hosts, in the order of their stars, until a VM counts as one that cannot leave
AT_ONCE = 8  # plans that are made beside each other: each looks at its guest for a second
SHUT_DOWN_S = 30.0  # expected
SAVE_BYTES_S = 300e6


@dataclass(frozen=True, slots=True)
class DrainOptions:
    """How to drain. `command` is the equivalent one. The limits are those of [moves] in the configuration."""

    without_target: WithoutTarget = WithoutTarget.SAVE
    with_off: bool = False
    policy: Policy = USUAL
    per_host: int = PER_HOST
    per_link: int = PER_LINK
    command: tuple[str, ...] = ()
    forgotten: frozenset[str] = frozenset()  # names of VMs that are not waited for any more when coming home
    link_of: Callable[[str, str], Link] = field(default=lambda _source, _target: ASSUMED)


@dataclass(frozen=True, slots=True)
class Place:
    """A host that can take VMs: its entry in the list, and the Host."""

    entry: HostEntry
    host: Host


def plan_drain(
    source: Place, others: Sequence[Place], pictures: Sequence[HostPicture], options: DrainOptions | None = None
) -> DrainPlan:
    """What becomes of every VM of `source`, and the set of plans. `pictures` are those of all hosts.
    Reads them all. Raises NotFound, ConnectionLost, Denied of the source; a target that fails is left out."""
    options = options or DrainOptions()
    host = source.host
    vms = inventory.read_configs(host, inventory.read(host))
    leaving = [vm for vm in vms if vm.is_active or options.with_off]
    fates = _Leaving(source, others, pictures, options).fates(leaving)
    fates = [*fates, *(_stays(vm, _why_off(vm)) for vm in vms if vm not in leaving)]
    ordered = sorted(fates, key=lambda fate: (fate.fate == STAY, -fate.predicted_s, fate.vm))
    limits = {place.entry.name: options.per_host for place in (source, *others)}
    predicted_s = total_s([fate for fate in ordered if fate.plan is not None], limits, source=source.entry.name)
    return DrainPlan(source.entry.name, tuple(ordered), _set_of(source, ordered, options), predicted_s)


def _set_of(source: Place, fates: Sequence[Fate], options: DrainOptions) -> PlanSet:
    name = source.entry.name
    marking = _notes_plan(source.host.uri, f"Drain {name}", mark_step(source.host, name), options.command)
    plans = tuple(fate.plan for fate in fates if fate.plan is not None)
    warnings = tuple(f"{fate.vm} stays and runs on: {fate.why}" for fate in fates if fate.could_not_leave)
    return _with_preparation(f"Drain {name}", marking, plans, options.command, warnings)


def _with_preparation(
    title: str, first: Plan, plans: Sequence[Plan], command: tuple[str, ...], warnings: Sequence[str]
) -> PlanSet:
    """A set must have a plan besides its preparations."""
    return PlanSet(
        title, tuple(plans) or (first,), command, preparations=(first,) if plans else (), warnings=tuple(warnings)
    )


def _notes_plan(uri: str, title: str, step: Step, command: tuple[str, ...]) -> Plan:
    return Plan(title=title, host_uri=uri, steps=(step,), command=command)


class _Leaving:
    """One planning of a drain: who goes where, with what is left of each host after those before."""

    def __init__(
        self, source: Place, others: Sequence[Place], pictures: Sequence[HostPicture], options: DrainOptions
    ) -> None:
        self._source = source
        own = {source.host.uri, source.host.identity} - {""}
        same = {picture.name for picture in pictures if picture.uri in own or picture.identity in own}
        self._places = {place.entry.name: place for place in others if place.entry.name not in same}
        self._pictures = {picture.name: picture for picture in pictures if picture.name in self._places}
        self._options = options

    def fates(self, vms: Iterable[Vm]) -> list[Fate]:
        """Each VM's fate. The largest are placed first; a target whose plan is blocked gives way to the next."""
        hosts = [place.host for place in self._places.values()]
        demands = {vm.uuid: demand_of(self._source.host, vm, targets=hosts) for vm in vms}
        left = sorted(vms, key=lambda vm: (-demands[vm.uuid].memory_bytes, vm.name))
        refused: dict[str, dict[str, str]] = {}
        found: list[Fate] = []
        for _ in range(MOST_TRIED):
            chosen = [(vm, self._choose(demands[vm.uuid], refused.get(vm.uuid, {}))) for vm in left]
            with ThreadPoolExecutor(AT_ONCE) as pool:
                tried = list(pool.map(lambda pair: self._try(*pair) if pair[1] is not None else None, chosen))
            for (vm, rating), fate in zip(chosen, tried, strict=True):
                if rating is not None and fate is not None and fate.plan is None:
                    refused.setdefault(vm.uuid, {})[rating.host] = fate.why
                    self._pictures[rating.host] = without_vm(self._pictures[rating.host], demands[vm.uuid])
            found += [fate for fate in tried if fate is not None and fate.plan is not None]
            planned = {fate.uuid for fate in found}
            left = [vm for vm in left if vm.uuid not in planned]
        why_not = {vm.uuid: self._why_not(demands[vm.uuid], refused.get(vm.uuid, {})) for vm in left}
        return found + [self._without_target(vm, why_not[vm.uuid]) for vm in left]

    def _choose(self, demand: Demand, refused: Mapping[str, str]) -> Rating | None:
        """The host with most stars, which has less room from then on; None when nobody can take the VM."""
        demand = replace(demand, refused={**demand.refused, **refused})
        ratings = rate(demand, list(self._pictures.values()), self._options.policy)
        if not ratings or not ratings[0].is_possible:
            return None
        best = ratings[0]
        self._pictures[best.host] = with_vm(self._pictures[best.host], demand)
        return best

    def _why_not(self, demand: Demand, refused: Mapping[str, str]) -> str:
        demand = replace(demand, refused={**demand.refused, **refused})
        ratings = rate(demand, list(self._pictures.values()), self._options.policy)
        told = "; ".join(f"{rating.host}: {rating.why_not or 'not tried'}" for rating in ratings[:MOST_TRIED])
        return told or "there is no other host"

    def _try(self, vm: Vm, rating: Rating) -> Fate:
        """The VM's way to that host; a fate without a plan says why it cannot go there."""
        options, target = self._options, self._places[rating.host]
        home, link = self._source.host, options.link_of(self._source.host.uri, target.host.uri)
        try:
            picture = examine(home, target.host, vm, request_to(target.entry), link=link)
            kind, why_not = choose_kind(picture)
            plan = plan_of(home, picture, kind, request_to(target.entry), why_not=why_not)
        except HvtuiError as error:
            return Fate(vm.name, vm.uuid, STAY, str(error), host=rating.host)
        if plan.blockers:
            return Fate(vm.name, vm.uuid, STAY, "; ".join(each.reason for each in plan.blockers), host=rating.host)
        guest = _guest(vm, MOVED, target.host, rating.host)
        plan = replace(
            plan,
            steps=(*plan.steps, record_step(home, guest)),
            lanes=lanes(self._source.entry.name, rating.host, per_host=options.per_host, per_link=options.per_link),
        )
        why = why_not[0] if why_not else "nothing less disruptive is needed"
        return Fate(
            vm.name,
            vm.uuid,
            kind.value,
            why,
            is_active=vm.is_active,
            host=rating.host,
            stars=rating.stars,
            predicted_s=forecast(picture, kind, request_to(target.entry).options).total_s,
            plan=plan,
        )

    def _without_target(self, vm: Vm, why: str) -> Fate:
        wanted = self._options.without_target
        if not vm.is_active or wanted is WithoutTarget.STAY:
            return _stays(vm, why)
        # A device of the host cannot be saved with the memory; a sleeping or crashed guest hears no shutdown.
        has_devices = vm.config is not None and vm.config.host_devices > 0
        saves = wanted is WithoutTarget.SAVE and not has_devices and vm.persistent
        plan = plan_save(self._source.host, vm) if saves else plan_stop(self._source.host, vm)
        if plan.blockers:
            return _stays(vm, f"{why}; and it cannot be {'saved' if saves else 'shut down'}: {plan.blockers[0].reason}")
        guest = _guest(vm, SAVED if saves else WAS_SHUT_DOWN, self._source.host, self._source.entry.name)
        plan = replace(plan, steps=(*plan.steps, record_step(self._source.host, guest)), long=True)
        seconds = vm.memory_bytes / SAVE_BYTES_S if saves else SHUT_DOWN_S
        return Fate(vm.name, vm.uuid, SAVE if saves else SHUT_DOWN, why, predicted_s=seconds, plan=plan)


def _stays(vm: Vm, why: str) -> Fate:
    return Fate(vm.name, vm.uuid, STAY, why, is_active=vm.is_active)


def _why_off(vm: Vm) -> str:
    return "its state is saved already" if vm.state is VmState.SAVED else "it is off"


def _guest(vm: Vm, fate: str, host: Host, name: str) -> Guest:
    return Guest(vm.uuid, vm.name, fate, vm.state.value, host.uri, name, vm.autostart, host.identity)


def request_to(entry: HostEntry) -> MoveRequest:
    """A move to that host while nobody watches: one that does not converge becomes a quick one."""
    address = f"[{entry.migration_address}]" if ":" in entry.migration_address else entry.migration_address
    options = MoveOptions(migrate_uri=f"tcp://{address}" if address else "", stuck=Stuck.QUICK)
    return MoveRequest(peer_uri=entry.peer, options=options)


def plan_homecoming(
    home: Place, notes: Maintenance, others: Sequence[Place], options: DrainOptions | None = None
) -> PlanSet:
    """Bring back every VM that left `home`, start or restore what was shut down or saved, and let the host take VMs
    again. Each VM's job runs on the host where the VM is. A VM that nobody has any more is told as a warning. Raises
    ConnectionLost, Denied of the home; another host that does not answer leaves its VMs where they are."""
    options = options or DrainOptions()
    name = home.entry.name
    first = _notes_plan(home.host.uri, f"Take {name} back into service", unmark_step(home.host, name), options.command)
    plans, warnings = [], []
    for guest in notes.guests:
        if guest.name in options.forgotten:
            plans.append(_note_plan(home.host, guest, f"Forget {guest.name}"))
            continue
        try:
            plans.append(_way_home(home, others, guest, options))
        except HvtuiError as error:
            warnings.append(f"{guest.name} stays where it is: {error}")
    return _with_preparation(f"Bring the VMs of {name} home", first, plans, options.command, warnings)


def _way_home(home: Place, others: Sequence[Place], guest: Guest, options: DrainOptions) -> Plan:
    """The plan for one VM. Raises HvtuiError when it cannot come."""
    note = home_step(home.host, guest)
    where = home if guest.fate != MOVED else _place_of(guest, (home, *others))
    vm = _find(where.host, guest) if where is not home else None
    if vm is None:
        here = _find(home.host, guest)
        if here is None:
            remedy = f"Look for it with 'hvtui vm list --all-hosts', or give --forget {guest.name}"
            raise NotFound(f"it is neither here nor on {guest.host}", about=guest.name, remedy=remedy)
        return _back_to_work(home.host, here, guest, note)
    request = request_to(home.entry)
    picture = examine(where.host, home.host, vm, request, link=options.link_of(where.host.uri, home.host.uri))
    kind, why_not = choose_kind(picture)
    plan = plan_of(where.host, picture, kind, request, why_not=why_not)
    plan.raise_if_blocked()
    way = lanes(where.entry.name, home.entry.name, per_host=options.per_host, per_link=options.per_link)
    return replace(plan, steps=(*plan.steps, note), lanes=way)


def _place_of(guest: Guest, places: Sequence[Place]) -> Place:
    """Where it went. Raises NotFound for a host that is none of these under any URI."""
    by_uri = next((place for place in places if place.host.uri == guest.uri), None)
    found = by_uri or next((place for place in places if _is_identity(place.host, guest.identity)), None)
    if found is None:
        raise NotFound(f"{guest.host} is not in the list of hosts", about=guest.name, remedy="Add it: hvtui host add")
    return found


def _is_identity(host: Host, identity: str) -> bool:
    try:
        return bool(identity) and host.identity == identity
    except HvtuiError:  # one that does not answer is not asked for anything else either
        return False


def _back_to_work(host: Host, vm: Vm, guest: Guest, note: Step) -> Plan:
    """A VM that is at home: started again where it was running before, and noted as back."""
    if guest.fate == MOVED or vm.is_active or not _was_active(guest):
        return _note_plan(host, guest, f"{vm.name} is at home")
    plan = plan_start(host, vm)
    plan.raise_if_blocked()
    return replace(plan, steps=(*plan.steps, note), long=True)


def _note_plan(home: Host, guest: Guest, title: str) -> Plan:
    note = home_step(home, guest)
    return Plan(title, home.uri, (note,), ("vm", "show", guest.name), vm_uuid=guest.uuid, vm_name=guest.name)


def _was_active(guest: Guest) -> bool:
    return guest.was not in {VmState.OFF.value, VmState.SAVED.value, VmState.CRASHED.value}


def _find(host: Host, guest: Guest) -> Vm | None:
    return next(iter(inventory.read_some(host, [guest.uuid])), None)
