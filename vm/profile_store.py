"""The profiles of a library: those that are stored in it, and the built-in ones. Plans their adding and removing.

A built-in profile needs no storing; a stored one of the same name and kind takes its place. How profiles are stored,
and why a kill at any moment does no harm: vm.profile_steps. This module changes nothing.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import libvirt

from host import secrets, volumes
from host.connection import Host
from host.errors import HvtuiError, NameTaken, NotFound, UsageError
from host.plan import Blocker, Danger, Json, Plan, Step
from host.text import did_you_mean, printable
from host.units import GIB
from vm import library as libraries
from vm import profile_toml, profile_values
from vm.commands import host_blockers
from vm.create_request import TINY_MEMORY_BYTES
from vm.library_pool import pool_steps, pool_warnings
from vm.profile_model import GuestProfile, GuestUser, HardwareProfile
from vm.profile_settings import FULL_SUDO
from vm.profile_steps import ProfileVolume, parse_volume_name, read_whole, text_hash, volume_name
from vm.profile_toml import KINDS, Profile
from vm.template_model import DEFAULT_LIBRARY, Library

TINY = "tiny"  # the recipe of that name takes it for its VMs
BUILT_IN: tuple[HardwareProfile, ...] = (
    HardwareProfile(name="small", description="built in: for one small service", vcpus=1, memory_bytes=GIB),
    HardwareProfile(name="medium", description="built in: for most servers", vcpus=2, memory_bytes=4 * GIB),
    HardwareProfile(name="large", description="built in: for a database or a build", vcpus=4, memory_bytes=8 * GIB),
    HardwareProfile(name=TINY, description="built in: for the recipe tiny", vcpus=1, memory_bytes=TINY_MEMORY_BYTES),
)
DEFAULT_GUEST = "default"
_MOST_KEY_FILES = 20
_LARGEST_KEY_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class Entry:
    """One profile of a library. `volume` is empty for a built-in one."""

    kind: str
    profile: Profile
    volume: str = ""
    revision: int = 0

    @property
    def name(self) -> str:
        return self.profile.name


@dataclass(frozen=True, slots=True)
class Profiles:
    """The profiles of a library at one moment, by kind and name; `problems` are what cannot be read, in words."""

    entries: tuple[Entry, ...]
    problems: tuple[str, ...] = ()

    def named(self, name: str) -> tuple[Entry, ...]:
        """Those of that name: of one kind or of both."""
        return tuple(entry for entry in self.entries if entry.name == name)

    @property
    def hardware(self) -> tuple[HardwareProfile, ...]:
        found = (entry.profile for entry in self.entries)
        return tuple(profile for profile in found if isinstance(profile, HardwareProfile))

    @property
    def guests(self) -> tuple[GuestProfile, ...]:
        found = (entry.profile for entry in self.entries)
        return tuple(profile for profile in found if isinstance(profile, GuestProfile))


def kind_of(profile: Profile) -> str:
    """ "hardware" or "guest"."""
    return "hardware" if isinstance(profile, HardwareProfile) else "guest"


# Reading


def read(host: Host, library: str = DEFAULT_LIBRARY) -> Profiles:
    """Every profile of the library, and the built-in ones: a call for each stored one. No library is an empty one.
    Raises ConnectionLost, Denied."""
    with host.calls("read the profiles", library) as connection:
        return _read(connection, library, None)


def load(host: Host, library: str, name_or_path: str) -> tuple[HardwareProfile | None, GuestProfile | None]:
    """The profiles that a word means: a file (it holds a slash or ends in .toml) is one of them, a name those of that
    name in the library or built in. Raises NotFound with the nearest name, UsageError."""
    if is_path(name_or_path):
        return _pair([read_file(name_or_path)])
    with host.calls("read the profiles", library) as connection:
        found = _read(connection, library, name_or_path)
        if found.named(name_or_path):
            return _pair(entry.profile for entry in found.named(name_or_path))
        known = sorted({entry.name for entry in _built_in()} | {each.name for each in _volumes(connection, library)})
    shown = printable(name_or_path, limit=60)
    problem = f" that can be read ({found.problems[0]})" if found.problems else ""
    raise NotFound(f"there is no profile {shown!r}{problem}", remedy=did_you_mean(name_or_path, known))


def is_path(name_or_path: str) -> bool:
    """True for the path of a file, False for a profile's name."""
    return "/" in name_or_path or name_or_path.endswith(".toml")


