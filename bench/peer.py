"""virtui-manager, for comparison: installed from PyPI into an environment of its own, never imported here."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

VERSION = "3.3.3"
# PyGObject comes from Debian (python3-gi): pip would have to build it. netifaces is used by other parts only.
PACKAGES = ("textual", "libvirt-python", "PyYAML", "markdown-it-py", "packaging", "requests")
PYTHON = Path("/usr/bin/python3")


@dataclass(frozen=True, slots=True)
class Peer:
    """`why_not` is empty when it can be run."""

    command: Path
    why_not: str = ""


def install(directory: Path) -> Peer:
    """Make the environment below `directory`, or say why it cannot be had."""
    program = directory / "bin/virtui-manager"
    if not _has_gi():
        return Peer(program, "Debian's python3-gi is not installed")
    try:
        _run(str(PYTHON), "-m", "venv", "--system-site-packages", str(directory))
        _run(*_pip(directory), "--no-deps", f"virtui-manager=={VERSION}")
        _run(*_pip(directory), *PACKAGES)
    except subprocess.CalledProcessError as error:
        return Peer(program, error.stderr.decode(errors="replace").strip().splitlines()[-1:][0])
    return Peer(program)


def home_for(uri: str, home: Path) -> Mapping[str, str]:
    """The environment in which it connects to `uri` by itself: it reads its servers from its home directory."""
    configuration = home / ".config/virtui-manager/config.yaml"
    configuration.parent.mkdir(parents=True, exist_ok=True)
    configuration.write_text(f"servers:\n- {{name: bench, uri: '{uri}', autoconnect: true}}\n", encoding="utf-8")
    return {"HOME": str(home)}


def _has_gi() -> bool:
    known = PYTHON.exists() and subprocess.run([PYTHON, "-c", "import gi"], capture_output=True, check=False)
    return bool(known) and known.returncode == 0


def _pip(directory: Path) -> tuple[str, ...]:
    uv = shutil.which("uv")
    if uv:
        return uv, "pip", "install", "-q", "--python", str(directory / "bin/python")
    return str(directory / "bin/python"), "-m", "pip", "install", "-q"


def _run(*command: str) -> None:
    print("  ", *command, file=sys.stderr)
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
