"""A lab: two or three full Debian hosts in systemd-nspawn, each with its own systemd, libvirtd and ssh.

Its network is a namespace of its own; the machine's network, clock, host name, libvirtd and VMs are neither used nor
seen. A lab that a test run owns ends with it, even when it is killed. One that a person brings up stays:

    python -m tests.support.lab up|down|status|guest|on|seat
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.support import lab_files, lab_guard, lab_guest, lab_process, lab_setup, lab_spec, lab_tree, private_libvirtd
from tests.support.lab_host import LabHost
from tests.support.lab_spec import ROOT, LabSpec

REPOSITORY = Path(__file__).resolve().parents[2]
_TOOLS = ("systemd-nspawn", "unshare", "nsenter", "ip", "ssh-keygen", "mount")
_END_TIMEOUT_S = 60.0


def why_not() -> str:
    """Why there can be no lab here; empty when there can."""
    if os.geteuid() != 0:
        return "a lab of hosts needs root"
    missing = [tool for tool in _TOOLS if not shutil.which(tool)]
    if missing:
        return f"not installed: {', '.join(missing)}"
    return private_libvirtd.why_not() or lab_tree.why_not()


class Lab:
    """A running lab. `hosts` are lab1, lab2 and so on; `lab["lab1"]` is one of them."""

    def __init__(self, spec: LabSpec) -> None:
        self.name = spec.name
        self.directory = spec.directory
        self.shared = spec.directory / "shared"
        self.hosts = tuple(LabHost(spec, host, self.pid) for host in spec.hosts)

    def __getitem__(self, name: str) -> LabHost:
        return next(host for host in self.hosts if host.name == name)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.down()

    def pid(self) -> int:
        """The lab's first process; its namespaces are the lab's. 0 when the lab has ended."""
        try:
            record = json.loads((self.directory / "record.json").read_text(encoding="utf-8"))
        except OSError:
            return 0
        return record["pid"] if lab_process.start_time(record["pid"]) == record["start_time"] else 0

    def seat(self) -> list[str]:
        """The words before a command that make it run at an administrator's seat in the lab's network: it finds the
        hosts by name, ssh asks nothing, and everything else is this machine's (the same files, the same pids)."""
        return [str(self.directory / "seat"), "--"]

    def down(self) -> None:
        """End every process of the lab, and remove what it left."""
        pid = self.pid()
        lab_process.kill(pid, lab_process.start_time(pid))
        deadline = time.monotonic() + _END_TIMEOUT_S
        while _in_use(self.name):
            if time.monotonic() > deadline:
                raise RuntimeError(f"the lab {self.name} does not end")
            time.sleep(0.05)
        remove_leftovers(self.name)


def up(name: str, *, hosts: int, owner: int | None, say: Callable[[str], None] = lambda _words: None) -> Lab:
    """Bring up a lab of new hosts. It ends with the process `owner`, or stays. Raises RuntimeError."""
    remove_leftovers()
    tree = lab_tree.build(say)
    spec = lab_spec.make(name, tree, hosts=hosts)
    with lock_soon(name) as lock:
        spec.directory.mkdir(parents=True)
        process = _start_guard(spec, owner=owner, lock=lock)
    lab = Lab(spec)
    try:
        _wait_for_requests(lab, process)
        for host in lab.hosts:
            host.request_start()
        lab_guest.install(lab.shared)
        for host in lab.hosts:
            host.wait_ready()
            lab_setup.set_up(host)
        (lab.directory / "complete").touch()
    except BaseException:
        lab.down()
        raise
    return lab


def attach(name: str) -> Lab | None:
    """The lab of that name that was brought up before, or None."""
    try:
        lab = Lab(lab_spec.read(ROOT / name))
    except OSError:
        return None
    return lab if lab.pid() else None


def remove_leftovers(only: str = "") -> None:
    """Remove what labs left whose processes have all ended."""
    names = {path.name.removesuffix(".lock") for path in ROOT.glob("*")}
    for name in names & {only} if only else names:
        with contextlib.suppress(BlockingIOError), lock_now(name):
            lab_guard.remove(ROOT / name)
            (ROOT / f"{name}.lock").unlink()


def _start_guard(spec: LabSpec, *, owner: int | None, lock: int) -> subprocess.Popen[bytes]:
    for name in ("shared/images", *(host.name for host in spec.hosts)):
        (spec.directory / name).mkdir(parents=True)
    spec.write()
    lab_files.make_keys(spec)
    lab_setup.write_seat(spec)
    arguments = ["guard", str(spec.directory), "stays" if owner is None else "owned", str(lock)]
    with contextlib.ExitStack() as stack:
        log = stack.enter_context((spec.directory / "guard.log").open("wb"))
        owner_file = subprocess.DEVNULL
        if owner is not None:
            owner_file = os.pidfd_open(owner)  # readable at that process's end
            stack.callback(os.close, owner_file)
        return subprocess.Popen(
            [sys.executable, "-m", "tests.support.lab_guard", *arguments],
            cwd=REPOSITORY,
            stdin=owner_file,
            stdout=log,
            stderr=log,
            pass_fds=[lock],
            start_new_session=True,
        )


def _wait_for_requests(lab: Lab, process: subprocess.Popen[bytes]) -> None:
    while not (lab.directory / "requests").exists():
        if process.poll() is not None:
            raise RuntimeError(f"the lab did not start: {(lab.directory / 'guard.log').read_text()}")
        time.sleep(0.02)


@contextlib.contextmanager
def lock_now(name: str) -> Iterator[int]:
    """The lock of that name, such as a lab's; whoever inherits the file keeps it. Raises BlockingIOError."""
    ROOT.mkdir(mode=0o700, exist_ok=True)
    path = ROOT / f"{name}.lock"
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if not path.exists() or path.stat().st_ino != os.fstat(file.fileno()).st_ino:
            raise BlockingIOError  # removed by another in between
        yield file.fileno()


@contextlib.contextmanager
def lock_soon(name: str) -> Iterator[int]:
    """The same where nobody has it for longer than it takes to remove leftovers. Raises RuntimeError."""
    deadline = time.monotonic() + _END_TIMEOUT_S
    with contextlib.ExitStack() as stack:
        while True:
            try:
                lock = stack.enter_context(lock_now(name))
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise RuntimeError(f"the lab {name} is in use") from None
                time.sleep(0.05)
        yield lock


def _in_use(name: str) -> bool:
    try:
        with lock_now(name):
            return False
    except BlockingIOError:
        return True


if __name__ == "__main__":
    from tests.support.lab_command import main

    sys.exit(main(sys.argv[1:]))
