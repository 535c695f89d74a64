"""The demo with a console of its own: libvirt's test driver has none. It echoes, and plays a guest's last mess.

`python -m tests.support.console_demo`. Keys: ! fails as an error of hvtui, # as a bug; Ctrl-] leaves.
"""

from __future__ import annotations

import os
from typing import Any

from host.connection import Host
from host.errors import Busy
from vm import console
from vm.model import Vm

MESS = b"\x1b[?1049h\x1b[31m\x1b[5;9r\x1b[?25l\x1b[?1000h\x0e\x1b]0;owned\x07"


def attach(host: Host, vm: Vm, *, stdin_fd: int, stdout_fd: int, **_rest: Any) -> str:
    """Echo until Ctrl-], upper case, so that an echo of the terminal itself cannot pass for it."""
    with console.raw_terminal(stdin_fd):
        os.write(stdout_fd, f"console of {vm.name} ready\r\n".encode())
        while True:
            typed = os.read(stdin_fd, 1024)
            if b"!" in typed:
                raise Busy("somebody else has its console open", about=vm.name)
            if b"#" in typed:
                raise ZeroDivisionError("a bug")
            if b"\x1d" in typed or not typed:
                os.write(stdout_fd, MESS)
                return "left with Ctrl+]\x1b[2J"
            os.write(stdout_fd, typed.upper())


def main() -> None:
    """Run the demo with this console."""
    from hvtui.__main__ import leave, run

    console.attach = attach
    leave(run(["--demo"]))


if __name__ == "__main__":
    main()
