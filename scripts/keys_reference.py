"""Writes docs/keys.md from the action registry: `python scripts/keys_reference.py` (--check only compares)."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

PAGE = Path(__file__).parents[1] / "docs/keys.md"
sys.path.insert(0, str(PAGE.parents[1]))

from hvtui.tui import actions, catalogue, keymap  # noqa: E402 - the path above comes first
from hvtui.tui.actions import Action  # noqa: E402
from vm import filter_words  # noqa: E402

INTRODUCTION = """# Keys

<!-- Written by scripts/keys_reference.py from the action registry. Do not edit: change the action, run it. -->

A key means the same thing on every screen. `?` shows those of the screen you are on; `ctrl+p` finds any action by a few
letters of its title; `:` runs one by its id. Actions on VMs work on the marked ones, else on the one under the cursor.
Everywhere: arrows or `j` `k` move, `g` `G` go to the ends, `enter` opens, `esc` goes back.

Any key can be changed in the [configuration](configuration.md), by the action's id:

```toml
[keys]
"vm.start" = "f5"
```
"""

SCOPES = {
    "vm": "Virtual machines",
    "fleet": "The list",
    "view": "One virtual machine on the whole screen",
    "app": "Everywhere",
    "jobs": "Jobs",
    "events": "Events",
    "host": "Host",
    "create": "New virtual machine",
    "xml": "XML editor",
    "templates": "Templates",
    "newtemplate": "New template",
    "edittemplate": "What a template says of itself",
    "deploy": "Deploy from a template",
    "import": "Import a virtual machine",
    "export": "Export a virtual machine",
    "capture": "Make a template from a virtual machine",
    "clone": "Clone a virtual machine",
    "size": "Memory and vCPUs",
    "drift": "Where a VM departs from its template",
    "whatif": "What if a host died",
}


def main() -> int:
    """Write the page; with --check return 1 when it is out of date."""
    catalogue.load()
    text = "\n".join(_lines()) + "\n"
    if "--check" in sys.argv[1:]:
        return int(not PAGE.is_file() or PAGE.read_text(encoding="utf-8") != text)
    PAGE.write_text(text, encoding="utf-8")
    return 0


def _lines() -> Iterator[str]:
    yield INTRODUCTION.rstrip()
    known = {action.scope for action in actions.all_actions()}
    for scope in (*(s for s in SCOPES if s in known), *sorted(known - SCOPES.keys())):
        yield f"\n## {SCOPES.get(scope, scope)}\n"
        yield "| key | does | id | the same as |"
        yield "| --- | --- | --- | --- |"
        yield from (_row(action) for action in actions.actions_for((scope,)))
    yield "\n## The filter (`/`)\n"
    yield filter_words.page().rstrip()


def _row(action: Action) -> str:
    keys = " ".join(f"`{keymap.display(key)}`" for key in action.keys)
    words = f"{action.title}: {action.help}" if action.help else action.title
    same = f"`hvtui {action.command}`" if action.command else ""
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in (keys, words, f"`{action.id}`", same)) + " |"


if __name__ == "__main__":
    sys.exit(main())
