"""The built-in recipes: templates that are made here, from this machine's own packages, without any image from outside.

A recipe makes files and says what is true of them; storing them as a template is the work of vm.template_steps. What
is costly stays in the cache (HVTUI_CACHE_DIR), so that a second template of the same recipe takes seconds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from host.units import GIB, MIB
from vm.create_request import Firmware
from vm.template_model import ImageRole, Readiness

Progress = Callable[[float | None, str], None]
IsCancelled = Callable[[], bool]


@dataclass(frozen=True, slots=True)
class Recipe:
    """A recipe. `roles` are the files that it makes, `size_bytes` about what they take in a library, `build_bytes`
    about what the cache needs while it is built."""

    name: str
    title: str
    roles: tuple[ImageRole, ...]
    size_bytes: int
    build_bytes: int


@dataclass(frozen=True, slots=True)
class BuiltFile:
    """A file that a recipe made; `format` is qcow2 or raw. It may lie in the cache: copy it, do not move it."""

    path: Path
    role: ImageRole
    format: str


@dataclass(frozen=True, slots=True)
class Built:
    """What a recipe made. `facts` are values of vm.template_model.Template's fields by name, as JSON has them."""

    files: tuple[BuiltFile, ...]
    facts: Mapping[str, str | bool]


RECIPES: Mapping[str, Recipe] = {
    recipe.name: recipe
    for recipe in (
        Recipe(
            "tiny",
            "a Linux of 20 MB that answers within seconds: for tests and for learning",
            (ImageRole.KERNEL, ImageRole.INITRD, ImageRole.DISK),
            40 * MIB,
            250 * MIB,
        ),
        Recipe(
            "debian",
            "a small Debian of this machine's own release, set up by cloud-init",
            (ImageRole.DISK,),
            200 * MIB,
            3 * GIB // 2,
        ),
    )
}


def obstacles(recipe: Recipe) -> tuple[str, ...]:
    """Why the recipe cannot be built on this machine, each with its remedy; nothing when it can."""
    if recipe.name == "tiny":
        from vm import recipe_tiny

        return recipe_tiny.obstacles()
    from vm import recipe_debian

    return recipe_debian.obstacles()


def obstacle(recipe: Recipe) -> str:
    """The same in one text, or "" when there is none."""
    return "; ".join(obstacles(recipe))


def build(
    recipe: Recipe,
    directory: Path,
    progress: Progress = lambda _fraction, _words: None,
    is_cancelled: IsCancelled = lambda: False,
) -> Built:
    """Make the recipe's files, some of them in `directory`, others in the cache, or take them from there.

    Raises Unsupported, NotFound, TimedOut, Cancelled, and HvtuiError with the words of the tool that failed.
    """
    if recipe.name == "tiny":
        return _tiny(directory, progress, is_cancelled)
    return _debian(progress, is_cancelled)


def _tiny(directory: Path, progress: Progress, is_cancelled: IsCancelled) -> Built:
    """Its host name comes by the kernel's command line (vm.tiny.kernel_arguments): it takes no seed."""
    from vm import recipe_tiny, tiny
    from vm.deploy_xml import NAME_FIELD
    from vm.profile_store import TINY

    made = recipe_tiny.build(directory, progress, is_cancelled=is_cancelled)
    files = (
        BuiltFile(made.disk, ImageRole.DISK, "qcow2"),
        BuiltFile(made.kernel, ImageRole.KERNEL, "raw"),
        BuiltFile(made.initrd, ImageRole.INITRD, "raw"),
    )
    facts: dict[str, str | bool] = {
        "description": RECIPES["tiny"].title,
        "origin": made.origin,
        "firmware": Firmware.BIOS.value,
        "readiness": (Readiness.AGENT if made.has_agent else Readiness.SERIAL).value,
        "takes_seed": False,
        "kernel_arguments": f"{tiny.kernel_arguments('')} tiny.hostname={NAME_FIELD}",
        "disk_bus": "virtio",
        "nic_model": "virtio",
        "hardware_profile": TINY,
    }
    return Built(files, facts)


def _debian(progress: Progress, is_cancelled: IsCancelled) -> Built:
    from vm import recipe_debian

    made = recipe_debian.build(progress, is_cancelled=is_cancelled)
    facts: dict[str, str | bool] = {
        "description": f"{made.title}, set up by cloud-init",
        "origin": made.origin,
        "os_id": f"http://debian.org/debian/{made.version or 'testing'}",
        "firmware": Firmware.BIOS.value,
        "readiness": Readiness.CLOUD_INIT.value,
        "takes_seed": True,
        "disk_bus": "virtio",
        "nic_model": "virtio",
    }
    return Built((BuiltFile(made.path, ImageRole.DISK, "qcow2"),), facts)
