"""Where a VM departs from its template and profile, and the way back: each difference with what is expected and found.
Shows what vm.drift compared; aligning goes through the plan dialog."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from functools import partial
from typing import TYPE_CHECKING, ClassVar

from textual import work
from textual.containers import Container, VerticalScroll
from textual.content import Content
from textual.widget import Widget
from textual.widgets import OptionList

from host.errors import HvtuiError
from host.events import Event
from host.text import fit, printable
from hvtui.tui import keymap
from hvtui.tui.actions import action_named
from hvtui.tui.key_words import in_keys
from hvtui.tui.screens.base import HvtuiScreen
from hvtui.tui.widgets.choice_list import ChoiceList
from hvtui.tui.widgets.footer import Footer
from hvtui.tui.widgets.page import Page, Row, row
from vm.model import Snapshot, Vm

if TYPE_CHECKING:
    from vm.drift import Difference, Drift

_WHAT_CELLS = 24
_CELLS = 22


class DriftScreen(HvtuiScreen):
    """One VM's differences; what is said of the one under the cursor stands below."""

    AUTO_FOCUS = ""
    SCOPES: ClassVar[tuple[str, ...]] = ("drift",)
    DEFAULT_CSS = """
    DriftScreen #title { height: auto; }
    DriftScreen #head { height: 1; margin-top: 1; }
    DriftScreen #panes { height: 1fr; }
    DriftScreen #rows { height: 1fr; width: 1fr; }
    DriftScreen #detail { height: 40%; border-top: solid $text-disabled; scrollbar-size-vertical: 1; }
    DriftScreen.-none #head, DriftScreen.-none #rows { display: none; }
    DriftScreen.-none #detail { height: 1fr; border: none; }
    """

    def __init__(self, vm: Vm) -> None:
        super().__init__()
        self.vm = vm
        self.drift: Drift | None = None
        self._problem: HvtuiError | None = None
        self._other = ""  # the template to compare with; empty: its own

    def body(self) -> Iterable[Widget]:
        yield Page(self._title(), id="title")
        yield Page([row(_columns(" WHAT", "EXPECTED", "FOUND"), style="$text-muted", indent=0)], id="head")
        yield Container(ChoiceList(id="rows"), VerticalScroll(Page(id="text"), id="detail"), id="panes")

    def on_mount(self) -> None:
        self.set_class(True, "-none")

    def targets(self) -> tuple[Vm, ...]:
        return (self.vm,)

    def on_screen_resume(self) -> None:
        self.read_again()

    def snapshot_changed(self, snapshot: Snapshot) -> None:
        found = next((vm for vm in snapshot.vms if vm.key == self.vm.key), None)
        if found is not None:
            is_other = (found.config, found.autostart) != (self.vm.config, self.vm.autostart)
            self.vm = found
            if is_other:
                self.read_again()

    def event_arrived(self, event: Event) -> None:
        if event.vm_uuid == self.vm.uuid:
            self.read_again()

    def read_again(self) -> None:
        """Compare it now."""
        self._read()

    @work(group="drift", exclusive=True)
    async def _read(self) -> None:
        from vm.drift import compare

        try:
            host = self.hvtui.host_of(self.vm)
            usual = self.hvtui.library_at(host)
            call = self.hvtui.bridge.call
            self.drift = await call(compare, host, self.vm, template=self._other, usual_library=usual)
            self._problem = None
        except HvtuiError as error:
            self.drift, self._problem = None, error
        self._show()

    # Showing

    def _show(self) -> None:
        if not self.is_composed:
            return  # it was left meanwhile
        differences = self.drift.differences if self.drift is not None else ()
        self.set_class(not differences, "-none")
        self.query_one("#title", Page).show(self._title())
        self.query_one("#rows", ChoiceList).show_rows([(each.key, partial(_line, each)) for each in differences])
        if differences and self.focused is None:
            self.call_after_refresh(self.query_one("#rows").focus)
        self._show_detail()

    def _show_detail(self) -> None:
        self.query_one("#text", Page).show(self._detail())
        self.query_one(Footer).show_target(self.target())

    def _title(self) -> list[Row]:
        name = printable(self.vm.name, limit=60)
        if self.drift is None:
            return [row(f"{name} and its template", style="bold", indent=1)]
        profile = f", profile {printable(self.drift.profile, limit=40)}" if self.drift.profile else ""
        template = f"{printable(self.drift.template, limit=60)} revision {self.drift.revision}{profile}"
        template += ", not its own" if self.drift.other else ""
        return [row(Content.assemble((name, "bold"), (f"   against {template}", "$text-muted")), indent=1)]

    def _detail(self) -> list[Row]:
        if self._problem is not None:
            remedy = printable(in_keys(self._problem.remedy), limit=400)
            about = f"{self._problem.about}: " if self._problem.about else ""
            rows = [row(printable(f"{about}{self._problem.cause}", limit=400), mark="×", style="$text-error")]
            rows += [row(remedy, style="$text-muted")] if remedy else []
            return [row(), *rows, row(), _choose_row()]
        if self.drift is None:
            return [row(), row("comparing…", style="$text-muted", indent=3)]
        rows = [] if self.drift.differences else [row(), row("It is as its template and profile say.", mark="✓")]
        if (chosen := self.selected) is not None:
            rows += _difference_rows(chosen)
        notes = [row(printable(in_keys(note), limit=400), mark="!", style="$text-warning") for note in self.drift.notes]
        return [*rows, *([row()] if notes else []), *notes]

    @property
    def selected(self) -> Difference | None:
        """The difference under the cursor."""
        chosen = self.query_one("#rows", ChoiceList).chosen
        differences = self.drift.differences if self.drift is not None else ()
        return next((each for each in differences if each.key == chosen), None)

    def on_option_list_option_highlighted(self, _message: OptionList.OptionHighlighted) -> None:
        self._show_detail()

    def on_option_list_option_selected(self, _message: OptionList.OptionSelected) -> None:
        self.hvtui.act("drift.align")

    # What the keys do (hvtui.tui.screen_actions)

    async def align_one(self) -> None:
        """Align the difference under the cursor."""
        chosen = self.selected
        if chosen is None:
            self.say("nothing here can be aligned", "warn")
        elif not chosen.can_align:
            self.say(f"{chosen.title} cannot be aligned: {chosen.why_not}", "warn")
        else:
            await self._align((chosen.key,))

    async def align_all(self) -> None:
        """Align all that can be."""
        await self._align(())

    async def _align(self, keys: Collection[str]) -> None:
        from vm.drift import plan_align

        if self.drift is None or not self.drift.differences:
            self.say("nothing here can be aligned", "warn")
            return
        plan = await self.hvtui.bridge.call(plan_align, self.hvtui.host_of(self.vm), self.vm, self.drift, keys)
        await self.hvtui.propose([plan], done="aligned", ask=True)
        if self.is_mounted:
            self.read_again()

    async def choose_template(self) -> None:
        """Ask which template to compare with, and compare."""
        from hvtui.tui.screens.choice import ChoiceScreen
        from vm import library

        host = self.hvtui.host_of(self.vm)
        found = await self.hvtui.bridge.call(library.read, host, self.hvtui.library_at(host))
        own = self.vm.config.template if self.vm.config is not None else ""
        names = sorted({each.name for each in found.templates} | ({own} if own else set()))
        if not names:
            self.say("there is no template to compare with", "warn")
            return
        about = {each.name: printable(each.description, limit=60) for each in found.templates}
        choices = [
            (name, printable(name, limit=40), "its own" if name == own else about.get(name, "")) for name in names
        ]
        now = self.drift.template if self.drift is not None else own
        question = f"Compare {printable(self.vm.name, limit=30)} with which template?"
        chosen = await self.hvtui.push_screen_wait(ChoiceScreen(question, choices, chosen=now, verb="compare"))
        if chosen is not None and self.is_mounted:
            self._other = "" if chosen == own else chosen
            self.read_again()

    def leave(self) -> None:
        self.hvtui.back()


