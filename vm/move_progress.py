"""libvirt's job statistics of a migration as progress, and what people want of it as calls.

Totals of zero at the start mean that libvirt is still preparing. Rates are bytes a second.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import libvirt

from host.errors import HvtuiError, UsageError
from host.units import MIB, format_bytes, parse_size

BANDWIDTH, DOWNTIME, POSTCOPY, QUICK = "bandwidth", "downtime", "postcopy", "quick"


@dataclass(frozen=True, slots=True)
class Moment:
    """A migration as it is now. `iteration` counts the rounds over the memory."""

    elapsed_s: float = 0.0
    total_bytes: int = 0
    done_bytes: int = 0
    remaining_bytes: int = 0
    memory_bytes_s: float = 0.0
    disk_bytes_s: float = 0.0
    dirty_bytes_s: float = 0.0
    disk_remaining_bytes: int = 0
    iteration: int = 0
    throttle_percent: int = 0
    downtime_s: float | None = None
    setup_s: float | None = None
    is_postcopy: bool = False

    @property
    def is_preparing(self) -> bool:
        """Nothing is known of how much there is to send."""
        return self.total_bytes == 0

    @property
    def fraction(self) -> float | None:
        """How far it is, 0..1; None while it prepares."""
        if self.is_preparing:
            return None
        return min(max(1.0 - self.remaining_bytes / self.total_bytes, 0.0), 1.0)

    @property
    def phase(self) -> str:
        """What is being done: preparing, copying disks, copying memory, round 3, post-copy."""
        if self.is_preparing:
            return "preparing"
        if self.is_postcopy:
            return "post-copy"
        if self.disk_remaining_bytes and self.iteration <= 1:
            return "copying disks"
        return "copying memory" if self.iteration <= 1 else f"memory, round {self.iteration}"


def moment_of(statistics: Mapping[str, Any]) -> Moment:
    """The moment in libvirt's statistics; an empty mapping is the time of preparation."""

    def number(*names: str) -> int:
        return next((int(statistics[name]) for name in names if name in statistics), 0)

    page_bytes = number("memory_page_size") or 4096
    return Moment(
        elapsed_s=number("time_elapsed") / 1000,
        total_bytes=number("data_total", "memory_total"),
        done_bytes=number("data_processed", "memory_processed"),
        remaining_bytes=number("data_remaining", "memory_remaining"),
        memory_bytes_s=number("memory_bps"),
        disk_bytes_s=number("disk_bps"),
        dirty_bytes_s=number("memory_dirty_rate") * page_bytes,
        disk_remaining_bytes=number("disk_remaining"),
        iteration=number("memory_iteration"),
        throttle_percent=number("auto_converge_throttle"),
        downtime_s=number("downtime") / 1000 if "downtime" in statistics else None,
        setup_s=number("setup_time") / 1000 if "setup_time" in statistics else None,
        is_postcopy=number("memory_postcopy_reqs") > 0,
    )


def words_of(moment: Moment) -> str:
    """A moment in one line, what matters most first: "34M of 128M left, 118M/s, downtime 40 ms, dirty 4.2M/s, copying
    memory"."""
    if moment.is_preparing:
        return moment.phase
    words = [f"{format_bytes(moment.remaining_bytes)} of {format_bytes(moment.total_bytes)} left"]
    rate = moment.memory_bytes_s + moment.disk_bytes_s
    if rate:
        words.append(f"{format_bytes(rate)}/s")
    if moment.downtime_s:
        words.append(f"downtime {moment.downtime_s * 1000:.0f} ms")
    if moment.dirty_bytes_s:
        words.append(f"dirty {format_bytes(moment.dirty_bytes_s)}/s")
    if moment.throttle_percent:
        words.append(f"guest slowed by {moment.throttle_percent}%")
    return ", ".join((*words, moment.phase))


# Wishes


def milliseconds(text: str) -> int:
    """ "300ms" or "0.3s" or "300" in milliseconds. Raises UsageError."""
    stripped = text.strip().lower()
    factor = 1.0
    for unit, of in (("ms", 1.0), ("s", 1000.0)):
        if stripped.endswith(unit):
            stripped, factor = stripped.removesuffix(unit).strip(), of
            break
    try:
        value = float(stripped) * factor
    except ValueError:
        value = -1.0
    if not 0 < value <= 2_000_000:
        raise UsageError(f"{text!r} is no downtime", remedy="Write it as 300ms or 0.5s (at most 2000 s)")
    return max(round(value), 1)


def bytes_a_second(text: str) -> int:
    """ "100M" or "100M/s" in bytes a second. Raises UsageError."""
    return parse_size(text.strip().removesuffix("/s").removesuffix("/S"))


def mib_a_second(bytes_s: int) -> int:
    """As libvirt counts a bandwidth; never 0, which means no limit."""
    return max(round(bytes_s / MIB), 1)


def grant(domain: Any, name: str, value: str) -> str:
    """Tell libvirt what is wanted of a migration under way; returns what was done, in words. A wish that cannot be
    granted is no failure of the move. Raises libvirtError when the connection is lost."""
    try:
        return _grant(domain, name, value)
    except HvtuiError as error:
        return error.cause
    except libvirt.libvirtError as error:
        if error.get_error_domain() == libvirt.VIR_FROM_RPC:
            raise
        return f"{name} cannot be changed: {error.get_error_message()}"


def _grant(domain: Any, name: str, value: str) -> str:
    if name == BANDWIDTH:
        wanted = mib_a_second(bytes_a_second(value))
        domain.migrateSetMaxSpeed(wanted, 0)
        with suppress(libvirt.libvirtError):  # only where post-copy is permitted
            domain.migrateSetMaxSpeed(wanted, libvirt.VIR_DOMAIN_MIGRATE_MAX_SPEED_POSTCOPY)
        return f"bandwidth limited to {wanted}M/s"
    if name == DOWNTIME:
        wanted = milliseconds(value)
        domain.migrateSetMaxDowntime(wanted, 0)
        return f"downtime limited to {wanted} ms"
    if name == POSTCOPY:
        domain.migrateStartPostCopy(0)
        return "post-copy begun"
    return ""
