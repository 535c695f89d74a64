"""One host of a lab, as a test sees it: where its libvirtd answers, commands on it, and what can happen to a host."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import libvirt

from tests.support import lab_process
from tests.support.lab_spec import HostSpec, LabSpec

START_TIMEOUT_S = 120.0
_ENVIRONMENT = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root", "LANG": "C.UTF-8", "SHELL": "/bin/bash"}
_FULL_DISK = "full-disk"
_SOCKETS = ("libvirtd.socket", "libvirtd-ro.socket", "libvirtd-admin.socket")


class LabHost:
    """A host; `name` is also its host name, at the fixed `address` in the lab's network."""

    def __init__(self, spec: LabSpec, host: HostSpec, guard_pid: Callable[[], int]) -> None:
        self.name = host.name
        self.address = host.address
        self.uuid = host.uuid
        self.directory = spec.directory / host.name
        self.images = self.directory / "images"
        self._spec = spec
        self._guard_pid = guard_pid
        self._init = (0, 0)

    @property
    def uri(self) -> str:
        """Its libvirtd, from the test's process: over a Unix socket, so whatever happens to the network."""
        return f"qemu+unix:///system?socket={self.directory}/run/libvirt-sock"

    @property
    def peer_uri(self) -> str:
        """Its libvirtd, from another host of the lab or from the seat."""
        return f"qemu+ssh://root@{self.name}/system"

    @property
    def init_pid(self) -> int:
        """The host's first process, as its pid is outside; 0 when the host does not run."""
        pid, started = self._init
        if not pid or lab_process.start_time(pid) != started:
            pid = self._find_init()
            self._init = (pid, lab_process.start_time(pid))
        return pid

    def is_running(self) -> bool:
        return self.init_pid != 0

    def run(
        self, argv: Sequence[str], *, check: bool = True, timeout_s: float = 120.0, stdin: str | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run a command on the host as root. Raises RuntimeError with its words where it fails and `check` is set,
        subprocess.TimeoutExpired."""
        done = subprocess.run(
            [*self.inside(), *argv],
            input=stdin if stdin is not None else "",
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout_s,
            check=False,
        )
        if check and done.returncode:
            raise RuntimeError(f"{self.name}: {' '.join(argv)} failed ({done.returncode}): {done.stderr}{done.stdout}")
        return done

    def inside(self) -> list[str]:
        """The words before a command that make it run on the host."""
        if not self.init_pid:
            raise RuntimeError(f"{self.name} does not run")
        environment = [f"{name}={value}" for name, value in _ENVIRONMENT.items()]
        return ["nsenter", "-t", str(self.init_pid), "-a", "--wdns=/", "--", "env", "-i", *environment]

    def path(self, path: str) -> Path:
        """A file of the running host, as it is found from outside."""
        return Path(f"/proc/{self.init_pid}/root") / path.lstrip("/")

    def connect(self) -> libvirt.virConnect:
        """A connection of the caller's own to its libvirtd. What fails is raised and not printed as well."""
        libvirt.registerErrorHandler(lambda _context, _error: None, None)
        return libvirt.open(self.uri)

    # Power

    def start(self) -> None:
        """Switch the host on and wait until libvirt and ssh answer. Raises RuntimeError with its console."""
        if not self.is_running():
            self.request_start()
        self.wait_ready()

    def request_start(self) -> None:
        """Switch the host on without waiting for it."""
        with (self._spec.directory / "requests").open("w") as pipe:
            pipe.write(f"start {self.name}\n")

    def wait_ready(self) -> None:
        self._until(lambda: self.is_running() and self._services_answer(), "the start")

    def kill_host(self) -> None:
        """Loss of power: the host, its libvirtd and its guests are gone at once. Its disks stay."""
        pid = self.init_pid
        lab_process.kill(pid, lab_process.start_time(pid))
        self._until(lambda: not self._nspawn_pid(), "the end")

    def reboot(self) -> None:
        """An orderly restart, as an administrator's `systemctl reboot`, until libvirt and ssh answer again."""
        before = self.init_pid
        self.run(["systemctl", "reboot"], check=False)
        self._until(lambda: self.init_pid not in (0, before), "the restart")
        self.wait_ready()

    # libvirtd

    def libvirtd_pids(self) -> list[int]:
        return self.pids("libvirtd")

    def qemu_pids(self) -> list[int]:
        """Its running guests, and QEMUs that libvirt asks for their capabilities."""
        return self.pids("qemu-system")

    def pids(self, command: str = "") -> list[int]:
        """The host's processes, by the beginning of the program's name; pids as they are outside."""
        namespace = lab_process.namespace_of(self.init_pid)
        found = (pid for pid in lab_process.processes() if namespace and lab_process.namespace_of(pid) == namespace)
        return [pid for pid in found if (name := lab_process.command_name(pid)) and name.startswith(command)]

    def stop_libvirtd(self) -> None:
        """Stop libvirtd and its sockets in order: nothing starts it again. Its guests go on."""
        self.run(["systemctl", "stop", *_SOCKETS, "libvirtd.service"])

    def kill_libvirtd(self, *, stays_dead: bool = False) -> None:
        """SIGKILL libvirtd; its guests go on. The host's systemd starts it again, as everywhere, except with
        `stays_dead`: then nothing answers until `start_libvirtd`."""
        if stays_dead:
            self._runtime_setting("[Service]\nRestart=no\n")
        killed = self.libvirtd_pids()
        for pid in killed:
            os.kill(pid, signal.SIGKILL)
        self._until(lambda: not set(killed) & set(self.libvirtd_pids()), "libvirtd's end")
        if stays_dead:
            self.run(["systemctl", "stop", *_SOCKETS, "libvirtd.service"])

    def start_libvirtd(self) -> None:
        """Start libvirtd after `stop_libvirtd` or `kill_libvirtd`, and wait until it answers."""
        self._runtime_setting("")
        self.run(["systemctl", "reset-failed", *_SOCKETS, "libvirtd.service"], check=False)
        self.run(["systemctl", "start", *_SOCKETS, "libvirtd.service"])
        self.wait_ready()

    def restart_libvirtd(self) -> None:
        """As after an upgrade: in order, and its guests go on."""
        self.run(["systemctl", "restart", "libvirtd.service"])
        self.wait_ready()

    def freeze_libvirtd(self) -> None:
        """libvirtd stays, its sockets stay open, and nothing answers until `thaw_libvirtd`."""
        for pid in self.libvirtd_pids():
            os.kill(pid, signal.SIGSTOP)

    def thaw_libvirtd(self) -> None:
        for pid in self.libvirtd_pids():
            os.kill(pid, signal.SIGCONT)

    # The network, and the disks

    def cut_network(self) -> None:
        """Pull the host's cable."""
        self._cable("down")

    def heal_network(self) -> None:
        """Plug the cable in again."""
        self._cable("up")

    def fill_disk(self, directory: str, *, free_bytes: int = 1024 * 1024) -> None:
        """Hide a directory behind a file system with that little space, until `empty_disks` or the host's restart."""
        self.run(["mount", "-t", "tmpfs", "-o", f"size={free_bytes}", _FULL_DISK, directory])

    def empty_disks(self) -> None:
        """End every `fill_disk`: what was in the directories before is there again."""
        for line in reversed(self.run(["cat", "/proc/mounts"]).stdout.splitlines()):
            source, directory, *_ = line.split()
            if source == _FULL_DISK:
                self.run(["umount", "--lazy", directory])

    def log(self) -> str:
        """What the host's console and journal say, for a failed test."""
        console = self.directory / "console.log"
        text = console.read_text(errors="replace")[-8000:] if console.exists() else ""
        if self.is_running():
            text += self.run(["journalctl", "-b", "-n", "200", "--no-pager"], check=False).stdout
        return text

    def memory_bytes(self) -> int:
        """What all processes of the host use, shared pages shared out."""
        return sum(map(lab_process.memory_bytes, self.pids()))

    def _find_init(self) -> int:
        parent = self._nspawn_pid()
        if not parent:
            return 0
        outside = lab_process.namespace_of(parent)
        for pid in lab_process.processes():
            if lab_process.parent(pid) == parent and lab_process.namespace_of(pid) not in (0, outside):
                return pid if lab_process.command_name(pid) == "systemd" else 0
        return 0

    def _nspawn_pid(self) -> int:
        wanted = f"--directory={self.directory}/root".encode()
        for pid in lab_process.processes():
            if lab_process.command_name(pid) == "systemd-nspawn":
                with suppress(OSError):
                    if wanted in (Path("/proc") / str(pid) / "cmdline").read_bytes().split(b"\0"):
                        return pid
        return 0

    def answers(self) -> bool:
        """True when its libvirtd answers now."""
        with socket.socket(socket.AF_UNIX) as probe:
            if probe.connect_ex(f"{self.directory}/run/libvirt-sock"):
                return False
        with suppress(libvirt.libvirtError):
            self.connect().close()
            return True
        return False

    def _services_answer(self) -> bool:
        units = ["systemctl", "is-active", "--quiet", "ssh.service", "libvirtd.service"]
        return self.answers() and self.run(units, check=False).returncode == 0

    def _runtime_setting(self, text: str) -> None:
        """A drop-in of libvirtd's unit that is gone after the next start of the host; empty text removes it."""
        place = self.path("/run/systemd/system/libvirtd.service.d")
        place.mkdir(parents=True, exist_ok=True)
        (place / "lab.conf").unlink(missing_ok=True)
        if text:
            (place / "lab.conf").write_text(text)
        self.run(["systemctl", "daemon-reload"])

    def _cable(self, state: str) -> None:
        network = f"--net=/proc/{self._guard_pid()}/ns/net"
        subprocess.run(["nsenter", network, "--", "ip", "link", "set", "dev", f"vb-{self.name}", state], check=True)

    def _until(self, condition: Callable[[], object], what: str) -> None:
        deadline = time.monotonic() + START_TIMEOUT_S
        while not condition():
            if time.monotonic() > deadline:
                raise RuntimeError(f"waited {START_TIMEOUT_S:.0f} s for {what} of {self.name}:\n{self.log()}")
            time.sleep(0.05)
