"""Writes docs/headless.md from the commands themselves: `python scripts/headless_reference.py` (--check only compares).

The names, options and JSON keys come from click and from the tables of columns, so the page cannot go stale: a test
runs --check.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import click

PAGE = Path(__file__).parents[1] / "docs/headless.md"
sys.path.insert(0, str(PAGE.parents[1]))

from hvtui.cli import (  # noqa: E402 - the path above comes first
    host_drain,
    host_list,
    host_test,
    host_whatif,
    job,
    profile,
    streaming,
    template,
    vm,
    vm_origin,
    vm_place,
)
from hvtui.cli.grammar import COMMON, HELP, Noun  # noqa: E402
from hvtui.cli.output import Column  # noqa: E402
from hvtui.cli.root import root  # noqa: E402
from vm import filter_words, profiles  # noqa: E402

INTRODUCTION = """# Headless reference

<!-- Written by scripts/headless_reference.py from the commands themselves. Do not edit: change the command, run it. -->

```
hvtui [--headless] NOUN VERB [NAMES…] [options]
```

`hvtui NOUN VERB` and `hvtui --headless NOUN VERB` mean the same. `hvtui --headless` alone prints the host's overview;
`hvtui` alone opens the console on a terminal and prints the overview elsewhere. `hvtui --demo` shows a simulated host.

- **NAMES** are names, UUIDs, ids of running VMs, or globs in quotes: `hvtui vm start 'web-*' db-01`. An exact name wins
  over its glob characters. `--filter` narrows them, or stands alone.
- **Standard output carries data, standard error everything else.** No escape sequences unless on a terminal; NO_COLOR
  is honoured; a progress bar on a terminal, plain lines elsewhere.
- **Several VMs** are planned together, run four at a time, and reported one by one. A VM that a glob or `--filter`
  matched and that already is what was asked for is `unchanged`, which is a success; named exactly it is a conflict (4).
- **Warnings** of a plan are written to standard error, also without `--dry-run`.
- **`--dry-run`** prints the plan (with `-o json` as JSON) and changes nothing; it ends with the code that the change
  would be refused with.
- **What loses something** asks on a terminal (a deletion wants the name typed) and is refused with 2 elsewhere, unless
  `--yes` is given. So do `vm off` and `vm reset` for more than one VM or with a glob: the guests are not asked. One VM
  named exactly goes at once.
- **Ctrl-C** cancels the jobs of the command, waits until they have cleaned up, and ends with 130; a second one leaves
  at once. A long job (create, save) runs in a process of its own: closing the terminal does not end it, and `--no-wait`
  returns as soon as it has begun.
- **Guest-made text** (names, descriptions) is true in JSON, escaped to ASCII; tables and CSV show control characters as
  `\\e` or `\\x07`. A CSV cell that a spreadsheet would run as a formula begins with an apostrophe.
- **Environment**: `HVTUI_URI`, `LIBVIRT_DEFAULT_URI` (the hypervisor), `NO_COLOR`, `VISUAL`, `EDITOR`,
  `HVTUI_DEBUG=1` (traceback of an internal error), `HVTUI_STATE_DIR`, `HVTUI_CACHE_DIR`, `HVTUI_CONFIG`.
