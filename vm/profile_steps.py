"""The step verbs that store a profile in a library, and those that take one away.

A profile is a volume that never changes: its name holds a revision and the first digits of its text's SHA-256, so that
half a volume, left by whoever was killed, is known for what it is. A change stores a new revision and then removes the
older ones; at every moment the newest whole one is the profile. What a guest profile says may be secret: its text is a
reference (host.secrets) in the journal.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import libvirt

from host import volumes
from host.errors import Conflict, HvtuiError
from host.plan import Step
from host.steps import Args, Result, StepContext, StepVerb, register
from vm.profile_toml import KINDS, LARGEST_FILE_BYTES

_NAME = re.compile(
    rf"(?P<name>[A-Za-z0-9][A-Za-z0-9._-]*)\.r(?P<revision>[1-9]\d{{0,8}})-(?P<hash>[0-9a-f]{{8}})"
    rf"\.(?P<kind>{'|'.join(KINDS)})\.toml",
    re.ASCII,
)
_SECRET = "its text may hold secrets, which are kept nowhere: add it again"  # noqa: S105 - no password


@dataclass(frozen=True, slots=True, order=True)
class ProfileVolume:
    """What a volume's name says. They sort by revision."""

    kind: str
    name: str
    revision: int
    hash: str
    volume: str


def parse_volume_name(volume: str) -> ProfileVolume | None:
    """What the name of a profile's volume says; None for any other volume."""
    found = _NAME.fullmatch(volume)
    if found is None:
        return None
    return ProfileVolume(found["kind"], found["name"], int(found["revision"]), found["hash"], volume)


def volume_name(name: str, kind: str, revision: int, text: str) -> str:
    """The name of the volume that holds `text`."""
    return f"{name}.r{revision}-{text_hash(text)}.{kind}.toml"


def text_hash(text: str) -> str:
    """The digits of a profile's text that its volume's name holds."""
    import hashlib

    return hashlib.sha256(text.encode()).hexdigest()[:8]


def read_whole(found: Any, named: ProfileVolume) -> str:
    """The text of a profile's volume. Raises HvtuiError for half a volume or one changed by hand, libvirtError."""
    text = volumes.read_volume_text(found, limit_bytes=LARGEST_FILE_BYTES)
    if text_hash(text) != named.hash:
        remedy = "It was not written to its end, or changed by hand; it may be removed"
        raise HvtuiError("its text is not the one that its name stands for", about=named.volume, remedy=remedy)
    return text


def _write(ctx: StepContext, args: Args) -> Result:
    with ctx.calls("store the profile", args["name"]) as connection:
        pool = connection.storagePoolLookupByName(args["pool"])
        _refuse_newer(pool, args)
        found = volumes.find_volume(pool, args["volume"])
        if found is None or not _is_whole(found, args["volume"]):
            volumes.write_text(connection, args["pool"], args["volume"], args["text"])
    return {}


def _refuse_newer(pool: Any, args: Args) -> None:
    """Raise Conflict when somebody else stored a revision since the plan was made. Half a volume is nobody's."""
    for each in pool.listVolumes():
        named = parse_volume_name(each)
        if named is None or (named.name, named.kind) != (args["name"], args["kind"]):
            continue
        is_later = named.revision >= args["newest"] and each not in args["own"]
        found = volumes.find_volume(pool, each) if is_later else None
        if found is not None and _is_whole(found, each):
            remedy = "Look at it with 'hvtui profile show' and try again"
            raise Conflict("the profile was changed in the meantime", about=args["name"], remedy=remedy)


def _is_whole(found: Any, volume: str) -> bool:
    named = parse_volume_name(volume)
    try:
        return named is not None and bool(read_whole(found, named))
    except HvtuiError:
        return False


def _unwrite(ctx: StepContext, args: Args, result: Result | None) -> None:
    del result
    _delete(ctx, args, [args["volume"]])


def _delete(ctx: StepContext, args: Args, names: list[str]) -> list[str]:
    """Remove those of the volumes that are there; which they were."""
    removed = []
    with ctx.calls("remove the profile", args["name"]) as connection:
        try:
            pool = connection.storagePoolLookupByName(args["pool"])
        except libvirt.libvirtError as error:
            if error.get_error_code() != libvirt.VIR_ERR_NO_STORAGE_POOL:
                raise
            return []
        for name in names:
            found = volumes.find_volume(pool, name)
            if found is not None:
                volumes.delete(found)
                removed.append(name)
    return removed


def _inverse_write(args: Args, result: Result) -> Step:
    del result
    title = f"Remove the {args['kind']} profile {args['name']} again"
    own = {key: args[key] for key in ("pool", "name", "kind", "volume", "newest", "own")}
    text = args["text"] if isinstance(args["text"], str) else None  # a job's secrets are gone when it is over
    loss = f"the {args['kind']} profile {args['name']} as it was stored"
    return Step("profile.remove", title, {**own, "text": text, "older": []}, losses=(loss,))


def _remove(ctx: StepContext, args: Args) -> Result:
    """The newest one goes last: until then it is the profile."""
    return {"removed": _delete(ctx, args, [*args["older"], args["volume"]])}


def _put_back(ctx: StepContext, args: Args, result: Result | None) -> None:
    del result
    if args["text"] is None:
        return
    with ctx.calls("put the profile back", args["name"]) as connection:
        pool = connection.storagePoolLookupByName(args["pool"])
        found = volumes.find_volume(pool, args["volume"])
        if found is None or not _is_whole(found, args["volume"]):
            volumes.write_text(connection, args["pool"], args["volume"], args["text"])


def _inverse_remove(args: Args, result: Result) -> Step | str | None:
    removed: Any = result["removed"]
    if args["volume"] not in removed:
        return None
    if not isinstance(args["text"], str):
        return _SECRET
    title = f"Put the {args['kind']} profile {args['name']} back"
    back = {key: args[key] for key in ("pool", "name", "kind", "volume", "text", "newest", "own")}
    return Step("profile.write", title, back)


for _verb in (
    StepVerb("profile.write", _write, _unwrite, _inverse_write),
    StepVerb("profile.remove", _remove, _put_back, _inverse_remove),
):
    register(_verb)
