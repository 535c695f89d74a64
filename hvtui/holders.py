"""What the jobs that hold VMs mean for new plans, in both front ends: which job blocks which plan, and which one gives
way. It changes no VM; it cancels jobs that only wait."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

from host.errors import Busy, WrongState
from host.job_model import Job, JobState
from host.job_rules import ALIVE, busy, holds, is_same_vm, names_a_vm
from host.plan import Blocker, Plan

if TYPE_CHECKING:
    from host.journal import Journal

_HOLDING = (JobState.QUEUED, JobState.RUNNING, JobState.INTERRUPTED)  # the states in which a job may hold its VM
_WAITING_FOR_THE_GUEST = frozenset({"vm.stop", "vm.restart"})


def holding_jobs(journal: Journal) -> tuple[Job, ...]:
    """The jobs that may hold a VM now, on whichever host. Raises JournalFailed."""
    journal.recover()  # a killed process holds nothing
    return journal.jobs(None, _HOLDING)


def with_holders(plans: Iterable[Plan], jobs: Sequence[Job]) -> tuple[Plan, ...]:
    """The plans with a blocker where one of `jobs` holds the VM. A VM can be turned off all the same while a job only
    waits for its guest: that is offered in place of a second shutdown, and the plan says that it cancels the job."""
    return tuple(_with_holder(plan, _holder(plan, jobs)) for plan in plans)


def make_way(plans: Sequence[Plan], journal: Journal) -> None:
    """Cancel the jobs that only wait for the guests of VMs which `plans` turn off, and wait for their ends. Raises
    JournalFailed."""
    from host import jobs

    offs = [plan for plan in plans if is_off(plan)]
    for job_id in giving_way(offs, holding_jobs(journal)) if offs else ():
        with suppress(WrongState):  # it has ended by itself
            jobs.cancel(job_id, journal)
        jobs.wait(job_id, journal)


def giving_way(plans: Iterable[Plan], jobs: Sequence[Job]) -> list[int]:
    """The ids of the jobs to cancel before the plans run."""
    found = ((plan, _holder(plan, jobs)) for plan in plans)
    return [job.id for plan, job in found if job is not None and _gives_way(plan, job)]


def is_off(plan: Plan) -> bool:
    """True for a plan that turns its VM off at once."""
    return _verbs(plan) == ["vm.off"]


def is_shutdown(plan: Plan) -> bool:
    """True for a plan after which its VM is off, by way of the guest."""
    return _verbs(plan) == ["vm.stop"]


def _with_holder(plan: Plan, job: Job | None) -> Plan:
    if job is None:
        return plan
    if _gives_way(plan, job):
        first = f"job {job.id} ({job.title}) only waits for the guest: it is cancelled first"
        return replace(plan, warnings=(first, *plan.warnings))
    error = busy(job, about="")
    note = job.current_step.note if job.current_step is not None else ""
    reason = f"{error.cause}: {note}" if note and job.state in ALIVE else error.cause
    by = "vm.off" if is_shutdown(plan) and _waits(job) else None
    return replace(plan, blockers=(*plan.blockers, Blocker(reason, error.remedy, by, Busy.exit_code)))


def _holder(plan: Plan, jobs: Iterable[Job]) -> Job | None:
    names = (plan.vm_uuid, plan.vm_name)
    hosts = {plan.host_uri, *plan.also_on}
    there = (
        job
        for job in jobs
        if names_a_vm(plan) and holds(job) and not hosts.isdisjoint((job.host_uri, *job.plan.also_on))
    )
    return next((job for job in there if is_same_vm((job.vm_uuid, job.vm_name), names)), None)


def _gives_way(plan: Plan, job: Job) -> bool:
    return is_off(plan) and _waits(job)


def _waits(job: Job) -> bool:
    return job.state in ALIVE and _WAITING_FOR_THE_GUEST.issuperset(_verbs(job.plan))


def _verbs(plan: Plan) -> list[str]:
    return [step.verb for step in plan.steps]
