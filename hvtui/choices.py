"""What a configuration may choose from: the ids of themes and of the list's columns.

The terminal interface has them all (a test compares); they stand here by themselves so that a command can check a
configuration without loading it. This module imports nothing of hvtui.
"""

from __future__ import annotations

THEMES = ("hvtui-dark", "hvtui-light", "hvtui-contrast", "hvtui-ansi")
SHORT_THEMES = {name.removeprefix("hvtui-"): name for name in THEMES}
COLUMNS = (
    "name", "state", "host", "cpu", "memory", "address", "agent", "tags", "net", "disk", "uptime", "vcpus",
    "checkpoints", "autostart",
)  # fmt: skip
