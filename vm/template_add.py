"""Plans the adding of a template: from a file of this machine, a volume of the library, or a built-in recipe.

What can be known is said before the first byte is written: a taken name, an image that is damaged, encrypted or names
other files, too little room here or there, a missing tool. The steps are those of vm.template_steps. Changes nothing.
"""

from __future__ import annotations

import re
import shlex
import shutil
import uuid as uuids
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Any

from host import images, volumes
from host.connection import Host
from host.errors import HvtuiError, NameTaken, NotFound, Unsupported, UsageError
from host.image_kinds import ImageKind, kind_of, recognise
from host.paths import cache_directory
from host.plan import Plan, Step
from host.qcow2_header import read_header
from host.text import did_you_mean, printable
from host.units import GIB, KIB, MIB, format_bytes
from vm import template_steps
from vm.commands import host_blockers
from vm.create_checks import Findings
from vm.create_request import Firmware
from vm.library import read
from vm.library_pool import pool_steps, pool_warnings
from vm.template_manifest import check_template, check_template_name
from vm.template_model import DEFAULT_LIBRARY, ImageRole, Library, Readiness, Template, TemplateImage, library_words
from vm.template_prepare import disk_kind

__all__ = ["AddRequest", "OriginKind", "plan_add", "template_steps", "template_uuid", "tidy_steps"]

DEFAULT_LIMIT_BYTES = 256 * GIB
_HEAD_BYTES = 68 * KIB
_SLACK_BYTES = 16 * MIB  # manifests, and what a file system keeps for itself
_SHA256_DIGITS = 64
_NAMESPACE = uuids.UUID("6f1d2f0e-6a0c-4f55-9d2a-8c6f5f1d7b1e")


class OriginKind(StrEnum):
    """What a template is made from."""

    FILE = "file"  # on this machine
    VOLUME = "volume"  # in the library already
    RECIPE = "recipe"


@dataclass(frozen=True, slots=True)
class AddRequest:
    """A new template. `source` is an absolute path on this machine, a volume of the library, or a recipe's name.

    What is None is left to what is found in the image or to the recipe. sha256: that of the file as it is, or empty.
    is_raw: a disk without any mark of its own is raw. limit_bytes: the largest disk that is believed.
    """

    name: str
    source: str
    kind: OriginKind = OriginKind.FILE
    library: str = DEFAULT_LIBRARY
    sha256: str = ""
    is_raw: bool = False
    limit_bytes: int = DEFAULT_LIMIT_BYTES
    description: str | None = None
    os_id: str | None = None
    architecture: str | None = None
    firmware: Firmware | None = None
    readiness: Readiness | None = None
    takes_seed: bool | None = None
    disk_bus: str | None = None
    nic_model: str | None = None
    hardware_profile: str | None = None
    guest_profile: str | None = None
    tags: tuple[str, ...] | None = None


FACTS = (
    "description",
    "os_id",
    "architecture",
    "firmware",
    "readiness",
    "takes_seed",
    "disk_bus",
    "nic_model",
    "hardware_profile",
    "guest_profile",
    "tags",
)


def plan_add(host: Host, request: AddRequest) -> Plan:
    """The plan that adds the template of `request`; long. Raises UsageError for values that no library could take,
    ConnectionLost, Denied, Unsupported."""
    check_template_name(request.name)
    _check_sha256(request.sha256)
    _check_values(request)
    library = read(host, request.library)
    mark = str(uuids.uuid4())[:8]
    findings = Findings()
    if host.is_simulated:
        reason = "a simulated host's storage keeps no contents"
        findings.block(reason, "Connect to a real one", exit_code=Unsupported.exit_code)
    _check_name(library, request.name, findings)
    request = replace(request, os_id=_known_os(request.os_id, findings))
    source = _Source(host, request, library, findings).look()
    args: dict[str, Any] = {
        "pool": request.library,
        "name": request.name,
        "mark": mark,
        "kind": source.kind,
        "source": request.source,
        "sha256": request.sha256.lower(),
        "is_raw": request.is_raw,
        "limit_bytes": request.limit_bytes,
    }
    return Plan(
        title=f"Add the template {request.name} ({source.words})",
        host_uri=host.uri,
        steps=(
            *pool_steps(host, library),
            *tidy_steps(library),
            Step("template.prepare", source.title, args),
            _upload_step(host, args, source.roles),
            _store_step(request, args, source.words),
            finish_step(request.library, request.name, mark),
        ),
        command=("template", "add", *options(request), request.name),
        vm_uuid=template_uuid(host, request.library, request.name),
        vm_name=request.name,
        warnings=(*pool_warnings(library), *findings.warnings),
        blockers=(*host_blockers(host), *findings.blockers),
        keeps=(f"{request.source} stays where it is",) if request.kind is OriginKind.FILE else (),
        long=True,
    )


