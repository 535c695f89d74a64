"""The words that every plan about a VM shares: equivalent command lines, step arguments, and the refusal of a host
that was opened read-only. Pure functions."""

from __future__ import annotations

import shlex

from host.connection import Host
from host.errors import Denied
from host.plan import Blocker, Json
from host.text import printable
from vm.model import Vm


def virsh(uri: str, verb: str, vm_name: str, *options: str) -> str:
    """A virsh line ready to paste. The name is an option's value, so one that begins with a dash stays a name."""
    return shlex.join(["virsh", "-c", uri, verb, "--domain", vm_name, *options])


def words(verb: str, vm_name: str, *options: str) -> tuple[str, ...]:
    """The argument list of `hvtui vm VERB OPTIONS NAME`, for Plan.command."""
    separator = ("--",) if vm_name.startswith("-") else ()
    return ("vm", verb, *options, *separator, vm_name)


def hint(verb: str, vm_name: str, *options: str) -> str:
    """'hvtui vm VERB …' in quotes, harmless to show, for a remedy."""
    return f"'hvtui {printable(shlex.join(words(verb, vm_name, *options)), limit=120)}'"


def identity(vm: Vm) -> dict[str, Json]:
    """The arguments that every VM step has: steps look the VM up by uuid; the name is for messages only."""
    return {"uuid": vm.uuid, "name": vm.name, "persistent": vm.persistent}


def host_blockers(host: Host) -> tuple[Blocker, ...]:
    """Why nothing on this host can be changed."""
    if not host.read_only:
        return ()
    remedy = "Open it without --read-only"
    return (Blocker("this host was opened read-only", remedy, exit_code=Denied.exit_code),)
