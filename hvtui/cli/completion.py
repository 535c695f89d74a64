"""`hvtui completion SHELL`, and what the shell is offered: VM names, job ids, columns, hosts.

A completion must be quick and must never write over the line being typed: whatever fails offers nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from host.errors import HvtuiError
from hvtui.cli.grammar import verb
from hvtui.cli.output import write_text
from hvtui.cli.session import Session

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

PATIENCE_S = 2.0
MOST_JOBS = 30
COMPLETE_VARIABLE = "_HVTUI_COMPLETE"


@verb(
    "completion",
    click.Argument(["shell"], type=click.Choice(["bash", "zsh", "fish"])),
    text="Print the completion script of a shell. For bash: hvtui completion bash "
    "> ~/.local/share/bash-completion/completions/hvtui",
)
def completion(_session: Session, shell: str) -> None:
    from click.shell_completion import ShellComplete, get_completion_class

    from hvtui.cli.root import root

    kind = get_completion_class(shell)
    assert kind is not None, "the three choices are click's own"  # noqa: S101 - for the type checker
    # ShellComplete.source: bash's own override runs a bash to complain about old versions of it.
    write_text(ShellComplete.source(kind(root, {}, "hvtui", COMPLETE_VARIABLE)))


def vm_names(context: click.Context, incomplete: str, *, active: bool = False) -> list[str]:
    """The names of VMs (`active`: of those that run) that begin so; one that a shell could misread is left out."""
    session = context.ensure_object(Session)
    session.given.setdefault("timeout", PATIENCE_S)
    try:
        from vm.inventory import read_states

        names = [vm.name for vm in read_states(session.host()) if vm.is_active or not active]
    except (HvtuiError, OSError):
        return []
    return [name for name in names if name.startswith(incomplete) and name.isprintable()]


def names_and_settings(context: click.Context, incomplete: str) -> list[str]:
    """Settings as KEY=, and, until one was given, names of VMs."""
    from vm.settings import SETTINGS

    words = context.params.get("words") or ()
    settings = [f"{key}=" for key in SETTINGS if f"{key}=".startswith(incomplete)] if words else []
    return settings if any("=" in word for word in words) else [*settings, *vm_names(context, incomplete)]


def sources(incomplete: str) -> list[CompletionItem]:
    """What --from takes: its words where they fit, else files."""
    from click.shell_completion import CompletionItem

    words = [CompletionItem(word) for word in ("tiny", "empty") if word.startswith(incomplete)]
    return words or [CompletionItem(incomplete, type="file")]


def template_names(context: click.Context, incomplete: str) -> list[str]:
    """The names of the library's templates that begin so; those of the library that --library names."""
    session = context.ensure_object(Session)
    session.given.setdefault("timeout", PATIENCE_S)
    try:
        from vm.library import read

        library = session.library(context.params.get("library"))
        names = [template.name for template in read(session.host(), library).templates]
    except (HvtuiError, OSError):
        return []
    return [name for name in names if name.startswith(incomplete)]


def template_sources(incomplete: str) -> list[CompletionItem]:
    """What `template add --from` takes: recipes where they fit, else files."""
    from click.shell_completion import CompletionItem

    from vm.recipes import RECIPES

    words = [CompletionItem(word) for word in RECIPES if word.startswith(incomplete)]
    return words or [CompletionItem(incomplete, type="file")]


def job_ids(context: click.Context, incomplete: str) -> list[CompletionItem]:
    """The newest jobs' ids with their titles."""
    from click.shell_completion import CompletionItem

    from host.text import printable

    try:
        newest = context.ensure_object(Session).journal().jobs(limit=MOST_JOBS)
    except (HvtuiError, OSError):
        return []
    return [
        CompletionItem(str(job.id), help=printable(job.title, limit=60))
        for job in newest
        if str(job.id).startswith(incomplete)
    ]


def columns(context: click.Context, incomplete: str) -> list[str]:
    """The columns of the noun at hand; those already named stay in front."""
    from importlib import import_module

    noun = context.parent.info_name if context.parent else None
    if noun not in {"vm", "job", "profile", "template"}:
        return []
    before, comma, last = incomplete.rpartition(",")
    keys = [column.key for column in import_module(f"hvtui.cli.{noun}").COLUMNS]
    return [f"{before}{comma}{key}" for key in keys if key.startswith(last)]


def hosts(context: click.Context, incomplete: str) -> list[str]:
    """The names of the configured hosts."""
    try:
        known = context.ensure_object(Session).config().hosts
    except (HvtuiError, OSError):
        return []
    return [name for name in ("local", *(host.name for host in known)) if name.startswith(incomplete)]


def groups(context: click.Context, incomplete: str) -> list[str]:
    """The groups of the configured hosts."""
    try:
        known = context.ensure_object(Session).config().hosts
    except (HvtuiError, OSError):
        return []
    return sorted({group for host in known for group in host.groups if group.startswith(incomplete)})
