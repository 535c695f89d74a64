"""Declares the actions of the whole program, of VMs and of the fleet, and registers all actions once."""

from __future__ import annotations

from hvtui.tui import actions

_loaded = False


def load() -> None:
    """Register every action; safe to call often."""
    global _loaded
    if not _loaded:
        from hvtui.tui.screen_actions import SCREEN_ACTIONS

        _loaded = True
        actions.register(SCREEN_ACTIONS)
