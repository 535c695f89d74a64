"""Which hypervisor a user gets without asking for one."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from host import connection


@pytest.fixture
def system_socket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A listening socket in place of the system's, for a user who is not root."""
    path = tmp_path / "libvirt-sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        monkeypatch.setattr(connection, "SYSTEM_SOCKETS", (str(path),))
        monkeypatch.setattr(os, "geteuid", lambda: 1000)
        yield path


def test_root_gets_the_system_without_a_look_at_sockets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(connection, "SYSTEM_SOCKETS", ())
    assert connection.default_uri() == "qemu:///system"


def test_a_user_of_the_sockets_group_gets_the_system(system_socket: Path) -> None:
    system_socket.chmod(0o660)
    assert connection.default_uri() == "qemu:///system"


def test_a_socket_for_everybody_is_guarded_by_polkit(system_socket: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    system_socket.chmod(0o666)
    monkeypatch.setattr(connection, "_is_in_group", lambda _name: False)
    assert connection.default_uri() == "qemu:///session"


def test_the_group_libvirt_passes_polkit(system_socket: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    system_socket.chmod(0o666)
    monkeypatch.setattr(connection, "_is_in_group", lambda name: name == "libvirt")
    assert connection.default_uri() == "qemu:///system"


def test_without_a_system_socket_a_user_gets_the_session(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr(connection, "SYSTEM_SOCKETS", ("/nowhere/sock",))
    assert connection.default_uri() == "qemu:///session"
