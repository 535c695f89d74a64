"""Plans as plain text, and the question before something is lost. Runs nothing."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence

from host.errors import Cancelled, UsageError
from host.job_model import Job
from host.plan import Plan
from host.text import printable
from hvtui.cli.output import narrate, paint
from hvtui.confirmation import lossy, word_to_type
from hvtui.same_as import command_line

MOST_NAMES = 5


def plan_text(plan: Plan, *, diff: bool = True, same_as: bool = True) -> str:
    """Everything --dry-run says of one plan, harmless to show: blockers, losses, what stays, warnings, steps."""
    lines = [paint(printable(plan.title, limit=200), "bold")]
    for blocker in plan.blockers:
        remedy = f". {printable(blocker.remedy)}" if blocker.remedy else ""
        lines.append(f"  blocked: {printable(blocker.reason)}{remedy}")
    lines += [f"  lost: {printable(loss)}" for loss in plan.losses]
    lines += [f"  kept: {printable(kept)}" for kept in plan.keeps]
    lines += [f"  warning: {printable(warning)}" for warning in plan.warnings]
    lines += [f"  in order: {printable(note)}" for note in plan.notes]
    for number, step in enumerate(plan.steps, 1):
        lines.append(f"  {number}  {printable(step.title, limit=400)}")
        lines += [f"     {paint(printable(command, limit=2000), 'dim')}" for command in step.commands]
    if diff:
        lines += [f"  {line}" for line in xml_diff(plan)]
    if same_as:
        lines.append(f"  same as: {command_line(plan)}")
    return "\n".join(lines) + "\n"


def xml_diff(plan: Plan) -> list[str]:
    """The unified diff of the plan's XML, line by line, harmless to show; empty when it changes nothing there."""
    if plan.xml_before is None or plan.xml_after is None:
        return []
    from hvtui.xml_changes import xml_changes

    return [printable(line, limit=400) for line in xml_changes(plan.xml_before, plan.xml_after)]


def tell_warnings(plans: Sequence[Plan]) -> None:
    """Each warning on standard error, once; with several plans it names those that it is about."""
    about: dict[str, list[str]] = {}
    for plan in plans:
        for warning in plan.warnings:
            about.setdefault(warning, []).append(printable(plan.vm_name or "", limit=60))
    _tell(about, is_one=len(plans) == 1)


def tell_job_warnings(jobs: Sequence[Job]) -> None:
    """What jobs that are done found worth telling, on standard error: a guest that has not answered, say."""
    about: dict[str, list[str]] = {}
    for job in jobs:
        for warning in job.warnings:
            about.setdefault(warning, []).append(printable(job.vm_name or "", limit=60))
    _tell(about, is_one=len(jobs) == 1)


def _tell(about: Mapping[str, list[str]], *, is_one: bool) -> None:
    for warning, names in about.items():
        more = f" and {len(names) - MOST_NAMES} more" if len(names) > MOST_NAMES else ""
        whose = f"{', '.join(names[:MOST_NAMES])}{more}: " if not is_one else ""
        narrate(f"{paint('warning:', 'yellow', sys.stderr)} {whose}{printable(warning)}")


def confirm(plans: Sequence[Plan], *, yes: bool, ask: bool = False, text: str = "") -> bool:
    """Ask before anything is lost (or, with `ask`, in any case); `yes` answers. The question is on standard error.
    Returns True when it showed the plans (or `text` in their place) and asked.

    Raises UsageError where nobody can be asked, and Cancelled when the answer is no.
    """
    losing = lossy(plans)
    if yes or not (losing or (ask and plans)):
        return False
    for shown in [text] if text else [plan_text(plan) for plan in (plans if ask else losing)]:
        narrate(shown.rstrip("\n"))
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise UsageError(
            "this needs a confirmation, and there is no terminal to ask on",
            remedy="Look at the plan above; --yes does it, --dry-run only shows it",
        )
    wanted = word_to_type([plan for plan in losing if plan.command[:2] == ("vm", "delete")])
    question = f"Type {wanted} to go on: " if wanted else "Go on? [y/N] "
    answer = _ask(question)
    if answer != wanted if wanted else answer.lower() not in {"y", "yes"}:
        raise Cancelled("nothing was changed")
    return True


def _ask(question: str) -> str:
    sys.stderr.write(question)
    sys.stderr.flush()
    answer = sys.stdin.readline()
    if not answer:
        raise Cancelled("nothing was changed")
    return answer.strip()
