"""The handle of a host: opening, losing, supervising and closing its connections."""

from __future__ import annotations

import grp
import os
import re
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import libvirt
import pytest

from host import connection as module
from host.connection import (
    Host,
    Link,
    LinkStatus,
    default_uri,
    is_local_uri,
    is_simulated_uri,
    open_host,
)
from host.errors import ConnectionLost, Denied, HvtuiError, NotFound, UsageError
from tests.support.private_libvirtd import PrivateLibvirtd
from tests.support.waiting import wait_for


@pytest.fixture(scope="module")
def daemon() -> Iterator[PrivateLibvirtd]:
    with PrivateLibvirtd() as running:
        yield running


@pytest.fixture
def real(daemon: PrivateLibvirtd) -> Iterator[Host]:
    opened = open_host(daemon.uri, name="lab1")
    yield opened
    opened.close()


@pytest.fixture
def mute_socket() -> Iterator[Path]:
    """A daemon that accepts connections and never answers, as a frozen one."""
    with tempfile.TemporaryDirectory(dir="/tmp") as directory, socket.socket(socket.AF_UNIX) as listener:
        path = Path(directory) / "sock"
        listener.bind(str(path))
        listener.listen()
        yield path


# URIs


@pytest.mark.parametrize(
    ("uri", "simulated", "local"),
    [
        ("qemu:///system", False, True),
        ("qemu:///session", False, True),
        ("qemu+unix:///system?socket=/x", False, True),
        ("qemu+ssh://root@lab2/system", False, False),
        ("qemu+tls://lab2/system", False, False),
        ("test:///default", True, True),
        ("test+unix:///default?socket=/x", True, True),
        ("test+ssh://lab2/default", True, False),
    ],
)
def test_a_uri_tells_what_and_where_a_host_is(uri: str, simulated: bool, local: bool) -> None:
    assert is_simulated_uri(uri) is simulated
    assert is_local_uri(uri) is local


@pytest.mark.parametrize(("host_name", "local"), [("{}", True), ("{}.example.org", True), ("elsewhere", False)])
def test_behind_a_socket_the_name_of_the_host_tells_where_it_is(
    monkeypatch: pytest.MonkeyPatch, host_name: str, local: bool
) -> None:
    """ssh forwards sockets, and a container has its own: the paths of such a host are not this machine's."""
    here = os.uname().nodename.partition(".")[0].upper()
    host = open_host("qemu+unix:///system?socket=/x")
    monkeypatch.setattr(host, "_connection", lambda _role: FakeNamed(host_name.format(here)))
    assert host.is_local is local
    assert open_host("qemu:///system").is_local  # nobody is asked


def test_a_daemon_of_another_host_behind_a_socket_here_is_not_local(daemon: PrivateLibvirtd, real: Host) -> None:
    enter = ("nsenter", "--uts", f"--target={daemon.libvirtd_pids()[0]}", "--", "hostname")
    assert real.is_local
    subprocess.run([*enter, "elsewhere"], check=True)
    far = open_host(daemon.uri)
    try:
        assert not far.is_local
    finally:
        far.close()
        subprocess.run([*enter, os.uname().nodename], check=True)


def test_a_host_has_one_identity_under_all_its_uris(daemon: PrivateLibvirtd, real: Host, tmp_path: Path) -> None:
    (tmp_path / "sock").symlink_to(daemon.socket)
    again = open_host(f"qemu+unix:///system?socket={tmp_path / 'sock'}", name="again")
    try:
        assert real.identity == again.identity
        assert re.fullmatch(r"[0-9a-f-]{36}@\S+", again.identity)
    finally:
        again.close()
    assert open_host("test:///default").identity == open_host("qemu:///session").identity == ""  # nobody is asked


class FakeNamed:
    """A connection of which only the host's name is wanted."""

    def __init__(self, name: str) -> None:
        self._name = name

    def getHostname(self) -> str:  # noqa: N802 - libvirt's name
        return self._name


@pytest.mark.parametrize(
    ("uri", "name"), [("qemu:///system", "local"), ("qemu+ssh://root@lab2:22/system", "lab2"), ("test:///x", "local")]
)
def test_a_host_is_named_after_its_uri(uri: str, name: str) -> None:
    assert open_host(uri).name == name
    assert open_host(uri, name="mine").name == "mine"


@pytest.mark.parametrize(
    ("uri", "opened"),
    [
        ("qemu+ssh://lab2/system", "qemu+ssh://lab2/system?no_tty=1"),
        ("qemu+ssh://lab2/system?keyfile=/k", "qemu+ssh://lab2/system?keyfile=/k&no_tty=1"),
        ("qemu+ssh://lab2/system?no_tty=0", "qemu+ssh://lab2/system?no_tty=0"),
        ("qemu:///system", "qemu:///system"),
    ],
)
def test_ssh_never_asks_on_the_terminal(uri: str, opened: str) -> None:
    assert module._for_ssh(uri) == opened


