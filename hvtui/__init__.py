"""The two front ends of hvtui: the terminal interface (hvtui.tui) and the commands (hvtui.cli)."""

__version__ = "0.1.0"
