"""The header: the host's name, its meters, and the state of the connection. Shows a snapshot; reads nothing."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from textual.timer import Timer

from host.connection import LinkStatus
from host.load import HostLoad
from host.text import printable
from host.units import format_bytes
from hvtui.tui.themes import Palette
from hvtui.tui.widgets import charts
from hvtui.tui.widgets.lines import Line, Lines, Span, between, line_of
from vm.model import Snapshot

STALE_TICK_S = 1.0


class Header(Lines):
    """One line. While the connection is lost it counts the seconds since the last reading (instants of `clock`);
    otherwise it is still."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._clock = clock
        self._snapshot: Snapshot | None = None
        self._ticker: Timer | None = None

    def show_snapshot(self, snapshot: Snapshot) -> None:
        """Show this host's name, meters and link."""
        self._snapshot = snapshot
        self._tick_while(not snapshot.link.is_up)
        self.repaint()

    def paint(self, width: int, height: int, palette: Palette) -> Sequence[Line]:  # noqa: ARG002 - one line
        spans = header_spans(self._snapshot, width=width, now_s=self._clock())
        return [line_of(spans, width, palette)]

    def _tick_while(self, lost: bool) -> None:
        if lost and self._ticker is None:
            self._ticker = self.set_interval(STALE_TICK_S, self.repaint)
        elif not lost and self._ticker is not None:
            self._ticker.stop()
            self._ticker = None


def header_spans(snapshot: Snapshot | None, *, width: int, now_s: float) -> list[Span]:
    """The header as spans: name at the left; meters, or what is wrong with the link, at the right."""
    if snapshot is None:
        return [(" hvtui", "title"), ("  connecting…", "dim")]
    left: list[Span] = [(" hvtui", "title"), (f"  {printable(snapshot.host_name, limit=30)}", "bold")]
    facts = snapshot.facts
    if facts is not None and facts.accelerator == "qemu":
        left.append(("  emulated", "warn"))
    elif facts is not None and facts.accelerator == "test":
        left.append(("  simulated", "dim"))
    if not snapshot.link.is_up:
        return between(left, link_spans(snapshot, now_s=now_s, room=width - 30), width)
    meters = meter_spans(snapshot.load)
    if width >= 110 and facts is not None:
        model = printable(facts.cpu_model, limit=30)
        cpus = f"{model} × {facts.cpus}" if model else f"{facts.cpus} CPUs"
        left.append((f"  {cpus}   libvirt {facts.libvirt_version}", "dim"))
    return between(left, [*meters, (" ", "text")], width)


def link_spans(snapshot: Snapshot, *, now_s: float, room: int) -> list[Span]:
    """ "stale 12 s" and why, in the alarm's role."""
    age_s = max(int(now_s - snapshot.read_at_s), 0)
    if snapshot.link.status is LinkStatus.CONNECTING:
        return [("connecting… ", "warn")]
    age = f"stale {age_s} s" if age_s < 120 else f"stale {charts.duration(age_s)}"
    age = age if snapshot.read_at_s else "no connection"
    cause = printable(snapshot.link.error or "connection lost", limit=max(room - len(age) - 4, 8))
    return [(age, "alarm"), (f"  {cause} ", "dim")]


def meter_spans(load: HostLoad) -> list[Span]:
    """cpu, mem and disk: a level mark and the figure."""
    spans: list[Span] = []
    if load.cpu_percent is not None:
        spans += _meter("cpu", load.cpu_percent, f"{charts.percent(load.cpu_percent):>4}")
    if load.memory_total_bytes and load.memory_used_bytes is not None:
        used_percent = 100 * load.memory_used_bytes / load.memory_total_bytes
        figure = charts.share(load.memory_used_bytes, load.memory_total_bytes)
        spans += _meter("mem", used_percent, figure)
    elif load.memory_total_bytes:
        spans += [("   mem ", "dim"), (format_bytes(load.memory_total_bytes), "text")]
    if load.disk_total_bytes and load.disk_used_bytes is not None:
        used_percent = 100 * load.disk_used_bytes / load.disk_total_bytes
        spans += _meter("disk", used_percent, charts.percent(used_percent))
    return spans


def _meter(name: str, used_percent: float, figure: str) -> list[Span]:
    role = "bad" if used_percent >= 95 else "warn" if used_percent >= 85 else "text"
    return [(f"   {name} ", "dim"), (charts.level(used_percent), "chart"), (f" {figure}", role)]
