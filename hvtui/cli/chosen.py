"""Which VMs a command means: names, UUIDs, ids, globs, and the filter language. Reads only."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from host.errors import UsageError
from hvtui.cli.session import Session
from vm import inventory

if TYPE_CHECKING:
    from vm.model import Vm


def chosen_vms(session: Session, names: Sequence[str], *, config: bool = False) -> tuple[Vm, ...]:
    """The VMs of a change: `names` narrowed by --filter. Raises UsageError when neither is given or nothing
    matches, NotFound for a name or a glob that matches nothing."""
    if not names and not session.filter_text:
        raise UsageError("which VMs?", remedy="Give names or globs in quotes ('web-*'), or --filter")
    vms = listed_vms(session, names, config=config)
    if not vms:
        raise UsageError(f"no VM matches --filter {session.filter_text!r}", remedy="See 'hvtui vm list'")
    return vms


def listed_vms(session: Session, names: Sequence[str], *, config: bool = False) -> tuple[Vm, ...]:
    """The VMs of a list, all of them without `names`; `config` reads each one's XML as well."""
    host = session.host()
    # In libvirt's test driver only the XML tells memory and CPUs, and reading it costs no round trip.
    config = config or host.uri.startswith("test:")
    vms = inventory.expand(host, names) if names else inventory.read(host)
    if not session.filter_text:
        return inventory.read_configs(host, vms) if config else vms
    from vm.filter import parse

    wanted = parse(session.filter_text)
    if config or wanted.needs_config:
        vms = inventory.read_configs(host, vms)
    return tuple(vm for vm in vms if wanted.matches(vm, host_name=host.name))


def one_vm(session: Session, name: str, *, config: bool = False) -> Vm:
    """The VM of that name, UUID or id. Raises NotFound with the nearest names."""
    host = session.host()
    vm = inventory.find(host, name)
    return inventory.read_configs(host, (vm,))[0] if config else vm
