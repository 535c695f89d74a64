"""The lab tier: full Debian hosts, each with its own systemd, libvirtd and QEMU.

The processes of a test run share two labs, started when they are first wanted: three hosts cost about five seconds of
CPU. A test has a lab to itself, labs do not see each other, and so the tests are spread like all others.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import lab as labs
from tests.support import lab_pool
from tests.support.lab import Lab
from tests.support.lab_saved import SavedGuests
from tests.support.live_moves import Pair

HERE = Path(__file__).parent
# The first test of the first run may have to build the hosts' file system and the tiny guest.
FIRST_TIMEOUT_S = 900


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.real)
            if item.get_closest_marker("timeout") is None:
                item.add_marker(pytest.mark.timeout(FIRST_TIMEOUT_S))


@pytest.fixture(autouse=True)
def lab_directories(private_directories: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guests are emulated everywhere; the built tiny guest is kept between runs."""
    monkeypatch.setenv("HVTUI_ACCEL", "qemu")
    monkeypatch.setenv("HVTUI_CACHE_DIR", str(_lasting_cache()))


@pytest.fixture(scope="session")
def lab_possible() -> None:
    """Skip where there can be no lab, or fail in CI."""
    reason = labs.why_not()
    if reason and os.environ.get("CI"):
        pytest.fail(f"a test on lab hosts cannot run: {reason}")
    if reason:
        pytest.skip(reason)


@pytest.fixture
def lab(lab_possible: None, lab_directories: None) -> Iterator[Lab]:
    """Three hosts with their pools and networks and without VMs; every VM, volume, pool and network that the test
    leaves is removed, and every host runs again."""
    with lab_pool.borrowed() as borrowed:
        yield borrowed


@pytest.fixture
def guests(lab: Lab) -> SavedGuests:
    """Makes running guests that count seconds: `guests.start(lab["lab1"])`."""
    return SavedGuests(lab)


@pytest.fixture
def pair(lab: Lab) -> Iterator[Pair]:
    """lab1, where a VM is, and lab2, where it is to go."""
    both = Pair(lab)
    yield both
    both.close()


def _lasting_cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "hvtui"
