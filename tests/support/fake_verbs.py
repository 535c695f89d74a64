"""Step verbs that make, change and remove files, and plans made of them: jobs without a hypervisor.

`fake.make` writes a file in two halves, like a disk being copied, so that a process killed in the middle leaves a half
one. Where a file PATH.pause lies, it stops in the middle, writes PATH.paused and waits until PATH.pause is gone.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from host.errors import ConnectionLost, HvtuiError
from host.plan import Lane, Plan, Step
from host.steps import Args, Result, StepContext, StepVerb, register

URI = "test+unix:///default"


def make(context: StepContext, args: Args) -> Result:
    """Make the file with its text, if it is not whole yet."""
    path, text = Path(args["path"]), args.get("text", "whole")
    if path.exists() and path.read_text() == text:
        return {"path": str(path)}
    path.write_text(text[: len(text) // 2])
    context.progress(0.5, "half")
    pause = path.with_name(path.name + ".pause")
    while pause.exists():
        path.with_name(path.name + ".paused").touch()
        context.raise_if_cancelled()
        time.sleep(0.01)
    if "fail" in args:
        raise HvtuiError(args["fail"], about=path.name, remedy="Try less")
    path.write_text(text)
    return {"path": str(path)}


def unmake(context: StepContext, args: Args, result: Result | None) -> None:
    """Remove the file, whole or half."""
    Path(args["path"]).unlink(missing_ok=True)


def remove(context: StepContext, args: Args) -> Result:
    """Remove a file; nothing brings it back."""
    Path(args["path"]).unlink(missing_ok=True)
    return {}


def flicker(context: StepContext, args: Args) -> Result:
    """Lose the connection as often as the file's number says, which counts down; then be done."""
    path = Path(args["path"])
    left = int(path.read_text())
    if left:
        path.write_text(str(left - 1))
        raise ConnectionLost("the connection broke", about="lab1")
    return {}


def ask(context: StepContext, args: Args) -> Result:
    """Ask the hypervisor something, then make the file."""
    with context.calls("ask for the version") as connection:
        connection.getLibVersion()
    Path(args["path"]).touch()
    return {}


def explode(context: StepContext, args: Args) -> Result:
    """A bug in a verb."""
    raise ZeroDivisionError("division by zero")


def stubborn(context: StepContext, args: Args, result: Result | None) -> None:
    """A rollback that works only once the file is there."""
    if not Path(args["path"]).exists():
        raise HvtuiError("will not go back", remedy="Make the file")


def _make_again(args: Args, result: Result) -> Step:
    return remove_step(result["path"])


def no_way_back(args: Args, result: Result) -> Step | str:
    return "what was removed is gone"


register(StepVerb("fake.make", make, unmake, _make_again))
register(StepVerb("fake.remove", remove, None, no_way_back))
register(StepVerb("fake.flicker", flicker, None, no_way_back))
register(StepVerb("fake.ask", ask, unmake, no_way_back))
register(StepVerb("fake.explode", explode, None, no_way_back))
register(StepVerb("fake.stubborn", lambda context, args: {}, stubborn, no_way_back))


def make_step(path: Path | str, **args: str) -> Step:
    return Step("fake.make", f"Make {Path(path).name}", {"path": str(path), **args})


def ask_step(path: Path) -> Step:
    return Step("fake.ask", "Ask", {"path": str(path)})


def remove_step(path: Path | str) -> Step:
    return Step("fake.remove", f"Remove {Path(path).name}", {"path": str(path)}, losses=(str(path),))


def three_files(directory: Path) -> tuple[Path, ...]:
    return tuple(directory / name for name in ("one", "two", "three"))


def plan_of(
    steps: Sequence[Step],
    *,
    vm: str | None = "web",
    uuid: str | None = None,
    title: str = "Make it",
    uri: str = URI,
    lanes: Sequence[Lane] = (),
) -> Plan:
    return Plan(
        title=title,
        host_uri=uri,
        steps=tuple(steps),
        command=("vm", "x"),
        vm_name=vm,
        vm_uuid=uuid,
        lanes=tuple(lanes),
    )


def plan_three(directory: Path, *, vm: str | None = "web") -> Plan:
    """Make three files, one a step."""
    return plan_of([make_step(path) for path in three_files(directory)], vm=vm)
