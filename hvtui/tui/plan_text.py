"""Plans as text for the confirm dialog: pure functions from frozen Plans to rows. No widget here."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from difflib import unified_diff
from itertools import count

from textual.content import Content

from host.plan import MOST_NAMES, Blocker, Plan, PlanSet, Step
from host.text import display_width, fit, printable
from hvtui.confirmation import lossy, word_to_type
from hvtui.same_as import command_lines, set_command_line
from hvtui.tui import keymap
from hvtui.tui.actions import Action, action_named
from hvtui.tui.key_words import in_keys
from hvtui.tui.widgets.page import Row, row

_LONGEST = 400  # of one sentence: a name may have ten thousand characters
_LONGEST_LINE = 2000  # of a command or a line of XML
_NAME = 40
_MOST_LOSSES = 5  # kinds of losses in the sum
_WORD = 6  # the column of "lost" and "kept"

# The service layer names what removes a blocker; where one action does two of these, the id differs.
INSTEAD = "If quick instead:"  # how the steps begin that vm.move_quick adds to a live move
_SERVED_BY = {"vm.resume": "vm.pause", "vm.discard-saved": "vm.discard"}
_OFFERED_AS = {"vm.resume": "resume"}


def title_of(plans: Sequence[Plan]) -> str:
    """The dialog's title: the plan's own, or what is done to how many VMs; those that cannot go count only when none
    can."""
    plans = [plan for plan in plans if not plan.blockers] or plans
    if len(plans) == 1:
        return printable(plans[0].title, limit=60)
    shapes = {_without_name(plan, plan.title) for plan in plans}
    shape = shapes.pop()
    if shapes or "\0" not in shape:
        return f"{len(plans)} changes"
    return printable(shape.replace("\0", f"{len(plans)} VMs"), limit=60)


def _without_name(plan: Plan, text: str) -> str:
    """`text` with a NUL in the place of the VM's name, where that stands as a word."""
    name = re.escape(plan.vm_name or "\0")
    return re.sub(rf"(?<!\S){name}(?=:|\s|$)", "\0", text, count=1)


def plan_rows(plan: Plan) -> list[Row]:
    """One plan in full: what blocks it first, then what is lost, kept and warned of, the steps, the command."""
    rows: list[Row] = []
    for blocker in plan.blockers:
        rows.append(row(printable(blocker.reason, limit=_LONGEST), mark="×", style="$text-error bold"))
        rows += _remedy_rows(blocker, plan)
    consequences = _consequences(plan)
    if plan.blockers and (plan.steps or consequences):
        rows += [row(), row("What it would do after that:", style="$text-muted")]
    rows += consequences
    if consequences and plan.steps:
        rows.append(row())
    step_style = "$text-muted" if plan.blockers else ""
    rows += _step_rows(plan.steps, step_style)
    return [*rows, *_diff_rows(plan), row(), *_same_as([plan]), *_notes_rows([plan])]


def _step_rows(steps: Sequence[Step], style: str) -> list[Row]:
    """The steps with their numbers; those that are only for a move that is given up in one line."""
    rows, instead = [], 0
    for number, step in enumerate(steps, 1):
        if not step.title.startswith(INSTEAD):
            rows.append(row(printable(step.title, limit=_LONGEST), mark=str(number), style=style))
        elif not instead:
            instead = sum(each.title.startswith(INSTEAD) for each in steps)
            last = f"–{number + instead - 1}" if instead > 1 else ""
            rows.append(row(instead_words(instead), mark=f"{number}{last}", style="$text-muted"))
    return rows


def instead_words(count: int) -> str:
    """In place of the steps that a live move has for the case that it becomes a quick one."""
    return f"{count} steps more, only if it becomes a quick move: save, hand over, restore"


def plans_rows(plans: Sequence[Plan]) -> list[Row]:
    """Many plans: the blocked ones first with their reasons, then what will be done; what all of them say, once."""
    blocked = [plan for plan in plans if plan.blockers]
    runnable = [plan for plan in plans if not plan.blockers]
    rows: list[Row] = []
    if blocked:
        rows.append(row(f" {len(blocked)} of {len(plans)} cannot be done", style="$text-error bold", indent=0))
        rows += _blocked_rows(blocked)
    if blocked and runnable:
        rows += [row(), row(f" {len(runnable)} will be done", style="bold", indent=0)]
    if runnable:
        rows += _sum_rows(runnable)
        rows += _shared_rows(runnable)
        rows += [each for plan in runnable for each in _own_rows(plan, _shared(runnable))]
    return [*rows, row(), *_same_as(plans), *_notes_rows(plans)]


