"""Taking jobs back: the last one of the VMs that are meant, all of its set, or the last one of the host.

The plan is shown first where anything is lost by it, or where it may not be the one that was meant; where one
key may mean several, a dialog asks which. Newer jobs that cannot be taken back are passed over, and that is said.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from host.job_model import Job, JobSet
from host.text import printable
from hvtui.tui.actions import Target
from hvtui.tui.job_text import can_undo

if TYPE_CHECKING:
    from host.connection import Host
    from host.journal import Journal
    from host.plan import Plan
    from hvtui.tui.app import HvtuiApp
    from vm.model import Vm

UNDO_LOOKS_AT = 20  # jobs, each of which asks the host
QUESTION = "Take back what?"
_OWN, _SET, _LAST = "own", "set", "last"


@dataclass(frozen=True, slots=True)
class Found:
    """The newest of some jobs that can be taken back, how, and the newer ones that cannot."""

    job: Job
    plan: Plan
    passed: tuple[int, ...] = ()


async def undo_last(app: HvtuiApp, target: Target) -> None:
    """Take back the last job of the VM that is meant. Asks where that leaves a doubt: when it belongs to a set, and
    when another VM's job is newer. Of several VMs: the last job of each. Without a VM: the last job of all."""
    known = await app.bridge.call(app.bridge.read_jobs)  # the key may come sooner than the next look
    jobs = [job for job in known if can_undo(job) and job.plan.undoes_job is None]
    if len(target.vms) > 1:
        await _undo_each(app, target, jobs)
        return
    vm = target.vms[0] if target.vms else None
    own = await _first(app, [job for job in jobs if vm is not None and concerns(job, vm)])
    last = own if own is not None and jobs and own.job.id == jobs[0].id else await _first(app, jobs)
    if own is None and last is None:
        await _say_why_not(app, jobs)
        return
    members = _members(known, own.job) if own is not None else ()
    offered = choices(own, members, last)
    chosen = offered[0][0]
    if len(offered) > 1:
        from hvtui.tui.screens.choice import ChoiceScreen

        answer = await app.push_screen_wait(ChoiceScreen(QUESTION, offered, verb="show the plan"))
        if answer is None:
            return
        chosen = answer
    if chosen == _SET:
        await undo_all(app, members)
    elif (found := own if chosen == _OWN else last) is not None:
        left = f"job {_listed(found.passed)} cannot be taken back; this is job {found.job.id}" if found.passed else ""
        is_doubtful = bool(left) or len(offered) > 1 or (chosen == _LAST and vm is not None)
        await app.propose([found.plan], done="took back:", ask=is_doubtful, left=left)


def concerns(job: Job, vm: Vm) -> bool:
    """The VM is the job's, or one of its steps worked on it: a clone is also a matter of its origin."""
    uuids = (job.vm_uuid, *(step.args.get("uuid") for step in job.plan.steps))
    return vm.uuid in uuids


def choices(own: Found | None, members: Sequence[Job], last: Found | None) -> list[tuple[str, str, str]]:
    """What u may mean, for the dialog: the VM's own last job, its set, and a newer one of another VM. What was prepared
    for a set is not taken back without the set: others may use it."""
    found = []
    if own is not None:
        whose = printable(own.job.vm_name or "", limit=40)
        only = f"only {whose}" if len(members) > 1 else whose
        if not (own.job.is_preparation and members):
            found.append((_OWN, only, f"job {own.job.id}: {printable(own.job.title, limit=60)}"))
        if len(members) > 1 or (own.job.is_preparation and members):
            set_title = printable(own.job.set_title, limit=60)
            found.append((_SET, f"all {len(members)} of the set", f"set {own.job.set_id}: {set_title}"))
    if last is not None and (own is None or last.job.id > own.job.id) and last.job not in members:
        found.append((_LAST, "the last of all", f"job {last.job.id}: {printable(last.job.title, limit=60)}"))
    return found


def _members(known: Sequence[Job], job: Job) -> tuple[Job, ...]:
    """Those of the job's set that can be taken back."""
    if job.set_id is None:
        return ()
    members = sorted((each for each in known if each.set_id == job.set_id), key=lambda each: each.id)
    return tuple(each for each in JobSet(tuple(members)).main if can_undo(each))


async def _undo_each(app: HvtuiApp, target: Target, jobs: Sequence[Job]) -> None:
    found = [each for vm in target.vms if (each := await _first(app, [job for job in jobs if job.vm_uuid == vm.uuid]))]
    if not found:
        app.say("there is nothing to undo: no job of these VMs is done, or all were taken back")
        return
    rest = len(target.vms) - len(found)
    left = f"{rest} left out: nothing of theirs can be taken back" if rest else ""
    await app.propose([each.plan for each in found], done="took back:", ask=True, left=left)


async def _first(app: HvtuiApp, jobs: Sequence[Job]) -> Found | None:
    """The newest of the jobs (which come newest first) that can be taken back."""
    if not jobs:
        return None
    plans = await app.bridge.call(_first_undo, app.bridge.host_at, app.services.journal, jobs)
    if plans[-1].blockers:
        return None
    place = len(plans) - 1
    return Found(jobs[place], plans[-1], tuple(job.id for job in jobs[:place]))


async def _say_why_not(app: HvtuiApp, jobs: Sequence[Job]) -> None:
    if not jobs:
        app.say("there is nothing to undo: no job is done yet, or all were taken back")
        return
    plans = await app.bridge.call(_first_undo, app.bridge.host_at, app.services.journal, jobs[:1])
    app.say(f"nothing can be undone: job {jobs[0].id}: {plans[0].blockers[0].reason}", "warn")


def _first_undo(host_at: Callable[[str], Host], journal: Journal, jobs: Sequence[Job]) -> list[Plan]:
    """The plans that take the jobs back, up to the first that can run."""
    from host.jobs import plan_undo
    from vm import steps as steps  # registers the verbs, which a job of an earlier day needs

    plans: list[Plan] = []
    for job in jobs[:UNDO_LOOKS_AT]:
        plans.append(plan_undo(job, host_at(job.host_uri), journal))
        if not plans[-1].blockers:
            break
    return plans


def _listed(numbers: Sequence[int]) -> str:
    return ", ".join(map(str, numbers[:3])) + (f" and {len(numbers) - 3} more" if len(numbers) > 3 else "")


async def undo(app: HvtuiApp, job: Job) -> None:
    """Show how the job is taken back, or why not, and do it when accepted."""
    from host.jobs import plan_undo
    from vm import steps as steps  # registers the verbs, which a job of an earlier day needs

    plan = await app.bridge.call(plan_undo, job, app.bridge.host_at(job.host_uri), app.services.journal)
    await app.propose([plan], done="took back:")


async def undo_all(app: HvtuiApp, jobs: Sequence[Job]) -> None:
    """Show how those of the jobs that are done are taken back, and do it when accepted."""
    from host.jobs import plan_undo
    from vm import steps as steps  # the same

    host_at, journal = app.bridge.host_at, app.services.journal
    those = [job for job in jobs if can_undo(job)]
    if not those:
        app.say("nothing of it is done, or all was taken back", "warn")
        return
    plans = await app.bridge.call(lambda: tuple(plan_undo(job, host_at(job.host_uri), journal) for job in those))
    await app.propose(plans, done="took back:")
