"""Lends the terminal to a VM's serial console, and takes it back whatever happens. The console is vm.console."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from typing import TYPE_CHECKING

from textual.app import SuspendNotSupported

from host.errors import Unsupported
from host.text import printable
from vm.model import Vm, VmState

if TYPE_CHECKING:
    from hvtui.tui.app import HvtuiApp

# What a guest may have left switched on: alternative screen, mouse reports, keypad and character-set modes, a scroll
# region, colours, a hidden cursor (ECMA-48, DEC STD 070).
TIDY = (
    b"\x1b[?1049l\x1b[!p\x1b[r\x1b[0m\x0f\x1b(B\x1b>"
    b"\x1b[?1l\x1b[?7h\x1b[?25h\x1b[?1000l\x1b[?1002l\x1b[?1003l\x1b[?1006l\x1b[?2004l\r\n"
)
_FROZEN = {VmState.PAUSED, VmState.SUSPENDED}


def lend_terminal(app: HvtuiApp, vm: Vm) -> str:
    """Suspend the app for the console of `vm` until its escape key; returns why it ended, harmless to show. Blocks the
    event loop, which must not paint meanwhile. Raises what vm.console.attach does, with the screen back."""
    from vm import console

    terminal_in, terminal_out = _terminal()
    app.bridge.set_polling(False)
    suspension = app.suspend()
    try:
        suspension.__enter__()
    except SuspendNotSupported:
        raise Unsupported(
            "this terminal cannot be lent to a console", about=vm.name, remedy="Use 'hvtui vm console' in a shell"
        ) from None
    blank = clean_page(app.size.height)
    try:
        with suppress(OSError):
            os.write(terminal_out, blank + _greeting(vm))
        reason = console.attach(app.host_of(vm), vm, stdin_fd=terminal_in, stdout_fd=terminal_out)
    finally:
        with suppress(OSError):  # its window was closed: the signal that says so ends the program
            os.write(terminal_out, TIDY + blank)
        # Called by hand: at an exception Textual's own context manager would leave the app suspended.
        suspension.__exit__(None, None, None)
        app.bridge.set_polling(True)
        app.bridge.refresh()
    return printable(reason, limit=200)


def clean_page(rows: int) -> bytes:
    """Scrolls what the terminal shows out of its `rows` instead of erasing it: the shell's text stays in the
    scrollback, and neither a second console nor the shell's prompt is drawn into what a guest left there."""
    return b"\x1b[%d;1H" % rows + b"\n" * rows + b"\x1b[H"


def _greeting(vm: Vm) -> bytes:
    if vm.state not in _FROZEN:
        return b""
    name = printable(vm.name, limit=60)
    return f"{name} is {vm.state.value}: its console is silent until it is resumed.\r\n".encode()


def _terminal() -> tuple[int, int]:
    """The file descriptors of the terminal; not sys.stdout, which Textual takes over."""
    terminal_in, terminal_out = sys.__stdin__, sys.__stdout__
    if terminal_in is None or terminal_out is None:
        return 0, 1
    return terminal_in.fileno(), terminal_out.fileno()