- **Completion**: `hvtui completion bash > ~/.local/share/bash-completion/completions/hvtui`; also zsh and fish.
"""

EXIT_CODES = (
    ("0", "done"),
    ("1", "failed; or several VMs failed for different reasons"),
    (
        "2",
        "usage: a wrong option, value, XML or configuration; a file that was given is damaged, hostile (it names other "
        "files, say) or none of its kind; a confirmation is missing",
    ),
    ("3", "not found: no such VM, job, host, file"),
    ("4", "conflict: the name is taken, another job holds the VM, or its state does not allow it"),
    ("5", "permission denied"),
    ("6", "the hypervisor cannot be reached, or was lost on the way"),
    ("7", "timeout"),
    ("8", "not supported by this host, driver or version"),
    ("9", "blocked by a precheck of the plan, or by several of different kinds"),
    ("130", "interrupted or cancelled, or the question was answered with no"),
    ("141", "the reader of standard output left"),
)

RESULT_KEYS = (
    ("vm", "The VM's name; the template's for those of `template`."),
    ("uuid", "Its UUID; null for one that was to be made, and for a template."),
    (
        "result",
        "done, failed (also before a job was made), cancelled, interrupted; unchanged where a glob or --filter matched "
        "a VM that already was what was asked for; with --no-wait asked (stop, restart), queued or running.",
    ),
    ("job", "The job's number, or null when there was none."),
    ("exit_code", "What this one alone would have ended with."),
    ("error", "Why it failed, or null."),
    ("remedy", "What to do about it, or null."),
)

PLAN_KEYS = (
    ("title", "What it does, in words."),
    ("host_uri, vm_uuid, vm_name", "Where and to what."),
    ("danger", "none, disruptive (interrupts the guest) or destructive (something is lost for good)."),
    ("command", "The equivalent arguments of hvtui."),
    ("steps", "In order: verb, title, args, commands (the equivalent virsh or qemu-img lines), losses."),
    ("warnings, losses, keeps", "In words: what may surprise, what is lost, what stays."),
    ("blockers", "Why it cannot run: reason, remedy."),
    ("xml_before, xml_after", "The XML now and then, where it changes."),
    ("long", "True when it gets a process of its own."),
    ("undoes_job", "The job that it takes back, or null."),
)

RATES = f"vm, uuid, {', '.join(streaming.RATE_KEYS)}, memory_bytes, memory_used_bytes"
LINE_KINDS = (
    (
        "state",
        "vm watch",
        "A state, first of each VM (`was` is null), then each change: vm, uuid, state, reason, was",
    ),
    ("rates", "vm watch", f"A running VM, each interval: {RATES}; null where a counter was reset or is not known"),
    ("gone", "vm watch", "A VM that is no more: vm, uuid, was"),
    ("defined, started, paused, …", "host events", "An event: kind, vm, uuid, detail (libvirt's reason in words)"),
    ("link", "both", "The connection is lost (`status` lost, with `error`) or back (connected); the stream goes on"),
)


def page() -> str:
    """The whole page."""
    parts = [INTRODUCTION, "## Common options\n", _options(COMMON), "\n## Exit codes\n", _table("code", EXIT_CODES)]
    parts += ["\n## The filter language\n", "`--filter TEXT`, and `/` in the console.\n", filter_words.page().rstrip()]
    parts += ["\n## Commands\n"]
    for name, noun in _commands(root):
        parts += _noun(name, noun) if isinstance(noun, Noun) else [_verb(name, noun)]
    parts += ["## JSON keys\n", "They are stable: keys may be added, none is renamed or removed.\n"]
    parts += ["### A VM (`vm list`, `vm show`)\n", _columns(vm.COLUMNS), _rows([(vm_origin.KEY, vm_origin.MEANING)])]
    parts += [
        "\nThose marked * cost a call a VM: `vm list` leaves them out unless named in --columns or with --details.\n"
        "CPU, disk and network rates take two readings of the counters: `vm watch --once` tells them, no list does.\n"
    ]
    parts += ["### A job (`job list`, `job show`)\n", _columns(job.COLUMNS)]
    parts += ["\n### A template (`template list`, `template show`)\n", _columns(template.COLUMNS)]
    parts += [_rows(template.SHOWN_KEYS), f"\n{VERDICT}"]
    parts += ["\n### A profile (`profile list`, `profile show`)\n", _columns(profile.COLUMNS)]
    parts += ["\n### Settings of profiles (`--set KEY=VALUE`)\n", _table("key", profiles.SETTINGS.items())]
    parts += ["\n### A result (every verb that changes something)\n", _table("key", RESULT_KEYS)]
    parts += ["\n### A plan (`--dry-run -o json`)\n", _table("key", PLAN_KEYS)]
    parts += [STREAMS]
    parts += ["| kind | from | meaning |\n| --- | --- | --- |", *(f"| {a} | {b} | {c} |" for a, b, c in LINE_KINDS)]
    parts += ["\n### A host of the list (`host list`)\n", _columns(host_list.COLUMNS)]
    parts += ["\n### A leg (`host test`)\n", _columns(host_test.COLUMNS)]
    parts += ["\n### A rating (`vm place`)\n", _columns(vm_place.COLUMNS)]
    parts += ["\n### A VM of a host to be drained (`host drain --plan`)\n", _columns(host_drain.COLUMNS)]
    parts += ["\n### A VM of a lost host (`host whatif`)\n", _columns(host_whatif.COLUMNS)]
    parts += ["\n### The host (`host show`, `host overview`)\n", HOST_KEYS]
    return "\n".join(parts).rstrip() + "\n"


STREAMS = """
### Lines of `vm watch` and `host events`

