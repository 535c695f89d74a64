"""Fixtures for every tier: private state directories, and an open Host on libvirt's test driver.

libvirt's test driver keeps its world inside the connection, so each `simulated` host is a fresh one.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from host import secrets
from host.connection import Host, open_host
from tests.support import simulated_world

settings.register_profile("untimed", settings.default, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")


UNIT = Path(__file__).parent / "unit"


def pytest_configure() -> None:
    """A shell's background job and nohup ignore signals, and what they ignore every child ignores too: the programs
    that the tests end by Ctrl-C or a closed terminal would not notice."""
    usual = {signal.SIGINT: signal.default_int_handler, signal.SIGHUP: signal.SIG_DFL, signal.SIGTERM: signal.SIG_DFL}
    for number, handler in usual.items():
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What fails beside the unit tests is tried once more, and the figures tell how many were ("rerun"): on a busy
    machine an emulated guest may hang in its boot, a program on a terminal may be late, and libvirtd does not always
    get over a death in the middle of a start."""
    for item in items:
        if UNIT not in item.path.parents:
            item.add_marker(pytest.mark.flaky(reruns=1))


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int | None:
    """For directories one worker more than CPUs, as much of the time is waited; for single files none, as those are
    done before workers have started. PYTEST_XDIST_AUTO_NUM_WORKERS and -n say otherwise."""
    if "PYTEST_XDIST_AUTO_NUM_WORKERS" in os.environ:
        return None
    if not any(Path(argument).is_dir() for argument in config.args):
        return 0
    return len(os.sched_getaffinity(0)) + 1


@pytest.fixture(autouse=True)
def private_directories(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep journals, caches and configuration of a test away from the machine's own."""
    monkeypatch.setenv("HVTUI_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setenv("HVTUI_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("HVTUI_CONFIG", os.devnull)
    monkeypatch.setenv("HVTUI_ACCEL", "")  # a session sets it: what one test configures must not reach the next


@pytest.fixture(autouse=True)
def no_secrets_of_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """A plan that a test makes and does not run leaves what it offered in this process."""
    monkeypatch.setattr(secrets, "_offered", {})


@pytest.fixture
def config_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The configuration file in force, still empty."""
    path = tmp_path / "config.toml"
    path.touch()
    monkeypatch.setenv("HVTUI_CONFIG", str(path))
    return path


@pytest.fixture
def simulated_file(tmp_path: Path) -> Path:
    """A file for test:///FILE with the varied VMs of tests.support.simulated_world."""
    return simulated_world.write_varied(tmp_path / "world.xml")


@pytest.fixture
def simulated_uri(simulated_file: Path) -> str:
    """The URI of the varied simulated host, for tests that run hvtui in a process of its own."""
    return f"test://{simulated_file}"


@pytest.fixture
def open_world(tmp_path: Path) -> Iterator[Callable[[str], Host]]:
    """A function that opens a Host on a world's text; the hosts are closed after the test."""
    hosts: list[Host] = []

    def open_text(text: str) -> Host:
        path = tmp_path / f"world-{len(hosts)}.xml"
        path.write_text(text, encoding="utf-8")
        hosts.append(open_host(f"test://{path}", name="lab1"))
        return hosts[-1]

    yield open_text
    for each in hosts:
        each.close()


@pytest.fixture
def simulated(simulated_uri: str) -> Iterator[Host]:
    """An open Host with about a dozen varied VMs, hostile names among them."""
    opened = open_host(simulated_uri, name="lab1")
    opened.connection()
    yield opened
    opened.close()
