"""`vm diff` as it is shown: the cells of its table, where long texts differ late."""

from __future__ import annotations

import sys

import pytest

from hvtui.cli.vm_drift import COLUMNS
from vm.drift import Difference
from vm.model import Vm, VmState

SAME = "vmlinuz initrd no_timer_check console=tty0 console=ttyS0 quiet panic=-1 "
ROW = (
    Vm("11111111-1111-1111-1111-111111111111", "web", VmState.OFF),
    Difference("boot", "kernel", f"{SAME}tiny.hostname=web", f"{SAME}tiny.hostname=origin", can_align=True),
)


def _cells() -> list[str]:
    return [column.text(ROW) for column in COLUMNS if column.key in {"expected", "found"}]


def test_a_pipe_gets_whole_cells() -> None:
    assert _cells() == [ROW[1].expected, ROW[1].found]


def test_a_terminal_shows_where_they_differ(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    assert _cells() == ["…ny.hostname=web", "…ny.hostname=origin"]
