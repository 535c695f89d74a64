"""The root of the grammar: `hvtui [--headless] NOUN VERB`, and what `hvtui` alone means."""

from __future__ import annotations

import sys

import click

from hvtui.cli.grammar import Noun, pass_session
from hvtui.cli.session import Session

EXIT_CODES = """Exit codes: 0 done, 1 failed, 2 usage, 3 not found, 4 conflict (exists, busy, wrong state),
5 permission, 6 connection, 7 timeout, 8 not supported here, 9 blocked by a precheck, 130 interrupted."""

NOUNS = {
    "vm": ("hvtui.cli.vm:vm", "Virtual machines: list, start, stop, create, change, watch."),
    "host": ("hvtui.cli.host:host", "This host: what it has, how busy it is, what happens on it."),
    "job": ("hvtui.cli.job:job", "Jobs: what was changed, what runs, what can be taken back."),
    "profile": ("hvtui.cli.profile:profile", "Profiles: the hardware of new VMs, and what their guests shall be."),
    "template": ("hvtui.cli.template:template", "Templates: the library that new VMs are made from."),
    "completion": ("hvtui.cli.completion:completion", "Print the completion script of a shell."),
}


@click.pass_context
def _alone(context: click.Context, headless: bool, version: bool) -> int | None:
    """Without a noun: the console on a terminal, the overview elsewhere."""
    if version:
        from hvtui import __version__

        click.echo(f"hvtui {__version__}")
        context.exit(0)
    if context.invoked_subcommand is not None:
        return None
    session = context.ensure_object(Session)
    on_terminal = sys.stdin.isatty() and sys.stdout.isatty()
    if session.open_screen is not None and on_terminal and not headless:
        return session.open_screen(session)
    from hvtui.cli.overview import show_overview

    return show_overview(session)


root = Noun(
    "hvtui",
    verbs=NOUNS,
    callback=_alone,
    invoke_without_command=True,
    params=[
        click.Option(["--headless"], is_flag=True, help="Never open the console; alone: print the host's overview."),
        click.Option(["--version"], is_flag=True, help="Print the version."),
    ],
    help="Virtual machines on this host: a console for the keyboard, and the same as commands.\n\n"
    "hvtui alone opens the console; hvtui NOUN VERB is a command for scripts.",
    epilog=EXIT_CODES,
    context_settings={"max_content_width": 100},
)

__all__ = ["pass_session", "root"]
