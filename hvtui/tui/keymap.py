"""From actions and the user's configuration to key bindings, and how keys are written for people."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from textual.binding import Binding, BindingsMap
from textual.keys import _character_to_key  # the one place that knows Textual's names of characters

from host.errors import UsageError
from host.text import did_you_mean, printable
from hvtui.tui.actions import Action, action_named, actions_for, all_actions

_SHOWN = {
    "question_mark": "?", "slash": "/", "colon": ":", "asterisk": "*", "escape": "esc", "up": "↑", "down": "↓",
    "left": "←", "right": "→", "pageup": "pgup", "pagedown": "pgdn", "full_stop": ".", "comma": ",",
    "left_square_bracket": "[", "right_square_bracket": "]", "equals_sign": "=", "minus": "-", "plus": "+",
}  # fmt: skip
_TOGETHER = ({"fleet", "vm"}, {"view", "vm"})  # the scopes of the screens that have two

_chosen: dict[str, tuple[str, ...]] = {}


def rebind(keys: Mapping[str, str], *, file: str = "") -> None:
    """Take the user's keys ({action id: "key" or "key,key"}; replaces earlier ones). A built-in key that a user gives
    to another action is that one's alone. Raises UsageError, naming `file`, for an unknown id, or when two actions
    that are shown together were given one key."""
    chosen: dict[str, tuple[str, ...]] = {}
    for action_id, text in keys.items():
        action = action_named(action_id)
        if action is None:
            remedy = did_you_mean(
                action_id, (each.id for each in all_actions()), otherwise="? in the program shows every action's id"
            )
            problem = f"[keys] no action has the id '{printable(action_id, limit=60)}'"
            raise UsageError(problem, about=file, remedy=remedy)
        chosen[action_id] = tuple(key_name(part) for part in text.split(",") if part.strip())
        for other in _shown_with(action, chosen):
            if both := [key for key in chosen[action_id] if key in chosen[other.id]]:
                problem = f"[keys] {other.id} and {action_id} have both the key {display(both[0])}"
                raise UsageError(printable(problem, limit=200), about=file, remedy="Give one of them another key")
    _chosen.clear()
    _chosen.update(chosen)


def _shown_with(action: Action, ids: Iterable[str]) -> list[Action]:
    """Those of the actions `ids` that stand on a screen with `action`; not those that share a key with it by design,
    because never both apply."""
    others = (action_named(each) for each in ids if each != action.id)
    return [
        other
        for other in others
        if other is not None
        and (
            other.scope == action.scope
            or "app" in {other.scope, action.scope}
            or any({other.scope, action.scope} <= scopes for scopes in _TOGETHER)
        )
        and not set(other.keys) & set(action.keys)
    ]


def key_name(key: str) -> str:
    """Textual's name of a key as people write it: "?" is question_mark, "ctrl+p" stays."""
    key = key.strip()
    return _character_to_key(key) if len(key) == 1 else key.replace("space bar", "space")


def keys_of(action: Action) -> tuple[str, ...]:
    """The keys of an action: the user's, else those of its own that the user gave to no other."""
    if action.id in _chosen or not _chosen:
        return _chosen.get(action.id, action.keys)
    taken = {key for other in _shown_with(action, _chosen) for key in _chosen[other.id]}
    return tuple(key for key in action.keys if key not in taken)


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
