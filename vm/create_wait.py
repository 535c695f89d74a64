"""The step that waits until a new VM's guest answers. It changes nothing, and it never fails for a silent guest:
whether one answers is for a person to judge. Who cancels it only stops waiting: the VM that was made stays.

Ready is an agent that answers a harmless question; for a tiny guest built without an agent it is the marker on its
serial console.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator

import libvirt

from host.steps import Args, Result, StepContext, StepVerb, register
from vm import tiny
from vm.domain_xml import read_config

POLL_S = 0.3
_STOPPED = "stopped waiting; its guest has not answered"


def _wait(ctx: StepContext, args: Args) -> Result:
    try:
        return _wait_until_ready(ctx, args)
    except KeyboardInterrupt:
        return _gave_up(ctx, _STOPPED)


def _wait_until_ready(ctx: StepContext, args: Args) -> Result:
    started_s = time.monotonic()
    with _readiness(ctx, args) as is_ready:
        while True:
            if ctx.is_cancelled():
                return _gave_up(ctx, _STOPPED)
            answer = is_ready()
            if answer is None:
                return _gave_up(ctx, "it stopped again; its console or the log of QEMU may say why")
            if answer:
                ctx.progress(1.0, "ready")
                return {"ready": True}
            waited_s = time.monotonic() - started_s
            if waited_s >= args["timeout_s"]:
                hint = "It runs; is qemu-guest-agent installed in it?"
                return _gave_up(ctx, f"its guest has not answered within {waited_s:.0f} s. {hint}")
            ctx.progress(None, f"waiting for the guest, {waited_s:.0f} s")
            time.sleep(POLL_S)


def _gave_up(ctx: StepContext, warning: str) -> Result:
    ctx.progress(1.0, warning)
    return {"ready": False, "warning": warning}


_IsReady = Callable[[], bool | None]  # None: the VM does not run any more


@contextlib.contextmanager
def _readiness(ctx: StepContext, args: Args) -> Iterator[_IsReady]:
    guest = tiny.find(args["tiny_key"]) if args["tiny_key"] else None
    if guest is not None and not guest.has_agent:
        with _console_marker(ctx, args) as is_seen:
            yield is_seen
    else:
        yield lambda: _agent_answers(ctx, args)


def _agent_answers(ctx: StepContext, args: Args) -> bool | None:
    with ctx.calls("wait for", args["name"]) as connection:
        domain = connection.lookupByUUIDString(args["uuid"])
        if not domain.isActive():
            return None
        if ctx.host.is_simulated:
            return True  # the test driver's guests have neither agent nor console
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
def _console_marker(ctx: StepContext, args: Args) -> Iterator[_IsReady]:
    with ctx.calls("read the console of", args["name"]) as connection:
        domain = connection.lookupByUUIDString(args["uuid"])
        stream = connection.newStream(libvirt.VIR_STREAM_NONBLOCK)
        domain.openConsole(None, stream, libvirt.VIR_DOMAIN_CONSOLE_SAFE)
        seen = bytearray()

        def is_seen() -> bool | None:
            while isinstance(chunk := stream.recv(4096), bytes) and chunk:
                seen.extend(chunk)
            if tiny.READY_MARKER.encode() in seen:
                return True
            return False if domain.isActive() else None

        try:
            yield is_seen
        finally:
            with contextlib.suppress(libvirt.libvirtError):
                stream.abort()


register(StepVerb("create.wait", _wait, None, lambda _args, _result: None))
