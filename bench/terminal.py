"""A program on a terminal of its own: what it writes is kept, counted, and drawn on an emulated screen."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import signal
import struct
import subprocess
import termios
import time
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Self

import pyte

from bench.measure import environment_with

COLUMNS, LINES = 120, 40


class Terminal:
    """A context manager: starts the command, ends it on the way out."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str] | None = None) -> None:
        self.screen = pyte.Screen(COLUMNS, LINES)
        self.bytes_read = 0
        self._stream = pyte.ByteStream(self.screen)
        self._environment = environment_with({"TERM": "xterm-256color", **(environment or {})})
        self._command = command

    def __enter__(self) -> Self:
        master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", LINES, COLUMNS, 0, 0))
        self.started_s = time.monotonic()
        self._process = subprocess.Popen(
            self._command, stdin=slave, stdout=slave, stderr=slave, env=self._environment, start_new_session=True
        )
        os.close(slave)
        self._master = master
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()
        os.close(self._master)

    @property
    def pid(self) -> int:
        return self._process.pid

    def text(self) -> str:
        """What the screen shows."""
        return "\n".join(self.screen.display)

    def type(self, keys: str) -> None:
        os.write(self._master, keys.encode())

    def read(self, timeout_s: float, *, draw: bool = True) -> int:
        """Take what was written within `timeout_s` (one piece); the number of bytes."""
        if not select.select([self._master], [], [], timeout_s)[0]:
            return 0
        try:
            data = os.read(self._master, 1 << 16)
        except OSError:  # the program ended
            data = b""
        self.bytes_read += len(data)
        if draw:
            self._stream.feed(data)
        return len(data)

    def read_for(self, duration_s: float, *, draw: bool = True) -> int:
        """Everything written in that time; the number of bytes."""
        before, end = self.bytes_read, time.monotonic() + duration_s
        while (left := end - time.monotonic()) > 0:
            self.read(left, draw=draw)
        return self.bytes_read - before

    def until(self, condition: Callable[[str], bool], timeout_s: float = 60.0) -> float:
        """Seconds from the start until the screen meets the condition. Raises TimeoutError with the screen."""
        end = time.monotonic() + timeout_s
        while time.monotonic() < end:
            self.read(0.2)
            if condition(self.text()):
                return time.monotonic() - self.started_s
            if self._process.poll() is not None:
                break
        raise TimeoutError(f"{self._command[0]} did not show it:\n{self.text()}")
