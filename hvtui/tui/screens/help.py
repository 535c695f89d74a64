"""The help dialog: every key and action of the screen below, built from the action registry. Shows only."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical, VerticalScroll
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import Static

from host.text import fit
from hvtui.tui import keymap
from hvtui.tui.actions import Action, actions_for

_SCOPE_TITLES = {
    "vm": "Virtual machines",
    "fleet": "This list",
    "app": "Everywhere",
    "jobs": "Jobs",
    "events": "Events",
    "host": "Host",
    "create": "New virtual machine",
    "xml": "XML editor",
}
_ALWAYS = (
    ("↑ ↓  j k", "move"),
    ("pgup pgdn  g G", "a page; first and last"),
    ("enter  esc", "open; back"),
)


class HelpScreen(ModalScreen[None]):
    """Lists the keys of `scopes` (those of the screen below when it is not said)."""

    DEFAULT_CSS = """
    HelpScreen { align: center middle; }
    HelpScreen #frame { width: 100%; max-width: 100; height: auto; max-height: 100%; border: round $accent;
        background: $surface; padding: 0 1; }
    HelpScreen #body { height: auto; max-height: 1fr; scrollbar-size-vertical: 1; }
    HelpScreen #keys { height: 1; color: $text-muted; }
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,q,question_mark", "dismiss", "back"),
        Binding("j,down", "scroll(1)", show=False),
        Binding("k,up", "scroll(-1)", show=False),
        Binding("pagedown,space", "scroll(15)", show=False),
        Binding("pageup", "scroll(-15)", show=False),
    ]

    def __init__(self, scopes: Sequence[str] = ()) -> None:
        super().__init__()
        self._scopes = tuple(scopes)

    def compose(self) -> ComposeResult:
        with Vertical(id="frame") as frame:
            frame.border_title = Content(" Keys ")
            with VerticalScroll(id="body", can_focus=False):
                yield Static(help_content(self._scopes or self._scopes_below()))
            yield Static(Content("↑↓ scroll   : runs an action by its id   ctrl+p palette   esc back"), id="keys")

    def action_scroll(self, lines: int) -> None:
        self.query_one("#body", VerticalScroll).scroll_relative(y=lines, animate=False)

    def _scopes_below(self) -> tuple[str, ...]:
        below = next((s for s in reversed(self.app.screen_stack) if s is not self and hasattr(s, "SCOPES")), None)
        return (*getattr(below, "SCOPES", ()), "app")


def help_content(scopes: Sequence[str]) -> Content:
    """The keys of `scopes`, grouped, with each action's id (for the `:` line and the configuration)."""
    lines: list[Content] = [Content.styled(" Moving", "bold $text-accent")]
    lines += [Content(f"   {fit(keys, 16)} {what}") for keys, what in _ALWAYS]
    for scope in scopes:
        known = [action for action in actions_for((scope,)) if keymap.keys_of(action)]
        if known:
            lines += [Content(""), Content.styled(f" {_SCOPE_TITLES.get(scope, scope)}", "bold $text-accent")]
            lines += [_action_line(action) for action in known]
    return Content("\n").join(lines)


def _action_line(action: Action) -> Content:
    keys = " ".join(keymap.display(key) for key in keymap.keys_of(action))
    words = action.title + (f": {action.help}" if action.help else "")
    return Content.assemble("   ", (fit(keys, 16), "bold"), " ", fit(words, 56), " ", (action.id, "$text-muted"))
