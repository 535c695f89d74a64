"""The grammar that every noun shares: common options in any position, groups that load a verb only when it is used.

A common option may stand before the noun, after it, or after the verb; the innermost wins. Its value lands in the
Session, so a command's own function takes only what is its own. This module opens nothing and prints nothing.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import click

from hvtui.cli.session import Session

LONGEST_S = 1e9  # thirty years
LARGEST_ID = 2**63 - 1  # of a row of the journal

pass_session = click.make_pass_decorator(Session, ensure=True)


def _store(context: click.Context, option: click.Parameter, value: Any) -> None:
    """Keep a common option that was given; an outer position must not lose to an inner default."""
    if value not in (None, ()) and option.name is not None:
        context.ensure_object(Session).given[option.name] = value


def _complete_columns(context: click.Context, _option: click.Parameter, incomplete: str) -> list[str]:
    from hvtui.cli.completion import columns

    return columns(context, incomplete)


def _complete_hosts(context: click.Context, _option: click.Parameter, incomplete: str) -> list[str]:
    from hvtui.cli.completion import hosts

    return hosts(context, incomplete)


def _complete_groups(context: click.Context, _option: click.Parameter, incomplete: str) -> list[str]:
    from hvtui.cli.completion import groups

    return groups(context, incomplete)


def _option(*names: str, text: str, **attributes: Any) -> click.Option:
    return click.Option(list(names), help=text, expose_value=False, callback=_store, default=None, **attributes)


def _show_help(context: click.Context, _option: click.Parameter, wanted: bool) -> None:
    if wanted and not context.resilient_parsing:
        click.echo(context.get_help(), color=context.color)
        context.exit()


# click's own help option costs two milliseconds a start: it looks for translations.
HELP = click.Option(
    ["-h", "--help"], is_flag=True, is_eager=True, expose_value=False, callback=_show_help, help="Show this and exit."
)


LIBRARY_HELP = "The library's storage pool (the configuration's for this host, else library)."


class Seconds(click.FloatRange):
    """A range of seconds that a system's clock can count; a range alone keeps neither nan nor infinity out."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        seconds: float = super().convert(value, param, ctx)
        if not seconds <= LONGEST_S:
            self.fail(f"{value} is no number of seconds that can be waited.", param, ctx)
        return seconds


COMMON: tuple[click.Option, ...] = (
    _option(
        "--host",
        multiple=True,
        metavar="NAME",
        text="A host of the configuration, or local; several for lists and streams.",
        shell_complete=_complete_hosts,
    ),
    _option("--group", multiple=True, metavar="NAME", text="The hosts of a group.", shell_complete=_complete_groups),
    _option(
        "--all-hosts", is_flag=True, text="Every configured host: for lists and streams, and to find a VM by its name."
    ),
    _option("--connect", metavar="URI", text="Any libvirt URI (also HVTUI_URI, LIBVIRT_DEFAULT_URI)."),
    _option("--demo", is_flag=True, text="A simulated host with about 30 varied VMs."),
    _option("-o", "--output", type=click.Choice(["table", "json", "jsonl", "csv"]), text="How to write the data."),
    _option("--columns", metavar="A,B", text="These columns only, in this order.", shell_complete=_complete_columns),
    _option("--filter", metavar="TEXT", text="Only VMs that match, as '/' in the console: 'state:running tag:web'."),
    _option("--dry-run", is_flag=True, text="Show the plan and change nothing."),
    _option("-y", "--yes", is_flag=True, text="Do not ask before something is lost."),
    _option("--wait/--no-wait", is_flag=True, text="Wait for the job's end (the default), or leave it running."),
    _option("--timeout", type=Seconds(min=0, min_open=True), metavar="S", text="Wait at most S seconds."),
    _option("--read-only", is_flag=True, text="Open the hypervisor read-only; every change is refused."),
)


class _QuickParser(click.Command):
    def make_parser(self, ctx: click.Context) -> Any:
        """click looks every short option up as a long one first, and that failure costs three milliseconds."""
        parser: Any = super().make_parser(ctx)
        parser._long_opt.update(parser._short_opt)  # noqa: SLF001 - click offers no other way
        return parser


