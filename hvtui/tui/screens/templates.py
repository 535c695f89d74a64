"""The templates screen: what new VMs can be made from; deploy, add, edit, remove and verify. Shows frozen data; the
library is read through the bridge, when the screen is opened and after jobs that changed it."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import ClassVar

from textual import work
from textual.containers import Container, VerticalScroll
from textual.content import Content
from textual.timer import Timer
from textual.widget import Widget
from textual.widgets import OptionList

from host.errors import HvtuiError
from host.job_model import Job
from host.text import printable
from hvtui.tui import template_text
from hvtui.tui.actions import Target
from hvtui.tui.key_words import in_keys
from hvtui.tui.screens.base import HvtuiScreen
from hvtui.tui.widgets.choice_list import ChoiceList
from hvtui.tui.widgets.footer import Footer
from hvtui.tui.widgets.page import Page, Row, row
from vm.model import Snapshot, Vm
from vm.template_model import Library, Template
from vm.template_verify import Verification

_READING = (row(), row("reading the library…", style="$text-muted", indent=3))
_TOUCHES = ("template.", "create.pool", "library.")  # verbs of steps that change a library
_PROGRESS_S = 0.25


class TemplatesScreen(HvtuiScreen):
    """By name; the details of the template under the cursor below (at the right on wide terminals)."""

    SCOPES: ClassVar[tuple[str, ...]] = ("templates",)
    AUTO_FOCUS = ""  # the list gets the focus once it has a row: an empty one, which is hidden, would swallow keys
    HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (120, "-wide")]  # noqa: RUF012 - Textual declares it so
    DEFAULT_CSS = """
    TemplatesScreen #head { height: 1; }
    TemplatesScreen.-open #head, TemplatesScreen.-empty #head { display: none; }
    TemplatesScreen #panes { height: 1fr; }
    TemplatesScreen #rows { height: 1fr; width: 1fr; }
    TemplatesScreen #detail { height: 60%; border-top: solid $text-disabled; scrollbar-size-vertical: 1; }
    TemplatesScreen.-wide #panes { layout: horizontal; }
    TemplatesScreen.-wide #detail { width: 38%; height: 1fr; border-top: none; border-left: solid $text-disabled; }
    TemplatesScreen.-open #rows, TemplatesScreen.-empty #rows { display: none; }
    TemplatesScreen.-open #detail, TemplatesScreen.-empty #detail { height: 1fr; width: 1fr; border: none; }
    """

    def __init__(self) -> None:
        super().__init__()
        self.library: Library | None = None
        self._chosen_library = ""  # another than the host's own
        self._problem: HvtuiError | None = None
        self._vms: tuple[Vm, ...] = ()
        self._ended: frozenset[int] | None = None  # the jobs on libraries that are over
        self._verified: dict[str, Verification] = {}  # by the manifest: an edited template is another
        self._support: dict[str, str] = {}  # what osinfo-db says of a system, by its id
        self._verifying = ""  # the name of the template that is being read
        self._is_cancelled = False
        self._progress: tuple[float | None, str] = (None, "")
        self._ticker: Timer | None = None

    def body(self) -> Iterable[Widget]:
        yield Page([row(template_text.head(8), style="$text-muted", indent=0)], id="head")
        yield Container(ChoiceList(id="rows"), VerticalScroll(Page(_READING, id="text"), id="detail"), id="panes")

    def target(self) -> Target:
        return replace(super().target(), template=self.selected)

    @property
    def selected(self) -> Template | None:
        """The template under the cursor."""
        chosen = self._list.chosen
        templates = self.library.templates if self.library is not None else ()
        return next((each for each in templates if each.name == chosen), None)

    @property
    def _list(self) -> ChoiceList:
        return self.query_one("#rows", ChoiceList)

    # What arrives

    def on_mount(self) -> None:
        self.set_class(True, "-empty")

    def on_screen_resume(self) -> None:
        self.read_again()

    def on_resize(self) -> None:
        self.call_after_refresh(self._show)

    def on_unmount(self) -> None:
        self._is_cancelled = True

    def snapshot_changed(self, snapshot: Snapshot) -> None:
        if snapshot.vms != self._vms:
            self._vms = snapshot.vms
            self._show()

    def jobs_changed(self, jobs: tuple[Job, ...]) -> None:
        ended = frozenset(
            job.id for job in jobs if job.state.is_over and any(s.verb.startswith(_TOUCHES) for s in job.steps)
        )
        if self._ended is not None and ended - self._ended:
            self.read_again()
        self._ended = ended

    # Reading

    def read_again(self) -> None:
        """Read the library: a constant number of calls."""
        self._read()

    @work(group="library", exclusive=True)
    async def _read(self) -> None:
        from vm import library

        call = self.hvtui.bridge.call
        try:
            host = self.hvtui.current_host
            self.library = await call(library.read, host, self._chosen_library or self.hvtui.library_at(host))
            self._problem = None
        except HvtuiError as error:
            self._problem = error
        self._show()
        unknown = {each.os_id for each in self.library.templates if each.os_id} if self.library is not None else set()
        if unknown := unknown - self._support.keys():
            self._support |= await call(_supports, unknown)
            self._show()

    # Showing

    def _show(self) -> None:
        if not self.is_composed or (self.library is None and self._problem is None):
            return
        templates = self.library.templates if self.library is not None else ()
        self.set_class(not templates, "-empty")
        if not templates:
            self.remove_class("-open")
        elif self.focused is None:
            self.call_after_refresh(self._list.focus)
        cells = template_text.name_cells(templates)
        self.query_one("#head", Page).show(
            [row(template_text.head(cells, self._list.size.width), style="$text-muted", indent=0)]
        )
        rows = [(each.name, partial(self._line, each, cells)) for each in templates]
        self._list.show_rows(rows)
        self._show_detail()

    def _line(self, template: Template, cells: int, width: int) -> Content:
        return template_text.template_line(template, len(template_text.made_from(template, self._vms)), cells, width)

    def _show_detail(self) -> None:
        self.query_one("#text", Page).show(self._detail())
        self.query_one(Footer).show_target(self.target())

    def _detail(self) -> list[Row]:
        rows: list[Row] = []
        if self._problem is not None:
            remedy = printable(in_keys(self._problem.remedy), limit=400)
            rows += [row(printable(str(self._problem), limit=400), mark="×", style="$text-error")]
            rows += [row(remedy, style="$text-muted")] if remedy else []
        template = self.selected
        if template is not None:
            vms = template_text.made_from(template, self._vms)
            rows += template_text.template_rows(
                template,
                vms,
                support=self._support.get(template.os_id, ""),
                verified=self._verified.get(template.manifest),
            )
        elif self.library is not None and not self.library.templates:
            rows += (row(), *template_text.IN_THE_DEMO) if self.hvtui.is_demo else template_text.EMPTY
        if self.library is not None and (self.library.exists or self.library.problems):
            rows += [row(), *template_text.library_rows(self.library)]
        return rows

    def on_option_list_option_highlighted(self, _message: OptionList.OptionHighlighted) -> None:
        self._show_detail()
        self.query_one("#detail", VerticalScroll).scroll_home(animate=False)

    def on_option_list_option_selected(self, _message: OptionList.OptionSelected) -> None:
        self.open_template()

    # What the keys do (hvtui.tui.screen_actions)

    def open_template(self) -> None:
        """Give the details the whole screen, or the list its place back."""
        is_open = not self.has_class("-open") and self.selected is not None
        self.set_class(is_open, "-open")
        self.query_one("#detail" if is_open else "#rows").focus()

    def back(self) -> None:
        """Leave the details, then the screen."""
        if self.has_class("-open"):
            self.open_template()
        else:
            self.hvtui.back()

    def deploy(self) -> None:
        """Open the form with the template under the cursor."""
        from hvtui.tui.screens.deploy import DeployScreen

        if (template := self.selected) is not None and self.library is not None:
            self.hvtui.push_screen(DeployScreen(template.name, self.library.pool))

    def add(self) -> None:
        """Open the form of a new template."""
        from hvtui.tui.screens.template_forms import AddTemplateScreen

        self.hvtui.push_screen(AddTemplateScreen(self.library))

    async def choose_library(self) -> None:
        """Ask which storage pool to look at."""
        from hvtui.tui.screens.prompt import PromptScreen

        usual = self.hvtui.library_at(self.hvtui.current_host)
        now = self.library.pool if self.library is not None else usual
        prompt = PromptScreen("Which library?", value=now, hint=f"a storage pool that holds files; empty: {usual}")
        answer = await self.hvtui.push_screen_wait(prompt)
        if answer is not None:
            self._chosen_library = answer.strip()
            self.library = None
            self.read_again()

    def edit(self) -> None:
        """Open the form with what the template under the cursor says of itself."""
        from hvtui.tui.screens.template_forms import EditTemplateScreen

        if (template := self.selected) is not None and self.library is not None:
            self.hvtui.push_screen(EditTemplateScreen(self.library, template))

    async def remove_template(self) -> None:
        """Remove it with its images; the plan names the VMs that still need these."""
        from vm.template_change import plan_remove

        if (template := self.selected) is not None and self.library is not None:
            host = self.hvtui.current_host
            plan = await self.hvtui.bridge.call(plan_remove, host, self.library, template)
            await self.hvtui.propose([plan], done="removed", ask=True)

    async def verify(self) -> None:
        """Read every byte of its images again; once more stops it."""
        from vm.template_verify import verify

        if self._verifying:
            self._is_cancelled = True
            return
        template, library = self.selected, self.library
        if template is None or library is None:
            return
        self._verifying, self._is_cancelled = template.name, False
        self._ticker = self.set_interval(_PROGRESS_S, self._tell_progress)
        try:
            found = await self.hvtui.bridge.call(
                verify, self.hvtui.current_host, library, template, self._note,
                is_cancelled=lambda: self._is_cancelled,
            )  # fmt: skip
        finally:
            self._ticker.stop()
            self._verifying, self._progress = "", (None, "")
        self._verified[template.manifest] = found
        if self.is_mounted:
            self._show_detail()
        name = printable(template.name, limit=60)
        if found.is_good:
            self.say(f"verified {name}: its images are what they were", "good")
        else:
            self.say(f"{name} is not what it was: see its details", "bad")

    def _note(self, fraction: float | None, note: str) -> None:
        """Called by the thread that reads; the timer shows it."""
        self._progress = (fraction, note)

    def _tell_progress(self) -> None:
        fraction, _ = self._progress
        part = f"  {fraction:.0%}" if fraction is not None else ""
        self.say(f"verifying {self._verifying}{part}   v stops it", "dim")


def _supports(os_ids: Collection[str]) -> dict[str, str]:
    """What osinfo-db says of these systems; nothing of one that it does not know, or where there is none."""
    from vm import os_catalogue

    found = dict.fromkeys(os_ids, "")
    for os_id in os_ids:
        with suppress(HvtuiError):
            found[os_id] = template_text.support_words(os_catalogue.look_up(os_id))
    return found
