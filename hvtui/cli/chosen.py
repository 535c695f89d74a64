"""Which VMs a command means: names, UUIDs, ids, globs, and the filter language. Reads only."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from host.errors import NotFound, UsageError
from hvtui.cli.session import Session
from vm import inventory

if TYPE_CHECKING:
    from host.connection import Host
    from vm.filter import Filter
    from vm.model import Vm


def chosen_vms(session: Session, names: Sequence[str], *, config: bool = False) -> tuple[Vm, ...]:
    """The VMs of a change: `names` narrowed by --filter. Raises UsageError when neither is given or nothing
    matches, NotFound for a name or a glob that matches nothing."""
    if not names and not session.filter_text:
        raise UsageError("which VMs?", remedy="Give names or globs in quotes ('web-*'), or --filter")
    _settle(session, names)
    vms = listed_vms(session, names, config=config)
    if not vms:
        raise UsageError(f"no VM matches --filter {session.filter_text!r}", remedy="See 'hvtui vm list'")
    return vms


def named_exactly(vms: Sequence[Vm], names: Sequence[str]) -> frozenset[str]:
    """The uuids of those of `vms` that `names` name, uuid or id; the others were matched by a glob or a filter."""
    plain = frozenset(name.replace("-", "").lower() for name in names)
    return frozenset(
        vm.uuid
        for vm in vms
        if vm.name in names or vm.uuid.replace("-", "") in plain or (vm.is_active and str(vm.domain_id) in names)
    )


def listed_vms(
    session: Session,
    names: Sequence[str],
    *,
    config: bool = False,
    pending: bool = False,
    addresses: bool = False,
    agents: bool = False,
) -> tuple[Vm, ...]:
    """The VMs of a list, all of them without `names`; `config` reads each one's XML as well, `pending` also the one
    that its next boot gets, `addresses` asks the networks for their leases, `agents` the guests. Raises UsageError,
    NotFound."""
    host = session.host()
    wanted = read_filter(session)
    groups = _groups(session, host.name) if wanted is not None and wanted.group_tests else ()
    with _told_of_other_hosts(session):
        vms = inventory.expand(host, names) if names else inventory.read(host)
    return looked_into(
        host, vms, wanted, groups=groups, config=config, pending=pending, addresses=addresses, agents=agents
    )


def looked_into(
    host: Host,
    vms: Sequence[Vm],
    wanted: Filter | None,
    *,
    groups: Sequence[str] = (),
    config: bool = False,
    pending: bool = False,
    addresses: bool = False,
    agents: bool = False,
) -> tuple[Vm, ...]:
    """Those of `vms`, all of one host, that the filter wants, with whatever else the list shows."""
    # In libvirt's test driver only the XML tells memory and CPUs, and reading it costs no round trip.
    config = config or host.uri.startswith("test:")
    if wanted is not None and not wanted.matches_host(host.name, groups):
        return ()
    filters_addresses = wanted is not None and wanted.needs_addresses
    pending = pending or (wanted is not None and wanted.needs_pending)
    if config or pending or addresses or filters_addresses or (wanted is not None and wanted.needs_config):
        vms = inventory.read_configs(host, vms, pending=pending)
    if filters_addresses:
        vms = _with_addresses(host, vms)
    if wanted is not None:
        vms = tuple(vm for vm in vms if wanted.matches(vm))
    if addresses and (agents or not filters_addresses):
        vms = _with_addresses(host, vms, ask_agents=agents)  # of those that are left: an agent may take its time
    return tuple(vms)


def _groups(session: Session, host_name: str) -> Sequence[str]:
    return next((entry.groups for entry in session.config().hosts if entry.name == host_name), ())


def _settle(session: Session, names: Sequence[str]) -> None:
    if session.is_many:
        from hvtui.cli.many import settle

        settle(session, names)


@contextmanager
def _told_of_other_hosts(session: Session) -> Iterator[None]:
    """Who names no host means this machine, and may have forgotten that there are others."""
    try:
        yield
    except NotFound as error:
        if not session.has_other_hosts:
            raise
        remedy = f"{error.remedy}. It was looked for on this machine: --all-hosts looks everywhere"
        raise NotFound(error.cause, about=error.about, remedy=remedy) from error


def _with_addresses(host: Host, vms: Sequence[Vm], *, ask_agents: bool = False) -> tuple[Vm, ...]:
    from vm.addresses import with_addresses  # here: a plain list does without

    return with_addresses(host, vms, ask_agents=ask_agents)


def read_filter(session: Session) -> Filter | None:
    """What --filter says, None without it. Raises UsageError, also for what a command does not measure."""
    if not session.filter_text:
        return None
    from vm.filter import RATE_KEYS, parse

    wanted = parse(session.filter_text)
    if wanted.needs_rates:
        raise UsageError(
            f"a command measures no rates to filter by ({', '.join(sorted(RATE_KEYS))})",
            about="--filter",
            remedy="'hvtui vm watch --once' tells the rates of running VMs",
        )
    return wanted


def one_vm(session: Session, name: str, *, config: bool = False) -> Vm:
    """The VM of that name, UUID or id. Raises NotFound with the nearest names."""
    _settle(session, [name])
    host = session.host()
    with _told_of_other_hosts(session):
        vm = inventory.find(host, name)
    return inventory.read_configs(host, (vm,))[0] if config else vm