def read_file(path: str) -> Profile:
    """The profile in a file here. Raises NotFound, UsageError, HvtuiError."""
    file = Path(path).expanduser()
    try:
        with file.open("rb") as opened:
            text = opened.read(profile_toml.LARGEST_FILE_BYTES + 1).decode()
    except (FileNotFoundError, NotADirectoryError) as error:
        raise NotFound("there is no such file", about=path, remedy="A profile is a name or a .toml file") from error
    except UnicodeDecodeError as error:
        raise UsageError("the file is not UTF-8 text", about=path) from error
    except OSError as error:
        raise HvtuiError(f"cannot read it: {error.strerror}", about=path) from error
    return profile_toml.parse(text, path)


def _pair(found: Iterable[Profile]) -> tuple[HardwareProfile | None, GuestProfile | None]:
    hardware: HardwareProfile | None = None
    guest: GuestProfile | None = None
    for profile in found:
        if isinstance(profile, HardwareProfile):
            hardware = profile
        else:
            guest = profile
    return hardware, guest


def _read(connection: Any, library: str, wanted: str | None) -> Profiles:
    """The profiles, or those of one name only."""
    entries = {(entry.kind, entry.name): entry for entry in _built_in() if wanted in {None, entry.name}}
    problems: list[str] = []
    by_profile: dict[tuple[str, str], list[ProfileVolume]] = {}
    found = _volumes(connection, library)
    for named in found:
        if wanted in {None, named.name}:
            by_profile.setdefault((named.kind, named.name), []).append(named)
    for key, revisions in by_profile.items():
        entry, found_wrong = _newest(found, revisions)
        problems += found_wrong
        if entry is not None:
            entries[key] = entry
    order = {kind: place for place, kind in enumerate(KINDS)}
    return Profiles(tuple(sorted(entries.values(), key=lambda each: (order[each.kind], each.name))), tuple(problems))


def _volumes(connection: Any, library: str) -> Mapping[ProfileVolume, Any]:
    """The profiles' volumes; none where there is no such pool or it is not active."""
    try:
        pool = connection.storagePoolLookupByName(library)
        listed = pool.listAllVolumes(0) if pool.isActive() else []
    except libvirt.libvirtError as error:
        if error.get_error_code() != libvirt.VIR_ERR_NO_STORAGE_POOL:
            raise
        return {}
    named = ((parse_volume_name(volume.name()), volume) for volume in listed)
    return {each: volume for each, volume in named if each is not None}


def _newest(found: Mapping[ProfileVolume, Any], revisions: list[ProfileVolume]) -> tuple[Entry | None, list[str]]:
    """The newest one that can be read; what is wrong with those that come before it."""
    problems: list[str] = []
    for named in sorted(revisions, reverse=True):
        try:
            profile = profile_toml.parse(read_whole(found[named], named), named.volume)
        except HvtuiError as error:
            problems.append(printable(f"{named.volume}: {error.cause}", limit=300))
            continue
        except libvirt.libvirtError as error:
            if error.get_error_domain() == libvirt.VIR_FROM_RPC:
                raise
            if error.get_error_code() != libvirt.VIR_ERR_NO_STORAGE_VOL:  # removed in between
                problems.append(printable(f"{named.volume}: {error.get_error_message()}", limit=300))
            continue
        if kind_of(profile) == named.kind:
            return Entry(named.kind, replace(profile, name=named.name), named.volume, named.revision), problems
        problems.append(f"{named.volume}: it holds a {kind_of(profile)} profile")
    return None, problems


# Built in


def _built_in() -> tuple[Entry, ...]:
    return (*(Entry("hardware", each) for each in BUILT_IN), Entry("guest", suggested_guest()))


def suggested_guest() -> GuestProfile:
    """The built-in guest profile: the user who asks, with the public keys of ~/.ssh, who may use sudo."""
    user = GuestUser(_user_name(), _public_keys(), sudo=FULL_SUDO)
    return GuestProfile(name=DEFAULT_GUEST, description="built in: you, with your ssh keys", users=(user,))


