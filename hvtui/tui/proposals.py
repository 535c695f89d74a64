"""From plans to jobs: the dialog where one is needed, the jobs, and what became of them in words.

The app is a `Proposing`; handlers call `propose` and `propose_set`. Each plan is made for its VM's own host.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, TypeAlias

from textual.app import App

from host.errors import HvtuiError
from host.job_model import Job, JobSet, JobState
from host.plan import Danger, Plan, PlanSet
from hvtui.holders import holding_jobs, make_way, with_holders
from hvtui.tui.actions import Target
from hvtui.tui.outcome_text import about, done_words, outcome_words
from vm.model import Snapshot, Vm

if TYPE_CHECKING:
    from host.connection import Host
    from hvtui.tui.bridge import Bridge, Services
    from hvtui.tui.remedies import Remedy
    from hvtui.tui.screens.plan import PlanScreen

REMEDY_POLL_S = 0.1
REMEDY_SEEN_S = 5.0  # how long the list may take to know what a remedy did
REMEDIED = {"vm.resume": "resumed"}
Again: TypeAlias = Callable[[Sequence[Vm]], Awaitable[Sequence[Plan]]]


class Proposing(App[None]):
    """What proposes plans and runs them; the app is one."""

    services: Services
    bridge: Bridge
    snapshot: Snapshot | None
    snapshots: Mapping[str, Snapshot]

    def say(self, text: str, role: str = "text") -> None:
        """One line in the status line."""
        raise NotImplementedError

    # Which host

    def host_of(self, vm: Vm) -> Host:
        """The Host where that VM is: what is planned for it is planned there."""
        hosts = self.services.hosts
        return next((host for host in hosts if host.name == vm.host), self.services.host)

    def is_up(self, vm: Vm | None) -> bool:
        """Whether the host of that VM answers (without a VM: any host)."""
        found = self.snapshots.get(vm.host) if vm is not None and self.services.is_many else self.snapshot
        return found is not None and found.link.is_up

    def are_up(self, vms: Sequence[Vm]) -> bool:
        """Whether the hosts of all of them answer (without a VM: any host)."""
        return all(map(self.is_up, vms)) if vms else self.is_up(None)

    def vms_of(self, plans: Sequence[Plan]) -> tuple[Vm, ...]:
        """The VMs of plans as the list has them now, each on the plan's own host."""
        if self.snapshot is None:
            return ()
        many = self.services.is_many
        there = {(self.host_of(vm).uri if many else "", vm.uuid): vm for vm in self.snapshot.vms}
        keys = [(plan.host_uri if many else "", plan.vm_uuid or "") for plan in plans]
        return tuple(there[key] for key in keys if key in there)

    # Plans

    async def plan_each(self, plan: Callable[..., Plan], target: Target) -> tuple[Plan, ...]:
        """One plan for every target VM, made in one thread. Raises HvtuiError."""
        return await self.bridge.call(lambda: tuple(plan(self.host_of(vm), vm) for vm in target.vms))

    async def propose(
        self,
        plans: Sequence[Plan],
        *,
        done: str = "",
        ask: bool = False,
        accepted: Callable[[], None] | None = None,
        again: Again | None = None,
        left: str = "",
        dialog: Callable[[Sequence[Plan]], PlanScreen] | None = None,
    ) -> bool:
        """Show the plans, and run them when accepted; True when they ran and all ended well. Harmless plans without
        warnings run at once (unless `ask` or the configuration says otherwise). `done` is the past tense for the
        status line; `accepted` is called before they run; `again` makes the plans anew for VMs that a remedy has
        changed, which are then proposed in their place; `left` says which VMs of the selection are left out; `dialog`
        makes another dialog than the usual one. Call it from a worker (every action's handler is one)."""
        if not plans:
            return False
        runnable = plans
        if ask or not self._may_run_at_once(plans):
            from hvtui.tui.screens.plan import PlanScreen

            held = with_holders(plans, await self.bridge.call(holding_jobs, self.services.journal))
            shown = dialog(held) if dialog is not None else PlanScreen(held, left_out=left)
            runnable = shown.runnable
            if not await self.push_screen_wait(shown):
                if shown.remedy is None:
                    return False
                plans = await self._remedied(plans, held, shown.remedy, again)
                return await self.propose(
                    plans, done=done, ask=True, accepted=accepted, again=again, left=left, dialog=dialog
                )
        if accepted is not None:
            accepted()
        self.follow_new(runnable)
        await self.bridge.call(make_way, runnable, self.services.journal)
        outcomes = await self.bridge.run_plans(runnable)
        await self._tell(runnable, outcomes, done, left)
        return all(isinstance(outcome, Job) and outcome.state is JobState.DONE for outcome in outcomes)

    async def propose_set(
        self,
        plan_set: PlanSet,
        *,
        done: str = "",
        ask: bool = True,
        accepted: Callable[[], None] | None = None,
        dialog: PlanScreen | None = None,
    ) -> bool:
        """Show a set of plans, and run it when accepted; True when it ran and all of it is done. The arguments are as
        for `propose`. Call it from a worker. Raises HvtuiError when the set cannot begin."""
        plans = (*plan_set.preparations, *plan_set.plans)
        if ask or plan_set.warnings or plan_set.blockers or not self._may_run_at_once(plans):
            from hvtui.tui.screens.plan import PlanSetScreen

            if not await self.push_screen_wait(dialog or PlanSetScreen(plan_set)):
                return False
        if accepted is not None:
            accepted()
        self.follow_new(plan_set.plans)
        jobs = await self.bridge.run_set(plan_set)
        await self.tell_set(jobs, done=done)
        return JobSet(jobs).state is JobState.DONE

    async def tell_set(self, jobs: tuple[Job, ...], *, done: str = "") -> None:
        """Say what became of a set, or of some of it: the first that failed in full."""
        told = [job for job in jobs if not job.is_preparation or job.state is not JobState.DONE]
        fine = {JobState.DONE, JobState.ROLLED_BACK}
        if all(job.state in fine for job in told):
            job_set = JobSet(jobs)
            what = about(told[0].plan) if len(told) == 1 else f"{len(told)} VMs"
            self.say(f"{done or 'done:'} {what} · set {job_set.id}{await self._undo_hint(job_set.main)}", "good")
        elif ended := outcome_words(told):
            self.say(*ended)

    async def _remedied(
        self, plans: Sequence[Plan], held: Sequence[Plan], remedy: Remedy, again: Again | None
    ) -> Sequence[Plan]:
        """Propose the remedy for the VMs that it belongs to; `held` are the plans with what jobs block of them. Returns
        the plans to come back to: the same ones when the remedy was not wanted, none when there is nothing to do."""
        vms = self.vms_of([plan for plan in held if plan.blockers and plan.vm_uuid in remedy.uuids])
        done = REMEDIED.get(remedy.blocker_id, remedy.action.done)
        if not await self.propose(await self.plan_each(remedy.plan, Target(vms=vms)), done=done):
            return plans
        from hvtui.tui.remedies import is_fulfilled, is_removed

        deadline = time.monotonic() + REMEDY_SEEN_S
        left = [plan for plan in plans if plan.vm_uuid and not is_fulfilled(remedy, plan)]
        if again is None or not left:
            return ()
        made = await again(self.vms_of(left))
        while not is_removed(remedy, made) and time.monotonic() < deadline:
            await asyncio.sleep(REMEDY_POLL_S)  # until the list knows it
            made = await again(self.vms_of(left))
        made = [plan for plan in made if not (plan.blockers and plan.vm_uuid in remedy.uuids)]
        return made if any(not plan.blockers for plan in made) else ()

    def follow_new(self, plans: Sequence[Plan], *, host_name: str = "") -> None:
        """Have the list put its cursor on the VM that a single plan makes, as soon as it is there; on `host_name` for
        one that a plan brings there."""
        from hvtui.tui.screens.fleet import FleetScreen

        uuid = plans[0].vm_uuid if len(plans) == 1 else None
        if uuid is not None and (host_name or not self.vms_of(plans)):
            for screen in self.screen_stack:
                if isinstance(screen, FleetScreen):
                    screen.follow_new(uuid, host_name)

    def _may_run_at_once(self, plans: Sequence[Plan]) -> bool:
        if self.services.config.ui.confirm == "always":
            return False
        return all(plan.danger is Danger.NONE and not plan.warnings and not plan.blockers for plan in plans)

    async def _tell(self, plans: Sequence[Plan], outcomes: Sequence[Job | HvtuiError], done: str, left: str) -> None:
        if ended := outcome_words(outcomes):
            self.say(*ended)
            return
        what = about(plans[0]) if len(plans) == 1 else f"{len(plans)} VMs"
        jobs = sorted((outcome for outcome in outcomes if isinstance(outcome, Job)), key=lambda job: job.id)
        number = f"job {jobs[0].id}" if len(jobs) == 1 else f"jobs {jobs[0].id}–{jobs[-1].id}"
        if len(jobs) == 1 and jobs[0].plan.also_on:
            from hvtui.tui.move_text import outcome_figures

            what = ", ".join(filter(None, (what, outcome_figures(jobs[0]))))
        hint = f"{await self._undo_hint(jobs)}{f' · {left}' if left else ''}"
        self.say(f"{done_words(plans, done) or 'done:'} {what} · {number}{hint}", "good")

    async def _undo_hint(self, jobs: Sequence[Job]) -> str:
        """The key that takes the jobs back, where one does: jobs of one kind can or cannot all be."""
        from hvtui.tui import keymap
        from hvtui.tui.actions import action_named

        action = action_named("app.undo")
        key = keymap.shown_key(action) if action is not None else ""
        if not key or not jobs or jobs[0].plan.undoes_job is not None:
            return ""
        try:
            plan = await self.bridge.call(_undo_of, jobs[0], self.bridge.host_at(jobs[0].host_uri))
        except HvtuiError:
            return ""
        return "" if plan.blockers else f" · {key} undo"


def _undo_of(job: Job, host: Host) -> Plan:
    """How the job is taken back."""
    from host.jobs import plan_undo

    if job.plan.long:  # another process ran it: this one may not know its verbs
        from vm import steps as steps
    return plan_undo(job, host)
