"""The real tier: a private libvirtd, QEMU guests, and what every test of it needs.

Everything under tests/real carries the marker `real`. Where such a test cannot run it is skipped with the reason, but
in CI (CI=true) it fails: a green run there means that real guests were tried.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import libvirt
import pytest

from host import jobs
from host.connection import Host, open_host
from host.job_model import JobState
from host.journal import Journal
from tests.support import guest
from tests.support.private_libvirtd import PrivateLibvirtd, why_not
from vm import recipe_debian, tiny
from vm.create import plan_create, tiny_request
from vm.recipe_debian import DebianImage

HERE = Path(__file__).parent
BOOTED = "booted"
POOL = "<pool type='dir'><name>default</name><target><path>{path}</path></target></pool>"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.real)


def _cannot_run(reason: str) -> None:
    if os.environ.get("CI"):
        pytest.fail(f"a test on real guests cannot run: {reason}")
    pytest.skip(reason)


@pytest.fixture(autouse=True)
def real_directories(private_directories: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guests are emulated everywhere, for the same result everywhere; the built tiny guest is kept between runs."""
    monkeypatch.setenv("HVTUI_ACCEL", "qemu")
    monkeypatch.setenv("HVTUI_CACHE_DIR", str(_lasting_cache()))


def _lasting_cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "hvtui"


@pytest.fixture(scope="session")
def private_daemon() -> Iterator[PrivateLibvirtd]:
    """One private libvirtd for the whole run, with a storage pool `default`."""
    reason = why_not()
    if reason:
        _cannot_run(reason)
    with PrivateLibvirtd() as daemon:
        connection = libvirt.open(daemon.uri)
        connection.storagePoolDefineXML(POOL.format(path=daemon.images)).create()
        connection.close()
        yield daemon


@pytest.fixture
def real_host(private_daemon: PrivateLibvirtd) -> Iterator[Host]:
    """A fresh Host on the private libvirtd; every VM and every volume that the test leaves is removed."""
    host = open_host(private_daemon.uri, name="real")
    host.connection()
    yield host
    host.close()
    private_daemon.thaw()
    if not private_daemon.libvirtd_pids():
        private_daemon.start()
    _clean(private_daemon)


@pytest.fixture(scope="session")
def second_daemon() -> Iterator[PrivateLibvirtd]:
    """Another libvirtd of the run's own, as another host would have: its files, its VMs, its pool `default`."""
    reason = why_not()
    if reason:
        _cannot_run(reason)
    with PrivateLibvirtd() as daemon:
        connection = libvirt.open(daemon.uri)
        connection.storagePoolDefineXML(POOL.format(path=daemon.images)).create()
        connection.close()
        yield daemon


@pytest.fixture
def second_host(second_daemon: PrivateLibvirtd) -> Iterator[Host]:
    """A fresh Host on the second libvirtd; what the test leaves is removed."""
    host = open_host(second_daemon.uri, name="second")
    host.connection()
    yield host
    host.close()
    second_daemon.thaw()
    if not second_daemon.libvirtd_pids():
        second_daemon.start()
    _clean(second_daemon)


@pytest.fixture(scope="session")
def tiny_guest() -> tiny.TinyGuest:
    """The built-in guest, from the cache or built now (its kernel package comes from the distribution)."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HVTUI_CACHE_DIR", str(_lasting_cache()))
        return tiny.build(lambda _fraction, _note: None)


@dataclass(frozen=True, slots=True)
class SavedGuest:
    """A tiny guest as it was when its agent had answered: its definition, its memory, and the files it booted from."""

    xml: str
    memory: Path
    files: tuple[Path, ...]


@pytest.fixture(scope="session")
def saved_guest(private_daemon: PrivateLibvirtd, tiny_guest: tiny.TinyGuest) -> SavedGuest:
    """The guest `booted`, booted once for all tests of this process: an emulated boot costs 6 s of CPU."""
    directory = private_daemon.directory / "booted"
    directory.mkdir()
    host = open_host(private_daemon.uri, name="booting")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HVTUI_STATE_DIR", str(directory / "state"))
        patch.setenv("HVTUI_CACHE_DIR", str(_lasting_cache()))
        patch.setenv("HVTUI_ACCEL", "qemu")
        with Journal() as journal:
            job = jobs.submit(plan_create(host, tiny_request(BOOTED)), host, journal)
            assert job.state is JobState.DONE, job.error
    domain = host.connection().lookupByName(BOOTED)
    wait_for(lambda: guest.answers(domain), "the guest's agent")
    xml = domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE | libvirt.VIR_DOMAIN_XML_SECURE)
    domain.save(str(directory / "memory"))
    files = tuple(path.rename(directory / path.name) for path in private_daemon.images.iterdir())
    host.close()
    _clean(private_daemon)
    return SavedGuest(xml, directory / "memory", files)


@pytest.fixture
def booted(real_host: Host, private_daemon: PrivateLibvirtd, saved_guest: SavedGuest) -> libvirt.virDomain:
    """A running tiny guest, named BOOTED, whose agent answers; there within a second, as it was booted before."""
    for path in saved_guest.files:
        (private_daemon.images / path.name).hardlink_to(path)
    connection = real_host.connection()
    connection.storagePoolLookupByName("default").refresh()
    domain = connection.defineXML(saved_guest.xml)
    connection.restore(str(saved_guest.memory))
    wait_for(lambda: guest.answers(domain), "the agent of the restored guest")
    return domain


@pytest.fixture(scope="session")
def debian_image() -> DebianImage:
    """The image of the recipe debian, from the cache or built now (its packages come from the distribution)."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HVTUI_CACHE_DIR", str(_lasting_cache()))
        problems = recipe_debian.obstacles()
        if problems:
            _cannot_run("; ".join(problems))
        return recipe_debian.build(lambda _fraction, _words: None)


@pytest.fixture
def journal(real_directories: None) -> Iterator[Journal]:
    """A journal of the test's own: the one that hvtui processes started by the test use, too."""
    with Journal() as opened:
        yield opened


def wait_for(condition: Callable[[], object], what: str, *, timeout_s: float = 120.0) -> None:
    """Wait until `condition` is true; fail the test, naming `what`, when it does not come."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            pytest.fail(f"waited {timeout_s:.0f} s for {what}")
        time.sleep(0.05)


def _clean(daemon: PrivateLibvirtd) -> None:
    left = _remove_vms(daemon)
    if left:
        daemon.restart_without(left)
        left = _remove_vms(daemon)
    for path in daemon.images.iterdir():
        path.unlink()
    connection = libvirt.open(daemon.uri)
    connection.storagePoolLookupByName("default").refresh()
    connection.close()
    assert not left, f"could not be removed: {left}"


def _remove_vms(daemon: PrivateLibvirtd) -> list[str]:
    """The names of those that libvirt does not let go."""
    connection = libvirt.open(daemon.uri)
    for domain in connection.listAllDomains():
        with contextlib.suppress(libvirt.libvirtError):
            domain.destroy()
        with contextlib.suppress(libvirt.libvirtError):
            domain.undefineFlags(
                libvirt.VIR_DOMAIN_UNDEFINE_MANAGED_SAVE
                | libvirt.VIR_DOMAIN_UNDEFINE_SNAPSHOTS_METADATA
                | libvirt.VIR_DOMAIN_UNDEFINE_CHECKPOINTS_METADATA
                | libvirt.VIR_DOMAIN_UNDEFINE_NVRAM
            )
    left = [domain.name() for domain in connection.listAllDomains()]
    connection.close()
    return left
