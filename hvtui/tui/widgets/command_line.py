"""The `:` line: goes to a VM or a screen, and runs any action by its name. Takes the footer's place while open."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from textual import events
from textual.binding import Binding, BindingType
from textual.message import Message
from textual.widgets import Input

from hvtui.tui.actions import all_actions
from hvtui.tui.widgets.line_input import HarmlessInput
from vm.model import Vm


@dataclass(frozen=True, slots=True)
class Choice:
    """One thing that the line can do: an action id, or a VM to go to."""

    text: str
    action_id: str = ""
    vm_uuid: str = ""


class CommandLine(HarmlessInput):
    """Hidden until opened. Tab completes, enter runs the first choice, esc closes."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "run", "run", show=False),
        Binding("escape", "close", "close", show=False),
    ]

    class Offered(Message):
        """What the text may mean, best first; for the status line."""

        def __init__(self, choices: tuple[Choice, ...]) -> None:
            super().__init__()
            self.choices = choices

    class Chosen(Message):
        """Run this (None: the text means nothing), with what was typed."""

        def __init__(self, choice: Choice | None, text: str) -> None:
            super().__init__()
            self.choice = choice
            self.text = text

    class Closed(Message):
        """The line gave the focus back."""

    def __init__(self) -> None:
        super().__init__(id="command", compact=True, select_on_focus=False)
        self.cursor_blink = False
        self._vms: tuple[Vm, ...] = ()

    def open(self, vms: tuple[Vm, ...]) -> None:
        """Show the line and take the focus; `vms` can be gone to by name."""
        self._vms = vms
        self.value = ""
        self.screen.set_focus(self)  # at once: the next key may be here already
        self.post_message(self.Offered(choices("", vms)))

    def on_input_changed(self, message: Input.Changed) -> None:
        message.stop()
        if self.has_focus:
            self.post_message(self.Offered(choices(message.value, self._vms)))

    def on_key(self, event: events.Key) -> None:
        if event.key == "tab":
            event.stop()
            event.prevent_default()
            offered = choices(self.value, self._vms)
            if offered:
                self.value = offered[0].text
                self.cursor_position = len(self.value)
        elif event.key == "backspace" and not self.value:
            event.stop()
            self.action_close()

    def action_run(self) -> None:
        text = self.value.strip()
        offered = choices(text, self._vms)
        self.action_close()
        if text:
            self.post_message(self.Chosen(offered[0] if offered else None, text))

    def action_close(self) -> None:
        self.screen.set_focus(None)
        self.post_message(self.Closed())


def choices(text: str, vms: Sequence[Vm]) -> tuple[Choice, ...]:
    """What `text` may mean: actions by title, alias or id, then VMs by name; those that begin with it first."""
    wanted = text.strip().casefold()
    vm_wanted = wanted.removeprefix("vm ").strip()
    found: list[tuple[int, int, Choice]] = []
    for place, action in enumerate(all_actions()):
        names = (action.title, *action.aliases, action.id)
        rank = min(_rank(name, wanted) for name in names)
        if rank < 9 and action.scope != "fleet":
            found.append(
                (
                    rank,
                    place - (500 if action.scope == "app" and not wanted else 0),
                    Choice(action.title, action_id=action.id),
                )
            )
    if vm_wanted:
        for place, vm in enumerate(vms):
            rank = _rank(vm.name, vm_wanted)
            if rank < 9:
                found.append((rank, 1000 + place, Choice(vm.name, vm_uuid=vm.uuid)))
    found.sort(key=lambda item: item[:2])
    return tuple(choice for _rank_, _place, choice in found[:20])


def _rank(name: str, wanted: str) -> int:
    name = name.casefold()
    if name == wanted:
        return 0
    if name.startswith(wanted):
        return 1
    return 2 if wanted in name else 9
