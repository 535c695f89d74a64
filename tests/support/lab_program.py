"""hvtui on a lab host itself, as its administrator has it there: a copy of this checkout, beside the host's Python."""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.lab_host import LabHost

PLACE = "/opt/hvtui"
_OWN = ("host", "vm", "hvtui")
_NEEDED = ("click", "libvirt", "libvirtmod", "libvirt_qemu", "libvirtmod_qemu", "psutil")  # by the headless commands
_ROOT = Path(__file__).resolve().parents[2]


@contextmanager
def installed(host: LabHost) -> Iterator[list[str]]:
    """The words of the command there: `host.run([*hvtui, "vm", "list"])`. Taken away again at the end."""
    place = host.path(PLACE)
    place.mkdir()
    try:
        for name in _OWN:
            shutil.copytree(_ROOT / name, place / name, ignore=shutil.ignore_patterns("__pycache__"))
        for name in _NEEDED:
            _copy_package(name, place)
        yield ["env", f"PYTHONPATH={PLACE}", "HVTUI_ACCEL=qemu", "python3", "-m", "hvtui", "--headless"]
    finally:
        shutil.rmtree(host.path(PLACE), ignore_errors=True)


def _copy_package(name: str, place: Path) -> None:
    found = importlib.util.find_spec(name)
    if found is None or found.origin is None:
        raise RuntimeError(f"{name} is not installed here")
    origin = Path(found.origin)
    if origin.name == "__init__.py":
        shutil.copytree(origin.parent, place / name)
    else:
        shutil.copy(origin, place)
