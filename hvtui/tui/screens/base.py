"""What every full screen of hvtui shares: header, status line, footer, the keys of its scopes, the latest data."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, ClassVar, cast

from textual import on
from textual.app import ComposeResult
from textual.containers import Horizontal
from textual.screen import Screen
from textual.widget import Widget
from textual.widgets import Static

from host.events import Event
from host.job_model import Job
from hvtui.tui import keymap
from hvtui.tui.actions import Target, action_named
from hvtui.tui.widgets.command_line import CommandLine
from hvtui.tui.widgets.footer import Footer, StatusLine
from hvtui.tui.widgets.header import Crowd, Header
from hvtui.tui.widgets.lines import Lines
from vm.model import Snapshot, Vm

if TYPE_CHECKING:
    from hvtui.tui.app import HvtuiApp


class HvtuiScreen(Screen[None]):
    """A full screen. Subclasses set SCOPES and yield their widgets in `body`; `app` scope is always included.

    `snapshot_changed`, `event_arrived` and `jobs_changed` are called while the screen is shown, and once with the
    latest data when it is shown again.
    """

    SCOPES: ClassVar[tuple[str, ...]] = ()
    IS_TYPED_INTO: ClassVar[bool] = False  # letters go into its text: the footer leaves out what they do elsewhere

    def __init__(self) -> None:
        super().__init__()
        self._bindings = keymap.bindings_for((*self.SCOPES, "app"))
        self._focus_before: Widget | None = None

    @property
    def hvtui(self) -> HvtuiApp:
        """The app, as its own type."""
        return cast("HvtuiApp", self.app)

    @property
    def is_composed(self) -> bool:
        """True once its widgets are there: messages may arrive before."""
        return bool(self.query(StatusLine))

    def compose(self) -> ComposeResult:
        yield Header(lambda: self.hvtui.clock_s())
        yield from self.body()
        yield StatusLine()
        with Horizontal(id="command-row"):
            yield Static(":", id="command-sign")
            yield CommandLine()
        yield Footer(self.SCOPES, help_key="f1") if self.IS_TYPED_INTO else Footer((*self.SCOPES, "app"))

    def body(self) -> Iterable[Widget]:
        """The screen's own widgets, between header and status line."""
        return ()

    def targets(self) -> tuple[Vm, ...]:
        """The VMs that an action on this screen means: the marked ones, else the one under the cursor."""
        return ()

    def target(self) -> Target:
        snapshot = self.hvtui.snapshot
        vms = self.targets()
        return Target(
            vms=vms,
            is_live=self.hvtui.are_up(vms),
            read_only=self.hvtui.services.host.read_only,
            hosts_there=max(len(self.hvtui.services.hosts), 1),
            vms_there=len(snapshot.vms) if snapshot is not None else 0,
        )

    def on_screen_resume(self) -> None:
        if self.is_composed:
            self.update_from(self.hvtui.snapshot)
            self.update_jobs(self.hvtui.jobs)
            self.hvtui.say_again()

    def update_from(self, snapshot: Snapshot | None) -> None:
        """Show `snapshot` in the header and in the screen's own widgets."""
        if snapshot is not None:
            self.query_one(Header).show_snapshot(snapshot, self.crowd())
            self.snapshot_changed(snapshot)

    def crowd(self) -> Crowd | None:
        """What the header says of several hosts; None for one."""
        fleet = self.hvtui.fleet
        if fleet is None:
            return None
        return Crowd(tuple(self.hvtui.snapshots.values()), fleet.light, self.hvtui.current_host.name)

    def update_jobs(self, jobs: tuple[Job, ...]) -> None:
        """Show the running ones in the status line, and all in the screen's own widgets."""
        self.query_one(StatusLine).show_jobs(jobs)
        self.jobs_changed(jobs)

    def snapshot_changed(self, snapshot: Snapshot) -> None:
        """A new picture of the host, for the screen's own widgets."""

    def event_arrived(self, event: Event) -> None:
        """Something happened to a VM."""

    def jobs_changed(self, jobs: tuple[Job, ...]) -> None:
        """The newest jobs first."""

    def say(self, text: str, role: str = "text") -> None:
        """One line for the user, in the status line of the screen that is open: it may be another one by now. `role` is
        text, good, warn, bad or dim."""
        self.hvtui.say(text, role)

    def show_said(self, text: str, role: str) -> None:
        """Show in this screen's status line what the app says."""
        self.query_one(StatusLine).show_said(text, role)

    def action_act(self, action_ids: str) -> None:
        """Run the first of these actions (ids with spaces between) that applies: what every key binding calls."""
        target = self.target()
        ids = action_ids.split()
        found = (action_named(action_id) for action_id in ids)
        chosen = next((action.id for action in found if action is not None and action.applies(target)), ids[-1])
        if chosen != "app.quit" or self.may_quit():
            self.hvtui.act(chosen)

    def may_quit(self) -> bool:
        """False when something typed would be lost, which was then said; the second time True."""
        return True

    def action_act_first(self, action_ids: str) -> None:
        """As `act`, before the key goes to the focused widget."""
        self.action_act(action_ids)

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:  # noqa: ARG002 - Textual's
        """Keys are actions at once where the focused widget takes none itself: then "/web" typed in one go opens the
        filter before its w arrives."""
        return action != "act_first" or self.focused is None or isinstance(self.focused, Lines)

    # The `:` line

    def open_command(self) -> None:
        """Open the `:` line in the footer's place."""
        snapshot = self.hvtui.snapshot
        self._focus_before = self.focused
        self._show_command_row(shown=True)
        self.query_one(CommandLine).open(
            snapshot.vms if snapshot is not None else (), target=self.target(), scopes=self.SCOPES
        )

    def _show_command_row(self, *, shown: bool) -> None:
        self.query_one(Footer).display = not shown
        self.query_one("#command-row").display = shown

    @on(CommandLine.Offered)
    def _command_offered(self, message: CommandLine.Offered) -> None:
        words = "   ".join(choice.text for choice in message.choices[:8])
        self.query_one(StatusLine).stand(words or "nothing is called that", "dim")

    @on(CommandLine.Closed)
    def _command_closed(self) -> None:
        self._show_command_row(shown=False)
        self.set_focus(self._focus_before)
        self.query_one(StatusLine).stand("")

    @on(CommandLine.Chosen)
    def _command_chosen(self, message: CommandLine.Chosen) -> None:
        self.hvtui.run_command(message.choice, message.text)