def plan_set_rows(plan_set: PlanSet) -> list[Row]:
    """A set: what blocks it and is true for whom, the preparations and the first VM's steps, the others by name."""
    count = f"{len(plan_set.plans)} VMs" if len(plan_set.plans) > 1 else "1 VM"
    rows = [*_set_blocker_rows(plan_set), *_set_consequences(plan_set)]
    rows += [row()] if rows else []
    style = "$text-muted" if plan_set.all_blockers else ""
    for number, plan in enumerate((*plan_set.preparations, *plan_set.plans[:1])):
        is_preparation = number < len(plan_set.preparations)
        words = "first: " if is_preparation else f"{count}, a few at a time: " if len(plan_set.plans) > 1 else ""
        rows.append(row(f"{words}{printable(plan.title, limit=100)}", style="bold", indent=1))
        rows += _step_rows(plan.steps, style)
    if others := plan_set.plans[1:]:
        are_alike = len({tuple(step.verb for step in plan.steps) for plan in plan_set.plans}) == 1
        names = ", ".join(printable(plan.vm_name or plan.title, limit=_NAME) for plan in others)
        rows.append(row(f"and {len(others)} more{' like it' if are_alike else ''}: {names}", indent=1))
    line = set_command_line(plan_set)
    command = line if len(line) <= _LONGEST else line[: _LONGEST - 1] + "…"
    margin = Content.styled("     same as  ", "$text-muted")
    notes = _notes_rows((*plan_set.preparations, *plan_set.plans))
    return [*rows, row(), Row(Content.styled(command, "$text-muted"), margin, 14), *notes]


def plan_set_details(plan_set: PlanSet) -> list[Row]:
    """The commands of every plan of a set, under its title, and the first VM's XML."""
    rows: list[Row] = []
    for plan in (*plan_set.preparations, *plan_set.plans):
        rows += [row()] if rows else []
        is_first = plan is plan_set.plans[0]
        bare = plan if is_first else replace(plan, xml_before=None, xml_after=None)
        rows += [row(printable(plan.title, limit=100), style="bold", indent=1), *details_rows([bare])]
    return rows


def _set_blocker_rows(plan_set: PlanSet) -> list[Row]:
    remedies = {blocker.reason: blocker.remedy for blocker in plan_set.all_blockers}
    rows = []
    for reason, names in plan_set.blocked_names.items():
        rows.append(row(_for_names(names, reason), mark="×", style="$text-error bold"))
        if remedies[reason]:
            rows.append(row(printable(in_keys(remedies[reason]), limit=_LONGEST), style="$text-muted"))
    return rows


def _set_consequences(plan_set: PlanSet) -> list[Row]:
    """What is lost, kept and warned of, each once with the VMs that it is true for."""
    rows = [row(printable(text, limit=_LONGEST), mark="!", style="$text-warning") for text in plan_set.warnings]
    signs = (("losses", "-  lost  ", "$text-error"), ("keeps", "+  kept  ", "$text-success"), ("warnings", "!  ", ""))
    for field, sign, style in signs:
        names: dict[str, list[str]] = {}
        for plan in (*plan_set.preparations, *plan_set.plans):
            for text in getattr(plan, field):
                names.setdefault(text, []).append(plan.vm_name or plan.title)
        margin = Content.styled(f"  {sign}", style or "$text-warning")
        for text, those in names.items():
            whose = () if len(those) == len(plan_set.plans) else those
            content = Content.styled(_for_names(whose, text), "" if style else "$text-warning")
            rows.append(Row(content, margin, len(sign) + 2))
    return rows


def _for_names(names: Sequence[str], text: str) -> str:
    """ "web-01, web-02 and 3 more: TEXT"; just the text where it is for no one in particular."""
    shown = ", ".join(printable(name, limit=_NAME) for name in names[:MOST_NAMES])
    more = f" and {len(names) - MOST_NAMES} more" if len(names) > MOST_NAMES else ""
    return f"{shown}{more}: {printable(text, limit=_LONGEST)}" if names else printable(text, limit=_LONGEST)


