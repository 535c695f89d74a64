"""The actions of the screens other than the fleet: jobs, events, host, create, XML editor, console. Data only."""

from __future__ import annotations

from hvtui.tui.actions import Action

SCREEN_ACTIONS: tuple[Action, ...] = ()
