"""One ssh login a host: every connection of libvirt to it, and every command, goes through the first one.

libvirt's ssh transport starts a program of the URI's choice (`command=`). That is a small script here, which calls ssh
with a control socket: the first connection logs in and stays for a minute after the last, the others are sessions of
it. A host that refuses more sessions (MaxSessions) gets an ordinary login for those. A network that is gone ends the
login after 15 s. This module asks nothing and shows nothing; ssh never asks on a terminal (BatchMode).
"""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from host.paths import state_directory

if TYPE_CHECKING:
    import subprocess

CONNECT_TIMEOUT_S = 10
LOGIN_KEPT_S = 60
# A control socket's name has forty digits, and while it is made a dot and sixteen more; its path may have 107 bytes.
LONGEST_DIRECTORY = 107 - 40 - 17 - 1
_OPTIONS = (
    "ControlMaster=auto",
    f"ControlPersist={LOGIN_KEPT_S}",
    "ServerAliveInterval=5",
    "ServerAliveCountMax=3",
    f"ConnectTimeout={CONNECT_TIMEOUT_S}",
)


@dataclass(frozen=True, slots=True)
class SshTarget:
    """Where a qemu+ssh URI logs in to; empty and 0 where ssh's own configuration decides."""

    host: str
    user: str = ""
    port: int = 0
    keyfile: str = ""
    command: str = ""

    def argv(self, words: Sequence[str]) -> list[str]:
        """The local command that runs `words` there, each of them as it is."""
        import shlex

        options = ["-T", "-o", "BatchMode=yes"]
        options += ["-p", str(self.port)] if self.port else []
        options += ["-l", self.user] if self.user else []
        options += ["-i", self.keyfile] if self.keyfile else []
        return [self.command or reusing_command() or "ssh", *options, "--", self.host, shlex.join(words)]


def ssh_target(uri: str) -> SshTarget | None:
    """Where a URI such as qemu+ssh://root@lab2/system logs in to; None for one that does not use ssh."""
    from urllib.parse import parse_qsl, urlsplit

    try:
        parts = urlsplit(uri)
        port = parts.port or 0
    except ValueError:
        return None
    if parts.scheme.partition("+")[2] != "ssh" or not parts.hostname:
        return None
    query = dict(parse_qsl(parts.query))
    return SshTarget(parts.hostname, parts.username or "", port, query.get("keyfile", ""), query.get("command", ""))


def run(target: SshTarget, words: Sequence[str], *, timeout_s: float) -> subprocess.CompletedProcess[str]:
    """Run a command on the host. Raises OSError where there is no ssh, subprocess.TimeoutExpired."""
    import subprocess

    return subprocess.run(
        target.argv(words),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        timeout=timeout_s,
        check=False,
    )


def reusing_command() -> str:
    """The path of the script that calls ssh with a login that is reused; empty where there can be none (no private
    directory with a path short enough for a socket)."""
    try:
        directory = _directory()
        script = directory / "ssh"
        text = _script(directory)
        if not _has(script, text):
            _write(script, text)
    except OSError:
        return ""
    return str(script)


def _directory() -> Path:
    """Where control sockets are: this user's own, short enough. Raises OSError."""
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    for parent in (state_directory(), Path(runtime) / "hvtui" if runtime else None):
        if parent is not None and len(os.fsencode(parent / "ssh")) <= LONGEST_DIRECTORY:
            directory = parent / "ssh"
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            found = directory.stat()
            if found.st_uid == os.geteuid() and not found.st_mode & 0o077:
                return directory
    raise OSError("no private directory with a short path")


def _script(directory: Path) -> str:
    import shlex

    options = " ".join(f"-o {option}" for option in _OPTIONS)
    path = shlex.quote(f"ControlPath={str(directory).replace('%', '%%')}/%C")
    return f'#!/bin/sh\n# Written by hvtui: one ssh login a host, reused.\nexec ssh {options} -o {path} "$@"\n'


def _has(script: Path, text: str) -> bool:
    try:
        return script.read_text(encoding="utf-8") == text
    except FileNotFoundError:
        return False


def _write(script: Path, text: str) -> None:
    """In one step: another process may be starting it. A process of its own writes it: a program that another thread
    starts at this moment would inherit the open file, and nobody can execute a file that is open for writing."""
    import subprocess

    source = script.with_name(f"ssh.{os.getpid()}.{threading.get_ident()}.text")
    new = source.with_suffix(".new")
    try:
        source.write_text(text, encoding="utf-8")
        source.chmod(0o700)
        subprocess.run(["cp", "--preserve=mode", "--", str(source), str(new)], check=True, capture_output=True)
        new.replace(script)
    except subprocess.CalledProcessError as error:
        raise OSError(f"cannot write {script}") from error
    finally:
        source.unlink(missing_ok=True)
        new.unlink(missing_ok=True)