def _choose_row() -> Row:
    key = keymap.shown_key(action) if (action := action_named("drift.template")) is not None else ""
    return row(Content.assemble((key, "bold $accent"), ("  compares it with a template of your choice", "$text-muted")))


def _columns(what: str, expected: str, found: str) -> str:
    return f"{fit(what, _WHAT_CELLS)} {fit(expected, _CELLS)} {fit(found, _CELLS)}"


def _line(difference: Difference, width: int) -> Content:
    texts = (f" {printable(difference.title, limit=60)}", difference.expected, difference.found)
    line = _columns(texts[0], *(printable(text, limit=100) for text in texts[1:]))
    word = "" if difference.can_align else "stays"
    return Content.assemble(fit(line, max(width - 6, 20)), (f" {word:<5}", "$text-muted"))


def _difference_rows(difference: Difference) -> list[Row]:
    pairs = (("expected", difference.expected), ("found", difference.found))
    rows = [
        Row(Content(printable(text, limit=400)), Content.styled(f"   {fit(label, 10)}", "$text-muted"), 13)
        for label, text in pairs
    ]
    if difference.can_align:
        return [*rows, row(Content.assemble(("enter", "bold $accent"), ("  aligns it, after a plan", "$text-muted")))]
    return [*rows, row(f"it stays: {printable(difference.why_not, limit=300)}", mark="!", style="$text-warning")]
