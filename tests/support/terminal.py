"""The real program on a pseudo-terminal of its own, with a terminal emulator (pyte) that keeps what a person would see.

Unlike Textual's pilot this has everything of a real session: a controlling terminal, signals, escape sequences, the
terminal's modes before and after, and the end of the process with its exit code.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pyte

ROOT = Path(__file__).parents[2]
HVTUI = (sys.executable, "-m", "hvtui")
LIMIT_S = 90.0  # tells what hangs from what has to wait for its turn on a busy machine

# What a terminal must be told again before a program leaves it, as (switched on, switched off).
MODES = {
    "alternate screen": (b"\x1b[?1049h", b"\x1b[?1049l"),
    "hidden cursor": (b"\x1b[?25l", b"\x1b[?25h"),
    "no line wrap": (b"\x1b[?7l", b"\x1b[?7h"),
    "mouse clicks": (b"\x1b[?1000h", b"\x1b[?1000l"),
    "mouse moves": (b"\x1b[?1003h", b"\x1b[?1003l"),
    "mouse encoding": (b"\x1b[?1006h", b"\x1b[?1006l"),
    "focus reports": (b"\x1b[?1004h", b"\x1b[?1004l"),
    "bracketed paste": (b"\x1b[?2004h", b"\x1b[?2004l"),
}
# Private sequences (keyboard protocol, queries) that pyte would show as text.
_UNKNOWN_TO_PYTE = re.compile(rb"\x1b\[[<=>][0-9;]*[a-zA-Z]|\x1b\[\?[0-9;]*\$p|\x1b\[\?[0-9;]*u")


class Terminal:
    """A process on a terminal of `columns` x `rows`. Close it."""

    def __init__(self, *command: str, columns: int = 80, rows: int = 24, **environment: str) -> None:
        self.outer, self.inner = os.openpty()  # the inner end stays open here, too: its modes outlive the process
        self.modes_before = termios.tcgetattr(self.inner)
        self.raw = b""
        self._screen = pyte.Screen(columns, rows)
        self._stream = pyte.ByteStream(self._screen)
        self._lock = threading.Lock()
        self._set_size(columns, rows)
        self.process = subprocess.Popen(
            command,
            stdin=self.inner,
            stdout=self.inner,
            stderr=self.inner,
            cwd=ROOT,
            env=_environment(**environment),
            preexec_fn=_own_terminal,
        )
        self._is_open = True
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    # What is shown

    @property
    def lines(self) -> list[str]:
        """The screen's lines, without the blanks at their ends."""
        with self._lock:
            return [line.rstrip() for line in self._screen.display]

    @property
    def text(self) -> str:
        return "\n".join(self.lines)

    def line_with(self, text: str) -> str:
        """The first line that holds `text`; empty when there is none."""
        return next((line for line in self.lines if text in line), "")

    def wait_until(self, condition: Callable[[], object], what: str, *, timeout_s: float = LIMIT_S) -> None:
        """Return once `condition` holds; fails with the screen when it does not come."""
        deadline_s = time.monotonic() + timeout_s
        while not condition():
            assert time.monotonic() < deadline_s, f"waited {timeout_s:g} s for {what}; the screen:\n{self.text}"
            time.sleep(0.01)

    def wait_for(self, text: str, *, timeout_s: float = LIMIT_S) -> None:
        """Wait until the screen shows `text`."""
        self.wait_until(lambda: text in self.text, repr(text), timeout_s=timeout_s)

    # What a person does

    def type(self, text: str) -> None:
        os.write(self.outer, text.encode())

    def resize(self, columns: int, rows: int) -> None:
        """Give the window another size, which the kernel tells the program (SIGWINCH)."""
        with self._lock:
            self._screen.resize(rows, columns)
        self._set_size(columns, rows)

    def blank(self) -> None:
        """Lose the picture, as when another program has written over it."""
        with self._lock:
            self._screen.reset()

    def _set_size(self, columns: int, rows: int) -> None:
        fcntl.ioctl(self.outer, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def hang_up(self) -> None:
        """Close the window: the kernel hangs the terminal up, and every later read and write of it fails."""
        self._is_open = False
        self._reader.join()
        os.close(self.inner)
        os.close(self.outer)
        self.outer = self.inner = -1

    # The end

    def exit_code(self, *, timeout_s: float = LIMIT_S) -> int:
        """The exit code once the process has ended by itself (-N for signal N)."""
        try:
            code = self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"it did not end within {timeout_s:g} s; the screen:\n{self.text}") from None
        deadline_s = time.monotonic() + 2.0
        while self.outer >= 0 and time.monotonic() < deadline_s and select.select([self.outer], [], [], 0.05)[0]:
            time.sleep(0.01)  # the reader still takes what the process wrote last
        return code

    def assert_restored(self) -> None:
        """Fail unless the terminal is as the shell before had it."""
        for name, (on, off) in MODES.items():
            assert self.raw.rfind(on) <= self.raw.rfind(off), f"left behind: {name}; last: {self.raw[-300:]!r}"
        assert self.raw.count(b"\x1b[<u") >= self.raw.count(b"\x1b[>"), "left behind: the keyboard protocol"
        assert termios.tcgetattr(self.inner) == self.modes_before, "the terminal's modes are not as before"
        assert b"Traceback" not in self.raw

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self._is_open = False
        self._reader.join()
        for fd in (self.outer, self.inner):
            if fd >= 0:
                os.close(fd)

    def _read(self) -> None:
        while self._is_open:
            if not select.select([self.outer], [], [], 0.02)[0]:
                continue
            try:
                chunk = os.read(self.outer, 65536)
            except OSError as error:
                if error.errno == errno.EIO:
                    return
                raise
            self.raw += chunk
            with self._lock:
                self._stream.feed(_UNKNOWN_TO_PYTE.sub(b"", chunk))


