"""Moves as text: hosts with stars and reasons, the plan of a move with its forecast, the figures afterwards. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from textual.content import Content

from host.job_model import Job, JobState
from host.plan import Plan, PlanSet
from host.text import fit, printable
from host.units import format_bytes
from hvtui.same_as import set_command_line
from hvtui.tui import plan_text
from hvtui.tui.symbols import CURSOR
from hvtui.tui.widgets.page import Row, row
from vm.move_forecast import forecast, in_words, seconds
from vm.move_model import MoveKind, MovePicture

if TYPE_CHECKING:
    from vm.model import Snapshot
    from vm.move_model import MoveRequest
    from vm.placement import Rating

MOST_STARS = 5
_LONGEST = 300
_NAME = 24
_STARS = 8
KINDS = {
    MoveKind.LIVE: "live migration",
    MoveKind.LIVE_STORAGE: "live migration with its disks",
    MoveKind.QUICK: "quick migration: saved here, restored there",
    MoveKind.OFFLINE: "offline: it is off",
    MoveKind.DEFINITION: "copy of the definition: the VM stays",
}
SHORT = {
    MoveKind.LIVE: "live",
    MoveKind.LIVE_STORAGE: "live with disks",
    MoveKind.QUICK: "quick",
    MoveKind.OFFLINE: "offline",
    MoveKind.DEFINITION: "definition only",
}
_SIGNS = {"+": "$text-success", "-": "$text-warning", "=": "$text-muted"}
_MOVE_VERBS = frozenset({"move.live", "move.restore"})
PREDICTED = "predicted "  # how vm.move_forecast begins


@dataclass(frozen=True, slots=True)
class Sight:
    """What the dialog of one move shows beside its plan. `why_not` is why no less disruptive kind is taken."""

    picture: MovePicture
    kind: MoveKind
    request: MoveRequest
    why_not: tuple[str, ...] = ()
    rating: Rating | None = None


def stars(value: float) -> str:
    """ "★★★½☆"."""
    halves = round(value * 2)
    text = "★" * (halves // 2) + "½" * (halves % 2)
    return text + "☆" * (MOST_STARS - len(text))


# The hosts


def rating_rows(ratings: Sequence[Rating], cursor: int, home: str) -> list[Row]:
    """The hosts, the best first, then the reasons of the one under the cursor."""
    name_cells = min(max(len(printable(rating.host, limit=_NAME)) for rating in ratings) + 2, _NAME)
    rows = [_rating_row(rating, place == cursor, home, name_cells) for place, rating in enumerate(ratings)]
    chosen = ratings[cursor]
    rows += [row(), row(Content.styled(f"why {printable(chosen.host, limit=60)}", "$text-muted"), indent=3)]
    for reason in chosen.reasons:
        sign, _, words = reason.partition(" ")
        style = _SIGNS.get(sign, "") if chosen.is_possible else "$text-error"
        mark = Content.styled(f"   {sign} ", style)
        rows.append(Row(Content(printable(words, limit=_LONGEST)), mark, 5))
    return rows


def _rating_row(rating: Rating, is_current: bool, home: str, name_cells: int) -> Row:
    is_home = rating.host == home
    cells = _STARS + name_cells
    words = "it is here: enter moves its disks to another pool" if is_home else ""
    if not words and not rating.is_possible:
        words = printable(rating.why_not, limit=_LONGEST)
    style = "bold" if is_current else "" if rating.is_possible else "$text-muted"
    pointer = (f" {CURSOR if is_current else ' '} ", "bold $accent")
    starred = (fit(stars(rating.stars), _STARS), "$text-accent" if rating.is_possible else "$text-muted")
    name = (fit(printable(rating.host, limit=_NAME), name_cells), style)
    return Row(Content.styled(words, "$text-muted"), Content.assemble(pointer, starred, name), 3 + cells)


# The plan


def move_rows(plan: Plan, sight: Sight) -> list[Row]:
    """One move: how and where to, the forecast; what blocks it and what to know; its steps; the checks; the command."""
    rows = _way_rows(sight)
    if not plan.blockers:
        rows += [
            row(printable(words, limit=_LONGEST), style="" if not place else "$text-warning", indent=1)
            for place, words in enumerate(in_words(forecast(sight.picture, sight.kind, sight.request.options)))
        ]
    rows += [row(printable(words, limit=_LONGEST), style="$text-muted", indent=1) for words in sight.why_not]
    rows.append(row())
    rows += plan_text.plan_rows(replace(plan, notes=()))
    checks = [check.reason for check in sight.picture.checks if check.ok and check.reason]
    if checks:
        rows += [row(), row("Looked at on both hosts:", style="$text-muted", indent=1)]
        rows += [row(printable(words, limit=_LONGEST), mark="✓", style="$text-muted") for words in checks]
    return rows


def moves_rows(made: PlanSet, sights: Sequence[Sight]) -> list[Row]:
    """Several moves: each VM's way and forecast, what there is to know, the command."""
    rows = [row(printable(words, limit=_LONGEST), mark="!", style="$text-warning") for words in made.warnings]
    rows += [row()] if rows else []
    for plan, sight in zip(made.plans, sights, strict=True):
        name = (fit(printable(plan.vm_name or "", limit=_NAME), _NAME), "bold")
        told = in_words(forecast(sight.picture, sight.kind, sight.request.options))
        words = "; ".join((SHORT.get(sight.kind, sight.kind.value), *told))
        rows.append(row(Content.assemble(name, printable(words, limit=_LONGEST)), mark="→", indent=4))
        rows += [row(printable(why, limit=_LONGEST), style="$text-muted", indent=6) for why in sight.why_not]
        rows += [row(printable(why, limit=_LONGEST), style="$text-warning", indent=6) for why in plan.warnings]
    command = Content.styled(printable(set_command_line(made), limit=_LONGEST), "$text-muted")
    return [*rows, row(), Row(command, Content.styled("     same as  ", "$text-muted"), 14)]


