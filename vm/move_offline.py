"""Plans a move of a VM that is off, and the copy of a definition. Pure.

Everything is at the target before the source's definition goes, and that before its disks: a kill in between leaves a
VM that is whole on one host, and defined on the other at most.
"""

from __future__ import annotations

from host.plan import Step
from vm.move_disks import boot_files_step, copy_disks_step, forget_disks_step
from vm.move_hold_steps import copy_steps, hold_step
from vm.move_model import MoveDraft
from vm.move_state_steps import checkpoint_steps, look_for_state_steps, state_steps
from vm.move_steps import check_step, define_step, finish_step, share_step


def offline_steps(draft: MoveDraft) -> tuple[Step, ...]:
    """Definition, checkpoints, disks, firmware variables and TPM state, in this order; then the source's end."""
    return (
        check_step(draft),
        *share_step(draft),
        *look_for_state_steps(draft),
        *boot_files_step(draft),
        *define_step(draft),
        *hold_step(draft),
        *checkpoint_steps(draft),
        *copy_disks_step(draft),
        *state_steps(draft),
        finish_step(draft, running=False),
        *forget_disks_step(draft),
    )


def definition_steps(draft: MoveDraft) -> tuple[Step, ...]:
    """A copy of the definition. Its VM stays where it is."""
    return (check_step(draft), *define_step(draft), *copy_steps(draft))
