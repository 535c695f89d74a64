"""One line of the result: a budget, what was measured, and what it was measured against."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Row:
    """`kept` is None where nothing could be compared; `note` then says why."""

    what: str
    budget: str
    measured: str
    compared: str = ""
    ratio: float | None = None
    kept: bool | None = None
    note: str = ""


def against(what: str, *, budget: float, own_s: float, other_s: float, other: str) -> Row:
    """A time as a share of another's time; the budget is the most that the share may be."""
    ratio = own_s / other_s
    return Row(
        what,
        budget=f"≤ {budget:g}× {other}",
        measured=seconds(own_s),
        compared=f"{other} {seconds(other_s)}",
        ratio=ratio,
        kept=ratio <= budget,
    )


def limit(what: str, *, budget: float, value: float, unit: str, compared: str = "", ratio: float | None = None) -> Row:
    """A value that must not be above its budget, both in `unit`."""
    return Row(
        what,
        budget=f"≤ {budget:g} {unit}",
        measured=f"{value:.3g} {unit}" if value < 100 else f"{value:.0f} {unit}",
        compared=compared,
        ratio=ratio,
        kept=value <= budget,
    )


def seconds(value_s: float) -> str:
    return f"{value_s * 1000:.0f} ms" if value_s < 1 else f"{value_s:.2f} s"
