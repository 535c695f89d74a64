"""The processes behind a lab: everything runs in mount, PID, network, UTS and IPC namespaces of its own.

The first process in those namespaces mounts the hosts' file systems, makes the bridge, starts the hosts when asked, and
reaps them. When it ends, however that happens, the kernel ends every host and every guest, and the mounts, the bridge
and the cables go with them. It ends when it is killed, or, where a process owns the lab, with that one: its standard
input is that process's pidfd. Outside of the namespaces a guard waits for that end and removes the lab's directory and
control groups.

    python -m tests.support.lab_guard guard|init DIRECTORY owned|stays LOCK

LOCK is the number of an open file whose lock says that the lab is in use: the lab's processes hold it as long as one of
them lives.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

from tests.support import lab_files, lab_spec
from tests.support.lab_process import start_time
from tests.support.lab_spec import BRIDGE, PREFIX_LENGTH, SEAT_ADDRESS, HostSpec, LabSpec

NAMESPACES = ("--mount", "--pid", "--fork", "--kill-child", "--net", "--uts", "--ipc")
CGROUPS = Path("/sys/fs/cgroup")
_CGROUP = "hvtui-lab"
_REBOOTED = 133  # systemd-nspawn's exit code with --keep-unit


def guard(directory: Path, owner: str, lock: int) -> None:
    """Start the namespaces, wait for their end, remove what they leave."""
    arguments = [sys.executable, "-m", "tests.support.lab_guard", "init", str(directory), owner, str(lock)]
    subprocess.run(["unshare", *NAMESPACES, "--", *arguments], check=False, pass_fds=[lock])
    remove(directory)


def remove(directory: Path) -> None:
    """Remove the files and control groups of a lab whose processes have ended."""
    for root in _cgroup_roots():
        top = root / _CGROUP / directory.name
        for path, _, _ in os.walk(top, topdown=False):
            with contextlib.suppress(OSError):
                Path(path).rmdir()
    shutil.rmtree(directory, ignore_errors=True)


def init(directory: Path, owner: str, _lock: int) -> None:
    """The first process of the namespaces. Serves requests: "start HOST"."""
    _record(directory)
    subprocess.run(["mount", "-t", "proc", "proc", "/proc"], check=True)
    # systemd-nspawn keeps its own things there: they shall not be seen outside, nor outlive the lab.
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", "/run"], check=True)
    spec = lab_spec.read(directory)
    socket.sethostname("seat")
    _make_network()
    for host in spec.hosts:
        _make_root(spec, host)
    os.mkfifo(directory / "requests.new")
    requests = os.open(directory / "requests.new", os.O_RDWR)
    started: dict[int, str] = {}
    signal.signal(signal.SIGCHLD, lambda _number, _frame: _reap(started, requests))
    (directory / "requests.new").rename(directory / "requests")
    inputs = [requests, sys.stdin.fileno()] if owner == "owned" else [requests]
    while True:
        readable, _, _ = select.select(inputs, [], [])
        if requests not in readable:
            return  # the owner has ended
        for line in os.read(requests, 4096).decode().splitlines():
            host = next(host for host in spec.hosts if f"start {host.name}" == line)
            started[_start(spec, host)] = host.name


def _record(directory: Path) -> None:
    """Before /proc is mounted anew it still tells this process's pid as others see it."""
    pid = int(Path("/proc/self").readlink().name)
    values = {"pid": pid, "start_time": start_time(pid)}
    (directory / "record.new").write_text(json.dumps(values), encoding="utf-8")
    (directory / "record.new").rename(directory / "record.json")


def _make_network() -> None:
    for arguments in (
        ["link", "set", "dev", "lo", "up"],
        ["link", "add", "name", BRIDGE, "type", "bridge"],
        ["address", "add", f"{SEAT_ADDRESS}/{PREFIX_LENGTH}", "dev", BRIDGE],
        ["link", "set", "dev", BRIDGE, "up"],
    ):
        subprocess.run(["ip", *arguments], check=True)


def _make_root(spec: LabSpec, host: HostSpec) -> None:
    """The host's file system: the common tree, and over it what is the host's own."""
    place = spec.directory / host.name
    for name in ("upper", "work", "root", "run", "images"):
        (place / name).mkdir(exist_ok=True)
    layers = f"lowerdir={spec.tree},upperdir={place}/upper,workdir={place}/work"
    subprocess.run(["mount", "-t", "overlay", "overlay", "-o", layers, "--", str(place / "root")], check=True)
    lab_files.write_host(place / "root", spec, host)


def _start(spec: LabSpec, host: HostSpec) -> int:
    """The pid of the systemd-nspawn that was started."""
    place = spec.directory / host.name
    shutil.rmtree(place / "run")  # /run does not outlive a loss of power
    (place / "run").mkdir()
    binds = {
        "/dev/net/tun": "/dev/net/tun",
        str(spec.directory / "shared"): "/srv/shared",
        str(place / "run"): "/run/libvirt",
        str(place / "images"): "/var/lib/libvirt/images",
    }
    command = [
        *("systemd-nspawn", "--quiet", "--boot", f"--directory={place}/root", f"--machine={host.name}"),
        *(f"--network-bridge={BRIDGE}", "--register=no", "--keep-unit", "--resolv-conf=off", "--timezone=off"),
        # With CAP_SYS_TIME, setting a time zone inside would move the clock of the whole machine.
        *("--capability=all", "--drop-capability=CAP_SYS_TIME", "--link-journal=no", f"--uuid={host.machine_id}"),
        "--system-call-filter=bpf keyctl add_key userfaultfd",
        *(f"--bind={source}:{target}" for source, target in binds.items()),
    ]
    with (place / "console.log").open("ab") as log:
        process = subprocess.Popen(
            ["sh", "-c", _INTO_CGROUPS, "sh", str(os.getpid()), *_own_cgroups(spec, host), "--", *command],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    process.returncode = 0  # _reap waits for it
    return process.pid


# Each host's systemd shall see its own services in its control groups, and no other host's.
_INTO_CGROUPS = 'shift; while [ "$1" != -- ]; do echo $$ > "$1/cgroup.procs"; shift; done; shift; exec "$@"'


def _own_cgroups(spec: LabSpec, host: HostSpec) -> list[str]:
    made = []
    for root in _cgroup_roots():
        path = root / _CGROUP / spec.name / host.name
        path.mkdir(parents=True, exist_ok=True)
        made.append(str(path))
    return made


def _cgroup_roots() -> list[Path]:
    """The hierarchies that systemd keeps its services in, below the control group that this process is in."""
    return [path for path in (CGROUPS, CGROUPS / "systemd", CGROUPS / "unified") if (path / "cgroup.procs").exists()]


def _reap(started: dict[int, str], requests: int) -> None:
    """Reap whatever ended. A host that rebooted asks whoever manages it to start it again."""
    with contextlib.suppress(ChildProcessError):
        while True:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if not pid:
                return
            name = started.pop(pid, "")
            if name and os.waitstatus_to_exitcode(status) == _REBOOTED:
                os.write(requests, f"start {name}\n".encode())


if __name__ == "__main__":
    {"guard": guard, "init": init}[sys.argv[1]](Path(sys.argv[2]), sys.argv[3], int(sys.argv[4]))