def _user_name() -> str:
    """The name of who asks, also behind sudo; root and names that a guest cannot have become admin."""
    import pwd

    name = os.environ.get("SUDO_USER", "") if os.getuid() == 0 else ""
    if not name:
        with suppress(KeyError):
            name = pwd.getpwuid(os.getuid()).pw_name
    try:
        return profile_values.user_name(name) if name != "root" else "admin"
    except UsageError:
        return "admin"


def _public_keys() -> tuple[str, ...]:
    """The public keys of who asks; what is no key is passed over."""
    home = Path("~" + os.environ["SUDO_USER"]) if os.getuid() == 0 and os.environ.get("SUDO_USER") else Path("~")
    keys: list[str] = []
    with suppress(OSError, RuntimeError):
        for path in sorted((home.expanduser() / ".ssh").glob("*.pub"))[:_MOST_KEY_FILES]:
            with suppress(OSError, UnicodeDecodeError, UsageError), path.open("rb") as file:
                keys.append(profile_values.ssh_key(file.read(_LARGEST_KEY_BYTES).decode()))
    return tuple(dict.fromkeys(keys))


# Plans


def plan_add_profile(
    host: Host, library: str, profile: Profile, *, replaces: bool = False, command: tuple[str, ...] = ()
) -> Plan:
    """Store a profile under its name; with `replaces` as a new revision of the one there, which must exist. `command`
    is the equivalent one's words, without secrets. Raises UsageError, ConnectionLost, Denied."""
    profile_values.profile_name(profile.name)
    kind, text = kind_of(profile), profile_toml.to_toml(profile)
    profile_toml.parse(text, profile.name)  # what is stored can be read again
    found = _look(host, library, profile.name, kind)
    revision = max((each.revision for each in found.volumes), default=0) + 1
    volume = volume_name(profile.name, kind, revision, text)
    identity: dict[str, Json] = {"pool": library, "name": profile.name, "kind": kind, "newest": revision}
    own = [volume, *(each.volume for each in found.volumes)]
    deed = "Store a new revision of" if replaces else "Store"
    stored = {**identity, "volume": volume, "own": own, "text": _text_argument(profile, text)}
    steps = [
        *pool_steps(host, found.library),
        Step("profile.write", f"{deed} the {kind} profile {profile.name}", stored, _upload(host, library, volume)),
    ]
    if found.volumes:
        removed = {**identity, "own": own, **found.removal()}
        commands = tuple(_delete(host, library, each.volume) for each in found.volumes)
        steps.append(Step("profile.remove", f"Remove the older revision of {profile.name}", removed, commands))
    return Plan(
        title=f"{'Change' if replaces else 'Add'} the {kind} profile {profile.name}",
        host_uri=host.uri,
        steps=tuple(steps),
        command=command or ("profile", "edit" if replaces else "add", profile.name),
        warnings=pool_warnings(found.library),
        blockers=(*host_blockers(host), *_adding_blockers(found, profile, replaces)),
    )


def plan_remove_profile(host: Host, library: str, name: str, kind: str) -> Plan:
    """Remove a stored profile; VMs that were made with it stay as they are. Raises NotFound with the nearest name."""
    found = _look(host, library, name, kind)
    if not found.volumes:
        _refuse_missing(host, library, name, kind)
    newest = max(each.revision for each in found.volumes)
    args: dict[str, Json] = {"pool": library, "name": name, "kind": kind, "newest": newest}
    own: list[Json] = [each.volume for each in found.volumes]
    title = f"Remove the {kind} profile {printable(name, limit=80)}"
    commands = tuple(_delete(host, library, each.volume) for each in found.volumes)
    is_secret = found.entry is not None and _holds_secrets(found.entry.profile)
    using = [each.name for each in found.library.templates if name in _defaults_of(each, kind)]
    return Plan(
        title=title,
        host_uri=host.uri,
        steps=(Step("profile.remove", title, {**args, "own": own, **found.removal()}, commands),),
        command=("profile", "remove", name, "--kind", kind),
        danger=Danger.DESTRUCTIVE if is_secret or found.entry is None else Danger.NONE,
        losses=(f"the {kind} profile {printable(name, limit=80)}",) if is_secret or found.entry is None else (),
        keeps=("VMs that were made with it",),
        warnings=(f"templates name it as their default: {', '.join(using)}",) if using else (),
        blockers=host_blockers(host),
    )


