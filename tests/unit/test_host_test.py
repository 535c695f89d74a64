"""Each leg to hosts and between them, on real libvirtds without ssh, and on hosts that are not there. What needs ssh is
tried in tests/lab."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import libvirt
import pytest

from host import host_test
from host.connection import Host, open_host
from host.errors import ConnectionLost, Unsupported
from host.host_list import HostEntry
from host.host_test import Subject, judge_clock
from host.legs import Leg, LegState, tried
from host.pair_test import test_pair as try_pair
from tests.support.private_libvirtd import PrivateLibvirtd

POOL = "<pool type='dir'><name>{}</name><target><path>{}</path></target></pool>"


@pytest.fixture(scope="module")
def daemons() -> Iterator[tuple[PrivateLibvirtd, PrivateLibvirtd]]:
    with PrivateLibvirtd() as first, PrivateLibvirtd() as second:
        yield first, second


@pytest.fixture
def hosts(daemons: tuple[PrivateLibvirtd, PrivateLibvirtd]) -> Iterator[tuple[Subject, Subject]]:
    made = tuple(_tested(daemon.uri, name) for daemon, name in zip(daemons, ("one", "two"), strict=True))
    yield made
    for each in made:
        each.host.close()


def _tested(uri: str, name: str) -> Subject:
    return Subject(HostEntry(name, uri), open_host(uri, name=name))


def legs_from_here(tested: Subject) -> dict[str, Leg]:
    return {leg.name: leg for leg in host_test.test_host(tested.entry, tested.host)}


def legs(source: Subject, target: Subject) -> dict[str, Leg]:
    return {leg.name: leg for leg in try_pair(source, target)}


def test_a_host_on_a_socket_is_tried_up_to_what_needs_ssh(hosts: tuple[Subject, Subject]) -> None:
    found = legs_from_here(hosts[0])
    assert list(found) == ["name", "socket", "libvirt", "versions", "guests", "clock"]
    assert found["libvirt"].state is LegState.OK
    assert found["clock"].state is LegState.UNKNOWN
    assert {leg.host for leg in found.values()} == {"one"}


@pytest.mark.parametrize(
    ("uri", "failed"),
    [
        ("qemu+unix:///system?socket=/nowhere/at/all.sock", "socket"),
        ("qemu+tls://name.invalid/system", "name"),
        ("qemu+tcp://127.0.0.1:1/system", "port"),
        ("qemu+ssh://127.0.0.1:1/system", "ssh"),
    ],
)
def test_a_leg_that_fails_says_what_to_do_and_nothing_rests_on_it(uri: str, failed: str) -> None:
    tested = _tested(uri, "far")
    found = legs_from_here(tested)
    assert found[failed].state is LegState.FAIL
    assert found[failed].remedy
    assert "libvirt" not in found
    tested.host.close()


def test_what_only_the_source_has_is_told_for_that_way(hosts: tuple[Subject, Subject]) -> None:
    own, other = (each.host.connection() for each in hosts)
    own.storagePoolCreateXML(POOL.format("extra", "/tmp"))
    other.storagePoolCreateXML(POOL.format("both", "/var/tmp"))
    own.storagePoolCreateXML(POOL.format("both", "/usr"))
    try:
        there, back = legs(*hosts), legs(*reversed(hosts))
    finally:
        for connection, name in ((own, "extra"), (own, "both"), (other, "both")):
            connection.storagePoolLookupByName(name).destroy()
    assert (there["pools"].state, back["pools"].state) == (LegState.WARN, LegState.WARN)
    assert there["pools"].seen == "not active on the target: extra; of another path there: both"
    assert back["pools"].seen == "of another path there: both"
    assert there["machine types"].state is there["versions"].state is there["cpu"].state is LegState.OK
    assert (there["cpu"].host, there["cpu"].peer) == ("one", "two")


def test_one_libvirtd_under_two_names_is_no_pair(daemons: tuple[PrivateLibvirtd, PrivateLibvirtd]) -> None:
    both = [_tested(daemons[0].uri, name) for name in ("one", "again")]
    found = legs(*both)["identity"]
    assert found.state is LegState.FAIL
    assert "both have the host UUID" in found.seen
    for each in both:
        each.host.close()


def test_where_nobody_can_try_it_the_leg_is_unknown(hosts: tuple[Subject, Subject]) -> None:
    found = legs(*hosts)
    assert found["reach"].state is LegState.WARN, "no address is known"
    addressed = Subject(HostEntry("two", hosts[1].entry.uri, migration_address="192.0.2.9"), hosts[1].host)
    found = legs(hosts[0], addressed)
    assert {found[name].state for name in ("reach", "migration port", "clock", "locks")} == {LegState.UNKNOWN}
    assert "there is no ssh login to one" in found["reach"].seen


def test_simulated_hosts_are_tried_as_far_as_they_go(tmp_path: Path) -> None:
    both = [_tested("test:///default", name) for name in ("a", "b")]
    found = legs(*both)
    assert found["networks"].state is found["pools"].state is LegState.OK
    assert all(isinstance(leg, Leg) for leg in found.values())
    for each in both:
        each.host.close()


@pytest.mark.parametrize(
    ("ahead_s", "state", "words"),
    [
        (0.2, LegState.OK, "0.2 s ahead of lab1's"),
        (-5.0, LegState.WARN, "5.0 s behind lab1's"),
        (3600.0, LegState.FAIL, "3600.0 s ahead"),
    ],
)
def test_clocks_are_judged_by_how_far_they_are_apart(ahead_s: float, state: LegState, words: str) -> None:
    leg = judge_clock(ahead_s, "lab1's")
    assert leg.state is state
    assert words in leg.seen


def test_this_machine_has_the_time_of_this_machine() -> None:
    tested = _tested("qemu:///system", "local")
    assert host_test.clock_ahead_s(tested) == 0.0


def test_errors_of_a_leg_are_the_leg() -> None:
    def fails(error: Exception) -> Leg:
        raise error

    assert tried("x", lambda: fails(ConnectionLost("gone")))[0].state is LegState.FAIL
    assert tried("x", lambda: fails(Unsupported("cannot")))[0].state is LegState.UNKNOWN
    with pytest.raises(libvirt.libvirtError) as caught:
        open_host("test:///default").connection().lookupByName("nobody")
    leg = tried("x", lambda: fails(caught.value))[0]
    assert (leg.state, leg.seen) == (LegState.FAIL, "cannot look: Domain not found")


def test_a_name_server_that_is_silent_is_left_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host_test, "COMMAND_TIMEOUT_S", 0.1)
    monkeypatch.setattr(host_test, "_addresses", lambda _name: time.sleep(5) or [])
    tested = _tested("qemu+tls://lab9/system", "lab9")
    assert "no answer within 0.1 s" in legs_from_here(tested)["name"].seen


def test_the_host_of_a_leg_is_never_changed(hosts: tuple[Subject, Subject]) -> None:
    def pools(host: Host) -> list[str]:
        return sorted(pool.XMLDesc(0) for pool in host.connection().listAllStoragePools())

    before = [pools(each.host) for each in hosts]
    legs(*hosts)
    assert [pools(each.host) for each in hosts] == before
