"""What a VM does now, as rows for the summary: its state, charts of its load, and who it is. Pure functions."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from itertools import zip_longest

from host.text import printable
from host.units import format_bytes
from hvtui.tui.rate_history import RateHistory
from hvtui.tui.symbols import NONE
from hvtui.tui.widgets import charts
from hvtui.tui.widgets.details import (
    LEAST_TOP_BYTES_S,
    agent_word,
    disk_line,
    short_machine,
    short_system,
    state_facts,
    template_words,
)
from hvtui.tui.widgets.lines import Span, between
from hvtui.tui.widgets.wrapping import flowing, wrapped
from vm.model import Vm, VmConfig

TWO_COLUMNS = 64  # from this width on
_MARGIN = 2
_GAP = 3
_LABEL = 11
_CHARTS = 6
_CHART_ROWS = (2, 5)  # least, most
_LONGEST = 2000  # of a description
Row = list[Span]


def summary_rows(vm: Vm, history: RateHistory, *, width: int, height: int, now: datetime) -> list[Row]:
    """All rows; the charts are as tall as leaves the rest in sight at this height."""
    columns = 2 if width >= TWO_COLUMNS else 1
    cells = (width - 2 * _MARGIN - _GAP * (columns - 1)) // columns
    head = _head(vm, width, now)
    rest = [
        *(_beside(pair, cells) for pair in _facts(vm, columns, cells)),
        *_whole(vm, width),
        *_description(vm, width),
    ]
    least = len(head) + len(rest) + (_CHARTS // columns * (_CHART_ROWS[0] + 3) if vm.is_active else 0)
    if least + len(devices := _devices(vm, columns, cells)) <= height:
        rest += devices
    if not vm.is_active:
        return [*head, *rest]
    room = (height - len(head) - len(rest)) // (_CHARTS // columns) - 2
    blocks = _charts(vm, history, cells, min(max(room, _CHART_ROWS[0]), _CHART_ROWS[1]))
    groups = (blocks[place : place + columns] for place in range(0, _CHARTS, columns))
    return [*head, *(_beside(row, cells) for group in groups for row in zip(*group, strict=True)), *rest]


def _head(vm: Vm, width: int, now: datetime) -> list[Row]:
    title = vm.config.title if vm.config is not None else ""
    facts = state_facts(vm, now=now)
    if vm.config is not None and vm.config.pending_changes:
        facts.append(("changes wait for a restart", "warn"))
    if title:
        facts.append((printable(title, limit=max(width - 2 * _MARGIN, 8)), "dim"))
    rows = flowing(facts, width - 2 * _MARGIN)
    return [*([(" " * _MARGIN, "text"), *row] for row in rows), []]


def _beside(parts: Sequence[Row], cells: int) -> Row:
    """Rows of two columns as one row."""
    row: Row = [(" " * _MARGIN, "text")]
    for place, part in enumerate(parts):
        row += [(" " * _GAP, "text")] if place else []
        row += between(part, [], cells)
    return row


# Charts


def _charts(vm: Vm, history: RateHistory, cells: int, tall: int) -> list[list[Row]]:
    rates = vm.rates
    net_top = max(LEAST_TOP_BYTES_S, *history.receive[-cells:], *history.send[-cells:], 0.0)
    disk_top = max(LEAST_TOP_BYTES_S, *history.read[-cells:], *history.write[-cells:], 0.0)
    told = (
        ("cpu", charts.percent(rates.cpu_percent), _cpu_note(vm), history.cpu, 100.0),
        ("memory", _memory_percent(vm), _memory_note(vm), history.memory, 100.0),
        ("net in", _rate(rates.net_receive_bytes_s), _peak(history.receive, cells), history.receive, net_top),
        ("net out", _rate(rates.net_send_bytes_s), _peak(history.send, cells), history.send, net_top),
        ("disk read", _rate(rates.disk_read_bytes_s), _peak(history.read, cells), history.read, disk_top),
        ("disk write", _rate(rates.disk_write_bytes_s), _peak(history.write, cells), history.write, disk_top),
    )
    return [
        _chart(name, figure, note, charts.block(values if figure != NONE else (), cells, tall, top=top), cells)
        for name, figure, note, values, top in told
    ]


def _chart(name: str, figure: str, note: Row, marks: Sequence[str], cells: int) -> list[Row]:
    title: Row = [(f"{name:<{_LABEL}}", "dim"), (figure, "bold")]
    return [between(title, note, cells), *([(line, "chart")] for line in marks), []]


def _cpu_note(vm: Vm) -> Row:
    steal = vm.rates.steal_percent
    late: Row = [(f"steal {charts.percent(steal)}  ", "warn")] if steal is not None and steal >= 1 else []
    return [*late, (f"{vm.vcpus or NONE} vCPU", "dim")]


def _memory_percent(vm: Vm) -> str:
    total = vm.memory_bytes or vm.memory_max_bytes
    if vm.memory_used_bytes is None or not total:
        return NONE
    return charts.percent(100 * vm.memory_used_bytes / total)


def _memory_note(vm: Vm) -> Row:
    total = vm.memory_bytes or vm.memory_max_bytes
    most = f" of {format_bytes(vm.memory_max_bytes)}" if vm.memory_max_bytes > total else ""
    if vm.memory_used_bytes is None:
        return [(f"{format_bytes(total)}{most}, use not told", "dim")]
    return [(f"{charts.share(vm.memory_used_bytes, total)}{most}", "dim")]


def _rate(bytes_s: float | None) -> str:
    return NONE if bytes_s is None else f"{charts.rate(bytes_s)}/s"


def _peak(values: Sequence[float], cells: int) -> Row:
    most = max(values[-cells:], default=0.0)
    return [(f"peak {charts.rate(most)}/s", "dim")] if most >= 1024 else []


# Facts


def _facts(vm: Vm, columns: int, cells: int) -> list[tuple[Row, ...]]:
    left, right = (_pairs(pairs, cells) for pairs in _known(vm))
    if columns == 1:
        return [(row,) for row in left + right]
    tallest = max(len(left), len(right))
    left, right = (each + [[]] * (tallest - len(each)) for each in (left, right))
    return list(zip(left, right, strict=True))


def _known(vm: Vm) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    """Left: how one reaches it and whose it is; right: what it is."""
    config = vm.config or VmConfig()
    machine = " ".join(part for part in (short_machine(config.machine), config.firmware, config.cpu_mode) if part)
    left = [
        ("address", "  ".join(vm.addresses) or NONE),
        ("agent", agent_word(vm)),
        ("system", short_system(config.os_id)),
        ("screen", ", ".join(config.graphics)),
        ("template", template_words(config)),
        ("tags", " ".join(config.tags)),
        ("owner", config.owner),
    ]
    right = [
        ("memory", "" if vm.is_active else format_bytes(vm.memory_bytes or vm.memory_max_bytes)),
        ("vCPU", "" if vm.is_active else str(vm.vcpus or NONE)),
        ("machine", (machine or NONE) if vm.config is not None else NONE),
        ("autostart", "yes" if vm.autostart else "no"),
        ("saved", "the next start goes on" if vm.has_saved_state else ""),
        ("checkpoints", str(vm.checkpoints) if vm.checkpoints else ""),
        ("started", f"{vm.started_at.astimezone():%Y-%m-%d %H:%M}" if vm.started_at and vm.is_active else ""),
        ("kept", "" if vm.persistent else "gone when it stops"),
    ]
    return left, right


def _pairs(pairs: Sequence[tuple[str, str]], cells: int) -> list[Row]:
    rows: list[Row] = []
    for label, value in pairs:
        lines = wrapped(printable(value, limit=400), cells - _LABEL) if value else []
        rows += [[(f"{'' if place else label:<{_LABEL}}", "dim"), (line, "text")] for place, line in enumerate(lines)]
    return rows


def _devices(vm: Vm, columns: int, cells: int) -> list[Row]:
    """Its disks and interfaces in short: the hardware tab has all of them."""
    if vm.config is None or columns == 1:
        return []
    disks: list[Row] = [disk_line(disk, cells) for disk in vm.config.disks]
    nics: list[Row] = [
        [
            (f"{printable(nic.source or nic.source_type, limit=24)}  ", "text"),
            (printable(f"{nic.mac} {nic.model}"), "dim"),
        ]
        for nic in vm.config.nics
    ]
    heads: tuple[Row, Row] = [("disks", "dim")] if disks else [], [("interfaces", "dim")] if nics else []
    blank: Row = []
    pairs: Iterable[tuple[Row, Row]] = zip_longest(disks, nics, fillvalue=blank)
    return [[], *(_beside(row, cells) for row in (heads, *pairs))] if disks or nics else []


def _whole(vm: Vm, width: int) -> list[Row]:
    """What needs the whole width, one row each where there is room for it."""
    return [_beside([row], width - 2 * _MARGIN) for row in _pairs([("uuid", vm.uuid)], width - 2 * _MARGIN)]


def _description(vm: Vm, width: int) -> list[Row]:
    text = vm.config.description if vm.config is not None else ""
    if not text:
        return []
    room = max(width - 2 * _MARGIN, 8)
    lines = [line for part in text[:_LONGEST].splitlines() for line in wrapped(printable(part), room)]
    return [[], *([(" " * _MARGIN, "text"), (line, "dim")] for line in lines)]