def _defaults_of(template: Any, kind: str) -> tuple[str, ...]:
    return (template.hardware_profile if kind == "hardware" else template.guest_profile,)


@dataclass(frozen=True, slots=True)
class _Found:
    """What is stored under one name: every revision, and the newest one that can be read with its text."""

    library: Library
    volumes: tuple[ProfileVolume, ...]  # the newest first
    entry: Entry | None
    text: str | None

    def removal(self) -> dict[str, Json]:
        """The arguments that take all of it away, and the newest last."""
        newest = self.entry.volume if self.entry else self.volumes[0].volume
        text = _text_argument(self.entry.profile, self.text) if self.entry and self.text is not None else None
        older: list[Json] = [each.volume for each in reversed(self.volumes) if each.volume != newest]
        return {"volume": newest, "text": text, "older": older}


def _look(host: Host, library: str, name: str, kind: str) -> _Found:
    with host.calls("read the profiles", library) as connection:
        there = libraries.read_here(connection, library)
        found = {
            each: volume
            for each, volume in _volumes(connection, library).items()
            if (each.name, each.kind) == (name, kind)
        }
        entry, _ = _newest(found, list(found))
        text = None
        if entry is not None:
            volume = next(volume for each, volume in found.items() if each.volume == entry.volume)
            text = volumes.read_volume_text(volume, limit_bytes=profile_toml.LARGEST_FILE_BYTES)
    if entry is not None and text is not None and text_hash(text) not in entry.volume:
        text = None  # replaced between two calls
    return _Found(there, tuple(sorted(found, reverse=True)), entry, text)


def _adding_blockers(found: _Found, profile: Profile, replaces: bool) -> tuple[Blocker, ...]:
    kind = kind_of(profile)
    if replaces and found.entry is None:
        remedy = f"Add it: 'hvtui profile add {profile.name} --kind {kind}'"
        return (Blocker(f"there is no stored {kind} profile {profile.name}", remedy, exit_code=NotFound.exit_code),)
    if not replaces and found.entry is not None:
        reason = f"there is a {kind} profile {profile.name} already"
        return (Blocker(reason, f"'hvtui profile edit {profile.name}' changes it", exit_code=NameTaken.exit_code),)
    return ()


def _refuse_missing(host: Host, library: str, name: str, kind: str) -> None:
    shown = printable(name, limit=60)
    entries = [entry for entry in read(host, library).entries if entry.kind == kind]
    if any(entry.name == name for entry in entries):
        remedy = "It needs no removing: 'hvtui profile add' stores one that takes its place"
        raise UsageError(f"the {kind} profile {shown} is built in", remedy=remedy)
    stored = [entry.name for entry in entries if entry.volume]
    remedy = did_you_mean(name, stored, otherwise="" if stored else "None is stored in this library")
    raise NotFound(f"there is no {kind} profile {shown!r}", remedy=remedy)


def _holds_secrets(profile: Profile) -> bool:
    """True for what must not get into the journal: hashes, and text that nobody knows the meaning of."""
    if isinstance(profile, HardwareProfile):
        return False
    return bool(profile.user_data or profile.run or any(user.password_hash for user in profile.users))


def _text_argument(profile: Profile, text: str) -> Json:
    return secrets.offer(text) if _holds_secrets(profile) else text


def _upload(host: Host, library: str, volume: str) -> tuple[str, ...]:
    create = ("vol-create-as", "--pool", library, "--name", volume, "--capacity", "0", "--format", "raw")
    upload = ("vol-upload", "--pool", library, "--vol", volume, "--file", "FILE")
    return tuple(shlex.join(["virsh", "-c", host.uri, *words]) for words in (create, upload))


def _delete(host: Host, library: str, volume: str) -> str:
    return shlex.join(["virsh", "-c", host.uri, "vol-delete", "--pool", library, "--vol", volume])