def details_rows(plans: Sequence[Plan]) -> list[Row]:
    """The virsh and qemu-img equivalents of every step that would run, numbered through all plans, and the XML diff of
    each plan that has one. Blocked plans are left out unless all are."""
    rows: list[Row] = []
    numbers = count(1)
    for plan in [plan for plan in plans if not plan.blockers] or plans:
        rows += [row()] if rows else []
        for step in plan.steps:
            rows.append(row(printable(step.title, limit=_LONGEST), mark=str(next(numbers))))
            rows += [row(printable(line, limit=_LONGEST_LINE), style="$text-muted", indent=7) for line in step.commands]
        rows += _diff_rows(plan) or _new_xml_rows(plan)
    return rows


def has_xml(plans: Iterable[Plan]) -> bool:
    """True when a plan has XML to show."""
    return any(plan.xml_after is not None for plan in plans)


def blocked_by(blocker_id: str, plans: Iterable[Plan]) -> list[Plan]:
    """The plans that the action of that id (as blockers name it) unblocks."""
    return [plan for plan in plans if any(blocker.action_id == blocker_id for blocker in plan.blockers)]


def remedy_words(blocker_id: str, plans: Sequence[Plan]) -> str:
    """What the remedy does, and to how many of the plans' VMs: "resume these 2"."""
    action = remover(Blocker("", action_id=blocker_id))
    title = _OFFERED_AS.get(blocker_id, action.title if action is not None else blocker_id)
    if len(plans) == 1:
        return title
    of = f"{title} of" if blocker_id == "vm.discard-saved" else title
    those = blocked_by(blocker_id, plans)
    return f"{of} {printable(those[0].vm_name or 'it', limit=_NAME)}" if len(those) == 1 else f"{of} these {len(those)}"


def remover(blocker: Blocker) -> Action | None:
    """The action that removes the blocker, if it names one."""
    if blocker.action_id is None:
        return None
    return action_named(blocker.action_id) or action_named(_SERVED_BY.get(blocker.action_id, ""))


def typed_confirmation(plans: Sequence[Plan]) -> str | None:
    """What must be typed before these plans run; None when nothing is lost."""
    return word_to_type(lossy(plans))


def xml_diff(before: str, after: str) -> list[str]:
    """The unified diff of two XML documents with three lines of context, without file headers."""
    return list(unified_diff(before.splitlines(), after.splitlines(), lineterm="", n=3))[2:]


def key_hints(hints: Iterable[tuple[str, str]]) -> Content:
    """ "enter do it   esc back", the keys as in the footer."""
    parts = [Content.assemble((key, "bold $accent"), (f" {words}", "$text-muted")) for key, words in hints]
    return Content("   ").join(parts)


def fitting(hints: Sequence[tuple[str, str]], width: int) -> list[tuple[str, str]]:
    """The hints that fit into `width` cells as a whole; the last one (how to leave) always stays."""
    chosen = list(hints)
    while len(chosen) > 1 and display_width(key_hints(chosen).plain) > width:
        del chosen[-2]
    return chosen


def _remedy_rows(blocker: Blocker, plan: Plan) -> list[Row]:
    remedy = printable(in_keys(blocker.remedy), limit=_LONGEST)
    rows = [row(remedy, style="$text-muted")] if remedy else []
    return [*rows, *_key_rows(blocker, [plan])]


def _blocked_rows(plans: Sequence[Plan]) -> list[Row]:
    """Each reason once, with the names it is true for; the key that removes it after the last one that it removes."""
    by_reason: dict[str, list[Plan]] = {}
    for plan in plans:
        by_reason.setdefault(plan.blockers[0].reason, []).append(plan)
    rows: list[Row] = []
    last = {those[0].blockers[0].action_id: reason for reason, those in by_reason.items()}
    for reason, those in by_reason.items():
        names = ", ".join(printable(plan.vm_name or plan.title, limit=_NAME) for plan in those)
        words = Content.assemble((f"{printable(reason, limit=_LONGEST)}: ", "bold $text-error"), names)
        rows.append(Row(words, Content.styled("  ×  ", "$text-error")))
        if last[those[0].blockers[0].action_id] == reason:
            rows += _key_rows(those[0].blockers[0], plans)
    return rows


