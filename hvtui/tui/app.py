"""The terminal interface: one app that owns the latest snapshot, the bridge, and the flow from an action to a job."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, TypeAlias, TypeVar, cast

from textual.app import App
from textual.binding import BindingType
from textual.filter import NoColor
from textual.screen import Screen
from textual.timer import Timer

from host.errors import HvtuiError
from host.events import Event
from host.job_model import Job, JobSet, JobState
from host.plan import Danger, Plan, PlanSet
from hvtui.choices import SHORT_THEMES
from hvtui.holders import holding_jobs, make_way, with_holders
from hvtui.tui import catalogue, keymap, symbols, themes
from hvtui.tui.actions import Action, Handler, Target, action_named, why_not
from hvtui.tui.bridge import Bridge, Services
from hvtui.tui.driver import TerminalDriver
from hvtui.tui.key_words import in_keys
from hvtui.tui.messages import EventArrived, JobsChanged, SnapshotChanged
from hvtui.tui.outcome_text import about, done_words, left_out, outcome_words
from hvtui.tui.rate_history import RateHistories
from hvtui.tui.screens.base import HvtuiScreen
from hvtui.tui.widgets import footer
from hvtui.tui.widgets.command_line import Choice
from vm.model import Snapshot, Vm

if TYPE_CHECKING:
    from host.connection import Host
    from host.journal import Journal
    from hvtui.config import Config
    from hvtui.tui.remedies import Remedy
    from vm.feed import ReadSamples

__all__ = ["HvtuiApp", "Services", "run"]

EVENTS_KEPT = 1000
LEAVING_POLL_S = 0.1
REMEDY_POLL_S = 0.1
REMEDY_SEEN_S = 5.0  # how long the list may take to know what a remedy did
REMEDIED = {"vm.resume": "resumed"}
T = TypeVar("T")
Again: TypeAlias = Callable[[Sequence[Vm]], Awaitable[Sequence[Plan]]]

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


class HvtuiApp(App[None]):
    """hvtui's terminal interface on one host."""

    CSS_PATH = Path(__file__).with_name("hvtui.tcss")
    TITLE = "hvtui"
    ENABLE_COMMAND_PALETTE = False
    BINDINGS: ClassVar[list[BindingType]] = []

    def __init__(self, services: Services) -> None:
        super().__init__(driver_class=TerminalDriver)
        self.services = services
        self.snapshot: Snapshot | None = None
        self.jobs: tuple[Job, ...] = ()
        self.rates = RateHistories()
        self.events: deque[Event] = deque(maxlen=EVENTS_KEPT)
        self.events_dropped = 0  # how many older ones the list has lost; a row's key is its number since the start
        self.bridge = Bridge(self, services)
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
            self.act(choice.action_id, on=replace(self.selected(), vms=self._vms_of([choice.vm_uuid])))
        elif choice.vm_uuid:
            self.go_to_vm(choice.vm_uuid)
        else:
            self.act(choice.action_id)

    def go_to_vm(self, uuid: str) -> None:
        """Show the list with the cursor on that VM."""
        self.go("fleet")
        self.call_after_refresh(self._go_to_vm, uuid)

    def _go_to_vm(self, uuid: str) -> None:
        from hvtui.tui.screens.fleet import FleetScreen

        if isinstance(self.screen, FleetScreen):
            self.screen.go_to_vm(uuid)

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

    def selected(self) -> Target:
        """What an action would work on now."""
        screen = self._shown()
        return screen.target() if screen is not None else Target()

    async def plan_each(self, plan: Callable[..., Plan], target: Target) -> tuple[Plan, ...]:
        """One plan for every target VM, made in one thread. Raises HvtuiError."""
        host = self.services.host
        return await self.bridge.call(lambda: tuple(plan(host, vm) for vm in target.vms))

    async def propose(
        self,
        plans: Sequence[Plan],
        *,
        done: str = "",
        ask: bool = False,
        accepted: Callable[[], None] | None = None,
        again: Again | None = None,
        left: str = "",
    ) -> bool:
        """Show the plans, and run them when accepted; True when they ran and all ended well. Harmless plans without
        warnings run at once (unless `ask` or the configuration says otherwise). `done` is the past tense for the
        status line; `accepted` is called before they run; `again` makes the plans anew for VMs that a remedy has
        changed, which are then proposed in their place; `left` says which VMs of the selection are left out.
        Call it from a worker (every action's handler is one)."""
        if not plans:
            return False
        runnable = plans
        if ask or not self._may_run_at_once(plans):
            from hvtui.tui.screens.plan import PlanScreen

            held = await self.bridge.call(holding_jobs, self.services.journal)
            dialog = PlanScreen(with_holders(plans, held), left_out=left)
            runnable = dialog.runnable
            if not await self.push_screen_wait(dialog):
                if dialog.remedy is None:
                    return False
                plans = await self._remedied(plans, dialog.remedy, again)
                return await self.propose(plans, done=done, ask=True, accepted=accepted, again=again, left=left)
        if accepted is not None:
            accepted()
        self._follow_new(runnable)
        await self.bridge.call(make_way, runnable, self.services.journal)
        outcomes = await self.bridge.run_plans(runnable)
        await self._tell(runnable, outcomes, done, left)
        return all(isinstance(outcome, Job) and outcome.state is JobState.DONE for outcome in outcomes)

    async def propose_set(
        self,
        plan_set: PlanSet,
        *,
        done: str = "",
        ask: bool = True,
        accepted: Callable[[], None] | None = None,
    ) -> bool:
        """Show a set of plans, and run it when accepted; True when it ran and all of it is done. The arguments are as
        for `propose`. Call it from a worker. Raises HvtuiError when the set cannot begin."""
        plans = (*plan_set.preparations, *plan_set.plans)
        if ask or plan_set.warnings or plan_set.blockers or not self._may_run_at_once(plans):
            from hvtui.tui.screens.plan import PlanSetScreen

            if not await self.push_screen_wait(PlanSetScreen(plan_set)):
                return False
        if accepted is not None:
            accepted()
        self._follow_new(plan_set.plans)
        jobs = await self.bridge.run_set(plan_set)
        self.tell_set(jobs, done=done)
        return JobSet(jobs).state is JobState.DONE

    def tell_set(self, jobs: tuple[Job, ...], *, done: str = "") -> None:
        """Say what became of a set, or of some of it: the first that failed in full."""
        told = [job for job in jobs if not job.is_preparation or job.state is not JobState.DONE]
        fine = {JobState.DONE, JobState.ROLLED_BACK}
        if all(job.state in fine for job in told):
            job_set = JobSet(jobs)
            what = about(told[0].plan) if len(told) == 1 else f"{len(told)} VMs"
            self.say(f"{done or 'done:'} {what} · set {job_set.id}", "good")
        elif ended := outcome_words(told):
            self.say(*ended)

    async def _remedied(self, plans: Sequence[Plan], remedy: Remedy, again: Again | None) -> Sequence[Plan]:
        """Propose the remedy for the VMs that it belongs to. Returns the plans to come back to: the same ones when the
        remedy was not wanted, none when there is nothing left to do."""
        vms = self._vms_of(remedy.uuids)
        done = REMEDIED.get(remedy.blocker_id, remedy.action.done)
        if not await self.propose(await self.plan_each(remedy.plan, Target(vms=vms)), done=done):
            return plans
        from hvtui.tui.remedies import is_fulfilled, is_removed

        deadline = time.monotonic() + REMEDY_SEEN_S
        uuids = [plan.vm_uuid for plan in plans if plan.vm_uuid and not is_fulfilled(remedy, plan)]
        if again is None or not uuids:
            return ()
        made = await again(self._vms_of(uuids))
        while not is_removed(remedy, made) and time.monotonic() < deadline:
            await asyncio.sleep(REMEDY_POLL_S)  # until the list knows it
            made = await again(self._vms_of(uuids))
        made = [plan for plan in made if not (plan.blockers and plan.vm_uuid in remedy.uuids)]
        return made if any(not plan.blockers for plan in made) else ()

    def _follow_new(self, plans: Sequence[Plan]) -> None:
        """Have the list put its cursor on the VM that a single plan makes, as soon as it is there."""
        from hvtui.tui.screens.fleet import FleetScreen

        uuid = plans[0].vm_uuid if len(plans) == 1 else None
        if uuid is not None and not self._vms_of([uuid]):
            for screen in self.screen_stack:
                if isinstance(screen, FleetScreen):
                    screen.follow_new(uuid)

    def _vms_of(self, uuids: Iterable[str]) -> tuple[Vm, ...]:
        """Those VMs as the list has them now, in the order of `uuids`."""
        there = {vm.uuid: vm for vm in self.snapshot.vms} if self.snapshot is not None else {}
        return tuple(there[uuid] for uuid in uuids if uuid in there)

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

    def _may_run_at_once(self, plans: Sequence[Plan]) -> bool:
        if self.services.config.ui.confirm == "always":
            return False
        return all(plan.danger is Danger.NONE and not plan.warnings and not plan.blockers for plan in plans)

    async def _tell(self, plans: Sequence[Plan], outcomes: Sequence[Job | HvtuiError], done: str, left: str) -> None:
        if ended := outcome_words(outcomes):
            self.say(*ended)
            return
        what = about(plans[0]) if len(plans) == 1 else f"{len(plans)} VMs"
        jobs = sorted((outcome for outcome in outcomes if isinstance(outcome, Job)), key=lambda job: job.id)
        number = f"job {jobs[0].id}" if len(jobs) == 1 else f"jobs {jobs[0].id}–{jobs[-1].id}"
        hint = " · u undo" if len(jobs) == 1 and await self._can_undo(jobs[0]) else ""
        hint += f" · {left}" if left else ""
        self.say(f"{done_words(plans, done) or 'done:'} {what} · {number}{hint}", "good")

    async def _can_undo(self, job: Job) -> bool:
        from host.jobs import plan_undo

        try:
            return not (await self.bridge.call(plan_undo, job, self.services.host)).blockers
        except HvtuiError:
            return False

    def on_snapshot_changed(self, message: SnapshotChanged) -> None:
        if self.snapshot is None:
            gc.freeze()  # what is loaded now lives as long as the program: collections need not look at it
        self.snapshot = message.snapshot
        screen = self._shown()
        self.rates.take(message.snapshot, looked_at={vm.uuid for vm in screen.targets()} if screen is not None else ())
        if screen is not None:
            screen.update_from(message.snapshot)

    def on_event_arrived(self, message: EventArrived) -> None:
        self.events_dropped += len(self.events) == self.events.maxlen
        self.events.append(message.event)
        if (screen := self._shown()) is not None:
            screen.event_arrived(message.event)

    def on_jobs_changed(self, message: JobsChanged) -> None:
        self.jobs = message.jobs
        if (screen := self._shown()) is not None:
            screen.update_jobs(message.jobs)

    def _shown(self) -> HvtuiScreen | None:
        """The full screen that is visible, also below a dialog."""
        for screen in reversed(self.screen_stack):
            if isinstance(screen, HvtuiScreen) and screen.is_composed:
                return screen
        return None


def _screen_class(name: str) -> type[Screen[None]]:
    module, _, class_name = SCREENS[name].partition(":")
    return cast("type[Screen[None]]", getattr(import_module(module), class_name))


def run(*, host: Host, config: Config, journal: Journal, simulated_samples: ReadSamples | None = None) -> int:
    """Show the terminal interface until the user quits; returns the exit code. The caller closes host and journal.
    Raises what ended it other than the user or a signal, once the terminal is restored."""
    if simulated_samples is None and host.is_simulated:
        from vm import demo

        simulated_samples = demo.simulated_samples if demo.is_demo(host) else None
    services = Services(host=host, journal=journal, config=config, simulated_samples=simulated_samples)
    app = HvtuiApp(services)
    app.run()
    if app.ended_by_signal is not None:
        return app.ended_by_signal  # a screen that was just being made may fail when it is ended: that tells nothing
    if app.failure is not None:
        raise app.failure
    return app.return_code or 0
