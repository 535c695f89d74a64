"""Which process works on a job, and whether it is still there; and who the user is. Reads /proc only.

A claim is one line: boot id, pid, the process's start time in clock ticks since boot, and a nonce. The first three
find out after a crash, a reboot, or the reuse of a pid that the process is gone; the nonce tells apart the threads of
this process, of which a job can lose its own (its work ended with an error) while the process lives on.
"""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path

_HERE: set[str] = set()  # the claims that this process is working on
_GONE = "gone"
_NO_LOGIN = "4294967295"


def claim_here() -> str:
    """A claim of this process, alive until `release`."""
    claim = f"{_identity(os.getpid())} {os.urandom(8).hex()}"
    _HERE.add(claim)
    return claim


def claim_of(pid: int) -> str:
    """The claim of another process, alive as long as the process is."""
    return f"{_identity(pid)} -"


def release(claim: str) -> None:
    """This process no longer works on what it claimed with `claim`."""
    _HERE.discard(claim)


def is_alive(claim: str) -> bool:
    """True while the process (and, for a claim of this process, the work) that made `claim` goes on."""
    identity, _, _nonce = claim.rpartition(" ")
    parts = identity.split(" ")
    if len(parts) != 3 or not parts[1].isdigit() or parts[2] == _GONE:
        return False
    pid = int(parts[1])
    if identity != _identity(pid):
        return False
    return pid != os.getpid() or claim in _HERE


def user_name() -> str:
    """Who asked: the user behind sudo, else the one who logged in, else the one this process runs as."""
    behind_sudo = os.environ.get("SUDO_USER", "")
    if behind_sudo and os.geteuid() == 0:
        return behind_sudo
    login = _read("/proc/self/loginuid")
    return _name_of(int(login) if login.isdigit() and login != _NO_LOGIN else os.getuid())


def _name_of(user_id: int) -> str:
    import pwd

    try:
        return pwd.getpwuid(user_id).pw_name
    except KeyError:
        return str(user_id)


def _identity(pid: int) -> str:
    return f"{_boot_id()} {pid} {_start_time(pid)}"


@cache
def _boot_id() -> str:
    return _read("/proc/sys/kernel/random/boot_id")


def _start_time(pid: int) -> str:
    """Field 22 of /proc/PID/stat (proc(5)); _GONE for no process, and for a dead one that nobody has reaped."""
    fields = _read(f"/proc/{pid}/stat").rpartition(")")[2].split()
    if len(fields) < 20 or fields[0] in {"Z", "X"}:
        return _GONE
    return fields[19]


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""
