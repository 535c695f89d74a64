"""The fleet list's columns: what each shows, how wide it is, how it sorts, and which ones fit. Pure functions."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from math import inf
from typing import Any, TypeAlias

from host.text import display_width, printable
from hvtui.tui.symbols import NONE
from hvtui.tui.widgets import charts
from hvtui.tui.widgets.lines import Span, cells
from vm.model import Vm, VmState

NAME_MOST = 40
NAME_WISH = 24
WIDE = 100
GAP = 2
Cell: TypeAlias = Callable[[Vm, int], tuple[Span, ...]]
SortKey: TypeAlias = Callable[[Vm], Any]

STATES: dict[VmState, tuple[str, str, str]] = {  # symbol, word, role
    VmState.RUNNING: ("●", "running", "good"),
    VmState.PAUSED: ("‖", "paused", "warn"),
    VmState.SHUTTING_DOWN: ("◐", "stopping", "warn"),
    VmState.OFF: ("○", "off", "dim"),
    VmState.SAVED: ("◌", "saved", "dim"),
    VmState.CRASHED: ("×", "crashed", "bad"),
    VmState.SUSPENDED: ("‖", "asleep", "dim"),
    VmState.UNKNOWN: ("?", "unknown", "dim"),
}
_STATE_ORDER = {state: place for place, state in enumerate(STATES)}


@dataclass(frozen=True, slots=True)
class Column:
    """One column. `priority` 0 never drops; the highest drops first. `width` is its least and usual width."""

    id: str
    title: str
    width: int
    priority: int
    cell: Cell
    sort_key: SortKey
    meaning: str
    right: bool = False
    descending: bool = False  # the order that one wants first: busiest, largest


def state_span(vm: Vm, width: int) -> tuple[Span, ...]:
    """The state's symbol and word; the reason instead of the word when it needs attention."""
    symbol, word, role = STATES[vm.state]
    if vm.needs_attention:
        word, role = (vm.state_reason or word), "bad"
        return ((cells(f"{symbol} {word}", width), role),)
    return ((f"{symbol} ", role), (cells(word, width - 2), "dim" if role in {"dim", "good"} else role))


def best_address(vm: Vm) -> str:
    """The address to show: the first IPv4 one, else the first."""
    return next((address for address in vm.addresses if "." in address), next(iter(vm.addresses), ""))


@lru_cache(maxsize=32768)
def natural(text: str) -> tuple[tuple[int, int, str], ...]:
    """The sort key that puts web-2 before web-10."""
    parts = re.split(r"(\d{1,18})", text.casefold())
    return tuple((0, int(part), "") if part.isdecimal() else (1, 0, part) for part in parts if part)


def name_width(vms: Sequence[Vm]) -> int:
    """The width that the longest name takes, at most NAME_MOST."""
    longest = 4
    for vm in vms:
        if len(vm.name) > longest or not vm.name.isascii():
            longest = max(longest, display_width(printable(vm.name, limit=NAME_MOST)))
    return min(longest, NAME_MOST)


def _name(vm: Vm, width: int) -> tuple[Span, ...]:
    role = "alarm" if vm.needs_attention else "text" if vm.is_active else "dim"
    return ((cells(vm.name, width), role),)


def _cpu(vm: Vm, width: int) -> tuple[Span, ...]:
    if vm.rates.cpu_percent is None:
        return _plain(NONE if vm.is_active else "", width, "dim")
    busy = vm.rates.cpu_percent
    role = "warn" if busy >= 90 else "text"
    return (
        (charts.spark(vm.cpu_history, width - 5, top=100.0), "chart"),
        (cells(charts.percent(busy), 5, right=True), role),
    )


def _memory(vm: Vm, width: int) -> tuple[Span, ...]:
    text = charts.share(vm.memory_used_bytes if vm.is_active else None, vm.memory_bytes or vm.memory_max_bytes)
    return _plain(text, width, "text" if vm.is_active else "dim")


def _agent(vm: Vm, width: int) -> tuple[Span, ...]:
    if vm.config is None or not vm.config.has_agent_channel:
        return _plain(NONE, width, "dim", right=False)
    if vm.config.agent_connected:
        return (("●", "good"), (" " * (width - 1), "text"))
    return (("○", "dim"), (" " * (width - 1), "text"))


def _plain(text: str, width: int, role: str, *, right: bool = True) -> tuple[Span, ...]:
    return ((cells(text, width, right=right), role),)


def _rates(first: float | None, second: float | None, width: int, *, active: bool) -> tuple[Span, ...]:
    if not active or (first is None and second is None):
        return _plain("", width, "dim")
    idle = not (first or second)
    half = (width - 1) // 2
    text = cells(charts.rate(first), half, right=True) + " " + cells(charts.rate(second), width - 1 - half, right=True)
    return ((text, "dim" if idle else "text"),)


def _word(text: str, width: int, *, none: str = NONE) -> tuple[Span, ...]:
    return _plain(text or none, width, "dim", right=False)


def _vcpus(vm: Vm, width: int) -> tuple[Span, ...]:
    return _plain(str(vm.vcpus or NONE), width, "dim")


def _checkpoints(vm: Vm, width: int) -> tuple[Span, ...]:
    return _plain(str(vm.checkpoints or NONE), width, "dim")


