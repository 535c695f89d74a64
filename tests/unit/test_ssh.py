"""The ssh command that reuses a login: what it is made of, and where there can be none."""

from __future__ import annotations

import os
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from host import connection, ssh
from host.ssh import SshTarget, reusing_command, ssh_target


@pytest.fixture
def state(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A state directory with a path short enough for a control socket."""
    with tempfile.TemporaryDirectory(prefix="hv-", dir="/tmp") as directory:
        monkeypatch.setenv("HVTUI_STATE_DIR", directory)
        monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
        yield Path(directory)


@pytest.mark.parametrize(
    ("uri", "target"),
    [
        ("qemu+ssh://root@lab2/system", SshTarget("lab2", "root")),
        ("qemu+ssh://lab2:2222/system?keyfile=/k&command=/c", SshTarget("lab2", "", 2222, "/k", "/c")),
        ("qemu+ssh://[fd00::7]/system", SshTarget("fd00::7")),
        ("qemu+tls://lab2/system", None),
        ("qemu:///system", None),
        ("qemu+ssh://lab2:port/system", None),
    ],
)
def test_a_uri_says_where_it_logs_in(uri: str, target: SshTarget | None) -> None:
    assert ssh_target(uri) == target


def test_the_script_hands_everything_to_ssh_with_a_control_socket(state: Path) -> None:
    script = reusing_command()
    assert Path(script) == state / "ssh/ssh"
    assert (state / "ssh").stat().st_mode & 0o777 == 0o700
    told = subprocess.run(
        [script, "-G", "-p", "2222", "--", "nowhere.invalid"], capture_output=True, text=True, check=True
    )
    settings = dict(line.split(" ", 1) for line in told.stdout.splitlines() if " " in line)
    assert (settings["hostname"], settings["port"], settings["controlmaster"]) == ("nowhere.invalid", "2222", "auto")
    assert settings["controlpath"].startswith(f"{state}/ssh/")
    assert len(os.fsencode(settings["controlpath"])) + 17 <= 107
    assert reusing_command() == script


def test_a_script_of_an_older_version_is_replaced(state: Path) -> None:
    script = Path(reusing_command())
    script.write_text("#!/bin/sh\nexit 1\n")
    assert reusing_command() == str(script)
    assert "ControlMaster" in script.read_text()
    assert os.access(script, os.X_OK)


def test_without_a_private_directory_of_a_short_path_ssh_is_called_as_it_is(
    state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (state / "ssh").mkdir(mode=0o755)
    assert reusing_command() == ""
    monkeypatch.setenv("HVTUI_STATE_DIR", str(state / ("long" * 20)))
    assert reusing_command() == ""
    assert SshTarget("lab2").argv(["true"])[0] == "ssh"


def test_words_arrive_as_they_are(state: Path) -> None:
    argv = SshTarget("lab2", "root", 2222, "/k").argv(["echo", "a b", "$(reboot)"])
    assert argv[0] == str(state / "ssh/ssh")
    assert argv[-3:] == ["--", "lab2", "echo 'a b' '$(reboot)'"]
    assert argv[1:-3] == ["-T", "-o", "BatchMode=yes", "-p", "2222", "-l", "root", "-i", "/k"]


def test_libvirt_is_given_the_script_unless_the_uri_names_a_command(state: Path) -> None:
    script = ssh.reusing_command()
    assert connection._for_ssh("qemu+ssh://x/system") == f"qemu+ssh://x/system?command={script}&no_tty=1"
    assert connection._for_ssh("qemu+ssh://x/system?command=/c") == "qemu+ssh://x/system?command=/c&no_tty=1"


def test_many_threads_that_begin_at_once_can_all_start_it(state: Path) -> None:
    together = threading.Barrier(8)
    codes: list[int] = []

    def start() -> None:
        together.wait()
        codes.append(subprocess.run([reusing_command(), "-V"], capture_output=True, check=False).returncode)

    for _ in range(10):
        (state / "ssh/ssh").unlink(missing_ok=True)
        threads = [threading.Thread(target=start) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert codes == [0] * 80
    assert [path.name for path in (state / "ssh").iterdir()] == ["ssh"]
