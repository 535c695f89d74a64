"""Plans to take a seed away from a VM that was deployed without waiting for its guest. Reads only."""

from __future__ import annotations

import shlex
from pathlib import PurePosixPath
from typing import Any

import libvirt

from host.connection import Host
from host.plan import Blocker, Json, Plan, Step
from vm import deploy_steps, ready_steps  # the steps register their verbs
from vm.commands import host_blockers, virsh, words
from vm.domain_xml import parse
from vm.model import Vm
from vm.template_model import Readiness

__all__ = ["plan_unseed", "ready_steps"]

READY_TIMEOUT_S = 600.0


def plan_unseed(host: Host, vm: Vm, *, wait: bool = True, timeout_s: float = READY_TIMEOUT_S) -> Plan:
    """The plan that waits until the guest of a running VM has read its seed (unless `wait` is False), then takes the
    seed away and deletes it. Raises NotFound, ConnectionLost."""
    with host.calls("look for the seed of", vm.name) as connection:
        domain = connection.lookupByUUIDString(vm.uuid)
        texts = dict.fromkeys((domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE), domain.XMLDesc(0)))
        paths = dict.fromkeys(path for text in texts for path in deploy_steps.seed_drives(parse(text), vm.uuid))
        found = [(path, pool_of(connection, path)) for path in paths]
        is_active = bool(domain.isActive())
    blockers = [*host_blockers(host), *_blockers(vm, found, is_active=is_active, wait=wait)]
    steps = []
    if wait:
        ready: dict[str, Json] = {
            "uuid": vm.uuid,
            "name": vm.name,
            "readiness": Readiness.CLOUD_INIT.value,
            "timeout_s": timeout_s,
        }
        steps.append(Step("deploy.ready", f"Wait until its guest is ready, at most {timeout_s:.0f} s", ready))
    steps += [unseed_step(host, vm, path, pool) for path, pool in found]
    return Plan(
        title=f"Take the seed of {vm.name} away",
        host_uri=host.uri,
        steps=tuple(steps),
        command=words("unseed", vm.name, *(() if wait else ("--now",))),
        vm_uuid=vm.uuid,
        vm_name=vm.name,
        blockers=tuple(blockers),
        long=True,
    )


def unseed_step(host: Host, vm: Vm, path: str, pool: str) -> Step:
    """The step that takes the seed at `path`, a volume of `pool`, away from the VM and deletes it."""
    volume = PurePosixPath(path).name
    args: dict[str, Json] = {"uuid": vm.uuid, "name": vm.name, "pool": pool, "volume": volume, "path": path}
    detach = virsh(host.uri, "detach-disk", vm.name, "--target", path, "--persistent")
    delete = shlex.join(["virsh", "-c", host.uri, "vol-delete", "--pool", pool, "--vol", volume])
    return Step("deploy.unseed", "Take the seed away and delete it", args, (detach, delete))


def pool_of(connection: Any, path: str) -> str:
    """The pool that knows the volume; empty when none does."""
    try:
        return str(connection.storageVolLookupByPath(path).storagePoolLookupByVolume().name())
    except libvirt.libvirtError as error:
        if error.get_error_domain() == libvirt.VIR_FROM_RPC:
            raise
        return ""


def _blockers(vm: Vm, found: list[tuple[str, str]], *, is_active: bool, wait: bool) -> list[Blocker]:
    if not found:
        return [Blocker.wrong_state("it has no seed: nothing is left to take away")]
    blockers = [Blocker(f"no active storage pool knows {path}", "Start its pool") for path, pool in found if not pool]
    if wait and not is_active:
        remedy = "Start it first, or throw the seed away unread with --now"
        blockers.append(
            Blocker.wrong_state(f"{vm.name} does not run, so its guest has not read its seed", remedy=remedy)
        )
    return blockers
