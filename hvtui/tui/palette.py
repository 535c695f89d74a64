"""Feeds the command palette from the action registry and the list of VMs."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, cast

from textual.command import DiscoveryHit, Hit, Hits, Provider
from textual.content import Content

from host.text import fit
from hvtui.tui import keymap
from hvtui.tui.actions import Action, all_actions

if TYPE_CHECKING:
    from hvtui.tui.app import HvtuiApp


HELP_WIDTH = 42  # one line a command at 80 columns


class ActionProvider(Provider):
    """The actions that apply to what is selected below the palette."""

    async def discover(self) -> Hits:
        for action in self._applicable():
            yield DiscoveryHit(_title(action), partial(self._hvtui.act, action.id), text=action.title)

    async def search(self, query: str) -> Hits:
        matcher = self.matcher(query)
        for action in self._applicable():
            score = matcher.match(f"{action.title} {action.id}")
            if score > 0:
                yield Hit(score, _title(action), partial(self._hvtui.act, action.id), text=action.title)

    @property
    def _hvtui(self) -> HvtuiApp:
        return cast("HvtuiApp", self.app)

    def _applicable(self) -> list[Action]:
        target = self._hvtui.selected()
        return [action for action in all_actions() if action.applies(target) and action.scope in {"vm", "app"}]


def _cut(text: str) -> str:
    return fit(text, HELP_WIDTH).rstrip()


def _title(action: Action) -> Content:
    key = keymap.shown_key(action)
    help_text = (_cut(action.help), "$text-muted not bold")
    return Content.assemble(fit(action.title, 22), (fit(key, 8), "$text-accent"), help_text)
