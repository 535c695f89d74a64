"""What a step of a move sees where libvirt changes things between two of its looks."""

from __future__ import annotations

from collections.abc import Iterator

import libvirt
import pytest

from host.connection import Host
from host.errors import Conflict
from tests.support.moves import context
from vm import move_sides
from vm.move_sides import Side, has_left, look, side_of
from vm.move_steps import refuse_two

RUNS, GONE = Side(is_there=True, is_active=True, is_running=True, is_persistent=True), Side()
ARGS = {"name": "web", "uuid": "u", "target": "test:///there", "source_name": "a", "target_name": "b"}


class Sides:
    """Answers of both hosts, one after the other."""

    def __init__(self, *answers: Side) -> None:
        self._answers: Iterator[Side] = iter(answers)

    def __call__(self, _host: object, _args: object) -> Side:
        return next(self._answers)


@pytest.fixture(autouse=True)
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(move_sides.time, "sleep", lambda _seconds: None)


def test_a_vm_that_changes_hosts_between_two_looks_is_not_on_both(simulated: Host, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(move_sides, "look_at", Sides(RUNS, RUNS, GONE, RUNS))

    here, there = look(context(simulated, simulated), {**ARGS, "target": simulated.uri})

    assert (here, there) == (GONE, RUNS)
    refuse_two(ARGS, here, there)


def test_a_vm_that_stays_on_both_hosts_is_refused(simulated: Host, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(move_sides, "look_at", lambda _host, _args: RUNS)

    here, there = look(context(simulated, simulated), {**ARGS, "target": simulated.uri})

    with pytest.raises(Conflict, match="runs on a and on b"):
        refuse_two(ARGS, here, there)


def test_what_the_target_alone_defines_has_left_the_source():
    off = Side(is_there=True, is_persistent=True)
    assert has_left(GONE, off) and has_left(GONE, RUNS)
    assert not has_left(off, off) and not has_left(off, GONE) and not has_left(GONE, GONE)


class Ending:
    """A domain that ends between two calls."""

    def __init__(self, *states: tuple[int, int]) -> None:
        self._states = list(states)
        self._is_active = [1] + [0] * 10

    def isActive(self) -> int:  # noqa: N802
        return self._is_active.pop(0)

    def state(self, _flags: int) -> list[int]:
        return list(self._states[0] if len(self._states) == 1 else self._states.pop(0))

    def isPersistent(self) -> int:  # noqa: N802
        return 0

    def hasManagedSaveImage(self, _flags: int) -> int:  # noqa: N802
        return 0

    def jobStats(self, _flags: int) -> dict[str, int]:  # noqa: N802
        return {}


def test_a_guest_that_ends_between_two_calls_is_off():
    side = side_of(Ending((libvirt.VIR_DOMAIN_SHUTOFF, 0)))

    assert not side.is_active and not side.has_guest


def test_a_guest_that_is_being_started_by_libvirt_has_not_arrived():
    domain = Ending((libvirt.VIR_DOMAIN_PAUSED, libvirt.VIR_DOMAIN_PAUSED_STARTING_UP))
    domain._is_active = [1] * 10

    side = side_of(domain)

    assert side.is_active and side.is_held and not side.has_guest