def _way_rows(sight: Sight) -> list[Row]:
    how = KINDS.get(sight.kind, sight.kind.value)
    is_live = sight.kind in {MoveKind.LIVE, MoveKind.LIVE_STORAGE}
    if is_live:
        how += ", peer to peer" if sight.request.options.peer_to_peer else ", driven from here"
        how += ", post-copy permitted" if sight.request.options.postcopy else ""
    parts: list[tuple[str, str]] = [(how, "bold")]
    rating = sight.rating
    if rating is not None:
        told = [reason[2:] for reason in rating.reasons if reason.startswith("+")][:2]
        parts += [("   ", ""), (stars(rating.stars), "$text-accent"), (f" {printable(rating.host, limit=40)}", "bold")]
        reasons = printable("; ".join(told), limit=_LONGEST)
        why = [Row(Content.styled(reasons, "$text-muted"), Content.styled(" why  ", "$text-muted"), 6)] if told else []
        return [row(Content.assemble(*parts), indent=1), *why]
    return [row(Content.assemble(*parts), indent=1)]


def kind_choices(picture: MovePicture, request: MoveRequest) -> list[tuple[str, str, str]]:
    """Each kind of move with its forecast, or why it cannot be: for the dialog that chooses one."""
    found = []
    for kind in KINDS:
        blockers = picture.blockers(kind)
        if blockers:
            told = f"cannot be: {'; '.join(check.reason for check in blockers)}"
        else:
            doubts = "; ".join(check.reason for check in picture.doubts(kind))
            told = "; ".join(in_words(forecast(picture, kind, request.options))) or "nothing moves"
            told = f"may not work: {doubts}" if doubts else told
        found.append((kind.value, SHORT[kind], printable(told, limit=_LONGEST)))
    return found


# A move that has ended


def figure_rows(job: Job) -> list[Row]:
    """What was predicted of a move, and what it took."""
    figures: dict[str, Any] = {}
    for step in job.steps:
        if step.verb in _MOVE_VERBS and step.result:
            figures |= step.result
    predicted = next((note for note in job.plan.notes if note.startswith(PREDICTED)), "")
    if job.state is not JobState.DONE or not (figures or predicted):
        return []
    words = []
    total_s = figures.get("total_s")
    if job.started_at is not None and job.finished_at is not None:
        words.append(f"took {seconds((job.finished_at - job.started_at).total_seconds())} in all")
    if isinstance(total_s, int | float):
        words.append(f"the migration {seconds(total_s)}")
    if isinstance(figures.get("downtime_s"), int | float):
        words.append(f"the guest stood still {seconds_of_standstill(figures['downtime_s'])}")
    if figures.get("bytes"):
        words.append(f"{format_bytes(figures['bytes'])} sent")
    rows = (
        [Row(Content.styled(printable(predicted, limit=_LONGEST), "$text-muted"), Content(" "), 1)] if predicted else []
    )
    return [*rows, row(", ".join(words), style="$text-success", indent=1)] if words else rows


def where_rows(job: Job, snapshots: Iterable[Snapshot]) -> list[Row]:
    """How each of the job's hosts has the VM now."""
    rows = []
    for snapshot in snapshots:
        if snapshot.uri in {job.host_uri, *job.plan.also_on}:
            found = next((vm.state.value for vm in snapshot.vms if vm.uuid == job.vm_uuid), "not there")
            name = fit(printable(snapshot.host_name, limit=_NAME), _NAME)
            rows.append(row(Content.assemble((name, "bold"), (found, "$text-muted")), indent=1))
    return rows


def outcome_figures(job: Job) -> str:
    """What a move that is done is told with in the status line: "stood still 57 ms"; empty for any other job."""
    told = [step.result.get("downtime_s") for step in job.steps if step.verb in _MOVE_VERBS and step.result]
    still = [value for value in told if isinstance(value, int | float)]
    return f"stood still {seconds_of_standstill(still[-1])}" if still else ""


def seconds_of_standstill(value_s: float) -> str:
    """ "23 ms", "1.2 s"."""
    return f"{value_s * 1000:.0f} ms" if value_s < 1 else seconds(value_s)
