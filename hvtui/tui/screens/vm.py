"""The view of one VM: summary, hardware, XML and log on the whole screen. Shows frozen data; what it needs beyond the
snapshot is read through the bridge, and read again when something happened to the VM."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from functools import partial
from typing import TYPE_CHECKING, ClassVar

from textual import on
from textual.widget import Widget

from host.errors import HvtuiError
from host.events import Event
from host.job_model import Job
from host.text import printable
from hvtui.tui.hardware_text import hardware_rows
from hvtui.tui.log_text import log_rows
from hvtui.tui.screens.base import HvtuiScreen
from hvtui.tui.summary_text import summary_rows
from hvtui.tui.widgets.columns import STATES
from hvtui.tui.widgets.footer import Footer
from hvtui.tui.widgets.lines import Span
from hvtui.tui.widgets.scroller import Make, Scroller
from hvtui.tui.widgets.tabs import Tabs
from hvtui.tui.widgets.wrapping import wrapped
from hvtui.tui.xml_rows import ColoredXml, XmlRows
from vm.model import Snapshot, Vm

if TYPE_CHECKING:
    from host.connection import Host
    from vm.hardware import DiskSize, Hardware

TITLES = ("Summary", "Hardware", "XML", "Log")
SUMMARY, HARDWARE, XML, LOG = range(4)
JOBS_SHOWN = 200


class VmScreen(HvtuiScreen):
    """One VM, by its uuid: it may get another name, go, and come back."""

    AUTO_FOCUS = ""
    SCOPES: ClassVar[tuple[str, ...]] = ("view", "vm")
    DEFAULT_CSS = """
    VmScreen #tabs { height: 1; width: 100%; }
    VmScreen #rows { height: 1fr; width: 100%; }
    """

    def __init__(self, vm: Vm) -> None:
        super().__init__()
        self.vm = vm
        self.is_gone = False
        self.chosen = SUMMARY
        self._tops = [0] * len(TITLES)
        self._hardware: Hardware | None = None
        self._sizes: Mapping[str, DiskSize] | None = None
        self._next_xml = self._live_xml = ColoredXml("")
        self._shows_live = False
        self._problem = ""  # why the hardware could not be read
        self._is_reading = False
        self._is_outdated = True
        self._is_up = True
        self._jobs: dict[int, Job] = {}
        self._shown_xml: tuple[object, ...] = ()

    def body(self) -> Iterable[Widget]:
        yield Tabs(TITLES)
        yield Scroller(id="rows")

    def targets(self) -> tuple[Vm, ...]:
        return () if self.is_gone else (self.vm,)

    @property
    def scroller(self) -> Scroller:
        """The rows of the chosen tab."""
        return self.query_one("#rows", Scroller)

    # What arrives

    def snapshot_changed(self, snapshot: Snapshot) -> None:
        before, was_up, was_gone = self.vm, self._is_up, self.is_gone
        found = next((vm for vm in snapshot.vms if vm.key == before.key), None)
        self.vm, self.is_gone, self._is_up = found or before, found is None, self.hvtui.is_up(before)
        if (was_gone and not self.is_gone) or (self._is_up and not was_up) or _may_differ(before, self.vm):
            self._read()
        self._show()

    def event_arrived(self, event: Event) -> None:
        if event.vm_uuid == self.vm.uuid and event.host in {"", self.vm.host}:
            self._read()
            if self.chosen == LOG:
                self._show()

    def jobs_changed(self, jobs: tuple[Job, ...]) -> None:
        """`jobs` are the newest of all VMs; this one's older ones were read from the journal."""
        newer = {job.id: job for job in jobs if job.vm_uuid == self.vm.uuid}
        if any(self._jobs.get(number) != job for number, job in newer.items()):
            self._jobs |= newer
            if self.chosen == LOG:
                self._show()

    def on_screen_resume(self) -> None:
        super().on_screen_resume()
        self._read()  # the XML editor was above it, perhaps

    # Reading

    def _read(self) -> None:
        """Have hardware and XML read: now, when they are looked at; once more when that is asked for meanwhile."""
        self._is_outdated = True
        if self.chosen in {HARDWARE, XML} and self._is_up and not self._is_reading and not self.is_gone:
            self._is_reading = True
            self.run_worker(self._read_hardware(), group="hardware")

    async def _read_hardware(self) -> None:
        from vm import hardware

        host, call = self.hvtui.host_of(self.vm), self.hvtui.bridge.call
        self._problem = ""
        try:
            while self._is_outdated and not self.is_gone:
                self._is_outdated = False
                found, self._next_xml, self._live_xml = await call(_read_all, host, self.vm)
                self._hardware = found
                self._show()
                self._sizes = await call(hardware.disk_sizes, host, self.vm, found)
        except HvtuiError as error:
            self._problem = str(error)
        finally:
            self._is_reading = False
        self._show()

    async def _read_journal(self) -> None:
        """The jobs of this VM from long ago: the app has only the newest of all VMs."""
        journal = self.hvtui.services.journal
        try:
            jobs = await self.hvtui.bridge.call(journal.jobs, JOBS_SHOWN, vm=self.vm.uuid)
        except HvtuiError as error:
            self.say(str(error), "bad")
            return
        self._jobs = {job.id: job for job in jobs} | self._jobs
        self._show()

    # What the keys do (hvtui.tui.screen_actions)

    def show_tab(self, place: int) -> None:
        """Show that tab where one was in it."""
        self._tops[self.chosen] = self.scroller.top
        self.chosen = place % len(TITLES)
        if self.chosen in {HARDWARE, XML}:
            self._read()
        elif self.chosen == LOG:
            self.run_worker(self._read_journal(), group="journal", exclusive=True)
        self._show(top=self._tops[self.chosen])

    def next_tab(self) -> None:
        self.show_tab(self.chosen + 1)

    def previous_tab(self) -> None:
        self.show_tab(self.chosen - 1)

    @on(Tabs.Chosen)
    def _tab_clicked(self, message: Tabs.Chosen) -> None:
        self.show_tab(message.place)

    def scroll_down_one(self) -> None:
        self.scroller.scroll_rows(1)

    def scroll_up_one(self) -> None:
        self.scroller.scroll_rows(-1)

    def scroll_down_page(self) -> None:
        self.scroller.scroll_rows(self.scroller.page)

    def scroll_up_page(self) -> None:
        self.scroller.scroll_rows(-self.scroller.page)

    def scroll_to_first(self) -> None:
        self.scroller.scroll_rows(-self.scroller.top)

    def scroll_to_last(self) -> None:
        self.scroller.scroll_rows(sys.maxsize)

    def switch_xml(self) -> None:
        """Show the XML that runs, or again the one of the next start."""
        if self.chosen != XML:
            self.show_tab(XML)
        elif self._hardware is not None and not self._hardware.live_xml:
            self.say("it does not run: there is only what its next start uses", "warn")
        else:
            self._shows_live = not self._shows_live
            self._show(top=0)

    def read_again(self) -> None:
        """Read the whole host again, and what this screen shows beyond that."""
        self.hvtui.bridge.refresh()
        self._read()

    def leave(self) -> None:
        self.hvtui.back()

    # Showing

    def _show(self, *, top: int | None = None) -> None:
        if not self.is_composed:
            return
        self.query_one(Tabs).show(self.vm.name, self.chosen, self._note())
        self.query_one(Footer).show_target(self.target())
        is_stale = self.chosen != LOG and (self.is_gone or not self._is_up)
        # A long XML is measured each time it is shown: not with each snapshot.
        shown_xml = (self._xml()[0], self._problem, is_stale) if self.chosen == XML and self._hardware else ()
        if not shown_xml or shown_xml != self._shown_xml or top is not None:
            self.scroller.show(self._make(), top=top, stale=is_stale)
        self._shown_xml = shown_xml

    def _note(self) -> list[Span]:
        if self.is_gone:
            return [("× not here any more", "alarm")]
        symbol, word, role = STATES[self.vm.state]
        if self.vm.needs_attention:
            return [(f"{symbol} {word}", "alarm")]
        return [(symbol, role), (f" {word}", "dim")]

    def _make(self) -> Make:
        """What makes the rows of the chosen tab: all values are taken now."""
        vm, now = self.vm, self.hvtui.now()
        if self.chosen == SUMMARY:
            history = self.hvtui.rates.of(vm)
            return lambda width, height: summary_rows(vm, history, width=width, height=height, now=now)
        if self.chosen == LOG:
            events = [event for event in self.hvtui.events if event.vm_uuid == vm.uuid]
            jobs = tuple(self._jobs.values())
            return lambda width, _height: log_rows(jobs, events, width=width, now=now)
        hardware, sizes = self._hardware, self._sizes
        if hardware is None:
            return partial(_sentence, self._why_empty(), "bad" if self._problem else "dim")
        if self.chosen == HARDWARE:
            problem = self._problem
            return lambda width, _height: [
                *(_sentence(problem, "bad", width, 0) if problem else ()),
                *hardware_rows(vm, hardware, sizes, width=width),
            ]
        xml, head = self._xml()
        return lambda width, _height: XmlRows(xml, width=width, head=head)

    def _why_empty(self) -> str:
        if self._problem or self._is_up:
            return self._problem or "reading…"
        return "the connection is lost: this is read when it is back"

    def _xml(self) -> tuple[ColoredXml, list[Span]]:
        """The text that is shown, and what it is."""
        has_live = self._hardware is not None and bool(self._hardware.live_xml)
        if has_live and self._shows_live:
            return self._live_xml, [("   what runs now", "bold"), ("   v", "key"), (" what its next start uses", "dim")]
        other: list[Span] = [("   v", "key"), (" what runs now", "dim")] if has_live else []
        return self._next_xml, [("   what its next start uses", "bold"), ("   e", "key"), (" edit", "dim"), *other]


def _read_all(host: Host, vm: Vm) -> tuple[Hardware, ColoredXml, ColoredXml]:
    from vm import hardware

    found = hardware.read(host, vm)
    return found, ColoredXml(found.next_xml), ColoredXml(found.live_xml)


def _may_differ(before: Vm, after: Vm) -> bool:
    """Whether its XML may have changed between two snapshots."""
    return any(getattr(before, name) != getattr(after, name) for name in ("config", "state", "name", "domain_id"))


def _sentence(text: str, role: str, width: int, _height: int) -> list[list[Span]]:
    return [[], *([("   ", "text"), (line, role)] for line in wrapped(printable(text, limit=600), width - 6)), []]
