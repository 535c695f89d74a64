"""The header: the host's name, its meters, and the state of the connection. Shows a snapshot; reads nothing."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from textual.timer import Timer

from host.connection import LinkStatus
from host.load import HostLoad
from host.text import printable
from host.units import format_bytes
from hvtui.tui.themes import Palette
from hvtui.tui.widgets import charts
from hvtui.tui.widgets.lines import Line, Lines, Span, between, line_of
from vm.model import Snapshot

if TYPE_CHECKING:
    from vm.whatif import NMinusOne

STALE_TICK_S = 1.0


@dataclass(frozen=True, slots=True)
class Crowd:
    """Several hosts: the snapshot of each, whether one of them may fail, and the one that is meant where no VM is."""

    hosts: tuple[Snapshot, ...]
    light: NMinusOne | None = None
    current: str = ""

    @property
    def lost(self) -> tuple[Snapshot, ...]:
        return tuple(each for each in self.hosts if each.link.status is LinkStatus.LOST)


class Header(Lines):
    """One line. While the connection is lost it counts the seconds since the last reading (instants of `clock`);
    otherwise it is still."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._clock = clock
        self._snapshot: Snapshot | None = None
        self._crowd: Crowd | None = None
        self._ticker: Timer | None = None

    def show_snapshot(self, snapshot: Snapshot, crowd: Crowd | None = None) -> None:
        """Show this host's name, meters and link; with `crowd`, `snapshot` is several hosts as one."""
        self._snapshot, self._crowd = snapshot, crowd
        self._tick_while(not snapshot.link.is_up or bool(crowd and crowd.lost))
        self.repaint()

    def paint(self, width: int, height: int, palette: Palette) -> Sequence[Line]:  # noqa: ARG002 - one line
        if self._crowd is not None and self._snapshot is not None and self._snapshot.read_at_s:
            spans = crowd_spans(self._snapshot, self._crowd, width=width, now_s=self._clock())
        else:
            spans = header_spans(self._snapshot, width=width, now_s=self._clock())
        return [line_of(spans, width, palette)]

    def _tick_while(self, lost: bool) -> None:
        if lost and self._ticker is None:
            self._ticker = self.set_interval(STALE_TICK_S, self.repaint)
        elif not lost and self._ticker is not None:
            self._ticker.stop()
            self._ticker = None


def crowd_spans(snapshot: Snapshot, crowd: Crowd, *, width: int, now_s: float) -> list[Span]:
    """ "2 hosts  lab2 stale 12 s", the meters in sum and the N-1 light."""
    left: list[Span] = [(" hvtui", "title"), (f"  {printable(snapshot.host_name, limit=30)}", "bold")]
    lost = crowd.lost
    if lost:
        longest = max(lost, key=lambda each: now_s - each.read_at_s)
        more = f" +{len(lost) - 1} more" if len(lost) > 1 else ""
        left += [(f"  {printable(longest.host_name, limit=20)} ", "text"), (stale_words(longest, now_s), "alarm")]
        left.append((more, "alarm"))
    elif crowd.current:
        left.append((f"  on {printable(crowd.current, limit=30)}", "dim"))
    load = replace(snapshot.load, disk_total_bytes=None) if lost and width < 110 else snapshot.load  # for want of room
    return between(left, [*meter_spans(load), *light_spans(crowd.light), (" ", "text")], width)


def light_spans(light: NMinusOne | None) -> list[Span]:
    """The N-1 light: whether the hosts could take the loss of any one of them."""
    if light is None or light.hosts < 2:
        return []
    if light.losses:
        return [("   N-1 ", "dim"), ("×", "bad")]
    return [("   N-1 ", "dim"), ("?", "warn") if light.unknown else ("✓", "good")]


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
    if snapshot.link.status is LinkStatus.CONNECTING:
        return [("connecting… ", "warn")]
    age = stale_words(snapshot, now_s)
    cause = printable(snapshot.link.error or "connection lost", limit=max(room - len(age) - 4, 8))
    return [(age, "alarm"), (f"  {cause} ", "dim")]


def stale_words(snapshot: Snapshot, now_s: float) -> str:
    """ "stale 12 s", or "no connection" for a host that never answered."""
    if not snapshot.read_at_s:
        return "no connection"
    age_s = max(int(now_s - snapshot.read_at_s), 0)
    return f"stale {age_s} s" if age_s < 120 else f"stale {charts.duration(age_s)}"


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