def template_uuid(host: Host, library: str, name: str) -> str:
    """What a job holds while it changes the template: nobody else's job changes it then."""
    return str(uuids.uuid5(_NAMESPACE, f"{host.uri}\n{library}\n{name}"))


def tidy_steps(library: Library) -> tuple[Step, ...]:
    """The step that removes what earlier changes have left behind, where there is any."""
    if not library.leftovers:
        return ()
    count = len(library.leftovers)
    title = f"Clear up after {'a change' if count == 1 else f'{count} changes'} of the library that ended half-way"
    return (Step("template.tidy", title, {"pool": library.pool}),)


def finish_step(library: str, name: str, mark: str) -> Step:
    """The last step of each change: its traces go, and the index is written anew."""
    return Step("template.finish", "Write the library's index", {"pool": library, "name": name, "mark": mark})


def _check_sha256(text: str) -> None:
    digits = frozenset("0123456789abcdefABCDEF")
    if text and (len(text) != _SHA256_DIGITS or not digits.issuperset(text)):
        cause = f"{printable(text, limit=80)!r} is no SHA-256"
        raise UsageError(cause, remedy="It has 64 hexadecimal digits: the first word that sha256sum prints")


def _check_values(request: AddRequest) -> None:
    """Refuse what no manifest can hold, with a stand-in for the images that are not there yet."""
    given = {key: getattr(request, key) for key in FACTS if getattr(request, key) is not None}
    stand_in = TemplateImage("x", ImageRole.DISK, "qcow2", 1, 1, "0" * _SHA256_DIGITS)
    check_template(Template(request.name, (stand_in,), **given))


def _known_os(os_id: str | None, findings: Findings) -> str | None:
    """The full id of a system that osinfo-db knows, also by its short id; any other as it is, with a warning."""
    if not os_id:
        return os_id
    from vm.os_catalogue import look_up

    try:
        found = look_up(os_id)
    except NotFound as error:
        findings.warnings.append(f"{error.cause}. {error.remedy}")
    except HvtuiError:
        return os_id  # there is no database on this machine
    else:
        if found.is_exact:
            return found.id
        findings.warnings.append(found.note)
        release = re.fullmatch(r"[a-z-]+?([\d.]+)", os_id)
        if release is not None and found.id.endswith(f"/{found.version}"):
            return found.id.removesuffix(found.version) + release[1]  # what the database will call it
    return os_id


def _check_name(library: Library, name: str, findings: Findings) -> None:
    if any(template.name == name for template in library.templates):
        reason = f"there is a template {name} in the library already"
        remedy = "Choose another name, or remove that one first"
        findings.block(reason, remedy, exit_code=NameTaken.exit_code)


def _upload_step(host: Host, args: Mapping[str, Any], roles: Iterable[ImageRole]) -> Step:
    kept = {key: args[key] for key in ("pool", "name", "mark", "sha256")}
    if args["kind"] == "adopt":
        return Step("template.upload", f"Take the SHA-256 of {args['source']}", kept)
    commands = []
    for role in roles:
        name = template_steps.image_name(args["name"], args["mark"], role)
        commands.append(_virsh(host, "vol-create-as", "--pool", args["pool"], "--name", name, "--capacity", "SIZE"))
        commands.append(_virsh(host, "vol-upload", "--pool", args["pool"], "--vol", name, "--file", "FILE"))
    return Step("template.upload", f"Upload it to the {library_words(args['pool'])}", kept, tuple(commands))


