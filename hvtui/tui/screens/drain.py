"""What becomes of each VM of a host that is drained, before anything happens."""

from __future__ import annotations

from typing import TYPE_CHECKING

from textual.content import Content

from host.plan import Plan
from host.text import fit, printable
from hvtui.same_as import set_command_line
from hvtui.tui import move_text
from hvtui.tui.screens.plan import PlanSetScreen
from hvtui.tui.widgets.page import Row, row
from vm.move_forecast import seconds

if TYPE_CHECKING:
    from vm.drain_model import DrainPlan, Fate

_NAME, _FATE, _WHERE = 20, 14, 22
BEST = "nothing less disruptive is needed"  # as vm.drain says it
_LONGEST = 300


class DrainScreen(PlanSetScreen):
    """The fates in the order in which they are begun, with why, the time in all, and what cannot leave."""

    def __init__(self, planned: DrainPlan) -> None:
        self._planned = planned
        super().__init__(planned.plan_set)

    def _rows(self) -> list[Row]:
        return super()._rows() if self._shows_details else drain_rows(self._planned)


def drain_rows(planned: DrainPlan) -> list[Row]:
    """Each VM in a line, those that cannot leave first."""
    rows = [row(Content.styled(_sum(planned), "bold"), indent=1), row()]
    ordered = sorted(planned.fates, key=lambda fate: not fate.could_not_leave)
    rows += [each for fate in ordered for each in _fate_rows(fate)]
    if not planned.fates:
        rows.append(row("it has no VMs", style="$text-muted", indent=1))
    command = Content.styled(set_command_line(planned.plan_set), "$text-muted")
    end = row("Until it is resumed no VM is placed there.", style="$text-muted", indent=1)
    return [*rows, row(), end, Row(command, Content.styled("     same as  ", "$text-muted"), 14)]


def _sum(planned: DrainPlan) -> str:
    going = sum(fate.plan is not None for fate in planned.fates)
    staying = len(planned.fates) - going
    one = "s" if going == 1 else ""
    took = f"in about {seconds(planned.predicted_s)}"
    told = [f"{going} leave{one} or stop{one}, {took}" if going else "nothing has to leave"]
    told += [f"{staying} stay{'s' if staying == 1 else ''}"] if staying else []
    on = len(planned.staying)
    told += [f"{on} of them run{'s' if on == 1 else ''} on" if on else ""]
    return f"{printable(planned.host, limit=40)}: {', '.join(filter(None, told))}"


def _fate_rows(fate: Fate) -> list[Row]:
    """What becomes of it, and why, where that is not the best there is."""
    plan: Plan | None = fate.plan
    style = "$text-error" if fate.could_not_leave else "" if plan is not None else "$text-muted"
    where = f"{printable(fate.host, limit=_WHERE - 8)} {move_text.stars(fate.stars)}" if fate.host and plan else ""
    took = seconds(fate.predicted_s) if plan is not None else ""
    parts = [
        (fit(printable(fate.vm, limit=_NAME), _NAME), style or "bold"),
        (fit(fate.fate, _FATE), style),
        (fit(where, _WHERE), "$text-accent"),
        (took, "$text-muted"),
    ]
    mark = "×" if fate.could_not_leave else "→" if plan is not None else "·"
    rows = [row(Content.assemble(*parts), mark=mark, indent=4)]
    is_best = plan is not None and fate.why == BEST
    return rows if is_best else [*rows, row(printable(fate.why, limit=_LONGEST), style="$text-muted", indent=6)]
