"""The fields of an export, a capture, a clone and a VM's size, and how their texts become arguments or a request. No
widget."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from host.errors import UsageError
from host.text import printable
from host.units import format_bytes
from hvtui.tui.form_fields import YES_NO, Field, NotYet, size_bytes, whole_number
from hvtui.tui.symbols import NONE
from vm.template_model import DEFAULT_LIBRARY, Readiness

if TYPE_CHECKING:
    from vm.model import Vm
    from vm.template_capture import CaptureRequest

REMOVED, GONE, KEPT = "removed", "gone", "kept"  # the values of vm.template_capture.Identity
LINKED, FULL = "linked", "full"
_COPIES = (("whole copies, also of one that runs", FULL), ("linked: its disks become the base of all", LINKED))
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


CLONE_FIELDS: tuple[Field, ...] = (
    Field("name", "name", "", "twin, or for many: twin-{}"),
    Field("count", "how many", "1"),
    Field("first", "first number", "1"),
    Field("disks", "disks", FULL, choices=_COPIES),
    Field("pool", "pool", "", "where those of its origin are"),
    Field("start", "start now", "no", choices=YES_NO),
)


@dataclass(frozen=True, slots=True)
class CloneWish:
    """What a clone form asks for: the arguments of vm.clone.plan_clone."""

    names: tuple[str, ...]
    linked: bool
    start: bool
    pool: str
    command: tuple[str, ...]


def clone_wish(vm_name: str, values: Mapping[str, str]) -> CloneWish:
    """What the fields ask for. Raises NotYet without a name, UsageError naming the field."""
    from vm.name_patterns import expand

    chosen = {key: value.strip() for key, value in values.items()}
    if not chosen["name"]:
        raise NotYet("give the clone a name", about="name")
    count = whole_number("how many", chosen["count"])
    first = whole_number("first number", chosen["first"], least=0)
    linked, start, pool = chosen["disks"] == LINKED, chosen["start"] == "yes", chosen["pool"]
    try:
        names = expand(chosen["name"], count, first)
    except UsageError as error:
        raise UsageError(error.cause, about="name", remedy=error.remedy) from None
    options = {"-n": str(count) if count != 1 else "", "--first": str(first) if first != 1 else "", "--pool": pool}
    words = [word for option, value in options.items() if value for word in (option, value)]
    words += [option for option, is_set in (("--linked", linked), ("--start", start)) if is_set]
    separator = ["--"] if vm_name.startswith("-") or chosen["name"].startswith("-") else []
    return CloneWish(names, linked, start, pool, ("vm", "clone", *words, *separator, vm_name, chosen["name"]))


def size_fields(vm: Vm) -> tuple[Field, ...]:
    """Memory and vCPUs, as the next start gets them."""
    now = sizes_of(vm)
    return (Field("memory", "memory", now["memory"], "2G, 512M"), Field("vcpus", "vCPUs", now["vcpus"], "2"))


def sizes_of(vm: Vm) -> dict[str, str]:
    """What the VM's next start gets, by the setting's name."""
    config = vm.config
    memory_bytes = (config.next_memory_bytes if config is not None else 0) or vm.memory_bytes or vm.memory_max_bytes
    vcpus = (config.next_vcpus if config is not None else 0) or vm.vcpus or ""
    return {"memory": format_bytes(memory_bytes), "vcpus": str(vcpus)}


def size_words(vm: Vm) -> tuple[str, ...]:
    """What it has now, and the most that it can be given while it runs."""
    memory_bytes = vm.memory_bytes or vm.memory_max_bytes
    most_memory = format_bytes(max(vm.memory_max_bytes, memory_bytes))
    most_vcpus = max(vm.config.vcpus_max if vm.config is not None else 0, vm.vcpus or 0)
    has = f"It has {format_bytes(memory_bytes)} of memory and {vm.vcpus or NONE} vCPU{'' if vm.vcpus == 1 else 's'}"
    if not vm.is_active:
        return (f"{has}; it is {vm.state.value}.",)
    return (f"{has}.", f"Without a restart it can have up to {most_memory} and {most_vcpus}.")


def size_changes(vm: Vm, values: Mapping[str, str]) -> dict[str, str]:
    """What is to change, for vm.settings.plan_set. Raises NotYet when nothing is, UsageError naming the field."""
    now, chosen = sizes_of(vm), {key: value.strip() for key, value in values.items()}
    changes = {key: value for key, value in chosen.items() if value != now[key]}
    if not changes:
        raise NotYet("nothing is changed")
    size_bytes("memory", chosen["memory"])
    whole_number("vCPUs", chosen["vcpus"])
    return changes


def listed(text: str) -> tuple[str, ...]:
    """The words of a list with commas."""
    return tuple(word.strip() for word in text.split(",") if word.strip())
