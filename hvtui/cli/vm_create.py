"""`hvtui vm create`: from the options to a CreateRequest; vm.create makes the plan."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import click

from host.errors import NotFound, UsageError
from host.text import printable
from host.units import parse_size
from hvtui.cli.change import change
from hvtui.cli.grammar import complete_sources, option, verb
from hvtui.cli.session import Session
from vm.create_request import CreateRequest, Firmware, Graphics, SourceKind, tiny_request

_URL = re.compile(r"[a-z][a-z0-9+.-]*://", re.IGNORECASE | re.ASCII)
FROM_HELP = "tiny (a Linux from this system's own kernel), empty, a disk image, or an ISO."


@verb(
    "create",
    click.Argument(["name"], metavar="NAME"),
    option("--from", "origin", metavar="WHAT", text=FROM_HELP, shell_complete=complete_sources),
    option("--memory", metavar="SIZE", text="Memory, as 512M or 2G."),
    option("--cpus", type=click.IntRange(min=1), metavar="N", text="Virtual CPUs."),
    option("--disk", metavar="SIZE", text="A new empty disk of that size, as 20G."),
    option("--pool", metavar="NAME", text="The storage pool of the new disk."),
    option("--disk-format", type=click.Choice(["qcow2", "raw"]), text="The new disk's format."),
    option("--network", metavar="NET", text="A network's name, bridge:NAME, user, none, or auto."),
    option("--firmware", type=click.Choice([each.value for each in Firmware]), text="How it boots."),
    option("--tpm/--no-tpm", default=None, text="A virtual TPM 2.0."),
    option("--cpu", "cpu_mode", metavar="MODE", text="A CPU mode or model; auto is the best that can run here."),
    option("--graphics", type=click.Choice([each.value for each in Graphics]), text="Where its screen is reached."),
    option("--os", "os_id", metavar="ID", text="libosinfo's id of its system."),
    option("--kernel", type=click.Path(), metavar="FILE", text="Boot this kernel directly."),
    option("--initrd", type=click.Path(), metavar="FILE", text="With --kernel: its initial RAM disk."),
    option("--cmdline", metavar="TEXT", text="With --kernel: its command line."),
    option("--title", metavar="TEXT", text="A short title."),
    option("--description", metavar="TEXT", text="Free text."),
    option("--tag", "tags", multiple=True, metavar="TAG", text="A tag (may be repeated)."),
    option("--owner", metavar="NAME", text="Who it belongs to."),
    option("--autostart/--no-autostart", default=None, text="Start it with the host."),
    option("--start/--no-start", default=None, text="Start it at once (the default)."),
    option("--keep-failed", is_flag=True, text="When it fails, keep what was made, to look at or to restart the job."),
    text="Make a VM. A first one in seconds: hvtui vm create web --from tiny",
)
def create(session: Session, name: str, keep_failed: bool, **given: Any) -> int:
    from vm.create import plan_create

    wanted = request(name, timeout_s=session.timeout_s, wait=session.given.get("wait"), **given)
    host = session.host()
    making = [(name, None, lambda: plan_create(host, wanted))]
    return change(session, making, own_waiting=session.wait, keep_failed=keep_failed)


def request(
    name: str,
    *,
    origin: str | None,
    timeout_s: float | None = None,
    wait: bool | None = None,
    kernel: str | None,
    memory: str | None,
    disk: str | None,
    cpus: int | None,
    cmdline: str | None,
    firmware: str | None,
    graphics: str | None,
    **same: Any,
) -> CreateRequest:
    """The request that the options mean; what was not given keeps the request's own default. Raises UsageError."""
    changes: dict[str, Any] = {key: value for key, value in same.items() if value not in (None, ())}
    changes.update(_source(origin, kernel))
    if memory:
        changes["memory_bytes"] = parse_size(memory)
    if disk:
        changes["disk_bytes"] = parse_size(disk)
    numbers = {"vcpus": cpus, "kernel_arguments": cmdline, "ready_timeout_s": timeout_s}
    changes.update({key: value for key, value in numbers.items() if value is not None})
    if firmware:
        changes["firmware"] = Firmware(firmware)
    if graphics:
        changes["graphics"] = Graphics(graphics)
    if changes.get("initrd"):
        changes["initrd"] = _absolute(changes["initrd"])
    from dataclasses import replace

    base = tiny_request(name) if changes["source"] is SourceKind.TINY else CreateRequest(name=name)
    return replace(base, **changes, wait_ready=base.wait_ready if wait is None else wait)


def _source(origin: str | None, kernel: str | None) -> dict[str, Any]:
    if kernel:
        if origin and origin != SourceKind.KERNEL:
            raise UsageError("--from and --kernel both say what to boot", remedy="Give one of them")
        return {"source": SourceKind.KERNEL, "kernel": _absolute(kernel)}
    if not origin:
        raise UsageError("nothing says what it boots", remedy=f"Give --from {FROM_HELP.rstrip('.')}; or --kernel FILE")
    if origin in {SourceKind.TINY, SourceKind.EMPTY}:
        return {"source": SourceKind(origin)}
    if _URL.match(origin):
        shown = printable(origin, limit=200)
        raise UsageError(f"{shown} is an address, and --from takes a file", remedy="Download it first: curl -LO URL")
    path = _absolute(origin)
    if "/" not in origin and not Path(path).exists():
        raise NotFound(f"there is no file {printable(origin, limit=200)!r} here", remedy=f"--from takes {FROM_HELP}")
    if path.lower().endswith(".iso"):
        return {"source": SourceKind.ISO, "iso": path}
    return {"source": SourceKind.IMAGE, "image": path}


def _absolute(path: str) -> str:
    """An absolute path, links kept: libvirt knows no working directory."""
    return str(Path(path).expanduser().absolute())