def _net(vm: Vm, width: int) -> tuple[Span, ...]:
    return _rates(vm.rates.net_receive_bytes_s, vm.rates.net_send_bytes_s, width, active=vm.is_active)


def _disk(vm: Vm, width: int) -> tuple[Span, ...]:
    return _rates(vm.rates.disk_read_bytes_s, vm.rates.disk_write_bytes_s, width, active=vm.is_active)


def uptime(vm: Vm, width: int, *, now: datetime) -> tuple[Span, ...]:
    """How long it runs at `now`."""
    if vm.started_at is None or not vm.is_active:
        return _plain(NONE if vm.is_active else "", width, "dim")
    return _plain(charts.duration((now - vm.started_at).total_seconds()), width, "dim")


def _uptime_key(vm: Vm) -> float:
    return -vm.started_at.timestamp() if vm.started_at is not None and vm.is_active else -inf


def _tags(vm: Vm) -> str:
    return " ".join(vm.config.tags) if vm.config else ""


def _net_total(vm: Vm) -> float:
    return (vm.rates.net_receive_bytes_s or 0.0) + (vm.rates.net_send_bytes_s or 0.0)


def _disk_total(vm: Vm) -> float:
    return (vm.rates.disk_read_bytes_s or 0.0) + (vm.rates.disk_write_bytes_s or 0.0)


def _address_key(vm: Vm) -> Any:
    address = best_address(vm)
    return (not address, natural(address))


COLUMNS: tuple[Column, ...] = (
    Column("name", "NAME", 14, 0, _name, lambda vm: natural(vm.name), "always shown"),
    Column("state", "STATE", 12, 1, state_span, lambda vm: (not vm.needs_attention, _STATE_ORDER[vm.state]),
           "its state, or what is wrong with it"),
    Column("host", "HOST", 8, 3, lambda vm, w: _word(vm.host, w), lambda vm: natural(vm.host),
           "where it is; shown when there are several"),
    Column("cpu", "CPU", 11, 2, _cpu, lambda vm: vm.rates.cpu_percent or -1.0, "of its virtual CPUs, with its past",
           right=True, descending=True),
    Column("memory", "MEMORY", 10, 4, _memory, lambda vm: vm.memory_bytes, "used inside, of what it has",
           right=True, descending=True),
    Column("address", "ADDRESS", 15, 5, lambda vm, w: _word(best_address(vm), w), _address_key, "one IP address"),
    Column("agent", "AGENT", 5, 6, _agent, lambda vm: not (vm.config and vm.config.agent_connected),
           "whether its guest agent answers"),
    Column("tags", "TAGS", 12, 7, lambda vm, w: _word(_tags(vm), w, none=""), lambda vm: (not _tags(vm), _tags(vm)),
           "what you sorted it under"),
    Column("net", "NET IN OUT", 11, 8, _net, _net_total, "bytes a second", right=True, descending=True),
    Column("disk", "DISK R W", 11, 9, _disk, _disk_total, "bytes a second", right=True, descending=True),
    Column("uptime", "UPTIME", 8, 10, lambda vm, w: uptime(vm, w, now=datetime.now(UTC)), _uptime_key,
           "since it was started", right=True, descending=True),
    Column("vcpus", "VCPU", 4, 11, _vcpus, lambda vm: vm.vcpus, "virtual CPUs", right=True, descending=True),
    Column("checkpoints", "CP", 2, 12, _checkpoints, lambda vm: vm.checkpoints, "checkpoints",
           right=True, descending=True),
    Column("autostart", "AUTO", 4, 13, lambda vm, w: _word("yes" if vm.autostart else "", w),
           lambda vm: not vm.autostart, "whether it starts with the host"),
)  # fmt: skip
BY_ID = {column.id: column for column in COLUMNS}
MANY_COLUMNS = tuple(column.id for column in COLUMNS)  # where several hosts are shown
DEFAULT_COLUMNS = tuple(column_id for column_id in MANY_COLUMNS if column_id != "host")


@dataclass(frozen=True, slots=True)
class Layout:
    """The columns that fit, with their widths, and the gap between them."""

    columns: tuple[tuple[Column, int], ...]
    gap: int


def fitted(chosen: Sequence[str], *, width: int, name_needs: int) -> Layout:
    """The chosen columns that fit into `width` cells: those of the lowest priority drop first, the name never does.
    Spare room goes to the name up to what it needs, then to the gaps."""
    columns = [BY_ID[column_id] for column_id in chosen if column_id in BY_ID]
    if BY_ID["name"] not in columns:
        columns.insert(0, BY_ID["name"])
    # Where there is room for many columns, whole names come before the least of them.
    wish = min(name_needs, NAME_WISH) - BY_ID["name"].width if width >= WIDE else 0
    while len(columns) > 1 and sum(c.width for c in columns) + GAP * (len(columns) - 1) + max(wish, 0) > width:
        columns.remove(max(columns, key=lambda c: c.priority))
    spare = width - sum(c.width for c in columns) - GAP * (len(columns) - 1)
    name_extra = min(max(name_needs - BY_ID["name"].width, 0), spare) if len(columns) > 1 else spare
    spare -= name_extra
    gap = GAP + min(spare // max(len(columns) - 1, 1), 2)
    return Layout(tuple((c, c.width + (name_extra if c.id == "name" else 0)) for c in columns), gap)