class Verb(_QuickParser):
    """A command with the common options, listed under a heading of their own."""

    def __init__(self, name: str, **attributes: Any) -> None:
        super().__init__(name, add_help_option=False, **attributes)
        self.params += (HELP, *COMMON)

    def format_options(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        own, shared = _options(self, context)
        _write_section(formatter, "Options", own)
        _write_section(formatter, "Common options", shared)


class Noun(_QuickParser, click.Group):
    """A group whose commands are imported when they are used. `verbs` maps a name to ("module:attribute", help)."""

    def __init__(self, name: str, *, verbs: Mapping[str, tuple[str, str]], **attributes: Any) -> None:
        super().__init__(name, add_help_option=False, **attributes)
        self.verbs = verbs
        self.params += (HELP, *COMMON)

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        return [name for name, (_, text) in self.verbs.items() if text]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in self.verbs:
            return None
        module, _, attribute = self.verbs[cmd_name][0].partition(":")
        return cast(click.Command, getattr(importlib.import_module(module), attribute))

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0]
        command = self.get_command(ctx, name)
        if command is None and not ctx.resilient_parsing:
            raise click.UsageError(f"no command {name!r}. {self.nearest(ctx, name)}", ctx)
        return (name if command else None), command, args[1:]

    def nearest(self, context: click.Context, word: str) -> str:
        """A hint at the command that an unknown word means."""
        from hvtui.cli.vocabulary import nearest_noun, nearest_verb

        if context.parent is not None:
            return nearest_verb(self.name or "", word, self.list_commands(context))
        nouns = {name: self.get_command(context, name) for name in self.list_commands(context)}
        return nearest_noun(word, {name: noun.verbs if isinstance(noun, Noun) else () for name, noun in nouns.items()})

    def format_commands(self, context: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """The list of verbs, without importing any of them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in self.verbs.items() if text])

    def format_options(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        own, shared = _options(self, context)
        _write_section(formatter, "Options", own)
        self.format_commands(context, formatter)
        _write_section(formatter, "Common options (in any position)", shared)


Entries = list[tuple[str, str]]


def _options(command: click.Command, context: click.Context) -> tuple[Entries, Entries]:
    """The help entries of the command's own options, and of the common ones."""
    own: Entries = []
    shared: Entries = []
    for parameter in command.get_params(context):
        entry = parameter.get_help_record(context)
        if entry is not None and entry[1]:
            (shared if parameter in COMMON else own).append(entry)
    return own, shared


def _write_section(formatter: click.HelpFormatter, heading: str, entries: Entries) -> None:
    if entries:
        with formatter.section(heading):
            formatter.write_dl(entries)


def verb(name: str, *parameters: click.Parameter, text: str, **attributes: Any) -> Callable[..., Verb]:
    """A command of a noun; its function gets the Session and its own parameters by name, and returns an exit code
    or None for 0."""

    def decorate(function: Callable[..., int | None]) -> Verb:
        return Verb(name, params=list(parameters), callback=pass_session(function), help=text, **attributes)

    return decorate


def _complete_vms(context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[str]:
    from hvtui.cli.completion import vm_names

    return vm_names(context, incomplete)


def _complete_jobs(context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[Any]:
    from hvtui.cli.completion import job_ids

    return job_ids(context, incomplete)


def _complete_active_vms(context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[str]:
    from hvtui.cli.completion import vm_names

    return vm_names(context, incomplete, active=True)


def complete_settings(context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[Any]:
    """For `vm set`: names of VMs, then settings."""
    from hvtui.cli.completion import names_and_settings

    return names_and_settings(context, incomplete)


def complete_sources(_context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[Any]:
    """For `vm create --from`: the words, and files."""
    from hvtui.cli.completion import sources

    return sources(incomplete)


def complete_template_sources(_context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[Any]:
    """For `template add --from`: the recipes, and files."""
    from hvtui.cli.completion import template_sources

    return template_sources(incomplete)


def _complete_templates(context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[str]:
    from hvtui.cli.completion import template_names

    return template_names(context, incomplete)


def names_argument(*, required: bool = False) -> click.Argument:
    """NAMES…: VM names, UUIDs, ids, or globs in quotes."""
    return click.Argument(["names"], nargs=-1, required=required, shell_complete=_complete_vms)


def name_argument(*, active: bool = False) -> click.Argument:
    """NAME: one VM; `active` offers the shell only those that run."""
    return click.Argument(["name"], shell_complete=_complete_active_vms if active else _complete_vms)


def templates_argument(*, required: bool = False) -> click.Argument:
    """NAMES…: templates of the library, or globs in quotes."""
    return click.Argument(["names"], nargs=-1, required=required, shell_complete=_complete_templates)


def template_argument() -> click.Argument:
    """NAME: one template of the library."""
    return click.Argument(["name"], shell_complete=_complete_templates)


def job_argument() -> click.Argument:
    """ID: one job."""
    return click.Argument(
        ["job_id"], type=click.IntRange(min=1, max=LARGEST_ID), metavar="ID", shell_complete=_complete_jobs
    )


def job_arguments() -> click.Argument:
    """ID…: one job or several."""
    kind = click.IntRange(min=1, max=LARGEST_ID)
    return click.Argument(
        ["job_ids"], type=kind, nargs=-1, required=True, metavar="ID...", shell_complete=_complete_jobs
    )


def option(*names: str, text: str, **attributes: Any) -> click.Option:
    """An option of one verb."""
    return click.Option(list(names), help=text, **attributes)


Verbs = Mapping[str, tuple[str, str]]
Names = Sequence[str]
