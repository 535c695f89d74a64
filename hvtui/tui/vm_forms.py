"""The fields of an export and of a capture, and how their texts become arguments or a request. No widget."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from host.text import printable
from hvtui.tui.form_fields import Field, NotYet
from vm.template_model import DEFAULT_LIBRARY, Readiness

if TYPE_CHECKING:
    from vm.model import Vm
    from vm.template_capture import CaptureRequest

REMOVED, GONE, KEPT = "removed", "gone", "kept"  # the values of vm.template_capture.Identity
OWN = ("as its own template says", "")
_IDENTITY = (
    ("virt-sysprep takes it out of the copy", REMOVED),
    ("the guest has taken it away itself", GONE),
    ("kept: every VM made from it has it", KEPT),
)
_READINESS = (
    OWN,
    ("nobody knows: running is ready", Readiness.NONE.value),
    ("when cloud-init has finished", Readiness.CLOUD_INIT.value),
    ("when its agent answers", Readiness.AGENT.value),
    ("when its serial console says so", Readiness.SERIAL.value),
)
_SEED = (OWN, ("yes", "yes"), ("no", "no"))
_MOST_TRIES = 100


def export_fields(vm: Vm) -> tuple[Field, ...]:
    """The fields of a VM's export."""
    targets = [disk.target for disk in vm.config.disks if disk.device == "disk"] if vm.config is not None else []
    example = printable(targets[-1], limit=20) if len(targets) > 1 else "vdb"
    return (
        Field("directory", "directory", str(free_directory(vm.name)), "on this machine; it is made"),
        Field("leave_out", "leave out", "", f"disks that shall not be in it, such as: {example}"),
    )


def free_directory(vm_name: str) -> Path:
    """A directory in the user's own that is not there yet, named like the VM as far as that is harmless."""
    name = re.sub(r"[^\w.+-]", "_", vm_name).lstrip(".-")[:100] or "vm"
    home = Path.home()
    tries = [home / name, *(home / f"{name}-{number}" for number in range(2, _MOST_TRIES))]
    return next((each for each in tries if not each.exists()), tries[0])


def export_arguments(values: Mapping[str, str]) -> tuple[Path, tuple[str, ...]]:
    """The directory and the disks to leave out. Raises NotYet without a directory."""
    directory = values["directory"].strip()
    if not directory:
        raise NotYet("say where the bundle goes", about="directory")
    return Path(directory), listed(values["leave_out"])


def capture_fields(vm: Vm) -> tuple[Field, ...]:
    """The fields of a template made from a VM."""
    has_template = vm.config is not None and bool(vm.config.template)
    own = OWN if has_template else ("what is safe", "")
    return (
        Field("name", "name", "", "of the new template: letters, digits, . _ -"),
        Field("library", "library", DEFAULT_LIBRARY, "the storage pool of templates"),
        Field("identity", "identity", REMOVED, choices=_IDENTITY),
        Field("description", "description", "", "what it is for"),
        Field("readiness", "ready", "", choices=(own, *_READINESS[1:])),
        Field("seed", "takes a seed", "", choices=(own, *_SEED[1:])),
        Field("tags", "tags", "", "such as: web, prod; empty: those of the VM"),
    )


def capture_request(values: Mapping[str, str]) -> CaptureRequest:
    """The request that the fields ask for. Raises NotYet without a name."""
    from vm.template_capture import CaptureRequest, Identity

    chosen = {key: value.strip() for key, value in values.items()}
    if not chosen["name"]:
        raise NotYet("give the new template a name", about="name")
    return CaptureRequest(
        chosen["name"],
        library=chosen["library"] or DEFAULT_LIBRARY,
        identity=Identity(chosen["identity"]),
        description=chosen["description"] or None,
        readiness=Readiness(chosen["readiness"]) if chosen["readiness"] else None,
        takes_seed=chosen["seed"] == "yes" if chosen["seed"] else None,
        tags=listed(chosen["tags"]),
    )


def listed(text: str) -> tuple[str, ...]:
    """The words of a list with commas."""
    return tuple(word.strip() for word in text.split(",") if word.strip())
