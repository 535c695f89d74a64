"""The terminal interface: one app that owns the latest snapshot, the bridge, and the flow from an action to a job."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, ClassVar, cast

from textual.app import App
from textual.binding import BindingType
from textual.screen import Screen

from host.errors import HvtuiError
from host.job_model import Job, JobState
from host.plan import Danger, Plan
from hvtui.tui import catalogue, keymap
from hvtui.tui.actions import Action, Target, action_named
from hvtui.tui.bridge import Bridge, Services
from hvtui.tui.messages import EventArrived, JobsChanged, SnapshotChanged
from hvtui.tui.screens.base import HvtuiScreen
from vm.model import Snapshot

if TYPE_CHECKING:
    from host.connection import Host
    from host.journal import Journal
    from hvtui.config import Config

__all__ = ["HvtuiApp", "Services", "run"]

# Loaded when first opened: what is not imported costs neither time nor memory.
SCREENS = {
    "fleet": "hvtui.tui.screens.fleet:FleetScreen",
    "jobs": "hvtui.tui.screens.jobs:JobsScreen",
    "events": "hvtui.tui.screens.events:EventsScreen",
    "host": "hvtui.tui.screens.host:HostScreen",
    "create": "hvtui.tui.screens.create:CreateScreen",
    "help": "hvtui.tui.screens.help:HelpScreen",
}


class HvtuiApp(App[None]):
    """hvtui's terminal interface on one host."""

    CSS_PATH = "hvtui.tcss"
    TITLE = "hvtui"
    ENABLE_COMMAND_PALETTE = False
    BINDINGS: ClassVar[list[BindingType]] = []

    def __init__(self, services: Services) -> None:
        super().__init__()
        self.services = services
        self.snapshot: Snapshot | None = None
        self.jobs: tuple[Job, ...] = ()
        self.bridge = Bridge(self, services)
        catalogue.load()
        keymap.rebind(services.config.keys)

    async def on_mount(self) -> None:
        self.go("fleet")
        self.bridge.start()

    def go(self, name: str) -> None:
        """Show the screen of that name; one that is open below is uncovered rather than opened twice."""
        screen_class = _screen_class(name)
        for screen in self.screen_stack[1:]:
            if isinstance(screen, screen_class):
                while self.screen is not screen:
                    self.pop_screen()
                return
        self.push_screen(screen_class())

    def act(self, action_id: str) -> None:
        """Run the action of that id on what the shown screen means; a problem is said in the status line."""
        action = action_named(action_id)
        if action is not None:
            self.run_worker(self._act(action), name=action_id, group="actions")

    async def _act(self, action: Action) -> None:
        target = self.screen.target() if isinstance(self.screen, HvtuiScreen) else Target()
        if not action.when(target):
            self.say(f"{action.title}: not for what is selected", "warn")
            return
        try:
            if action.handler is not None:
                result = action.handler(self, target)
                if inspect.isawaitable(result):
                    await result
            elif action.plan is not None:
                await self.propose(await self.plan_each(action.plan, target), done=action.done)
        except HvtuiError as error:
            self.say(str(error), "bad")

    async def plan_each(self, plan: Callable[..., Plan], target: Target) -> tuple[Plan, ...]:
        """One plan for every target VM, made in one thread. Raises HvtuiError."""
        host = self.services.host
        return await self.bridge.call(lambda: tuple(plan(host, vm) for vm in target.vms))

    async def propose(self, plans: Sequence[Plan], *, done: str = "") -> bool:
        """Show the plans, and run them when accepted; True when they ran and all ended well. Harmless plans without
        warnings run at once (unless the configuration says otherwise). `done` is the past tense for the status line.
        Call it from a worker (every action's handler is one)."""
        if not plans:
            return False
        if not self._may_run_at_once(plans):
            from hvtui.tui.screens.plan import PlanScreen

            if not await self.push_screen_wait(PlanScreen(plans)):
                return False
        runnable = [plan for plan in plans if not plan.blockers]
        outcomes = await self.bridge.run_plans(runnable)
        self._tell(runnable, outcomes, done)
        return all(isinstance(outcome, Job) and outcome.state is JobState.DONE for outcome in outcomes)

    def say(self, text: str, role: str = "text") -> None:
        """One line in the status line of the shown screen (or the one below a dialog)."""
        for screen in reversed(self.screen_stack):
            if isinstance(screen, HvtuiScreen):
                screen.say(text, role)
                return

    def _may_run_at_once(self, plans: Sequence[Plan]) -> bool:
        if self.services.config.ui.confirm == "always":
            return False
        return all(plan.danger is Danger.NONE and not plan.warnings and not plan.blockers for plan in plans)

    def _tell(self, plans: Sequence[Plan], outcomes: Sequence[Job | HvtuiError], done: str) -> None:
        failed = [o for o in outcomes if isinstance(o, HvtuiError) or o.state is not JobState.DONE]
        if failed:
            first = failed[0]
            words = str(first) if isinstance(first, HvtuiError) else f"{first.error or first.state} · job {first.id}"
            self.say(f"{len(failed)} of {len(plans)} failed: {words}" if len(plans) > 1 else words, "bad")
            return
        what = (plans[0].vm_name or plans[0].title) if len(plans) == 1 else f"{len(plans)} VMs"
        job_ids = [str(o.id) for o in outcomes if isinstance(o, Job)]
        jobs = f"job {job_ids[0]}" if len(job_ids) == 1 else f"jobs {job_ids[0]}–{job_ids[-1]}"
        self.say(f"{done or 'done:'} {what} · {jobs} · u undo", "good")

    def on_snapshot_changed(self, message: SnapshotChanged) -> None:
        self.snapshot = message.snapshot
        for screen in self._shown():
            screen.update_from(message.snapshot)

    def on_event_arrived(self, message: EventArrived) -> None:
        for screen in self._shown():
            screen.event_arrived(message.event)

    def on_jobs_changed(self, message: JobsChanged) -> None:
        self.jobs = message.jobs
        for screen in self._shown():
            screen.jobs_changed(message.jobs)

    def _shown(self) -> list[HvtuiScreen]:
        """The full screen that is visible, also below a dialog."""
        for screen in reversed(self.screen_stack):
            if isinstance(screen, HvtuiScreen):
                return [screen]
        return []


def _screen_class(name: str) -> type[Screen[None]]:
    module, _, class_name = SCREENS[name].partition(":")
    return cast("type[Screen[None]]", getattr(import_module(module), class_name))


def run(*, host: Host, config: Config, journal: Journal) -> None:
    """Show the terminal interface until the user quits. The caller closes host and journal."""
    HvtuiApp(Services(host=host, journal=journal, config=config)).run()
