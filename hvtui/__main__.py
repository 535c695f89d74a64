"""hvtui's entry point and outermost edge: every error becomes a message and an exit code, and nothing else.

HVTUI_DEBUG=1 shows the traceback of an internal error. What a signal or a closed pipe means is decided here.
"""

from __future__ import annotations

import io
import os
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from importlib import import_module
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from hvtui.cli.session import Session
    from vm.feed import ReadSamples

INTERRUPTED = 130
COMPLETE_VARIABLE = "_HVTUI_COMPLETE"
BROKEN_PIPE = 141  # 128 + SIGPIPE, as the shell tells of any program whose reader left


def main() -> NoReturn:
    """Run the command line and leave with its exit code."""
    import gc

    gc.set_threshold(100_000, 20, 20)  # a short command makes no garbage worth collecting
    _steady_streams()
    code = run(sys.argv[1:])
    leave(_flushed(code))


def _steady_streams() -> None:
    """Streams that can be written to whatever the caller did with them."""
    for number, name in ((0, "stdin"), (1, "stdout"), (2, "stderr")):
        if getattr(sys, name) is None:  # closed by the caller (>&-): a file opened later must not take its place
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_RDWR), "r" if number == 0 else "w"))
    if isinstance(getattr(sys.stdout, "buffer", None), io.RawIOBase):
        # PYTHONUNBUFFERED: it drops what does not fit into a pipe whose reader leaves, and nobody would hear of it.
        sys.stdout = os.fdopen(os.dup(1), "w", encoding=sys.stdout.encoding)


def leave(code: int) -> NoReturn:
    """End at once. Taking the interpreter apart costs 15 ms a command, and joins threads that may wait for a daemon
    that does not answer."""
    import atexit

    atexit._run_exitfuncs()  # noqa: SLF001 - what others registered (coverage, logging) still runs
    with suppress(OSError):  # its terminal may be gone
        sys.stderr.flush()
    os._exit(code)


def run(arguments: Sequence[str]) -> int:
    """Run one command line and return its exit code; no exception leaves this function but SystemExit's own kind."""
    session = None
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a name that is no valid UTF-8, or a terminal that is not UTF-8
            stream.reconfigure(errors="backslashreplace")
    try:
        from hvtui.cli.root import root
        from hvtui.cli.session import Session

        session = Session(open_screen=_open_screen)
        if os.environ.get(COMPLETE_VARIABLE):
            return _complete(session)
        with root.make_context("hvtui", list(arguments), obj=session) as context:
            code = root.invoke(context)
        return code if isinstance(code, int) else 0
    except BrokenPipeError:
        return _silenced(BROKEN_PIPE)
    except KeyboardInterrupt:
        return _interrupted()
    except Exception as error:  # noqa: BLE001 - one of the three outer edges: no traceback ever reaches a user
        return _explained(error)
    finally:
        if session is not None:
            session.close()


def _complete(session: Session) -> int:
    """Answer the shell that asks what could come next."""
    from click.shell_completion import shell_complete

    from hvtui.cli.root import root

    return shell_complete(root, {"obj": session}, "hvtui", COMPLETE_VARIABLE, os.environ[COMPLETE_VARIABLE])


def _explained(error: Exception) -> int:
    """Say what failed; the exit code of the error."""
    from hvtui.cli.output import complain

    if os.environ.get(COMPLETE_VARIABLE):
        return 1  # a word here would land in the line that is being typed
    if type(error).__module__.startswith("click"):
        return _click_error(error)
    if isinstance(error, ImportError) and (error.name or "").startswith("libvirt"):
        complain("libvirt's Python binding is not installed. apt-get install libvirt0, then install hvtui again")
        return 6
    from host.errors import HvtuiError
    from host.text import printable

    if isinstance(error, HvtuiError):
        complain(str(error))
        return error.exit_code
    if os.environ.get("HVTUI_DEBUG"):
        import traceback

        traceback.print_exception(error)
    what = f"{type(error).__name__}: {printable(str(error), limit=400)}"
    if isinstance(error, OSError):
        about = f"{printable(str(error.filename), limit=200)}: " if error.filename is not None else ""
        complain(f"{about}{printable(error.strerror or str(error), limit=400)}")
        return 5 if isinstance(error, PermissionError) else 3 if isinstance(error, FileNotFoundError) else 1
    complain(f"internal error: {what}. HVTUI_DEBUG=1 shows where; please report it")
    return 1


def _click_error(error: Exception) -> int:
    import click

    from host.text import printable
    from hvtui.cli.output import complain, narrate

    if isinstance(error, click.exceptions.Exit):
        return error.exit_code
    if not isinstance(error, click.ClickException):
        return _interrupted()
    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        narrate(error.format_message())  # the program's own help, as it is
        return error.exit_code
    message = printable(" ".join(error.format_message().split()), limit=600)  # click wraps its lists of choices
    if isinstance(error, click.UsageError) and error.ctx is not None:
        message = f"{message.rstrip('.')}{'' if message.endswith('?') else '.'} See '{error.ctx.command_path} --help'"
    complain(message)
    return error.exit_code


def _interrupted() -> int:
    from hvtui.cli.output import narrate

    narrate("Interrupted")
    return INTERRUPTED


def _silenced(code: int) -> int:
    """Nobody reads standard output any more: nothing else may be written to it, at exit neither."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.dup2(nowhere, 1)
    os.close(nowhere)
    return code


def _flushed(code: int) -> int:
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        return _silenced(BROKEN_PIPE)
    except OSError as error:
        from hvtui.cli.output import complain

        complain(f"cannot write: {error.strerror}")
        _silenced(1)
        return code or 1
    return code


def _open_screen(session: Session) -> int:
    """The console, once the hypervisor answers: an explanation is easier to read in the shell. What it is made of is
    loaded meanwhile, which takes about as long as a connection. Several hosts are waited for on the screen."""
    threading.Thread(target=import_module, args=("hvtui.tui.app",), name="load", daemon=True).start()
    hosts = session.console_hosts()
    host = hosts[0] if hosts else session.host()
    from hvtui.tui.app import run as run_screen

    return run_screen(
        host=host,
        config=session.config(),
        journal=session.journal(),
        simulated_samples=_simulated_samples() if session.given.get("demo") else None,
        hosts=hosts,
        entries=session.entries() if hosts else (),
    )


def _simulated_samples() -> ReadSamples:
    from vm.demo import simulated_samples

    return simulated_samples


if __name__ == "__main__":
    main()
