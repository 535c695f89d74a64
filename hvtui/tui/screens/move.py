"""The dialogs of a move: the hosts with their stars, and the plan with its forecast. They return what was chosen."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, ClassVar

from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.widget import Widget

from host.plan import Plan, PlanSet
from hvtui.tui import move_text
from hvtui.tui.screens.dialog import Dialog
from hvtui.tui.screens.plan import PlanScreen, PlanSetScreen
from hvtui.tui.widgets.page import Page, Row, row

if TYPE_CHECKING:
    from vm.placement import Rating

KINDS, EJECT, POSTCOPY = "kinds", "eject", "postcopy"  # what may be wanted instead of the plan as it is


class HostsScreen(Dialog["Rating | None"]):
    """The hosts for what is to move, the best first; the reasons of the one under the cursor below. Returns the chosen
    rating, or None to go back. It opens before the hosts were looked at; `show_ratings` tells when they were."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "accept", "choose"),
        Binding("j,down", "move(1)", show=False),
        Binding("k,up", "move(-1)", show=False),
        Binding("home,g", "move(-9999)", show=False),
        Binding("end,G", "move(9999)", show=False),
        Binding("escape,q", "refuse", "back"),
    ]

    def __init__(self, question: str, home: str) -> None:
        super().__init__()
        self._question = question
        self._home = home
        self._ratings: tuple[Rating, ...] = ()
        self._cursor = 0
        self._problem = ""

    def title_text(self) -> str:
        return self._question

    def hints(self) -> Sequence[tuple[str, str]]:
        if not self._ratings:
            return (("esc", "back"),)
        return (("↑↓", "move"), ("enter", "show the plan"), ("esc", "back"))

    def body(self) -> Iterable[Widget]:
        yield VerticalScroll(Page(self._lines(), id="text"), id="body", can_focus=False)

    def show_ratings(self, ratings: Sequence[Rating], problem: str = "") -> None:
        """The hosts were looked at; `problem` says why not, where they could not be."""
        self._ratings, self._problem = tuple(ratings), problem
        others = (place for place, rating in enumerate(self._ratings) if rating.host != self._home)
        self._cursor = next(others, 0)
        if self.is_mounted:
            self.query_one("#text", Page).show(self._lines())
            self.show_frame()

    def action_move(self, rows: int) -> None:
        if not self._ratings:
            return
        self._cursor = min(max(self._cursor + rows, 0), len(self._ratings) - 1)
        page = self.query_one("#text", Page)
        page.show(self._lines())
        self.query_one("#body", VerticalScroll).scroll_to_region(page.place_of(self._cursor), animate=False)

    def action_accept(self) -> None:
        if self._ratings:
            self.dismiss(self._ratings[self._cursor])

    def action_refuse(self) -> None:
        self.dismiss(None)

    def _lines(self) -> list[Row]:
        if self._problem:
            return [row(self._problem, mark="×", style="$text-error")]
        if not self._ratings:
            return [row("looking at the hosts …", style="$text-muted", indent=3)]
        return move_text.rating_rows(self._ratings, self._cursor, self._home)


class MovesScreen(PlanSetScreen):
    """Several moves as one set: each VM's way in a line or two."""

    def __init__(self, made: PlanSet, sights: Sequence[move_text.Sight]) -> None:
        self._sights = tuple(sights)
        super().__init__(made)

    def _rows(self) -> list[Row]:
        return super()._rows() if self._shows_details else move_text.moves_rows(self._plan_set, self._sights)


class MovePlanScreen(PlanScreen):
    """The plan of one move. Dismisses as any plan does; `wants` says that another plan is to be made first."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("o", "want('kinds')", "other kinds"),
        Binding("e", "want('eject')", "eject", show=False),
        Binding("p", "want('postcopy')", "post-copy", show=False),
    ]

    def __init__(self, plans: Sequence[Plan], sight: move_text.Sight) -> None:
        self._sight = sight
        self.wants = ""
        super().__init__(plans)

    def hints(self) -> Sequence[tuple[str, str]]:
        hints = list(super().hints())
        own = [("o", "other kinds")]
        own += [("e", "eject its media")] if self._can(EJECT) else []
        own += [("p", "permit post-copy")] if self._can(POSTCOPY) and not self._sight.request.options.postcopy else []
        place = next((i for i, (key, _words) in enumerate(hints) if key == "d"), len(hints))
        return (*hints[:place], *own, *hints[place:])

    def action_want(self, what: str) -> None:
        """Another kind, or another option: the caller makes the plan anew."""
        if not self._is_typing and (what == KINDS or self._can(what)):
            self.wants = what
            self.dismiss(False)

    def _can(self, what: str) -> bool:
        if what == EJECT:
            return any(check.name == "medium" and not check.ok for check in self._sight.picture.checks)
        return self._sight.kind.value.startswith("live")

    def _rows(self) -> list[Row]:
        if self._shows_details:
            return super()._rows()
        return move_text.move_rows(self.plans[0], self._sight)