def test_the_system_is_the_default_for_root_and_the_session_for_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert default_uri() == "qemu:///system"

    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr(module, "SYSTEM_SOCKETS", ("/nowhere/sock",))
    assert default_uri() == "qemu:///session"


def test_the_system_is_the_default_for_whom_its_socket_lets_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "sock"
    path.touch()
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr(module, "SYSTEM_SOCKETS", (str(path),))

    path.chmod(0o660)
    assert default_uri() == "qemu:///system"
    path.chmod(0o666)
    monkeypatch.setattr(os, "getgroups", list)
    assert default_uri() == "qemu:///session", "polkit would ask, and refuse"
    monkeypatch.setattr(os, "getgroups", lambda: [grp.getgrnam("libvirt").gr_gid])
    assert default_uri() == "qemu:///system"
    monkeypatch.setattr(grp, "getgrnam", {}.__getitem__)
    assert default_uri() == "qemu:///session"


# Opening


def test_nothing_is_opened_before_it_is_used() -> None:
    host = open_host("qemu+unix:///system?socket=/nowhere/sock")

    assert host.link.status is LinkStatus.CONNECTING
    host.close()
    assert host.link.status is LinkStatus.CLOSED


def test_a_daemon_that_is_not_there_is_told_with_a_remedy() -> None:
    host = open_host("qemu+unix:///system?socket=/nowhere/sock")

    with pytest.raises(ConnectionLost, match="libvirtd"):
        host.connection()
    assert host.link.status is LinkStatus.LOST
    assert "/nowhere/sock" in host.link.error
    assert not host.link.is_up
    with pytest.raises(ConnectionLost), host.calls("list VMs"):
        pass
    host.close()


@pytest.mark.parametrize("uri", ["nonsense", "qemu:///nonsense", "test:///nowhere.xml", "qemu+nonsense://x/system"])
def test_a_uri_that_leads_nowhere_is_an_error_and_not_a_traceback(uri: str) -> None:
    host = open_host(uri)

    with pytest.raises(HvtuiError):
        host.connection()
    host.close()


def test_a_daemon_that_never_answers_is_given_up(mute_socket: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "OPEN_TIMEOUT_S", 0.2)
    host = open_host(f"qemu+unix:///system?socket={mute_socket}")

    with pytest.raises(ConnectionLost, match="did not answer"):
        host.connection()
    host.close()


def test_closing_ends_an_opening_that_hangs(mute_socket: Path) -> None:
    host = open_host(f"qemu+unix:///system?socket={mute_socket}")
    said: list[str] = []

    def use() -> None:
        try:
            host.connection()
        except ConnectionLost as error:
            said.append(error.cause)

    thread = threading.Thread(target=use, daemon=True)
    thread.start()
    wait_for(lambda: any(each.name == "open" for each in threading.enumerate()), what="the opening")
    host.close()
    thread.join(10)

    assert not thread.is_alive()
    assert said == ["the connection was closed"]


def test_a_closed_host_opens_nothing(real: Host) -> None:
    real.connection()
    real.close()

    with pytest.raises(ConnectionLost, match="closed"):
        real.connection()
    real.close()


