"""What a person confirms before something is lost, in both front ends. Pure; it asks nobody."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from host.plan import Danger, Plan

LONGEST_NAME = 40


def lossy(plans: Iterable[Plan]) -> list[Plan]:
    """Those that would run and lose something for good."""
    return [plan for plan in plans if plan.danger is Danger.DESTRUCTIVE and not plan.blockers]


def word_to_type(plans: Sequence[Plan]) -> str | None:
    """What must be typed before all of `plans` run: the VM's name, or for several what is done and to how many
    ("delete 9"); None without plans. A name that nobody can type (escape sequences, other scripts, very long) is
    confirmed with a plain word."""
    if len(plans) != 1:
        return f"{_done_by(plans)} {len(plans)}" if plans else None
    name = plans[0].vm_name or ""
    return name if name.isascii() and name.isprintable() and 0 < len(name) <= LONGEST_NAME else "yes"


def _done_by(plans: Sequence[Plan]) -> str:
    words = {plan.title.split(" ", 1)[0].lower() for plan in plans}
    word = words.pop()
    return word if not words and word.isascii() and word.isalpha() else "change"
