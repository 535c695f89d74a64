"""Runs the tools that build images: a process group of their own, ended as a whole on cancel, and by the kernel when
the process that started them is killed. Knows nothing of what they build.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING

from host.errors import Cancelled, HvtuiError, Unsupported
from host.text import printable

if TYPE_CHECKING:
    from subprocess import Popen

IsCancelled = Callable[[], bool]
OnLine = Callable[[str], None]
_LOOK_S = 0.2
_GRACE_S = 20.0  # mmdebstrap removes its temporary directory when it is told to end
_KEPT_LINES = 40
# The kernel tells a tool to end when the thread that started it does, however that happened.
WITH_US = ("setpriv", "--pdeathsig", "TERM", "--")
# What it mounts is seen by it alone, and goes with its last process; none of its processes outlives the first.
_ISOLATED = (
    "setpriv",
    "--pdeathsig",
    "KILL",
    "--",
    "unshare",
    "--mount",
    "--pid",
    "--mount-proc",
    "--fork",
    "--kill-child",
)


def path_with_tools() -> str:
    """PATH with the directories of administrators, which a user's lacks: mke2fs is one of theirs."""
    return os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin", "/sbin"))


def run(
    command: Sequence[str],
    *,
    into: Sequence[str] = (),
    isolated: bool = False,
    environment: Mapping[str, str] | None = None,
    directory: Path | None = None,
    on_line: OnLine = lambda _line: None,
    is_cancelled: IsCancelled = lambda: False,
) -> None:
    """Run `command`, its output going into the command `into` where one is given; `on_line` gets each line that they
    write to their standard errors. `isolated` (for root) keeps what `command` mounts and starts to itself.

    Raises Unsupported where there is no such program, HvtuiError with the last words of the one that failed, Cancelled.
    """
    started: list[Popen[bytes]] = []
    try:
        source = _start(command, environment, directory, piped=bool(into), isolated=isolated)
        started.append(source)
        if into:
            started.append(_start(into, environment, directory, stdin=source.stdout))
            if source.stdout is not None:
                source.stdout.close()  # so that it learns when the other one ends
        lines = _wait(started, on_line, is_cancelled)
    finally:
        for process in started:
            _end(process)
    for process, words in zip(started, (command, into), strict=False):
        if process.returncode:
            raise _failure(words, process.returncode, lines)


def _start(
    command: Sequence[str],
    environment: Mapping[str, str] | None,
    directory: Path | None,
    *,
    piped: bool = False,
    isolated: bool = False,
    stdin: IO[bytes] | None = None,
) -> Popen[bytes]:
    import shutil
    import subprocess

    path = path_with_tools()
    if not shutil.which(command[0], path=path):
        raise Unsupported(f"{command[0]} is not installed")
    try:
        return subprocess.Popen(
            [*(_ISOLATED if isolated else WITH_US), *command],
            cwd=directory,
            env={**os.environ, "PATH": path, "LC_ALL": "C", "DEBIAN_FRONTEND": "noninteractive", **(environment or {})},
            stdin=subprocess.DEVNULL if stdin is None else stdin,
            stdout=subprocess.PIPE if piped else subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
    except OSError as error:
        raise Unsupported(f"cannot run {command[0]}: {error.strerror}") from error


def _wait(processes: Sequence[Popen[bytes]], on_line: OnLine, is_cancelled: IsCancelled) -> list[str]:
    """Wait for the end of all; the last lines that they wrote."""
    import selectors

    kept: list[str] = []
    rests = {id(process): b"" for process in processes}
    with selectors.DefaultSelector() as selector:
        for process in processes:
            if process.stderr is not None:
                selector.register(process.stderr, selectors.EVENT_READ, process)
        while selector.get_map():
            for key, _ in selector.select(_LOOK_S):
                data = os.read(key.fd, 65536)
                if not data:
                    selector.unregister(key.fileobj)
                *lines, rests[id(key.data)] = (rests[id(key.data)] + data).split(b"\n")
                for line in lines:
                    _take(line, kept, on_line)
            if is_cancelled():
                raise Cancelled("cancelled by the user")
    for process in processes:
        while process.poll() is None:
            if is_cancelled():
                raise Cancelled("cancelled by the user")
            time.sleep(_LOOK_S / 10)
    return kept


def _take(line: bytes, kept: list[str], on_line: OnLine) -> None:
    text = line.decode("utf-8", "replace").strip()
    if text:
        kept.append(text)
        del kept[:-_KEPT_LINES]
        on_line(text)


def _end(process: Popen[bytes]) -> None:
    """End a process group that still runs: kindly, then not."""
    import contextlib
    import subprocess

    for stream in (process.stdout, process.stderr):
        if stream is not None:
            stream.close()
    for number, patience_s in ((signal.SIGTERM, _GRACE_S), (signal.SIGKILL, None)):
        if process.poll() is not None:
            break
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(patience_s)


def _failure(command: Sequence[str], code: int, lines: Sequence[str]) -> HvtuiError:
    telling = [line for line in lines if line.startswith(("E:", "W: GPG", "error:"))] or lines[-1:]
    words = "; ".join(telling[-3:]) or f"exit code {code}"
    return HvtuiError(f"{command[0]} failed: {printable(words, limit=400)}")
