"""Groups of kinds of move, by what they need of the hosts. Data only."""

from __future__ import annotations

from vm.move_model import MoveKind

LIVE = frozenset({MoveKind.LIVE, MoveKind.LIVE_STORAGE})
MEMORY = LIVE | {MoveKind.QUICK}  # the guest's memory goes along
MOVES = MEMORY | {MoveKind.OFFLINE}  # the VM leaves its host
ALL = MOVES | {MoveKind.DEFINITION}  # the target gets a definition
# Whose steps take these along: QEMU sends firmware variables and the TPM's state with the memory; of a VM that is off
# they are files, and checkpoints what libvirt knows of them (vm.move_state_steps).
CARRY_NVRAM = MOVES
CARRY_TPM = MOVES
CARRY_CHECKPOINTS = frozenset({MoveKind.OFFLINE, MoveKind.QUICK})
