"""What became of plans, for the status line: pure functions from plans and jobs to words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from host.errors import Cancelled, HvtuiError
from host.job_model import Job, JobState
from host.plan import Plan
from host.text import printable
from hvtui.outcome_sum import in_sum
from hvtui.tui.actions import Target


def outcome_words(outcomes: Sequence[Job | HvtuiError]) -> tuple[str, str] | None:
    """What to say, and in which role, when not all are done: the first that failed in full. What the user cancelled
    did not fail."""
    cancelled = [each for each in outcomes if _is_cancelled(each)]
    failed = [each for each in outcomes if not _is_done(each) and not _is_cancelled(each)]
    if not cancelled and not failed:
        return None
    first = (failed or cancelled)[0]
    words = str(first) if isinstance(first, HvtuiError) else f"{first.error or first.state} · job {first.id}"
    if len(outcomes) > 1:
        words = f"{in_sum(len(outcomes), failed=len(failed), cancelled=len(cancelled))}: {words}"
    return words, "bad" if failed else "warn"


def _is_done(outcome: Job | HvtuiError) -> bool:
    return isinstance(outcome, Job) and outcome.state is JobState.DONE


def _is_cancelled(outcome: Job | HvtuiError) -> bool:
    return isinstance(outcome, Cancelled) or (isinstance(outcome, Job) and outcome.state is JobState.CANCELLED)


def done_words(plans: Sequence[Plan], done: str) -> str:
    """The past tense for what the plans did; `done` where one action does either of two things, and both were done."""
    words = {_done_word(plan) for plan in plans}
    word = words.pop()
    return done if words or not word else word


def _done_word(plan: Plan) -> str:
    if plan.undoes_job is not None or len(plan.steps) != 1:
        return ""
    if plan.steps[0].verb == "vm.autostart":
        return f"autostart {'on' if plan.steps[0].args.get('enabled') else 'off'}:"
    first, _, _rest = plan.title.partition(" ")
    return {"Pause": "paused", "Resume": "resumed", "Restore": "restored"}.get(first, "")


def about(plan: Plan) -> str:
    """The VM's name; for a new name, both."""
    name = printable(plan.vm_name or plan.title, limit=40)
    is_rename = plan.undoes_job is None and [step.verb for step in plan.steps] == ["vm.rename"]
    return f"{name} to {printable(plan.command[-1], limit=40)}" if is_rename else name


def left_out(selected: Target, target: Target) -> str:
    """Which VMs of a selection an action does not work on: "8 left out: 6 off, 2 saved"; empty when it does on all."""
    meant = {vm.uuid for vm in target.vms}
    states = Counter(vm.state.value for vm in selected.vms if vm.uuid not in meant)
    counts = ", ".join(f"{count} {state}" for state, count in states.most_common())
    return f"{states.total()} left out: {counts}" if states else ""