def _store_step(request: AddRequest, args: Mapping[str, Any], words: str) -> Step:
    facts: dict[str, Any] = {"origin": words}
    for key in FACTS:
        value = getattr(request, key)
        if value is not None:
            facts[key] = list(value) if isinstance(value, tuple) else value
    if request.takes_seed and request.readiness is None:
        facts["readiness"] = Readiness.CLOUD_INIT.value
    given = {key: args[key] for key in ("pool", "name", "mark")}
    now = datetime.now(UTC).isoformat()
    given |= {"facts": facts, "created_at": now, "revision": 1, "text": "", "replaces": "", "old_text": ""}
    return Step("template.store", f"Store the manifest of {request.name}", given)


def _virsh(host: Host, *arguments: str) -> str:
    return shlex.join(["virsh", "-c", host.uri, *arguments])


def options(request: AddRequest) -> tuple[str, ...]:
    """The options of the equivalent command."""
    usual = AddRequest(request.name, request.source)
    prefix = "vol:" if request.kind is OriginKind.VOLUME else ""
    words = ["--from", f"{prefix}{request.source}"]
    given = {
        "--sha256": request.sha256,
        "--library": request.library if request.library != usual.library else "",
        "--max-size": f"{request.limit_bytes // MIB}M" if request.limit_bytes != usual.limit_bytes else "",
        "--description": request.description,
        "--os": request.os_id,
        "--arch": request.architecture,
        "--firmware": request.firmware,
        "--readiness": request.readiness,
        "--disk-bus": request.disk_bus,
        "--nic-model": request.nic_model,
        "--hardware-profile": request.hardware_profile,
        "--guest-profile": request.guest_profile,
    }
    for key, value in given.items():
        words += [key, str(value)] if value else []
    for tag in request.tags or ():
        words += ["--tag", tag]
    if request.takes_seed is not None:
        words.append("--seed" if request.takes_seed else "--no-seed")
    return (*words, *(("--raw",) if request.is_raw else ()))


# What it is made of


@dataclass(frozen=True, slots=True)
class _Found:
    """What looking at the source told. `kind` is the step's: file, volume, adopt or recipe."""

    kind: str
    words: str
    title: str
    roles: tuple[ImageRole, ...] = (ImageRole.DISK,)


