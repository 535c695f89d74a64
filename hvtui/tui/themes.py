"""Colours: one calm palette of roles a theme, and the Textual theme made from it.

Widgets name roles ("dim", "bad"), never colours. Colour is never the only sign: every state has a symbol and a word.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from rich.style import Style
from textual.theme import Theme

DEFAULT_THEME = "hvtui-dark"


@dataclass(frozen=True, slots=True)
class Colors:
    """The colours of one theme. Empty is the terminal's own; names with ansi_ are the 16 of the terminal."""

    name: str
    base: str
    text: str
    dim: str
    faint: str
    accent: str
    good: str
    warn: str
    bad: str
    cursor: str  # the background of the row under the cursor; empty: reverse video
    raised: str  # the background of dialogs and bars
    chart: str  # sparklines and meters: calmer than the accent
    dark: bool = True
    ansi: bool = False


DARK = Colors(
    name="hvtui-dark", base="#12151a", text="#c8d0d8", dim="#7f8b98", faint="#3a444f", accent="#6cb6ff",
    good="#86b98a", warn="#e0b169", bad="#f4776d", cursor="#243447", raised="#1a1f26", chart="#47779f",
)  # fmt: skip
LIGHT = Colors(
    name="hvtui-light", base="#fbfaf7", text="#24292f", dim="#69727c", faint="#ccd1d6", accent="#0b62b8",
    good="#2c6e37", warn="#8a5a00", bad="#b3261e", cursor="#d9e7f5", raised="#f0eee9", chart="#7ba3c9", dark=False,
)  # fmt: skip
CONTRAST = Colors(
    name="hvtui-contrast", base="#000000", text="#ffffff", dim="#d0d0d0", faint="#8a8a8a", accent="#ffff00",
    good="#5fff5f", warn="#ffd75f", bad="#ff8787", cursor="", raised="#000000", chart="#5fd7ff",
)  # fmt: skip
ANSI = Colors(
    name="hvtui-ansi", base="ansi_default", text="ansi_default", dim="ansi_white", faint="ansi_bright_black",
    accent="ansi_cyan", good="ansi_green", warn="ansi_yellow", bad="ansi_bright_red", cursor="",
    raised="ansi_default", chart="ansi_blue", ansi=True,
)  # fmt: skip
ALL_COLORS = {colors.name: colors for colors in (DARK, LIGHT, CONTRAST, ANSI)}


@dataclass(frozen=True)
class Palette:
    """Rich styles by role, each with the theme's background, so that a painted line needs no further styling."""

    colors: Colors
    _styles: dict[tuple[str, bool | None], Style] = field(default_factory=dict)

    def style(self, role: str, *, cursor: bool = False) -> Style:
        """The style of a role: text, bold, dim, faint, accent, good, warn, bad, head, key; on the cursor's row too."""
        key = (role, cursor)
        style = self._styles.get(key)
        if style is None:
            style = self._styles[key] = self._made(role, cursor)
        return style

    def ink(self, role: str) -> Style:
        """The role's own colour and weight, on whatever background the text has."""
        key = (role, None)
        style = self._styles.get(key)
        if style is None:
            shown = self.style(role)
            style = self._styles[key] = Style(color=shown.color, bold=shown.bold)
        return style

    def _made(self, role: str, cursor: bool) -> Style:
        colors = self.colors
        foreground = {
            "bold": colors.text, "head": colors.dim, "key": colors.accent, "alarm": colors.bad, "title": colors.accent,
        }.get(role) or getattr(colors, role)  # fmt: skip
        bold = role in {"bold", "key", "alarm", "title"}
        if not cursor:
            return Style(color=_rich(foreground), bgcolor=_rich(colors.base), bold=bold or None)
        if colors.cursor:
            # Dim text would sink into the cursor's background: it is raised to plain text there.
            foreground = colors.text if role == "dim" else foreground
            return Style(color=_rich(foreground), bgcolor=_rich(colors.cursor), bold=bold or None)
        return Style(color=_rich(colors.text), bgcolor=_rich(colors.base), bold=bold or None, reverse=True)


def _rich(color: str) -> str | None:
    """Rich's name of a colour; None leaves the terminal's own."""
    if color in {"", "ansi_default"}:
        return None
    return color.removeprefix("ansi_")


def palette(theme_name: str) -> Palette:
    """The palette of a theme, the dark one's for a theme of Textual's own."""
    if theme_name not in _PALETTES:
        _PALETTES[theme_name] = Palette(ALL_COLORS.get(theme_name, DARK))
    return _PALETTES[theme_name]


_PALETTES: dict[str, Palette] = {}


def textual_theme(colors: Colors) -> Theme:
    """The Textual theme for dialogs, inputs and everything styled by hvtui.tcss."""
    variables = {
        "chart": colors.chart,
        "text-muted": colors.dim,
        "text-disabled": colors.faint,
        "text-primary": colors.accent,
        "text-accent": colors.accent,
        "text-success": colors.good,
        "text-warning": colors.warn,
        "text-error": colors.bad,
        "foreground-muted": colors.dim,
        "border": colors.accent,
        "border-blurred": colors.faint,
        "scrollbar": colors.faint,
        "scrollbar-hover": colors.dim,
        "scrollbar-active": colors.accent,
        "scrollbar-background": colors.base,
        "scrollbar-background-hover": colors.base,
        "scrollbar-background-active": colors.base,
        "scrollbar-corner-color": colors.base,
        "block-cursor-background": colors.cursor or colors.text,
        "block-cursor-foreground": colors.text if colors.cursor else ("ansi_black" if colors.ansi else colors.base),
        "block-cursor-blurred-background": colors.cursor or colors.faint,
        "block-cursor-blurred-foreground": colors.text,
        "input-cursor-background": colors.text if not colors.ansi else "ansi_white",
        "input-cursor-foreground": colors.base if not colors.ansi else "ansi_black",
        "input-selection-background": colors.cursor or colors.faint,
    }
    if colors.ansi:
        variables |= {
            "ansi-background": "ansi_black",
            "ansi-foreground": "ansi_white",
            "block-cursor-background": "ansi_white",
            "block-cursor-blurred-background": "ansi_white",
            "block-cursor-blurred-foreground": "ansi_black",
            "input-selection-background": "ansi_blue",
            "input-selection-foreground": "ansi_white",
            "screen-selection-background": "ansi_blue",
            "screen-selection-foreground": "ansi_white",
            "input-cursor-text-style": "none",
        }
    return Theme(
        name=colors.name, primary=colors.accent, secondary=colors.dim, accent=colors.accent, warning=colors.warn,
        error=colors.bad, success=colors.good, foreground=colors.text, background=colors.base, surface=colors.raised,
        panel=colors.raised, boost=colors.raised, dark=colors.dark, ansi=colors.ansi, variables=variables,
    )  # fmt: skip


def for_terminal(environment: Mapping[str, str]) -> str:
    """The theme for a terminal nobody chose one for: its own 16 colours where it has no more, else the dark one."""
    few = environment.get("TERM", "") in {"linux", "dumb", "vt100", "vt220", "ansi", "xterm", "screen"}
    return ANSI.name if few and not environment.get("COLORTERM") else DEFAULT_THEME
