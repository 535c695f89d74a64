"""How hvtui holds its terminal: Textual's driver for Linux, made to survive a terminal that goes away.

A window that is closed hangs its terminal up: every write then fails, and the kernel sends SIGHUP together with
SIGCONT. Textual's own driver would lose the thread that writes and wait for it for ever, and would take the SIGCONT
for the end of a ctrl+z and set everything up a second time. Textual's thread for the keys also wakes ten times a second
to see whether an escape sequence was left unfinished, which was a quarter of what a program at rest used: here it does
so only for a second after a key.
"""

from __future__ import annotations

import os
import selectors
import time
from codecs import getincrementaldecoder
from contextlib import suppress
from typing import IO, Any, cast

from textual import events
from textual._xterm_parser import XTermParser
from textual.drivers.linux_driver import LinuxDriver
from textual.geometry import Size

AWAKE_S = 1.0  # far longer than an escape sequence may take to arrive (textual.constants.ESCAPE_DELAY)
TICK_S = 0.1
READ_BYTES = 4096


class TerminalDriver(LinuxDriver):
    """Textual's driver, for terminals that may be hung up at any moment."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._file = cast("Any", _Output(cast("IO[str]", self._file)))
        self._wake_reader, self._wake_writer = os.pipe()

    def disable_input(self) -> None:
        """End the thread for the keys, which may be waiting for one."""
        os.write(self._wake_writer, b"!")
        super().disable_input()
        os.read(self._wake_reader, 1)

    def run_input_thread(self) -> None:
        """Wait for keys and hand them on: as Textual's own loop does, but for how long it waits at rest."""
        decode = getincrementaldecoder("utf-8")().decode
        parser = XTermParser(self._debug)
        awake_until_s = time.monotonic() + AWAKE_S
        with selectors.SelectSelector() as selector:
            selector.register(self.fileno, selectors.EVENT_READ)
            selector.register(self._wake_reader, selectors.EVENT_READ)
            while True:
                is_awake = time.monotonic() < awake_until_s
                ready = {key.fd for key, _mask in selector.select(TICK_S if is_awake else None)}
                if self.fileno in ready and (text := decode(os.read(self.fileno, READ_BYTES))):
                    awake_until_s = time.monotonic() + AWAKE_S
                    for message in parser.feed(text):
                        self.process_message(message)
                for message in parser.tick():
                    self.process_message(message)
                if self._wake_reader in ready:
                    return

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
