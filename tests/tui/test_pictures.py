"""`make screenshots` writes the same bytes whenever, wherever and by whomever it is run."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
NAMES = (
    "jobs",
    "events",
    "fleet-stale",
    "create",
    "xml-editor",
    "vm",
    "vm-hardware",
    "vm-log",
    "templates",
    "deploy",
    "jobs-set",
    "import",
    "undo",
)

# Another day, and a machine that was switched on at another time.
LATER = """
import datetime, time
class Later(datetime.datetime):
    @classmethod
    def now(cls, tz=None):
        return super().now(tz) + datetime.timedelta(days=400, hours=5)
datetime.datetime = Later
monotonic = time.monotonic
time.monotonic = lambda: monotonic() + 12_345.6
"""
ELSEWHERE = {"TZ": "Asia/Tokyo", "NO_COLOR": "1", "TERM": "linux", "HVTUI_URI": "test:///default", "LANG": "C"}


def taking(directory: Path, **environment: str) -> subprocess.Popen[str]:
    command = [sys.executable, str(ROOT / "scripts/screenshots.py"), *NAMES]
    values = {**os.environ, **environment, "SCREENSHOTS": str(directory), "SIZES": "80x24"}
    return subprocess.Popen(command, env=values, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def test_pictures_are_the_same_on_another_day_and_another_machine(tmp_path: Path):
    (tmp_path / "sitecustomize.py").write_text(LATER)
    now = taking(tmp_path / "now")
    later = taking(tmp_path / "later", PYTHONPATH=str(tmp_path), **ELSEWHERE)
    for each in (now, later):
        _output, errors = each.communicate(timeout=100)
        assert each.returncode == 0, errors
    pictures = {path.name: path.read_bytes() for path in (tmp_path / "now").iterdir()}
    assert sorted(pictures) == sorted(f"{name}-80x24.svg" for name in NAMES)
    for name, content in pictures.items():
        assert (tmp_path / "later" / name).read_bytes() == content, name
