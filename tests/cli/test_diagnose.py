"""No hypervisor: why, and the command that fixes it, on each kind of machine."""

from __future__ import annotations

from pathlib import Path

import pytest

from host.connection import open_host
from host.errors import ConnectionLost, Denied
from hvtui.cli import diagnose

LOST = ConnectionLost("cannot connect to qemu:///system: Failed to connect socket")
SYSTEM = open_host("qemu:///system")


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A machine whose only program directory and sockets are under the path, for a user who is not root."""
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    monkeypatch.setattr(diagnose, "PLACES", (str(tmp_path),))
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(diagnose, "SYSTEM_SOCKETS", (str(tmp_path / "libvirt-sock"),))
    monkeypatch.setattr(diagnose, "SYSTEMD", tmp_path / "systemd")
    monkeypatch.setattr(diagnose, "_user", lambda: "alice")
    return tmp_path


def install(machine: Path, daemon: str = "libvirtd") -> None:
    (machine / daemon).touch(mode=0o755)


def test_nothing_installed_names_the_packages(machine: Path) -> None:
    problem = diagnose.explain(LOST, SYSTEM)
    assert problem.exit_code == 6
    assert "sudo apt-get install libvirt-daemon-system" in problem.remedy
    assert "hvtui --demo" in problem.remedy


def test_a_daemon_that_does_not_run_is_started_by_systemd_where_there_is_one(machine: Path) -> None:
    install(machine)
    (machine / "systemd").mkdir()
    assert "sudo systemctl start libvirtd" in diagnose.explain(LOST, SYSTEM).remedy


def test_without_systemd_the_daemons_are_started_themselves(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(machine, "virtqemud")
    assert "virtlogd -d && virtqemud -d" in diagnose.explain(LOST, SYSTEM).remedy
    monkeypatch.setattr("os.geteuid", lambda: 0)
    assert "sudo" not in diagnose.explain(LOST, SYSTEM).remedy


def test_a_closed_socket_is_a_matter_of_the_group(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(machine)
    (machine / "libvirt-sock").touch()
    monkeypatch.setattr(diagnose, "_is_writable", lambda _path: False)
    problem = diagnose.explain(LOST, SYSTEM)
    assert isinstance(problem, Denied)
    assert problem.exit_code == 5
    assert "usermod -aG libvirt alice" in problem.remedy


def test_a_refusal_is_a_matter_of_the_group(machine: Path) -> None:
    install(machine)
    assert "usermod -aG libvirt alice" in diagnose.explain(Denied("authentication failed"), SYSTEM).remedy


def test_another_machine_and_another_driver_are_not_started_from_here(machine: Path) -> None:
    remote = diagnose.explain(LOST, open_host("qemu+ssh://lab9/system"))
    assert "running there" in remote.remedy
    assert "URI" in diagnose.explain(LOST, open_host("xen:///")).remedy


def test_this_machines_own_user_has_a_name() -> None:
    assert diagnose._user()
