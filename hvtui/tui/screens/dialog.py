"""What every dialog shares: a frame with its title above and its keys below, and nothing that jumps."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import ClassVar, TypeVar

from textual import events
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical, VerticalScroll
from textual.content import Content
from textual.screen import ModalScreen
from textual.widget import Widget

from hvtui.tui.plan_text import fitting, key_hints

WARNING_S = 4.0
FRAME_LINES = 2
_CORNERS = 4  # cells: the frame's corners and a blank beside each
Answer = TypeVar("Answer")


class Dialog(ModalScreen[Answer]):
    """Subclasses yield their widgets in `body` and set `title` and `hints`."""

    DEFAULT_CSS = """
    Dialog { align: center middle; }
    Dialog #frame {
        width: 100%; max-width: 100; height: auto; max-height: 100%;
        border: round $accent; border-title-color: $accent; border-title-style: bold; border-subtitle-align: left;
        border-subtitle-color: $text-muted; background: $surface; padding: 0 1 0 0;
    }
    Dialog.-danger #frame { border: round $error; border-title-color: $error; }
    Dialog #body { height: auto; scrollbar-size-vertical: 1; }
    """
    lines_below = 0  # in the frame, below what scrolls

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("j,down", "scroll(1)", show=False),
        Binding("k,up", "scroll(-1)", show=False),
        Binding("pagedown,space", "scroll(15)", show=False),
        Binding("pageup", "scroll(-15)", show=False),
    ]

    def compose(self) -> ComposeResult:
        with Vertical(id="frame"):
            yield from self.body()

    def body(self) -> Iterable[Widget]:
        """The dialog's own widgets, in the frame."""
        return ()

    def on_mount(self) -> None:
        self.show_frame()

    def on_resize(self, event: events.Resize) -> None:
        """The frame never outgrows the screen: the body scrolls, what stands below it stays."""
        for body in self.query("#body"):
            body.styles.max_height = max(event.size.height - FRAME_LINES - self.lines_below, 1)
        self.call_after_refresh(self.show_frame)

    def title_text(self) -> str:
        """What the dialog is about; printable."""
        return ""

    def hints(self) -> Sequence[tuple[str, str]]:
        """The keys that work now, each with what it does."""
        return (("esc", "back"),)

    def show_frame(self) -> None:
        """Paint title and keys again."""
        frame = self.query_one("#frame", Vertical)
        frame.border_title = Content(self.title_text())
        width = frame.outer_size.width or self.app.size.width  # none yet before the first layout
        frame.border_subtitle = key_hints(fitting(self.hints(), width - _CORNERS))

    def warn(self, text: str) -> None:
        """Say in the keys' place what is missing; the keys come back after some seconds."""
        self.query_one("#frame", Vertical).border_subtitle = Content.styled(text, "bold $text-warning")
        self.set_timer(WARNING_S, self.show_frame)

    def action_scroll(self, lines: int) -> None:
        for scroll in self.query("#body").results(VerticalScroll):
            scroll.scroll_relative(y=lines, animate=False)
