"""Opens the user's editor on a text and gives back what it became. The only place of the commands that runs one."""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path

from host.errors import HvtuiError, UsageError

FALLBACKS = ("sensible-editor", "nano", "vi")


def editor_command() -> list[str]:
    """$VISUAL or $EDITOR as an argument list (it may hold options), else what Debian has. Raises UsageError."""
    import shutil

    for variable in ("VISUAL", "EDITOR"):
        words = shlex.split(os.environ.get(variable, ""))
        if words:
            return words
    for name in FALLBACKS:
        if shutil.which(name):
            return [name]
    raise UsageError("there is no editor", remedy="Set EDITOR, or give --file")


def edited(text: str, file_name: str) -> str:
    """`text` after the user's editor. Raises UsageError without a terminal, HvtuiError when the editor fails; what
    was typed is then kept in a file that the error names."""
    import subprocess
    import tempfile

    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise UsageError("there is no terminal for an editor", remedy="Give the XML with --file FILE, or --file -")
    command = editor_command()
    folder = Path(tempfile.mkdtemp(prefix="hvtui-"))  # mode 0700: the XML may hold passwords
    path = folder / file_name
    path.write_text(text, encoding="utf-8")
    try:
        code = subprocess.run([*command, str(path)], check=False).returncode
    except OSError as error:
        raise UsageError(f"cannot run the editor {command[0]!r}: {error.strerror}") from error
    if code:
        raise HvtuiError(f"the editor ended with {code}; nothing was changed", remedy=f"Your text is in {path}")
    after = path.read_text(encoding="utf-8", errors="replace")
    path.unlink()
    folder.rmdir()
    return after
