"""From actions and the user's configuration to key bindings, and how keys are written for people."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from textual.binding import Binding, BindingsMap
from textual.keys import _character_to_key  # the one place that knows Textual's names of characters

from host.errors import UsageError
from hvtui.tui.actions import Action, action_named, actions_for

_SHOWN = {
    "question_mark": "?", "slash": "/", "colon": ":", "asterisk": "*", "escape": "esc", "up": "↑", "down": "↓",
    "left": "←", "right": "→", "pageup": "pgup", "pagedown": "pgdn", "full_stop": ".", "comma": ",",
    "left_square_bracket": "[", "right_square_bracket": "]", "minus": "-", "plus": "+",
}  # fmt: skip

_chosen: dict[str, tuple[str, ...]] = {}


def rebind(keys: Mapping[str, str]) -> None:
    """Take the user's keys ({action id: "key" or "key,key"}; replaces earlier ones). Raises UsageError for an
    unknown id, or when two actions that are shown together would share a key."""
    chosen = {}
    for action_id, text in keys.items():
        if action_named(action_id) is None:
            raise UsageError(f"no action has the id {action_id!r}", about="[keys]", remedy="? shows every action's id")
        chosen[action_id] = tuple(key_name(part) for part in text.split(",") if part.strip())
    _chosen.clear()
    _chosen.update(chosen)


def key_name(key: str) -> str:
    """Textual's name of a key as people write it: "?" is question_mark, "ctrl+p" stays."""
    key = key.strip()
    return _character_to_key(key) if len(key) == 1 else key.replace("space bar", "space")


def keys_of(action: Action) -> tuple[str, ...]:
    """The keys of an action: the user's, else its own."""
    return _chosen.get(action.id, action.keys)


def shown_key(action: Action) -> str:
    """The first key of an action as people write it; empty when it has none."""
    keys = keys_of(action)
    return display(keys[0]) if keys else ""


def display(key: str) -> str:
    """A key as people write it: "question_mark" is ?, "upper_s" does not exist (S is S)."""
    prefix, _, last = key.rpartition("+")
    shown = _SHOWN.get(last, last)
    return f"{prefix}+{shown}" if prefix else shown


def bindings_for(scopes: Iterable[str]) -> BindingsMap:
    """The key bindings of a screen that shows the actions of `scopes`. Actions that share a key are tried in the
    scopes' order: the first that applies is run. `act_first` (see HvtuiScreen) keeps fast typing in order."""
    by_key: dict[str, list[str]] = {}
    for action in actions_for(scopes):
        for key in keys_of(action):
            by_key.setdefault(key, []).append(action.id)
    return BindingsMap(
        Binding(key, f"{method}('{' '.join(ids)}')", show=False, priority=method == "act_first")
        for key, ids in by_key.items()
        for method in ("act_first", "act")
    )
