"""The help dialog: every key and action of the screen below, built from the action registry. Shows only."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import ClassVar

from textual import events
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.content import Content
from textual.widget import Widget

from host.text import fit
from hvtui.tui import keymap
from hvtui.tui.actions import Action, actions_for
from hvtui.tui.screens.dialog import Dialog
from hvtui.tui.widgets.page import Page, Row, heading, row

_SCOPE_TITLES = {
    "vm": "Virtual machines: the marked ones, else the one under the cursor",
    "fleet": "This list",
    "view": "This view",
    "app": "Everywhere",
    "jobs": "Jobs",
    "events": "Events",
    "host": "Host",
    "create": "New virtual machine",
    "xml": "XML editor",
    "templates": "Templates",
    "newtemplate": "New template",
    "edittemplate": "What a template says of itself",
    "deploy": "Deploy from a template",
    "import": "Import a virtual machine",
    "export": "Export a virtual machine",
    "capture": "Make a template from a virtual machine",
    "drift": "Where a VM departs from its template",
    "whatif": "What if a host died",
    "clone": "Clone a virtual machine",
    "size": "Memory and vCPUs",
}
_ORDER = (
    "vm",
    "jobs",
    "events",
    "host",
    "create",
    "xml",
    "templates",
    "newtemplate",
    "edittemplate",
    "deploy",
    "import",
    "export",
    "capture",
    "drift",
    "whatif",
    "clone",
    "size",
    "fleet",
    "view",
    "app",
)
_KEYS, _TITLE, _MOST_IDS = 14, 20, 90  # cells; ids are shown from that width on


class HelpScreen(Dialog[None]):
    """Lists the keys of `scopes` (those of the screen below when it is not said)."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,q,question_mark,f1", "leave", "back"),
        Binding("home,g", "scroll(-9999)", show=False),
        Binding("end,G", "scroll(9999)", show=False),
    ]

    def __init__(self, scopes: Sequence[str] = ()) -> None:
        super().__init__()
        self._scopes = tuple(scopes)

    def title_text(self) -> str:
        return "Keys"

    def hints(self) -> Sequence[tuple[str, str]]:
        return (("↑↓", "scroll"), (":", "runs any action by its name"), ("ctrl+p", "palette"), ("esc", "back"))

    def body(self) -> Iterable[Widget]:
        yield VerticalScroll(Page(self._rows(self.app.size.width), id="text"), id="body")

    def on_mount(self) -> None:
        self.query_one("#body").focus()

    def on_resize(self, event: events.Resize) -> None:  # noqa: ARG002 - the width comes from the app
        self.query_one("#text", Page).show(self._rows(self.app.size.width))

    def action_leave(self) -> None:
        self.dismiss(None)

    def _rows(self, width: int) -> list[Row]:
        return help_rows(self._scopes or self._scopes_below(), with_ids=width >= _MOST_IDS)

    def _scopes_below(self) -> tuple[str, ...]:
        below = next((s for s in reversed(self.app.screen_stack) if s is not self and hasattr(s, "SCOPES")), None)
        return (*getattr(below, "SCOPES", ()), "app")


def help_rows(scopes: Sequence[str], *, with_ids: bool) -> list[Row]:
    """The keys of `scopes`, grouped: what they do, and each action's id (for the configuration)."""
    rows: list[Row] = []
    for scope in sorted(scopes, key=_ORDER.index):
        known = [action for action in actions_for((scope,)) if not _is_one_of_many(action)]
        if known:
            rows += [row(), heading(_SCOPE_TITLES.get(scope, scope))]
            rows += [_action_row(action, with_ids=with_ids) for action in known]
    if not with_ids:
        rows += [row(), row(f"At {_MOST_IDS} columns, each line ends with its id for the configuration.", indent=3)]
    return rows[1:]


def _is_one_of_many(action: Action) -> bool:
    """The second to ninth of nine alike."""
    return action.id.startswith("fleet.sort_") and action.id != "fleet.sort_1"


def _keys_that_fit(action: Action) -> str:
    words = ""
    for key in keymap.keys_of(action):
        longer = f"{words} {keymap.display(key)}".lstrip()
        if words and len(longer) >= _KEYS:
            break
        words = longer
    return words


def _action_row(action: Action, *, with_ids: bool) -> Row:
    is_first_of_many = action.id == "fleet.sort_1"
    keys = "1 … 9" if is_first_of_many else _keys_that_fit(action) or f":{action.title}"
    title = "sort by that column" if is_first_of_many else action.title
    words = [(action.help, "$text-muted")] if action.help else []
    ids = [("  " if action.help else "", ""), (action.id, "$text-disabled")] if with_ids else []
    margin = Content.assemble("   ", (fit(keys, _KEYS), "bold $accent"), fit(title, _TITLE), " ")
    return Row(Content.assemble(*words, *ids), margin, 3 + _KEYS + _TITLE + 1)
