"""Forecasts how long a move takes and how long the guest stands still, from what was read. Pure functions.

Live migration copies the memory once, then again what the guest wrote meanwhile, and so on: each round is the part of
the last one that the guest can dirty while it is sent, until the rest fits into the permitted downtime.
"""

from __future__ import annotations

from host.units import format_bytes
from vm.move_copies import copied_disks
from vm.move_model import Forecast, MoveKind, MoveOptions, MovePicture

START_S = 0.8  # a QEMU at the target, and the talk between two libvirts
SWITCH_S = 0.05
DOWNTIME_S = 0.3  # QEMU's own limit
IMAGE_BYTES_S = 300e6  # a saved state to and from a disk
STATE_S = 0.4  # a QEMU that ends, and one that starts
MOST_ROUNDS = 50


def forecast(picture: MovePicture, kind: MoveKind, options: MoveOptions | None = None) -> Forecast:
    """What a move of that kind would take."""
    options = options or MoveOptions()
    bytes_s = min(picture.link.bytes_s, options.bandwidth_bytes_s or picture.link.bytes_s)
    basis = (picture.link.basis,)
    disk_bytes = sum(min(disk.allocation_bytes, disk.capacity_bytes) for disk in copied_disks(picture, kind))
    memory_bytes = min(picture.resident_bytes or picture.memory_bytes, picture.memory_bytes)
    match kind:
        case MoveKind.LIVE | MoveKind.LIVE_STORAGE:
            return _live(picture, kind, options, memory_bytes, disk_bytes, bytes_s, basis)
        case MoveKind.QUICK:
            copying_s = 2 * memory_bytes / IMAGE_BYTES_S + disk_bytes / bytes_s
            downtime_s = copying_s + 2 * STATE_S
            return Forecast(kind, downtime_s + STATE_S, downtime_s, int(memory_bytes + disk_bytes), basis=basis)
        case MoveKind.OFFLINE | MoveKind.STORAGE:
            return Forecast(kind, disk_bytes / bytes_s + STATE_S, 0.0, disk_bytes, basis=basis)
        case MoveKind.DEFINITION:
            return Forecast(kind, STATE_S, 0.0, 0)


def _live(
    picture: MovePicture,
    kind: MoveKind,
    options: MoveOptions,
    memory_bytes: float,
    disk_bytes: float,
    bytes_s: float,
    basis: tuple[str, ...],
) -> Forecast:
    limit_s = options.downtime_ms / 1000 if options.downtime_ms else DOWNTIME_S
    dirty_bytes_s = picture.dirty_bytes_s or 0.0
    if picture.dirty_bytes_s is None:
        basis = (*basis, "how fast the guest writes to its memory is not known")
    left, total_s, sent = memory_bytes, disk_bytes / bytes_s, disk_bytes
    rounds = 0
    while left > bytes_s * limit_s and rounds < MOST_ROUNDS:
        round_s = left / bytes_s
        total_s, sent, rounds = total_s + round_s, sent + left, rounds + 1
        if dirty_bytes_s >= 0.95 * bytes_s:
            return Forecast(kind, START_S + total_s, limit_s, int(sent), converges=False, basis=basis)
        left = min(dirty_bytes_s * round_s, memory_bytes)
    downtime_s = SWITCH_S + left / bytes_s
    total_s += START_S + downtime_s
    return Forecast(kind, total_s, downtime_s, int(sent + left), converges=rounds < MOST_ROUNDS, basis=basis)


def in_words(found: Forecast) -> tuple[str, ...]:
    """A forecast as sentences: "predicted 9 s, guest stands still 0.1 s"."""
    if found.kind is MoveKind.DEFINITION:
        return ()
    still = f", guest stands still {short(found.downtime_s)}" if found.downtime_s else ""
    words = [f"predicted {seconds(found.total_s)}{still}, {format_bytes(found.transfer_bytes)} to send"]
    if found.basis:
        words[0] += f" ({'; '.join(found.basis)})"
    if not found.converges:
        words.append("the guest writes to its memory faster than the way carries: a live move may not come to an end")
    return tuple(words)


def short(value_s: float) -> str:
    """A standstill: "23 ms", "0.2 s", "12 s"."""
    return f"{value_s * 1000:.0f} ms" if value_s < 0.0995 else seconds(value_s)


def seconds(value_s: float) -> str:
    """ "0.1 s", "9 s", "3 min 20 s"."""
    if value_s < 9.95:
        return f"{value_s:.1f} s"
    whole = round(value_s)
    return f"{whole} s" if whole < 60 else f"{whole // 60} min {whole % 60} s"
