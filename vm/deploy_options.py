"""The command that deploys one VM of a set alone: the equivalent command line of its plan. Pure."""

from __future__ import annotations

from vm.deploy_request import DeployRequest

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
