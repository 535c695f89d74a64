"""Opens the user's editor on a text, and loses nothing that was typed into it. Only it runs one."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from host.errors import Cancelled, HvtuiError, UsageError
from hvtui.cli.output import complain, narrate

Made = TypeVar("Made")

FALLBACKS = ("sensible-editor", "nano", "vi")


def editor_command() -> list[str]:
    """$VISUAL or $EDITOR as an argument list (it may hold options), else what Debian has. Raises UsageError."""
    for variable in ("VISUAL", "EDITOR"):
        words = shlex.split(os.environ.get(variable, ""))
        if words:
            return words
    for name in FALLBACKS:
        if shutil.which(name):
            return [name]
    raise UsageError("there is no editor", remedy="Set EDITOR, or give --file")


class Draft:
    """A text in a file of its own, for the user's editor."""

    def __init__(self, text: str, path: Path) -> None:
        self.before = text
        self.path = path
        self.is_applied = False
        path.write_text(text, encoding="utf-8")

    @property
    def text(self) -> str:
        return self.path.read_text(encoding="utf-8", errors="replace")

    @property
    def is_changed(self) -> bool:
        return self.path.exists() and self.text.strip() != self.before.strip()

    def edit(self, use: Callable[[str], Made]) -> Made | None:
        """What `use` makes of the edited text; None when nothing was changed. While `use` raises UsageError the user
        may try again with the text as typed. Raises that error, or HvtuiError when the editor fails."""
        while True:
            self._run_editor()
            if not self.is_changed:
                return None
            try:
                return use(self.text)
            except UsageError as error:
                complain(str(error))
                if not ask_again():
                    raise Cancelled("nothing was changed") from error

    def _run_editor(self) -> None:
        import subprocess

        command = editor_command()
        try:
            code = subprocess.run([*command, str(self.path)], check=False).returncode
        except OSError as error:
            raise UsageError(f"cannot run the editor {command[0]!r}: {error.strerror}") from error
        if code:
            raise HvtuiError(f"the editor ended with {code}; nothing was changed")


@contextmanager
def draft(text: str, file_name: str) -> Iterator[Draft]:
    """A draft of `text`. What was typed is kept, and said where, unless it was applied. Raises UsageError without a
    terminal."""
    import tempfile

    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise UsageError("there is no terminal for an editor", remedy="Give the XML with --file FILE, or --file -")
    folder = Path(tempfile.mkdtemp(prefix="hvtui-"))  # mode 0700: the XML may hold passwords
    draft_of_text = Draft(text, folder / file_name)
    try:
        yield draft_of_text
    finally:
        if draft_of_text.is_changed and not draft_of_text.is_applied:
            narrate(f"Your text is in {draft_of_text.path}")
        else:
            shutil.rmtree(folder, ignore_errors=True)  # with what the editor left beside it


def ask_again() -> bool:
    """Ask on the terminal whether to edit once more; no answer is a no."""
    narrate("Try again? [y,n]")
    return sys.stdin.readline().strip().lower() in {"y", "yes"}