Each has `at` (ISO 8601, UTC), `kind` and `host`. Several hosts (`--all-hosts`, `--group`, several `--host`) are one
stream, and a host that does not answer delays no other; exit code 6: one did not answer in the end.
"""
VERDICT = """`template verify`: `template`, `image`, `result` (good, missing, changed, damaged, unreadable), `detail`,
`structure_checked` (true where qemu-img looked at it too)."""
HOST_KEYS = """`host show`: `name`, `uri`, every fact of the host (`host_name`, `architecture`, `cpu_model`, `cpus`,
`memory_bytes`, `numa`, `driver`, `hypervisor_version`, `libvirt_version`, `accelerator`, `accelerator_reason`,
`machine_types`, `firmware`, `secure_boot`, `tpm_models`, `emulator`, `default_machine`, `vcpus_max`, …), and `load`
(`cpu_percent`, `memory_used_bytes`, `memory_total_bytes`, `disk_used_bytes`, `disk_total_bytes`). `host overview`:
`host` (those facts), `load`, `vms` (`total` and a number for each state that occurs), `attention` (`vm`, `uuid`,
`state`, `reason`) and `jobs` (`id`, `state`, `title`, `progress`) that run or were interrupted."""


def _commands(group: Noun) -> Iterator[tuple[str, click.Command]]:
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if command is not None:
            yield name, command


def _noun(name: str, noun: Noun) -> list[str]:
    return [f"### {name}\n", f"{noun.help}\n", *(_verb(f"{name} {verb}", each) for verb, each in _commands(noun))]


def _verb(path: str, command: click.Command) -> str:
    context = click.Context(command, info_name=path)
    own = [each for each in command.params if each not in COMMON and each is not HELP]
    arguments = [each.make_metavar(context) for each in own if isinstance(each, click.Argument)]
    options = [each for each in own if isinstance(each, click.Option) and not each.hidden]
    usage = " ".join([f"hvtui {path}", *arguments, *(["[options]"] if options else [])])
    return f"#### `{usage}`\n\n{command.help}\n" + (f"\n{_options(options)}\n" if options else "")


def _options(options: Sequence[click.Parameter]) -> str:
    rows = []
    for each in options:
        entry = each.get_help_record(click.Context(root))
        if entry is not None:
            rows.append((f"`{entry[0].replace('|', chr(92) + '|')}`", entry[1]))
    return _table("option", rows)


def _columns(columns: Iterable[Column]) -> str:  # type: ignore[type-arg] - of any noun
    return _table("key", [(f"`{each.key}`{' *' if each.extra else ''}", each.meaning) for each in columns])


def _rows(rows: Iterable[tuple[str, str]]) -> str:
    return "\n".join(f"| `{a}` | {b} |" for a, b in rows)


def _table(first: str, rows: Iterable[tuple[str, str]]) -> str:
    return "\n".join([f"| {first} | meaning |", "| --- | --- |", *(f"| {a} | {b} |" for a, b in rows)])


def main() -> int:
    """Write the page, or with --check compare it; 1 when it is out of date."""
    new = page()
    if "--check" in sys.argv[1:]:
        is_current = PAGE.exists() and PAGE.read_text(encoding="utf-8") == new
        if not is_current:
            sys.stderr.write(f"{PAGE} is out of date: run scripts/headless_reference.py\n")
        return 0 if is_current else 1
    PAGE.write_text(new, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
