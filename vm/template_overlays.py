"""Images that build on a template's and that no VM uses: what deletions without --all-disks leave. They are found, and
removed with the template where somebody asks for it; the step looks again before each one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from host import volumes
from host.connection import Host
from host.errors import Conflict
from host.steps import Args, Result, StepContext, StepVerb, register
from vm.disk_uses import World, read_world, why_kept
from vm.template_model import Library, Template


@dataclass(frozen=True, slots=True)
class Overlay:
    """An image that no VM uses, nor anything that builds on it. `keep_reason` says why it cannot be removed."""

    path: str
    pool: str = ""
    volume: str = ""
    size_bytes: int = 0
    keep_reason: str = ""


def unused_overlays(host: Host, library: Library, template: Template) -> tuple[Overlay, ...]:
    """Those on the template's images, each before what it builds on. Raises ConnectionLost, Denied."""
    with host.calls("see what builds on the template", template.name) as connection:
        world = read_world(connection, host, without_uuid="", refresh=not host.read_only)
    paths = [world.by_name.get((library.pool, image.volume)) for image in template.images]
    found = {each for volume in paths if volume is not None for each in world.look_up(world.builders, volume.path)}
    unused = {path for path in found if not _is_used(world, path)}
    order = sorted(unused, key=lambda path: (len(world.look_up(world.builders, path)), path))
    return tuple(_overlay(world, path, unused) for path in order)


def _is_used(world: World, path: str) -> bool:
    return any(world.look_up(world.users, each) for each in (path, *world.look_up(world.builders, path)))


def _overlay(world: World, path: str, unused: set[str]) -> Overlay:
    volume = world.volume_at(path)
    reason = why_kept(world, path, without=unused)
    if volume is None:
        return Overlay(path, keep_reason=reason)
    return Overlay(path, volume.pool, volume.name, volume.size_bytes, reason)


def _remove(ctx: StepContext, args: Args) -> Result:
    removed = []
    for path, pool_name, name in args["overlays"]:
        with ctx.calls("remove an overlay", path) as connection:
            reason = why_kept(read_world(connection, ctx.host, without_uuid=""), path)
            found: Any | None = volumes.find_volume(connection.storagePoolLookupByName(pool_name), name)
            if found is None or found.path() != path:
                continue
            if reason:
                raise Conflict(f"the image must stay: {reason}", about=path, remedy="Look at the plan again")
            volumes.delete(found)
        removed.append(path)
    return {"removed": removed}


def _gone(_args: Args, result: Result) -> str | None:
    removed = result["removed"]
    if not isinstance(removed, list) or not removed:
        return None
    return f"images that no VM used are removed for good: {', '.join(map(str, removed))}"


register(StepVerb("template.remove-overlays", _remove, None, _gone))
