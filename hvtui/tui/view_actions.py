"""The actions of the view of one VM, beside those of VMs themselves: its tabs, scrolling, the way back. Data only."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hvtui.tui.actions import Action, Target, on_screen

if TYPE_CHECKING:
    from hvtui.tui.app import HvtuiApp


def _tab(place: int, title: str, help_text: str) -> Action:
    def show(app: HvtuiApp, _target: Target) -> None:
        from hvtui.tui.screens.vm import VmScreen

        if isinstance(app.screen, VmScreen):
            app.screen.show_tab(place - 1)

    return Action(f"view.{title.lower()}", (str(place),), title.lower(), noun="view", help=help_text, handler=show)


def _view(verb: str, keys: str, title: str, method: str, **rest: Any) -> Action:
    rest.setdefault("noun", "list")
    return Action(f"view.{verb}", tuple(keys.split()), title, handler=on_screen(method), **rest)


VIEW_ACTIONS: tuple[Action, ...] = (
    _tab(1, "Summary", "its state, load and addresses"),
    _tab(2, "Hardware", "processor, memory, disks, interfaces, devices"),
    _tab(3, "XML", "its definition"),
    _tab(4, "Log", "its jobs and events"),
    _view("next", "tab right", "next tab", "next_tab", footer=16),
    _view("previous", "shift+tab left", "previous tab", "previous_tab"),
    _view("down", "j down", "down", "scroll_down_one"),
    _view("up", "k up", "up", "scroll_up_one"),
    _view("page_down", "pagedown ctrl+f", "page down", "scroll_down_page"),
    _view("page_up", "pageup ctrl+b", "page up", "scroll_up_page"),
    _view("first", "g home", "first", "scroll_to_first"),
    _view("last", "G end", "last", "scroll_to_last"),
    _view("live", "v", "running XML", "switch_xml", noun="view", help="what runs now, or what its next start uses"),
    _view("refresh", "f5 ctrl+r", "read again", "read_again"),
    _view("back", "escape", "back", "leave", footer=17),
)
