"""The step that waits until a new VM's guest answers. It changes nothing, and it never fails for a silent guest:
whether one answers is for a person to judge.

Ready is an agent that answers a harmless question; for a tiny guest built without an agent it is the marker on its
serial console.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Any

import libvirt

from host.steps import Args, Result, StepContext, StepVerb, register
from vm import tiny
from vm.domain_xml import read_config

POLL_S = 0.3


def _wait(ctx: StepContext, args: Args) -> Result:
    started_s = time.monotonic()
    with ctx.calls("wait for", args["name"]) as connection:
        domain = connection.lookupByUUIDString(args["uuid"])
        with _readiness(ctx, connection, domain, args) as is_ready:
            while True:
                ctx.raise_if_cancelled()
                if not domain.isActive():
                    return _gave_up(ctx, "it stopped again; its console or the log of QEMU may say why")
                if is_ready():
                    ctx.progress(1.0, "ready")
                    return {"ready": True}
                waited_s = time.monotonic() - started_s
                if waited_s >= args["timeout_s"]:
                    hint = "it runs, but its agent did not answer. Is qemu-guest-agent installed in it?"
                    return _gave_up(ctx, f"waited {waited_s:.0f} s: {hint}")
                ctx.progress(None, f"waiting for the guest, {waited_s:.0f} s")
                time.sleep(POLL_S)


def _gave_up(ctx: StepContext, warning: str) -> Result:
    ctx.progress(1.0, warning)
    return {"ready": False, "warning": warning}


@contextlib.contextmanager
def _readiness(
    ctx: StepContext, connection: libvirt.virConnect, domain: Any, args: Args
) -> Iterator[Callable[[], bool]]:
    guest = tiny.find(args["tiny_key"]) if args["tiny_key"] else None
    if ctx.host.is_simulated:
        yield lambda: True  # the test driver's guests have neither agent nor console
    elif guest is not None and not guest.has_agent:
        with _console_marker(connection, domain) as is_seen:
            yield is_seen
    else:
        yield lambda: _agent_answers(domain)


def _agent_answers(domain: Any) -> bool:
    if not read_config(domain.XMLDesc(0)).agent_connected:
        return False
    try:
        domain.getTime()
    except libvirt.libvirtError as error:
        if error.get_error_domain() == libvirt.VIR_FROM_RPC:
            raise
        return False
    return True


@contextlib.contextmanager
def _console_marker(connection: libvirt.virConnect, domain: Any) -> Iterator[Callable[[], bool]]:
    stream = connection.newStream(libvirt.VIR_STREAM_NONBLOCK)
    domain.openConsole(None, stream, libvirt.VIR_DOMAIN_CONSOLE_SAFE)
    seen = bytearray()

    def is_seen() -> bool:
        while isinstance(chunk := stream.recv(4096), bytes) and chunk:
            seen.extend(chunk)
        return tiny.READY_MARKER.encode() in seen

    try:
        yield is_seen
    finally:
        with contextlib.suppress(libvirt.libvirtError):
            stream.abort()


register(StepVerb("create.wait", _wait, None, lambda _args, _result: None))
