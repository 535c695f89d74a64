"""The `:` line: goes to a VM or a screen, and runs any action by its name. Takes the footer's place while open."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import ClassVar

from textual import events
from textual.binding import Binding, BindingType
from textual.message import Message
from textual.widgets import Input

from hvtui.tui.actions import Action, Target, all_actions
from hvtui.tui.widgets.line_input import HarmlessInput
from vm.model import Vm


@dataclass(frozen=True, slots=True)
class Choice:
    """One thing that the line can do: an action id, a VM to go to, or an action on that VM."""

    text: str
    action_id: str = ""
    vm_uuid: str = ""
    vm_host: str = ""


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
        self._target: Target | None = None
        self._scopes: frozenset[str] | None = None

    def open(self, vms: tuple[Vm, ...], *, target: Target | None = None, scopes: Iterable[str] = ()) -> None:
        """Show the line and take the focus; `vms` can be gone to by name. Actions that do not apply to `target` come
        last; those of other screens than of `scopes` are not offered."""
        self._vms, self._target = vms, target
        self._scopes = frozenset((*scopes, "app", "vm"))
        self.value = ""
        self.screen.set_focus(self)  # at once: the next key may be here already
        self.post_message(self.Offered(self._choices("")))

    def on_input_changed(self, message: Input.Changed) -> None:
        message.stop()
        if self.has_focus:
            self.post_message(self.Offered(self._choices(message.value)))

    def on_key(self, event: events.Key) -> None:
        if event.key == "tab":
            event.stop()
            event.prevent_default()
            offered = self._choices(self.value)
            if offered:
                self.value = offered[0].text
                self.cursor_position = len(self.value)
        elif event.key == "backspace" and not self.value:
            event.stop()
            self.action_close()

    def action_run(self) -> None:
        text = self.value.strip()
        offered = self._choices(text)
        self.action_close()
        if text:
            self.post_message(self.Chosen(offered[0] if offered else None, text))

    def action_close(self) -> None:
        self.screen.set_focus(None)
        self.post_message(self.Closed())

    def _choices(self, text: str) -> tuple[Choice, ...]:
        return choices(text, self._vms, target=self._target, scopes=self._scopes)


def choices(
    text: str, vms: Sequence[Vm], *, target: Target | None = None, scopes: frozenset[str] | None = None
) -> tuple[Choice, ...]:
    """What `text` may mean: an action with a VM's name, actions by title, alias or id, then VMs by name; those that
    begin with it first, those that do not apply to `target` last. Only actions of `scopes`, if given."""
    wanted = text.strip().casefold()
    found: list[tuple[int, int, Choice]] = []
    for place, action in enumerate(all_actions()):
        if action.noun == "list" or (scopes is not None and action.scope not in scopes):
            continue
        found += [(-1, place, choice) for choice in _with_vm(action, wanted, vms)]
        rank = min(_rank(name, wanted) for name in (action.title, *action.aliases, action.id))
        if rank < 9:
            late = 5 if target is not None and not action.applies(target) else 0
            first = 500 if action.scope == "app" and not wanted else 0
            found.append((rank + late, place - first, Choice(action.title, action_id=action.id)))
    if vm_wanted := wanted.removeprefix("vm ").strip():
        ranks = ((place, vm, _rank(vm.name, vm_wanted)) for place, vm in enumerate(vms))
        found += [(rank, 1000 + place, _on_vm(vm)) for place, vm, rank in ranks if rank < 9]
    found.sort(key=lambda item: item[:2])
    return tuple(choice for _rank_, _place, choice in found[:20])


def _with_vm(action: Action, wanted: str, vms: Sequence[Vm]) -> list[Choice]:
    """ "start web-01": the action on that VM, named in full."""
    if action.scope != "vm":
        return []
    for words in (action.title, action.id.partition(".")[2], action.id.replace(".", " ")):
        if wanted.startswith(f"{words} "):
            name = wanted[len(words) :].strip()
            named = [vm for vm in vms if vm.name.casefold() == name]
            if len(named) == 1:  # names that differ only in case: nobody can say which one is meant
                return [_on_vm(named[0], action)]
    return []


def _on_vm(vm: Vm, action: Action | None = None) -> Choice:
    """To go to the VM, or to do that with it."""
    if action is None:
        return Choice(vm.name, vm_uuid=vm.uuid, vm_host=vm.host)
    return Choice(f"{action.title} {vm.name}", action.id, vm.uuid, vm.host)


def _rank(name: str, wanted: str) -> int:
    name = name.casefold()
    if name == wanted:
        return 0
    if name.startswith(wanted):
        return 1
    return 2 if wanted in name else 9
