"""Why a hypervisor cannot be reached from here, and the command that fixes it. Reads only."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from host.errors import ConnectionLost, Denied, HvtuiError

if TYPE_CHECKING:
    from host.connection import Host

DAEMONS = ("libvirtd", "virtqemud")
SYSTEM_SOCKETS = ("/run/libvirt/libvirt-sock", "/run/libvirt/virtqemud-sock")
PLACES = ("/usr/sbin", "/sbin", "/usr/local/sbin")  # often not on a user's PATH
SYSTEMD = Path("/run/systemd/system")
PACKAGES = "libvirt-daemon-system libvirt-clients qemu-system-x86 qemu-utils"
DEMO = "'hvtui --demo' shows everything on a simulated host"


def explain(problem: HvtuiError, host: Host) -> HvtuiError:
    """The ConnectionLost or Denied met while opening `host`, with a remedy that fits this machine."""
    if not host.uri.startswith("qemu"):
        return _with_remedy(problem, f"Is the URI right? It is mostly qemu:///system; {DEMO}")
    if "socket=" in host.uri or not host.is_local:
        return _with_remedy(problem, f"Is the address right, and is libvirt running there? {DEMO}")
    if isinstance(problem, ConnectionLost) and not daemon_path():
        return ConnectionLost(
            "no hypervisor is installed on this machine", remedy=f"{as_root(f'apt-get install {PACKAGES}')}; {DEMO}"
        )
    if isinstance(problem, Denied) or _is_forbidden(host.uri):
        return Denied(
            f"{problem.cause}: this user may not use {host.uri}",
            remedy=f"{as_root(f'usermod -aG libvirt {_user()}')} and log in again; {DEMO}",
        )
    return ConnectionLost(problem.cause, remedy=f"Start the daemon: {start_command()}; {DEMO}")


def start_command() -> str:
    """The command that starts libvirt here: systemd's where systemd runs, the daemons themselves elsewhere."""
    daemon = (daemon_path() or DAEMONS[0]).rpartition("/")[2]
    if SYSTEMD.is_dir():
        return as_root(f"systemctl start {daemon}")
    return as_root(f"virtlogd -d && {daemon} -d" if os.geteuid() == 0 else f"sh -c 'virtlogd -d && {daemon} -d'")


def as_root(command: str) -> str:
    """`command` as this user would have to type it."""
    return command if os.geteuid() == 0 else f"sudo {command}"


def daemon_path() -> str | None:
    """Where libvirt's daemon is installed, or None."""
    for folder in (*os.environ.get("PATH", "").split(":"), *PLACES):
        for daemon in DAEMONS:
            path = f"{folder}/{daemon}"
            if folder and os.access(path, os.X_OK):
                return path
    return None


def _is_forbidden(uri: str) -> bool:
    """The socket is there, but closed to this user: libvirt then says only that it cannot connect."""
    if urlsplit(uri).path != "/system":
        return False
    return any(Path(path).exists() and not _is_writable(path) for path in SYSTEM_SOCKETS)


def _is_writable(path: str) -> bool:
    return os.access(path, os.W_OK)


def _user() -> str:
    import pwd

    return pwd.getpwuid(os.geteuid()).pw_name


def _with_remedy(problem: HvtuiError, remedy: str) -> HvtuiError:
    return type(problem)(problem.cause, about=problem.about, remedy=remedy)