def test_many_threads_open_one_connection(real: Host) -> None:
    found: list[int] = []
    threads = [threading.Thread(target=lambda: found.append(id(real.connection()))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(set(found)) == 1


def held_together(host: Host) -> tuple[int, int]:
    """The connections that two threads have in blocks that are open at the same time."""
    both = threading.Barrier(2, timeout=20)
    held: list[int] = []

    def block() -> None:
        with host.calls("hold") as connection:
            held.append(id(connection))
            both.wait()

    thread = threading.Thread(target=block)
    thread.start()
    block()
    thread.join()
    return held[0], held[1]


def test_two_threads_never_call_on_one_connection_except_on_a_simulated_host(real: Host, simulated: Host) -> None:
    first, second = held_together(real)
    assert first != second
    first, second = held_together(simulated)
    assert first == second, "the test driver's world lives in one connection"


def test_a_block_inside_a_block_has_the_same_connection(real: Host) -> None:
    with real.calls("outer") as outer, real.calls("inner") as inner:
        assert inner is outer


def test_blocks_after_one_another_use_the_same_connections_again(real: Host) -> None:
    assert sorted(held_together(real)) == sorted(held_together(real))


def test_the_main_connection_is_left_to_the_thread_that_reserved_it(real: Host) -> None:
    real.reserve_main()
    with real.main_calls() as main:
        assert main is real.connection()
        with real.calls("nested") as nested:
            assert nested is main
    with real.calls("another thread's work") as spare:
        assert spare is not main


def test_a_connection_that_a_keepalive_may_have_crossed_is_not_used_again(
    real: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "KEEPALIVE_INTERVAL_S", 0)
    monkeypatch.setattr(module, "WEARS_OUT", True)
    with real.calls("a long block") as first:
        time.sleep(0.05)
    assert real.link.status is LinkStatus.CONNECTING
    with real.calls("the next one") as second:
        assert second is not first
        assert real.link.is_up

    monkeypatch.setattr(module, "WEARS_OUT", False)
    with real.calls("a library without the fault") as third:
        time.sleep(0.05)
    assert real.connection() is third


def test_a_read_only_host_changes_nothing(daemon: PrivateLibvirtd, simulated_file: Path) -> None:
    host = open_host(daemon.test_uri(simulated_file).replace(str(daemon.socket), f"{daemon.socket}-ro"), read_only=True)

    with host.calls("list VMs") as connection:
        domain = connection.lookupByName("web-01")
    with pytest.raises(Denied), host.calls("stop", "web-01"):
        domain.destroy()
    assert domain.isActive()
    host.close()


# Calls


def test_errors_in_a_block_are_translated_and_do_not_lose_the_link(simulated: Host) -> None:
    with pytest.raises(NotFound, match="web-99: cannot find"), simulated.calls("find", "web-99") as connection:
        connection.lookupByName("web-99")
    with pytest.raises(NotFound), simulated.calls("find", "web-99") as connection:
        connection.lookupByName("web-99")

    assert simulated.link.is_up


def test_other_errors_in_a_block_pass(simulated: Host) -> None:
    with pytest.raises(ZeroDivisionError), simulated.calls("divide"):
        raise ZeroDivisionError


# Losing and finding again


def test_a_lost_connection_is_told_to_listeners_and_opened_again_by_the_next_use(
    real: Host, daemon: PrivateLibvirtd
) -> None:
    links: list[Link] = []
    real.on_link(links.append)
    first = real.connection()
    daemon.restart()
    wait_for(lambda: not real.link.is_up, what="the loss")
    assert real.link.error

    assert real.connection() is not first
    with real.calls("list VMs") as connection:
        connection.listAllDomains(0)
    assert [link.status for link in links] == [LinkStatus.CONNECTED, LinkStatus.LOST, LinkStatus.CONNECTED]
    assert links[0].since_s <= links[1].since_s <= links[2].since_s


def test_a_call_on_a_dead_connection_is_a_lost_connection(real: Host, daemon: PrivateLibvirtd) -> None:
    connection = real.connection()
    daemon.restart()
    wait_for(lambda: not real.link.is_up, what="the loss")

    with pytest.raises(ConnectionLost), real.calls("list VMs"):
        connection.listAllDomains(0)
    assert real.link.is_up, "the dead connection's error is not the new connection's"


def test_a_spare_connection_that_died_is_not_handed_out(real: Host) -> None:
    real.reserve_main()
    with real.calls("open a spare") as spare:
        pass
    spare.close()
    with real.calls("list VMs") as other:
        assert other is not spare
        other.listAllDomains(0)


def test_a_supervised_host_comes_back_by_itself(
    real: Host, daemon: PrivateLibvirtd, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "RETRY_FIRST_S", 0.05)
    real.supervise()
    real.supervise()
    wait_for(lambda: real.link.is_up, what="the first connection")
    daemon.kill()
    wait_for(lambda: not real.link.is_up, what="the loss")
    daemon.start()
    wait_for(lambda: real.link.is_up, what="the return")


def test_a_host_that_is_lost_twice_tells_the_newer_reason_and_the_older_instant() -> None:
    host = open_host("test:///default")
    host.lost(ConnectionLost("first"))
    since_s = host.link.since_s
    host.lost(ConnectionLost("second"))

    assert (host.link.error, host.link.since_s) == ("second", since_s)
    host.close()


def test_a_driver_without_keepalive_is_opened_all_the_same(simulated: Host) -> None:
    with pytest.raises(libvirt.libvirtError):
        simulated.connection().setKeepAlive(5, 3)

    assert simulated.link.is_up


@pytest.mark.parametrize("uri", ["foo", "qemu:///nope"])
def test_a_uri_that_no_driver_takes_is_the_users_mistake(uri: str) -> None:
    with pytest.raises(UsageError, match="Write it as qemu:///system") as caught, open_host(uri).calls("look"):
        pass
    assert caught.value.exit_code == 2
