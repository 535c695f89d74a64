"""Where hvtui keeps its own files. Nothing here creates a VM's files; see host.images for those.

State (the journal, locks, job logs): $HVTUI_STATE_DIR, else /var/lib/hvtui for root, else
$XDG_STATE_HOME/hvtui (~/.local/state/hvtui). Cache (built guest images): $HVTUI_CACHE_DIR, else
$XDG_CACHE_HOME/hvtui (~/.cache/hvtui). Configuration: $HVTUI_CONFIG (/dev/null: none), else
$XDG_CONFIG_HOME/hvtui/config.toml (~/.config), else /etc/hvtui/config.toml.

pathlib is loaded by what returns a Path: a short command without a configuration file does without it.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


def state_directory() -> Path:
    """The private (mode 0700) directory of the journal; made if missing. Raises OSError."""
    from pathlib import Path

    chosen = os.environ.get("HVTUI_STATE_DIR")
    if chosen:
        path = Path(chosen)
    elif os.geteuid() == 0:
        path = Path("/var/lib/hvtui")
    else:
        path = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local/state") / "hvtui"
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    return path


def cache_directory() -> Path:
    """The directory of things that can be built again; made if missing. Raises OSError."""
    from pathlib import Path

    chosen = os.environ.get("HVTUI_CACHE_DIR")
    path = Path(chosen) if chosen else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "hvtui"
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    return path


def configuration_file() -> Path | None:
    """The configuration file in force, or None when there is none. One that $HVTUI_CONFIG names may be missing."""
    chosen = os.environ.get("HVTUI_CONFIG")
    if not chosen:
        personal = os.environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config")  # noqa: PTH111
        usual = (f"{personal}/hvtui/config.toml", "/etc/hvtui/config.toml")
        chosen = next(filter(os.path.isfile, usual), None)  # isfile raises nothing where a directory is closed
    if chosen is None or chosen == os.devnull:
        return None
    from pathlib import Path

    return Path(chosen)
