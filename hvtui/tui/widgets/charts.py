"""Sparklines, bars and short figures as text. Pure functions; sizes and rates in bytes, shares in percent."""

from __future__ import annotations

from collections.abc import Sequence

from host.units import GIB, format_bytes
from hvtui.tui.symbols import BAR_EMPTY, BAR_FULL, NONE, SPARKS


def spark(values: Sequence[float], width: int, *, top: float | None = None) -> str:
    """The newest `width` values as a sparkline, newest at the right; `top` is the full height (default: the largest
    value). A value of zero is the lowest mark, no value is blank."""
    shown = values[-width:] if width else ()
    most = top if top is not None else max(shown, default=0.0)
    steps = len(SPARKS) - 1
    marks = [SPARKS[min(round(max(value, 0.0) / most * steps), steps)] if most > 0 else SPARKS[0] for value in shown]
    return "".join(marks).rjust(width)


def level(percent: float | None) -> str:
    """One character for a share of 0..100 percent; blank when it is not known."""
    if percent is None:
        return " "
    return spark((percent,), 1, top=100.0)


def bar(fraction: float, width: int) -> str:
    """A progress bar of `width` cells; `fraction` 0..1."""
    full = round(min(max(fraction, 0.0), 1.0) * width)
    return BAR_FULL * full + BAR_EMPTY * (width - full)


def percent(value: float | None) -> str:
    """ "41%", or a dash when it is not known."""
    return NONE if value is None else f"{min(max(value, 0.0), 999.0):.0f}%"


def share(used_bytes: int | None, total_bytes: int) -> str:
    """ "0.9/2.0G": what is used of a total, in the total's unit where both fit; the total alone when not known."""
    if not total_bytes:
        return NONE
    total = format_bytes(total_bytes)
    if used_bytes is None:
        return total
    if total.endswith("G"):
        decimals = 0 if total_bytes >= 100 * GIB else 1
        return f"{used_bytes / GIB:.{decimals}f}/{total}"
    used = format_bytes(used_bytes)
    return f"{used[:-1]}/{total}" if used[-1] == total[-1] else f"{used}/{total}"


def rate(bytes_s: float | None) -> str:
    """Bytes a second in at most five characters ("1.2M"); a dash when it is not known, 0 below 1 KiB/s."""
    if bytes_s is None:
        return NONE
    return "0" if bytes_s < 1024 else format_bytes(bytes_s)


def duration(seconds: float) -> str:
    """A time span in its two largest units: "3d 4h", "4h 12m", "12m", "40s"."""
    minutes, rest_s = divmod(int(max(seconds, 0)), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days}d {hours}h"
    if hours:
        return f"{hours}h {minutes:02}m"
    return f"{minutes}m" if minutes else f"{rest_s}s"


def tall(values: Sequence[float], width: int, *, top: float) -> tuple[str, str]:
    """The newest values as two rows of a sparkline, the upper one first."""
    upper, lower = block(values, width, 2, top=top)
    return upper, lower


def block(values: Sequence[float], width: int, height: int, *, top: float) -> list[str]:
    """The newest values as `height` rows of a sparkline, the highest row first; `top` fills all of them."""
    steps = len(SPARKS)
    marks = [
        min(round(max(value, 0.0) / top * steps * height), steps * height) if top > 0 else 0
        for value in (values[-width:] if width else ())
    ]
    rows = []
    for below in range((height - 1) * steps, -1, -steps):
        empty = SPARKS[0] if below == 0 else " "
        rows.append("".join(SPARKS[min(m - below, steps) - 1] if m > below else empty for m in marks).rjust(width))
    return rows
