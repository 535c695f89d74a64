"""The commands that deployments equal: of a whole set, and of one VM of it alone. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from vm.deploy_request import DeployRequest

SECRET_SETTINGS = frozenset({"password-hash", "run"})  # what the journal must not hold
# Options of `hvtui vm deploy` that say how many and which, with the number of words that follow them.
_OF_THE_SET = {"-n": 1, "--count": 1, "--first": 1}


def of_one(request: DeployRequest, name: str) -> tuple[str, ...]:
    """The set's command with this name in place of the pattern and without the numbers."""
    words = list(request.command)
    if words[:2] != ["vm", "deploy"] or len(words) < 4:
        return ("vm", "deploy", request.template, name)
    kept: list[str] = []
    rest = iter(words[2:-2])
    for word in rest:
        if word in _OF_THE_SET:
            for _ in range(_OF_THE_SET[word]):
                next(rest, None)
        elif word != "--":
            kept.append(word)
    separator = ("--",) if name.startswith("-") or request.template.startswith("-") else ()
    return ("vm", "deploy", *kept, *separator, request.template, name)


def of_set(template: str, pattern: str, asked: Mapping[str, Any]) -> tuple[str, ...]:
    """The command of a set, with the options as they were given, by their long names (None: not given), without what
    may be secret: count, first, user_data, pool, library, until, title, owner, linked, profiles, settings, tags."""
    separator = ("--",) if template.startswith("-") or pattern.startswith("-") else ()
    return ("vm", "deploy", *_words(asked), *separator, template, pattern)


def _words(asked: Mapping[str, Any]) -> Iterator[str]:
    options = {
        "count": "-n", "first": "--first", "user_data": "--user-data", "pool": "--pool", "library": "--library",
        "until": "--until", "title": "--title", "owner": "--owner",
    }  # fmt: skip
    for key, name in options.items():
        if asked.get(key) is not None:
            yield from (name, str(asked[key]))
    if asked.get("linked") is False:
        yield "--full"
    for key, name in (("profiles", "--profile"), ("settings", "--set"), ("tags", "--tag")):
        for value in asked.get(key) or ():
            if key != "settings" or value.partition("=")[0].strip() not in SECRET_SETTINGS:
                yield from (name, value)