class Tui(Terminal):
    """The terminal interface on the hypervisor of `uri`, with its list of VMs shown."""

    def __init__(self, uri: str, *, columns: int = 80, rows: int = 24, **environment: str) -> None:
        super().__init__(*HVTUI, "--connect", uri, columns=columns, rows=rows, **environment)
        self.wait_until(lambda: self.cursor, "the list")

    @property
    def cursor(self) -> str:
        """The name of the VM under the cursor; empty while none is shown."""
        words = self.line_with("▶").split()
        return words[1] if len(words) > 1 else ""

    @property
    def is_stale(self) -> bool:
        return "stale" in self.lines[0] or "connecting" in self.lines[0]

    def row(self, name: str) -> str:
        """The line of that VM in the list."""
        return next((line for line in self.lines[3:] if name in line.split()[:2]), "")

    def react_s(self, key: str) -> float:
        """Type a key that moves the cursor; the seconds until the screen shows that it moved."""
        before, started_s = self.cursor, time.monotonic()
        self.type(key)
        self.wait_until(lambda: self.cursor not in {"", before}, f"the cursor to move from {before}")
        return time.monotonic() - started_s

    def go_to(self, name: str) -> None:
        """Put the cursor on that VM."""
        self.type("g")
        self.wait_until(lambda: self.cursor == self._first(), "the first row")
        while self.cursor != name:
            self.react_s("j")

    def _first(self) -> str:
        return next((words[-1] for line in self.lines[3:4] if (words := line.replace("▶", "").split()[:1])), "")


def _own_terminal() -> None:
    os.setsid()
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


def _environment(**changes: str) -> dict[str, str]:
    dropped = {"NO_COLOR", "HVTUI_URI", "HVTUI_DEBUG", "COLUMNS", "LINES"}
    kept = {key: value for key, value in os.environ.items() if key not in dropped}
    return {**kept, "PYTHONPATH": str(ROOT), "TERM": "xterm-256color", "LANG": "C.UTF-8", **changes}
