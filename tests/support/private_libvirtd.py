"""A libvirtd of the test's own: real, root, with QEMU guests, and without a trace on the machine.

virtlogd and libvirtd run in fresh mount, PID, network, UTS and IPC namespaces, with their own directories mounted over
/run/libvirt, /var/lib/libvirt, /var/log/libvirt, /var/cache/libvirt, /etc/libvirt and /run/lock. The machine's own
libvirtd, its VMs, networks and cgroups are neither used nor seen. Their sockets live in a short directory under the
temporary directory (a Unix socket's path has at most 107 bytes), so tests reach them from outside.

Everything ends with the context, and with the test process itself when that is killed: the first process of the
namespace ends when its standard input, a pipe from the test process, closes; the kernel then kills the namespace.

Paths outside the directories named above are the same inside and outside: put disks in `images` or in tmp_path.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

MOUNTS = {
    "run": "/run/libvirt",
    "lib": "/var/lib/libvirt",
    "log": "/var/log/libvirt",
    "cache": "/var/cache/libvirt",
    "etc": "/etc/libvirt",
    "lock": "/run/lock",  # a console that was open when libvirtd was killed leaves a lock there
}
# Control groups and machined are the machine's own: a second libvirtd must not place its guests there.
HIDDEN = ("/sys/fs/cgroup", "/run/dbus")
NAMESPACES = ("--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "--net", "--uts", "--ipc")
START_TIMEOUT_S = 60.0

QEMU_CONF = """\
user = "root"
group = "root"
dynamic_ownership = 0
remember_owner = 0
security_driver = "none"
security_default_confined = 0
cgroup_controllers = [ ]
namespaces = [ ]
max_core = 0
"""
LIBVIRTD_CONF = """\
unix_sock_group = "root"
unix_sock_rw_perms = "0700"
auth_unix_ro = "none"
auth_unix_rw = "none"
host_uuid = "{host_uuid}"
log_level = 3
log_outputs = "3:file:/var/log/libvirt/libvirtd.log"
"""


class PrivateLibvirtd:
    """A private libvirtd; a context manager. Needs root (see `why_not`)."""

    def __init__(self) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="hv-", dir="/tmp"))
        self.images = self.directory / "images"
        self.socket = self.directory / "run/libvirt-sock"
        self._guard: subprocess.Popen[bytes] | None = None
        self._namespace = 0

    @property
    def uri(self) -> str:
        """The URI of its QEMU driver."""
        return f"qemu+unix:///system?socket={self.socket}"

    def test_uri(self, definition: Path | str = "/default") -> str:
        """The URI of libvirt's test driver inside this daemon, with the hosts and VMs of an XML file."""
        return f"test+unix://{definition}?socket={self.socket}"

    def __enter__(self) -> Self:
        self._write_files()
        self._guard = subprocess.Popen(
            [sys.executable, __file__, "guard", str(self.directory)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=(self.directory / "log/init.log").open("wb"),
            start_new_session=True,
        )
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """End every process of the namespace and remove the directory."""
        guard, self._guard = self._guard, None
        if guard is not None and guard.stdin is not None:
            guard.stdin.close()
            try:
                guard.wait(20)
            except subprocess.TimeoutExpired:
                for pid in self.pids():
                    _signal(pid, signal.SIGKILL)
                guard.kill()
                guard.wait()
        shutil.rmtree(self.directory, ignore_errors=True)

    def start(self) -> None:
        """Start libvirtd and wait until it answers. Raises RuntimeError with its log."""
        if self._guard is None or self._guard.stdin is None:
            raise RuntimeError("the private libvirtd is not open")
        with contextlib.suppress(BrokenPipeError):
            self._guard.stdin.write(b"start\n")
            self._guard.stdin.flush()
        deadline = time.monotonic() + START_TIMEOUT_S
        while not self._answers():
            if time.monotonic() > deadline or self._guard.poll() is not None:
                raise RuntimeError(f"the private libvirtd does not answer:\n{self.log()}")
            time.sleep(0.02)

    def kill(self) -> None:
        """SIGKILL libvirtd; its guests go on. Returns when the process is gone."""
        pids = self.libvirtd_pids()
        for pid in pids:
            _signal(pid, signal.SIGKILL)
        _wait_until(lambda: not self.libvirtd_pids(), "libvirtd to end")
        # A zombie's other threads may still hold the socket: start() would take it for the new daemon's.
        _wait_until(lambda: not self._answers(), "libvirtd's socket to close")

    def restart(self) -> None:
        """Kill libvirtd and start it again, as a crash and its service manager would."""
        self.kill()
        self.start()

    def restart_without(self, names: Iterable[str]) -> None:
        """As an administrator would mend what libvirt 9.0 never gets over: killed between the fork and the exec of a
        QEMU, it takes the VM for one that is starting up, and that keeps its lock after every restart."""
        self.kill()
        for pid in self.qemu_pids():
            _signal(pid, signal.SIGKILL)
        for name in names:
            for suffix in ("xml", "pid"):
                (self.directory / f"run/qemu/{name}.{suffix}").unlink(missing_ok=True)
        self.start()

    def freeze(self) -> None:
        """Stop libvirtd without ending it: its sockets stay open and nothing answers."""
        for pid in self.libvirtd_pids():
            _signal(pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """Let a frozen libvirtd go on."""
        for pid in self.libvirtd_pids():
            _signal(pid, signal.SIGCONT)

    def pids(self, command: str = "") -> list[int]:
        """The processes of the namespace (pids as seen from outside) whose command name starts with `command`."""
        if not self._namespace:
            with contextlib.suppress(OSError, ValueError):
                self._namespace = int((self.directory / "namespace").read_text())
        return [pid for pid, name in _processes_in(self._namespace) if name.startswith(command)]

    def libvirtd_pids(self) -> list[int]:
        return self.pids("libvirtd")

    def qemu_pids(self) -> list[int]:
        """The running QEMU guests, and QEMUs started to ask for their capabilities."""
        return self.pids("qemu-system")

    def log(self) -> str:
        """What the daemons said so far."""
        logs = sorted((self.directory / "log").glob("*.log"))
        return "\n".join(f"== {path.name}\n{path.read_text(errors='replace')}" for path in logs)

    def _answers(self) -> bool:
        with socket.socket(socket.AF_UNIX) as probe:
            return probe.connect_ex(str(self.socket)) == 0

    def _write_files(self) -> None:
        cached = Path(MOUNTS["cache"]) / "qemu/capabilities"
        if cached.is_dir():  # saves the seconds in which libvirt asks QEMU what it can do
            with contextlib.suppress(shutil.Error):  # the machine's own libvirtd was just replacing a file
                shutil.copytree(cached, self.directory / "cache/qemu/capabilities")
        for name in (*MOUNTS, "images", "lib/images"):
            (self.directory / name).mkdir(exist_ok=True, parents=True)
        (self.directory / "etc/qemu.conf").write_text(QEMU_CONF)
        (self.directory / "etc/virtlogd.conf").write_text("")
        (self.directory / "etc/libvirtd.conf").write_text(LIBVIRTD_CONF.format(host_uuid=uuid.uuid4()))


def why_not() -> str:
    """Why no private libvirtd can run here; empty when it can."""
    if os.geteuid() != 0:
        return "a private libvirtd needs root"
    missing = [tool for tool in ("libvirtd", "virtlogd", "unshare", "qemu-system-x86_64") if not shutil.which(tool)]
    if missing:
        return f"not installed: {', '.join(missing)}"
    allowed = subprocess.run(["unshare", *NAMESPACES, "--", "true"], capture_output=True, check=False)
    return "" if allowed.returncode == 0 else f"no namespaces here: {allowed.stderr.decode(errors='replace').strip()}"


def _processes_in(namespace: int) -> Iterator[tuple[int, str]]:
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        with contextlib.suppress(OSError):
            if (entry / "ns/pid").stat().st_ino == namespace and not _is_zombie(entry):
                yield int(entry.name), (entry / "comm").read_text().strip()


def _is_zombie(process: Path) -> bool:
    return (process / "stat").read_text().rpartition(")")[2].split()[0] == "Z"


def _signal(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def _wait_until(condition: object, what: str, timeout_s: float = 30.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():  # type: ignore[operator]
        if time.monotonic() > deadline:
            raise RuntimeError(f"waited {timeout_s} s for {what}")
        time.sleep(0.01)


def guard(directory: Path) -> None:
    """Runs outside the namespaces: starts them, waits for their end, and removes the directory, so that nothing stays
    behind even when the test process was killed."""
    subprocess.run(["unshare", *NAMESPACES, "--", sys.executable, __file__, "init", str(directory)], check=False)
    shutil.rmtree(directory, ignore_errors=True)


def init(directory: Path) -> None:
    """The first process of the namespaces: mounts, starts the daemons on request, reaps, ends at end of input."""
    (directory / "namespace").write_text(str(Path("/proc/self/ns/pid").stat().st_ino))
    _mount_everything(directory)
    _loopback_up()
    signal.signal(signal.SIGCHLD, _reap)
    started: list[subprocess.Popen[bytes]] = []
    for line in sys.stdin:
        if line.strip() == "start":
            if not started:
                started.append(_daemon("virtlogd", "/run/libvirt/virtlogd.pid"))
            started.append(_daemon("libvirtd", "/run/libvirt/libvirtd.pid"))


def _mount_everything(directory: Path) -> None:
    for name, target in MOUNTS.items():
        Path(target).mkdir(parents=True, exist_ok=True)
        subprocess.run(["mount", "--bind", "--", str(directory / name), target], check=True)
    subprocess.run(["mount", "-t", "sysfs", "sysfs", "/sys"], check=True)  # the devices of this network namespace
    for target in HIDDEN:
        if Path(target).is_dir():
            subprocess.run(["mount", "-t", "tmpfs", "tmpfs", target], check=True)


def _loopback_up() -> None:
    request = struct.pack("16sH22x", b"lo", 1)  # struct ifreq with IFF_UP
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, 0x8914, request)  # SIOCSIFFLAGS


def _daemon(name: str, pid_file: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [name, "--pid-file", pid_file],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=(Path("/var/log/libvirt") / f"{name}.stderr.log").open("ab"),
        start_new_session=True,
    )


def _reap(_number: int, _frame: object) -> None:
    """Reap whatever ended: libvirt waits until a killed QEMU is really gone."""
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def keep() -> None:
    """For people: a private libvirtd until end of input."""
    with PrivateLibvirtd() as daemon:
        sys.stdout.write(f"{daemon.uri}\n")
        sys.stdout.flush()
        sys.stdin.read()


if __name__ == "__main__":
    if sys.argv[1:] == ["keep"]:
        keep()
    else:
        {"guard": guard, "init": init}[sys.argv[1]](Path(sys.argv[2]))
