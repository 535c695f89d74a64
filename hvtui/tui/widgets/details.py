"""The details pane: everything known of the VM under the cursor, in lines. Shows frozen data; reads nothing."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from host.text import printable
from host.units import format_bytes
from hvtui.tui.rate_history import RateHistory
from hvtui.tui.symbols import NONE, RULE
from hvtui.tui.themes import Palette
from hvtui.tui.widgets import charts
from hvtui.tui.widgets.columns import STATES
from hvtui.tui.widgets.lines import Line, Lines, Span, between, line_of, width_of
from vm.model import Disk, Vm, VmConfig

RATES_WIDTH = 26  # of a row of rates without its chart
LEAST_TOP_BYTES_S = 65536.0  # a trickle does not fill a chart
TALL_LINES = 14  # from this height on the pane is the tall one at the right


class Details(Lines):
    """The pane. `show` gives it the VM under the cursor and its history."""

    def __init__(self) -> None:
        super().__init__(id="details")
        self._vm: Vm | None = None
        self._history = RateHistory()
        self._stale = False
        self._now = datetime.now(UTC)

    def show(self, vm: Vm | None, history: RateHistory, *, now: datetime, stale: bool = False) -> None:
        """Show this VM from now on; uptimes are counted to `now`."""
        self._vm, self._history, self._now, self._stale = vm, history, now, stale
        self.repaint()

    def paint(self, width: int, height: int, palette: Palette) -> Sequence[Line]:
        if self._vm is None:
            return [line_of((), width, palette)] * height
        now = self._now
        if height >= TALL_LINES:
            rows = tall_rows(self._vm, self._history, width=width - 4, height=height, now=now)
            rows = [[(" │ " if row is not None else "   ", "faint"), *(row or [])] for row in rows]
        else:
            rows = [*flat_rows(self._vm, self._history, width=width, now=now)]
        if self._stale:
            rows = [[(text, "faint" if role == "faint" else "dim") for text, role in row] for row in rows]
        lines = [line_of(row, width, palette) for row in rows[:height]]
        return lines + [line_of((), width, palette)] * (height - len(lines))


# The flat pane, below the list


def flat_rows(vm: Vm, history: RateHistory, *, width: int, now: datetime) -> list[list[Span]]:
    """Six rows: a rule with the name, facts, cpu and net, disk and agent, then disks and interfaces."""
    config = vm.config or VmConfig()
    name = printable(vm.name, limit=max(width - 20, 8))
    rule: list[Span] = [(f" {RULE} ", "faint"), (name, "bold"), (" ", "text")]
    if config.title:
        rule.append((f"{printable(config.title, limit=30)} ", "dim"))
    rule.append((RULE * max(width - width_of(rule) - 1, 0), "faint"))
    column = max(width // 2, 30)
    chart = max(min(column - RATES_WIDTH - 3, 40), 6)
    rows = [rule, [("  ", "text"), *_joined(facts_of(vm, now=now), "   ")]]
    if vm.is_active:
        rows.append(_halves(cpu_spans(vm, chart), net_spans(vm, history, chart), column))
        rows.append(_halves(disk_spans(vm, history, chart), agent_spans(vm), column))
    rows += _device_rows(config, column)
    if config.description:
        rows.append([(f"  {printable(config.description, limit=width)}", "dim")])
    return rows


def _device_rows(config: VmConfig, column: int) -> list[list[Span]]:
    disks = [disk_line(disk, column - 4) for disk in config.disks]
    nics = [
        [(f"{printable(n.source or n.source_type, limit=16)} ", "text"), (f"{printable(n.mac)} {n.model}", "dim")]
        for n in config.nics
    ]
    rows = []
    for place in range(max(len(disks), len(nics))):
        disk = disks[place] if place < len(disks) else []
        nic = nics[place] if place < len(nics) else []
        rows.append(_halves(disk, nic, column))
    return rows


def _halves(left: Sequence[Span], right: Sequence[Span], column: int) -> list[Span]:
    return [("  ", "text"), *between(left, [], column - 2), *right]


# The tall pane, at the right


def tall_rows(vm: Vm, history: RateHistory, *, width: int, height: int, now: datetime) -> list[list[Span]]:
    """Sections from the most to the least important: state, charts, memory, agent, disks, interfaces, the rest."""
    config = vm.config or VmConfig()
    symbol, word, role = STATES[vm.state]
    rows: list[list[Span]] = [[(printable(vm.name, limit=width), "bold")]]
    if config.title:
        rows.append([(printable(config.title, limit=width), "dim")])
    state = f"{symbol} {word}" + (f", {printable(vm.state_reason, limit=24)}" if vm.state_reason else "")
    rows.append([(state, "alarm" if vm.needs_attention else role), *_uptime(vm, now)])
    rows.append([])
    if vm.is_active:
        rows += _charts(vm, history, width, tall=height >= 30)
    rows += _pairs(vm, config)
    rows += _section("disks", [disk_line(disk, width) for disk in config.disks])
    rows += _section(
        "interfaces",
        [nic for n in config.nics for nic in _nic_lines(n.source or n.source_type, n.mac, n.model, n.target)],
    )
    if config.description:
        rows += _section(
            "description",
            [
                [(printable(config.description[i : i + width]), "dim")]
                for i in range(0, min(len(config.description), width * 4), width)
            ],
        )
    return rows + [[] for _ in range(height - len(rows))]


def _charts(vm: Vm, history: RateHistory, width: int, *, tall: bool) -> list[list[Span]]:
    rows = []
    if tall:
        upper, lower = charts.tall(vm.cpu_history, width - 12, top=100.0)
        rows.append([("     ", "dim"), (upper, "chart")])
        rows.append([("cpu  ", "dim"), (lower, "chart"), *_figure(charts.percent(vm.rates.cpu_percent), 6)])
    else:
        rows.append(cpu_spans(vm, width - 12))
    rows.append(net_spans(vm, history, width - RATES_WIDTH))
    rows.append(disk_spans(vm, history, width - RATES_WIDTH))
    return [*rows, []]


def _pairs(vm: Vm, config: VmConfig) -> list[list[Span]]:
    memory = charts.share(vm.memory_used_bytes if vm.is_active else None, vm.memory_bytes or vm.memory_max_bytes)
    machine = " ".join(part for part in (short_machine(config.machine), config.firmware, config.cpu_mode) if part)
    pairs: list[tuple[str, str]] = [
        (
            "memory",
            memory + (f" of {format_bytes(vm.memory_max_bytes)}" if vm.memory_max_bytes > vm.memory_bytes > 0 else ""),
        ),
        ("vCPU", str(vm.vcpus or NONE)),
        ("address", "  ".join(vm.addresses) or NONE),
        ("agent", agent_word(vm)),
        ("machine", machine or NONE),
        ("system", short_system(config.os_id)),
        ("template", template_words(config)),
        ("tags", " ".join(config.tags)),
        ("owner", config.owner),
        ("autostart", "yes" if vm.autostart else "no"),
        ("changes", "wait for the next start" if config.pending_changes else ""),
        ("screen", ", ".join(config.graphics)),
    ]
    return [[(f"{label:<10}", "dim"), (printable(value, limit=200), "text")] for label, value in pairs if value] + [[]]


def _section(title: str, rows: list[list[Span]]) -> list[list[Span]]:
    return [[(title, "dim")], *[[("  ", "text"), *row] for row in rows], []] if rows else []


def _nic_lines(source: str, mac: str, model: str, target: str) -> list[list[Span]]:
    return [[(f"{printable(source, limit=18)}  ", "text"), (printable(f"{mac} {model} {target}"), "dim")]]


# Parts of both


def state_facts(vm: Vm, *, now: datetime) -> list[Span]:
    """State with its reason, and uptime."""
    symbol, word, role = STATES[vm.state]
    told = vm.state_reason if vm.needs_attention or vm.state_reason == "crashed" else ""
    reason = f", {printable(told, limit=24)}" if told and told != word else ""
    facts: list[Span] = [(f"{symbol} {word}{reason}", "alarm" if vm.needs_attention else role)]
    return facts + [(text.strip(), role) for text, role in _uptime(vm, now)]


def facts_of(vm: Vm, *, now: datetime) -> list[Span]:
    """State with its reason, uptime, size, machine, tags: the first row of the flat pane."""
    config = vm.config or VmConfig()
    facts = state_facts(vm, now=now)
    facts.append((f"{vm.vcpus or NONE} vCPU", "text"))
    machine = " ".join(part for part in (short_machine(config.machine), config.firmware if vm.config else "") if part)
    if machine:
        facts.append((machine, "text"))
    if vm.autostart:
        facts.append(("autostart", "text"))
    if config.pending_changes:
        facts.append(("changes wait for a restart", "warn"))
    if config.template:
        facts.append((f"template {template_words(config)}", "dim"))
    if config.tags:
        facts.append((f"tags {printable(' '.join(config.tags), limit=40)}", "dim"))
    return facts


def cpu_spans(vm: Vm, chart: int) -> list[Span]:
    spans: list[Span] = [("cpu  ", "dim"), (charts.spark(vm.cpu_history, chart, top=100.0), "chart")]
    spans += _figure(charts.percent(vm.rates.cpu_percent), 6)
    if vm.rates.steal_percent is not None and vm.rates.steal_percent >= 1:
        spans.append((f"  steal {charts.percent(vm.rates.steal_percent)}", "warn"))
    return spans


def net_spans(vm: Vm, history: RateHistory, chart: int) -> list[Span]:
    incoming, outgoing = charts.rate(vm.rates.net_receive_bytes_s), charts.rate(vm.rates.net_send_bytes_s)
    return [
        ("net  ", "dim"), (_rates_chart(history.net, chart), "chart"),
        ("  in ", "dim"), (f"{incoming:>5}", "text"), ("  out ", "dim"), (f"{outgoing:>5}", "text"),
    ]  # fmt: skip


def disk_spans(vm: Vm, history: RateHistory, chart: int) -> list[Span]:
    reads, writes = charts.rate(vm.rates.disk_read_bytes_s), charts.rate(vm.rates.disk_write_bytes_s)
    return [
        ("disk ", "dim"), (_rates_chart(history.disk, chart), "chart"),
        ("  r  ", "dim"), (f"{reads:>5}", "text"), ("  w   ", "dim"), (f"{writes:>5}", "text"),
    ]  # fmt: skip


def _rates_chart(values: Sequence[float], width: int) -> str:
    shown = values[-width:]
    return charts.spark(shown, width, top=max(LEAST_TOP_BYTES_S, *shown, 0.0))


def agent_spans(vm: Vm) -> list[Span]:
    return [
        ("agent ", "dim"),
        (agent_word(vm), "text"),
        ("   ", "text"),
        (printable("  ".join(vm.addresses), limit=60), "dim"),
    ]


def agent_word(vm: Vm) -> str:
    """What is known of the guest agent."""
    if vm.config is None or not vm.config.has_agent_channel:
        return "no channel" if vm.config is not None else NONE
    if not vm.is_active:
        return "channel ready"
    return "connected" if vm.config.agent_connected else "not connected"


def disk_line(disk: Disk, width: int) -> list[Span]:
    """ "vda virtio  web-01.qcow2": the file's name, its directory dim when there is room."""
    source = printable(disk.source or "empty", limit=200)
    directory, _, file_name = source.rpartition("/")
    kind = f"{disk.bus} {disk.driver_format}" if disk.device == "disk" else disk.device
    spans: list[Span] = [
        (f"{printable(disk.target)} ", "text"),
        (f"{printable(kind)}  ", "dim"),
        (file_name or source, "text"),
    ]
    flags = [
        word
        for word, is_set in (("read-only", disk.read_only and disk.device == "disk"), ("shared", disk.shareable))
        if is_set
    ]
    if flags:
        spans.append((f"  {' '.join(flags)}", "dim"))
    if directory and width_of(spans) + len(directory) + 2 <= width:
        spans.append((f"  {directory}", "dim"))
    return spans


def template_words(config: VmConfig) -> str:
    """The template that it was made of, and whether its disks build on that one's; empty for none."""
    return printable(config.template, limit=40) + (" (linked)" if config.template and config.is_linked else "")


def short_machine(machine: str) -> str:
    """ "pc-q35-7.2" is q35, "pc-i440fx-7.2" is i440fx; others stay."""
    for known in ("q35", "i440fx", "virt"):
        if known in machine:
            return known
    return printable(machine, limit=16)


def short_system(os_id: str) -> str:
    """ "http://debian.org/debian/12" is debian 12; a short id stays."""
    _scheme, found, rest = os_id.partition("://")
    return " ".join(rest.split("/")[1:]) if found else os_id


def _uptime(vm: Vm, now: datetime) -> list[Span]:
    if vm.started_at is None or not vm.is_active:
        return []
    return [(f"   up {charts.duration((now - vm.started_at).total_seconds())}", "text")]


def _figure(text: str, width: int) -> list[Span]:
    return [(f"{text:>{width}}", "text")]


def _joined(spans: Sequence[Span], gap: str) -> list[Span]:
    joined: list[Span] = []
    for span in spans:
        if joined:
            joined.append((gap, "text"))
        joined.append(span)
    return joined
