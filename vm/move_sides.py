"""Looks at both hosts of a move: where the VM is defined, where it runs, and whether libvirt is moving it just now.

Every step of a move begins with this look. The definition that a move made at the target carries the plan's mark in an
element of the VM's metadata (a namespace of its own), so that a step removes only what its own plan made. This module
changes nothing but that element.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any
from xml.etree.ElementTree import Element, SubElement

import libvirt

from host.connection import Host
from host.errors import Busy, HvtuiError
from host.steps import Args, StepContext
from vm.create_steps import or_none
from vm.domain_xml import parse, to_text

MOVE_NAMESPACE = "https://hvtui.org/xmlns/move/1"
MOVE_ELEMENT = f"{{{MOVE_NAMESPACE}}}move"
NO_DOMAIN = frozenset({libvirt.VIR_ERR_NO_DOMAIN})
_POLL_S = 0.2
_LOOKS = 10
_INACTIVE = libvirt.VIR_DOMAIN_XML_INACTIVE
_HELD = frozenset(
    {
        libvirt.VIR_DOMAIN_PAUSED_MIGRATION,
        libvirt.VIR_DOMAIN_PAUSED_STARTING_UP,
        libvirt.VIR_DOMAIN_PAUSED_POSTCOPY,
        libvirt.VIR_DOMAIN_PAUSED_POSTCOPY_FAILED,
    }
)
_CUT = frozenset(
    {
        (libvirt.VIR_DOMAIN_PAUSED, libvirt.VIR_DOMAIN_PAUSED_POSTCOPY_FAILED),
        (libvirt.VIR_DOMAIN_RUNNING, libvirt.VIR_DOMAIN_RUNNING_POSTCOPY_FAILED),
    }
)
_POSTCOPY = frozenset(
    {
        (libvirt.VIR_DOMAIN_PAUSED, libvirt.VIR_DOMAIN_PAUSED_POSTCOPY),
        (libvirt.VIR_DOMAIN_RUNNING, libvirt.VIR_DOMAIN_RUNNING_POSTCOPY),
    }
)
_MOVES: frozenset[int] = frozenset(
    {libvirt.VIR_DOMAIN_JOB_OPERATION_MIGRATION_IN, libvirt.VIR_DOMAIN_JOB_OPERATION_MIGRATION_OUT}
)


@dataclass(frozen=True, slots=True)
class Side:
    """The VM on one host. `mark` is that of the move which made its definition there; `is_held`: libvirt keeps it
    paused (its memory is still to come in, or it is just changing hands); `is_migrating`: libvirt moves it."""

    is_there: bool = False
    is_active: bool = False
    is_running: bool = False
    is_held: bool = False
    is_migrating: bool = False
    is_persistent: bool = False
    has_saved_state: bool = False
    autostart: bool = False
    mark: str = ""
    is_postcopy: bool = False  # it runs at the target, and the rest of its memory is still to come
    is_cut: bool = False  # post-copy was cut off: a part of its memory is here, the rest on the other host

    @property
    def has_guest(self) -> bool:
        """True where the guest is: it runs, or was paused by somebody."""
        return self.is_active and not self.is_held

    @property
    def is_whole(self) -> bool:
        """True where its guest runs with all of its memory."""
        return self.is_running and not (self.is_postcopy or self.is_cut)


def has_left(here: Side, there: Side) -> bool:
    """Whether the VM has changed hosts for good, also where its guest has ended since: the source's definition goes
    last, so what the target has is the only one."""
    return there.is_there and not here.is_there


def look(ctx: StepContext, args: Args) -> tuple[Side, Side]:
    """The VM at the source and at the target. Raises ConnectionLost where either does not answer.

    One that libvirt moves by itself may change hosts between the two looks, and seem to be on both: only one that stays
    on both is."""
    for _ in range(_LOOKS):
        here, there = look_at(ctx.host, args), look_at(ctx.peer(args["target"]), args)
        if not (here.has_guest and there.has_guest):
            break
        time.sleep(_POLL_S)
    return here, there


def look_at(host: Host, args: Args) -> Side:
    """The VM on `host`. Raises ConnectionLost."""
    with host.calls("look for", args["name"]) as connection:
        domain = or_none(connection.lookupByUUIDString, args["uuid"], missing=NO_DOMAIN)
        if domain is None:
            return Side()
        try:
            side = side_of(domain)
            if args.get("is_paused") and not side.is_migrating and not side.is_cut:
                return replace(side, is_held=False)  # libvirt calls a guest that it restored paused so, for ever
            return side
        except libvirt.libvirtError as error:
            if error.get_error_code() in NO_DOMAIN:  # it went in between
                return Side()
            raise


def side_of(domain: Any) -> Side:
    """What is known of a domain that is there. Raises libvirtError."""
    is_persistent = bool(domain.isPersistent())
    is_active, (state, reason) = _life_of(domain)
    is_postcopy = (state, reason) in _POSTCOPY
    is_migrating = is_active and (is_moved(domain) or is_postcopy)  # a libvirtd that began anew knows of no job
    return Side(
        is_there=True,
        is_active=is_active,
        is_running=state == libvirt.VIR_DOMAIN_RUNNING,
        is_held=state == libvirt.VIR_DOMAIN_PAUSED and (reason in _HELD or (is_migrating and _is_coming(domain))),
        is_migrating=is_migrating,
        is_persistent=is_persistent,
        has_saved_state=bool(domain.hasManagedSaveImage(0)),
        autostart=is_persistent and bool(domain.autostart()),
        mark=mark_of(domain) if is_persistent else "",
        is_postcopy=is_postcopy,
        is_cut=(state, reason) in _CUT,
    )


def _life_of(domain: Any) -> tuple[bool, tuple[int, int]]:
    """Whether it is active, and its state with the reason, of one moment: two calls, between which it may end."""
    for _ in range(_LOOKS):
        is_active, state = bool(domain.isActive()), tuple(domain.state(0))
        if bool(domain.isActive()) == is_active and tuple(domain.state(0)) == state:
            break
    return is_active, (state[0], state[1])


def is_moved(domain: Any) -> bool:
    """Whether libvirt is migrating it, away from here or to here."""
    return operation_of(domain) in _MOVES


def _is_coming(domain: Any) -> bool:
    return bool(operation_of(domain) == libvirt.VIR_DOMAIN_JOB_OPERATION_MIGRATION_IN)


def operation_of(domain: Any) -> int:
    """Which of libvirt's jobs the domain is busy with; 0 for none or when it cannot be told."""
    return int(statistics_of(domain).get("operation", 0))


