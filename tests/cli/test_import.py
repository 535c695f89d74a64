"""`vm import` and `vm export`: what is said of files and directories before anything is looked at."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.conftest import Command
from vm.export import _check_target, _Findings


@pytest.mark.parametrize("options", [(), ("--restore",), ("--register",), ("--no-start",)])
def test_a_source_that_is_not_there_is_said_first(hv: Command, options: tuple[str, ...]) -> None:
    told = hv("vm", "import", "/does/not/exist", *options)
    assert told.code == 3
    assert "/does/not/exist: no such file or directory" in told.err


def test_a_bundle_that_is_there_is_answered_with_a_place_beside_it(tmp_path: Path) -> None:
    for name in ("web", "web-2"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "disk").touch()
    findings = _Findings()
    _check_target(tmp_path / "web", findings)
    assert findings.blockers[0].remedy == f"Give a new one, such as {tmp_path}/web-3"
