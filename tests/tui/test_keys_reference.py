"""docs/keys.md says what the registry says."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_page_of_keys_is_current() -> None:
    done = subprocess.run([sys.executable, "scripts/keys_reference.py", "--check"], cwd=ROOT, check=False)
    assert done.returncode == 0, "run 'make reference'"
