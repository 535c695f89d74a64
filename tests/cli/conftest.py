"""Ways to run a command line: in this process through the outermost edge, or as a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from hvtui.__main__ import run

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True, slots=True)
class Result:
    """What a command left behind."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Command = Callable[..., Result]


@pytest.fixture
def hv(simulated_uri: str, capsys: pytest.CaptureFixture[str]) -> Command:
    """Run one command in this process on a fresh varied world, through hvtui.__main__.run."""

    def command(*words: str, connect: str | None = simulated_uri) -> Result:
        capsys.readouterr()
        code = run([*(("--connect", connect) if connect else ()), *words])
        told = capsys.readouterr()
        return Result(code, told.out, told.err)

    return command


def environment(**changes: str) -> dict[str, str]:
    """This process's environment for a child, without what would change its output."""
    kept = {key: value for key, value in os.environ.items() if key not in {"NO_COLOR", "HVTUI_URI", "HVTUI_DEBUG"}}
    return {**kept, "PYTHONPATH": str(ROOT), **changes}


@pytest.fixture
def process(simulated_uri: str) -> Command:
    """Run `python -m hvtui` in a process of its own, without a terminal."""

    def command(*words: str, stdin: str = "", **changes: str) -> Result:
        done = subprocess.run(
            [sys.executable, "-m", "hvtui", *words],
            input=stdin,
            capture_output=True,
            text=True,
            timeout=60,
            env=environment(**{"HVTUI_URI": simulated_uri, **changes}),
            check=False,
        )
        return Result(done.returncode, done.stdout, done.stderr)

    return command
