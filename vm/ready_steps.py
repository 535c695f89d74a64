"""The step that waits until a deployed guest is ready, in the way that its template tells it: the end of cloud-init, by
the agent or on the serial console, or an agent that answers. It changes nothing.

A guest that does not get there in time, or stops, fails the job (exit codes 7 and 4) and keeps the VM: the job can be
restarted, which waits again and then takes the seed away, or rolled back. Who cancels takes the VM back as well.
What the guest says is not trusted: it is read with limits, and shown as any text of a guest.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import libvirt

from host.errors import TimedOut, WrongState
from host.steps import Args, Result, StepContext, StepVerb, register
from host.text import printable
from vm.cloud_init_status import CloudInit, from_files
from vm.guest_files import AgentAnswer, AgentState, read_guest_files
from vm.ready_console import ANY_LINE, CLOUD_INIT_LINE, ConsoleWatch
from vm.template_model import Readiness

POLL_S = 0.5
_STATUS_FILE, _RESULT_FILE = "/run/cloud-init/status.json", "/run/cloud-init/result.json"
_PAUSED_BY_ITSELF = {
    libvirt.VIR_DOMAIN_PAUSED_IOERROR: "it was paused by a disk error: its pool may be full",
    libvirt.VIR_DOMAIN_PAUSED_CRASHED: "its guest crashed",
    libvirt.VIR_DOMAIN_PAUSED_WATCHDOG: "its watchdog paused it",
}


@dataclass(frozen=True, slots=True)
class _Seen:
    """What is known of the guest at one moment. `note` says in words how far it is; `warning` what went wrong in a
    guest that is ready all the same."""

    is_ready: bool = False
    note: str = "booting"
    warning: str = ""


def _wait(ctx: StepContext, args: Args) -> Result:
    """Wait until it is ready. Raises TimedOut and WrongState with `keeps`, Cancelled."""
    if ctx.host.is_simulated or args["readiness"] == Readiness.NONE:
        return {"ready": True}  # the test driver's guests have neither agent nor console
    started_s = time.monotonic()
    with _watched_console(ctx, args) as console:
        while True:
            ctx.raise_if_cancelled()
            seen = _look(ctx, args, console)
            if seen.is_ready:
                ctx.progress(1.0, "ready")
                return {"ready": True, **({"warning": seen.warning} if seen.warning else {})}
            waited_s = time.monotonic() - started_s
            if waited_s >= args["timeout_s"]:
                raise _too_late(ctx, args, seen, waited_s)
            ctx.progress(None, f"{seen.note}, {waited_s:.0f} s")
            time.sleep(POLL_S)


def _too_late(ctx: StepContext, args: Args, seen: _Seen, waited_s: float) -> TimedOut:
    cause = f"it runs, but is not ready after {waited_s:.0f} s ({printable(seen.note, limit=120)})"
    remedy = f"Look at its console. Wait again with 'hvtui job restart {ctx.job_id}'; its seed goes when it is ready"
    return TimedOut(cause, about=args["name"], remedy=remedy, keeps=True)


@contextlib.contextmanager
def _watched_console(ctx: StepContext, args: Args) -> Iterator[ConsoleWatch | None]:
    if args["readiness"] == Readiness.AGENT:
        yield None
        return
    line = ANY_LINE if args["readiness"] == Readiness.SERIAL else CLOUD_INIT_LINE
    with ConsoleWatch(ctx.host, args["uuid"], args["name"], line=line) as console:
        yield console


def _look(ctx: StepContext, args: Args, console: ConsoleWatch | None) -> _Seen:
    with ctx.calls("wait for", args["name"]) as connection:
        domain = connection.lookupByUUIDString(args["uuid"])
        _refuse_stopped(args, domain)
        answer = AgentAnswer(AgentState.ABSENT)
        if args["readiness"] != Readiness.SERIAL:
            paths = (_RESULT_FILE, _STATUS_FILE) if args["readiness"] == Readiness.CLOUD_INIT else ()
            answer = read_guest_files(domain, paths)
    if args["readiness"] == Readiness.AGENT:
        return _Seen(is_ready=answer.state is not AgentState.ABSENT)
    if answer.state is AgentState.ANSWERS and args["readiness"] == Readiness.CLOUD_INIT:
        if console is not None:
            console.release()  # the agent tells more, and a person may want the console
        return _by_agent(answer)
    return _by_console(answer, console)


def _refuse_stopped(args: Args, domain: Any) -> None:
    """Raise WrongState for a guest that is not going to be ready."""
    state, reason = domain.state()
    cause = ""
    if state in {libvirt.VIR_DOMAIN_SHUTOFF, libvirt.VIR_DOMAIN_CRASHED}:
        cause = "its guest crashed" if state == libvirt.VIR_DOMAIN_CRASHED else "it stopped again"
    elif state == libvirt.VIR_DOMAIN_PAUSED:
        cause = _PAUSED_BY_ITSELF.get(reason, "")
    if cause:
        remedy = "Its console or the log of QEMU may say why. Restart the job when it runs, or roll the job back"
        raise WrongState(f"{cause} before it was ready", about=args["name"], remedy=remedy, keeps=True)


def _by_agent(answer: AgentAnswer) -> _Seen:
    status: CloudInit = from_files(answer.files.get(_RESULT_FILE), answer.files.get(_STATUS_FILE))
    if not status.is_done:
        return _Seen(note=f"cloud-init: {status.stage}" if status.stage else "agent up, cloud-init has not begun")
    return _Seen(is_ready=True, note="ready", warning=_in_words(status))


def _in_words(status: CloudInit) -> str:
    if status.errors:
        told = "; ".join(printable(error, limit=200) for error in status.errors[:3])
        return f"ready, but cloud-init reported: {told}. See /var/log/cloud-init.log in the guest"
    if not status.has_seed:
        return "ready, but cloud-init found no seed: the guest has its template's own name and users"
    return ""


def _by_console(answer: AgentAnswer, console: ConsoleWatch | None) -> _Seen:
    if console is not None and console.is_ready:
        return _Seen(is_ready=True, note="ready")
    if answer.state is AgentState.REFUSES:
        return _Seen(note="agent up, but it may not say what cloud-init does; reading the console")
    if console is not None and console.is_taken:
        return _Seen(note="booting; somebody else reads its console")
    return _Seen()


register(StepVerb("deploy.ready", _wait, None, lambda _args, _result: None))
