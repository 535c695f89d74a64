"""Asks a guest to shut down or restart, and waits until it did: the agent first, then ACPI; it never forces.

libvirt itself gives an agent that does not answer 5 s (VIR_DOMAIN_QEMU_AGENT_COMMAND_DEFAULT) and one that answers 60 s
to carry the request out, and blocks meanwhile: so that call runs on a thread of its own, and ACPI follows when the
agent fails or takes too long. A guest that is still booting loses the ACPI event, so that one is sent again every few
seconds. No timeout is set on the VM itself: libvirt has no way to read the old one back.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import libvirt

from host.errors import Cancelled, TimedOut
from host.steps import Args, StepContext
from vm.background import BackgroundCall
from vm.commands import hint

POLL_S = 0.5
CANCEL_POLL_S = 0.1
AGENT_ANSWER_S = 6.0  # by then libvirt has told whether the agent is there at all
AGENT_PATIENCE_S = 15.0  # by then a guest that obeys its agent is on its way; ACPI on top does no harm
ACPI_AGAIN_S = 5.0  # a power button pressed again does no harm
GOES_OFF_S = 2.0  # libvirt needs a moment to see that a QEMU is gone
_NO_SUCH_FLAG = frozenset({libvirt.VIR_ERR_INVALID_ARG, libvirt.VIR_ERR_ARGUMENT_UNSUPPORTED})

DomainCall = Callable[[Any], object]


class AskResult(StrEnum):
    REACTED = "reacted"
    ASKED = "asked"  # and not waited for
    SILENT = "silent"  # not within the time given


@dataclass(frozen=True, slots=True)
class Request:
    """What to ask for, in the three ways of libvirt; `plain` is for drivers that know no ways."""

    doing: str
    agent: DomainCall
    acpi: DomainCall
    plain: DomainCall
    restarts: bool = False

    def no_reaction(self, args: Args) -> TimedOut:
        """The error for a guest that neither the agent nor ACPI moved."""
        name, force = args["name"], "reset" if self.restarts else "off"
        return TimedOut(
            f"the guest did not react: asked by agent and ACPI to {self.doing}, waited {args['timeout_s']:.0f} s",
            about=name,
            remedy=f"Look at its console with {hint('console', name)}, or force it with {hint(force, name)}",
        )


def ask(ctx: StepContext, args: Args, request: Request) -> AskResult:
    """Ask, and wait at most args["timeout_s"] seconds (not at all when args["wait"] is false). Raises Cancelled at
    once when the user cancels; the guest may react all the same."""
    with ctx.calls(request.doing, args["name"]) as connection:
        domain = connection.lookupByUUIDString(args["uuid"])
        with _reboot_seen(connection, domain, request) as rebooted:
            return _Asking(ctx, args, request, domain, rebooted).run()


class _Asking:
    def __init__(self, ctx: StepContext, args: Args, request: Request, domain: Any, rebooted: threading.Event) -> None:
        self._ctx, self._args, self._request, self._domain = ctx, args, request, domain
        self._rebooted = rebooted
        self._started_s = time.monotonic()
        self._agent = BackgroundCall(ctx, args, doing=request.doing, call=request.agent)
        self._asked = "agent"
        self._acpi_count = 0
        self._acpi_at_s = 0.0

    def run(self) -> AskResult:
        wait = self._args.get("wait", True)
        while True:
            if self._has_reacted():
                return AskResult.REACTED
            elapsed_s = time.monotonic() - self._started_s
            if self._asked == "agent" and self._agent_is_no_help(elapsed_s):
                self._ask_by_acpi()
                continue
            if not wait and (self._asked != "agent" or self._agent.is_over or elapsed_s >= AGENT_ANSWER_S):
                return AskResult.ASKED
            if wait and elapsed_s >= self._args["timeout_s"]:
                return AskResult.SILENT
            if self._acpi_count and time.monotonic() - self._acpi_at_s >= ACPI_AGAIN_S:
                self._ask_by_acpi()
            times = f" {self._acpi_count} times" if self._acpi_count > 1 else ""
            limit = f" of {self._args['timeout_s']:.0f}" if wait else ""
            self._ctx.progress(None, f"asked {self._asked}{times}, {elapsed_s:.0f}{limit} s")
            self._pause()

    def _agent_is_no_help(self, elapsed_s: float) -> bool:
        return self._agent.error is not None or elapsed_s >= AGENT_PATIENCE_S

    def _ask_by_acpi(self) -> None:
        self._asked, self._acpi_at_s = "ACPI", time.monotonic()
        self._acpi_count += 1
        try:
            self._press()
        except libvirt.libvirtError as error:
            # It goes off while its button is pressed: libvirt refuses, or has lost the monitor under the call.
            if error.get_error_domain() == libvirt.VIR_FROM_RPC or not self._goes_off():
                raise

    def _press(self) -> None:
        try:
            self._request.acpi(self._domain)
        except libvirt.libvirtError as error:
            if error.get_error_code() not in _NO_SUCH_FLAG:
                raise
            self._request.plain(self._domain)

    def _goes_off(self) -> bool:
        until_s = time.monotonic() + GOES_OFF_S
        while not (is_off := self._has_reacted()) and time.monotonic() < until_s:
            time.sleep(CANCEL_POLL_S)
        return is_off

    def _has_reacted(self) -> bool:
        if self._request.restarts and (self._rebooted.is_set() or (self._agent.is_over and not self._agent.error)):
            return True
        try:
            return not self._domain.isActive()
        except libvirt.libvirtError as error:
            if error.get_error_code() == libvirt.VIR_ERR_NO_DOMAIN:
                return True  # a transient VM that ended
            raise

    def _pause(self) -> None:
        until_s = time.monotonic() + POLL_S
        while (left_s := until_s - time.monotonic()) > 0:
            if self._ctx.is_cancelled():
                raise Cancelled("no longer waiting; the guest was asked and may still react", about=self._args["name"])
            slice_s = min(left_s, CANCEL_POLL_S)
            if self._agent.is_over:
                time.sleep(slice_s)
            elif self._agent.wait(slice_s):
                return  # its answer decides what comes next


@contextmanager
def _reboot_seen(connection: Any, domain: Any, request: Request) -> Iterator[threading.Event]:
    """An event that is set when the guest restarts: libvirt has no state for it."""
    seen = threading.Event()
    if not request.restarts:
        yield seen
        return
    callback_id = connection.domainEventRegisterAny(
        domain, libvirt.VIR_DOMAIN_EVENT_ID_REBOOT, lambda *_: seen.set(), None
    )
    try:
        yield seen
    finally:
        connection.domainEventDeregisterAny(callback_id)
