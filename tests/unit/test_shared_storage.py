"""Shared storage told from storage that only looks alike, on two real libvirtds: a directory under /tmp is the same for
both, /var/lib/libvirt is each one's own."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from host.connection import Host, open_host
from host.errors import NotFound, WrongState
from host.shared_storage import PREFIX, looks_shared, prove_shared
from tests.support.private_libvirtd import PrivateLibvirtd

OWN = "/var/lib/libvirt/images"
MARK = "1a2b3c4d"
VOLUME = "<volume><name>{}</name><capacity>{}</capacity></volume>"
POOL = "<pool type='dir'><name>{}</name><target><path>{}</path></target></pool>"


@pytest.fixture(scope="module")
def daemons() -> Iterator[tuple[PrivateLibvirtd, PrivateLibvirtd]]:
    with PrivateLibvirtd() as first, PrivateLibvirtd() as second:
        for daemon in (first, second):
            (daemon.directory / "lib/images").mkdir(exist_ok=True)
        yield first, second


@pytest.fixture
def pair(daemons: tuple[PrivateLibvirtd, PrivateLibvirtd]) -> Iterator[tuple[Host, Host]]:
    hosts = tuple(open_host(daemon.uri, name=name) for daemon, name in zip(daemons, ("one", "two"), strict=True))
    yield hosts
    for host in hosts:
        connection = host.connection()
        left = [pool.name() for pool in connection.listAllStoragePools() if pool.name().startswith(PREFIX)]
        assert not left
        for pool in connection.listAllStoragePools():
            for volume in pool.listAllVolumes() if pool.isActive() else ():
                volume.delete()
            if pool.isActive():
                pool.destroy()
            pool.undefine()
        host.close()


@pytest.fixture
def shared() -> Iterator[str]:
    """A directory that both see. Not under tmp_path: that may be closed to others."""
    with tempfile.TemporaryDirectory(prefix="hv-shared-", dir="/tmp") as directory:
        yield directory


def pools(pair: tuple[Host, Host], name: str, path: str) -> None:
    for host in pair:
        host.connection().storagePoolDefineXML(POOL.format(name, path)).create()


def volume(host: Host, pool: str, name: str, size_bytes: int = 4096) -> None:
    host.connection().storagePoolLookupByName(pool).createXML(VOLUME.format(name, size_bytes))


def judged(pair: tuple[Host, Host], path: str) -> bool | None:
    return looks_shared(*pair, [path])[path].is_shared


def test_one_file_is_told_from_two_alike(pair: tuple[Host, Host], shared: str) -> None:
    pools(pair, "shared", shared)
    pools(pair, "own", OWN)
    volume(pair[0], "shared", "disk")
    pair[1].connection().storagePoolLookupByName("shared").refresh()
    for host in pair:
        volume(host, "own", "disk")
    found = looks_shared(*pair, [f"{shared}/disk", f"{OWN}/disk"])
    assert {path: likeness.is_shared for path, likeness in found.items()} == {
        f"{shared}/disk": True,
        f"{OWN}/disk": False,
    }


def test_a_copy_that_kept_its_time_is_another_file(
    pair: tuple[Host, Host], daemons: tuple[PrivateLibvirtd, PrivateLibvirtd]
) -> None:
    pools(pair, "own", OWN)
    for daemon in daemons:
        (daemon.directory / "lib/images/copied").write_bytes(b"same")
        os.utime(daemon.directory / "lib/images/copied", ns=(10**18, 10**18))
    for host in pair:
        host.connection().storagePoolLookupByName("own").refresh()
    assert judged(pair, f"{OWN}/copied") is False


def test_a_file_that_the_target_did_not_look_for_is_judged_by_those_beside_it(
    pair: tuple[Host, Host], shared: str
) -> None:
    pools(pair, "shared", shared)
    volume(pair[0], "shared", "new")
    assert judged(pair, f"{shared}/new") is None, "nothing to compare"
    pair[1].connection().storagePoolLookupByName("shared").refresh()
    volume(pair[0], "shared", "newer")
    assert judged(pair, f"{shared}/newer") is True


def test_a_file_that_changes_all_the_time_is_recognised(pair: tuple[Host, Host], shared: str) -> None:
    import threading

    pools(pair, "shared", shared)
    volume(pair[0], "shared", "busy")
    pair[1].connection().storagePoolLookupByName("shared").refresh()
    over = threading.Event()

    def write() -> None:
        while not over.is_set():
            (Path(shared) / "busy").open("r+b").write(b"x")

    writer = threading.Thread(target=write)
    writer.start()
    try:
        assert judged(pair, f"{shared}/busy") is True
    finally:
        over.set()
        writer.join()


def test_where_no_pool_tells_nothing_is_said_and_network_names_are_the_same_everywhere(
    pair: tuple[Host, Host], shared: str
) -> None:
    assert judged(pair, f"{shared}/disk") is None
    assert judged(pair, "rbd/disk") is True


@pytest.mark.parametrize("with_pools", [True, False])
def test_a_shared_directory_is_proved_and_another_one_refuted(
    pair: tuple[Host, Host], shared: str, with_pools: bool
) -> None:
    if with_pools:
        pools(pair, "shared", shared)
        pools(pair, "own", OWN)
    assert prove_shared(*pair, shared, MARK)
    assert not prove_shared(*pair, OWN, MARK)
    assert list(Path(shared).iterdir()) == []
    for host in pair:
        there = {pool.name() for pool in host.connection().listAllStoragePools()}
        assert there == ({"own", "shared"} if with_pools else set())
        assert not any(pool.listAllVolumes() for pool in host.connection().listAllStoragePools())


def test_a_directory_that_only_the_source_has_is_not_shared(
    pair: tuple[Host, Host], daemons: tuple[PrivateLibvirtd, PrivateLibvirtd]
) -> None:
    (daemons[0].directory / "lib/only-here").mkdir()
    assert not prove_shared(*pair, "/var/lib/libvirt/only-here", MARK)
    with pytest.raises(NotFound, match="no such directory"):
        prove_shared(*reversed(pair), "/var/lib/libvirt/only-here", MARK)


def test_what_a_killed_proof_left_is_taken_away_by_the_next(pair: tuple[Host, Host], shared: str) -> None:
    left = f"{PREFIX}{MARK}"
    pair[0].connection().storagePoolCreateXML(POOL.format(left, shared))
    volume(pair[0], left, left, 3)
    assert prove_shared(*pair, shared, MARK)
    assert list(Path(shared).iterdir()) == []


def test_a_pool_that_is_not_active_is_told(pair: tuple[Host, Host], shared: str) -> None:
    pair[1].connection().storagePoolDefineXML(POOL.format("asleep", shared))
    with pytest.raises(WrongState, match=r"asleep of two has this directory, and is not active.*pool-start"):
        prove_shared(*pair, shared, MARK)
    assert list(Path(shared).iterdir()) == []
