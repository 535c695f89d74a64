"""Plans as text for the confirm dialog: pure functions from a frozen Plan to styled Content. No widget here."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Sequence
from difflib import unified_diff

from textual.content import Content

from host.plan import Danger, Plan
from host.text import printable

_MARGIN = "  "


def equivalent_command(plan: Plan) -> str:
    """The line that does the same from a shell, safe to show and to paste."""
    return printable(shlex.join(("hvtui", "--headless", *plan.command)))


def title_of(plans: Sequence[Plan]) -> str:
    """The dialog's title: the plan's own, or how many there are."""
    if len(plans) == 1:
        return printable(plans[0].title, limit=60)
    return f"{len(plans)} changes"


def plan_content(plan: Plan) -> Content:
    """One plan in full: what blocks it first, then what is lost, kept and warned of, then the steps."""
    lines: list[Content] = []
    for blocker in plan.blockers:
        lines.append(_marked("×", printable(blocker.reason), "$text-error bold"))
        if blocker.remedy:
            lines.append(_marked(" ", printable(blocker.remedy), "$text-muted"))
    lines += [_marked("-", f"lost: {printable(loss)}", "$text-error") for loss in plan.losses]
    lines += [_marked("+", f"kept: {printable(kept)}", "$text-success") for kept in plan.keeps]
    lines += [_marked("!", printable(warning), "$text-warning") for warning in plan.warnings]
    lines += [_marked(str(number), printable(step.title), "") for number, step in enumerate(plan.steps, 1)]
    lines.append(_marked("", f"same as: {equivalent_command(plan)}", "$text-muted"))
    return Content("\n").join(lines)


def plans_content(plans: Sequence[Plan]) -> Content:
    """Many plans: one line each, the blocked ones first with their reason, losses spelled out."""
    blocked = [plan for plan in plans if plan.blockers]
    lines: list[Content] = []
    if blocked:
        lines.append(Content.styled(f"{_MARGIN}{len(blocked)} of {len(plans)} cannot be done:", "$text-error bold"))
        lines += [
            _marked("×", f"{_name(plan)}: {printable(plan.blockers[0].reason)}", "$text-error") for plan in blocked
        ]
    for plan in plans:
        if plan.blockers:
            continue
        lines.append(_marked("•", printable(plan.title, limit=100), ""))
        lines += [_marked("-", f"lost: {printable(loss)}", "$text-error") for loss in plan.losses]
        lines += [_marked("!", printable(warning), "$text-warning") for warning in plan.warnings]
    return Content("\n").join(lines)


def details_content(plans: Iterable[Plan]) -> Content:
    """The virsh and qemu-img equivalents of every step, and the XML diff of each plan that has one."""
    lines: list[Content] = []
    for plan in plans:
        lines.append(Content.styled(f"{_MARGIN}{printable(plan.title, limit=100)}", "bold"))
        commands = [command for step in plan.steps for command in step.commands]
        lines += [Content.styled(f"{_MARGIN}{_MARGIN}{printable(command)}", "$text-muted") for command in commands]
        lines += _diff_lines(plan)
    return Content("\n").join(lines)


def typed_confirmation(plans: Sequence[Plan]) -> str | None:
    """What must be typed before these plans run: the VM's name, or the number of VMs; None when nothing is lost."""
    destructive = [plan for plan in plans if plan.danger is Danger.DESTRUCTIVE and not plan.blockers]
    if not destructive:
        return None
    if len(destructive) > 1:
        return str(len(destructive))
    name = destructive[0].vm_name or ""
    # A name that nobody can type (escape sequences, other scripts, very long) is confirmed with a plain word.
    return name if name.isascii() and name.isprintable() and 0 < len(name) <= 40 else "yes"


def xml_diff(before: str, after: str) -> list[str]:
    """The unified diff of two XML documents with three lines of context, without file headers."""
    return list(unified_diff(before.splitlines(), after.splitlines(), lineterm="", n=3))[2:]


def _diff_lines(plan: Plan) -> list[Content]:
    if plan.xml_before is None and plan.xml_after is None:
        return []
    styles = {"+": "$text-success", "-": "$text-error", "@": "$text-accent"}
    diff = xml_diff(plan.xml_before or "", plan.xml_after or "")
    return [Content.styled(_MARGIN + printable(line), styles.get(line[:1], "")) for line in diff]


def _marked(mark: str, text: str, style: str) -> Content:
    return Content.styled(f"{_MARGIN}{mark:>2}  {text}", style) if style else Content(f"{_MARGIN}{mark:>2}  {text}")


def _name(plan: Plan) -> str:
    return printable(plan.vm_name or plan.title, limit=40)
