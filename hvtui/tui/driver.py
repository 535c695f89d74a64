"""How hvtui holds its terminal: Textual's driver for Linux, made to survive a terminal that goes away.

A window that is closed hangs its terminal up: every write then fails, and the kernel sends SIGHUP together with
SIGCONT. Textual's own driver would lose the thread that writes and wait for it for ever, and would take the SIGCONT
for the end of a ctrl+z and set everything up a second time.
"""

from __future__ import annotations

from contextlib import suppress
from typing import IO, Any, cast

from textual import events
from textual.drivers.linux_driver import LinuxDriver
from textual.geometry import Size


class TerminalDriver(LinuxDriver):
    """Textual's driver, for terminals that may be hung up at any moment."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._file = cast("Any", _Output(cast("IO[str]", self._file)))

    def _sigcont_application(self, *signal_and_frame: Any) -> None:
        """After ctrl+z: take the terminal again. After a SIGSTOP it is still ours, but others may have written to
        it: paint it anew."""
        if self._must_signal_resume:
            super()._sigcont_application(*signal_and_frame)
        elif self._writer_thread is not None:
            size = Size(*self._get_terminal_size())
            self._loop.call_soon_threadsafe(self._app.post_message, events.Resize(size, size))


class _Output:
    """The terminal as a file; what nobody can see any more is dropped."""

    def __init__(self, file: IO[str]) -> None:
        self._file = file

    def write(self, text: str) -> int:
        with suppress(OSError):
            self._file.write(text)
        return len(text)

    def flush(self) -> None:
        with suppress(OSError):
            self._file.flush()

    def fileno(self) -> int:
        return self._file.fileno()

    def isatty(self) -> bool:
        return self._file.isatty()
