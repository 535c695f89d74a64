"""The error hierarchy of hvtui, its exit codes, and the one place where libvirt's errors are translated.

    HvtuiError            1  failed
    ├── UsageError        2  the request itself is wrong (bad value, malformed XML, bad configuration file)
    ├── NotFound          3  no such VM, job, volume, file
    ├── Conflict          4  the object exists, is busy, or is in the wrong state
    │   ├── NameTaken
    │   ├── WrongState
    │   └── Busy             another job or another libvirt client holds the VM
    ├── Denied            5  permission
    ├── ConnectionLost    6  the hypervisor cannot be reached, or was lost on the way
    ├── TimedOut          7
    ├── Unsupported       8  this host or driver cannot do it
    ├── Blocked           9  a precheck of a plan says no
    └── Cancelled       130  interrupted by the user

Each error says the object, the cause, and the remedy. This module never prints and never exits.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import libvirt

from host.text import printable


class HvtuiError(Exception):
    """A failure that a user can be told about. `remedy` says what to do; `about` names the object. `keeps` is for a
    step of a job that waited in vain: what the job made is whole and stays, and restarting the job waits again."""

    exit_code = 1

    def __init__(self, cause: str, *, about: str = "", remedy: str = "", keeps: bool = False) -> None:
        super().__init__(cause)
        self.cause = cause
        self.about = about
        self.remedy = remedy
        self.keeps = keeps

    def __str__(self) -> str:
        text = f"{printable(self.about)}: {self.cause}" if self.about else self.cause
        stop = "" if text.endswith((".", "?", "!", "…")) else "."
        return f"{text}{stop} {self.remedy}" if self.remedy else text


class UsageError(HvtuiError):
    """The request itself is wrong: a bad value, malformed XML, an unknown key."""

    exit_code = 2


class NotFound(HvtuiError):
    """The named object does not exist."""

    exit_code = 3


class Conflict(HvtuiError):
    """The object exists already, is busy, or is in a state that does not allow the request."""

    exit_code = 4


class NameTaken(Conflict):
    """Another object has that name."""


class WrongState(Conflict):
    """The VM's state does not allow the request."""


class Busy(Conflict):
    """Another job, or another client of libvirt, holds the VM."""


class Denied(HvtuiError):
    """The operating system or libvirt refuses permission."""

    exit_code = 5


class ConnectionLost(HvtuiError):
    """The hypervisor cannot be reached, or the connection broke during the call."""

    exit_code = 6


class TimedOut(HvtuiError):
    """The time given was not enough; the object may still get there."""

    exit_code = 7


class Unsupported(HvtuiError):
    """This host, driver or version cannot do it."""

    exit_code = 8


class Blocked(HvtuiError):
    """A precheck of a plan says no; the plan's blockers carry the reasons."""

    exit_code = 9


class Cancelled(HvtuiError):
    """The user interrupted the work."""

    exit_code = 130


_BY_CODE: dict[int, type[HvtuiError]] = {
    libvirt.VIR_ERR_NO_DOMAIN: NotFound,
    libvirt.VIR_ERR_NO_STORAGE_POOL: NotFound,
    libvirt.VIR_ERR_NO_STORAGE_VOL: NotFound,
    libvirt.VIR_ERR_NO_NETWORK: NotFound,
    libvirt.VIR_ERR_NO_DOMAIN_SNAPSHOT: NotFound,
    libvirt.VIR_ERR_DOM_EXIST: NameTaken,
    libvirt.VIR_ERR_STORAGE_VOL_EXIST: NameTaken,
    libvirt.VIR_ERR_OPERATION_INVALID: WrongState,
    libvirt.VIR_ERR_OPERATION_DENIED: Denied,
    libvirt.VIR_ERR_AUTH_FAILED: Denied,
    libvirt.VIR_ERR_AUTH_CANCELLED: Denied,
    libvirt.VIR_ERR_AUTH_UNAVAILABLE: Denied,
    libvirt.VIR_ERR_ACCESS_DENIED: Denied,
    libvirt.VIR_ERR_NO_CONNECT: ConnectionLost,
    libvirt.VIR_ERR_INVALID_CONN: ConnectionLost,
    libvirt.VIR_ERR_OPERATION_ABORTED: Cancelled,
    libvirt.VIR_ERR_NO_SUPPORT: Unsupported,
    libvirt.VIR_ERR_CONFIG_UNSUPPORTED: Unsupported,
    libvirt.VIR_ERR_OPERATION_UNSUPPORTED: Unsupported,
    libvirt.VIR_ERR_ARGUMENT_UNSUPPORTED: Unsupported,
    libvirt.VIR_ERR_XML_ERROR: UsageError,
    libvirt.VIR_ERR_XML_DETAIL: UsageError,
    libvirt.VIR_ERR_XML_INVALID_SCHEMA: UsageError,
    libvirt.VIR_ERR_INVALID_ARG: UsageError,
}

_REMEDY: dict[type[HvtuiError], str] = {
    ConnectionLost: "Is libvirtd (or virtqemud) running? hvtui reconnects by itself",
    Denied: "Join the group libvirt or become root; 'hvtui --demo' needs no permission",
    Busy: "Wait for the other operation, or see it with 'hvtui job list'",
}


def translate(error: libvirt.libvirtError, doing: str, about: str = "") -> HvtuiError:
    """The HvtuiError for a libvirt error met while `doing` (an infinitive, "start") `about` (a VM's name).

    A lost connection is known by its domain (VIR_FROM_RPC), not by a code: a broken socket shows up as
    several codes, VIR_ERR_INTERNAL_ERROR among them.
    """
    code, domain = error.get_error_code(), error.get_error_domain()
    message = printable(error.get_error_message() or str(error), limit=600)
    kind = _BY_CODE.get(code, HvtuiError)
    if domain == libvirt.VIR_FROM_RPC and kind is not Denied:
        kind = ConnectionLost
    elif code == libvirt.VIR_ERR_OPERATION_TIMEOUT:
        kind = Busy if "state change lock" in message else TimedOut
    elif code == libvirt.VIR_ERR_OPERATION_FAILED and "already exists" in message:
        kind = NameTaken
    elif code == libvirt.VIR_ERR_SYSTEM_ERROR and "Permission denied" in message:
        kind = Denied
    elif code == libvirt.VIR_ERR_SYSTEM_ERROR and "Failed to connect socket" in message:
        kind = ConnectionLost
    remedy = "Make room there" if "No space left on device" in message else _REMEDY.get(kind, "")
    return kind(f"cannot {doing}: {message}", about=about, remedy=remedy)


@contextmanager
def libvirt_errors(doing: str, about: str = "") -> Iterator[None]:
    """Translate every libvirt error raised inside the block; see `translate`."""
    try:
        yield
    except libvirt.libvirtError as error:
        raise translate(error, doing, about) from error