class _Source:
    """Looks at what a template is to be made of, without changing anything; used once."""

    def __init__(self, host: Host, request: AddRequest, library: Library, findings: Findings) -> None:
        self._host = host
        self._request = request
        self._library = library
        self._findings = findings

    def look(self) -> _Found:
        """What it is; what speaks against it goes to the findings."""
        if self._request.kind is OriginKind.RECIPE:
            return self._recipe()
        return self._volume() if self._request.kind is OriginKind.VOLUME else self._file()

    def _file(self) -> _Found:
        request, path = self._request, Path(self._request.source)
        shown = printable(path.name, limit=80)
        try:
            kind = recognise(path)
            if not kind.is_compressed and kind is not ImageKind.OVA:
                kind = disk_kind(path, is_raw=request.is_raw)
        except HvtuiError as error:
            self._findings.block_for(error)
            return _Found("file", f"the file {shown}", f"Look at {shown}")
        self._need_tools(kind)
        size_bytes = path.stat().st_blocks * 512
        if kind.is_disk:
            self._check_image(path, kind)
        if kind is not ImageKind.QCOW2:
            self._need_cache(size_bytes)
        self._need_pool(size_bytes)
        return _Found("file", f"the {kind.value} file {shown}", _preparing(kind, shown, has_sum=bool(request.sha256)))

    def _check_image(self, path: Path, kind: ImageKind) -> None:
        from host.image_convert import check_source

        try:
            check_source(path, kind, limit_bytes=self._request.limit_bytes)
        except HvtuiError as error:
            self._findings.block_for(error)

    def _volume(self) -> _Found:
        request, shown = self._request, printable(self._request.source, limit=80)
        found = _Found("volume", f"the volume {shown}", f"Fetch the volume {shown} and make a qcow2 of it")
        if not self._library.is_active or not self._library.exists:
            self._findings.block(
                f"there is no volume {shown}", "The library is not there yet", exit_code=NotFound.exit_code
            )
            return found
        with self._host.calls("look at the volume", request.source) as connection:
            pool = connection.storagePoolLookupByName(request.library)
            volume = volumes.find_volume(pool, request.source)
            if volume is None and not self._host.read_only:
                volumes.refresh(pool)  # a file that was just put there
                volume = volumes.find_volume(pool, request.source)
            if volume is None:
                remedy = did_you_mean(request.source, self._library.others, otherwise="See 'hvtui template list'")
                self._findings.block(f"there is no volume {shown} in it", remedy, exit_code=NotFound.exit_code)
                return found
            head = volumes.read_head(volume, size_bytes=_HEAD_BYTES)
            size_bytes = int(volume.info()[2])
        return self._in_library(found, head, size_bytes)

    def _in_library(self, found: _Found, head: bytes, size_bytes: int) -> _Found:
        request, shown = self._request, printable(self._request.source, limit=80)
        user = next((each.name for each in self._library.templates if _has(each, request.source)), None)
        if user is not None:
            self._findings.block(
                f"the template {user} has that image already", "Give it a copy", exit_code=NameTaken.exit_code
            )
        header, kind = read_header(head), kind_of(head)
        if header is not None:
            if header.problem:
                self._findings.block(f"{shown}: {header.problem}", "Make it whole first: qemu-img convert")
            return _Found("adopt", found.words, f"Look at the image {shown}")
        if kind is ImageKind.ISO or (kind is ImageKind.UNKNOWN and not request.is_raw):
            remedy = "If you know that it is a raw disk, say so with --raw"
            what = "an installation medium" if kind is ImageKind.ISO else "nothing that is known"
            self._findings.block(
                f"{shown} is {what}", "" if kind is ImageKind.ISO else remedy, exit_code=UsageError.exit_code
            )
        self._need_tools(kind)
        self._need_cache(2 * size_bytes)
        self._need_pool(size_bytes)
        return found

    def _recipe(self) -> _Found:
        from vm import recipes

        request = self._request
        recipe = recipes.RECIPES[request.source]
        if request.sha256:
            self._findings.block(
                "a recipe has no checksum to compare", "Leave --sha256 out", exit_code=UsageError.exit_code
            )
        for problem in recipes.obstacles(recipe):
            self._findings.block(problem, exit_code=Unsupported.exit_code)
        self._need_cache(recipe.build_bytes)
        self._need_pool(recipe.size_bytes)
        return _Found("recipe", f"the recipe {request.source}", f"Build {request.source}", recipe.roles)

    # Tools and room

    def _need_tools(self, kind: ImageKind) -> None:
        tools = [("qemu-img", "qemu-utils"), ("prlimit", "util-linux")]
        if kind is ImageKind.ZSTD:
            tools.append(("zstd", "zstd"))
        for tool, package in tools:
            if shutil.which(tool) is None:
                remedy = f"Install it: apt-get install {package}"
                self._findings.block(
                    f"{tool} is not installed on this machine", remedy, exit_code=Unsupported.exit_code
                )

    def _need_cache(self, size_bytes: int) -> None:
        directory = cache_directory()
        self._need(images.free_bytes(directory), size_bytes, f"the cache {directory}", "Set HVTUI_CACHE_DIR elsewhere")

    def _need_pool(self, size_bytes: int) -> None:
        free_bytes = self._library.free_bytes
        if free_bytes is None and self._host.is_local and not self._host.is_simulated:
            steps = pool_steps(self._host, self._library)
            free_bytes = images.free_bytes(str(steps[0].args["path"])) if steps else None
        self._need(free_bytes, size_bytes, f"the {library_words(self._library.pool)}", "Remove what is not needed")

    def _need(self, free_bytes: int | None, size_bytes: int, place: str, remedy: str) -> None:
        if free_bytes is not None and free_bytes < size_bytes + _SLACK_BYTES:
            wanted = format_bytes(size_bytes + _SLACK_BYTES)
            self._findings.block(f"{place} has {format_bytes(free_bytes)} free, and {wanted} are needed", remedy)


def _has(template: Any, volume: str) -> bool:
    return any(image.volume == volume for image in template.images)


def _preparing(kind: ImageKind, shown: str, *, has_sum: bool) -> str:
    first = "Compare its checksum, and c" if has_sum else "C"
    if kind is ImageKind.QCOW2:
        return f"{first}heck the image {shown}"
    if kind.is_compressed or kind is ImageKind.OVA:
        before = "Compare its checksum, and unpack" if has_sum else "Unpack"
        return f"{before} {shown}, to a qcow2; whether it is whole is seen only then"
    return f"{first}heck and convert {shown}, to a qcow2"
