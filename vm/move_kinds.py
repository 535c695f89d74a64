"""Groups of kinds of move, by what they need of the hosts. Data only."""

from __future__ import annotations

from vm.move_model import MoveKind

LIVE = frozenset({MoveKind.LIVE, MoveKind.LIVE_STORAGE})
MEMORY = LIVE | {MoveKind.QUICK}  # the guest's memory goes along
MOVES = MEMORY | {MoveKind.OFFLINE}  # the VM leaves its host
ALL = MOVES | {MoveKind.DEFINITION}  # the target gets a definition
# Whose steps take these along: QEMU sends firmware variables and the TPM's state with the memory.
CARRY_NVRAM = LIVE
CARRY_TPM = LIVE
