"""The terminal interface: one app that owns the latest snapshot, the bridge, and the flow from an action to a job."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import time
from collections import deque
from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, TypeVar, cast

from textual.binding import BindingType
from textual.filter import NoColor
from textual.screen import Screen
from textual.timer import Timer

from host.errors import HvtuiError
from host.events import Event
from host.job_model import Job
from host.plan import Plan
from hvtui import same_as
from hvtui.choices import SHORT_THEMES
from hvtui.target import library_of
from hvtui.tui import catalogue, keymap, symbols, themes
from hvtui.tui.actions import Action, Handler, Target, action_named, why_not
from hvtui.tui.bridge import Bridge, Services
from hvtui.tui.driver import TerminalDriver
from hvtui.tui.key_words import in_keys
from hvtui.tui.messages import EventArrived, JobsChanged, SnapshotChanged
from hvtui.tui.outcome_text import left_out
from hvtui.tui.proposals import Proposing
from hvtui.tui.rate_history import RateHistories
from hvtui.tui.screens.base import HvtuiScreen
from hvtui.tui.widgets import footer
from hvtui.tui.widgets.command_line import Choice
from vm.model import Snapshot, Vm

if TYPE_CHECKING:
    from host.connection import Host
    from host.host_list import HostEntry
    from host.journal import Journal
    from hvtui.config import Config
    from hvtui.tui.fleet_state import FleetState
    from vm.feed import ReadSamples

__all__ = ["HvtuiApp", "Services", "run"]

EVENTS_KEPT = 1000
LEAVING_POLL_S = 0.1
T = TypeVar("T")

# Loaded when first opened: what is not imported costs neither time nor memory.
SCREENS = {
    "fleet": "hvtui.tui.screens.fleet:FleetScreen",
    "jobs": "hvtui.tui.screens.jobs:JobsScreen",
    "events": "hvtui.tui.screens.events:EventsScreen",
    "host": "hvtui.tui.screens.host:HostScreen",
    "create": "hvtui.tui.screens.create:CreateScreen",
    "templates": "hvtui.tui.screens.templates:TemplatesScreen",
    "deploy": "hvtui.tui.screens.deploy:DeployScreen",
    "import": "hvtui.tui.screens.import_vm:ImportScreen",
    "help": "hvtui.tui.screens.help:HelpScreen",
}


class HvtuiApp(Proposing):
    """hvtui's terminal interface, on one host or on several."""

    CSS_PATH = Path(__file__).with_name("hvtui.tcss")
    TITLE = "hvtui"
    ENABLE_COMMAND_PALETTE = False
    BINDINGS: ClassVar[list[BindingType]] = []

    def __init__(self, services: Services) -> None:
        super().__init__(driver_class=TerminalDriver)
        self.services = services
        self.snapshot: Snapshot | None = None  # of all hosts as one, where there are several
        self.snapshots: Mapping[str, Snapshot] = {}  # by host
        self.jobs: tuple[Job, ...] = ()
        self.rates = RateHistories()
        self.events: deque[Event] = deque(maxlen=EVENTS_KEPT)
        self._last_host = ""
        self.events_dropped = 0  # how many older ones the list has lost; a row's key is its number since the start
        self.bridge = Bridge(self, services)
        self.fleet: FleetState | None = None
        same_as.name_hosts({entry.uri: entry.name for entry in services.config.hosts})
        if services.is_many:
            from hvtui.tui.fleet_state import FleetState

            self.fleet = FleetState(self)
        self._said = ("", "text")
        self._said_at_s = 0.0
        self._forget: Timer | None = None
        self._is_leaving = False
        self.ended_by_signal: int | None = None  # the exit code that a shell gives for it
        catalogue.load()
        keymap.rebind(services.config.keys, file=services.config.file)
        self._fit_to_terminal()

    def _fit_to_terminal(self) -> None:
        """Choose theme and symbols by the configuration and by what the terminal can show."""
        ui = self.services.config.ui
        for colors in themes.ALL_COLORS.values():
            self.register_theme(themes.textual_theme(colors))
        theme = SHORT_THEMES.get(ui.theme, ui.theme) or themes.for_terminal(os.environ)
        if self.no_color:
            theme = themes.ANSI.name
            self._filters[:] = [NoColor()]
        self.animation_level = "none"  # nothing moves by itself: each step of an animation goes over the wire
        if ui.ascii or (ui.ascii is None and symbols.needs_ascii(os.environ)):
            self._filters.append(symbols.AsciiFilter())
        self.theme = theme

    async def on_load(self) -> None:
        """Called before the terminal is taken: from here on, signals that end a program give it back first."""
        for number in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, self._ended_by, number)

    def _ended_by(self, number: signal.Signals) -> None:
        self.ended_by_signal = 128 + number
        self.exit(return_code=self.ended_by_signal)

    async def on_mount(self) -> None:
        self.go("fleet")
        self.start_services()

    def start_services(self) -> None:
        """Let snapshots, events and jobs arrive. Scenes that stand still (pictures) replace it."""
        self.bridge.start()

    def on_unmount(self) -> None:
        self.bridge.stop()

    async def leave(self) -> None:
        """Quit; jobs of this process are given the time to end, unless the user asks again."""
        if self._is_leaving or not self.bridge.running_here:
            self.exit()
            return
        self._is_leaving = True
        while self.bridge.running_here:
            self.say(f"{self.bridge.running_here} running here: quits when they are done, q again quits now", "warn")
            await asyncio.sleep(LEAVING_POLL_S)
        self.exit()

    async def action_quit(self) -> None:
        """ctrl+q is Textual's own key and goes before every screen's: it quits as q does, and asks where q asks."""
        if isinstance(self.screen, HvtuiScreen):
            self.screen.action_act("app.quit")
        else:
            await self.leave()

    @property
    def failure(self) -> BaseException | None:
        """The internal error that ended the app, if one did."""
        from textual.worker import WorkerFailed

        problem = self._exception
        return problem.error if isinstance(problem, WorkerFailed) else problem

    def _print_error_renderables(self) -> None:
        """Textual would print a traceback: the outermost edge (hvtui.__main__) tells of `failure` instead."""
        self._exit_renderables.clear()

    def now(self) -> datetime:
        """The time that uptimes are counted to."""
        return datetime.now(UTC)

    def clock_s(self) -> float:
        """The time.monotonic() instant that the age of what is shown is counted to."""
        return time.monotonic()

    def next_theme(self) -> None:
        """The next of the four themes."""
        names = list(themes.ALL_COLORS)
        place = names.index(self.theme) if self.theme in names else -1
        self.theme = names[(place + 1) % len(names)]
        self.say(f"theme {self.theme.removeprefix('hvtui-')}", "dim")

    def open_palette(self) -> None:
        """Every action by name; those that do not apply come last, with the reason."""
        from hvtui.tui.palette import Palette

        self.push_screen(Palette())

    def back(self) -> None:
        """Leave the shown screen; the fleet stays."""
        if len(self.screen_stack) > 2:
            self.pop_screen()

    def run_command(self, choice: Choice | None, text: str) -> None:
        """Do what the `:` line chose."""
        if choice is None:
            self.say(f"nothing is called {text!r}", "warn")
        elif choice.vm_uuid and choice.action_id:
            self.act(choice.action_id, on=self._targeted(choice))
        elif choice.vm_uuid:
            self.go_to_vm(choice.vm_uuid, choice.vm_host)
        else:
            self.act(choice.action_id)

    def _targeted(self, choice: Choice) -> Target:
        vms = self.snapshot.vms if self.snapshot is not None else ()
        chosen = [vm for vm in vms if vm.uuid == choice.vm_uuid and choice.vm_host in {"", vm.host}][:1]
        return replace(self.selected(), vms=tuple(chosen), is_live=self.is_up(chosen[0] if chosen else None))

    def go_to_vm(self, uuid: str, host_name: str = "") -> None:
        """Show the list with the cursor on that VM (of that host, where a definition may be on two)."""
        self.go("fleet")
        self.call_after_refresh(self._go_to_vm, uuid, host_name)

    def _go_to_vm(self, uuid: str, host_name: str) -> None:
        from hvtui.tui.screens.fleet import FleetScreen

        if isinstance(self.screen, FleetScreen):
            self.screen.go_to_vm(uuid, host_name)

    def open_host(self, name: str) -> None:
        """Show the screen of that host."""
        from hvtui.tui.screens.host import HostScreen

        self._last_host = name
        self.push_screen(HostScreen(name))

    def go(self, name: str) -> None:
        """Show the screen of that name; one that is open below is uncovered rather than opened twice."""
        screen_class = _screen_class(name)
        for screen in self.screen_stack[1:]:
            if isinstance(screen, screen_class):
                while self.screen is not screen:
                    self.pop_screen()
                return
        self.push_screen(screen_class())

    def act(self, action_id: str, *, on: Target | None = None) -> None:
        """Run the action of that id on what the shown screen means, or on `on`; a problem is said in the status
        line."""
        action = action_named(action_id)
        if action is None:
            return
        selected = on if on is not None else self.selected()
        self._last_host = selected.host or next((vm.host for vm in selected.vms), self._last_host)
        if action.plan is not None or action.noun == "vm":
            self.say("")  # what was said before is not about this
        if not action.applies(selected):
            self.say(why_not(action, selected), "warn")
            return
        target = action.narrowed(selected)
        if action.plan is not None:
            self._work(self._plan_and_propose(action, target, left_out(selected, target)))
        elif action.handler is not None:
            self._handle(action.handler, target)

    def _handle(self, handler: Handler, target: Target) -> None:
        """Call a handler at once; what it leaves to be awaited goes on in a worker."""
        try:
            rest = handler(self, target)
        except HvtuiError as error:
            self.say(str(error), "bad")
            return
        if rest is not None:
            self._work(rest)

    def _work(self, rest: Awaitable[object]) -> None:
        async def guarded() -> None:
            try:
                await rest
            except HvtuiError as error:
                self.say(str(error), "bad")

        self.run_worker(guarded(), group="actions")

    async def _plan_and_propose(self, action: Action, target: Target, left: str) -> None:
        plan = action.plan
        if plan is None:
            return

        async def again(vms: Sequence[Vm]) -> Sequence[Plan]:
            return await self.plan_each(plan, Target(vms=tuple(vms)))

        await self.propose(await self.plan_each(plan, target), done=action.done, again=again, left=left)

    @property
    def current_host(self) -> Host:
        """The Host that is meant where no VM is (a new VM, templates): the chosen one, else that of the VM under the
        cursor, else the first that answers."""
        hosts = self.services.hosts or (self.services.host,)
        up = (host for host in hosts if (found := self.snapshots.get(host.name)) is not None and found.link.is_up)
        return next((host for host in hosts if host.name == self._last_host), None) or next(up, hosts[0])

    @property
    def is_demo(self) -> bool:
        """Everything is simulated, and no file has a content."""
        if not self.services.host.is_simulated:
            return False
        from vm.demo import is_demo

        return is_demo(self.services.host)

    def library_at(self, host: Host) -> str:
        """The storage pool of templates there, as the configuration says."""
        return library_of(host.name, host.uri, self.services.config)

    def selected(self) -> Target:
        """What an action would work on now."""
        screen = self._shown()
        return screen.target() if screen is not None else Target()

    def asked(self, prompt: Screen[T]) -> Awaitable[T | None]:
        """Open a dialog now (what is typed next is for it), to await its answer."""
        answer: asyncio.Future[T | None] = asyncio.get_running_loop().create_future()

        def take(result: T | None) -> None:
            if not answer.done():
                answer.set_result(result)

        self.push_screen(prompt, take)
        return answer

    def say(self, text: str, role: str = "text") -> None:
        """One line in the status line of whichever screen is open, until something else is said, at most SAID_S; what
        went wrong stays until another screen is opened. Role is text, good, warn, bad or dim."""
        if self._forget is not None:
            self._forget.stop()
        lasts = not text or role == "bad"
        self._forget = None if lasts else self.set_timer(footer.SAID_S, partial(self.say, ""))
        self._said, self._said_at_s = (in_keys(text), role), time.monotonic()
        self._show_said()

    def say_again(self) -> None:
        """Show on a screen that was just opened what was said lately, perhaps while another one was open."""
        if time.monotonic() - self._said_at_s >= footer.SAID_S:
            self._said = ("", "text")
        self._show_said()

    def _show_said(self) -> None:
        if (screen := self._shown()) is not None:
            screen.show_said(*self._said)

    def on_snapshot_changed(self, message: SnapshotChanged) -> None:
        if self.snapshot is None:
            gc.freeze()  # what is loaded now lives as long as the program: collections need not look at it
        self.snapshot, self.snapshots = message.snapshot, message.by_host
        screen = self._shown()
        looked_at = {vm.uuid for vm in screen.targets()} if screen is not None else ()
        for each in message.by_host.values():
            self.rates.take(each, looked_at=looked_at)
        if screen is not None:
            screen.update_from(message.snapshot)
        if self.fleet is not None:
            self.fleet.snapshot_changed(message.snapshot)

    def show_again(self) -> None:
        """Have the shown screen show what the app knows of the hosts beside their snapshots."""
        if (screen := self._shown()) is not None:
            screen.update_from(self.snapshot)

    def on_event_arrived(self, message: EventArrived) -> None:
        self.events_dropped += len(self.events) == self.events.maxlen
        self.events.append(message.event)
        if (screen := self._shown()) is not None:
            screen.event_arrived(message.event)

    def on_jobs_changed(self, message: JobsChanged) -> None:
        self.jobs = message.jobs
        if (screen := self._shown()) is not None:
            screen.update_jobs(message.jobs)
        if self.fleet is not None:
            self.fleet.jobs_changed()

    def _shown(self) -> HvtuiScreen | None:
        """The full screen that is visible, also below a dialog."""
        for screen in reversed(self.screen_stack):
            if isinstance(screen, HvtuiScreen) and screen.is_composed:
                return screen
        return None


def _screen_class(name: str) -> type[Screen[None]]:
    module, _, class_name = SCREENS[name].partition(":")
    return cast("type[Screen[None]]", getattr(import_module(module), class_name))


def run(
    *,
    host: Host,
    config: Config,
    journal: Journal,
    simulated_samples: ReadSamples | None = None,
    hosts: tuple[Host, ...] = (),
    entries: tuple[HostEntry, ...] = (),
) -> int:
    """Show the terminal interface until the user quits; returns the exit code. The caller closes hosts and journal.
    Raises what ended it other than the user or a signal, once the terminal is restored."""
    if simulated_samples is None and host.is_simulated:
        from vm import demo

        simulated_samples = demo.simulated_samples if demo.is_demo(host) else None
    services = Services(
        host=host, journal=journal, config=config, simulated_samples=simulated_samples, hosts=hosts, entries=entries
    )
    app = HvtuiApp(services)
    app.run()
    if app.ended_by_signal is not None:
        return app.ended_by_signal  # a screen that was just being made may fail when it is ended: that tells nothing
    if app.failure is not None:
        raise app.failure
    return app.return_code or 0