def _key_rows(blocker: Blocker, plans: Sequence[Plan]) -> list[Row]:
    action = remover(blocker)
    if action is None or blocker.action_id is None:
        return []
    words = remedy_words(blocker.action_id, plans)
    key = keymap.shown_key(action) or f":{action.title}"
    return [row(Content.assemble((key, "bold $accent"), f"  {words}"))]


def _consequences(plan: Plan, without: frozenset[str] = frozenset(), *, indent: int = 5) -> list[Row]:
    parts = (("-", "lost", plan.losses, "$text-error"), ("+", "kept", plan.keeps, "$text-success"))
    rows = [
        Row(Content(printable(text, limit=_LONGEST)), margin, indent + _WORD)
        for sign, word, texts, style in parts
        for margin in [Content.styled(f"{sign:>{indent - 2}}  {fit(word, _WORD)}", style)]
        for text in texts
        if text not in without
    ]
    warnings = [printable(text, limit=_LONGEST) for text in plan.warnings if text not in without]
    return rows + [row(text, mark="!", style="$text-warning", indent=indent) for text in warnings]


def _shared(plans: Sequence[Plan]) -> frozenset[str]:
    """The losses, keeps and warnings that every plan has, where there are several plans."""
    if len(plans) < 2:
        return frozenset()
    return frozenset.intersection(*(frozenset((*p.losses, *p.keeps, *p.warnings)) for p in plans))


def _sum_rows(plans: Sequence[Plan]) -> list[Row]:
    """What many plans lose in all, before the list of them, which may be longer than the screen."""
    shapes = Counter(_without_name(plan, loss).replace("\0", "…") for plan in plans for loss in plan.losses)
    if len(plans) < 2 or not shapes:
        return []
    most = shapes.most_common(_MOST_LOSSES)
    rows = [row(f"{times} × {printable(loss, limit=_LONGEST)}", style="$text-error") for loss, times in most]
    rest = shapes.total() - sum(times for _loss, times in most)
    rows += [row(f"and {rest} more, listed below", style="$text-error")] if rest else []
    return [row(f" lost in all, with {len(plans)} VMs", style="$text-error bold", indent=0), *rows, row()]


def _shared_rows(plans: Sequence[Plan]) -> list[Row]:
    shared = _shared(plans)
    first = plans[0]
    own = frozenset((*first.losses, *first.keeps, *first.warnings)) - shared
    return _consequences(first, own)


def _own_rows(plan: Plan, shared: frozenset[str]) -> list[Row]:
    return [row(printable(plan.title, limit=100), mark="•"), *_consequences(plan, shared, indent=8)]


def _same_as(plans: Sequence[Plan]) -> list[Row]:
    lines = [line if len(line) <= _LONGEST else line[: _LONGEST - 1] + "…" for line in command_lines(plans)]
    return [
        Row(
            Content.styled(line, "$text-muted"),
            Content.styled("     same as  " if not n else " " * 14, "$text-muted"),
            14,
        )
        for n, line in enumerate(lines[:5])
    ]


def _notes_rows(plans: Iterable[Plan]) -> list[Row]:
    """What was looked at and found in order, each once."""
    notes = dict.fromkeys(printable(note, limit=_LONGEST) for plan in plans for note in plan.notes)
    margin = Content.styled("  ✓  ", "$text-muted")
    rows = [Row(Content.styled(note, "$text-muted"), margin) for note in notes]
    return [row(), row("found in order", style="$text-muted", indent=1), *rows] if rows else []


def _diff_rows(plan: Plan) -> list[Row]:
    if plan.xml_before is None or plan.xml_after is None:
        return []
    styles = {"+": "$text-success", "-": "$text-error", "@": "$text-accent"}
    diff = xml_diff(plan.xml_before, plan.xml_after)
    rows = [
        Row(
            Content.styled(printable(line[1:] if line[:1] in "+- " else line, limit=_LONGEST_LINE), style),
            Content.styled(f"   {line[:1] if line[:1] in '+-' else ' '} ", style),
        )
        for line in diff
        for style in [styles.get(line[:1], "$text-muted")]
    ]
    return [row(), row("what changes in the XML", style="bold", indent=1), *rows] if rows else []


def _new_xml_rows(plan: Plan) -> list[Row]:
    if plan.xml_before is not None or plan.xml_after is None:
        return []
    lines = [row(printable(line, limit=_LONGEST_LINE), style="$text-muted") for line in plan.xml_after.splitlines()]
    return [row(), row("the new XML", style="bold", indent=1), *lines]
