"""The command palette: Textual's own, fed from the action registry, with an input that shows nothing harmful."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, cast

from textual.app import ComposeResult
from textual.command import CommandInput, CommandPalette, DiscoveryHit, Hit, Hits, Provider
from textual.content import Content

from host.text import fit
from hvtui.tui import keymap
from hvtui.tui.actions import Action, all_actions, why_not
from hvtui.tui.widgets.line_input import HarmlessInput

if TYPE_CHECKING:
    from hvtui.tui.app import HvtuiApp


HELP_WIDTH = 42  # one line a command at 80 columns


class PaletteInput(CommandInput, HarmlessInput):
    """The palette's input: what was pasted into it cannot control the terminal."""


class Palette(CommandPalette):
    """Textual's palette on this program's actions, with an input of its own."""

    def __init__(self) -> None:
        super().__init__(providers=[ActionProvider], placeholder="do what?")

    def compose(self) -> ComposeResult:
        for widget in super().compose():
            if isinstance(widget, CommandInput):
                widget = PaletteInput(placeholder=widget.placeholder, select_on_focus=False)
            yield widget


class ActionProvider(Provider):
    """The actions on what is selected below the palette: those that apply, then the others greyed with the reason."""

    async def discover(self) -> Hits:
        reasons = [(action, self._reason(action)) for action in self._all()]
        for action, reason in sorted(reasons, key=lambda pair: bool(pair[1])):
            yield DiscoveryHit(_title(action, reason), partial(self._hvtui.act, action.id), text=action.title)

    async def search(self, query: str) -> Hits:
        matcher = self.matcher(query)
        for action in self._all():
            score = matcher.match(f"{action.title} {action.id}")
            if score > 0:
                reason = self._reason(action)
                score = score / 10 if reason else score
                yield Hit(score, _title(action, reason), partial(self._hvtui.act, action.id), text=action.title)

    @property
    def _hvtui(self) -> HvtuiApp:
        return cast("HvtuiApp", self.app)

    def _reason(self, action: Action) -> str:
        """Why the action does not apply; empty when it does."""
        target = self._hvtui.selected()
        return "" if action.applies(target) else why_not(action, target)

    def _all(self) -> list[Action]:
        return [action for action in all_actions() if action.scope in {"vm", "app"}]


def _cut(text: str) -> str:
    return fit(text, HELP_WIDTH).rstrip()


def _title(action: Action, reason: str) -> Content:
    if reason:
        words = reason.partition(": ")[2]
        return Content.styled(f"{fit(action.title, 22)}{fit('', 8)}{_cut(words)}", "$text-muted not bold")
    key = keymap.shown_key(action)
    help_text = (_cut(action.help), "$text-muted not bold")
    return Content.assemble(fit(action.title, 22), (fit(key, 8), "$text-accent"), help_text)
