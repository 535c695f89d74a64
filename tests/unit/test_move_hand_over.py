"""Behind the moment when a VM changes hands nothing is taken back, whatever goes wrong."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from host.errors import Busy, ConnectionLost, HvtuiError
from host.steps import verb_named
from tests.support.moves import MARK
from vm import move_leftovers, move_memory, move_steps, steps

assert steps  # registers the verbs
CONTEXT: Any = SimpleNamespace(host=None)
ARGS: dict[str, Any] = {
    "uuid": "u", "name": "web", "source": "a://", "target": "b://", "source_name": "lab1", "target_name": "lab2",
    "mark": MARK, "running": True, "persistent": True, "autostart": False, "path": "/x/y", "is_common": True,
    "target_path": "/x/y", "paths": [], "copies": [],
}  # fmt: skip


def failing(error: HvtuiError) -> Any:
    def fail(*_args: object, **_options: object) -> None:
        raise error

    return fail


@pytest.mark.parametrize("error", [Busy("libvirt is still moving it"), ConnectionLost("gone"), HvtuiError("odd")])
@pytest.mark.parametrize("verb", ["move.finish", "move.drop-save", "move.forget-disks", "move.forget-nvram"])
def test_an_error_behind_the_hand_over_keeps_everything(verb: str, error: HvtuiError, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(move_steps, "wait_until_quiet", failing(error))
    monkeypatch.setattr(move_memory, "remove_file", failing(error))
    monkeypatch.setattr(move_leftovers, "look", failing(error))
    monkeypatch.setattr("vm.move_disk_steps.look_at", failing(error))

    with pytest.raises(type(error)) as raised:
        verb_named(verb).do(CONTEXT, ARGS)

    assert raised.value.keeps


def test_a_vm_that_is_off_is_given_back_as_long_as_the_source_has_it(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(move_steps, "wait_until_quiet", failing(Busy("libvirt is still moving it")))

    with pytest.raises(Busy) as raised:
        verb_named("move.finish").do(CONTEXT, {**ARGS, "running": False})

    assert not raised.value.keeps


@pytest.mark.parametrize("verb", ["move.live", "move.restore"])
def test_the_steps_that_hand_over_say_so(verb: str):
    hands_over = verb_named(verb).hands_over

    assert hands_over is not None
    assert hands_over({"handed_over": True}) and not hands_over({"handed_over": False})