def statistics_of(domain: Any) -> Mapping[str, Any]:
    """libvirt's job statistics; empty when there is no job, or the domain is gone (the normal end of a migration)."""
    try:
        found: Mapping[str, Any] = domain.jobStats(0)
    except libvirt.libvirtError as error:
        if error.get_error_domain() == libvirt.VIR_FROM_RPC:
            raise
        return {}
    return found if found.get("type", 0) != libvirt.VIR_DOMAIN_JOB_NONE else {}


@contextmanager
def behind_the_hand_over() -> Iterator[None]:
    """For steps behind the moment when the VM changes hands: an error takes nothing back, the job is restarted."""
    try:
        yield
    except HvtuiError as error:
        error.keeps = True
        raise


# The mark


def mark_of(domain: Any) -> str:
    """The mark of the move that made this persistent definition; empty for any other."""
    return mark_in(parse(domain.XMLDesc(_INACTIVE)))


def mark_in(root: Element) -> str:
    found = root.find(f"metadata/{MOVE_ELEMENT}")
    return "" if found is None else found.get("mark", "")


def with_mark(root: Element, mark: str) -> Element:
    """`root` with the mark of a move in its metadata."""
    metadata = root.find("metadata")
    if metadata is None:
        metadata = SubElement(root, "metadata")
    without_mark(root)
    SubElement(metadata, MOVE_ELEMENT, mark=mark)
    return root


def without_mark(root: Element) -> Element:
    """`root` without the mark of a move."""
    metadata = root.find("metadata")
    for element in root.findall(f"metadata/{MOVE_ELEMENT}") if metadata is not None else ():
        if metadata is not None:
            metadata.remove(element)
    return root


def unmark(connection: Any, domain: Any, own: str) -> None:
    """Take the mark `own` out of the domain's persistent definition."""
    root = parse(domain.XMLDesc(_INACTIVE | libvirt.VIR_DOMAIN_XML_SECURE))
    if mark_in(root) == own:
        connection.defineXML(to_text(without_mark(root)))


# Waiting


def wait_until_quiet(ctx: StepContext, args: Args, *, patience_s: float) -> tuple[Side, Side]:
    """Wait until libvirt moves the VM no more, on either host: a call that a killed process made goes on. Raises Busy
    after `patience_s`, ConnectionLost."""
    until_s = time.monotonic() + patience_s
    while True:
        here, there = look(ctx, args)
        if here.is_cut or not (here.is_migrating or there.is_migrating or there.is_held or here.is_held):
            return here, there
        if time.monotonic() > until_s:
            remedy = "Wait until it has ended, then restart the job"
            raise Busy("libvirt is still moving it", about=args["name"], remedy=remedy)
        ctx.progress(None, "waiting until libvirt's own migration has ended")
        time.sleep(_POLL_S)
