"""Which VMs a command means: names, UUIDs, ids, globs, and the filter language. Reads only."""

from __future__ import annotations

from collections.abc import Sequence

from host.errors import UsageError
from hvtui.cli.session import Session
from vm import inventory
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
    vms = inventory.expand(host, names) if names else inventory.read(host)
    if session.filter_text:
        from vm.filter import parse

        wanted = parse(session.filter_text)
        if wanted.needs_config and not config:
            vms = inventory.read_configs(host, vms)
        else:
            vms = inventory.read_configs(host, vms) if config else vms
        return tuple(vm for vm in vms if wanted.matches(vm))
    return inventory.read_configs(host, vms) if config else vms


def one_vm(session: Session, name: str, *, config: bool = False) -> Vm:
    """The VM of that name, UUID or id. Raises NotFound with the nearest names."""
    host = session.host()
    vm = inventory.find(host, name)
    return inventory.read_configs(host, (vm,))[0] if config else vm
