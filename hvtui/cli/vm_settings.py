"""`hvtui vm`: rename, set, edit, delete. Each is one plan_* of vm.settings, vm.edit or vm.delete."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from host.errors import NotFound, UsageError
from host.text import printable
from hvtui.cli.change import change, change_vms
from hvtui.cli.chosen import chosen_vms, one_vm
from hvtui.cli.grammar import complete_settings, name_argument, names_argument, option, verb
from hvtui.cli.output import narrate
from hvtui.cli.session import Session

if TYPE_CHECKING:
    from collections.abc import Callable

    from host.connection import Host
    from host.plan import Plan
    from vm.model import Vm

LARGEST_XML_BYTES = 4 * 1024 * 1024


@verb("rename", name_argument(), click.Argument(["new_name"], metavar="NEW"), text="Give a VM another name.")
def rename(session: Session, name: str, new_name: str) -> int:
    from vm.settings import plan_rename

    return change_vms(session, [one_vm(session, name)], lambda host, vm: plan_rename(host, vm, new_name))


@verb(
    "set",
    click.Argument(
        ["words"], nargs=-1, required=True, metavar="NAMES... KEY=VALUE...", shell_complete=complete_settings
    ),
    text="Change settings. Keys: title, description, tags (a,b or +a or -b), owner, autostart, vcpus, memory. "
    "An empty value clears: hvtui vm set web owner= tags=prod,web memory=2G",
)
def set_(session: Session, words: tuple[str, ...]) -> int:
    from vm.settings import plan_set

    first = next((place for place, word in enumerate(words) if "=" in word), len(words))
    names, settings = words[:first], words[first:]
    odd = next((word for word in settings if "=" not in word), None)
    if not settings or odd is not None:
        wrong = f"{printable(odd, limit=60)!r} is no KEY=VALUE" if odd else "nothing to set"
        raise UsageError(wrong, remedy="hvtui vm set NAMES… KEY=VALUE…")
    changes = dict(word.split("=", 1) for word in settings)
    return change_vms(session, chosen_vms(session, names), lambda host, vm: plan_set(host, vm, changes))


@verb(
    "delete",
    names_argument(),
    option(
        "--disk",
        "disks",
        multiple=True,
        metavar="DISK",
        text="Remove this disk too: its path or target (may be repeated).",
    ),
    option("--all-disks", is_flag=True, text="Remove every disk that nothing else uses."),
    option("--off", is_flag=True, text="Turn one that runs off first."),
    text="Delete VMs with all their leftovers (NVRAM, saved state, TPM). Disks stay unless named; one that another VM "
    "uses or builds on is never removed.",
)
def delete(session: Session, names: tuple[str, ...], disks: tuple[str, ...], all_disks: bool, off: bool) -> int:
    from vm.delete import plan_delete

    def plan(host: Host, vm: Vm) -> Plan:
        return plan_delete(host, vm, remove_disks=disks, all_disks=all_disks, off=off)

    return change_vms(session, chosen_vms(session, names, config=True), plan)


@verb(
    "edit",
    name_argument(),
    option(
        "--file",
        "source",
        type=click.Path(allow_dash=True),
        metavar="FILE",
        text="Take the XML from FILE (- is standard input), do not open $EDITOR.",
    ),
    text="Edit a VM's XML in $VISUAL or $EDITOR, see the difference, and apply it when confirmed.",
)
def edit(session: Session, name: str, source: str | None) -> int:
    from hvtui.cli.editor import draft
    from vm.edit import editable_xml, plan_edit

    vm = one_vm(session, name, config=True)
    host = session.host()
    before = editable_xml(host, vm)

    def change_to(make: Callable[[], Plan] | None, *, ask: bool) -> int:
        if make is None:
            narrate("Nothing changed")
            return 0
        return change(session, [(vm.name, vm.uuid, make)], ask=ask)

    if source:
        after = _read(source)
        is_same = after.strip() == before.strip()
        return change_to(None if is_same else lambda: plan_edit(host, vm, after), ask=False)
    with draft(before, f"{vm.uuid}.xml") as text:
        plan = text.edit(lambda after: plan_edit(host, vm, after))
        code = change_to(None if plan is None else lambda: plan, ask=True)
        text.is_applied = code == 0 and not session.dry_run
    return code


def _read(source: str) -> str:
    """The text of a file, or of standard input; one larger than any VM's XML is refused. Raises NotFound, UsageError,
    OSError."""
    if source == "-":
        text = sys.stdin.read(LARGEST_XML_BYTES + 1)
    else:
        try:
            with Path(source).open(encoding="utf-8", errors="replace") as file:
                text = file.read(LARGEST_XML_BYTES + 1)
        except (FileNotFoundError, NotADirectoryError) as error:
            raise NotFound("there is no such file", about=source) from error
    if len(text) > LARGEST_XML_BYTES:
        raise UsageError("that is too large for a VM's XML", about=source)
    return text
