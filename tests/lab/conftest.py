"""The lab tier: full Debian hosts, each with its own systemd, libvirtd and QEMU.

Each process of a test run has a lab of its own, started for its first lab test: three hosts cost it about five seconds
of CPU, no two labs see each other, and the tests can be spread like all others. After each test the lab is as it was.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import lab as labs
from tests.support import lab_reset
from tests.support.lab import Lab
from tests.support.lab_saved import SavedGuests

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
def session_lab() -> Iterator[Lab]:
    """The lab of this process: three hosts, their pools and networks, no VMs."""
    reason = labs.why_not()
    if reason and os.environ.get("CI"):
        pytest.fail(f"a test on lab hosts cannot run: {reason}")
    if reason:
        pytest.skip(reason)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HVTUI_CACHE_DIR", str(_lasting_cache()))
        started = labs.up(f"test-{os.getpid()}", hosts=3, owned=True)
    with started:
        yield started


@pytest.fixture
def lab(session_lab: Lab) -> Iterator[Lab]:
    """The lab; every VM, volume, pool and network that the test leaves is removed, and every host runs again."""
    yield session_lab
    lab_reset.reset(session_lab)


@pytest.fixture(scope="session")
def _saved_guests(session_lab: Lab) -> SavedGuests:
    return SavedGuests(session_lab)


@pytest.fixture
def guests(lab: Lab, _saved_guests: SavedGuests) -> SavedGuests:
    """Makes running guests that count seconds: `guests.start(lab["lab1"])`."""
    return _saved_guests


def _lasting_cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "hvtui"
